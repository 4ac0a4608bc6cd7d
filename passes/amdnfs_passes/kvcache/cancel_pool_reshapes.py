"""Cancel the reshapes around a dispatch that updates a pool in place.

When IREE forms dispatches it may give the scatter into a pool another view of it (say, head dim 16 as 2 x 8): a
reshape in front of the dispatch and one behind it. Both are free in memory, but IREE 3.13.0's copy elision misses the
second of two such reshapes in a row, and copies every other pool whole in each step. The dispatch sees a flat buffer
either way, so it can take and return the pool under its own type.

Before::

    util.func public @f(%pool: tensor<?x16xf32>, %n: index) -> tensor<?x16xf32> {
      %0 = flow.tensor.reshape %pool : tensor<?x16xf32>{%n} -> tensor<?x2x8xf32>{%n}
      %1 = flow.dispatch @ex::@scatter(%0) : (tensor<?x2x8xf32>{%n}) -> %0{%n}
      %2 = flow.tensor.reshape %1 : tensor<?x2x8xf32>{%n} -> tensor<?x16xf32>{%n}
      util.return %2 : tensor<?x16xf32>
    }

After::

    util.func public @f(%pool: tensor<?x16xf32>, %n: index) -> tensor<?x16xf32> {
      %0 = flow.dispatch @ex::@scatter(%pool) : (tensor<?x16xf32>{%n}) -> %pool{%n}
      util.return %0 : tensor<?x16xf32>
    }

Leaves alone: dispatches that do not write in place; updated pools that are read under a third type, and reshapes that
change a dynamic size (both refused).
Source: stream dialect of IREE 3.13.0, four layers: `stream.cmd.copy` of two of the four pools without this pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import InsertionPoint, Module, Operation, Value, defining_op, walk

_RESHAPE = "flow.tensor.reshape"


@dataclass(frozen=True, kw_only=True, slots=True)
class _InPlace:
    """A dispatch with one result, tied to an operand that is a reshape of the pool."""

    operand_index: int
    pool: Value
    reshapes_back: list[Operation]


@dataclass(frozen=True, kw_only=True)
class CancelPoolReshapesPass(ModulePass):
    """Lets in-place dispatches take the pool under its own type."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        # Collected first: a rewrite erases reshapes that a walk would still come to.
        for op in [op for op in walk(module.operation) if _is_in_place(op)]:
            found = _match(op)
            while isinstance(found, _InPlace):
                op = _rewrite(op, found)  # the new dispatch may stand between reshapes again
                rewrites += 1
                found = _match(op)
            if found is not None:
                self.refuse(refusals, op, found)
        return rewrites


def _is_in_place(op: Operation) -> bool:
    return op.name == "flow.dispatch" and len(op.results) == 1 and "tied_operands" in op.attributes


def _segments(op: Operation) -> list[int]:
    return [int(size) for size in str(op.attributes["operandSegmentSizes"]).split(":")[1].strip(" >").split(",")]


def _match(op: Operation) -> _InPlace | str | None:
    tied = int(str(op.attributes["tied_operands"]).split("[")[1].split(":")[0].split("]")[0])
    if tied < 0:
        return None
    # Operands: workload, arguments, argument sizes, result sizes; the tied index counts from the first argument.
    index = _segments(op)[0] + tied
    reshape = defining_op(op.operands[index])
    if reshape is None or reshape.name != _RESHAPE:
        return None
    pool = reshape.operands[0]
    backs = [use.owner.operation for use in op.results[0].uses]
    if not all(back.name == _RESHAPE and back.results[0].type == pool.type for back in backs):
        return "the updated pool is read under a type that is neither the dispatch's nor the pool's own"
    num_sizes = str(pool.type).count("?")
    sizes = list(reshape.operands)[1:]
    if sizes[:num_sizes] != sizes[num_sizes:]:
        return "the reshape changes a dynamic size"
    return _InPlace(operand_index=index, pool=pool, reshapes_back=backs)


def _rewrite(op: Operation, found: _InPlace) -> Operation:
    operands = list(op.operands)
    operands[found.operand_index] = found.pool
    with op.location, InsertionPoint(op):
        new = Operation.create(
            op.name,
            results=[found.pool.type],
            operands=operands,
            attributes={name: op.attributes[name] for name in op.attributes},
        )
    for back in found.reshapes_back:
        back.results[0].replace_all_uses_with(new.result)
        back.erase()
    op.erase()
    return new
