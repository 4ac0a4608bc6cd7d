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

Leaves alone: public functions, imported functions, modules without such calls. Private functions that nobody calls any
more are dropped.
Source: stream dialect of IREE 3.13.0, two calls of one layer: two `stream.cmd.copy` of the pool with the calls, none
without.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, PassManager, symbol_name, walk

_NEVER = "#util.inline.never"


@dataclass(frozen=True, kw_only=True)
class FoldLayerCallsPass(ModulePass):
    """Inlines private functions that were kept apart, and drops them."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        kept_apart = {symbol_name(op): op for op in _functions(module) if _is_kept_apart(op)}
        callees = [_callee(op) for op in walk(module.operation) if op.name == "util.call"]
        called = [name for name in callees if name in kept_apart]
        if not called:
            return 0
        for name in set(called):
            del kept_apart[name].attributes["inlining_policy"]
        PassManager.parse("builtin.module(inline,symbol-dce)").run(module.operation)
        return len(called)


def _functions(module: Module) -> list[Operation]:
    return [child.operation for child in module.body.operations if child.operation.name == "util.func"]


def _is_kept_apart(function: Operation) -> bool:
    attributes = function.attributes
    if "sym_visibility" not in attributes or str(attributes["sym_visibility"]) != '"private"':
        return False
    has_body = len(function.regions[0].blocks) > 0
    return has_body and "inlining_policy" in attributes and str(attributes["inlining_policy"]) == _NEVER


def _callee(call: Operation) -> str:
    return str(call.attributes["callee"]).removeprefix("@").strip('"')
