"""Shapes of the tensors inside a dispatch, as sizes, and the trip counts of its loops."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op

from amdnfs_compile.kernel_facts.sizes import Size, UnknownSizeError, evaluate, number, product

_SAME_SHAPE = {
    "tensor.cast",
    "tensor.bitcast",
    "iree_encoding.set_encoding",
    "iree_encoding.unset_encoding",
    "iree_tensor_ext.compute_barrier.start",
    "iree_tensor_ext.compute_barrier.end",
    "util.optimization_barrier",
}
_SLICES = {"iree_tensor_ext.dispatch.tensor.load": 3, "tensor.extract_slice": 2}
"""Operations that name the sizes of their result: index of these sizes among the groups of operands."""


def element_bits(element_type: object) -> int:
    """Bits that an element takes in memory.

    >>> element_bits("f8E4M3FNUZ"), element_bits("i1"), element_bits("index")
    (8, 8, 64)

    Raises:
        UnknownSizeError: For types that are no numbers.
    """
    text = str(element_type)
    if text == "index":
        return 64
    match = re.fullmatch(r"(?:f|bf|i|si|ui)(\d+).*", text)
    if match is None:
        raise UnknownSizeError(f"elements of type {text}")
    return 8 if int(match[1]) == 1 else int(match[1])


def operand_groups(op: Operation) -> list[list[Value]]:
    """The operands of an operation with several groups of them."""
    text = str(op.attributes["operandSegmentSizes"])
    lengths = [int(item) for item in re.findall(r"-?\d+", text.split(":", maxsplit=1)[1])]
    groups, at = [], 0
    for length in lengths:
        groups.append(list(op.operands)[at : at + length])
        at += length
    return groups


def indexing_maps(op: Operation) -> list[Any] | None:
    """The affine maps of a structured operation; None if it carries none."""
    if "indexing_maps" not in op.attributes:
        return None
    return [attribute.value for attribute in op.attributes["indexing_maps"]]


def map_dims(affine_map: Any) -> list[int | None]:
    """For each result of a map the loop that it is; None where it is an expression."""
    return [item.position if type(item).__name__ == "AffineDimExpr" else None for item in affine_map.results]


class Shapes:
    """Knows the sizes inside one dispatch, given those of its arguments."""

    def __init__(self, arguments: Mapping[int, Size]) -> None:
        """Takes the values of the index arguments of the function by their position."""
        self._arguments = arguments

    def index(self, value: Value) -> Size:
        """The size that an index value holds.

        Raises:
            UnknownSizeError: If it is not a linear form of the page counts.
        """
        return evaluate(value, self._leaf)

    def _leaf(self, value: Value) -> Size | None:
        op = defining_op(value)
        if op is None:
            return self._arguments.get(value.arg_number)
        if op.name != "tensor.dim":
            return None
        position = self.index(op.operands[1])
        return self.of(op.operands[0])[int(position.constant)]

    def of(self, value: Value) -> list[Size]:
        """The shape of a tensor.

        Raises:
            UnknownSizeError: If one of its sizes is unknown.
        """
        kind: Any = value.type
        if not hasattr(kind, "shape"):
            return []
        if kind.has_static_shape:
            return [number(size) for size in kind.shape]
        op = defining_op(value)
        if op is None:
            raise UnknownSizeError(f"an argument of type {kind}")
        dynamic = self._dynamic_sizes(op, value)
        found = iter(dynamic)
        sizes = [next(found) if kind.is_dynamic_dim(i) else number(kind.shape[i]) for i in range(kind.rank)]
        if len(dynamic) != sum(kind.is_dynamic_dim(i) for i in range(kind.rank)):
            raise UnknownSizeError(f"the result of {op.name}")
        return sizes

    def num_bytes(self, value: Value) -> Size:
        """Bytes of a tensor.

        Raises:
            UnknownSizeError: If one of its sizes is unknown.
        """
        kind: Any = value.type
        return product(self.of(value)).times(Fraction(element_bits(kind.element_type), 8))

    def _dynamic_sizes(self, op: Operation, value: Value) -> list[Size]:
        """The sizes of the dynamic dimensions of a result, in order."""
        if op.name in _SLICES:
            return [self.index(size) for size in operand_groups(op)[_SLICES[op.name]]]
        if op.name == "tensor.empty":
            return [self.index(size) for size in op.operands]
        if op.name == "tensor.expand_shape":
            return [self.index(size) for size in list(op.operands)[1:]]
        if op.name == "tensor.collapse_shape":
            source, kind = self.of(op.operands[0]), op.operands[0].type
            groups = [[int(str(i).split(":")[0]) for i in group] for group in op.attributes["reassociation"]]
            dynamic = [group for group in groups if any(kind.is_dynamic_dim(i) for i in group)]
            return [product(source[i] for i in group) for group in dynamic]
        if op.name in _SAME_SHAPE:
            return self._dynamic_of(op.operands[0])
        if op.name == "tensor.insert_slice":
            return self._dynamic_of(op.operands[1])
        if op.name.startswith(("linalg.", "iree_linalg_ext.")):
            results = list(op.results)
            outputs = list(op.operands)[-len(results) :]
            if op.name == "linalg.generic":
                outputs = operand_groups(op)[1]
            return self._dynamic_of(outputs[results.index(value)])
        raise UnknownSizeError(f"the result of {op.name}")

    def _dynamic_of(self, value: Value) -> list[Size]:
        kind: Any = value.type
        return [size for i, size in enumerate(self.of(value)) if kind.is_dynamic_dim(i)]

    def loops(self, op: Operation) -> list[Size]:
        """Trip counts of the loops of an operation with indexing maps.

        Raises:
            UnknownSizeError: If a loop runs over no operand's dimension, or over one of unknown size.
        """
        maps = indexing_maps(op)
        if not maps:
            raise UnknownSizeError(f"the loops of {op.name}")
        found: dict[int, Size] = {}
        for operand, affine_map in zip(op.operands, maps, strict=False):
            dims = map_dims(affine_map)
            if all(dim is None or dim in found for dim in dims):
                continue
            for dim, size in zip(dims, self.of(operand), strict=True):
                if dim is not None:
                    found.setdefault(dim, size)
        if len(found) != maps[0].n_dims:
            raise UnknownSizeError(f"the loops of {op.name}")
        return [found[i] for i in range(maps[0].n_dims)]
