"""The roofline plot of one product as an SVG image that takes its colours from the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from amdnfs_targets.products import Product

from amdnfs_runtime.report.amounts import amount
from amdnfs_runtime.report.model import EntryReport, GroupReport

_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 16, 18, 46
_RADII = (4.0, 13.0)
NUM_COLOURS = 6
"""Entry points are told apart by so many colours of the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Scale:
    """Logarithmic axes: decades shown and the pixels they take."""

    x_begin: int
    x_end: int
    y_begin: int
    y_end: int

    def x(self, intensity: float) -> float:
        """Pixels from the left."""
        part = (math.log10(intensity) - self.x_begin) / (self.x_end - self.x_begin)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(self, flops_per_s: float) -> float:
        """Pixels from the top."""
        part = (math.log10(flops_per_s) - self.y_begin) / (self.y_end - self.y_begin)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def roofline_svg(product: Product, entries: Sequence[EntryReport]) -> str:
    """The plot; every operation with arithmetic stands on the roof, at its FLOPs a byte.

    A mark's area grows with the part of the entry point's time that it has at peak rates. Round marks are attention,
    square ones matmuls; hollow ones have no matrix instructions.
    """
    types = sorted({name for entry in entries for name in entry.flops_by_type}) or ["f16"]
    points = [point for i, entry in enumerate(entries) for point in _points(product, entry, i)]
    if not points:
        return ""
    scale = _scale(product, types, [point.intensity for point in points])
    parts = [*_grid(scale), *_roofs(product, types, scale)]
    # Large marks first, so that small ones stay visible.
    parts += [_mark(point, scale) for point in sorted(points, key=lambda item: -item.part)]
    label = f"Roofline of {product.label}"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}" class="roofline">'
        f"{''.join(parts)}</svg>"
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Point:
    """One operation of one entry point."""

    intensity: float
    flops_per_s: float
    part: float
    colour: int
    title: str
    is_attention: bool
    is_hollow: bool


def _points(product: Product, entry: EntryReport, index: int) -> Iterator[_Point]:
    times = [_seconds(product, group) * group.count for group in entry.groups]
    total = sum(times) or 1.0
    for group, time in zip(entry.groups, times, strict=True):
        if not group.flops or not group.num_bytes:
            continue
        intensity = group.flops / group.num_bytes
        rate = group.flops / (time / group.count)
        text = f"{entry.name}: {group.op}, {intensity:.3g} FLOP/B, at most {amount(rate, 'FLOP/s')}"
        yield _Point(
            intensity=intensity,
            flops_per_s=rate,
            part=time / total,
            colour=index % NUM_COLOURS,
            title=text,
            is_attention=group.op == "attention",
            is_hollow=group.uses_matrix_units is False,
        )


def _seconds(product: Product, group: GroupReport) -> float:
    """Time of one dispatch at peak rates."""
    compute = sum(flops / product.peak_flops(kind) for kind, flops in group.flops_by_type.items())
    return max(compute, group.num_bytes / product.memory_bytes_per_s)


def _scale(product: Product, types: Iterable[str], intensities: Sequence[float]) -> _Scale:
    peak = max(product.peak_flops(name) for name in types)
    ridge = peak / product.memory_bytes_per_s
    x_begin = math.floor(math.log10(min(*intensities, ridge)) - 0.1)
    x_end = math.ceil(math.log10(max(*intensities, ridge * 3)))
    y_end = math.ceil(math.log10(peak * 1.2))
    return _Scale(
        x_begin=x_begin,
        x_end=x_end,
        y_begin=math.floor(math.log10(10**x_begin * product.memory_bytes_per_s)),
        y_end=y_end,
    )


def _grid(scale: _Scale) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for decade in range(scale.x_begin, scale.x_end + 1):
        x = scale.x(10.0**decade)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10.0**decade:g}</text>'
    for decade in range(scale.y_begin, scale.y_end + 1):
        y = scale.y(10.0**decade)
        yield f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>'
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_tick(decade)}</text>'
    yield f'<text x="{(_LEFT + right) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">FLOP a byte</text>'
    middle = (_TOP + bottom) / 2
    yield f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">FLOP/s</text>'


def _tick(decade: int) -> str:
    prefixes = {3: "k", 6: "M", 9: "G", 12: "T", 15: "P"}
    base = decade // 3 * 3
    return f"{10 ** (decade - base)}{prefixes.get(base, f'e{base}')}"


def _roofs(product: Product, types: Sequence[str], scale: _Scale) -> Iterator[str]:
    """The slope of the memory, and a flat roof for each type of factors."""
    bandwidth = product.memory_bytes_per_s
    top = max(product.peak_flops(name) for name in types)
    begin, ridge = 10.0**scale.x_begin, top / bandwidth
    first, last = (scale.x(begin), scale.y(begin * bandwidth)), (scale.x(ridge), scale.y(top))
    yield _roof(first, last)
    angle = math.degrees(math.atan2(last[1] - first[1], last[0] - first[0]))
    x, y = (first[0] + last[0]) / 2, (first[1] + last[1]) / 2 - 18
    turn = f"rotate({angle:.1f} {x:.1f} {y:.1f})"
    yield f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" transform="{turn}">{amount(bandwidth, "B/s")}</text>'
    peaks: dict[float, list[str]] = {}
    for name in types:
        peaks.setdefault(product.peak_flops(name), []).append(name)
    for peak, names in peaks.items():
        y = scale.y(peak)
        yield _roof((scale.x(peak / bandwidth), y), (_WIDTH - _RIGHT, y))
        label = f"{amount(peak, 'FLOP/s')} {', '.join(names)}"
        yield f'<text x="{_WIDTH - _RIGHT}" y="{y - 6:.1f}" text-anchor="end">{escape(label)}</text>'


def _roof(begin: tuple[float, float], end: tuple[float, float]) -> str:
    return f'<line class="roof" x1="{begin[0]:.1f}" y1="{begin[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"/>'


def _mark(point: _Point, scale: _Scale) -> str:
    radius = _RADII[0] + (_RADII[1] - _RADII[0]) * math.sqrt(point.part)
    x, y = scale.x(point.intensity), scale.y(point.flops_per_s)
    style = f'class="mark c{point.colour}{" hollow" if point.is_hollow else ""}"'
    title = f"<title>{escape(point.title)}</title>"
    if point.is_attention:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">{title}</circle>'
    side = radius * 1.77  # the same area as a circle
    return (
        f'<rect {style} x="{x - side / 2:.1f}" y="{y - side / 2:.1f}" width="{side:.1f}" height="{side:.1f}">'
        f"{title}</rect>"
    )
