"""Compares two reports: figure by figure, and operation by operation where a kernel changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.report.figures import FIGURES, read_figures
from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.model import EntryReport, GroupReport, Report, TargetReport

_KERNEL_FIGURES = ("matrix_instructions", "vgprs", "vgpr_spills", "scratch_bytes", "lds_bytes", "waves_per_simd")
_OF_THE_MODEL = ("model", "architecture", "dtype", "quantization", "page_tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One figure in both bundles."""

    target: str
    """Target."""
    entry: str
    """Entry point."""
    figure: str
    """Name of the figure."""
    before: float
    """In the first bundle."""
    after: float
    """In the second one."""
    verdict: str
    """`same`, `better` or `worse`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OperationChange:
    """The dispatches of one operation of an entry point in both bundles."""

    target: str
    """Target."""
    entry: str
    """Entry point."""
    op: str
    """Where in the model they come from."""
    before: Mapping[str, Any]
    """Figures in the first bundle; empty if it has no such operation."""
    after: Mapping[str, Any]
    """Figures in the second one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two bundles."""

    before: str
    """Name of the first."""
    after: str
    """Name of the second."""
    context_tokens: int
    """Context that the figures are for."""
    changes: tuple[Change, ...]
    """Every figure that both have."""
    operations: tuple[OperationChange, ...]
    """Operations that differ."""
    only_before: tuple[str, ...]
    """Targets and entry points that only the first bundle has."""
    only_after: tuple[str, ...]
    """Those that only the second one has."""
    differences: tuple[str, ...] = ()
    """What differs in the models themselves, so that a verdict may tell nothing of the kernels."""

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain values."""
        return dataclasses.asdict(self)


def compare_reports(before: Report, after: Report) -> Comparison:
    """Compares two reports that were made for the same context.

    Raises:
        UsageError: If they have no target in common.
    """
    first = {(target.name, entry.name): (target, entry) for target in before.targets for entry in target.entries}
    second = {(target.name, entry.name): (target, entry) for target in after.targets for entry in target.entries}
    common = [key for key in first if key in second]
    if not common:
        raise UsageError(
            f"{before.bundle} and {after.bundle} have no entry point of a target in common: the first is for "
            f"{', '.join(target.name for target in before.targets)}, the second for "
            f"{', '.join(target.name for target in after.targets)}"
        )
    return Comparison(
        before=before.bundle,
        after=after.bundle,
        context_tokens=before.context_tokens,
        changes=tuple(change for key in common for change in _changes(*first[key], *second[key])),
        operations=tuple(change for key in common for change in _operations(*first[key], *second[key])),
        only_before=tuple(" ".join(key) for key in first if key not in second),
        only_after=tuple(" ".join(key) for key in second if key not in first),
        differences=tuple(
            f"{name} {getattr(before, name)} -> {getattr(after, name)}"
            for name in _OF_THE_MODEL
            if getattr(before, name) != getattr(after, name)
        ),
    )


def _changes(old_target: TargetReport, old: EntryReport, new_target: TargetReport, new: EntryReport) -> list[Change]:
    before, after = read_figures(old_target, old), read_figures(new_target, new)
    return [
        Change(
            target=old_target.name,
            entry=old.name,
            figure=name,
            before=before[name],
            after=after[name],
            verdict=_verdict(name, before[name], after[name]),
        )
        for name in before
        if name in after
    ]


def _verdict(name: str, before: float, after: float) -> str:
    if FIGURES[name].is_worse(after, before):
        return "worse"
    return "better" if FIGURES[name].is_worse(before, after) else "same"


def _operations(
    old_target: TargetReport, old: EntryReport, new_target: TargetReport, new: EntryReport
) -> list[OperationChange]:
    before, after = _by_operation(old, old_target.kernels), _by_operation(new, new_target.kernels)
    return [
        OperationChange(
            target=old_target.name, entry=old.name, op=op, before=before.get(op, {}), after=after.get(op, {})
        )
        for op in [*before, *(name for name in after if name not in before)]
        if before.get(op) != after.get(op)
    ]


def _by_operation(entry: EntryReport, kernels: Mapping[str, KernelReport]) -> dict[str, dict[str, Any]]:
    """Figures of each operation; dispatches of one operation together."""
    groups: dict[str, list[GroupReport]] = {}
    for group in entry.groups:
        groups.setdefault(group.op, []).append(group)
    return {op: _summary(items, kernels) for op, items in groups.items()}


def _summary(groups: list[GroupReport], kernels: Mapping[str, KernelReport]) -> dict[str, Any]:
    known = [kernels[group.export] for group in groups if group.export in kernels]
    figures: dict[str, Any] = {
        "dispatches": sum(group.count for group in groups),
        "flops": sum(group.flops * group.count for group in groups),
        "bytes": sum(group.num_bytes * group.count for group in groups),
    }
    for name in _KERNEL_FIGURES:
        values = [value for kernel in known if (value := getattr(kernel, name)) is not None]
        if values:
            figures[name] = min(values) if name == "waves_per_simd" else max(values)
    return figures
