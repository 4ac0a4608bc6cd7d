"""Weights in a bundle: linked where their bytes are used, converted exactly as torch rounds, refused when too large."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from amdnfs_runtime.errors import ModelError, UsageError
from safetensors.torch import load_file, save_file

from amdnfs_compile import CompileOptions, Dtype
from amdnfs_compile.frontend.huggingface import bind_parameters
from amdnfs_compile.plan import plan_compile
from amdnfs_compile.weights import CONVERTED, place_weights

TORCH = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
EMBEDDING = "model.embed_tokens.weight"


def place(folder: Path, dtype: str, output: Path) -> list[str]:
    plan = plan_compile(str(folder), ["cpu"], CompileOptions(dtype=Dtype(dtype)))
    paths = place_weights(plan.checkpoint, bind_parameters(plan.checkpoint, plan.skeleton), output)
    return [str(path.relative_to(output)) for path in paths]


def store_as(folder: Path, **dtypes: torch.dtype) -> dict[str, torch.Tensor]:
    """Stores tensors as other types by the last part but one of their name; returns what is stored."""
    path = folder / "model.safetensors"
    tensors = {name: value.to(dtypes.get(name.split(".")[-2], value.dtype)) for name, value in load_file(path).items()}
    save_file(tensors, path)
    return tensors


def test_unchanged_weights_are_the_same_file(fresh_twin: Path, tmp_path: Path) -> None:
    assert place(fresh_twin, "f32", tmp_path / "weights") == ["model.safetensors"]
    assert (tmp_path / "weights" / "model.safetensors").samefile(fresh_twin / "model.safetensors")


def test_unchanged_weights_are_copied_where_links_do_not_work(
    fresh_twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    place(fresh_twin, "f32", tmp_path / "weights")
    copied = tmp_path / "weights" / "model.safetensors"
    assert not copied.samefile(fresh_twin / "model.safetensors")
    assert copied.read_bytes() == (fresh_twin / "model.safetensors").read_bytes()


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_converted_values_are_torchs(fresh_twin: Path, tmp_path: Path, dtype: str) -> None:
    original = load_file(fresh_twin / "model.safetensors")
    awkward = torch.tensor([65519.0, -65504.0, 6e-8, 2.9e-8, 1.00048828125, 1.0014648, -0.0, 3.14159265])
    original[EMBEDDING].view(-1)[: len(awkward)] = awkward
    save_file(original, fresh_twin / "model.safetensors")
    assert place(fresh_twin, dtype, tmp_path / "weights") == [CONVERTED]
    found = load_file(tmp_path / "weights" / CONVERTED)
    assert found.keys() == {f"{name}.{dtype}" for name in original}
    for name, value in original.items():
        converted = found[f"{name}.{dtype}"]
        assert converted.dtype == TORCH[dtype]
        assert converted.shape == value.shape
        assert torch.equal(converted.view(torch.int16), value.to(TORCH[dtype]).view(torch.int16)), name


def test_only_tensors_of_another_type_are_converted(fresh_twin: Path, tmp_path: Path) -> None:
    stored = store_as(fresh_twin, q_proj=torch.bfloat16, norm=torch.float16)
    assert place(fresh_twin, "f32", tmp_path / "weights") == [CONVERTED, "model.safetensors"]
    found = load_file(tmp_path / "weights" / CONVERTED)
    names = [f"model.layers.{layer}.self_attn.q_proj.weight" for layer in range(2)]
    assert found.keys() == {f"{name}.f32" for name in [*names, "model.norm.weight"]}
    assert all(torch.equal(found[f"{name}.f32"], stored[name].float()) for name in names)


def test_the_same_bytes_again(fresh_twin: Path, tmp_path: Path) -> None:
    place(fresh_twin, "f16", tmp_path / "a")
    place(fresh_twin, "f16", tmp_path / "b")
    assert (tmp_path / "a" / CONVERTED).read_bytes() == (tmp_path / "b" / CONVERTED).read_bytes()


def test_values_too_large_for_the_type_are_refused(fresh_twin: Path, tmp_path: Path) -> None:
    tensors = load_file(fresh_twin / "model.safetensors")
    tensors[EMBEDDING][3, 5] = 65520.0
    save_file(tensors, fresh_twin / "model.safetensors")
    with pytest.raises(ModelError) as error:
        place(fresh_twin, "f16", tmp_path / "a")
    assert str(error.value) == (
        f"{fresh_twin}: tensor {EMBEDDING} has values too large for f16; use --dtype bf16 or f32"
    )
    assert place(fresh_twin, "bf16", tmp_path / "b") == [CONVERTED]


def test_infinities_of_the_model_itself_are_kept(fresh_twin: Path, tmp_path: Path) -> None:
    tensors = load_file(fresh_twin / "model.safetensors")
    tensors[EMBEDDING][0, 0] = -torch.inf
    save_file(tensors, fresh_twin / "model.safetensors")
    place(fresh_twin, "f16", tmp_path / "weights")
    assert load_file(tmp_path / "weights" / CONVERTED)[f"{EMBEDDING}.f16"][0, 0] == -torch.inf


def test_not_enough_disk(fresh_twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (64 << 20) + sum(value.numel() * 2 for value in load_file(fresh_twin / "model.safetensors").values())
    folder = tmp_path / "out.amdnfs" / "staging" / "weights"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(UsageError) as error:
        place(fresh_twin, "f16", folder)
    assert str(error.value) == (
        f"not enough disk for the bundle at {folder.parent.parent}: 65 MiB needed, 64 MiB free; "
        "free some, or choose another place with -o"
    )
    assert list(folder.iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    assert place(fresh_twin, "f16", folder) == [CONVERTED]


def test_a_shard_called_like_the_converted_archive_is_not_written_to(fresh_twin: Path, tmp_path: Path) -> None:
    (fresh_twin / "model.safetensors").rename(fresh_twin / CONVERTED)
    before = (fresh_twin / CONVERTED).read_bytes()
    assert place(fresh_twin, "f16", tmp_path / "weights") == [f"again-{CONVERTED}"]
    assert (fresh_twin / CONVERTED).read_bytes() == before
