"""The figures of an entry point that can get better or worse: what budgets hold and comparisons show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.model import EntryReport, TargetReport


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One figure."""

    name: str
    """Name in budgets."""
    meaning: str
    """What it is, for people."""
    is_larger_worse: bool
    """Direction."""
    read: Callable[[EntryReport, Mapping[str, KernelReport]], float | None]
    """Its value; None if it does not exist for the target."""

    def is_worse(self, value: float, than: float) -> bool:
        """Whether `value` is worse than another one; differences of rounding are none."""
        slack = 1e-9 * max(abs(value), abs(than))
        return value > than + slack if self.is_larger_worse else value < than - slack


def _sum_of(name: str) -> Callable[[EntryReport, Mapping[str, KernelReport]], float | None]:
    """Sum of a figure over the kernels of an entry point; None unless all are known."""

    def read(entry: EntryReport, kernels: Mapping[str, KernelReport]) -> float | None:
        values = [getattr(kernels[key], name) for key in {group.export for group in entry.groups} if key in kernels]
        return None if not values or None in values else float(sum(values))

    return read


def _spills(entry: EntryReport, kernels: Mapping[str, KernelReport]) -> float | None:
    parts = [_sum_of(name)(entry, kernels) for name in ("vgpr_spills", "sgpr_spills")]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _habit(prefix: str) -> Callable[[EntryReport, Mapping[str, KernelReport]], float | None]:
    def read(entry: EntryReport, _kernels: Mapping[str, KernelReport]) -> float:
        return sum(group.count for group in entry.groups if any(habit.startswith(prefix) for habit in group.habits))

    return read


def _figure(
    name: str,
    meaning: str,
    read: Callable[[EntryReport, Mapping[str, KernelReport]], float | None],
    *,
    is_larger_worse: bool = True,
) -> Figure:
    return Figure(name=name, meaning=meaning, is_larger_worse=is_larger_worse, read=read)


_ALL = (
    _figure("dispatches", "dispatches of a call", lambda entry, _: entry.num_dispatches),
    _figure("dispatches_per_layer", "dispatches a layer", lambda entry, _: entry.dispatches_per_layer),
    _figure("flops", "FLOPs of matmuls and attention", lambda entry, _: entry.flops),
    _figure("bytes", "bytes moved by dispatches and copies", lambda entry, _: entry.num_bytes),
    _figure(
        "matrix_share",
        "share of FLOPs with matrix instructions",
        lambda entry, _: entry.matrix_share,
        is_larger_worse=False,
    ),
    _figure("spilled_registers", "spilled registers of all kernels", _spills),
    _figure("scratch_bytes", "scratch memory of all kernels, bytes a lane", _sum_of("scratch_bytes")),
    _figure("cache_gathers", "dispatches that gather keys or values", _habit("cache-gather")),
    _figure("masks", "dispatches that write a mask", _habit("mask")),
    _figure("upcasts", "dispatches for an upcast alone", _habit("upcast")),
    _figure(
        "not_counted",
        "dispatches with work that was not counted",
        lambda entry, _: sum(group.count for group in entry.groups if group.unknown),
    ),
    _figure(
        "bytes_moved_over_least",
        "bytes in distinct lines that dispatches touched, over the least bytes",
        lambda entry, _: entry.executed.moved_bytes / entry.least_bytes if entry.executed else None,
    ),
    _figure(
        "wave_instructions",
        "wave instructions that were executed",
        lambda entry, _: entry.executed.num_instructions if entry.executed else None,
    ),
    _figure(
        "lds_bank_conflicts",
        "extra cycles of shared memory",
        lambda entry, _: entry.executed.lds_bank_conflicts if entry.executed else None,
    ),
)

EXECUTED_FIGURES = frozenset({"bytes_moved_over_least", "wave_instructions", "lds_bank_conflicts"})
"""Those that exist only after an execution on the emulator."""

FIGURES: Mapping[str, Figure] = {figure.name: figure for figure in _ALL}
"""By name, in the order in which they are shown."""


def read_figures(target: TargetReport, entry: EntryReport) -> dict[str, float]:
    """The figures that exist for an entry point, by name."""
    values = {name: figure.read(entry, target.kernels) for name, figure in FIGURES.items()}
    return {name: value for name, value in values.items() if value is not None}
