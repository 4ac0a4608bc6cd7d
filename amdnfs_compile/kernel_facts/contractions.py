"""Recognises products of tensors inside a dispatch - matmuls and attention - and counts their arithmetic.

Counted: a multiplication and an addition for each point of the loops, padding included. Not counted: softmax, masks,
norms and other arithmetic without a matrix unit to do it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op

from amdnfs_compile.kernel_facts.shapes import Shapes, element_bits, indexing_maps, map_dims
from amdnfs_compile.kernel_facts.sizes import Size, UnknownSizeError, product

_ATTENTION = ("iree_linalg_ext.attention", "iree_linalg_ext.online_attention")
_NAMED = re.compile(r"linalg\.(batch_|quantized_)*(matmul|matvec|vecmat|mmt4d|dot)(_transpose_[ab])?$")
CASTS = {
    "arith.extf",
    "arith.truncf",
    "arith.extsi",
    "arith.extui",
    "arith.trunci",
    "arith.sitofp",
    "arith.uitofp",
    "arith.fptosi",
    "arith.fptoui",
}
"""Conversions of an element's type."""
_ADDITIONS = ("arith.addf", "arith.addi")
_PRODUCTS = ("arith.mulf", "arith.muli")


@dataclass(frozen=True, kw_only=True, slots=True)
class Contraction:
    """One product of tensors."""

    operation: str
    """The operation of MLIR, e.g. `linalg.generic`."""
    element_type: str
    """Type of the factors as they are stored: the wider of the two."""
    sizes: tuple[tuple[str, str], ...]
    """Trip counts for people: pairs of `batch`, `m`, `n` or `k` and a size such as `2`, `16*pages`, `4x32`."""
    rows: Size
    """Rows that meet the same second factor (M), as a size: whether matrix instructions could be used."""
    flops: Size
    """Multiplications and additions."""


def find_contraction(op: Operation, shapes: Shapes) -> Contraction | None:
    """The contraction that `op` is; None if it is none.

    Raises:
        UnknownSizeError: If it is one, of a form whose arithmetic cannot be counted.
    """
    if op.name in _ATTENTION:
        return _attention(op, shapes)
    if op.name.startswith("linalg.") and _NAMED.match(op.name):
        return _from_maps(op, shapes, 0, 1)
    if op.name == "linalg.generic":
        factors = _factors(op)
        return None if factors is None else _from_maps(op, shapes, *factors)
    if op.name.startswith("linalg.conv") or op.name.startswith("linalg.depthwise"):
        raise UnknownSizeError(f"the arithmetic of {op.name}")
    return None


def _attention(op: Operation, shapes: Shapes) -> Contraction:
    """Queries times keys, and weights times values; the maps are those of queries, keys, values, ..., result."""
    maps = indexing_maps(op)
    if maps is None or len(op.results) == 0:
        raise UnknownSizeError(f"the arithmetic of {op.name}")
    loops = shapes.loops(op)
    query, key, value = (set(map_dims(item)) for item in maps[:3])
    result = set(map_dims(maps[len(op.operands) - len(op.results)]))
    scores, output = query | key, (query & result) | value
    flops = product(loops[int(i or 0)] for i in scores) + product(loops[int(i or 0)] for i in output)
    rows = (query & result) - key
    named = {"batch": query & key & value, "m": rows, "n": value & result - query, "k": (key & value) - query}
    return Contraction(
        operation=op.name,
        element_type=str(op.operands[0].type.element_type),
        sizes=tuple((name, _describe(loops, dims)) for name, dims in named.items()),
        rows=product(loops[int(i or 0)] for i in rows),
        flops=flops.times(2),
    )


def _from_maps(op: Operation, shapes: Shapes, first: int, second: int) -> Contraction:
    """A contraction of the operands `first` and `second`, described by the operation's maps."""
    maps = indexing_maps(op)
    if maps is None:
        raise UnknownSizeError(f"the arithmetic of {op.name}")
    loops = shapes.loops(op)
    a, b, c = (set(map_dims(maps[i])) - {None} for i in (first, second, len(op.operands) - 1))
    named = {"batch": a & b & c, "m": (a & c) - b, "n": (b & c) - a, "k": (a | b) - c}
    types = [op.operands[i].type.element_type for i in (first, second)]
    return Contraction(
        operation=op.name,
        element_type=str(max(types, key=element_bits)),
        sizes=tuple((name, _describe(loops, dims)) for name, dims in named.items() if dims),
        rows=product(loops[int(i or 0)] for i in min(named["m"], named["n"], key=lambda d: _constant(loops, d))),
        flops=product(loops).times(2),
    )


def _constant(loops: list[Size], dims: set[int | None]) -> tuple[bool, int]:
    """Order of groups of loops: static ones first, then by size."""
    size = product(loops[int(i or 0)] for i in dims)
    return size.grows_with_context, int(size.constant)


def _describe(loops: list[Size], dims: set[int | None]) -> str:
    return "x".join(loops[i].describe() for i in sorted(int(i or 0) for i in dims)) or "1"


def _factors(op: Operation) -> tuple[int, int] | None:
    """The two operands whose products a `linalg.generic` sums up over a reduction; None if it does something else.

    The sum of squares of one tensor is no contraction, and neither is a sum in which one factor does not depend on
    what is summed over.
    """
    if "reduction" not in str(op.attributes["iterator_types"]):
        return None
    body = op.regions[0].blocks[0]
    last = list(body.operations)[-1].operation
    if len(last.operands) != 1:
        return None
    accumulator = body.arguments[len(body.arguments) - 1]
    addition = defining_op(_strip(last.operands[0]))
    if addition is None or addition.name not in _ADDITIONS:
        return None
    terms = [_strip(term) for term in addition.operands]
    others = [term for term in terms if term != accumulator]
    if len(others) != 1:
        return None
    multiplication = defining_op(others[0])
    if multiplication is None or multiplication.name not in _PRODUCTS:
        return None
    return _pick_operands(op, [_operands_behind(factor, body) for factor in multiplication.operands])


def _pick_operands(op: Operation, behind: list[set[int]]) -> tuple[int, int] | None:
    """One operand of each factor; both must run over a common reduction loop, and they must differ."""
    maps = indexing_maps(op) or []
    reductions = {i for i, kind in enumerate(op.attributes["iterator_types"]) if "reduction" in str(kind)}
    candidates = [
        [i for i in sorted(operands) if i < len(maps) and reductions & set(map_dims(maps[i]))] for operands in behind
    ]
    if behind[0] == behind[1] or not all(candidates):
        return None
    # The widest map first: a factor may be a weight times its scale.
    first, second = (max(items, key=lambda i: len(maps[i].results)) for items in candidates)
    return (first, second) if first != second else None


def _strip(value: Value) -> Value:
    """`value` before conversions of its type."""
    op = defining_op(value)
    while op is not None and op.name in CASTS:
        value = op.operands[0]
        op = defining_op(value)
    return value


def _operands_behind(value: Value, body: Any) -> set[int]:
    """Positions of the block's arguments that a value in it is computed from."""
    op = defining_op(value)
    if op is None:
        return {value.arg_number} if value.owner == body else set()
    found: set[int] = set()
    for operand in op.operands:
        found |= _operands_behind(operand, body)
    return found
