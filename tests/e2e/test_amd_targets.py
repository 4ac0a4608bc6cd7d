"""Every AMD target compiles two-layer twins, and the emulator executes them; cuda, CPU and Vulkan beside them.

docs/conformance.md has more families. The shipped model is compiled for all AMD targets, and executed, in
test_devices.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import UsageError
from amdnfs_targets.registry import GROUPS, TARGETS
from amdnfs_targets.target import TargetKind

from amdnfs_compile import CompileOptions, Dtype, compile_model
from amdnfs_compile.verify import verify_bundle
from tests.twins import make_twin

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16}
SMALL = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
NUM_PARTS = 3
CASES = [("llama", "bf16"), ("gemma2", "f16")]
"""A plain model, and one with soft caps, windows and four norms a layer. f16 has the smaller tolerance."""


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders of the models by name and type; sums are long enough for matrix units."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    return {
        (name, dtype): make_twin(name, folder / f"{name}-{dtype}", TORCH[dtype], **sizes)
        for name, _ in CASES
        for dtype in TORCH
    }


def targets_of(dtype: str, part: int) -> list[str]:
    """A part of the AMD targets that compute in `dtype`; one trace serves all of a part."""
    return [name for name in GROUPS["all-amd"] if dtype in TARGETS[name].dtypes][part::NUM_PARTS]


@pytest.mark.emulator
@pytest.mark.parametrize("part", range(NUM_PARTS))
@pytest.mark.parametrize(("model", "dtype"), CASES)
def test_twins_on_every_amd_target(
    model: str, dtype: str, part: int, models: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    """Compiles pass their checks (pools in place, the right code object), and the code equals transformers."""
    targets = targets_of(dtype, part)
    bundle = compile_model(models[model, dtype], targets, tmp_path / "bundle", SMALL)
    manifest = read_manifest(bundle)
    assert manifest.model.dtype == Dtype(dtype)
    assert sorted(manifest.targets) == sorted(targets)
    for name, entry in manifest.targets.items():
        assert entry.gfx == name
        assert {point.kind for point in entry.entry_points} == {"prefill", "decode"}
    if not os.environ.get(HIP_DYLIB_VARIABLE):
        pytest.skip(f"compiled, not executed: {HIP_DYLIB_VARIABLE} names no folder with a stand-in libamdhip64.so")
    for name in targets:
        checks = verify_bundle(bundle, models[model, dtype], name, num_tokens=20)
        assert all(check.is_right for check in checks), (name, checks)


def test_every_amd_target_meets_the_twins() -> None:
    """The parts leave nothing out; one chip has no bf16."""
    met = {dtype: {name for part in range(NUM_PARTS) for name in targets_of(dtype, part)} for dtype in TORCH}
    assert met["f16"] == set(GROUPS["all-amd"])
    assert met["f16"] - met["bf16"] == {"gfx1030"}


def test_cuda_targets_compile(tmp_path: Path) -> None:
    """The shipped model, for every cuda target."""
    targets = [name for name, target in TARGETS.items() if target.kind is TargetKind.CUDA]
    bundle = compile_model(DEMO_MODEL, targets, tmp_path / "bundle", SMALL)
    assert sorted(read_manifest(bundle).targets) == sorted(targets)


def test_the_portable_cpu_target_runs(models: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """x86-64-v3 code equals transformers on any machine that has it."""
    model = models["llama", "f16"]
    bundle = compile_model(model, ["cpu-x86-64-v3"], tmp_path / "bundle", SMALL)
    assert all(check.is_right for check in verify_bundle(bundle, model, "cpu-x86-64-v3"))


def test_vulkan_refuses_bf16_before_it_compiles(models: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"vulkan has no bf16; it computes in .*: add --dtype f16"):
        compile_model(models["llama", "bf16"], ["vulkan"], tmp_path / "bundle", SMALL)


def test_unsupported_targets_say_why() -> None:
    """A target that IREE cannot take has a reason; all others are in the group."""
    for name, target in TARGETS.items():
        if target.gfx is not None:
            assert (name in GROUPS["all-amd"]) == (target.unsupported is None)
