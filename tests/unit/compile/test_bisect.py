"""Bisection without a device: which dispatch is blamed, which target serves for a comparison, what is told and kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.errors import ArtifactError, LoweringError, UsageError
from amdnfs_runtime.execution import Emulation
from amdnfs_runtime.tracing import Tensors

from amdnfs_compile import bisect
from amdnfs_compile.bisect import Bisection, Finding, TensorPair
from amdnfs_compile.bisect_text import SUMMARY, write_bisection
from amdnfs_compile.listing import list_code
from amdnfs_compile.replay import Observation
from amdnfs_compile.traced import TracedDispatch, TracedProgram, options_of
from tests.report_bundle import make_bundle

EMULATION = Emulation(library=Path("somewhere"))
TEXTS = np.zeros((4, 20), np.int64)


def dispatch(index: int, export: str, readers: tuple[int, ...], *, is_kept: bool = False) -> TracedDispatch:
    return TracedDispatch(
        entry="prefill_16",
        index=index,
        export=export,
        operands=("%1: tensor<4xf16>",),
        results=("tensor<4xf32>",),
        readers=readers,
        is_kept=is_kept,
    )


CHAIN = (
    dispatch(0, "linear", (1,)),
    dispatch(1, "attend", (2,)),
    dispatch(2, "linear", (3,)),
    dispatch(3, "attend", (4,)),
    dispatch(4, "norm", (), is_kept=True),
)
"""The dispatches of the hand-made bundle, each read by the next."""


class ScriptedSteps:
    """Instead of `EmulatedSteps`: a program whose dispatches give given tensors."""

    outputs: dict[str, dict[int, np.ndarray]] = {}  # noqa: RUF012 - set by each test
    """By target and dispatch; zeros unless given."""

    def __init__(self, bundle: Path, target: str, num_pages: int, emulation: Emulation, traced: Path | None = None):
        self.tensors: Tensors = {}
        self._mine = self.outputs.get(target, {})

    def step(self, name: str, arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        self.tensors = {f"{name} {i} {side}": [np.zeros(4)] for i in range(len(CHAIN)) for side in ("in", "out")}
        self.tensors |= {f"{name} {i} out": [value] for i, value in self._mine.items()}
        return np.zeros(1, np.int64), np.zeros((1, 100), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], TracedProgram]:
    """A program with the dispatches of `CHAIN` for a target, on a device that the tests script."""

    def make(target: str) -> TracedProgram:
        bundle = make_bundle(tmp_path / target, target=target)
        return TracedProgram(target=target, bundle=bundle, program=tmp_path / "traced.vmfb", dispatches=CHAIN)

    def play(steps: Any, *_: Any) -> Any:
        steps.step("prefill_16", (None, np.zeros(1, np.int64)))
        return iter([Observation(name="prefill whole", logits=np.zeros((1, 4), np.float32), rows=((0, 3),))])

    monkeypatch.setattr(bisect, "EmulatedSteps", ScriptedSteps)
    monkeypatch.setattr(bisect, "replay", play)
    return make


def first(programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, **outputs: Any) -> Finding | None:
    monkeypatch.setattr(ScriptedSteps, "outputs", outputs)
    return bisect.compare(programs("gfx942"), programs("gfx1100"), TEXTS, 0.02, EMULATION)


WRONG = np.array([1.0, 2, 3, 5])
RIGHT = np.array([1.0, 2, 3, 4])


@pytest.mark.parametrize(
    ("ours", "theirs", "blamed"),
    [
        ({}, {}, None),
        ({1: RIGHT, 2: RIGHT + 0.01}, {1: RIGHT, 2: RIGHT}, None),
        ({4: WRONG}, {4: RIGHT}, 4),
        ({2: WRONG, 3: WRONG, 4: WRONG}, {2: RIGHT, 3: RIGHT, 4: RIGHT}, 2),
        # What nobody reads may be whatever was in memory: its reader agrees.
        ({1: WRONG}, {1: RIGHT}, None),
        ({1: WRONG, 3: WRONG, 4: WRONG}, {1: RIGHT, 3: RIGHT, 4: RIGHT}, 3),
        # Cut into another number of parts: not compared, so its reader is the first that differs.
        ({1: np.zeros(8), 2: WRONG, 3: WRONG}, {1: np.zeros(4), 2: RIGHT, 3: RIGHT}, 2),
        ({4: np.array([1.0, np.nan, -1e30, 4])}, {4: np.array([1.0, np.nan, -2e30, 4])}, None),
        ({4: np.array([1.0, np.nan])}, {4: np.array([1.0, 2.0])}, 4),
        ({4: np.array([1, 2])}, {4: np.array([1, 3])}, 4),
    ],
)
def test_the_first_that_matters_is_blamed(
    programs: Callable[[str], TracedProgram],
    monkeypatch: pytest.MonkeyPatch,
    ours: dict[int, np.ndarray],
    theirs: dict[int, np.ndarray],
    blamed: int | None,
) -> None:
    found = first(programs, monkeypatch, gfx942=ours, gfx1100=theirs)
    assert (found and found.dispatch.index) == blamed


@pytest.mark.parametrize(
    ("index", "op", "layer"), [(0, "mlp.up_proj", 0), (3, "attention", 1), (4, "model.norm", None)]
)
def test_the_operation_and_its_layer_are_named(
    programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, index: int, op: str, layer: int | None
) -> None:
    chain = {i: WRONG for i in range(index, len(CHAIN))}
    found = first(programs, monkeypatch, gfx942=chain, gfx1100={i: RIGHT for i in chain})
    assert found is not None
    assert (found.op, found.layer) == (op, layer)
    assert found.call == "call 1 (prefill_16, tokens at [0])"


def test_what_is_told_and_kept(
    programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = first(programs, monkeypatch, gfx942={4: WRONG}, gfx1100={4: RIGHT})
    program = programs("gfx90a")
    program = dataclasses.replace(program, program=program.bundle / "artifacts" / "gfx90a" / "program.vmfb")
    lines = write_bisection(Bisection(finding=found, program=program, notes=("a note",)), tmp_path)
    assert lines[:6] == [
        "a note",
        "first dispatch that differs: model.norm, dispatch 4 of prefill_16",
        "  gfx942 beside gfx1100, in call 1 (prefill_16, tokens at [0]); allowed is 5.0e-03",
        "  operand 0, %1: tensor<4xf16>: error 0.0e+00, 0 to 0: agrees",
        "  result 0, tensor<4xf32>: error 2.5e-01, 1 to 4: 1 of 4 elements DIFFER",
        "    worst at [3]: 5 instead of 4",
    ]
    assert lines[-1] == f"  operands, results and code object: {tmp_path}"
    assert np.load(tmp_path / "result-0-got.npy").tolist() == WRONG.tolist()
    assert json.loads((tmp_path / SUMMARY).read_text())["results"] == [
        {"name": "result 0, tensor<4xf32>", "error": 0.25, "num_different": 1, "num_elements": 4}
    ]
    assert write_bisection(Bisection(finding=None, program=program, notes=()), tmp_path) == ["no dispatch differs"]


def test_a_tensor_that_cannot_be_compared_is_told(
    programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = first(programs, monkeypatch, gfx942={4: WRONG}, gfx1100={4: RIGHT})
    assert found is not None
    cut = TensorPair(name="operand 0, x", error=float("nan"), num_different=0, got=np.zeros(8), wanted=np.zeros(4))
    program = programs("gfx90a")
    program = dataclasses.replace(program, program=program.bundle / "artifacts" / "gfx90a" / "program.vmfb")
    found = dataclasses.replace(found, operands=(cut,))
    lines = write_bisection(Bisection(finding=found, program=program, notes=()), tmp_path)
    assert "  operand 0, x: cannot be compared, [8] and [4]: the fault may lie in the dispatch that made it" in lines


def candidates(monkeypatch: pytest.MonkeyPatch, make: Callable[[str], TracedProgram], **other: TracedProgram) -> None:
    """Makes compiles give scripted programs; gfx90a cannot be compiled."""

    def compile_traced(model: Path, manifest: Manifest, target: str, folder: Path) -> TracedProgram:
        if target == "gfx90a":
            raise LoweringError("IREE cannot lower the program for gfx90a\n  more")
        return other.get(target) or make(target)

    monkeypatch.setattr(bisect, "compile_traced", compile_traced)


def test_targets_that_do_not_serve_are_told(
    programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ScriptedSteps, "outputs", {"gfx942": {4: WRONG}, "gfx950": {4: RIGHT}})
    bundle, model = make_bundle(tmp_path / "bundle"), tmp_path / "model"
    shorter = dataclasses.replace(programs("gfx1201"), dispatches=CHAIN[:-1])
    wrong_too, right = programs("gfx1100"), programs("gfx950")
    candidates(monkeypatch, programs, gfx1201=shorter, gfx1100=wrong_too, gfx950=right)
    verdicts = iter([False, True])
    arguments = (bundle, model, "gfx942", TEXTS, lambda _: next(verdicts), 0.02, tmp_path, EMULATION)
    found = bisect.bisect(*arguments)
    assert found.finding is not None
    assert (found.finding.other, found.finding.dispatch.index) == ("gfx950", 4)
    assert found.notes == (
        "compiled again, the program is that of the bundle, byte for byte",
        "gfx1100 does not serve: its logits are wrong, too: prefill whole",
        "gfx90a does not serve: IREE cannot lower the program for gfx90a",
        "gfx1201 does not serve: its program has other dispatches",
    )


def test_agreement_and_nobody_to_compare_with(
    programs: Callable[[str], TracedProgram], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ScriptedSteps, "outputs", {})
    bundle, model = make_bundle(tmp_path / "bundle"), tmp_path / "model"
    same, other = programs("gfx942"), programs("gfx1100")
    candidates(monkeypatch, programs, gfx942=same, gfx1100=other)
    arguments = (bundle, model, "gfx942", TEXTS, lambda _: True, 0.02, tmp_path, EMULATION)
    found = bisect.bisect(*arguments)
    assert found.finding is None
    assert found.notes[-1] == (
        "every dispatch gives what that of gfx1100 gives: both are right, or both are wrong alike"
    )
    with pytest.raises(ArtifactError, match=r"gfx942: there is no other target to compare .*\n.*\n.*gfx90a does not"):
        bisect.bisect(*arguments, others=("gfx942", "gfx90a"))


@pytest.mark.parametrize(
    ("quantization", "chosen"),
    [
        ("none", "none"),
        ("i4-g64-zp-rows-f16", "int4"),
        ("i8-channel-rows-f16-a8", "w8a8"),
        ("f8E4M3FN-tensor-rows-f16-af8", "w8a8-fp8"),
    ],
)
def test_the_options_of_a_bundle_are_found_again(tmp_path: Path, quantization: str, chosen: str) -> None:
    manifest = read_manifest(make_bundle(tmp_path / "b"))
    model = dataclasses.replace(manifest.model, quantization=quantization)
    target = manifest.targets["gfx942"]
    decode = dataclasses.replace(target.entry_points[0], name="decode_4", kind="decode", batch=4, tokens=1)
    target = dataclasses.replace(target, entry_points=(*target.entry_points, decode))
    options = options_of(dataclasses.replace(manifest, model=model, targets={"gfx942": target}))
    assert (options.quantize, options.prefill_chunks, options.decode_batches) == (chosen, (16,), (4,))
    assert ((options.scheme and options.scheme.zero_points) or False) == ("-zp-" in quantization)
    strange = dataclasses.replace(model, quantization="i3")
    with pytest.raises(UsageError, match="no option of this amdnfs gives weights that are quantised as i3"):
        options_of(dataclasses.replace(manifest, model=strange, targets={"gfx942": target}))


def test_machine_code_as_text() -> None:
    code = bytes.fromhex("7fc08cbf000081bfffffffff")  # s_waitcnt lgkmcnt(0), s_endpgm, nothing
    lines = list(list_code(b"head" + code, 4, 16, "gfx942"))
    assert [(line.offset, line.num_bytes) for line in lines] == [(4, 4), (8, 4), (12, 4)]
    assert [line.text.split("(")[0] for line in lines] == ["s_waitcnt", "s_endpgm", ".long 0xffffffff"]
    assert [line.text for line in list_code(code, 0, 4, "gfx1030")] == [".long 0xbf8cc07f"], "no tables for RDNA2"
