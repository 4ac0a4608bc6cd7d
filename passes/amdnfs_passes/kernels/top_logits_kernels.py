"""How the largest logits of each row are found on a target: parts of a row side by side, then the row from its parts.

Both kernels sort in registers, which costs instructions, not memory: a part of 1024 logits is 2 to 4 a lane.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.kernels.provider import CompiledKernel, KernelError, KernelTarget, Tiling, compile_kernel

_PARTS = ((1024, 32), (2048, 64), (4096, 64))
"""Logits of a part, and how many parts the second kernel takes; the first that holds a row is used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TopLogitsKernels:
    """The compiled kernels."""

    part: CompiledKernel
    """Sorts a part of a row; a workgroup a part."""
    row: CompiledKernel
    """Joins the parts of a row; a workgroup a row."""
    num_parts: int
    """Parts of a row."""


def build_top_logits(vocab: int, count: int, target: KernelTarget) -> TopLogitsKernels:
    """Compiles the kernels that find the `count` largest of `vocab` logits.

    Args:
        vocab: Logits of a row.
        count: How many are wanted; a power of two, not more than 1024.
        target: What to compile for.

    Raises:
        KernelError: If a row is too long, or no tiling fits.
    """
    fitting = [(part, most) for part, most in _PARTS if vocab <= part * most]
    if not fitting:
        raise KernelError(f"a row of {vocab} logits is longer than {_PARTS[-1][0] * _PARTS[-1][1]}")
    part, most = fitting[0]
    num_parts = -(-vocab // part)
    first = compile_kernel(
        "top_of_part",
        target,
        {"logits": "*fp32", "keys": "*i64", "state": "*fp32"},
        {"VOCAB": vocab, "COUNT": count, "NUM_PARTS": num_parts},
        [_tiling("PART", part, waves) for waves in (4, 8)],  # lanes that load 16 bytes
    )
    second = compile_kernel(
        "top_of_row",
        target,
        {"keys": "*i64", "state": "*fp32", "top": "*i32", "num_parts": "i32"},
        {"COUNT": count},
        [_tiling("NUM_PARTS", most, waves) for waves in (8, 4)],  # one workgroup a row: more of it
    )
    return TopLogitsKernels(part=first, row=second, num_parts=num_parts)


def _tiling(name: str, size: int, waves: int) -> Tiling:
    return Tiling(sizes=((name, size),), num_waves=waves, num_stages=1)
