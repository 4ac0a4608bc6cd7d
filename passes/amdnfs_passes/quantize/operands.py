"""`amdnfs.quantized_linear` with its operands by meaning: what every lowering and every kernel of the op starts from.

y[m, n] = sum over k of x[m, k] * weight[n, k] + bias[n]

x        [..., depth] float      data    int8, scales, zeros: see the docstring of `amdnfs_targets/quantized_layout.py`
bias     [columns] as x          result  [..., columns] as x
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_targets.quantized_layout import QuantizedLayout

from amdnfs_passes.ir import Operation, Value, constant_str, is_none, operator_name
from amdnfs_passes.templates import TensorType, tensor_type

OPERATOR = "torch.amdnfs.quantized_linear"
"""Name of the operator in the torch dialect."""

_FLOATS = ("f32", "f16", "bf16")


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedLinear:
    """One quantised linear layer; its sizes are static."""

    x: Value
    """Rows, `[..., depth]`."""
    data: Value
    """Stored elements, bytes."""
    scales: Value
    """Scales."""
    zeros: Value | None
    """Zero points, if the layout has them."""
    bias: Value | None
    """`[columns]`, or None."""
    layout: QuantizedLayout
    """How the weight is stored."""
    x_type: TensorType
    """Type of `x`."""
    columns: int
    """Width of a row of the result."""

    @property
    def depth(self) -> int:
        """Elements of a sum."""
        return self.x_type.sizes[-1]

    @property
    def rows(self) -> int:
        """Rows of `x`, over all its leading dimensions."""
        return math.prod(self.x_type.sizes[:-1])

    @property
    def result_sizes(self) -> tuple[int, ...]:
        """Sizes of the result."""
        return (*self.x_type.sizes[:-1], self.columns)

    @property
    def element(self) -> str:
        """Type of `x`, `bias` and the result: `f32`, `f16` or `bf16`."""
        return self.x_type.element

    @property
    def groups(self) -> int:
        """Scales of a row of the weight."""
        return self.layout.groups(self.depth)

    @property
    def operands(self) -> list[Value]:
        """Those that are there, in the order of the op."""
        return [item for item in (self.x, self.data, self.scales, self.zeros, self.bias) if item is not None]

    @property
    def name(self) -> str:
        """Tells layers of different forms apart."""
        sizes = "x".join(str(size) for size in self.x_type.sizes)
        bias = "" if self.bias is None else ".bias"
        return f"{sizes}x{self.element}.{self.columns}.{self.layout.spelling.replace('-', '_')}{bias}"


def match_quantized_linear(op: Operation) -> QuantizedLinear | None:
    """Reads `op`.

    Returns:
        Its operands; None for another operation.

    Raises:
        ValueError: If it is a quantised linear layer that cannot be lowered, with the reason.
    """
    if operator_name(op) != OPERATOR:
        return None
    x, data, scales, zeros, bias, text = op.operands
    layout = QuantizedLayout.parse(constant_str(text) or "")
    types = [tensor_type(value) for value in (x, data, scales)]
    if not all(kind is not None and kind.is_static for kind in types):
        raise ValueError("a size is dynamic")
    x_type, data_type, scales_type = (kind for kind in types if kind is not None)
    if x_type.element not in _FLOATS or len(x_type.shape) < 2:
        raise ValueError(f"the rows are {x_type.builtin}, not a matrix of f32, f16 or bf16")
    found = QuantizedLinear(
        x=x,
        data=data,
        scales=scales,
        zeros=None if is_none(zeros) else zeros,
        bias=None if is_none(bias) else bias,
        layout=layout,
        x_type=x_type,
        columns=data_type.sizes[0] if data_type.shape else 0,
    )
    shape = layout.scales_shape(found.columns, found.depth)
    _require("data", data_type, layout.data_shape(found.columns, found.depth), "si8")
    _require("scales", scales_type, shape, str(layout.scale))
    if (found.zeros is not None) != layout.has_zeros:
        raise ValueError(f"zero points are {'given' if found.zeros is not None else 'missing'} for {layout.spelling}")
    if found.zeros is not None:
        _require("zeros", tensor_type(found.zeros), shape, "si8")
    if found.bias is not None:
        _require("bias", tensor_type(found.bias), (found.columns,), x_type.element)
    return found


def _require(name: str, found: TensorType | None, shape: tuple[int, ...], element: str) -> None:
    wanted = TensorType(shape=shape, element=element)
    if found != wanted:
        raise ValueError(f"{name} must be {wanted.builtin}, not {found.builtin if found else 'unknown'}")
