"""From a matched attention to the operation of ours: whether there is one, and its operands."""

from __future__ import annotations

import math
from collections.abc import Sequence

from amdnfs_passes.fuse.attention_match import Matched, NoMatchError
from amdnfs_passes.fuse.attention_scores import Scores
from amdnfs_passes.fuse.index_terms import Axis, Load
from amdnfs_passes.fuse.torch_builder import TorchBuilder
from amdnfs_passes.ir import Operation, Value, constant_int, defining_op, operator_name
from amdnfs_passes.templates import TensorType, tensor_type

_ELEMENTS = ("f16", "bf16", "f32")


def check(matched: Matched) -> Value | None:
    """Looks at queries, keys and values.

    Returns:
        The tensor of the position at which each request begins, where keys and values come from pages.

    Raises:
        NoMatchError: If no operation of ours takes them.
    """
    key, value = _kind(matched.key.value), _kind(matched.value.value)
    if key.element != value.element or key.element not in _ELEMENTS:
        raise NoMatchError(f"keys are {key.element} and values {value.element}; they must be one float type")
    keys, values = _gather(matched.key), _gather(matched.value)
    _check_view(_kind(matched.query).shape, _query_shape(matched))
    if keys is None and values is None:
        for load, dim in ((matched.key, matched.key_dim), (matched.value, matched.value_dim)):
            _check_arranged(load, (matched.batch, matched.kv_heads, matched.keys, dim))
        return None
    if keys is None or values is None or list(keys.operands)[:4] != list(values.operands)[:4]:
        raise NoMatchError("keys and values do not come from the pages of one pool")
    if (constant_int(keys.operands[4]), constant_int(values.operands[4])) != (0, 1):
        raise NoMatchError("the keys must be the keys of a pool, and the values its values")
    for load, dim in ((matched.key, matched.key_dim), (matched.value, matched.value_dim)):
        if load.axes != (matched.batch, matched.kv_heads, matched.keys, dim):
            raise NoMatchError("keys and values are not read as [batch, kv_heads, keys, dim]")
    return keys.operands[2]


def fused_operation(matched: Matched, scores: Scores) -> Value:
    """Makes the operation of ours, and gives its result in the shape and type of the old one.

    Raises:
        NoMatchError: If no operation of ours does what happens to the scores; nothing has been made then.
    """
    gather = _gather(matched.key)
    _check_scores(matched, scores, gather is not None)
    old = _kind(matched.result.result)
    build = TorchBuilder(matched.result)
    element = _kind(matched.key.value).element
    query = build.cast(build.view(_narrow(matched.query, element), _query_shape(matched)), element)
    batch, heads, tokens, _ = _query_shape(matched)
    shape = (batch, tokens, heads, _size(matched.value_dim))
    if gather is not None:
        operands = [query, *list(gather.operands)[:4], build.none(), _slopes(build, matched, scores)]
        operands += [build.number(matched.scale), build.integer(scores.window), build.number(matched.softcap)]
        fused = build.operator("paged_attention", operands, shape, element)
    else:
        fused = build.operator("attention", _plain_operands(build, matched, scores, query), shape, element)
    return build.cast(build.view(build.permute(fused, (0, 2, 1, 3)), old.shape), old.element)


def _check_scores(matched: Matched, scores: Scores, is_paged: bool) -> None:
    if is_paged and not scores.is_causal:
        raise NoMatchError("the mask over pages is not causal by the positions of the call")
    if is_paged and (scores.mask is not None or scores.bias is not None):
        raise NoMatchError("over pages, masks and biases must follow from positions alone")
    if not is_paged and scores.window:
        raise NoMatchError("a window by position is applied over pages only")
    grid = (matched.batch, matched.heads, matched.tokens, matched.keys)
    if scores.mask is not None:
        _check_arranged(scores.mask.load, grid)
    if scores.bias is not None:
        _check_arranged(scores.bias[0], grid)
    _check_view(_kind(matched.result.result).shape, tuple(_size(axis) for axis in (*grid[:3], matched.value_dim)))


def _plain_operands(build: TorchBuilder, matched: Matched, scores: Scores, query: Value) -> list[Value]:
    grid = (matched.batch, matched.heads, matched.tokens, matched.keys)
    mask, bias = build.none(), build.none()
    if scores.mask is not None:
        mask = build.arrange(scores.mask.load, grid)
        mask = mask if scores.mask.expected else build.aten("logical_not", [mask], _kind(mask).shape, "i1")
    if scores.bias is not None:
        bias = build.scale(build.cast(build.arrange(scores.bias[0], grid), "f32"), scores.bias[1])
    return [
        query,
        build.arrange(matched.key, (matched.batch, matched.kv_heads, matched.keys, matched.key_dim)),
        build.arrange(matched.value, (matched.batch, matched.kv_heads, matched.keys, matched.value_dim)),
        mask,
        bias,
        _slopes(build, matched, scores),
        build.number(matched.scale),
        build.number(matched.softcap),
        build.boolean(scores.is_causal),
    ]


def _slopes(build: TorchBuilder, matched: Matched, scores: Scores) -> Value:
    """One f32 number a head: how much a score grows with the position of its key."""
    if scores.slopes is None:
        return build.none()
    return build.scale(build.cast(build.arrange(scores.slopes.load, (matched.heads,)), "f32"), scores.slopes.factor)


def _narrow(query: Value, element: str) -> Value:
    """The queries before a cast that only widened them."""
    cast = defining_op(query)
    if cast is None or cast.name not in ("torch.aten._to_copy", "torch.aten.to.dtype"):
        return query
    source = tensor_type(cast.operands[0])
    return cast.operands[0] if source is not None and source.element == element else query


def _query_shape(matched: Matched) -> tuple[int | None, ...]:
    return tuple(_size(axis) for axis in (matched.batch, matched.heads, matched.tokens, matched.key_dim))


def _gather(load: Load) -> Operation | None:
    op = defining_op(load.value)
    return op if op is not None and operator_name(op) == "torch.amdnfs.kv_gather" else None


def _check_arranged(load: Load, axes: Sequence[Axis]) -> None:
    """Whether a tensor can be brought to the given axes."""
    atoms = [atom for axis in load.axes for atom in axis]
    known = [atom for axis in axes for atom in axis]
    assert set(atoms) <= set(known)
    is_plain = load.axes == tuple(tuple(atom for atom in axis if atom in atoms) for axis in axes)
    if not is_plain and sum(atom.size is None for atom in atoms) > 1:
        raise NoMatchError("a tensor with two dynamic sizes would have to be reshaped")


def _check_view(old: Sequence[int | None], new: Sequence[int | None]) -> None:
    sizes = math.prod(size for size in old if size is not None), math.prod(size for size in new if size is not None)
    if tuple(old) != tuple(new) and (sizes[0] != sizes[1] or list(new).count(None) > 1):
        raise NoMatchError("queries or result cannot be read as [batch, heads, tokens, dim]")


def _size(axis: Axis) -> int | None:
    sizes = [atom.size for atom in axis]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _kind(value: Value) -> TensorType:
    kind = tensor_type(value)
    assert kind is not None
    return kind
