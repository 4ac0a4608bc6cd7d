"""Follows the operations that only rename the elements of a tensor: where each one lies in the tensor it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from amdnfs_passes.ir import Operation, Value, constant_int, defining_op, is_open_end, list_elements
from amdnfs_passes.templates import tensor_type


@dataclass(frozen=True, kw_only=True, slots=True)
class StridedView:
    """Elements of a contiguous tensor under another shape."""

    sizes: tuple[int, ...]
    """Sizes of the axes."""
    strides: tuple[int, ...]
    """Distance of neighbours along each axis, in elements; 0 for an axis of size 1."""
    begin: int
    """Place of the first element."""

    @staticmethod
    def whole(sizes: Sequence[int]) -> StridedView:
        """A contiguous tensor itself.

        >>> StridedView.whole((2, 1, 4)).strides
        (4, 0, 1)
        """
        strides = [math.prod(sizes[axis + 1 :]) if size > 1 else 0 for axis, size in enumerate(sizes)]
        return StridedView(sizes=tuple(sizes), strides=tuple(strides), begin=0)

    def permuted(self, order: Sequence[int]) -> StridedView:
        """The same elements with the axes in another order."""
        return replace(
            self, sizes=tuple(self.sizes[axis] for axis in order), strides=tuple(self.strides[axis] for axis in order)
        )

    def cut(self, axis: int, begin: int, size: int) -> StridedView:
        """`size` elements of one axis, from `begin`."""
        sizes, strides = list(self.sizes), list(self.strides)
        first = self.begin + begin * strides[axis]
        sizes[axis] = size
        strides[axis] = strides[axis] if size > 1 else 0
        return StridedView(sizes=tuple(sizes), strides=tuple(strides), begin=first)

    def reshaped(self, sizes: Sequence[int]) -> StridedView | None:
        """The same elements in row-major order under another shape; None where that needs a copy.

        >>> StridedView.whole((6, 4)).permuted((1, 0)).reshaped((2, 2, 6)).strides
        (2, 1, 4)
        """
        merged = _merged([(size, stride) for size, stride in zip(self.sizes, self.strides, strict=True) if size != 1])
        strides = []
        for size in reversed(sizes):
            if size == 1:
                strides.append(0)
                continue
            if not merged or merged[-1][0] % size:
                return None
            left, stride = merged.pop()
            strides.append(stride)
            if left != size:
                merged.append((left // size, stride * size))
        return None if merged else replace(self, sizes=tuple(sizes), strides=tuple(reversed(strides)))


def _merged(axes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sizes and strides with neighbours joined that lie as one axis."""
    found: list[tuple[int, int]] = []
    for size, stride in axes:
        if found and found[-1][1] == size * stride:
            found[-1] = (found[-1][0] * size, stride)
        else:
            found.append((size, stride))
    return found


_VIEWS = ("view", "reshape", "_unsafe_view", "unsqueeze", "squeeze.dim", "flatten.using_ints")


def source_of_view(value: Value) -> Value | None:
    """The tensor whose elements `value` renames, one operation back; None if it is made by anything else."""
    op = defining_op(value)
    if op is None:
        return None
    if op.name == "torch.prim.ListUnpack":
        split = defining_op(op.operands[0])
        return split.operands[0] if split is not None and split.name == "torch.aten.split.Tensor" else None
    kind = op.name.removeprefix("torch.aten.")
    known = (*_VIEWS, "alias", "transpose.int", "permute", "slice.Tensor", "select.int")
    return op.operands[0] if kind in known and kind != op.name else None


def apply_view(view: StridedView, value: Value) -> StridedView | None:
    """What the operation that makes `value` does to a view of its source.

    Args:
        view: Where the elements of the source lie.
        value: A value with a `source_of_view`.

    Returns:
        Where the elements of `value` lie; None if that is no strided view.
    """
    op, kind = defining_op(value), tensor_type(value)
    if op is None or kind is None or not kind.is_static:
        return None
    name = op.name.removeprefix("torch.aten.")
    rank = len(view.sizes)
    if name in _VIEWS:
        return view.reshaped(kind.sizes)
    if name == "alias":
        return view
    if name == "transpose.int":
        first, second = constant_int(op.operands[1]), constant_int(op.operands[2])
        if first is None or second is None:
            return None
        order = list(range(rank))
        order[first], order[second] = order[second], order[first]
        return view.permuted(order)
    if name == "permute":
        axes = [constant_int(item) for item in list_elements(op.operands[1]) or []]
        known = [axis % rank for axis in axes if axis is not None]
        return view.permuted(known) if len(known) == rank else None
    if name == "select.int":
        axis, index = constant_int(op.operands[1]), constant_int(op.operands[2])
        if axis is None or index is None:
            return None
        axis %= rank
        return view.cut(axis, index % view.sizes[axis], 1).reshaped(kind.sizes)
    return _cut(view, op, value, kind.sizes)


def _cut(view: StridedView, op: Operation, value: Value, sizes: tuple[int, ...]) -> StridedView | None:
    """A slice with a step of 1, or one part of a split."""
    if op.name == "torch.prim.ListUnpack":
        split = defining_op(op.operands[0])
        assert split is not None
        length, axis = constant_int(split.operands[1]), constant_int(split.operands[2])
        place = next(index for index, result in enumerate(op.results) if result == value)
        begin = None if length is None else place * length
    else:
        axis, begin = constant_int(op.operands[1]), constant_int(op.operands[2])
        if constant_int(op.operands[4]) != 1 or not (
            is_open_end(op.operands[3]) or constant_int(op.operands[3]) is not None
        ):
            return None
    if axis is None or begin is None:
        return None
    axis %= len(view.sizes)
    # The end follows from the size of the result.
    begin = min(begin + view.sizes[axis] if begin < 0 else begin, view.sizes[axis])
    return view.cut(axis, begin, sizes[axis])
