"""`--kv-cache-dtype fp8`: what a bundle says of its cache, what its program computes, and who is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import ModelError, UsageError

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.cli.show import describe_bundle
from amdnfs_compile.identity import model_digest
from amdnfs_compile.options import KvCacheDtype
from amdnfs_compile.plan import plan_compile
from amdnfs_compile.verify import DISTANCE, TRANSFORMERS, verify_bundle
from tests.twins import make_twin

OPTIONS = CompileOptions(prefill_chunks=(16,), decode_batches=(2,), kv_cache_dtype=KvCacheDtype.FP8)


def test_a_cache_of_fp8_agrees_with_transformers_whose_keys_are_rounded(tmp_path: Path) -> None:
    model = make_twin("qwen3", tmp_path / "model", torch.float32)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", OPTIONS)
    manifest = read_manifest(bundle)
    assert manifest.cache_dtype == "fp8"
    assert manifest.page_bytes == 2 * 2 * 16 * 2 * 16  # layers, halves, tokens, heads, head dim: a byte each
    assert describe_bundle(bundle)["cache"]["dtype"] == "fp8"
    checks = verify_bundle(bundle, model, "cpu")
    assert all(check.is_right for check in checks)
    errors = {check.name: check.error for check in checks if check.against == TRANSFORMERS}
    distance = errors.pop(DISTANCE)
    # Rounding keys and values moves the logits; the program is nearer to the rounded model than that.
    assert distance > 1e-3
    assert max(errors.values()) < distance
    assert min(errors.values()) < 1e-4


@pytest.mark.emulator
@pytest.mark.skipif(
    not os.environ.get(HIP_DYLIB_VARIABLE),
    reason=f"{HIP_DYLIB_VARIABLE} does not name a folder with a stand-in libamdhip64.so",
)
def test_amd_code_with_a_cache_of_fp8(tmp_path: Path) -> None:
    """Both flavours, e4m3fnuz and e4m3fn: whole and chunked prefill, decode, pages of a prefix, a batch."""
    targets = ["gfx942", "gfx1201"]
    model = make_twin("llama", tmp_path / "model", torch.float16)
    bundle = compile_model(model, targets, tmp_path / "bundle", OPTIONS)
    for target in targets:
        checks = [item for item in verify_bundle(bundle, model, target, num_tokens=20) if item.name != DISTANCE]
        assert len(checks) == 5
        assert all(check.is_right for check in checks), (target, checks)


@pytest.mark.parametrize("target", ["gfx90a", "gfx1100", "cuda-sm_80", "vulkan"])
def test_targets_without_fp8_are_refused(tmp_path: Path, target: str) -> None:
    model = make_twin("llama", tmp_path / "model", torch.float16)
    with pytest.raises(UsageError) as error:
        plan_compile(str(model), ["gfx942", target], OPTIONS)
    remedy = f"use --kv-cache-dtype auto, or leave out {target}"
    assert str(error.value) == f"--kv-cache-dtype fp8: {target} has no fp8; {remedy}"


def test_attention_code_that_reads_its_own_cache_is_refused(tmp_path: Path) -> None:
    model = make_twin("bloom", tmp_path / "model", torch.float16)
    with pytest.raises(ModelError, match=r"bloom: its attention code reads keys and values itself.* auto"):
        plan_compile(str(model), ["cpu"], OPTIONS)


def test_a_bundle_with_another_cache_is_another_bundle(tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model", torch.float16)
    plans = [plan_compile(str(model), ["cpu"], options) for options in (CompileOptions(), OPTIONS)]
    assert model_digest(plans[0]) != model_digest(plans[1])
    assert [plan.cache_dtype for plan in plans] == ["f16", "fp8"]
