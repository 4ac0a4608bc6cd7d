"""Recognises RMS normalisation as transformers writes it, for passes that take it into another operation.

    llama       weight * (x * rsqrt(mean(x^2) + eps)).to(dtype)          gain_offset 0
    gemma       ((x * rsqrt(mean(x^2) + eps)) * (1 + weight)).to(dtype)  gain_offset 1
    olmo2, ...  (weight * (x * rsqrt(mean(x^2) + eps))).to(dtype)        gain_offset 0

`x` is widened to f32 first where it is narrower.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.ir import (
    Operation,
    Value,
    constant_bool,
    constant_float,
    constant_int,
    defining_op,
    list_elements,
)
from amdnfs_passes.templates import tensor_type

CONVERSIONS = ("torch.aten._to_copy", "torch.prims.convert_element_type", "torch.aten.type_as")
"""Operations that give the first operand another element type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RmsNorm:
    """`y = x * (weight + gain_offset) / sqrt(mean(x^2, last) + eps)`."""

    x: Value
    """What is normalised, `[..., depth]`, in the type of the result."""
    weight: Value
    """Gain `[depth]`."""
    gain_offset: float
    """Added to the gain."""
    eps: float
    """Added to the mean square."""


def match_rms_norm(value: Value) -> RmsNorm | None:
    """The normalisation whose result is `value`; None if it is something else."""
    op = _through_copies(value)
    if op is None or op.name != "torch.aten.mul.Tensor":
        return None
    for gain, scaled in (tuple(op.operands), tuple(op.operands)[::-1]):
        found = _match_scaled(scaled)
        weight = _match_gain(gain)
        if found is None or weight is None:
            continue
        x, eps = found
        kind, gain_kind = tensor_type(x), tensor_type(weight[0])
        result = tensor_type(value)
        if kind is None or gain_kind is None or kind != result or gain_kind.shape != kind.shape[-1:]:
            return None
        if gain_kind.element != kind.element:
            return None
        return RmsNorm(x=x, weight=weight[0], gain_offset=weight[1], eps=eps)
    return None


def _through_copies(value: Value) -> Operation | None:
    """The operation behind conversions between float types."""
    op = defining_op(value)
    while op is not None and op.name in CONVERSIONS:
        op = defining_op(op.operands[0])
    return op


def _source(value: Value) -> Value:
    """The value before conversions between float types."""
    op = defining_op(value)
    while op is not None and op.name in CONVERSIONS:
        value = op.operands[0]
        op = defining_op(value)
    return value


def _match_gain(value: Value) -> tuple[Value, float] | None:
    """`weight` or `weight + 1`, widened or not."""
    op = _through_copies(value)
    if op is not None and op.name == "torch.aten.add.Scalar":
        offset = constant_int(op.operands[1])
        number = float(offset) if offset is not None else constant_float(op.operands[1])
        if number is None or constant_int(op.operands[2]) != 1:
            return None
        return _source(op.operands[0]), number
    source = _source(value)
    kind = tensor_type(source)
    return (source, 0.0) if kind is not None and len(kind.shape) == 1 else None


def _match_scaled(value: Value) -> tuple[Value, float] | None:
    """`x * rsqrt(mean(x^2) + eps)`: x before widening, and eps."""
    op = _through_copies(value)
    if op is None or op.name != "torch.aten.mul.Tensor":
        return None
    for wide, factor in (tuple(op.operands), tuple(op.operands)[::-1]):
        root = defining_op(factor)
        shifted = defining_op(root.operands[0]) if root is not None and root.name == "torch.aten.rsqrt" else None
        if shifted is None or shifted.name != "torch.aten.add.Scalar" or constant_int(shifted.operands[2]) != 1:
            continue
        eps = constant_float(shifted.operands[1])
        mean = defining_op(shifted.operands[0])
        if eps is None or mean is None or mean.name != "torch.aten.mean.dim" or not constant_bool(mean.operands[2]):
            continue
        axes = [constant_int(axis) for axis in list_elements(mean.operands[1]) or []]
        square = defining_op(mean.operands[0])
        rank = len(kind.shape) if (kind := tensor_type(wide)) is not None else 0
        if square is None or axes not in ([-1], [rank - 1]):
            continue
        if square.name == "torch.aten.pow.Tensor_Scalar" and constant_int(square.operands[1]) == 2:
            if square.operands[0] == wide:
                return _source(wide), eps
        elif square.name == "torch.aten.mul.Tensor" and square.operands[0] == square.operands[1] == wide:
            return _source(wide), eps
    return None
