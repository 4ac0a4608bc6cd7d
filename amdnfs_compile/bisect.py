"""Finds the first dispatch whose output is wrong, by running the program of another AMD target beside it.

    the target's program, traced  --emulator-->  tensors of each dispatch  --+
                                                                             +-->  the first that differ
    another target's, traced      --emulator-->  tensors of each dispatch  --+

Programs for AMD targets have the same dispatches, with other machine code in them. The other target must have the very
same list of dispatches, and its logits must be right: both are checked, and the next target is tried if one fails. What
two targets have wrong alike cannot be found so, and is said. Programs are compiled again from the model for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.errors import ArtifactError, LoweringError
from amdnfs_runtime.execution import EmulatedSteps, Emulation
from amdnfs_runtime.report.facts import read_facts
from amdnfs_runtime.tracing import Tensors

from amdnfs_compile.replay import Observation, num_pages, replay
from amdnfs_compile.traced import TracedDispatch, TracedProgram, compile_traced

OTHERS = ("gfx942", "gfx1100", "gfx90a", "gfx1201", "gfx950")
"""Targets to compare with, in this order; the one that is looked at is left out. Families alternate: kernels of one
family often have the same instructions, and then the same fault."""
_MASK = 1e20
"""Kernels write numbers beyond this for what is masked."""
_PARTS = ("head", "layer", "tail")
_SHARE = 0.25
"""Share of the tolerance of logits that is allowed for the output of a dispatch: errors grow on the way to the end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorPair:
    """One tensor of a dispatch in both programs."""

    name: str
    """`operand ...` or `result ...`, with its type."""
    error: float
    """Largest difference, as a share of the other's largest value; 0 for equal integers, infinite for others; NaN if
    they cannot be compared, because the targets cut the work into different numbers of parts."""
    num_different: int
    """Elements that differ by more than is allowed."""
    got: npt.NDArray[Any]
    """Of the target."""
    wanted: npt.NDArray[Any]
    """Of the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """The first dispatch whose output differs."""

    target: str
    """Target that was looked at."""
    other: str
    """Target that it was compared with."""
    dispatch: TracedDispatch
    """The dispatch."""
    op: str
    """Where in the model it comes from."""
    layer: int | None
    """Its layer."""
    call: str
    """Which call of which comparison."""
    allowed: float
    """Allowed error."""
    operands: tuple[TensorPair, ...]
    """What it reads, but for weights."""
    results: tuple[TensorPair, ...]
    """What it writes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bisection:
    """What came of it."""

    finding: Finding | None
    """The first dispatch that differs; None if all agree."""
    program: TracedProgram
    """The program of the target, compiled again."""
    notes: tuple[str, ...]
    """What was tried and did not serve, and what limits the result."""


class _Found(Exception):  # noqa: N818 - it ends a replay, and is no error
    """Carries the finding out of a replay."""

    def __init__(self, finding: Finding) -> None:
        super().__init__()
        self.finding = finding


def bisect(
    bundle: Path,
    model: Path,
    target: str,
    texts: npt.NDArray[np.int64],
    is_right: Callable[[Observation], bool],
    tolerance: float,
    folder: Path,
    emulation: Emulation,
    others: Sequence[str] | None = None,
) -> Bisection:
    """Finds the first dispatch of `target` whose output differs from that of another target.

    Args:
        bundle: The bundle.
        model: Folder of the model it was made from.
        target: The hip target that gives wrong numbers.
        texts: Of the replay that showed them.
        is_right: Whether logits are right.
        tolerance: Allowed difference of logits, as a share of the largest.
        folder: Keeps the programs.
        emulation: How to emulate.
        others: Targets to compare with, by default `OTHERS`; the first that serves is taken.

    Raises:
        ArtifactError: If no other target serves; says why for each.
        AmdnfsError: If the model cannot be compiled, or the emulator stops the program.
    """
    manifest = read_manifest(bundle)
    program = compile_traced(model, manifest, target, folder)
    notes = [_identity(manifest, program)]
    for name in OTHERS if others is None else others:
        if name == target:
            continue
        other, reason = _candidate(model, manifest, name, program, folder, texts, is_right, emulation)
        if other is None:
            notes.append(f"{name} does not serve: {reason}")
            continue
        finding = compare(program, other, texts, tolerance, emulation)
        if finding is None:
            notes.append(f"every dispatch gives what that of {name} gives: both are right, or both are wrong alike")
        return Bisection(finding=finding, program=program, notes=tuple(notes))
    raise ArtifactError(f"{target}: there is no other target to compare dispatches with\n  " + "\n  ".join(notes))


def judge(
    bundle: Path, model: Path, target: str, texts: npt.NDArray[np.int64], tolerance: float
) -> Callable[[Observation], bool]:
    """Whether logits of a replay are those of transformers.

    Raises:
        ModelError: If transformers cannot load the model.
    """
    from amdnfs_compile.reference import reference_logits

    reference = reference_logits(model, bundle, read_manifest(bundle), texts, target)[1]

    def is_right(item: Observation) -> bool:
        wanted = np.stack([reference[row] for row in item.rows])
        return bool(np.abs(item.logits - wanted).max() <= tolerance * np.abs(wanted).max())

    return is_right


def _identity(manifest: Manifest, program: TracedProgram) -> str:
    """Whether compiling again gave the program of the bundle."""
    again = read_manifest(program.bundle)
    pair = [item.files[item.targets[program.target].program].sha256 for item in (manifest, again)]
    if pair[0] == pair[1]:
        return "compiled again, the program is that of the bundle, byte for byte"
    return "compiled again, the program differs from that of the bundle: other tools made it, or it was altered"


def _candidate(
    model: Path,
    manifest: Manifest,
    name: str,
    program: TracedProgram,
    folder: Path,
    texts: npt.NDArray[np.int64],
    is_right: Callable[[Observation], bool],
    emulation: Emulation,
) -> tuple[TracedProgram | None, str]:
    """A program with the same dispatches and right logits, or why it is none."""
    try:
        other = compile_traced(model, manifest, name, folder)
    except LoweringError as error:
        return None, str(error).splitlines()[0]
    if [item.likeness for item in other.dispatches] != [item.likeness for item in program.dispatches]:
        return None, "its program has other dispatches"
    again = read_manifest(other.bundle)
    with EmulatedSteps(other.bundle, name, num_pages(again, texts.shape[1]), emulation) as steps:
        wrong = [item.name for item in replay(steps, again, name, texts) if not is_right(item)]
    return (None, f"its logits are wrong, too: {', '.join(wrong)}") if wrong else (other, "")


def compare(
    program: TracedProgram,
    other: TracedProgram,
    texts: npt.NDArray[np.int64],
    tolerance: float,
    emulation: Emulation,
) -> Finding | None:
    """The first dispatch of a replay whose output differs between two programs with the same dispatches.

    Raises:
        ArtifactError: If the emulator stops one of them.
    """
    manifest = read_manifest(program.bundle)
    pages = num_pages(manifest, texts.shape[1])
    with (
        EmulatedSteps(program.bundle, program.target, pages, emulation, program.program) as ours,
        EmulatedSteps(other.bundle, other.target, pages, emulation, other.program) as theirs,
    ):
        pair = _Pair(program, other, ours, theirs, tolerance * _SHARE)
        try:
            for _ in replay(pair, manifest, program.target, texts):
                pass
        except _Found as found:
            return _named(found.finding, program)
    return None


class _Pair:
    """Both programs as one: every call is made in both, and its dispatches are compared."""

    def __init__(
        self, program: TracedProgram, other: TracedProgram, ours: EmulatedSteps, theirs: EmulatedSteps, allowed: float
    ) -> None:
        self._ours, self._theirs = ours, theirs
        self._program, self._other, self._allowed = program, other, allowed
        self._num_calls = 0

    def step(self, name: str, arguments: Arguments) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """See `Steps.step`.

        Raises:
            _Found: If a dispatch differs.
        """
        self._num_calls += 1
        self._ours.step(name, arguments)
        result = self._theirs.step(name, arguments)
        dispatches = [item for item in self._program.dispatches if item.entry == name]
        first = self._first(dispatches)
        if first is not None:
            ours, theirs = self._ours.tensors, self._theirs.tensors
            raise _Found(
                Finding(
                    target=self._program.target,
                    other=self._other.target,
                    dispatch=first,
                    op="",
                    layer=None,
                    call=f"call {self._num_calls} ({name}, tokens at {arguments[1].tolist()})",
                    allowed=self._allowed,
                    operands=tuple(_pairs(first, "in", ours, theirs, self._allowed)),
                    results=tuple(_pairs(first, "out", ours, theirs, self._allowed)),
                )
            )
        return result

    def _first(self, dispatches: Sequence[TracedDispatch]) -> TracedDispatch | None:
        """The first that differs in something that matters: what nobody reads may be whatever was in memory."""
        wrong = {
            item.index
            for item in dispatches
            if any(
                pair.num_different
                for pair in _pairs(item, "out", self._ours.tensors, self._theirs.tensors, self._allowed)
            )
        }
        for item in dispatches:
            if item.index in wrong and (item.is_kept or wrong & set(item.readers)):
                return item
        return None


def _pairs(dispatch: TracedDispatch, side: str, ours: Tensors, theirs: Tensors, allowed: float) -> list[TensorPair]:
    key = f"{dispatch.entry} {dispatch.index} {side}"
    names = dispatch.operands if side == "in" else dispatch.results
    kind = "operand" if side == "in" else "result"
    found = zip(names, ours.get(key, ()), theirs.get(key, ()), strict=True) if key in ours else ()
    return [_pair(f"{kind} {i}, {name}", got, wanted, allowed) for i, (name, got, wanted) in enumerate(found)]


def _pair(name: str, got: npt.NDArray[Any], wanted: npt.NDArray[Any], allowed: float) -> TensorPair:
    if got.shape != wanted.shape:
        return TensorPair(name=name, error=float("nan"), num_different=0, got=got, wanted=wanted)
    if np.issubdtype(wanted.dtype, np.integer):
        differs = got != wanted
        error = float("inf") if differs.any() else 0.0
        return TensorPair(name=name, error=error, num_different=int(differs.sum()), got=got, wanted=wanted)
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    is_number = (np.abs(a) < _MASK) & (np.abs(b) < _MASK)
    scale = max(float(np.abs(b[is_number]).max(initial=0.0)), 1e-30)
    with np.errstate(invalid="ignore"):
        errors = np.where(is_number, np.abs(a - b) / scale, np.where(_both_mean_nothing(a, b), 0.0, np.inf))
    num_different = int((errors > allowed).sum())
    return TensorPair(
        name=name, error=float(errors.max(initial=0.0)), num_different=num_different, got=got, wanted=wanted
    )


def _both_mean_nothing(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Where both are NaN, or both are so large, with the same sign, that they stand for infinity."""
    large = (np.abs(a) >= _MASK) & (np.abs(b) >= _MASK) & (np.sign(a) == np.sign(b))
    both: npt.NDArray[np.bool_] = (np.isnan(a) & np.isnan(b)) | large
    return both


def _named(finding: Finding, program: TracedProgram) -> Finding:
    """A finding with the name of its operation, from the facts of the program."""
    manifest = read_manifest(program.bundle)
    facts = read_facts(program.bundle / manifest.targets[program.target].facts)
    dispatch = finding.dispatch
    places = [
        (_PARTS.index(group.part), layer, index, group.op)
        for index, group in enumerate(facts.entries[dispatch.entry].groups)
        if group.export == dispatch.export
        for layer in group.layers or range(group.count)
    ]
    same = [item for item in program.dispatches if (item.entry, item.export) == (dispatch.entry, dispatch.export)]
    if len(places) != len(same):  # a part of the model that facts.json does not tell apart
        return finding
    part, layer, _, op = sorted(places)[same.index(dispatch)]
    return dataclasses.replace(finding, op=op, layer=layer if _PARTS[part] == "layer" else None)
