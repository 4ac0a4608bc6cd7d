"""Pieces that texts of MLIR are made of: tensors, conversions, rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ELEMENT_BYTES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1}
"""Bytes of an element as it is stored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operand:
    """A tensor that a generic reads or fills."""

    value: str
    """Its name."""
    shape: tuple[int, ...]
    """Its sizes."""
    element: str
    """Its element type."""
    dims: str
    """The loops that index it, e.g. `n, g`."""

    @property
    def type(self) -> str:
        """The tensor type."""
        return tensor(self.shape, self.element)


def tensor(shape: Sequence[int], element: str) -> str:
    """A tensor type.

    >>> tensor((2, 4), "f16")
    'tensor<2x4xf16>'
    """
    return f"tensor<{''.join(f'{size}x' for size in shape)}{element}>"


def convert(result: str, value: str, source: str, target: str, shape: str = "{}") -> str:
    r"""A line that converts a float, of vectors if `shape` is `vector<nx{}>`; of equal types, one that renames it.

    >>> convert("%y", "%x", "f32", "f16")
    '    %y = arith.truncf %x : f32 to f16\n'
    """
    types = f"{shape.format(source)} to {shape.format(target)}"
    if source == target:
        return f"    {result} = arith.bitcast {value} : {types}\n"
    return f"    {result} = arith.{'extf' if source != 'f32' else 'truncf'} {value} : {types}\n"


def flatten_rows(shape: Sequence[int], element: str) -> tuple[str, str]:
    """`%x`, `[..., depth]`, as a matrix: a line, and the name of the result."""
    if len(shape) == 2:
        return "", "%x"
    flat = tensor((math.prod(shape[:-1]), shape[-1]), element)
    kind = tensor(shape, element)
    return f"  %rows = tensor.collapse_shape %x {_leading(len(shape))} : {kind} into {flat}\n", "%rows"


def unflatten_rows(value: str, shape: Sequence[int], element: str) -> str:
    """The last lines of a function: `value`, a matrix, in the `shape` of the result."""
    kind = tensor(shape, element)
    if len(shape) == 2:
        return f"  return {value} : {kind}\n}}\n"
    flat = tensor((math.prod(shape[:-1]), shape[-1]), element)
    sizes = ", ".join(str(size) for size in shape)
    return f"""  %y = tensor.expand_shape {value} {_leading(len(shape))} output_shape [{sizes}] : {flat} into {kind}
  return %y : {kind}
}}
"""


def _leading(rank: int) -> str:
    """Groups all dimensions but the last."""
    return f"[[{', '.join(str(index) for index in range(rank - 1))}], [{rank - 1}]]"
