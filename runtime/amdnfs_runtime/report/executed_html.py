"""What the page shows of an execution: rows with bars, and the mix of instructions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amdnfs_runtime.report.amounts import amount
from amdnfs_runtime.report.counters import Executed
from amdnfs_runtime.report.model import EntryReport, GroupReport, TargetReport

_MIX = {
    "vector": ("valu", "transcendental"),
    "matrix": ("matrix",),
    "memory": ("vector-memory", "scalar-memory", "scratch"),
    "LDS": ("lds",),
    "scalar": ("salu", "branch"),
    "waits": ("wait", "barrier"),
}
MIX_NAMES = tuple(_MIX)
"""Kinds of instructions in the mix; each has the colour of its place."""


def executed_rows(target: TargetReport) -> list[dict[str, Any]]:
    """The entry points that were executed, with their rows; empty if none was."""
    return [
        {
            "report": entry,
            "over_flops": ratio(entry.executed.matrix_flops, entry.flops),
            "mix": _mix(entry.executed),
            "rows": _rows(entry),
        }
        for entry in target.entries
        if entry.executed is not None
    ]


def _rows(entry: EntryReport) -> list[dict[str, Any]]:
    done = [(group, group.executed) for group in entry.groups if group.executed is not None]
    instructions = [executed.num_instructions for _, executed in done]
    moved = [executed.moved_bytes for _, executed in done]
    return [
        {
            **_ratios(group, executed),
            "group": group,
            "mix": _mix(executed),
            "instructions_bar": _percent(executed.num_instructions, instructions),
            "moved_bar": _percent(executed.moved_bytes, moved),
        }
        for group, executed in done
    ]


def _ratios(group: GroupReport, executed: Executed) -> dict[str, str]:
    return {
        "over_flops": ratio(executed.matrix_flops, group.flops * group.count),
        "over_bytes": ratio(executed.moved_bytes, group.num_bytes * group.count),
    }


def ratio(value: float, of: float) -> str:
    """A ratio with two digits; nothing if one of the numbers is 0.

    >>> ratio(3, 2), ratio(3, 0), ratio(0, 2)
    ('1.50', '', '')
    """
    return f"{value / of:.2f}" if value and of else ""


def _percent(value: float, values: Sequence[float]) -> str:
    longest = max(values, default=0)
    return f"{100 * value / longest:.1f}" if longest else "0"


def _mix(executed: Executed) -> Any:
    """A bar whose parts are the kinds of instructions."""
    from markupsafe import Markup

    total = executed.num_instructions or 1
    counts = {name: sum(executed.instructions.get(item, 0) for item in items) for name, items in _MIX.items()}
    title = ", ".join(f"{name} {amount(number, '').strip()}" for name, number in counts.items() if number)
    parts = "".join(
        f'<i class="key c{index}" style="width:{100 * number / total:.1f}%"></i>'
        for index, number in enumerate(counts.values())
        if number
    )
    # Made of numbers and names of ours: no markup of anyone else is in it.
    return Markup(f'<div class="mix" title="{title}">{parts}</div>')
