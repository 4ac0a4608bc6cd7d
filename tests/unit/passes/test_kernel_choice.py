"""Which kernels are taken for which target and shape, what their code is like, and what happens without one.

The whole grid is `benchmarks/kernel_sweep.py`; here every target meets a part of it, and every shape some target.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from amdnfs_passes.base import PassError, PassResult
from amdnfs_passes.ir import Module, parse_module
from amdnfs_passes.kernels import kernel_pass, provider, triton_stages
from amdnfs_passes.kernels.code_object import read_amd_facts, set_lds_bytes, use_older_ptx
from amdnfs_passes.kernels.linear_kernels import LinearShape, build_linear
from amdnfs_passes.kernels.provider import KernelError, KernelTarget, Tiling, compile_kernel, has_triton
from amdnfs_passes.kernels.triton_stages import KernelCode, KernelSource, run_stages
from amdnfs_passes.kernels.write_heads_kernels import TableShape, VectorShape, WriteShape, build_write
from amdnfs_passes.lower.lower_kernel_objects import LowerKernelObjectsPass
from amdnfs_targets.quantized_layout import QuantizedLayout
from amdnfs_targets.registry import TARGETS

from amdnfs_compile import CompileOptions, compile_model, plan
from amdnfs_compile.pipeline import TORCH_PHASE, convert_torch_to_linalg, run_phase
from benchmarks.kernel_sweep import (
    ELEMENTS,
    ROWS,
    attention_shapes,
    compile_attention,
    compile_linear,
    describe,
    kernel_target,
    kernel_targets,
    linear_shapes,
)
from tests.twins import make_twin

needs_triton = pytest.mark.skipif(not has_triton(), reason="the compiler's extra amdnfs[triton] is not installed")

ATTENTIONS = [item for element in ELEMENTS for item in attention_shapes(element)]
LINEARS = [item for element, rows in itertools.product(ELEMENTS, ROWS) for item in linear_shapes(element, rows)]
NAMES = list(kernel_targets())
NUM_ATTENTIONS, NUM_LINEARS = 2, 4
"""For each target."""
GFX942 = KernelTarget(backend="hip", processor="gfx942", wave_size=64, lds_bytes=65536, num_compute_units=304)


def share(grid: list[Any], target: str, num_shapes: int, steps: tuple[int, int]) -> list[Any]:
    """The part of `grid` that `target` gets; steps without a common factor with the grid mix all kinds of shapes."""
    begin = NAMES.index(target) * steps[0]
    return [grid[(begin + i * steps[1]) % len(grid)] for i in range(num_shapes)]


@needs_triton
@pytest.mark.parametrize("name", NAMES)
def test_kernels_are_on_the_matrix_units_and_in_registers(name: str) -> None:
    target = kernel_targets()[name]
    rows = [compile_attention(target, kind, shape) for kind, shape in share(ATTENTIONS, name, NUM_ATTENTIONS, (7, 13))]
    rows += [compile_linear(target, layer, shape) for layer, shape in share(LINEARS, name, NUM_LINEARS, (11, 37))]
    assert not [describe(row) for row in rows if row.broken]


@needs_triton
@pytest.mark.parametrize("name", NAMES)
def test_writes_are_in_registers(name: str) -> None:
    """Vectors of 16-byte loads, few more registers than a vector needs, on every target."""
    vectors = VectorShape(begin=0, row_stride=5120, head_stride=128, eps=1e-6, gain_offset=0.0)
    table = TableShape(element="f32", cos=(0, 128), sin=(0, 128), size=128, interleaved=False, is_paired=False)
    shape = WriteShape(
        num_rows=8,
        heads=32,
        kv_heads=8,
        head_dim=128,
        page_tokens=16,
        element="f16",
        query=vectors,
        key=vectors,
        value=replace(vectors, eps=None),
        table=table,
    )
    built = build_write(shape, kernel_target(kernel_targets()[name]))
    rows = dict(built.kernel.tiling.sizes)["ROWS"]
    assert built.num_workgroups == sum(-(-8 * heads // rows) for heads in (32, 8, 8))
    assert built.kernel.facts.num_spills == 0
    assert built.kernel.facts.scratch_bytes == 0
    wide = {"dwordx4", "b128", "v4.b32", ".v4.b32"}
    assert wide & {width for width, _ in built.kernel.facts.store_widths}


@needs_triton
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [8, 256])
def test_layers_in_integers_are_on_the_matrix_units(name: str, rows: int) -> None:
    shape = LinearShape(
        num_rows=rows,
        depth=2048,
        columns=(5632, 5632),
        element="f16",
        gate="silu",
        eps=None,
        gain_offset=0.0,
        has_bias=False,
        has_residual=False,
        layout=QuantizedLayout.parse("i8-channel-rows-f16-a8"),
    )
    facts = build_linear(shape, kernel_target(kernel_targets()[name])).kernel.facts
    assert facts.matrix_instructions > 0
    assert facts.num_spills == facts.scratch_bytes == 0


# ---- without a kernel

Q, POOL, TABLE, COUNT = (
    *("!torch.vtensor<[1,4,1,16],f16>", "!torch.vtensor<[?,2,16,2,16],f16>"),
    *("!torch.vtensor<[1,?],si32>", "!torch.vtensor<[1],si64>"),
)
X, W, Y, MIX = (
    *("!torch.vtensor<[3,16],f16>", "!torch.vtensor<[32,16],f16>", "!torch.vtensor<[3,32],f16>"),
    "!torch.vtensor<[1,1,4,16],f16>",
)
PROGRAM = f"""
func.func @f(%q: {Q}, %pool: {POOL}, %table: {TABLE}, %n: {COUNT}, %x: {X}, %w: {W}) -> ({MIX}, {Y}) {{
  %none = torch.constant.none
  %half = torch.constant.float 5.000000e-01
  %any = torch.constant.int 0
  %zero = torch.constant.float 0.000000e+00
  %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %n, %n, %none, %none, %half, %any, %zero) : (
    {Q}, {POOL}, {TABLE}, {COUNT}, {COUNT}, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> {MIX}
  %1 = torch.aten.linear %x, %w, %none : {X}, {W}, !torch.none -> {Y}
  return %0, %1 : {MIX}, {Y}
}}
"""


def torch_phase(lds_bytes: int = 65536) -> tuple[Module, dict[str, PassResult]]:
    """The program after the torch phase for a gfx942 with so much LDS, and what each pass did."""
    module = parse_module(PROGRAM)
    results = run_phase(TORCH_PHASE, module, replace(TARGETS["gfx942"], lds_bytes=lds_bytes))
    return module, {result.pass_name: result for result in results}


def check_fallback(module: Module, results: dict[str, PassResult], reason: str) -> None:
    """Checks that both passes refused for `reason`, and that IREE's lowering took the program."""
    for dispatch, lower in (
        ("dispatch-paged-attention", "lower-paged-attention"),
        ("dispatch-linear", "lower-linear"),
    ):
        assert results[dispatch].rewrites == 0
        assert [refusal.reason.startswith(reason) for refusal in results[dispatch].refusals] == [True]
        assert results[lower].rewrites == 1
    assert "hal.executable" not in str(module)
    convert_torch_to_linalg(module)
    assert "torch." not in str(module)


def lose_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kernel_pass, plan):
        monkeypatch.setattr(module, "has_triton", lambda: False)


def test_without_triton_iree_lowers_and_the_passes_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lose_triton(monkeypatch)
    check_fallback(*torch_phase(), "the compiler's extra amdnfs[triton] is not installed")


def test_a_compile_without_triton_warns_and_keeps_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lose_triton(monkeypatch)
    model = make_twin("llama", tmp_path / "model", torch.float16)
    told: list[str] = []
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
    bundle = compile_model(model, ["gfx942"], tmp_path / "bundle", options, lambda _phase, text: told.append(text))
    assert any("attention for gfx942 uses no matrix cores" in text for text in told)
    facts = json.loads((bundle / "artifacts" / "gfx942" / "facts.json").read_text())
    assert {
        refusal["pass"] for refusal in facts["refusals"] if "amdnfs[triton] is not installed" in refusal["reason"]
    } == {"dispatch-kv-write", "dispatch-paged-attention", "dispatch-linear"}


def test_another_release_of_triton_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _name: "0.0.1")
    assert not has_triton()


@needs_triton
def test_a_kernel_without_a_tiling_falls_back() -> None:
    check_fallback(*torch_phase(lds_bytes=64), "kernel ")


@needs_triton
def test_what_each_tiling_met_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(source: KernelSource, *_arguments: object) -> KernelCode:
        if source.constants["ROWS"] == 32:
            raise RuntimeError("out of registers\nand a second line")
        if source.constants["ROWS"] == 16:
            raise RuntimeError
        text = ".vgpr_count: 256\n.sgpr_count: 9\n.vgpr_spill_count: 7\n.sgpr_spill_count: 2\n"
        return KernelCode(entry="k", text=f"{text}.private_segment_fixed_size: 28", code=b"", lds_bytes=0)

    monkeypatch.setattr(triton_stages, "run_stages", run)
    candidates = [Tiling(sizes=(("ROWS", rows),), num_waves=4, num_stages=1) for rows in (64, 32, 16)]
    with pytest.raises(KernelError) as raised:
        compile_kernel("linear", GFX942, {}, {"DEPTH": -1}, candidates)
    assert str(raised.value) == (
        "kernel linear for gfx942: no tiling fits; "
        "ROWS=64,waves=4,stages=1: 9 spilled registers, 28 bytes of scratch memory; "
        "ROWS=32,waves=4,stages=1: RuntimeError: out of registers; "
        "ROWS=16,waves=4,stages=1: RuntimeError: "
    )


# ---- the code itself

SOURCE = KernelSource(
    name="combine_splits",
    arguments={"partial": "*fp32", "state": "*fp32", "out": "*fp16", "tokens": "i32"},
    constants={"KV_HEADS": 2, "GROUP": 2, "HEAD_DIM": 64, "PADDED_DIM": 64, "NUM_SPLITS": 4},
)
PROCESSORS = {
    name: (kind, name, size)
    for kind, name, size in (("hip", "gfx942", 64), ("hip", "gfx1201", 32), ("cuda", "sm_90", 32))
}


def make_code(processor: str) -> bytes:
    return run_stages(SOURCE, *PROCESSORS[processor], 4, 1).code


@needs_triton
def test_same_input_gives_same_bytes_anywhere(tmp_path: Path) -> None:
    """Again, and in a process with other switches of Triton's, a home that cannot be written, and another folder."""
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    codes = [make_code(processor) for processor in PROCESSORS]
    assert codes == [make_code(processor) for processor in PROCESSORS]
    script = f"""
import hashlib
from amdnfs_passes.kernels.triton_stages import KernelSource, run_stages
for arguments in {list(PROCESSORS.values())}:
    print(hashlib.sha256(run_stages({SOURCE}, *arguments, 4, 1).code).hexdigest())
"""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **dict.fromkeys(("HOME", "TRITON_HOME"), str(home)),
        **{
            "PYTHONHASHSEED": "7",
            "DISABLE_LLVM_OPT": "1",
            "AMDGCN_USE_BUFFER_OPS": "0",
            "TRITON_DEFAULT_FP_FUSION": "0",
        },
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [hashlib.sha256(code).hexdigest() for code in codes]
    assert not list(home.iterdir())


@needs_triton
@pytest.mark.parametrize("processor", PROCESSORS)
def test_code_names_no_file_of_this_machine(processor: str) -> None:
    code = make_code(processor)
    for path in (Path(provider.__file__).parents[3], Path(sys.prefix), Path.home()):
        assert str(path).encode() not in code
    assert b".py" not in code


@needs_triton
def test_the_environment_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DISABLE_LINE_INFO", "0")
    before = dict(os.environ)
    make_code("gfx942")
    assert dict(os.environ) == before


@needs_triton
def test_lds_is_written_into_the_descriptor_and_nowhere_else() -> None:
    code = make_code("gfx942")
    changed = set_lds_bytes(code, 0x01020304)
    places = [i for i, (old, new) in enumerate(zip(code, changed, strict=True)) if old != new]
    assert places == list(range(places[0], places[0] + 4))
    assert changed[places[0] :][:4] == b"\x04\x03\x02\x01"


@needs_triton
@pytest.mark.parametrize("kept", [16, 64, 1000, -2000, -200, -64])
def test_a_cut_code_object_is_refused(kept: int) -> None:
    with pytest.raises(ValueError, match=r"the code object of \d+ bytes is damaged: "):
        set_lds_bytes(make_code("gfx942")[:kept], 0)


@needs_triton
def test_a_code_object_without_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="the code object has no kernel descriptor"):
        set_lds_bytes(make_code("gfx942").replace(b".kd\0", b".xy\0"), 0)


@pytest.mark.parametrize("code", [b"", b"//\n.version 9.4", b"\x7fELF\x01\x01" + bytes(64)])
def test_what_is_no_code_object_is_refused(code: bytes) -> None:
    with pytest.raises(ValueError, match=rf"{len(code)} bytes that are no code object: they begin with "):
        set_lds_bytes(code, 0)


def test_facts_need_the_metadata() -> None:
    with pytest.raises(ValueError, match=r"the assembly has no \.vgpr_count"):
        read_amd_facts("s_endpgm", 0)


@pytest.mark.parametrize(("processor", "version"), [("sm_80", "8.0"), ("sm_89", "8.0"), ("sm_90a", "8.7")])
def test_ptx_asks_for_a_version_that_drivers_have(processor: str, version: str) -> None:
    body = f"\n.target {processor}\n.address_size 64\n// .version 9.4 of what follows\n"
    assert use_older_ptx(f"//\n.version 9.4{body}") == f"//\n.version {version}{body}"


# ---- lower-kernel-objects

KERNEL = """
hal.executable.source private @k attributes {amdnfs.object = dense<1> : tensor<2xi8>, amdnfs.object_path = "k"} {
  hal.executable.export public @entry ordinal(0) layout(#hal.pipeline.layout<constants = 0, bindings = []>)
    count(%device: !hal.device) -> (index, index, index) {
    %c1 = arith.constant 1 : index
    hal.return %c1, %c1, %c1 : index, index, index
  } <workgroup_size = [64 : index, 1 : index, 1 : index]>
}
"""


def device(name: str, target: str) -> str:
    return (
        f'util.global private @{name} = #hal.device.target<"hip", [#hal.executable.target<{target}>]> : !hal.device\n'
    )


@pytest.mark.parametrize(
    ("devices", "found"),
    [
        ("", "none"),
        (
            device("a", '"rocm", "gfx942", {abi = "hip"}') + device("b", '"rocm", "gfx90a"'),
            r"\['#hal.executable.target<\"rocm\", \"gfx90a\">', '#hal.executable.target<\"rocm\", \"gfx942\", '\]",
        ),
    ],
)
def test_kernels_need_one_device_target(devices: str, found: str) -> None:
    message = f"pass lower-kernel-objects: the module must have one device target, it has {found}"
    with pytest.raises(PassError, match=message):
        LowerKernelObjectsPass().apply(parse_module(devices + KERNEL))
