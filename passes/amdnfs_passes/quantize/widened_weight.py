"""Recognises the arithmetic that widens a weight; `fuse_dequantize.py` shows its forms."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.quantized_layout import ElementType, Grouping, QuantizedLayout, ScaleType

from amdnfs_passes.ir import Value, constant_int, defining_op, list_elements
from amdnfs_passes.templates import TensorType, tensor_type

_CONVERSIONS = ("torch.aten._to_copy", "torch.aten.to.dtype", "torch.prims.convert_element_type")
_VIEWS = ("torch.aten.view", "torch.aten.reshape", "torch.aten._unsafe_view")
_HALF = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class WidenedWeight:
    """A weight as arithmetic."""

    data: Value
    """Bytes, before any view."""
    scales: Value
    """What the elements are multiplied with."""
    zeros: Value | None
    """What is subtracted before, int8."""
    element: ElementType
    """What an element of the data is."""
    shape: tuple[int | None, ...]
    """The shape in which the elements are multiplied: `[columns, depth]` or `[columns, groups, elements]`."""


def match_widened_weight(weight: Value) -> WidenedWeight | None:
    """The arithmetic that makes `weight`."""
    product = defining_op(_source(weight, _VIEWS))
    if product is None or product.name != "torch.aten.mul.Tensor":
        return None
    for position in (0, 1):
        whole, zeros = _without_zeros(product.operands[position])
        stored = _source(whole, (*_CONVERSIONS, *_VIEWS))
        kind, shape = tensor_type(stored), tensor_type(product.result)
        if kind is None or shape is None or kind.element != "si8":
            continue
        packed = _packed(stored)
        return WidenedWeight(
            data=stored if packed is None else packed,
            scales=product.operands[1 - position],
            zeros=zeros,
            element=ElementType.I8 if packed is None else ElementType.I4,
            shape=shape.shape,
        )
    return None


def _without_zeros(value: Value) -> tuple[Value, Value | None]:
    """`value` before the subtraction of zero points, and those, if they are int8."""
    op = defining_op(value)
    if op is None or op.name != "torch.aten.sub.Tensor" or constant_int(op.operands[2]) != 1:
        return value, None
    zeros = _source(op.operands[1], _CONVERSIONS)
    kind = tensor_type(zeros)
    return (op.operands[0], zeros) if kind is not None and kind.element == "si8" else (value, None)


def _packed(value: Value) -> Value | None:
    """The bytes of which `value` is the pair of nibbles, lower first, each with its sign."""
    op = defining_op(value)
    parts = list_elements(op.operands[0]) if op is not None and op.name == "torch.aten.stack" else None
    kind = tensor_type(value)
    if op is None or parts is None or len(parts) != 2 or kind is None or kind.shape[-1:] != (2,):
        return None
    if constant_int(op.operands[1]) not in (-1, len(kind.shape) - 1):
        return None
    up, high = (_shifted(part, "rshift") for part in parts)
    low = _shifted(up, "lshift") if up is not None else None
    return low if low is not None and low == high else None


def _shifted(value: Value, direction: str) -> Value | None:
    op = defining_op(value)
    if op is None or op.name != f"torch.aten.__{direction}__.Scalar" or constant_int(op.operands[1]) != _HALF:
        return None
    return op.operands[0]


def _source(value: Value, names: tuple[str, ...]) -> Value:
    """`value` before operations with these names."""
    op = defining_op(value)
    return _source(op.operands[0], names) if op is not None and op.name in names else value


def layout_of(found: WidenedWeight, x: TensorType | None, weight: TensorType | None) -> QuantizedLayout:
    """The layout of the weight.

    Raises:
        ValueError: If it has none, with the reason.
    """
    scales = tensor_type(found.scales)
    if x is None or weight is None or scales is None or not weight.is_static or x.element != weight.element:
        raise ValueError("the weight must have a static shape and the type of the rows")
    columns, depth = weight.sizes
    is_grouped = len(found.shape) == 3
    layout = QuantizedLayout(
        element=found.element,
        scale=ScaleType(scales.element),
        grouping=Grouping.GROUP if is_grouped else Grouping.CHANNEL,
        group_size=found.shape[-1] or 0 if is_grouped else 0,
        has_zeros=found.zeros is not None,
    )
    wanted = (columns, layout.groups(depth), 1) if is_grouped else (columns, 1)
    for name, value in (("scales", found.scales), ("zero points", found.zeros)):
        kind = tensor_type(value) if value is not None else None
        if value is not None and (kind is None or kind.shape != wanted):
            raise ValueError(f"the {name} must be {list(wanted)}")
    data = tensor_type(found.data)
    if data is None or data.shape != layout.data_shape(columns, depth):
        raise ValueError(f"the data must be {list(layout.data_shape(columns, depth))} bytes")
    return layout
