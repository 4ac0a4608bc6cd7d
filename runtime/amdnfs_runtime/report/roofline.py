"""Floors of run time: what a product cannot beat, from its peaks and what must be computed and moved.

A floor is no estimate and no measured time. No product reaches its peaks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from amdnfs_targets.products import Product

_MS = 1e3


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What has to be done."""

    flops: Mapping[str, float]
    """Multiplications and additions by element type."""
    num_bytes: float
    """Bytes to move."""

    def compute_s(self, product: Product) -> float:
        """Seconds for the arithmetic at peak."""
        return sum(flops / product.peak_flops(kind) for kind, flops in self.flops.items())

    def memory_s(self, product: Product) -> float:
        """Seconds for the bytes at peak."""
        return self.num_bytes / product.memory_bytes_per_s


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """Floors of one entry point on one product."""

    product: str
    """Name of the product."""
    floor_ms: float
    """No program for this model can be faster: all arithmetic at peak, or weights and live cache read once at peak
    bandwidth, whichever takes longer. In milliseconds. Holds if weights and cached keys and values come from memory."""
    bound: str
    """`memory` or `compute`: which of the two it is."""
    program_ms: float
    """The same for this program: dispatch after dispatch, with all bytes that each one moves. In milliseconds. Caches
    may serve some of these bytes faster."""


def floor_of(product: Product, least: Work, dispatches: Iterable[tuple[Work, int]], copied_bytes: float) -> Floor:
    """Floors of an entry point.

    Args:
        product: Whose peaks to take.
        least: All of its arithmetic, and the least bytes that any program must move.
        dispatches: Work of each dispatch, and how often it is done.
        copied_bytes: Bytes of copies between dispatches.
    """
    compute, memory = least.compute_s(product), least.memory_s(product)
    program = sum(count * max(work.compute_s(product), work.memory_s(product)) for work, count in dispatches)
    return Floor(
        product=product.name,
        floor_ms=max(compute, memory) * _MS,
        bound="compute" if compute > memory else "memory",
        program_ms=(program + copied_bytes / product.memory_bytes_per_s) * _MS,
    )
