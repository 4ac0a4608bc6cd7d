"""Finds where the vectors of heads come from, and what happens to each on its way: normalisation, then rotation.

    value   [batch, heads, tokens, head_dim]    as attention and the cache take them
    source  any shape                           what a layer computed, e.g. [batch, tokens, heads * head_dim]

Views (a split of one projection, transposes) are followed to the source, so that a kernel reads it as it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amdnfs_passes.fuse.norm_match import CONVERSIONS, RmsNorm, match_rms_norm
from amdnfs_passes.ir import Operation, Value, constant_bool, constant_int, defining_op, list_elements, operator_name
from amdnfs_passes.kvcache.strided_view import StridedView, apply_view, source_of_view
from amdnfs_passes.templates import tensor_type

_FLOATS = ("f16", "bf16", "f32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Vectors in a tensor: element d of head h of row n is at `begin + n * row_stride + h * head_stride + d`.

    Rows count tokens of all requests: request * tokens + token.
    """

    source: Value
    """The tensor."""
    begin: int
    """Place of the first element."""
    row_stride: int
    """Distance of neighbouring rows, in elements."""
    head_stride: int
    """Distance of neighbouring heads, in elements."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rotation:
    """Rotary embedding of the first `size` elements of a vector."""

    cos: Rows
    """Cosines, one head."""
    sin: Rows
    """Sines, one head."""
    size: int
    """Elements that are rotated, even."""
    interleaved: bool
    """Whether a pair are neighbours, or one element of each half."""
    is_paired: bool
    """Whether a table has one number a pair instead of one an element."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadRows:
    """Vectors of heads and what is done to each."""

    rows: Rows
    """Where they lie before that."""
    norm: RmsNorm | None
    """RMS normalisation over a vector, done first; None without one."""
    rotation: Rotation | None
    """Rotary embedding; None without one."""


def read_heads(value: Value) -> HeadRows | None:
    """What `value` `[batch, heads, tokens, head_dim]` is made of; None if its rows do not lie evenly in any source."""
    kind = tensor_type(value)
    if kind is None or not kind.is_static or len(kind.shape) != 4:
        return None
    head_dim = kind.sizes[-1]
    found = _Chain(head_dim=head_dim, element=kind.element)
    rows = found.follow(value)
    if rows is not None and (found.rotation is None or found.rotation_rows is not None):
        return HeadRows(rows=rows, norm=found.norm, rotation=found.rotation_rows)
    plain = _rows_of(value, [], kind.sizes)
    return None if plain is None else HeadRows(rows=plain, norm=None, rotation=None)


@dataclass(kw_only=True, slots=True)
class _Chain:
    """The way back from a value to its source."""

    head_dim: int
    element: str
    norm: RmsNorm | None = None
    rotation: tuple[Value, Value, int, bool] | None = None
    rotation_rows: Rotation | None = None

    def follow(self, value: Value) -> Rows | None:
        """The rows of the source; sets what was met on the way."""
        kind = tensor_type(value)
        assert kind is not None
        views: list[Value] = []
        source, best = value, value
        num_views = 0
        while (before := self._step(source, views)) is not None:
            source = before
            own = tensor_type(source)
            if own is not None and own.element == self.element:
                best, num_views = source, len(views)
        if self.rotation is not None:
            self.rotation_rows = _read_rotation(self.rotation, kind.sizes)
        return _rows_of(best, views[:num_views], kind.sizes) if best == source else None

    def _step(self, value: Value, views: list[Value]) -> Value | None:
        """What stands before `value` in the chain; None at the source."""
        op = defining_op(value)
        if op is None:
            return None
        if op.name in CONVERSIONS:
            kinds = (tensor_type(value), tensor_type(op.operands[0]))
            if self._norm_here(value) is None:
                return op.operands[0] if all(kind is not None and kind.element in _FLOATS for kind in kinds) else None
        if self.norm is None and self.rotation is None and (found := _match_rotation(op)) is not None:
            if not _keep_vectors(views, self.head_dim):
                return None
            self.rotation = found[1:]
            return found[0]
        norm = self._norm_here(value)
        if norm is not None and _keep_vectors(views, self.head_dim):
            self.norm = norm
            return norm.x
        before = source_of_view(value)
        if before is not None:
            views.append(value)
        return before

    def _norm_here(self, value: Value) -> RmsNorm | None:
        kind = tensor_type(value)
        if self.norm is not None or kind is None or kind.shape[-1] != self.head_dim or len(kind.shape) != 4:
            return None
        return match_rms_norm(value)


def _keep_vectors(views: Sequence[Value], head_dim: int) -> bool:
    """Whether the last axis goes through all `views` as it is."""
    for value in views:
        kind, before = tensor_type(value), source_of_view(value)
        own = tensor_type(before) if before is not None else None
        if kind is None or own is None or kind.shape[-1] != head_dim or own.shape[-1] != head_dim:
            return False
        op = defining_op(value)
        assert op is not None
        if op.name == "torch.aten.transpose.int":
            axes = {constant_int(axis) for axis in list(op.operands)[1:3]}
            if axes & {-1, len(kind.shape) - 1}:
                return False
        if op.name == "torch.aten.permute":
            order = [constant_int(axis) for axis in list_elements(op.operands[1]) or []]
            if not order or order[-1] not in (-1, len(order) - 1):
                return False
    return True


def _rows_of(
    source: Value, views: Sequence[Value], sizes: tuple[int, ...], ordered: tuple[int, ...] | None = None
) -> Rows | None:
    """`source` through `views` (the last one first), which make `sizes`, as vectors `[batch, heads, tokens, dim]`.

    `ordered` are those sizes in that order, if they differ by axes of size 1 only.
    """
    kind = tensor_type(source)
    if kind is None or not kind.is_static:
        return None
    view: StridedView | None = StridedView.whole(kind.sizes)
    for value in reversed(views):
        view = None if view is None else apply_view(view, value)
    if view is None or view.sizes != sizes:
        return None
    view = view.reshaped(ordered or sizes)
    if view is None or (view.sizes[3] > 1 and view.strides[3] != 1):
        return None
    batch, _, tokens, _ = view.sizes
    if batch > 1 and tokens > 1 and view.strides[0] != tokens * view.strides[2]:
        return None
    row_stride = view.strides[2] if tokens > 1 else view.strides[0]
    return Rows(source=source, begin=view.begin, row_stride=row_stride, head_stride=view.strides[1])


def _match_rotation(op: Operation) -> tuple[Value, Value, Value, int, bool] | None:
    """The vectors, cosines, sines, rotated size and form of a rotary embedding of all or the first elements."""
    if operator_name(op) == "torch.amdnfs.rotary":
        x, cos, sin, flag = op.operands
        kind, interleaved = tensor_type(x), constant_bool(flag)
        if kind is None or not kind.is_static or interleaved is None:
            return None
        return x, cos, sin, kind.sizes[-1], interleaved
    if op.name != "torch.aten.cat":
        return None
    parts = list_elements(op.operands[0])
    kind = tensor_type(op.results[0])
    if (
        parts is None
        or len(parts) != 2
        or kind is None
        or constant_int(op.operands[1]) not in (-1, len(kind.shape) - 1)
    ):
        return None
    turned = defining_op(parts[0])
    found = _match_rotation(turned) if turned is not None and turned.name == "torch.operator" else None
    rest = tensor_type(parts[1])
    if found is None or rest is None:
        return None
    x, cos, sin, size, interleaved = found
    if rest.shape[-1] == 0:
        return found
    first, second = (_slice_of_last(value) for value in (x, parts[1]))
    if first is None or second is None or first[0] != second[0] or (first[1], second[1]) != (0, size):
        return None
    return first[0], cos, sin, size, interleaved


def _slice_of_last(value: Value) -> tuple[Value, int] | None:
    """What a slice along the last axis is taken from, and where it begins."""
    op, kind = defining_op(value), tensor_type(value)
    if op is None or kind is None or op.name != "torch.aten.slice.Tensor" or constant_int(op.operands[4]) != 1:
        return None
    begin = constant_int(op.operands[2])
    if begin is None or begin < 0 or constant_int(op.operands[1]) not in (-1, len(kind.shape) - 1):
        return None
    return op.operands[0], begin


def _read_rotation(found: tuple[Value, Value, int, bool], sizes: tuple[int, ...]) -> Rotation | None:
    cos, sin, size, interleaved = found
    tables = [_read_table(value, size, interleaved, sizes) for value in (cos, sin)]
    first, second = tables
    if first is None or second is None or first[1] != second[1]:
        return None
    kinds = [tensor_type(rows.source) for rows, _ in (first, second)]
    if kinds[0] is None or kinds[1] is None or kinds[0].element != kinds[1].element:
        return None
    return Rotation(cos=first[0], sin=second[0], size=size, interleaved=interleaved, is_paired=first[1])


def _read_table(value: Value, size: int, interleaved: bool, sizes: tuple[int, ...]) -> tuple[Rows, bool] | None:
    """A table as rows, and whether it has one number a pair, repeated for both of them."""
    is_paired = False
    op, kind = defining_op(value), tensor_type(value)
    if kind is None or not kind.is_static or len(kind.shape) != 4 or kind.element not in _FLOATS:
        return None
    if op is not None and interleaved and _repeats_pairs(op):
        is_paired, value, size = True, op.operands[0], size // 2
    batch, _, tokens, _ = sizes
    wide = tensor_type(value)
    lead = wide.sizes[0] if wide is not None else 0
    # One head, before or behind the tokens; one request for all, unless its rows would have to be read again.
    if wide is None or wide.sizes not in ((lead, 1, tokens, size), (lead, tokens, 1, size)):
        return None
    if lead != batch and (lead != 1 or tokens > 1):
        return None
    views = []
    source = value
    while (before := source_of_view(source)) is not None:
        views.append(source)
        source = before
    rows = _rows_of(source, views, wide.sizes, (lead, 1, tokens, size))
    return None if rows is None else (rows, is_paired)


def _repeats_pairs(op: Operation) -> bool:
    """Whether each element of the last of four axes comes twice."""
    if op.name != "torch.aten.repeat_interleave.self_int" or constant_int(op.operands[1]) != 2:
        return False
    return constant_int(op.operands[2]) in (-1, 3)
