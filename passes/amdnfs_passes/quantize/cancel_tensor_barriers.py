"""Cancel barriers on tensors once IREE has formed its dispatches.

Quantised layers put a barrier on a weight, so that the cast of its bytes is not hoisted, and on a padded result, so
that the padding is not folded away. Both are done for once there are dispatches. A barrier that stays cuts a step into
several command buffers.

Before::

    util.func public @f(%w: tensor<4x8xi8>) -> tensor<4x16xi4> {
      %0 = util.optimization_barrier %w : tensor<4x8xi8>
      %1 = flow.tensor.bitcast %0 : tensor<4x8xi8> -> tensor<4x16xi4>
      util.return %1 : tensor<4x16xi4>
    }

After::

    util.func public @f(%w: tensor<4x8xi8>) -> tensor<4x16xi4> {
      %0 = flow.tensor.bitcast %w : tensor<4x8xi8> -> tensor<4x16xi4>
      util.return %0 : tensor<4x16xi4>
    }

Leaves alone: barriers on sizes, which hold for the phases to come.
Source: stream dialect of IREE 3.13.0: with a barrier on each weight, seven more `stream.cmd.execute` a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, walk

_BARRIER = "util.optimization_barrier"


@dataclass(frozen=True, kw_only=True)
class CancelTensorBarriersPass(ModulePass):
    """Removes barriers on tensors."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if op.name != _BARRIER or not all(str(value.type).startswith("tensor<") for value in op.operands):
                continue
            for result, operand in zip(op.results, op.operands, strict=True):
                result.replace_all_uses_with(operand)
            op.erase()
            rewrites += 1
        return rewrites
