"""Fold the calls of layer functions into the entry points, once the layers have been cut into dispatches.

Layers that are alike are one function until IREE has formed its dispatches, so each kernel is compiled once. Were the
calls still there when IREE plans memory, every call would copy its weights and its pool: across a call they may be
read by somebody else. Folded, all layers are in one command buffer and the pools are updated in place.

Before::

    util.func private @layer(%x: tensor<4xf32>) -> tensor<4xf32> attributes {inlining_policy = #util.inline.never} {
      %0 = flow.tensor.clone %x : tensor<4xf32>
      util.return %0 : tensor<4xf32>
    }
    util.func public @step(%x: tensor<4xf32>) -> tensor<4xf32> {
      %0 = util.call @layer(%x) : (tensor<4xf32>) -> tensor<4xf32>
      %1 = util.call @layer(%0) : (tensor<4xf32>) -> tensor<4xf32>
      util.return %1 : tensor<4xf32>
    }

After::

    util.func public @step(%x: tensor<4xf32>) -> tensor<4xf32> {
      %0 = flow.tensor.clone %x : tensor<4xf32>
      %1 = flow.tensor.clone %0 : tensor<4xf32>
      util.return %1 : tensor<4xf32>
    }

Leaves alone: public functions, imported functions, functions nobody calls.
Source: stream dialect of IREE 3.13.0, two calls of one layer: two `stream.cmd.copy` of the pool with the calls, none
without.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, PassManager, walk

_NEVER = "#util.inline.never"


@dataclass(frozen=True, kw_only=True)
class FoldLayerCallsPass(ModulePass):
    """Inlines private functions that were kept apart, and drops them."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        kept_apart: set[str] = set()
        for operation in [child.operation for child in module.body.operations]:
            if operation.name != "util.func" or "sym_visibility" not in operation.attributes:
                continue
            if str(operation.attributes["sym_visibility"]) != '"private"':
                continue
            if "inlining_policy" in operation.attributes and str(operation.attributes["inlining_policy"]) == _NEVER:
                del operation.attributes["inlining_policy"]
                kept_apart.add("@" + str(operation.attributes["sym_name"]).strip('"'))
        if not kept_apart:
            return 0
        calls = sum(
            op.name == "util.call" and str(op.attributes["callee"]).replace('"', "") in kept_apart
            for op in walk(module.operation)
        )
        PassManager.parse("builtin.module(inline,symbol-dce)").run(module.operation)
        return calls
