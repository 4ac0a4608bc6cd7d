"""What a bundle stores quantised is compared with the model's own weights before it takes their place."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.errors import ModelError
from transformers import AutoModelForCausalLM

from amdnfs_compile import CompileOptions, Dtype
from amdnfs_compile.frontend.huggingface import TORCH_DTYPES, bind_parameters
from amdnfs_compile.plan import plan_compile
from amdnfs_compile.quantize.reference import load_stored_weights
from amdnfs_compile.quantize.scheme import GroupSize, Quantize
from amdnfs_compile.reference import check_model
from amdnfs_compile.weights import place_weights
from tests.report_bundle import make_bundle
from tests.twins import make_twin

MODES: tuple[dict[str, Any], ...] = (
    {"quantize": Quantize.INT8},
    {"quantize": Quantize.INT8, "group_size": GroupSize.G32, "zero_points": True},
    {"quantize": Quantize.INT4, "group_size": GroupSize.G32},
    {"quantize": Quantize.INT4, "group_size": GroupSize.G32, "zero_points": True},
    {"quantize": Quantize.FP8},
    {"quantize": Quantize.FP8, "group_size": GroupSize.TENSOR},
    {"quantize": Quantize.W8A8},
    {"quantize": Quantize.W8A8_FP8},
)
DOWN = "model.layers.0.mlp.down_proj"


def store(model: Path, folder: Path, **options: Any) -> Manifest:
    """Writes the archives of a bundle, and gives a manifest that has what is read of it."""
    plan = plan_compile(str(model), ["cpu"], CompileOptions(**options))
    bound = bind_parameters(plan.checkpoint, plan.skeleton_for(plan.targets[0]))
    paths = place_weights(plan.checkpoint, bound, folder, plan.quantized_weights())
    other = read_manifest(make_bundle(folder / "other"))
    entry = dataclasses.replace(
        other.model, quantization=plan.quantization, dtype=plan.dtype, architecture=plan.checkpoint.architecture
    )
    entry = dataclasses.replace(entry, model_type="llama", vocab_size=plan.checkpoint.config.vocab_size)
    return dataclasses.replace(other, model=entry, weights=tuple(path.name for path in paths))


def load(model: Path, manifest: Manifest) -> Any:
    dtype = TORCH_DTYPES[manifest.model.dtype]
    return AutoModelForCausalLM.from_pretrained(model, dtype=dtype).float().requires_grad_(False)


@pytest.mark.parametrize("dtype", list(Dtype)[1:])
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: "-".join(str(item) for item in mode.values()))
def test_the_model_that_was_quantised_is_known_and_another_one_is_not(
    mode: dict[str, Any], dtype: Dtype, twin: Path, tmp_path: Path
) -> None:
    manifest = store(twin, tmp_path, dtype=dtype, **mode)
    assert load_stored_weights(load(twin, manifest), tmp_path, manifest) == 14
    model = load(twin, manifest)
    weight = model.get_submodule(DOWN).weight
    weight[0, 3] += 0.3 * weight.abs().max()  # of one element; the largest stays the largest
    with pytest.raises(ModelError, match=rf"^{DOWN}\.weight of the model is not what the bundle stores, rounded to "):
        load_stored_weights(model, tmp_path, manifest)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 3e38])
def test_values_that_have_no_scale_are_another_weight(value: float, twin: Path, tmp_path: Path) -> None:
    manifest = store(twin, tmp_path, dtype=Dtype.F16, quantize=Quantize.INT8)
    model = load(twin, manifest)
    model.get_submodule(DOWN).weight[1, 2] = value
    with pytest.raises(
        ModelError, match=rf"^{DOWN}\.weight of the model is not what the bundle stores: a scale does not"
    ):
        load_stored_weights(model, tmp_path, manifest)


def test_a_model_with_other_layers_is_told(twin: Path, tmp_path: Path) -> None:
    manifest = store(twin, tmp_path, quantize=Quantize.INT8)
    model = load(twin, manifest)
    del model.model.layers[1]
    with pytest.raises(ModelError) as error:
        load_stored_weights(model, tmp_path, manifest)
    assert str(error.value) == (
        "the bundle stores model.layers.1.mlp.down_proj.weight, which the model does not have; "
        "give the folder of the model that the bundle was made from, or compile it again"
    )
    model = load(twin, manifest)
    model.get_submodule(DOWN).weight.data = torch.zeros(64, 32)
    with pytest.raises(ModelError, match=r"down_proj\.weight is \[64, 32\] in the model, but \[64, 96\] in the bundle"):
        load_stored_weights(model, tmp_path, manifest)


def test_a_transposed_weight_is_compared_as_it_is_stored(tmp_path: Path) -> None:
    model = make_twin("gpt2", tmp_path / "model")
    manifest = store(model, tmp_path, quantize=Quantize.INT8)
    found = load(model, manifest)
    before = found.transformer.h[0].mlp.c_fc.weight.clone()
    assert load_stored_weights(found, tmp_path, manifest) == 8
    assert torch.allclose(found.transformer.h[0].mlp.c_fc.weight, before, atol=0.02)


def test_a_model_of_another_class_is_told(twin: Path, tmp_path: Path) -> None:
    manifest = store(twin, tmp_path, quantize=Quantize.INT8)
    check_model(twin, manifest)
    other = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, architecture="OtherModel"))
    with pytest.raises(ModelError, match=r": a LlamaForCausalLM, but the bundle was made from a OtherModel; give the"):
        check_model(twin, other)
