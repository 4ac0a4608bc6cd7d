"""Least bytes that a dispatch moves: every element that it needs once, every element that it makes once.

Caches are not considered: what one dispatch writes and the next one reads counts in both.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op

from amdnfs_compile.kernel_facts.shapes import (
    Shapes,
    element_bits,
    indexing_maps,
    map_dims,
    operand_groups,
)
from amdnfs_compile.kernel_facts.sizes import Size, product, smaller, total

_VIEWS = {
    "tensor.extract_slice",
    "tensor.expand_shape",
    "tensor.collapse_shape",
    "tensor.cast",
    "tensor.bitcast",
    "iree_encoding.set_encoding",
    "iree_encoding.unset_encoding",
    "iree_tensor_ext.compute_barrier.start",
    "iree_tensor_ext.compute_barrier.end",
}
_NO_READ = {"tensor.dim", "linalg.fill"}
_SCATTER, _GATHER = "iree_linalg_ext.scatter", "iree_linalg_ext.gather"


def argument_of(value: Value) -> int | None:
    """Position of the dispatch's argument that a load or store names; None if it is no argument."""
    op = defining_op(value)
    while op is not None and op.name == "flow.dispatch.tie_shape":
        value = op.operands[0]
        op = defining_op(value)
    return None if op is not None else int(value.arg_number)


def read_bytes(value: Value, shapes: Shapes) -> Size:
    """Bytes of a loaded tensor that its users need, each element once.

    Raises:
        UnknownSizeError: If a size is no linear form of the page counts.
    """
    uses = total(_used_bytes(value, use.owner.operation, use.operand_number, shapes) for use in value.uses)
    return smaller(shapes.num_bytes(value), uses)


def _used_bytes(value: Value, op: Operation, position: int, shapes: Shapes) -> Size:
    name = op.name
    if name in _VIEWS:
        return read_bytes(op.results[0], shapes) if position == 0 else Size()
    if name in _NO_READ:
        return Size()
    if name == "tensor.extract" and op.parent.operation.name.startswith("scf."):
        return shapes.num_bytes(value)  # its places follow from the loops around it
    if name == "tensor.extract":
        kind: Any = value.type
        return _extracted(op, shapes).times(Fraction(element_bits(kind.element_type), 8))
    if name == "linalg.generic":
        argument = op.regions[0].blocks[0].arguments[position]
        return shapes.num_bytes(value) if any(True for _ in argument.uses) else Size()
    if name == _SCATTER and position == len(op.operands) - 1:
        return Size()
    if name == _GATHER and position != 1:
        return shapes.num_bytes(op.results[0]) if position == 0 else Size()
    if name.startswith("iree_linalg_ext.") and position >= len(op.operands) - len(op.results):
        return Size()  # a result's initial values, which are made in the dispatch
    return shapes.num_bytes(value)


def _extracted(op: Operation, shapes: Shapes) -> Size:
    """How many different elements a `tensor.extract` in the body of a structured operation can read."""
    parent = op.parent.operation
    loops = set().union(*(_loops_behind(index, parent) for index in list(op.operands)[1:]), set())
    if parent.name != "linalg.generic":
        return product([])
    sizes = shapes.loops(parent)
    return product(sizes[i] for i in sorted(loops))


def _loops_behind(value: Value, generic: Operation) -> set[int]:
    """Loops of `generic` that a value in its body depends on."""
    op = defining_op(value)
    if op is None:
        maps = indexing_maps(generic)
        if maps is None or value.owner != generic.regions[0].blocks[0]:
            return set()
        return {dim for dim in map_dims(maps[value.arg_number]) if dim is not None}
    if op.name == "linalg.index":
        return {int(str(op.attributes["dim"]).split(":")[0])}
    operands = list(op.operands)[1:] if op.name == "tensor.extract" else op.operands
    return set().union(*(_loops_behind(operand, generic) for operand in operands), set())


def written_bytes(store: Operation, shapes: Shapes) -> Size:
    """Bytes that an `iree_tensor_ext.dispatch.tensor.store` writes.

    Raises:
        UnknownSizeError: If a size is no linear form of the page counts.
    """
    value = operand_groups(store)[0][0]
    op = defining_op(value)
    while op is not None and op.name in _VIEWS - {"tensor.extract_slice"}:
        value = op.operands[0]
        op = defining_op(value)
    if op is not None and op.name == _SCATTER:
        return shapes.num_bytes(op.operands[0])
    if op is not None and op.name == "tensor.insert_slice" and _is_loaded(op.operands[1]):
        return shapes.num_bytes(op.operands[0])
    return shapes.num_bytes(value)


def _is_loaded(value: Value) -> bool:
    op = defining_op(value)
    return op is not None and op.name == "iree_tensor_ext.dispatch.tensor.load"
