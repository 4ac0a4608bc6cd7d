"""Allocate the working memory of a step once, when the program is loaded, and not in each call.

A call of a GPU program allocates memory for its results and its intermediate values, and gives the latter back: IREE's
drivers wait for the GPU to do so. Both have sizes that do not depend on the inputs. They become globals, as large as
the largest of the entry points needs, which share them: calls follow each other.

Before::

    util.func public @step(%x: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
      %c64 = arith.constant 64 : index
      %result, %ready = stream.resource.alloca uninitialized : !stream.resource<transient>{%c64} => !stream.timepoint
      %0 = stream.resource.dealloca await(%ready) => %result : !stream.resource<transient>{%c64} => !stream.timepoint
      %1 = stream.timepoint.await %0 => %result : !stream.resource<transient>{%c64}
      %2 = stream.tensor.export %1 : tensor<16xf32> in !stream.resource<transient>{%c64} -> !hal.buffer_view
      util.return %2 : !hal.buffer_view
    }

After::

    util.global private mutable @amdnfs.transient : !stream.resource<transient>
    util.initializer {
      %size = arith.constant 64 : index
      %memory = stream.resource.alloc uninitialized : !stream.resource<transient>{%size}
      util.global.store %memory, @amdnfs.transient : !stream.resource<transient>
      util.return
    }
    util.func public @step(%x: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
      %c64 = arith.constant 64 : index
      %result = util.global.load @amdnfs.transient : !stream.resource<transient>
      %ready = stream.timepoint.immediate => !stream.timepoint
      %1 = stream.timepoint.await %ready => %result : !stream.resource<transient>{%c64}
      %2 = stream.tensor.export %1 : tensor<16xf32> in !stream.resource<transient>{%c64} -> !hal.buffer_view
      util.return %2 : !hal.buffer_view
    }

So a result is good until the next call of any entry point of the program.
Leaves alone: sizes that are computed from inputs, functions that are no entry points, a second allocation of the same
lifetime in a function (the two would be one memory).
Source: an NVIDIA H200, decode of 1.1B: see benchmarks/README.md; `queue_alloca` and `queue_dealloca` of IREE's CUDA
driver wait on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import (
    Attribute,
    InsertionPoint,
    Module,
    Operation,
    Type,
    Value,
    defining_op,
    parse_module,
    symbol_name,
)

_LIFETIMES = {"!stream.resource<transient>": "amdnfs.transient", "!stream.resource<external>": "amdnfs.results"}
_TIMEPOINT = "!stream.timepoint"


@dataclass(frozen=True, kw_only=True)
class HoistAllocationsPass(ModulePass):
    """Makes globals of what the entry points allocate."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        known = {
            symbol_name(item.operation) for item in module.body.operations if "sym_name" in item.operation.attributes
        }
        if known.intersection(_LIFETIMES.values()):
            return 0  # it has been here before
        found: dict[str, list[Operation]] = {}
        for item in module.body.operations:
            if item.operation.name == "util.func" and "iree.abi.stub" in item.operation.attributes:
                for lifetime, op in self._allocations(item.operation, refusals).items():
                    found.setdefault(lifetime, []).append(op)
        for lifetime, allocations in found.items():
            size = max(_constant(op.operands[0]) or 0 for op in allocations)
            _add_global(module, lifetime, size, allocations[0])
            for op in allocations:
                _use_global(op, lifetime)
        return sum(map(len, found.values()))

    def _allocations(self, function: Operation, refusals: list[Refusal]) -> dict[str, Operation]:
        """One allocation of each lifetime in the function's entry block."""
        found: dict[str, Operation] = {}
        for item in function.regions[0].blocks[0].operations:
            op = item.operation
            lifetime = str(op.results[0].type) if op.name == "stream.resource.alloca" else ""
            if lifetime not in _LIFETIMES:
                continue
            if _constant(op.operands[0]) is None:
                self.refuse(refusals, op, "its size is computed from the inputs")
            elif lifetime in found:
                self.refuse(refusals, op, "the function has allocated memory of this lifetime before")
            else:
                found[lifetime] = op
        return found


def _add_global(module: Module, lifetime: str, size: int, like: Operation) -> None:
    affinity = f" on({like.attributes['affinity']})" if "affinity" in like.attributes else ""
    name = _LIFETIMES[lifetime]
    added = parse_module(
        f"""
        util.global private mutable @{name} : {lifetime}
        util.initializer {{
          %size = arith.constant {size} : index
          %memory = stream.resource.alloc uninitialized{affinity} : {lifetime}{{%size}}
          util.global.store %memory, @{name} : {lifetime}
          util.return
        }}
        """,
        module.context,
    )
    first = next(item.operation for item in module.body.operations if item.operation.name == "util.func")
    for item in added.body.operations:
        item.operation.clone(InsertionPoint(first))


def _use_global(op: Operation, lifetime: str) -> None:
    memory, ready = op.results
    with op.location, InsertionPoint(op):
        load = Operation.create(
            "util.global.load",
            results=[Type.parse(lifetime)],
            attributes={"global": Attribute.parse(f"@{_LIFETIMES[lifetime]}")},
        )
        # What the allocation waited for, those wait for that waited for the allocation.
        if len(op.operands) > 1:
            begin = op.operands[1]
        else:
            begin = Operation.create("stream.timepoint.immediate", results=[Type.parse(_TIMEPOINT)]).result
    for use in list(memory.uses):
        if use.owner.operation.name == "stream.resource.dealloca":
            free = use.owner.operation
            free.results[0].replace_all_uses_with(free.operands[2] if len(free.operands) > 2 else begin)
            free.erase()
    memory.replace_all_uses_with(load.result)
    ready.replace_all_uses_with(begin)
    op.erase()


def _constant(value: Value) -> int | None:
    op = defining_op(value)
    if op is None or op.name != "arith.constant":
        return None
    return int(str(op.attributes["value"]).split(":")[0])
