"""Quantised models end to end: the shipped model and twins for the CPU, AMD code on the emulator, bundles that grow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import amdnfs_runtime
import pytest
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import ModelError
from amdnfs_runtime.report.build import make_report
from transformers import AutoModelForCausalLM

from amdnfs_compile import CompileOptions, Dtype, compile_model
from amdnfs_compile.merge import merge_bundles
from amdnfs_compile.quantize.reference import load_stored_weights
from amdnfs_compile.quantize.scheme import GroupSize, Quantize
from amdnfs_compile.verify import DISTANCE, verify_bundle
from tests.twins import make_twin

DEMO_MODEL = Path(__file__).parents[2] / "examples" / "demo_model"
SMALL: dict[str, Any] = {"prefill_chunks": (16,), "decode_batches": (4,)}
MODES: dict[str, dict[str, Any]] = {
    "int8": {"quantize": Quantize.INT8},
    "int8-g32-zp": {"quantize": Quantize.INT8, "group_size": GroupSize.G32, "zero_points": True},
    "int4-g32": {"quantize": Quantize.INT4, "group_size": GroupSize.G32},
    "int4-g32-zp": {"quantize": Quantize.INT4, "group_size": GroupSize.G32, "zero_points": True},
    "fp8": {"quantize": Quantize.FP8},
    "fp8-tensor": {"quantize": Quantize.FP8, "group_size": GroupSize.TENSOR},
    "w8a8": {"quantize": Quantize.W8A8},
    "w8a8-fp8": {"quantize": Quantize.W8A8_FP8},
}
SUMS = [(17, 25), (83, 9), (46, 38), (60, 7), (5, 94), (33, 33)]
TWINS = [
    ("gpt2", "int8-g32-zp"),
    ("qwen2", "int4-g32-zp"),
    ("phi3", "fp8"),
    ("gpt_oss", "int8"),
    ("falcon", "int4-g32"),
]
needs_emulator = pytest.mark.skipif(
    not os.environ.get(HIP_DYLIB_VARIABLE),
    reason=f"{HIP_DYLIB_VARIABLE} does not name a folder with a stand-in libamdhip64.so",
)


def compare(bundle: Path, model: Path, target: str, **options: Any) -> None:
    """Checks that programs compute what the stored weights mean, and that those are not the model's own."""
    distance, *checks = verify_bundle(bundle, model, target, **options)
    assert distance.name == DISTANCE
    assert 0 < distance.error < 0.6
    assert len(checks) == 5
    assert all(check.is_right for check in checks), checks


@pytest.mark.parametrize("mode", ["int8-g32-zp", "int4-g32", "w8a8", "w8a8-fp8"])
def test_the_shipped_model_still_adds(mode: str, tmp_path: Path) -> None:
    options = CompileOptions(**SMALL, **MODES[mode])
    bundle = compile_model(DEMO_MODEL, ["cpu"], tmp_path / "bundle", options)
    compare(bundle, DEMO_MODEL, "cpu")
    results = amdnfs_runtime.load(bundle, target="cpu").generate([f"{a} + {b} =" for a, b in SUMS], max_tokens=12)
    assert [result.text for result in results] == [f" {a + b}." for a, b in SUMS]


@pytest.mark.parametrize(("twin", "mode"), TWINS)
def test_twins_equal_transformers_on_the_stored_weights(twin: str, mode: str, tmp_path: Path) -> None:
    """In f32, where a wrong zero point or scale cannot hide."""
    model = make_twin(twin, tmp_path / "model")
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", CompileOptions(**SMALL, **MODES[mode]))
    compare(bundle, model, "cpu")


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("int4-g32-zp", Dtype.BF16), ("fp8-tensor", Dtype.F32), ("w8a8", Dtype.BF16)],
)
def test_other_types(mode: str, dtype: Dtype, tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model", head_dim=24)
    options = CompileOptions(dtype=dtype, **SMALL, **MODES[mode])
    bundle = compile_model(model, ["cpu", "cpu-x86-64-v3"], tmp_path / "bundle", options)
    for target in ("cpu", "cpu-x86-64-v3"):
        compare(bundle, model, target)


def test_the_reference_does_not_use_the_bundles_programs(tmp_path: Path) -> None:
    """Weights that are altered in the archive change the reference as much as the program."""
    model = make_twin("llama", tmp_path / "model")
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", CompileOptions(**SMALL, **MODES["int8"]))
    reference = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager").eval().requires_grad_(False)
    before = reference.model.layers[0].mlp.gate_proj.weight.clone()
    assert load_stored_weights(reference, bundle, read_manifest(bundle)) == 14
    after = reference.model.layers[0].mlp.gate_proj.weight
    assert 0 < float((after - before).abs().max()) < float(before.abs().max()) / 100


def test_facts_and_manifest_tell_how(tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model")
    options = CompileOptions(**SMALL, **MODES["int4-g32"])
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", options)
    manifest = read_manifest(bundle)
    assert manifest.model.quantization == "i4-g32-rows-f32"
    assert manifest.weights == ("weights/converted.safetensors", "weights/quantized-i4-g32-rows-f32.safetensors")
    passes = {
        item["name"]: item["rewrites"]
        for item in json.loads((bundle / "artifacts/cpu/facts.json").read_text())["passes"]
    }
    assert passes["lower-quantized-linear"] == 14
    stored = sum(manifest.files[name].size for name in manifest.weights)
    assert stored < 0.45 * (model / "model.safetensors").stat().st_size


def test_a_quantised_bundle_is_kept_if_it_is_up_to_date_and_not_mixed(tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model")
    options = CompileOptions(**SMALL, **MODES["int8"])
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", options)
    said: list[str] = []
    compile_model(model, ["cpu"], bundle, options, lambda _phase, text: said.append(text))
    assert "cpu: up to date, kept" in said
    with pytest.raises(
        amdnfs_runtime.errors.UsageError, match=r"\(model, f32, quantised as i8-channel-rows-f32, pages"
    ):
        compile_model(model, ["cpu"], bundle, CompileOptions(**SMALL))


def test_targets_of_both_fp8_flavours_share_the_weights(tmp_path: Path) -> None:
    """A second flavour adds a program and no weights; bundles made apart become one. Both multiply fp8 as it is."""
    options = CompileOptions(dtype=Dtype.F16, **SMALL, **MODES["w8a8-fp8"])
    model = make_twin("llama", tmp_path / "model", hidden_size=128, head_dim=32)
    first = compile_model(model, ["gfx942"], tmp_path / "first", options)
    weights = {name: (first / name).read_bytes() for name in read_manifest(first).weights}
    second = compile_model(model, ["gfx950"], tmp_path / "second", options)
    both = merge_bundles([first, second], tmp_path / "both")
    compile_model(model, ["gfx950"], first, options)
    for bundle in (first, both):
        manifest = read_manifest(bundle)
        assert sorted(manifest.targets) == ["gfx942", "gfx950"]
        assert {name: (bundle / name).read_bytes() for name in manifest.weights} == weights
    used = {name: (first / "artifacts" / name / "program.vmfb").read_bytes() for name in ("gfx942", "gfx950")}
    assert b"weight.scales_fnuz" in used["gfx942"]
    assert b"weight.scales_fnuz" not in used["gfx950"]
    assert manifest.model.quantization == "f8E4M3FN-channel-rows-f16-af8"
    for target in make_report(both).targets:
        rows = [row for row in target.ledger.rows if "_proj" in row.op]
        assert len(rows) == 8  # of two entry points: queries, keys and values; output; gate and up; down
        assert all(row.taken_by.startswith("dispatch-linear: kernel linear") for row in rows)
        assert all(row.uses_matrix_units for row in rows)
        own = {"gfx942": "f8E4M3FNUZ", "gfx950": "f8E4M3FN"}[target.name]
        assert all(entry.flops_by_type.keys() == {"f16", own} for entry in target.entries)


@pytest.mark.parametrize("mode", ["int4-g32-zp", "w8a8"])
def test_targets_without_an_emulated_test_compile(mode: str, tmp_path: Path) -> None:
    """No matrix units; another wave of compute units. Those below are compiled and executed."""
    model = make_twin("llama", tmp_path / "model", hidden_size=128, intermediate_size=256, head_dim=32)
    options = CompileOptions(dtype=Dtype.F16, **SMALL, **MODES[mode])
    bundle = compile_model(model, ["gfx1030", "gfx1102"], tmp_path / "bundle", options)
    assert sorted(read_manifest(bundle).targets) == ["gfx1030", "gfx1102"]


@pytest.mark.parametrize("mode", ["int4-g32", "fp8"])
def test_cuda_compiles(mode: str, tmp_path: Path) -> None:
    model = make_twin("llama", tmp_path / "model")
    options = CompileOptions(dtype=Dtype.F16, **SMALL, **MODES[mode])
    compile_model(model, ["cuda-sm_89"], tmp_path / "bundle", options)


@needs_emulator
@pytest.mark.emulator
@pytest.mark.parametrize(
    ("mode", "targets"),
    [
        ("int4-g32-zp", ("gfx90a", "gfx950", "gfx1100", "gfx1201")),
        ("fp8", ("gfx942", "gfx950")),
        ("int8", ("gfx942", "gfx1151")),
        ("w8a8", ("gfx942", "gfx1151")),
        ("w8a8-fp8", ("gfx942", "gfx1201")),
    ],
)
def test_amd_code_equals_transformers_on_the_stored_weights(
    mode: str, targets: tuple[str, ...], tmp_path: Path
) -> None:
    model = make_twin("llama", tmp_path / "model", torch.float16, hidden_size=128, head_dim=32)
    bundle = compile_model(model, targets, tmp_path / "bundle", CompileOptions(**SMALL, **MODES[mode]))
    for target in targets:
        compare(bundle, model, target, num_tokens=20)


def test_weights_of_another_model_are_found(tmp_path: Path) -> None:
    """`verify` refuses stored weights that are not the model's own."""
    model = make_twin("llama", tmp_path / "model")
    bundle = compile_model(model, ["cpu"], tmp_path / "bundle", CompileOptions(**SMALL, **MODES["int8"]))
    other = compile_model(
        make_twin("llama", tmp_path / "other", seed=1),
        ["cpu"],
        tmp_path / "otherbundle",
        CompileOptions(**SMALL, **MODES["int8"]),
    )
    name = "weights/quantized-i8-channel-rows-f32.safetensors"
    (bundle / name).unlink()
    (bundle / name).write_bytes((other / name).read_bytes())
    message = r"down_proj\.weight of the model is not what the bundle stores, rounded to i8: .*% of its elements differ"
    with pytest.raises(ModelError, match=message):
        verify_bundle(bundle, model, "cpu")
