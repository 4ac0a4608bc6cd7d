"""Triton source: rows of activations, rounded to the type that the matrix units multiply, with a scale each.

    x        [rows, depth]          gain      [depth] or None
    rounded  [rows, depth] in int8 or fp8
    largest  [rows] f32, the largest size in a row: an element is worth `rounded * largest / LARGEST`

With a gain the rows are normalised first: x * (gain + GAIN_OFFSET) / sqrt(mean(x^2) + EPS), rounded to the type of x.
One program is one row, which it reads once. The numbers are those that `linear` makes of a row itself.

Source: Zhang and Sennrich 2019 (arXiv 1910.07467) for RMS normalisation.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def round_rows(
    x,
    gain,
    rounded,
    largest,
    DEPTH: tl.constexpr,
    EPS: tl.constexpr,
    GAIN_OFFSET: tl.constexpr,
    LARGEST: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Row `program 0`; `WIDTH` is the power of two that holds it."""
    row = tl.program_id(0)
    place = tl.arange(0, WIDTH)
    is_place = place < DEPTH
    wide = tl.load(x + row * DEPTH + place, mask=is_place, other=0.0).to(tl.float32)
    if gain is not None:
        factor = tl.rsqrt(tl.sum(wide * wide, 0) / DEPTH + EPS)
        g = tl.load(gain + place, mask=is_place, other=0.0).to(tl.float32) + GAIN_OFFSET
        wide = (wide * factor * g).to(x.dtype.element_ty).to(tl.float32)
    top = tl.max(tl.abs(wide), 0)
    tl.store(largest + row, top)
    steps = wide * tl.div_rn(LARGEST, tl.maximum(top, 1.0e-30))
    if rounded.dtype.element_ty.is_fp8():
        # Nothing leaves the range of fp8: what is rounded up above `LARGEST` before the conversion is cut off.
        steps = tl.clamp(steps, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL)
        tl.store(rounded + row * DEPTH + place, steps.to(rounded.dtype.element_ty), mask=is_place)
    else:
        # The sum has no room for digits behind the point: it is rounded to the nearest, ties to even.
        tl.store(rounded + row * DEPTH + place, ((steps + 12582912.0) - 12582912.0).to(tl.int8), mask=is_place)
