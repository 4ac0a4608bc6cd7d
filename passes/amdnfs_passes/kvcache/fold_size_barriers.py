"""Fold the size barriers of all layers into one at the top of each entry point.

`lower-paged-attention` hides behind a barrier that the number of key positions is a multiple of the page. Once the
layers are folded, every layer has such a barrier on the same number, and each one cuts the step in two: IREE makes a
command buffer a layer instead of one a step, and (3.13.0, `iree-stream-reuse-allocations`) takes time that doubles
with every layer to plan them.

Before::

    util.func public @step(%n: index) -> (index, index) {
      %c16 = arith.constant 16 : index
      %0 = arith.muli %n, %c16 : index
      %1 = util.optimization_barrier %0 : index
      %2 = arith.muli %n, %c16 : index
      %3 = util.optimization_barrier %2 : index
      util.return %1, %3 : index, index
    }

After::

    util.func public @step(%n: index) -> (index, index) {
      %c16 = arith.constant 16 : index
      %0 = arith.muli %n, %c16 : index
      %1 = util.optimization_barrier %0 : index
      util.return %1, %1 : index, index
    }

Leaves alone: barriers on tensors, a function's only barrier if it already stands behind its operand.
Source: stream dialect of IREE 3.13.0, 32 layers: 66 `stream.cmd.execute` for two entry points with a barrier a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, Value, defining_op, walk

_BARRIER = "util.optimization_barrier"


@dataclass(frozen=True, kw_only=True)
class FoldSizeBarriersPass(ModulePass):
    """Keeps one barrier on each size of a function."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        first: dict[tuple[object, ...], Operation] = {}
        for op in walk(module.operation):
            if not _is_size_barrier(op):
                continue
            known = first.setdefault((hash(op.parent), _same_size(op.operands[0])), op)
            if known is op:
                rewrites += _move_up(op)
                continue
            op.results[0].replace_all_uses_with(known.results[0])
            op.erase()
            rewrites += 1
        return rewrites


def _same_size(value: Value) -> object:
    """Equal for values that are computed alike: by the same arithmetic on the same values."""
    op = defining_op(value)
    if op is None or not op.name.startswith("arith."):
        return hash(value)
    attributes = tuple((name, str(op.attributes[name])) for name in op.attributes)
    return (op.name, attributes, tuple(_same_size(operand) for operand in op.operands))


def _is_size_barrier(op: Operation) -> bool:
    return op.name == _BARRIER and len(op.results) == 1 and str(op.results[0].type) == "index"


def _move_up(op: Operation) -> int:
    """Moves a barrier right behind the operation that makes its operand; 1 if it was elsewhere."""
    source = defining_op(op.operands[0])
    if source is None:
        return 0
    following = list(source.parent.regions[0].blocks[0].operations)
    position = next(index for index, item in enumerate(following) if item.operation == source)
    if following[position + 1].operation == op:
        return 0
    op.move_after(source)
    return 1
