"""Rounds one weight to 4 or 8 bits, and back. Pure functions of tensors; files are `archive.py`'s job.

Every quotient is rounded to the nearest, ties to even, by the scale *as it is stored*: rounding the scale costs no
accuracy. A scale is rounded away from zero, so that the largest element never leaves the range.

    symmetric     scale = largest / 127 (int8), largest / 448 (fp8)
                  int4: scale = -(element of largest size) / 8, which gives that element all 4 bits
    zero points   scale = (max - min) / (2^bits - 1) with min <= 0 <= max, zero = least - round(min / scale)

Both fp8 formats get the same bytes: a byte means half as much in `f8E4M3FNUZ` as in `f8E4M3FN`, so there the scale is
twice as large. The byte of -0, which is NaN in `f8E4M3FNUZ`, is never written; 224 of its 240 are used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from amdnfs_targets.quantized_layout import ElementType, Grouping, QuantizedLayout, ScaleType

_FP8_LARGEST = 448.0
_FP8_OVERFLOW = 464.0
"""Half a step above the largest value: from here on rounding would leave the range."""
_MINUS_ZERO = -128
_SLAB_ELEMENTS = 1 << 24
"""Elements that are rounded at a time: 64 MiB for each intermediate value."""
SCALE_DTYPES = {ScaleType.F32: torch.float32, ScaleType.F16: torch.float16, ScaleType.BF16: torch.bfloat16}
"""Scale types to torch's."""
_BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedTensor:
    """A weight as it is stored; shapes are in the docstring of the layout."""

    data: torch.Tensor
    """Bytes, int8."""
    scales: torch.Tensor
    """In the layout's scale type."""
    zeros: torch.Tensor | None
    """Zero points, int8; None without."""
    num_saturated: int
    """Elements that did not fit the range and got its end."""


def quantize(weight: torch.Tensor, layout: QuantizedLayout) -> QuantizedTensor:
    """Rounds `weight`, some rows at a time.

    Args:
        weight: `[columns, depth]`, finite.
        layout: How.

    Raises:
        ValueError: If the layout does not fit the shape, or a scale does not fit its type.
    """
    layout.groups(weight.shape[1])
    slabs = weight.split(max(_SLAB_ELEMENTS // weight.shape[1], 1))
    largest = None
    if layout.grouping is Grouping.TENSOR:
        largest = torch.stack([slab.abs().amax() for slab in slabs]).amax().float().reshape(1, 1)
    parts = [_quantize_rows(slab, layout, largest) for slab in slabs]
    return QuantizedTensor(
        data=torch.cat([part.data for part in parts]),
        scales=parts[0].scales if largest is not None else torch.cat([part.scales for part in parts]),
        zeros=torch.cat([part.zeros for part in parts if part.zeros is not None]) if layout.has_zeros else None,
        num_saturated=sum(part.num_saturated for part in parts),
    )


def fnuz_scales(scales: torch.Tensor) -> torch.Tensor:
    """The scales of `f8E4M3FNUZ` from those of `f8E4M3FN`.

    Raises:
        ValueError: If they do not fit their type.
    """
    return _checked(scales * 2)


def _quantize_rows(weight: torch.Tensor, layout: QuantizedLayout, largest: torch.Tensor | None) -> QuantizedTensor:
    """Rounds all of `weight`; `largest` is the size of the largest element that shares its scale, if known."""
    columns, depth = weight.shape
    if layout.is_float:
        return _quantize_fp8(weight.float(), layout, largest)
    groups = layout.groups(depth)
    grouped = weight.float().reshape(columns, groups, depth // groups)
    least, most = (-8, 7) if layout.element is ElementType.I4 else (-128, 127)
    zeros = None
    if layout.has_zeros:
        low, high = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
        scales = _store((high - low) / (most - least), layout.scale)
        zeros = (least - (low / _divisor(scales)).round()).clamp(least, most)
    else:
        scales = _store(_symmetric_scale(grouped, layout), layout.scale)
    whole = (grouped / _divisor(scales)[..., None]).round()
    if zeros is not None:
        whole = whole + zeros[..., None]
    kept = whole.clamp(least, most)
    data = kept.to(torch.int8).reshape(columns, depth)
    return QuantizedTensor(
        data=pack_int4(data) if layout.element is ElementType.I4 else data,
        scales=scales,
        zeros=None if zeros is None else zeros.to(torch.int8),
        num_saturated=int((kept != whole).sum()),
    )


def dequantize(
    data: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, layout: QuantizedLayout
) -> torch.Tensor:
    """The weight that stored tensors stand for, `[columns, depth]` in f64 and exact."""
    if layout.is_float:
        is_half = layout.element is ElementType.E4M3FNUZ
        return data.view(torch.float8_e4m3fn).double() * scales.double() * (0.5 if is_half else 1.0)
    whole = (unpack_int4(data) if layout.element is ElementType.I4 else data).double()
    grouped = whole.reshape(len(whole), scales.shape[1], -1)
    if zeros is not None:
        grouped = grouped - zeros.double()[..., None]
    return (grouped * scales.double()[..., None]).reshape(whole.shape)


def pack_int4(data: torch.Tensor) -> torch.Tensor:
    """Two elements a byte, the first in the lower nibble: `[columns, depth]` to `[columns, depth / 2]`.

    >>> pack_int4(torch.tensor([[1, -1, -8, 7]], dtype=torch.int8)).tolist()
    [[-15, 120]]
    """
    pairs = data.reshape(len(data), -1, 2)
    return (pairs[..., 0] & 15) | (pairs[..., 1] << 4)


def unpack_int4(data: torch.Tensor) -> torch.Tensor:
    """Undoes `pack_int4`.

    >>> unpack_int4(torch.tensor([[-15, 120]], dtype=torch.int8)).tolist()
    [[1, -1, -8, 7]]
    """
    return torch.stack(((data << 4) >> 4, data >> 4), -1).reshape(len(data), -1)


def _quantize_fp8(weight: torch.Tensor, layout: QuantizedLayout, largest: torch.Tensor | None) -> QuantizedTensor:
    most = weight.abs().amax(-1, keepdim=True) if largest is None else largest
    scales = _store(most / _FP8_LARGEST, layout.scale)
    quotients = weight / _divisor(scales)
    data = quotients.clamp(-_FP8_LARGEST, _FP8_LARGEST).to(torch.float8_e4m3fn).view(torch.int8)
    data = torch.where(data == _MINUS_ZERO, torch.zeros_like(data), data)
    return QuantizedTensor(
        data=data,
        scales=fnuz_scales(scales) if layout.element is ElementType.E4M3FNUZ else scales,
        zeros=None,
        num_saturated=int((quotients.abs() >= _FP8_OVERFLOW).sum()),
    )


def _symmetric_scale(grouped: torch.Tensor, layout: QuantizedLayout) -> torch.Tensor:
    largest, place = grouped.abs().max(-1)
    if layout.element is ElementType.I8:
        return largest / 127
    return grouped.gather(-1, place[..., None])[..., 0] / -8


def _store(scales: torch.Tensor, kind: ScaleType) -> torch.Tensor:
    """Rounds scales to their type, away from zero: the bits of the next larger float are one more."""
    dtype = SCALE_DTYPES[kind]
    stored = scales.to(dtype)
    is_short = stored.float().abs() < scales.abs()
    return _checked((stored.view(_BITS[dtype]) + is_short.to(_BITS[dtype])).view(dtype))


def _checked(scales: torch.Tensor) -> torch.Tensor:
    if not bool(scales.isfinite().all()):
        raise ValueError(f"a scale does not fit {str(scales.dtype).removeprefix('torch.')}")
    return scales


def _divisor(scales: torch.Tensor) -> torch.Tensor:
    """Scales to divide by; a group of zeros has scale 0, and may be divided by anything."""
    wide = scales.float()
    return torch.where(wide == 0, torch.ones_like(wide), wide)
