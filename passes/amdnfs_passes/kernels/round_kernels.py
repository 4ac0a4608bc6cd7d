"""Rows of activations rounded in a kernel of their own, where many column tiles would each round them again."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.quantized_layout import QuantizedLayout

from amdnfs_passes.kernels.linear_kernels import STORED
from amdnfs_passes.kernels.provider import CompiledKernel, KernelTarget, Tiling, compile_kernel, element_name


@dataclass(frozen=True, kw_only=True, slots=True)
class RoundShape:
    """What the kernel needs to know of the rows."""

    depth: int
    """Elements of a row."""
    element: str
    """`f16` or `bf16`."""
    eps: float | None
    """Of the RMS normalisation; None without one."""
    gain_offset: float
    """Added to the gain."""
    layout: QuantizedLayout
    """Of the weights: rows become numbers of the same type."""


def build_round(shape: RoundShape, target: KernelTarget) -> CompiledKernel:
    """Compiles the kernel of `shape` for `target`; its grid is one workgroup a row.

    Raises:
        KernelError: If no tiling fits.
    """
    pointer = f"*{element_name(shape.element)}"
    gain = {"gain": pointer} if shape.eps is not None else {}
    width = 1 << (shape.depth - 1).bit_length()
    # As many lanes as have 16 bytes of a row each, so that rows of all lengths stay in registers.
    first = max(1, min(8, width // (8 * target.wave_size)))
    tilings = [Tiling(sizes=(("WIDTH", width),), num_waves=waves, num_stages=1) for waves in (first, 8, 16)]
    return compile_kernel(
        "round_rows",
        target,
        {"x": pointer, **gain, "rounded": STORED[shape.layout.element], "largest": "*fp32"},
        {
            "DEPTH": shape.depth,
            "EPS": shape.eps or 0.0,
            "GAIN_OFFSET": shape.gain_offset,
            "LARGEST": shape.layout.largest_activation,
        },
        list(dict.fromkeys(tilings)),
    )
