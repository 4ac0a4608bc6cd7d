"""Finds what a write of keys and values becomes as a kernel: what its vectors come from, and whose queries it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.ir import Operation, Value, defining_op, operator_name
from amdnfs_passes.kernels.write_heads_kernels import TableShape, VectorShape, WriteShape
from amdnfs_passes.kvcache.fp8_bits import NUMBERS, POOL_ELEMENT
from amdnfs_passes.kvcache.head_rows import HeadRows, read_heads
from amdnfs_passes.templates import tensor_type

_ELEMENTS = ("f16", "bf16")
_LARGEST = 1 << 31
"""Places in a source must fit 32 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadWrite:
    """One write and what goes into its kernel."""

    shape: WriteShape
    """Sizes and places."""
    reads: tuple[Value, ...]
    """Tensors that the kernel reads, in the order of its arguments."""
    attention: Operation | None
    """Whose queries the kernel makes; None if it makes none."""
    batch: int
    """Number of requests."""


def match_write(op: Operation, fp8: Fp8Format) -> HeadWrite | str:
    """The kernel that an `amdnfs.kv_write` becomes, or why it becomes none; `fp8` is what pools of bytes hold."""
    pool, kind = tensor_type(op.operands[0]), tensor_type(op.operands[1])
    assert pool is not None
    assert kind is not None
    if kind.element not in _ELEMENTS:
        return f"{kind.element} has no kernel; f16 and bf16 have"
    batch, kv_heads, tokens, head_dim = kind.sizes
    key, value = read_heads(op.operands[1]), read_heads(op.operands[2])
    if key is None or value is None:
        return "the rows of keys or values do not lie evenly in any tensor"
    if value.norm is not None or value.rotation is not None:
        return "the values are normalised or rotated"
    attention = _attention_on(op)
    query = read_heads(attention.operands[0]) if attention is not None else None
    heads = tensor_type(attention.operands[0]) if attention is not None else None
    if query is not None and heads is not None and _is_plain(query, heads.sizes):
        query = None
    if query is not None and (query.rotation != key.rotation or not _is_made_before(query, op)):
        query = None
    sources = [item for item in (query, key, value) if item is not None]
    if any(_num_elements(item.rows.source) >= _LARGEST for item in sources):
        return "a tensor of more than 2^31 elements"
    tables = [key.rotation.cos.source, key.rotation.sin.source] if key.rotation is not None else []
    gains = [item.norm.weight for item in (query, key) if item is not None and item.norm is not None]
    return HeadWrite(
        shape=WriteShape(
            num_rows=batch * tokens,
            heads=heads.sizes[1] if query is not None and heads is not None else 0,
            kv_heads=kv_heads,
            head_dim=head_dim,
            page_tokens=pool.shape[2] or 0,
            element=kind.builtin_element,
            query=_vectors(query) if query is not None else None,
            key=_vectors(key),
            value=_vectors(value),
            table=_table(key),
            fp8=NUMBERS[fp8] if pool.element == POOL_ELEMENT else None,
        ),
        reads=(*(item.rows.source for item in sources), *tables, *gains, *list(op.operands)[3:6]),
        attention=attention if query is not None else None,
        batch=batch,
    )


def _attention_on(op: Operation) -> Operation | None:
    """The one attention that reads the written pool."""
    users = [use.owner.operation for use in op.result.uses]
    found = [user for user in users if operator_name(user) == "torch.amdnfs.paged_attention"]
    return found[0] if len(found) == 1 and found[0].operands[1] == op.result else None


def _is_plain(query: HeadRows, sizes: tuple[int, ...]) -> bool:
    """Whether the queries are already what attention reads."""
    _, heads, tokens, head_dim = sizes
    rows = query.rows
    is_contiguous = tokens == 1 and (rows.begin, rows.head_stride) == (0, head_dim if heads > 1 else 0)
    is_whole = _num_elements(rows.source) == math.prod(sizes)
    return query.norm is None and query.rotation is None and is_contiguous and is_whole


def _is_made_before(heads: HeadRows, op: Operation) -> bool:
    """Whether what makes queries is there where keys are written."""
    place = {item.operation: index for index, item in enumerate(op.block.operations)}
    values = [heads.rows.source, *([heads.norm.weight] if heads.norm is not None else [])]
    makers = [owner for value in values if (owner := defining_op(value)) is not None]
    return all(place.get(maker, len(place)) < place[op] for maker in makers)


def _num_elements(value: Value) -> int:
    kind = tensor_type(value)
    return math.prod(kind.sizes) if kind is not None else 0


def _vectors(heads: HeadRows) -> VectorShape:
    return VectorShape(
        begin=heads.rows.begin,
        row_stride=heads.rows.row_stride,
        head_stride=heads.rows.head_stride,
        eps=heads.norm.eps if heads.norm is not None else None,
        gain_offset=heads.norm.gain_offset if heads.norm is not None else 0.0,
    )


def _table(heads: HeadRows) -> TableShape | None:
    rotation = heads.rotation
    kind = tensor_type(rotation.cos.source) if rotation is not None else None
    if rotation is None or kind is None:
        return None
    return TableShape(
        element=kind.builtin_element,
        cos=(rotation.cos.begin, rotation.cos.row_stride),
        sin=(rotation.sin.begin, rotation.sin.row_stride),
        size=rotation.size,
        interleaved=rotation.interleaved,
        is_paired=rotation.is_paired,
    )
