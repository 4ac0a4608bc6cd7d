"""A report as one page that stands alone: style and plots are in it, and it loads nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amdnfs_targets.products import PRODUCTS

from amdnfs_runtime.report.amounts import amount, count, counted, layer_range, milliseconds, share
from amdnfs_runtime.report.executed_html import MIX_NAMES, executed_rows
from amdnfs_runtime.report.model import EntryReport, GroupReport, Report, TargetReport
from amdnfs_runtime.report.svg import NUM_COLOURS, roofline_svg
from amdnfs_runtime.report.text import WAVES_NOTE, load_widths

_MINOR = 0.005
"""A dispatch group with less of an entry point's FLOPs and bytes is shown in a softer colour."""
_TEMPLATE = Path(__file__).with_name("page.html.j2")


def report_page(report: Report) -> str:
    """The page of a report."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "ms": milliseconds,
        "share": share,
        "layers": layer_range,
        "count": count,
        "counted": lambda text, is_all: counted(text, is_all=is_all),
        "loads": load_widths,
        "breakable": _breakable,
    }
    return environment.get_template(_TEMPLATE.name).render(
        report=report,
        targets=[_target(target) for target in report.targets],
        products=PRODUCTS,
        colours=NUM_COLOURS,
        mix_names=MIX_NAMES,
        waves_note=WAVES_NOTE,
    )


def _target(target: TargetReport) -> dict[str, Any]:
    """What the template shows of a target, beside the report itself."""
    floors = target.entries[0].floors if target.entries else ()
    product = PRODUCTS[floors[0].product] if floors else None
    return {
        "report": target,
        "product": product,
        # Made here from numbers and escaped names: no markup of anyone else is in it.
        "roofline": _safe(roofline_svg(product, target.entries)) if product else None,
        "has_part_waves": any((kernel.waves_per_simd or 0) % 1 for kernel in target.kernels.values()),
        "has_registers": any(kernel.vgprs is not None for kernel in target.kernels.values()),
        "entries": [{"report": entry, "rows": _rows(entry)} for entry in target.entries],
        "executed": executed_rows(target),
        "ledger": _ledger(target),
    }


def _safe(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _breakable(name: str) -> Any:
    """A name that may be broken after a plus sign, a point, a comma or an underscore."""
    from markupsafe import Markup, escape

    text = str(escape(name))
    for sign in "+.,_":
        text = text.replace(sign, f"{sign}<wbr>")
    return Markup(text)


def _rows(entry: EntryReport) -> list[dict[str, Any]]:
    """The dispatch groups of an entry point with the lengths of their bars, in percent of the longest."""
    flops = [group.flops * group.count for group in entry.groups]
    moved = [group.num_bytes * group.count for group in entry.groups]
    return [
        {
            "group": group,
            "flops": flops[i],
            "flops_bar": _percent(flops[i], flops),
            "bytes": moved[i],
            "bytes_bar": _percent(moved[i], moved),
            "is_minor": max(flops[i], 1.0) < _MINOR * entry.flops and moved[i] < _MINOR * entry.num_bytes,
            "intensity": _intensity(group),
            "units": {True: "matrix", False: "vector", None: "unknown"}[group.uses_matrix_units],
        }
        for i, group in enumerate(entry.groups)
    ]


def _percent(value: float, values: Sequence[float]) -> str:
    longest = max(values, default=0)
    return f"{100 * value / longest:.1f}" if longest else "0"


def _intensity(group: GroupReport) -> str:
    return f"{group.flops / group.num_bytes:.3g}" if group.flops and group.num_bytes else ""


def _ledger(target: TargetReport) -> list[dict[str, Any]]:
    """Rows of the ledger, entry points with the same answer together."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for row in target.ledger.rows:
        key = (row.op, row.layers, row.taken_by, row.why_not_ours, row.uses_matrix_units)
        found.setdefault(key, []).append(row.entry)
    return [
        {"op": op, "layers": layers, "taken_by": taken_by, "why": why, "matrix": matrix, "entries": entries}
        for (op, layers, taken_by, why, matrix), entries in found.items()
    ]
