"""Verify that no copy, fill or allocation has a size that depends on the KV pool.

The time and memory of a step must not grow with the pool. The pools are the arguments of an entry point that it also
returns; their one dynamic size is the number of pages, read from the buffer at run time. Every value computed from it
is followed, and a copy, fill or allocation of such a size is an error: the program would copy the cache in each step.

Before::

    util.func public @step(%rows: !hal.buffer_view, %table: !hal.buffer_view, %start: !hal.buffer_view, %valid: !hal.buffer_view, %pool: !hal.buffer_view) -> !hal.buffer_view attributes {iree.abi.stub} {
      %c0 = arith.constant 0 : index
      %c64 = arith.constant 64 : index
      %n = hal.buffer_view.dim<%pool : !hal.buffer_view>[0] : index
      %size = arith.muli %n, %c64 : index
      %0 = stream.tensor.import %rows : !hal.buffer_view -> tensor<16xf32> in !stream.resource<external>{%c64}
      %1 = stream.tensor.import %pool : !hal.buffer_view -> tensor<?x16xf32>{%n} in !stream.resource<external>{%size}
      %2 = stream.cmd.execute with(%0 as %from: !stream.resource<external>{%c64}, %1 as %to: !stream.resource<external>{%size}) {
        stream.cmd.copy %from[%c0], %to[%c64], %c64 : !stream.resource<external>{%c64} -> !stream.resource<external>{%size}
      } => !stream.timepoint
      %3 = stream.timepoint.await %2 => %1 : !stream.resource<external>{%size}
      %4 = stream.tensor.export %3 : tensor<?x16xf32>{%n} in !stream.resource<external>{%size} -> !hal.buffer_view
      util.return %4 : !hal.buffer_view
    }

After (nothing changes): the same program. It copies one row into the pool; with `%size` as the length of the copy, it
would be refused.

Leaves alone: dispatches (they receive the size to bound indices), sizes that depend on the page table.
Source: product rule "the time of a step must not depend on the size of the pool".
"""  # noqa: E501 - types of the stream dialect cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, PassError, Refusal
from amdnfs_passes.ir import Module, Operation, Value, symbol_name, walk

_SIZE_OPERAND = {
    "stream.cmd.copy": -1,
    "stream.cmd.fill": 3,
    "stream.resource.alloc": 0,
    "stream.resource.alloca": 0,
}
"""Which operand of an operation is the size it costs (others are the sizes of the buffers it works within)."""

_WHOLE = "stream.async."
"""Operations that should be gone by now; any size in them counts."""

_NOT_FOLLOWED = ("hal.", "stream.", "util.call", "util.return")


@dataclass(frozen=True, kw_only=True)
class VerifyPoolInPlacePass(ModulePass):
    """Refuses programs that copy or allocate in proportion to a pool."""

    first_pool_argument: int = 4
    """Index of an entry point's first pool argument; all later arguments are pools."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """Checks; never rewrites.

        Raises:
            PassError: Naming the entry point and the first operation whose size depends on the pool.
        """
        for operation in [child.operation for child in module.body.operations]:
            if operation.name == "util.func" and _is_entry(operation):
                self._check(operation)
        return 0

    def _check(self, function: Operation) -> None:
        arguments = list(function.regions[0].blocks[0].arguments)
        pools = arguments[self.first_pool_argument :]
        tainted = _Tainted()
        for op in walk(function):
            if op.name == "hal.buffer_view.dim" and any(op.operands[0] == pool for pool in pools):
                tainted.add(op.results[0])
        while _spread(function, tainted):
            pass
        for op in walk(function):
            if any(value in tainted for value in _sizes(op)):
                raise PassError(
                    f"pass verify-pool-in-place: entry point @{symbol_name(function)}: {op.name} has a size that "
                    f"depends on the KV pool, so every step would cost time or memory in proportion to it\n"
                    f"  {str(op).splitlines()[0].strip()[:200]}"
                )


class _Tainted:
    """A set of values (they are not hashable by identity across wrappers, so they are kept by printed identity)."""

    def __init__(self) -> None:
        self._values: set[int] = set()
        self._keep: list[Value] = []

    def add(self, value: Value) -> bool:
        key = hash(value)
        if key in self._values:
            return False
        self._values.add(key)
        self._keep.append(value)
        return True

    def __contains__(self, value: Value) -> bool:
        return hash(value) in self._values


def _sizes(op: Operation) -> list[Value]:
    if op.name in _SIZE_OPERAND:
        return [op.operands[_SIZE_OPERAND[op.name]]]
    return list(op.operands) if op.name.startswith(_WHOLE) else []


def _is_entry(function: Operation) -> bool:
    return "iree.abi.stub" in function.attributes


def _spread(function: Operation, tainted: _Tainted) -> bool:
    grew = False
    for op in walk(function):
        if op.name.startswith(_NOT_FOLLOWED) or not any(value in tainted for value in op.operands):
            continue
        for result in op.results:
            grew |= tainted.add(result)
    return grew
