"""A report and a comparison as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_targets.products import PRODUCTS
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from amdnfs_runtime.report.amounts import amount, count, counted, layer_range, milliseconds, share
from amdnfs_runtime.report.compare import Comparison, OperationChange
from amdnfs_runtime.report.executed_text import executed_text
from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.model import EntryReport, Report, TargetReport
from amdnfs_runtime.report.tables import plain_table

_FLOOR_NOTE = (
    "Floors come from peaks of data sheets. They are no measured times and no estimates; nobody has run the hip "
    "programs on AMD hardware."
)


WAVES_NOTE = (
    "Waves that are no whole number are an average: the SIMDs of a compute unit share whole workgroups, so one of them "
    "may hold a wave more than another."
)


def report_text(report: Report, *, with_dispatches: bool = False) -> RenderableType:
    """A report as something that rich prints.

    Args:
        report: The report.
        with_dispatches: Add a table of the dispatches of each entry point.
    """
    parts: list[RenderableType] = [
        Text(f"{report.bundle}: {report.model} ({report.architecture}, {report.dtype})", style="bold"),
        Text(f"costs for {report.context_tokens} tokens of context a request, pages of {report.page_tokens}"),
    ]
    for target in report.targets:
        parts += [Text(""), *_target(target, with_dispatches)]
    if report.products:
        parts += [Text(""), Text(_FLOOR_NOTE)]
    return Group(*parts)


def _target(target: TargetReport, with_dispatches: bool) -> Iterator[RenderableType]:
    yield Text(f"{target.name} ({target.kind})", style="bold")
    yield _entries(target)
    if any(entry.floors for entry in target.entries):
        yield Text("")
        yield _floors(target)
    if any(entry.executed for entry in target.entries):
        yield from executed_text(target, with_dispatches=with_dispatches)
    if with_dispatches:
        for entry in target.entries:
            yield Text("")
            yield _dispatches(entry, target)
        if any((kernel.waves_per_simd or 0) % 1 for kernel in target.kernels.values()):
            yield Text(WAVES_NOTE)
    yield Text("")
    yield _ledger(target)
    for reason, rows in _without_kernel(target).items():
        yield Text(f"  no kernel of our own: {rows}: {reason}")
    for miss in target.ledger.near_misses:
        yield Text(f"  refused by {miss.pass_name}, {miss.count} time(s): {miss.reason}")
    yield Text("")
    yield Text(f"{len(target.warnings)} warning(s)")
    for warning in target.warnings:
        yield Text(f"  {warning.kind}: {warning.where}: {warning.text}")
    for text in target.missing:
        yield Text(f"  {text}")


def _entries(target: TargetReport) -> Table:
    table = plain_table(
        "entry point", "dispatches", "a layer", "FLOPs", "on matrix units", "bytes", "least bytes", "x least", "weights"
    )
    for entry in target.entries:
        table.add_row(
            entry.name,
            str(entry.num_dispatches),
            count(round(entry.dispatches_per_layer, 2)),
            counted(amount(entry.flops, ""), is_all=entry.is_counted),
            share(entry.matrix_share),
            counted(amount(entry.num_bytes, "B"), is_all=entry.is_counted),
            amount(entry.least_bytes, "B"),
            counted(f"{entry.num_bytes / entry.least_bytes:.2f}", is_all=entry.is_counted),
            amount(entry.weight_bytes, "B"),
        )
    return table


def _floors(target: TargetReport) -> Table:
    table = plain_table("floor on", *(entry.name for entry in target.entries), "bound")
    for i, floor in enumerate(target.entries[0].floors):
        floors = [entry.floors[i] for entry in target.entries]
        bounds = "/".join(dict.fromkeys(item.bound for item in floors))
        table.add_row(PRODUCTS[floor.product].label, *(milliseconds(item.floor_ms) for item in floors), bounds)
        table.add_row("  this program", *(milliseconds(item.program_ms) for item in floors), "")
    return table


def _dispatches(entry: EntryReport, target: TargetReport) -> Table:
    columns = ("x", "FLOPs", "bytes", "matrix", "VGPR", "AGPR", "SGPR", "LDS", "scratch", "spills", "waves", "loads")
    table = plain_table(entry.name, "layers", *columns, left=2)
    for group in entry.groups:
        kernel = target.kernels.get(group.export)
        table.add_row(
            f"{group.op[:40]} ({group.kind})" if group.op != group.kind else group.op,
            layer_range(group.layers) or group.part,
            str(group.count),
            counted(amount(group.flops * group.count, "") if group.flops else "0", is_all=not group.unknown),
            counted(amount(group.num_bytes * group.count, "B"), is_all=not group.unknown),
            *_kernel_cells(kernel),
        )
    return table


def _kernel_cells(kernel: KernelReport | None) -> list[str]:
    if kernel is None:
        return ["-"] * 9
    spills = None if kernel.vgpr_spills is None else kernel.vgpr_spills + (kernel.sgpr_spills or 0)
    numbers = (kernel.matrix_instructions, kernel.vgprs, kernel.agprs, kernel.sgprs, kernel.lds_bytes)
    rest = (kernel.scratch_bytes, spills, kernel.waves_per_simd)
    return [*(count(value) for value in (*numbers, *rest)), load_widths(kernel)]


def load_widths(kernel: KernelReport) -> str:
    """Loads from memory by bytes a lane, widest first: `16x6 2x1`; a dash if there are none."""
    widths = sorted(kernel.loads.get("global", {}).items(), key=lambda item: (len(item[0]), item[0]), reverse=True)
    return " ".join(f"{width}x{number}" for width, number in widths) or "-"


def _ledger(target: TargetReport) -> Table:
    table = plain_table("attention and matmuls", "layers", "taken by", left=3)
    rows: dict[tuple[str, str, str], list[str]] = {}
    for row in target.ledger.rows:
        rows.setdefault((row.op, layer_range(row.layers), row.taken_by), []).append(row.entry)
    for (op, layers, taken_by), entries in rows.items():
        table.add_row(f"{op[:48]} ({', '.join(entries)})", layers, taken_by)
    return table


def _without_kernel(target: TargetReport) -> dict[str, str]:
    """For each reason the operations, with their layers, that no kernel of ours computes for it."""
    found: dict[str, dict[str, None]] = {}
    for row in target.ledger.rows:
        if row.why_not_ours:
            layers = f" ({layer_range(row.layers)})" if row.layers else ""
            found.setdefault(row.why_not_ours, {})[f"{row.op}{layers}"] = None
    return {reason: ", ".join(names) for reason, names in found.items()}


def comparison_text(comparison: Comparison) -> RenderableType:
    """A comparison as something that rich prints; only what differs."""
    parts: list[RenderableType] = [
        Text(f"{comparison.before} -> {comparison.after}", style="bold"),
        Text(f"costs for {comparison.context_tokens} tokens of context a request"),
        *(Text(f"not the same: {text}") for text in comparison.differences),
        Text(""),
    ]
    table = plain_table("target", "entry point", "figure", "before", "after", "verdict", left=3)
    for change in comparison.changes:
        if change.verdict != "same":
            numbers = (count(change.before), count(change.after))
            table.add_row(change.target, change.entry, change.figure, *numbers, change.verdict)
    parts.append(table if table.row_count else Text(f"all {len(comparison.changes)} figures are the same"))
    parts += [Text(_operation(operation, comparison)) for operation in comparison.operations]
    parts += [Text(f"only in {comparison.before}: {name}") for name in comparison.only_before]
    parts += [Text(f"only in {comparison.after}: {name}") for name in comparison.only_after]
    return Group(*parts)


def _operation(change: OperationChange, comparison: Comparison) -> str:
    where = f"{change.target} {change.entry} {change.op}"
    if not change.before or not change.after:
        home = comparison.before if change.before else comparison.after
        return f"{where}: only in {home}, {(change.before or change.after)['dispatches']} dispatch(es)"
    names = {**change.before, **change.after}
    changed = [name for name in names if change.before.get(name) != change.after.get(name)]
    values = [f"{n} {_value(change.before.get(n))} -> {_value(change.after.get(n))}" for n in changed]
    return f"{where}: {', '.join(values)}"


def _value(value: float | None) -> str:
    return "none" if value is None else count(value)
