"""How often an operation inside a dispatch runs: the trip counts of the loops around it, times the workgroups.

Most dispatches say what all workgroups do together, in operations of linalg. Those that a pass of ours writes in
vectors say what one workgroup does, in `scf.for`. Only counts that are known before the program runs are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from amdnfs_passes.ir import Operation, Value, defining_op, symbol_name, walk

from amdnfs_compile.kernel_facts.sizes import UnknownSizeError

_WORKGROUP_ID = "flow.dispatch.workgroup.id"
_MOST_STEPS = 100_000
"""Loops whose length depends on other loops are gone through step by step, up to so many."""
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.divui": lambda a, b: a // b,
    "arith.minui": min,
    "arith.minsi": min,
    "arith.maxui": max,
    "arith.maxsi": max,
}


class Loops:
    """The loops of one dispatch function."""

    def __init__(self, function: Operation) -> None:
        """Takes the `func.func` of the dispatch, in its executable."""
        self._function = function
        self._is_of_a_workgroup = any(op.name == _WORKGROUP_ID for op in walk(function))

    def times(self, op: Operation) -> int:
        """How often `op` runs in one dispatch, over all workgroups if the function says what one of them does.

        Raises:
            UnknownSizeError: If that depends on data, on an argument, or on the workgroup.
        """
        return self._workgroups() * _count(_around(op), {}, [_MOST_STEPS])

    def varies(self, values: Sequence[Value]) -> bool:
        """Whether one of some index values is another one in another workgroup or another step of a loop."""
        return any(_varies(value) for value in values)

    def _workgroups(self) -> int:
        """Workgroups of a dispatch; 1 if the function says what all of them do together."""
        if not self._is_of_a_workgroup:
            return 1
        executable = self._function.parent.operation.parent.operation
        name = symbol_name(self._function)
        for op in walk(executable):
            if op.name == "flow.executable.export" and str(op.attributes["function_ref"]).strip('@"') == name:
                last = list(op.regions[0].blocks[0].operations)[-1].operation
                return math.prod(_number(value, {}) for value in last.operands)
        raise UnknownSizeError("the number of its workgroups")


def _around(op: Operation) -> list[Operation]:
    """The loops around `op`, the outermost first.

    Raises:
        UnknownSizeError: If something else decides how often it runs.
    """
    found: list[Operation] = []
    parent = op.parent.operation
    while parent.name != "func.func":
        if parent.name.startswith("scf.") and parent.name != "scf.for":
            raise UnknownSizeError(f"how often the body of {parent.name} runs")
        if parent.name == "scf.for":
            found.insert(0, parent)
        parent = parent.parent.operation
    return found


def _count(loops: Sequence[Operation], known: dict[Value, int], budget: list[int]) -> int:
    """Steps of the innermost of nested loops.

    Args:
        loops: The outermost first.
        known: Values of the induction variables of the loops around them.
        budget: One number: loops that may still be entered.
    """
    if not loops:
        return 1
    budget[0] -= 1
    if budget[0] < 0:
        raise UnknownSizeError("loops of too many different lengths")
    begin, end, step = (_number(value, known) for value in list(loops[0].operands)[:3])
    if step < 1:
        raise UnknownSizeError(f"a loop with a step of {step}")
    steps = range(begin, end, step)
    index = loops[0].regions[0].blocks[0].arguments[0]
    if not steps:
        return 0
    if not any(_depends(value, index) for loop in loops[1:] for value in list(loop.operands)[:3]):
        return len(steps) * _count(loops[1:], {**known, index: begin}, budget)
    return sum(_count(loops[1:], {**known, index: at}, budget) for at in steps)


def _number(value: Value, known: dict[Value, int]) -> int:
    """An index, given the induction variables.

    Raises:
        UnknownSizeError: If it is not known before the program runs.
    """
    if value in known:
        return known[value]
    op = defining_op(value)
    if op is None:
        raise UnknownSizeError("the length of a loop, which an argument says")
    if op.name == "arith.constant":
        return int(str(op.attributes["value"]).split(":")[0])
    if op.name == "arith.index_cast":
        return _number(op.operands[0], known)
    if op.name not in _ARITHMETIC:
        raise UnknownSizeError(f"the length of a loop, which is the result of {op.name}")
    first, second = (_number(operand, known) for operand in op.operands)
    if op.name == "arith.divui" and not second:
        raise UnknownSizeError("the length of a loop, which is divided by 0")
    return _ARITHMETIC[op.name](first, second)


def _depends(value: Value, on: Value) -> bool:
    if value == on:
        return True
    op = defining_op(value)
    return op is not None and any(_depends(operand, on) for operand in op.operands)


def _varies(value: Value) -> bool:
    op = defining_op(value)
    if op is None:
        return str(value.owner.owner.operation.name).startswith("scf.")
    return op.name == _WORKGROUP_ID or any(_varies(operand) for operand in op.operands)
