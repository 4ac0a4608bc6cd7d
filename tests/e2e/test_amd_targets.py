"""Every AMD target compiles a two-layer twin, in a 16-bit type that its chip computes.

Each twin is compiled for a third of the targets, so that each target meets one; docs/conformance.md has all twins for
all targets. The shipped model is compiled for all of them, and executed, in test_devices.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.errors import UsageError
from amdnfs_targets.registry import GROUPS, TARGETS
from amdnfs_targets.target import TargetKind

from amdnfs_compile import CompileOptions, Dtype, compile_model
from amdnfs_compile.verify import verify_bundle
from tests.twins import make_twin

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
TORCH = {"f16": torch.float16, "bf16": torch.bfloat16}
SMALL = CompileOptions(prefill_chunks=(16,), decode_batches=(8,))
TWINS = ("llama", "qwen3", "gemma2")
CASES = [("llama", "bf16"), ("qwen3", "f16"), ("gemma2", "bf16"), ("gemma2", "f16")]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Folders of the models by name and type; heads of 32 and 64 wide sums, so that matrix units could be used."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    return {
        (name, dtype): make_twin(name, folder / f"{name}-{dtype}", TORCH[dtype], **sizes)
        for name in TWINS
        for dtype in TORCH
    }


@pytest.mark.parametrize(("model", "dtype"), CASES)
def test_compiles(model: str, dtype: str, models: dict[tuple[str, str], Path], tmp_path: Path) -> None:
    """Every compile passes its checks: pools in place, code object of the right processor."""
    able = [name for name in GROUPS["all-amd"] if dtype in TARGETS[name].dtypes]
    targets = able[TWINS.index(model) :: len(TWINS)]
    bundle = compile_model(models[model, dtype], targets, tmp_path / "bundle", SMALL)
    manifest = read_manifest(bundle)
    assert manifest.model.dtype == Dtype(dtype)
    assert sorted(manifest.targets) == sorted(targets)
    for name, entry in manifest.targets.items():
        assert entry.gfx == name
        assert {point.kind for point in entry.entry_points} == {"prefill", "decode"}


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
