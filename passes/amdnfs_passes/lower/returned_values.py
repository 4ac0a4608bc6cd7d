"""Values that a program only returns, through however many calls, and what it takes to return another type."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.ir import Attribute, Module, Operation, Value, symbol_name, walk


@dataclass(frozen=True, kw_only=True, slots=True)
class ReturnedValue:
    """Where a value is returned."""

    value: Value
    """The value."""
    returns: tuple[Operation, ...]
    """`func.return` operations that hold it, or what a call made of it."""
    calls: tuple[Value, ...]
    """Results of calls that are the value."""

    @property
    def public_functions(self) -> list[Operation]:
        """The public functions that return it."""
        functions = [op.parent.operation for op in self.returns if op.parent is not None]
        return [op for op in functions if "sym_visibility" not in op.attributes]

    def replace(self, new: Value) -> None:
        """Returns `new` instead, which may have another type; the functions and calls take that type."""
        self.value.replace_all_uses_with(new)
        for result in self.calls:
            result.set_type(new.type)
        for op in self.returns:
            assert op.parent is not None
            function = op.parent.operation
            inputs = ", ".join(str(argument.type) for argument in function.regions[0].blocks[0].arguments)
            outputs = ", ".join(str(operand.type) for operand in op.operands)
            function.attributes["function_type"] = Attribute.parse(f"({inputs}) -> ({outputs})", function.context)


def find_returned(module: Module, value: Value) -> ReturnedValue | str:
    """Where `value` is returned; why it cannot be told, if it is used for something else.

    Args:
        module: The module, with all calls of its functions.
        value: A result of an operation.
    """
    calls = [op for op in walk(module.operation) if op.name == "func.call"]
    returns: list[Operation] = []
    results: list[Value] = []
    waiting = [value]
    while waiting:
        item = waiting.pop()
        for use in item.uses:
            user = use.owner.operation
            if user.name != "func.return":
                return f"the value is not only returned, but used by {user.name}"
            if user in returns:
                return "the value is returned twice"
            returns.append(user)
            assert user.parent is not None
            callee = f"@{symbol_name(user.parent.operation)}"
            found = [call.results[use.operand_number] for call in calls if str(call.attributes["callee"]) == callee]
            results += found
            waiting += found
    if not returns:
        return "the value is not returned"
    return ReturnedValue(value=value, returns=tuple(returns), calls=tuple(results))
