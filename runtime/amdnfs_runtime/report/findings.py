"""Warnings: what in a target's kernels costs time, and what the report could not find out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from amdnfs_targets.registry import TARGETS

from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.model import EntryReport, GroupReport, Warned

KINDS = (
    "no-fit",
    "no-matrix",
    "spills",
    "scratch",
    "traffic",
    "cache-gather",
    "mask",
    "upcast",
    "narrow-loads",
    "f64",
    "unknown",
)
"""Kinds of warnings, the most expensive first."""
MAX_IDLE_BYTES_SHARE = 0.2
"""Dispatches without arithmetic for matrix units should move less of an entry point's bytes than this."""
MIN_BYTES_SHARE = 0.05
"""A dispatch group with less of an entry point's bytes gets no warning about the widths of its loads."""
MIN_FLOPS_SHARE = 0.01
"""A dispatch group with less of an entry point's FLOPs gets no warning about missing matrix instructions."""
MIN_MATRIX_ROWS = 16
"""Rows from which matrix instructions pay: the smallest tile of all targets has 16."""
NARROW_BYTES = 4
"""Loads of up to so many bytes a lane are narrow; the widest is 16."""
_SHARE = "{share}"
"""Stands for a share in the text of a warning until those of all its dispatch groups are known."""


def find_warnings(
    entries: Sequence[EntryReport], kernels: Mapping[str, KernelReport], target: str
) -> tuple[Warned, ...]:
    """The warnings of one target; the same fault of one kernel in several entry points is one warning.

    The share of several dispatch groups of one entry point with the same fault is their sum.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    has_matrix_units = bool(TARGETS[target].matrix_ops)
    for entry in entries:
        shares: dict[tuple[str, str, str], float] = {}
        for group in entry.groups:
            for kind, text, share in _of_group(entry, group, kernels.get(group.export), has_matrix_units):
                key = (kind, group.op, text)
                shares[key] = shares.get(key, 0.0) + share
        for (kind, op, text), share in shares.items():
            found.setdefault((kind, op, text.replace(_SHARE, f"{share:.0%}")), []).append(entry.name)
    warnings = [
        Warned(kind=kind, where=f"{', '.join(dict.fromkeys(names))}: {op}", text=text)
        for (kind, op, text), names in found.items()
    ]
    return tuple(sorted(warnings, key=lambda item: KINDS.index(item.kind)))


def _of_group(
    entry: EntryReport, group: GroupReport, kernel: KernelReport | None, has_matrix_units: bool
) -> Iterator[tuple[str, str, float]]:
    """Kind, text, and the share of the entry point's bytes or FLOPs that `_SHARE` in the text stands for."""
    for habit in group.habits:
        yield *_of_habit(habit), 0.0
    for reason in group.unknown:
        yield "unknown", f"not counted: {reason}", 0.0
    moved = group.num_bytes * group.count / entry.num_bytes if entry.num_bytes else 0.0
    if not group.flops and moved >= MAX_IDLE_BYTES_SHARE:
        text = f"dispatches without arithmetic for matrix units ({group.kind}) move {_SHARE} of all bytes"
        yield "traffic", text, moved
    if kernel is None or kernel.vgprs is None:
        return
    yield from ((kind, text, 0.0) for kind, text in _of_registers(kernel))
    share = group.flops * group.count / entry.flops if entry.flops else 0.0
    if (
        has_matrix_units
        and kernel.uses_matrix_units is False
        and share >= MIN_FLOPS_SHARE
        and group.rows >= MIN_MATRIX_ROWS
    ):
        yield (
            "no-matrix",
            f"no matrix instructions, although {group.rows:.0f} rows share a factor; {_SHARE} of FLOPs",
            share,
        )
    narrow = _narrow_loads(kernel)
    if narrow > 0.5 and moved >= MIN_BYTES_SHARE:
        yield (
            "narrow-loads",
            f"{narrow:.0%} of its loads take {NARROW_BYTES} bytes a lane or less; {_SHARE} of bytes",
            moved,
        )


def _of_habit(habit: str) -> tuple[str, str]:
    texts = {
        "cache-gather": "gathers keys or values into a tensor of their own instead of reading them where they are used",
        "mask": "writes a mask to memory",
    }
    if habit in texts:
        return habit, texts[habit]
    return "upcast", f"a dispatch of its own for an {habit}, outside the product that needs it"


def _of_registers(kernel: KernelReport) -> Iterable[tuple[str, str]]:
    if kernel.waves_per_simd == 0:
        yield "no-fit", f"a workgroup does not fit on a compute unit ({kernel.waves_limit})"
    if kernel.vgpr_spills or kernel.sgpr_spills:
        spills = f"{kernel.vgpr_spills} vector and {kernel.sgpr_spills} scalar registers spilled"
        yield "spills", f"{spills}, {kernel.scratch_bytes} bytes of scratch memory a lane"
    elif kernel.scratch_bytes:
        yield "scratch", f"{kernel.scratch_bytes} bytes of scratch memory a lane"
    if kernel.f64:
        yield "f64", f"{kernel.f64} instructions in double precision"


def _narrow_loads(kernel: KernelReport) -> float:
    """Share of narrow ones among the loads from memory in a kernel's text; 0 if there are none."""
    widths = {int(width): count for width, count in kernel.loads.get("global", {}).items() if width.isdecimal()}
    total = sum(widths.values())
    return sum(count for width, count in widths.items() if width <= NARROW_BYTES) / total if total else 0.0
