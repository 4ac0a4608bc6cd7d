"""Private functions written as MLIR text, and calls to them from torch-dialect code.

A lowering pass describes what an operation means once, as text with the shapes filled in; every operation of the same
shape calls the same function, and IREE inlines the calls before it forms dispatches.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from amdnfs_passes.ir import Attribute, InsertionPoint, Location, Module, Operation, Type, Value, symbol_name

_VTENSOR = re.compile(r"!torch\.vtensor<\[([0-9?,]*)\],\s*([a-z0-9]+)>")


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorType:
    """A ranked tensor type of the torch dialect."""

    shape: tuple[int | None, ...]
    """Sizes; None where dynamic."""
    element: str
    """Element type as torch writes it: `f16`, `bf16`, `f32`, `si64`, `i1`."""

    @property
    def builtin_element(self) -> str:
        """Element type as builtin MLIR writes it (signless integers)."""
        return self.element.removeprefix("s") if self.element.startswith("si") else self.element

    @property
    def builtin(self) -> str:
        """The same type as a builtin tensor, e.g. `tensor<1x?x64xf16>`."""
        sizes = "".join(f"{'?' if size is None else size}x" for size in self.shape)
        return f"tensor<{sizes}{self.builtin_element}>"

    @property
    def is_static(self) -> bool:
        """Whether every size is known."""
        return None not in self.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of a static type.

        Raises:
            ValueError: If a size is dynamic.
        """
        if not self.is_static:
            raise ValueError(f"dynamic type {self.builtin}")
        return tuple(size for size in self.shape if size is not None)


def tensor_type(value: Value) -> TensorType | None:
    """The tensor type of a torch-dialect value; None if it has another type."""
    text = str(value.type)
    return parse_tensor_type(text) if _VTENSOR.fullmatch(text) else None


def parse_tensor_type(text: str) -> TensorType:
    """The tensor type that `text` spells in the torch dialect.

    Raises:
        ValueError: If it spells something else.

    >>> parse_tensor_type("!torch.vtensor<[?,4],si32>").builtin
    'tensor<?x4xi32>'
    """
    match = _VTENSOR.fullmatch(text)
    if match is None:
        raise ValueError(f"not a torch tensor type: {text}")
    shape = tuple(None if size == "?" else int(size) for size in match[1].split(",") if size)
    return TensorType(shape=shape, element=match[2])


def call_function(
    module: Module, op: Operation, function_name: str, function_text: str, operands: Sequence[Value]
) -> None:
    """Replaces `op` by a call of the private function `function_name`.

    Args:
        module: The module; the function is added to it if it is not there yet.
        op: The torch-dialect operation to replace; all its results are tensors.
        function_name: Symbol of the function.
        function_text: `func.func private @function_name(...)` on builtin tensors, with any attribute aliases and
            further symbols it needs.
        operands: Torch-dialect tensors, in the order of the function's arguments.
    """
    results = insert_call(module, op, function_name, function_text, operands, [r.type for r in op.results])
    for old, new in zip(op.results, results, strict=True):
        old.replace_all_uses_with(new)
    op.erase()


def insert_call(
    module: Module,
    before: Operation,
    function_name: str,
    function_text: str,
    operands: Sequence[Value],
    result_types: Sequence[Type],
) -> list[Value]:
    """Inserts a call of the private function `function_name` before an operation; else as `call_function`.

    Args:
        module: The module.
        before: Where the call goes.
        function_name: Symbol of the function.
        function_text: Its text, with whatever else it needs.
        operands: Torch-dialect tensors.
        result_types: Torch-dialect tensor types of the results.

    Returns:
        The results, as torch-dialect tensors.
    """
    _declare(module, function_name, function_text)
    with before.location, InsertionPoint(before):
        builtin_operands = []
        for operand in operands:
            kind = tensor_type(operand)
            assert kind is not None
            builtin_operands.append(
                Operation.create(
                    "torch_c.to_builtin_tensor", results=[Type.parse(kind.builtin)], operands=[operand]
                ).result
            )
        call = Operation.create(
            "func.call",
            results=[Type.parse(parse_tensor_type(str(kind)).builtin) for kind in result_types],
            operands=builtin_operands,
            attributes={"callee": Attribute.parse(f"@{_quoted(function_name)}")},
        )
        return [
            Operation.create("torch_c.from_builtin_tensor", results=[kind], operands=[new]).result
            for kind, new in zip(result_types, call.results, strict=True)
        ]


def _quoted(name: str) -> str:
    return f'"{name}"'


def _declare(module: Module, name: str, text: str) -> None:
    body = module.body
    known = {symbol_name(op.operation) for op in body.operations if "sym_name" in op.operation.attributes}
    if name in known:
        return
    template = Module.parse(text, module.context)
    with Location.unknown(module.context):
        for op in template.body.operations:
            # Functions of other shapes may have brought the same kernel.
            if symbol_name(op.operation) not in known:
                op.operation.clone(ip=InsertionPoint.at_block_begin(body))
