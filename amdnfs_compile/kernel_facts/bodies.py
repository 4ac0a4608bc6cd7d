"""What one dispatch does: kind, contractions, bytes by argument, and habits that cost time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op, walk

from amdnfs_compile.kernel_facts.contractions import CASTS, Contraction, find_contraction
from amdnfs_compile.kernel_facts.loops import Loops
from amdnfs_compile.kernel_facts.shapes import Shapes, element_bits, operand_groups
from amdnfs_compile.kernel_facts.sizes import Size, UnknownSizeError, number, smaller
from amdnfs_compile.kernel_facts.traffic import argument_of, read_bytes, written_bytes
from amdnfs_compile.kernel_facts.vector_sums import VECTOR_LOOPS, find_vector_sums, whole_shape

_LOAD, _STORE = "iree_tensor_ext.dispatch.tensor.load", "iree_tensor_ext.dispatch.tensor.store"
_SCALING = {"arith.mulf", "arith.subf", "arith.addf", "arith.muli", "arith.subi", "arith.addi"}


@dataclass(kw_only=True, slots=True)
class BodyFacts:
    """Facts of a dispatch for one set of sizes."""

    kind: str = "elementwise"
    """`attention`, `matmul`, `scatter`, `gather`, `reduction`, `elementwise`, `copy`; or what a kernel of ours does."""
    contractions: list[Contraction] = field(default_factory=list)
    """Products of tensors in it."""
    reads: dict[int, Size] = field(default_factory=dict)
    """Bytes read, by position of the argument."""
    written: Size = field(default_factory=Size)
    """Bytes written."""
    moved: Size | None = None
    """Bytes read and written together, where only that is known."""
    habits: list[str] = field(default_factory=list)
    """What costs time: `mask`, `upcast f16 to f32`."""
    unknown: list[str] = field(default_factory=list)
    """Parts that could not be counted, and why; the figures leave them out."""


def read_body(function: Operation, arguments: Mapping[int, Size]) -> BodyFacts:
    """Facts of a dispatch function.

    Args:
        function: The `func.func`.
        arguments: Values of its index arguments by position.
    """
    facts = BodyFacts()
    shapes, loops = Shapes(arguments), Loops(function)
    operations = list(walk(function))
    for op in operations:
        if op.name == _LOAD:
            _count(facts, op.name, partial(_add_load, facts, op, shapes, loops))
        elif op.name == _STORE:
            _count(facts, op.name, partial(_add_store, facts, op, shapes, loops))
        elif op.name.startswith(("linalg.", "iree_linalg_ext.")):
            _count(facts, op.name, partial(_add_contraction, facts, op, shapes, loops))
    _count(facts, "loops", lambda: facts.contractions.extend(find_vector_sums(operations, loops)))
    _refuse_other_loops(facts, operations)
    facts.kind = _kind(facts, operations)
    if not facts.contractions:
        facts.habits += _habits(operations)
    return facts


def _count(facts: BodyFacts, name: str, add: Callable[[], None]) -> None:
    try:
        add()
    except UnknownSizeError as error:
        facts.unknown.append(f"{name}: {error}")


def _refuse_other_loops(facts: BodyFacts, operations: Sequence[Operation]) -> None:
    """Notes loops that hold work of a kind that nothing here counts: no linalg, and no sums of products in vectors."""
    has_sums = any(item.operation == VECTOR_LOOPS for item in facts.contractions)
    has_linalg = any(op.name.startswith(("linalg.", "iree_linalg_ext.")) for op in operations)
    for name in sorted({op.name for op in operations if op.name.startswith("scf.") and len(op.regions) > 0}):
        if not facts.unknown and not has_sums and not has_linalg:
            facts.unknown.append(f"{name}: the arithmetic in it")


def _add_load(facts: BodyFacts, op: Operation, shapes: Shapes, loops: Loops) -> None:
    position = argument_of(op.operands[0])
    if position is None:
        raise UnknownSizeError("what it loads from")
    size = _all_parts(op, read_bytes(op.results[0], shapes), op.operands[0], operand_groups(op)[2], loops)
    size.as_json()  # refuses what depends on the size of a pool
    facts.reads[position] = facts.reads.get(position, Size()) + size


def _add_store(facts: BodyFacts, op: Operation, shapes: Shapes, loops: Loops) -> None:
    groups = operand_groups(op)
    size = _all_parts(op, written_bytes(op, shapes), groups[1][0], groups[3], loops)
    size.as_json()
    facts.written = facts.written + size


def _all_parts(op: Operation, part: Size, reference: Value, offsets: Sequence[Value], loops: Loops) -> Size:
    """Bytes of all the parts that a load or store takes, in all workgroups and loops; each element once.

    Args:
        op: The load or store.
        part: Bytes of what it takes at a time.
        reference: The dispatch's operand that it takes it from.
        offsets: Where it takes it; a part that is always at the same place counts once.
        loops: Those of the dispatch.
    """
    if not loops.varies(offsets):
        return part
    whole, parts = whole_shape(reference), part.times(loops.times(op))
    if whole is None:
        return parts
    kind: Any = op.results[0].type if len(op.results) else op.operands[0].type
    return smaller(parts, number(math.prod(whole) * element_bits(kind.element_type) / 8))


def _add_contraction(facts: BodyFacts, op: Operation, shapes: Shapes, loops: Loops) -> None:
    contraction = find_contraction(op, shapes)
    if contraction is not None:
        facts.contractions.append(replace(contraction, flops=contraction.flops.times(loops.times(op))))


def _kind(facts: BodyFacts, operations: list[Operation]) -> str:
    names = {op.name for op in operations}
    if any(item.operation.endswith("attention") for item in facts.contractions):
        return "attention"
    if facts.contractions:
        return "matmul"
    if "iree_linalg_ext.scatter" in names:
        return "scatter"
    if "iree_linalg_ext.gather" in names or any(_is_indirect(op) for op in operations):
        return "gather"
    if any("reduction" in str(op.attributes["iterator_types"]) for op in operations if op.name == "linalg.generic"):
        return "reduction"
    has_work = any(name.startswith(("linalg.", "iree_linalg_ext.", "scf.")) for name in names - {"linalg.fill"})
    return "elementwise" if has_work else "copy"


def _is_indirect(op: Operation) -> bool:
    """Whether `op` reads an element whose place is data: an index from a tensor."""
    return op.name == "tensor.extract" and any(_is_data(index) for index in list(op.operands)[1:])


def _is_data(value: Value) -> bool:
    op = defining_op(value)
    if op is None:
        return "index" not in str(value.type)  # an element of an operand of the surrounding operation
    return op.name == "tensor.extract" or any(_is_data(operand) for operand in op.operands)


def _habits(operations: list[Operation]) -> list[str]:
    """Habits of a dispatch without a contraction."""
    found = []
    for op in operations:
        if op.name != _STORE:
            continue
        maker = defining_op(operand_groups(op)[0][0])
        if maker is None or maker.name != "linalg.generic":
            continue
        if _is_mask(maker):
            found.append("mask")
        upcast = _upcast(maker)
        if upcast is not None:
            found.append(upcast)
    return sorted(set(found))


def _is_mask(generic: Operation) -> bool:
    """Whether a generic makes a tensor of truth values, or of two constants chosen by position."""
    kind: Any = generic.results[0].type
    if kind.rank < 2:
        return False
    if str(kind.element_type) == "i1":
        return True
    chosen = _yielded(generic)
    if chosen is None or chosen.name != "arith.select":
        return False
    makers = [defining_op(value) for value in list(chosen.operands)[1:]]
    return all(maker is not None and maker.name == "arith.constant" for maker in makers)


def _upcast(generic: Operation) -> str | None:
    """`upcast A to B` if a generic does nothing but turn elements into a wider type, scaled or not."""
    if "reduction" in str(generic.attributes["iterator_types"]) or len(generic.operands) < 2:
        return None
    names = [op.operation.name for op in generic.regions[0].blocks[0].operations][:-1]
    if not any(name in CASTS for name in names) or not all(name in CASTS | _SCALING for name in names):
        return None
    source: Any = generic.operands[0].type
    result: Any = generic.results[0].type
    if not hasattr(source, "element_type") or source.rank < 2:
        return None
    if element_bits(source.element_type) >= element_bits(result.element_type):
        return None
    return f"upcast {source.element_type} to {result.element_type}"


def _yielded(generic: Operation) -> Operation | None:
    last = list(generic.regions[0].blocks[0].operations)[-1].operation
    return defining_op(last.operands[0]) if len(last.operands) == 1 else None
