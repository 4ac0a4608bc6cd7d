"""Counts the products of tensors that a dispatch sums up in vectors: the CPU's form of a linear layer.

A product counts if both of its factors were loaded, whatever widened or scaled them on the way, and if a sum takes it
in. The factor of a sum (a scale) is no product of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op

from amdnfs_compile.kernel_facts.contractions import Contraction
from amdnfs_compile.kernel_facts.loops import Loops
from amdnfs_compile.kernel_facts.shapes import element_bits, operand_groups
from amdnfs_compile.kernel_facts.sizes import Size, number

VECTOR_LOOPS = "loops in vectors"
"""Name of the operation of such a contraction."""
_FUSED = ("vector.fma", "math.fma")
_PAIRS = "dpbf16ps"
"""Part of the name of an intrinsic `(sum, x, w)` that multiplies pairs of bf16 and adds them up."""
_WORDS = ("pmaddw.d", "pmadd.wd")
"""Parts of the names of intrinsics `(x, w)` that multiply words and add up neighbours."""
_READS = ("vector.transfer_read", "vector.load", "tensor.extract")
_LOAD = "iree_tensor_ext.dispatch.tensor.load"
_SUMS = (*_FUSED, "vector.reduction", "vector.contract", "scf.for")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Product:
    """An operation that multiplies vectors and whose products are added up."""

    op: Operation
    """The operation."""
    num_elements: int
    """Products that it makes."""
    sources: tuple[tuple[Operation, ...], ...]
    """Of each factor the loads of the dispatch's operands that it comes from."""


def find_vector_sums(operations: Sequence[Operation], loops: Loops) -> list[Contraction]:
    """The contractions that the operations of a dispatch compute in vectors; overlapping tiles count twice.

    Raises:
        UnknownSizeError: If it is not known how often one of them runs.
    """
    found: dict[tuple[str, tuple[tuple[str, str], ...], Size], int] = {}
    for product in filter(None, map(_product, operations)):
        key = (_element_type(product), *_sizes(product, operations, loops))
        found[key] = found.get(key, 0) + 2 * product.num_elements * loops.times(product.op)
    return [
        Contraction(operation=VECTOR_LOOPS, element_type=kind, sizes=sizes, rows=rows, flops=number(flops))
        for (kind, sizes, rows), flops in found.items()
    ]


def _product(op: Operation) -> _Product | None:
    factors = _factors(op)
    if factors is None:
        return None
    roots = [list(_roots(factor)) for factor in factors]
    if not all(roots) or any(root.name not in _READS for found in roots for root in found):
        return None
    loads = tuple(tuple(load for root in found if (load := _load(root)) is not None) for found in roots)
    if not all(loads):
        return None
    return _Product(op=op, num_elements=_num_elements(factors[0]), sources=loads)


def _factors(op: Operation) -> list[Value] | None:
    """The two factors of a product that is added to something; None if `op` is no such product."""
    if op.name in _FUSED:
        return list(op.operands)[:2]
    if op.name == "llvm.call_intrinsic":
        if any(name in str(op.attributes["intrin"]) for name in _WORDS):
            return list(op.operands)
        return list(op.operands)[1:3] if _is_pairs(op) else None
    if op.name == "arith.muli" and _is_vector(op.results[0]):
        return list(op.operands)
    if op.name == "arith.mulf" and _is_vector(op.results[0]):
        is_added = any(use.owner.operation.name == "arith.addf" for use in op.results[0].uses)
        return list(op.operands) if is_added else None
    return None


def _roots(value: Value) -> Iterator[Operation]:
    """What a factor comes from: reads of tensors, and sums. Constants are left out."""
    op = defining_op(value)
    if op is None or op.name == "arith.constant":
        return
    if op.name in _READS or op.name in _SUMS or _is_pairs(op):
        yield op
        return
    for operand in op.operands:
        yield from _roots(operand)


def _is_pairs(op: Operation) -> bool:
    return op.name == "llvm.call_intrinsic" and _PAIRS in str(op.attributes["intrin"])


def _load(read: Operation) -> Operation | None:
    """The load of an operand of the dispatch that a read takes its elements from."""
    op = defining_op(read.operands[0])
    return op if op is not None and op.name == _LOAD else None


def _is_vector(value: Value) -> bool:
    return str(value.type).startswith("vector<")


def _num_elements(value: Value) -> int:
    kind: Any = value.type
    return math.prod(kind.shape) if _is_vector(value) else 1


def _element_type(product: _Product) -> str:
    """The wider of the types in which the factors are stored; scales that a factor was multiplied with are narrow."""
    kinds = [str(_tensor(found[0]).element_type) for found in product.sources]
    return max(kinds, key=element_bits)


def _tensor(load: Operation) -> Any:
    return load.results[0].type


def _sizes(
    product: _Product, operations: Sequence[Operation], loops: Loops
) -> tuple[tuple[tuple[str, str], ...], Size]:
    """`m`, `n` and `k` for people, and the rows: from the factor that is the same for all workgroups, and the result.

    Nothing, and no rows, where it cannot be told.
    """
    stored = [op for op in operations if op.name == "iree_tensor_ext.dispatch.tensor.store"]
    shared = [found[0] for found in product.sources if not loops.varies(operand_groups(found[0])[2])]
    if len(shared) != 1 or len(stored) != 1 or _tensor(shared[0]).rank != 2:
        return (), Size()
    rows, depth = _tensor(shared[0]).shape
    result = whole_shape(operand_groups(stored[0])[1][0])
    if result is None or len(result) != 2:
        return (), Size()
    return (("m", str(rows)), ("n", str(result[1])), ("k", str(depth))), number(rows)


def whole_shape(reference: Value) -> tuple[int, ...] | None:
    """Shape of the tensor that an operand of a dispatch stands for; None if it is not static."""
    inner = str(reference.type).partition("tensor<")[2].partition("tensor<")[2].partition(">")[0]
    sizes = inner.split("x")[:-1]
    return tuple(int(size) for size in sizes) if all(size.isdigit() for size in sizes) else None
