"""From options to quantised weights in a bundle: what is chosen, what is refused, what is written."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from amdnfs_runtime.errors import ModelError, UsageError
from amdnfs_targets.quantized_layout import QuantizedLayout
from safetensors.torch import load_file, save_file

from amdnfs_compile import CompileOptions, Dtype
from amdnfs_compile.frontend.huggingface import bind_parameters
from amdnfs_compile.identity import compile_keys, model_digest
from amdnfs_compile.plan import plan_compile
from amdnfs_compile.quantize import archive
from amdnfs_compile.quantize.linears import find_linears
from amdnfs_compile.quantize.numerics import QuantizedTensor, dequantize, quantize
from amdnfs_compile.quantize.scheme import GroupSize, Quantize, describe_layout
from amdnfs_compile.weights import CONVERTED, place_weights
from tests.twins import make_twin

DEMO_MODEL = Path(__file__).parents[3] / "examples" / "demo_model"
INT4 = CompileOptions(quantize=Quantize.INT4, group_size=GroupSize.G32)
GATE = "model.layers.1.mlp.gate_proj.weight"


def place(folder: Path, options: CompileOptions, output: Path) -> tuple[list[str], str]:
    """Writes the weights; gives the names of the archives, and what is said of them."""
    plan = plan_compile(str(folder), ["cpu"], options)
    quantized = plan.quantized_weights()
    assert quantized is not None
    skeleton = plan.skeleton_for(plan.targets[0])
    paths = place_weights(plan.checkpoint, bind_parameters(plan.checkpoint, skeleton), output, quantized)
    return [path.name for path in paths], quantized.summary()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"group_size": GroupSize.G64},
            "--group-size 64: there is nothing to quantise; add e.g. --quantize int4",
        ),
        ({"zero_points": True}, "--zero-points: there is nothing to quantise; add e.g. --quantize int4"),
        (
            {"quantize": Quantize.INT4, "group_size": GroupSize.TENSOR},
            "--group-size tensor: --quantize int4 has 128, 32, 64, channel, default 128",
        ),
        (
            {"quantize": Quantize.FP8, "group_size": GroupSize.G128},
            "--group-size 128: --quantize fp8 has channel, tensor, default channel",
        ),
        (
            {"quantize": Quantize.W8A8, "group_size": GroupSize.G32},
            "--group-size 32: --quantize w8a8 has channel, default channel",
        ),
        (
            {"quantize": Quantize.W8A8, "zero_points": True},
            "--zero-points: only --quantize int8 and int4 have them, not w8a8",
        ),
        (
            {"quantize": Quantize.W8A8_FP8, "group_size": GroupSize.G32},
            "--group-size 32: --quantize w8a8-fp8 has channel, tensor, default channel",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        CompileOptions(**options)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("options", "dtype", "spelling", "words"),
    [
        ({"quantize": Quantize.INT8}, "f16", "i8-channel-rows-f16", "int8, one scale an output channel"),
        (
            {"quantize": Quantize.INT8, "group_size": GroupSize.G64, "zero_points": True},
            "bf16",
            "i8-g64-zp-rows-bf16",
            "int8, groups of 64, zero points",
        ),
        ({"quantize": Quantize.INT4}, "f32", "i4-g128-rows-f32", "int4, groups of 128"),
        ({"quantize": Quantize.FP8}, "f16", "f8E4M3FN-channel-rows-f16", "fp8, one scale an output channel"),
        (
            {"quantize": Quantize.FP8, "group_size": GroupSize.TENSOR},
            "f16",
            "f8E4M3FN-tensor-rows-f16",
            "fp8, one scale a matrix",
        ),
        ({"quantize": Quantize.W8A8}, "f16", "i8-channel-rows-f16-a8", "w8a8, one scale an output channel"),
        (
            {"quantize": Quantize.W8A8_FP8},
            "bf16",
            "f8E4M3FN-channel-rows-bf16-af8",
            "w8a8-fp8, one scale an output channel",
        ),
        (
            {"quantize": Quantize.W8A8_FP8, "group_size": GroupSize.TENSOR},
            "f16",
            "f8E4M3FN-tensor-rows-f16-af8",
            "w8a8-fp8, one scale a matrix",
        ),
    ],
)
def test_layouts_follow_from_options(
    options: dict[str, Any], dtype: str, spelling: str, words: str, tmp_path: Path
) -> None:
    model = make_twin("llama", tmp_path / "model", hidden_size=128, intermediate_size=256, num_attention_heads=8)
    plan = plan_compile(str(model), ["cpu"], CompileOptions(dtype=Dtype(dtype), **options))
    assert plan.quantization == spelling
    assert describe_layout(spelling) == words
    assert plan.options.scheme is not None
    assert plan.options.scheme.describe() == words


@pytest.mark.parametrize("quantize", [Quantize.FP8, Quantize.W8A8_FP8])
def test_fp8_takes_the_flavour_of_the_target(twin: Path, quantize: Quantize) -> None:
    options = CompileOptions(quantize=quantize)
    plan = plan_compile(str(twin), ["gfx942", "gfx950", "gfx1200", "gfx1201", "cuda-sm_89", "cpu"], options)
    found = {target.name: plan.skeleton_for(target).layout for target in plan.targets}
    elements = {name: str(layout.element) for name, layout in found.items() if layout is not None}
    other = dict.fromkeys(("gfx950", "gfx1200", "gfx1201", "cuda-sm_89", "cpu"), "f8E4M3FN")
    assert elements == {"gfx942": "f8E4M3FNUZ", **other}


@pytest.mark.parametrize("target", ["gfx90a", "gfx1030", "gfx1100", "gfx1151", "cuda-sm_80", "vulkan"])
def test_targets_without_fp8_are_refused(twin: Path, target: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_compile(str(twin), ["gfx942", target], CompileOptions(dtype=Dtype.F16, quantize=Quantize.FP8))
    assert str(error.value) == (f"--quantize fp8: {target} has no fp8; use --quantize int8, or leave out {target}")


@pytest.mark.parametrize("target", ["gfx90a", "gfx1030", "gfx1100", "gfx1151", "cuda-sm_80", "vulkan"])
def test_targets_that_do_not_multiply_fp8_are_refused(twin: Path, target: str) -> None:
    with pytest.raises(UsageError) as error:
        plan_compile(str(twin), ["gfx942", target], CompileOptions(dtype=Dtype.F16, quantize=Quantize.W8A8_FP8))
    others = "int8" if target == "vulkan" else "w8a8 or int8"
    assert str(error.value) == (
        f"--quantize w8a8-fp8: {target} has no matrix instructions for fp8; use --quantize {others}, "
        f"or leave out {target}"
    )


@pytest.mark.parametrize("quantize", [Quantize.INT4, Quantize.W8A8])
def test_what_vulkan_cannot_do_is_refused(quantize: Quantize) -> None:
    with pytest.raises(UsageError) as error:
        plan_compile(str(DEMO_MODEL), ["vulkan"], CompileOptions(quantize=quantize))
    assert str(error.value) == (
        f"--quantize {quantize}: IREE 3.13.0 cannot lower it for vulkan; use --quantize int8, or leave out vulkan"
    )


def test_groups_that_do_not_divide_name_the_weight_and_the_sizes_that_do() -> None:
    with pytest.raises(ModelError) as error:
        plan_compile(str(DEMO_MODEL), ["cpu"], CompileOptions(quantize=Quantize.INT4))
    assert str(error.value) == (
        "model.layers.0.mlp.down_proj.weight cannot be stored as i4-g128-rows-f16: groups of 128 do not divide a row "
        "of 352 elements; use --group-size 32"
    )


def test_groups_of_which_none_divides(tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model", intermediate_size=172)
    with pytest.raises(
        ModelError, match=r"groups of 32 do not divide a row of 172 elements; use --group-size channel$"
    ):
        plan_compile(str(model), ["cpu"], INT4)


def test_a_checkpoint_that_is_quantised_already_is_refused(fresh_twin: Path) -> None:
    config = json.loads((fresh_twin / "config.json").read_text())
    for method in ("gptq", "awq", "fp8", "bitsandbytes", "mxfp4"):
        config["quantization_config"] = {"quant_method": method}
        (fresh_twin / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError) as error:
            plan_compile(str(fresh_twin), ["cpu"], CompileOptions())
        assert str(error.value) == (
            f"{fresh_twin}: the checkpoint is quantised with {method}, which is not read yet; "
            "compile the unquantised checkpoint it was made from; --quantize quantises it again"
        )


def test_quantised_are_the_linear_layers_of_the_decoder_layers(twin: Path) -> None:
    skeleton = plan_compile(str(twin), ["cpu"], INT4).skeleton
    names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
    names += ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    assert set(skeleton.linears) == {f"model.layers.{layer}.{name}" for layer in range(2) for name in names}
    quantized = skeleton.quantized(QuantizedLayout.parse("i4-g32-zp-rows-f32"))
    assert quantized.parameters["model.embed_tokens.weight"] == skeleton.parameters["model.embed_tokens.weight"]
    assert GATE not in quantized.parameters
    found = {name.removeprefix(f"{GATE}."): kind for name, kind in quantized.parameters.items() if GATE in name}
    assert found == {"int4": ((96, 32), torch.int8), "scales": ((96, 2), torch.float32), "zeros": ((96, 2), torch.int8)}


class Scaled(torch.nn.Linear):
    """A linear layer that does more."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Renamed(torch.nn.Linear):
    """A linear layer that does the same in other words."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = x @ self.weight.T
        return result if self.bias is None else result + self.bias


def test_layers_that_do_more_or_share_their_weight_are_left_out() -> None:
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.ModuleDict()])
    kinds = {"plain": torch.nn.Linear(4, 3), "scaled": Scaled(4, 3), "renamed": Renamed(4, 3)}
    model.layers[0].update({**kinds, "tied": torch.nn.Linear(4, 3), "norm": torch.nn.LayerNorm(4)})
    model.head = torch.nn.Linear(4, 3)
    found = find_linears(model, "layers", {"head.weight": "layers.0.tied.weight"})
    assert list(found) == ["layers.0.plain", "layers.0.renamed"]


def test_archive_holds_what_the_weights_round_to(fresh_twin: Path, tmp_path: Path) -> None:
    names, said = place(fresh_twin, INT4, tmp_path / "weights")
    assert names == [CONVERTED, "quantized-i4-g32-rows-f32.safetensors"]
    original = load_file(fresh_twin / "model.safetensors")
    kept = load_file(tmp_path / "weights" / CONVERTED)
    assert all(torch.equal(kept[name], original[name]) for name in kept)
    assert "model.embed_tokens.weight" in kept
    assert "lm_head.weight" in kept
    assert not any("_proj" in name for name in kept)
    found = load_file(tmp_path / "weights" / names[1])
    layout = QuantizedLayout.parse("i4-g32-rows-f32")
    back = dequantize(found[f"{GATE}.int4"], found[f"{GATE}.scales"], None, layout)
    steps = found[f"{GATE}.scales"].double().abs().repeat_interleave(32, -1)
    assert bool(((back - original[GATE].double()).abs() <= steps).all())
    assert said.startswith(f"{sum(item.numel() for name, item in original.items() if '_proj' in name)} elements, ")


def test_fp8_archive_has_the_scales_of_both_flavours(fresh_twin: Path, tmp_path: Path) -> None:
    names, said = place(fresh_twin, CompileOptions(quantize=Quantize.FP8, dtype=Dtype.F16), tmp_path / "weights")
    found = load_file(tmp_path / "weights" / names[1])
    assert found[f"{GATE}.fp8"].dtype == torch.float8_e4m3fn
    assert torch.equal(found[f"{GATE}.scales"] * 2, found[f"{GATE}.scales_fnuz"])
    assert said.endswith(" elements, 0 rounded to the end of the range of f8E4M3FN")


def test_conv1d_weights_are_stored_by_output_channel(tmp_path: Path) -> None:
    model = make_twin("gpt2", tmp_path / "model")
    names, _ = place(model, CompileOptions(quantize=Quantize.INT8), tmp_path / "weights")
    found = load_file(tmp_path / "weights" / names[1])
    name = "transformer.h.0.mlp.c_fc.weight"
    original = load_file(model / "model.safetensors")[name]
    assert original.shape == (64, 256)
    assert found[f"{name}.int8"].shape == (256, 64)
    assert torch.equal(found[f"{name}.int8"].float().abs().amax(-1), torch.full((256,), 127.0))
    assert torch.allclose(found[f"{name}.int8"].float() * found[f"{name}.scales"], original.T, atol=0.02)


@pytest.mark.parametrize(
    ("value", "what"), [(torch.inf, "infinite values"), (torch.nan, "values that are no numbers (NaN)")]
)
def test_weights_that_are_not_finite_are_refused(value: float, what: str, fresh_twin: Path, tmp_path: Path) -> None:
    tensors = load_file(fresh_twin / "model.safetensors")
    tensors[GATE][1, 2] = value
    save_file(tensors, fresh_twin / "model.safetensors")
    with pytest.raises(ModelError) as error:
        place(fresh_twin, INT4, tmp_path / "weights")
    assert str(error.value) == f"{fresh_twin}: tensor {GATE} has {what}, which cannot be quantised"


def test_scales_too_large_for_their_type_are_refused(fresh_twin: Path, tmp_path: Path) -> None:
    tensors = load_file(fresh_twin / "model.safetensors")
    tensors[GATE][1, 2] = 1e8
    save_file(tensors, fresh_twin / "model.safetensors")
    options = CompileOptions(quantize=Quantize.INT8, dtype=Dtype.F16)
    with pytest.raises(ModelError) as error:
        place(fresh_twin, options, tmp_path / "weights")
    assert str(error.value) == f"{fresh_twin}: tensor {GATE}: a scale does not fit float16; use --dtype bf16 or f32"


def test_the_same_bytes_again(fresh_twin: Path, tmp_path: Path) -> None:
    names, _ = place(fresh_twin, INT4, tmp_path / "a")
    place(fresh_twin, INT4, tmp_path / "b")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_choices_are_part_of_digest_and_keys(twin: Path) -> None:
    choices = [
        CompileOptions(),
        CompileOptions(quantize=Quantize.INT8),
        CompileOptions(quantize=Quantize.W8A8),
        CompileOptions(quantize=Quantize.FP8),
        CompileOptions(quantize=Quantize.W8A8_FP8),
        CompileOptions(quantize=Quantize.INT8, zero_points=True),
        INT4,
    ]
    plans = [plan_compile(str(twin), ["cpu"], options) for options in choices]
    assert len({model_digest(plan) for plan in plans}) == len(choices)
    assert len({compile_keys(plan)["cpu"] for plan in plans}) == len(choices)


def test_one_weight_is_in_memory_at_a_time(fresh_twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = []

    def counting(weight: torch.Tensor, layout: QuantizedLayout) -> QuantizedTensor:
        gc.collect()
        sizes = [item.shape for item in gc.get_objects() if type(item) is torch.Tensor]
        alive.append(sum(shape in ((96, 64), (96, 32)) for shape in sizes))  # gate_proj and up_proj, before and after
        return quantize(weight, layout)

    monkeypatch.setattr(archive, "quantize", counting)
    place(fresh_twin, INT4, tmp_path / "weights")
    assert len(alive) == 14
    assert 1 <= max(alive) <= 2
