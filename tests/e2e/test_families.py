"""Every family's twin: compiled for the CPU, compared with transformers on fresh random prompts."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from amdnfs_passes.fuse import fuse_attention
from amdnfs_passes.fuse.attention_match import NoMatchError

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.verify import verify_bundle
from tests.twins import TWINS, make_twin

SMALL = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
EVERY_CHECK = {
    "prefill whole",
    "prefill in chunks",
    "decode over page borders",
    "reuse of a prefix's pages",
    "batch of different lengths",
}


@pytest.mark.parametrize("name", TWINS)
def test_twin_equals_transformers(name: str, tmp_path: Path) -> None:
    """Prefill in one go and in chunks, decode over page borders, a batch of different lengths."""
    model = make_twin(name, tmp_path / "model")
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    facts = json.loads((bundle / "artifacts/cpu/facts.json").read_text())
    rewrites = {item["name"]: item["rewrites"] for item in facts["passes"]}
    assert bool(rewrites["fuse-attention"]) == TWINS[name].has_own_attention
    assert rewrites["lower-paged-attention"]
    assert not rewrites["lower-kv-gather"]
    seed = zlib.crc32(name.encode()) % 1000
    checks = verify_bundle(bundle, model, "cpu", seed=seed)
    assert {check.name for check in checks} == EVERY_CHECK
    wrong = [check for check in checks if not check.is_right]
    assert not wrong, f"{wrong} with seed {seed}"


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_small_floats_equal_transformers(dtype: str, tmp_path: Path) -> None:
    """The same in 16 bits, with the tolerance that their mantissas allow."""
    model = make_twin("llama", tmp_path / "model", {"f16": torch.float16, "bf16": torch.bfloat16}[dtype])
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


def test_own_attention_in_small_floats(tmp_path: Path) -> None:
    """Scores that the model casts up and weights that it casts down; ALiBi that it rounds and we do not."""
    model = make_twin("bloom", tmp_path / "model", torch.bfloat16)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_alibi_with_heads_that_are_no_power_of_two(name: str, tmp_path: Path) -> None:
    """The slopes of such models are joined from two series."""
    sizes = {"bloom": {"hidden_size": 48, "n_head": 6}, "mpt": {"d_model": 48, "n_heads": 6}}[name]
    model = make_twin(name, tmp_path / "model", **sizes)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


def test_attention_that_is_not_recognised_is_right_and_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own products and softmax over gathered pages; the facts say which precondition failed."""

    def refuse(*_: object) -> NoReturn:
        raise NoMatchError("no reason but this test")

    monkeypatch.setattr(fuse_attention, "read_scores", refuse)
    model = make_twin("gptj", tmp_path / "model")
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    facts = json.loads((bundle / "artifacts/cpu/facts.json").read_text())
    refusals = [(item["pass"], item["reason"]) for item in facts["refusals"]]
    assert refusals == [("fuse-attention", "no reason but this test")] * 2
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


def test_other_page_sizes(tmp_path: Path) -> None:
    """Pages of 64 tokens."""
    model = make_twin("mistral", tmp_path / "model", max_position_embeddings=256)
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(4,), page_tokens=64)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", options)
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


def test_alike_layers_are_compiled_once(tmp_path: Path) -> None:
    """Twelve layers of one kind: two are traced, one function an entry point is compiled, and the result is right."""
    model = make_twin("llama", tmp_path / "model", num_hidden_layers=12)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    facts = json.loads((bundle / "artifacts/cpu/facts.json").read_text())
    assert facts["layers"] == {"in_model": 12, "traced": 2, "compiled": 2}
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))


def test_layers_that_trace_differently_are_all_traced(tmp_path: Path) -> None:
    """GPT-2 can scale attention by the layer's index: then no layer stands for another."""
    model = make_twin("gpt2", tmp_path / "model", n_layer=4, scale_attn_by_inverse_layer_idx=True)
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", SMALL)
    facts = json.loads((bundle / "artifacts/cpu/facts.json").read_text())
    assert facts["layers"]["traced"] == 4
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu"))
