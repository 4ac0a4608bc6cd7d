"""What the emulator counted as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from amdnfs_runtime.report.amounts import amount, layer_range, share
from amdnfs_runtime.report.counters import Executed
from amdnfs_runtime.report.model import EntryReport, TargetReport
from amdnfs_runtime.report.tables import plain_table

EXECUTED_NOTE = (
    "Executed on the emulator, one call an entry point: what ran was counted, not timed. Lines are of 128 bytes; each "
    "dispatch counts a line once for loads and once for stores."
)
_COLUMNS = ("instructions", "matrix FLOPs", "x FLOPs", "asked bytes", "moved bytes")
_REST = ("LDS bytes", "conflicts", "scratch bytes", "lanes active")


def executed_text(target: TargetReport, *, with_dispatches: bool) -> Iterator[RenderableType]:
    """What was counted of a target's entry points, and on wish of their dispatches."""
    entries = [entry for entry in target.entries if entry.executed is not None]
    yield Text("")
    yield Text(EXECUTED_NOTE)
    yield _entries(entries)
    yield Text("")
    yield _classes(entries)
    if with_dispatches:
        for entry in entries:
            yield Text("")
            yield _dispatches(entry)


def _entries(entries: list[EntryReport]) -> Table:
    table = plain_table("executed", "requests", "tokens", "context", *_COLUMNS, "x least", *_REST)
    for entry in entries:
        if entry.executed is not None:
            sizes = (str(entry.batch), str(entry.tokens), str(entry.context_tokens))
            cells = _cells(entry.executed, entry.flops)
            over = f"{entry.executed.moved_bytes / entry.least_bytes:.2f}"
            table.add_row(entry.name, *sizes, *cells[: len(_COLUMNS)], over, *cells[len(_COLUMNS) :])
    return table


def _classes(entries: list[EntryReport]) -> Table:
    """Wave instructions by class; only classes that ran."""
    counts = {entry.name: entry.executed.instructions for entry in entries if entry.executed is not None}
    names = list(dict.fromkeys(name for found in counts.values() for name, number in found.items() if number))
    table = plain_table("wave instructions", *names)
    for entry_name, found in counts.items():
        table.add_row(entry_name, *(amount(found.get(name, 0), "") for name in names))
    return table


def _dispatches(entry: EntryReport) -> Table:
    columns = ("x", *_COLUMNS, "x bytes", *_REST)
    table = plain_table(f"{entry.name}, executed", "layers", *columns, left=2)
    for group in entry.groups:
        if group.executed is None:
            continue
        cells = _cells(group.executed, group.flops * group.count)
        least = group.num_bytes * group.count
        over = f"{group.executed.moved_bytes / least:.2f}" if least else "-"
        table.add_row(
            f"{group.op[:40]} ({group.kind})" if group.op != group.kind else group.op,
            layer_range(group.layers) or group.part,
            str(group.count),
            *cells[: len(_COLUMNS)],
            over,
            *cells[len(_COLUMNS) :],
        )
    return table


def _cells(executed: Executed, flops: float) -> list[str]:
    """The cells of `_COLUMNS` and `_REST`; `flops` is what the report counted for the same dispatches."""
    return [
        amount(executed.num_instructions, ""),
        amount(executed.matrix_flops, "") if executed.matrix_flops else "0",
        f"{executed.matrix_flops / flops:.2f}" if flops and executed.matrix_flops else "-",
        amount(executed.asked_bytes, "B"),
        amount(executed.moved_bytes, "B"),
        amount(executed.lds_loaded_bytes + executed.lds_stored_bytes, "B"),
        amount(executed.lds_bank_conflicts, ""),
        amount(executed.scratch_bytes, "B"),
        share(executed.active_lanes),
    ]
