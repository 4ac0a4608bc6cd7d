"""Products of pairs of bf16 (AVX512-BF16), as calls of LLVM's intrinsics; for vectors of any length that it has."""

from __future__ import annotations

from collections.abc import Iterator

_MULTIPLY = "llvm.x86.avx512bf16.dpbf16ps"
"""Adds products of pairs of bf16 to f32; subnormal numbers count as zero. Source: Intel SDM, VDPBF16PS."""
_NARROW = "llvm.x86.avx512bf16.cvtne2ps2bf16"
"""Rounds two vectors of f32 to one of bf16, the second to its lower half. Source: Intel SDM, VCVTNE2PS2BF16."""


def dot_pairs(result: str, x: str, w: str, into: str, lanes: int) -> str:
    """A line that adds the products of pairs of `lanes` bf16 of `x` and `w` to `lanes / 2` f32."""
    total, pairs = f"vector<{lanes // 2}xf32>", f"vector<{lanes}xbf16>"
    call = f'llvm.call_intrinsic "{_MULTIPLY}.{16 * lanes}"({into}, {x}, {w})'
    return f"{result} = {call} : ({total}, {pairs}, {pairs}) -> {total}"


def join_pairs(result: str, low: str, high: str, lanes: int) -> str:
    """A line that rounds `low` and `high`, `lanes / 2` f32 each, to `lanes` bf16; halves go to the even number."""
    half = f"vector<{lanes // 2}xf32>"
    call = f'llvm.call_intrinsic "{_NARROW}.{16 * lanes}"({high}, {low})'
    return f"{result} = {call} : ({half}, {half}) -> vector<{lanes}xbf16>"


def narrow_pairs(result: str, value: str, lanes: int) -> Iterator[str]:
    """Defines `result`, `lanes` bf16, from f32 `value`."""
    half, wide = lanes // 2, f"vector<{lanes}xf32>"
    for name, offset in (("low", 0), ("high", half)):
        cut = f"offsets = [{offset}], sizes = [{half}], strides = [1]"
        yield f"{result}.{name} = vector.extract_strided_slice {value} {cut} : {wide} to vector<{half}xf32>"
    yield join_pairs(result, f"{result}.low", f"{result}.high", lanes)
