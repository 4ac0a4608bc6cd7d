"""The one import site of the compiler's MLIR bindings, and the few helpers every pass needs.

The bindings of IREE 3.13 have no Python classes for the `torch`, `iree_linalg_ext`, `flow` and `stream` dialects, so
operations are looked at through `Operation` and made with `Operation.create`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iree.compiler.ir import (
    Attribute,
    Block,
    BoolAttr,
    Context,
    DenseElementsAttr,
    FloatAttr,
    InsertionPoint,
    IntegerAttr,
    Location,
    MLIRError,
    Module,
    Operation,
    Type,
    Value,
)
from iree.compiler.passmanager import PassManager

__all__ = [
    "Attribute",
    "Block",
    "Context",
    "DenseElementsAttr",
    "InsertionPoint",
    "Location",
    "MLIRError",
    "Module",
    "Operation",
    "PassManager",
    "Type",
    "Value",
    "constant_bool",
    "constant_int",
    "constant_str",
    "defining_op",
    "erase_unused",
    "has_uses",
    "is_none",
    "list_elements",
    "operator_name",
    "parse_module",
    "splat_number",
    "symbol_name",
    "walk",
]

_MAX_INT64 = (1 << 63) - 1
_PURE = ("torch.aten.", "torch.prim.", "torch.prims.", "torch.constant.", "torch.operator")
"""Prefixes of operations without effects: an exported graph is functional."""


def parse_module(text: str | bytes, context: Context | None = None) -> Module:
    """Parses `text` (MLIR assembly or bytecode) in `context` or a fresh one.

    Raises:
        MLIRError: If the text does not parse or verify.
    """
    return Module.parse(text, context or Context())


def walk(op: Any) -> Iterator[Operation]:
    """Yields every operation inside `op`, innermost first; safe against erasing the yielded operation."""
    for region in op.regions:
        for block in region.blocks:
            for inner in list(block.operations):
                operation = inner.operation
                yield from walk(operation)
                yield operation


def defining_op(value: Value) -> Operation | None:
    """The operation that makes `value`; None for a block argument."""
    owner = value.owner
    return None if isinstance(owner, Block) else owner.operation


def has_uses(op: Operation) -> bool:
    """Whether any result of `op` is used."""
    return any(True for result in op.results for _ in result.uses)


def erase_unused(module: Module) -> None:
    """Erases torch operations whose results nothing uses; an exported graph is functional.

    Users stand behind what they use, so one walk from the back finds all of it, and touches nothing it has erased.
    """
    for op in reversed(list(walk(module.operation))):
        if op.name.startswith(_PURE) and len(op.results) > 0 and not has_uses(op):
            op.erase()


def symbol_name(op: Operation) -> str:
    """The symbol that `op` defines, without the `@`."""
    return str(op.attributes["sym_name"]).strip('"')


def operator_name(op: Operation) -> str | None:
    """The registered name of a `torch.operator`, e.g. `torch.amdnfs.rotary`; None for any other operation."""
    if op.name != "torch.operator":
        return None
    return str(op.attributes["name"]).strip('"')


def constant_int(value: Value) -> int | None:
    """The value of a `torch.constant.int`; None if `value` is something else."""
    op = defining_op(value)
    if op is None or op.name != "torch.constant.int":
        return None
    return int(str(op.attributes["value"]).split(":")[0])


def constant_bool(value: Value) -> bool | None:
    """The value of a `torch.constant.bool`; None if `value` is something else."""
    op = defining_op(value)
    if op is None or op.name != "torch.constant.bool":
        return None
    return str(op.attributes["value"]).startswith("true")


def constant_float(value: Value) -> float | None:
    """The value of a `torch.constant.float`; None if `value` is something else."""
    op = defining_op(value)
    if op is None or op.name != "torch.constant.float":
        return None
    return float(FloatAttr(op.attributes["value"]).value)


def constant_str(value: Value) -> str | None:
    """The value of a `torch.constant.str`; None if `value` is something else."""
    op = defining_op(value)
    if op is None or op.name != "torch.constant.str":
        return None
    return str(op.attributes["value"]).strip('"')


def is_none(value: Value) -> bool:
    """Whether `value` is a `torch.constant.none`."""
    op = defining_op(value)
    return op is not None and op.name == "torch.constant.none"


def splat_number(literal: Operation) -> float | None:
    """The number that all elements of a `torch.vtensor.literal` have; None if they differ or are not at hand."""
    value = literal.attributes["value"]
    if not isinstance(value, DenseElementsAttr) or not value.is_splat:
        return None
    element = value.get_splat_value()
    return float(element.value) if isinstance(element, (FloatAttr, IntegerAttr, BoolAttr)) else None


def list_elements(value: Value) -> list[Value] | None:
    """The elements of a `torch.prim.ListConstruct`; None if `value` is something else."""
    op = defining_op(value)
    if op is None or op.name != "torch.prim.ListConstruct":
        return None
    return list(op.operands)


def is_open_end(value: Value) -> bool:
    """Whether `value` is the end of an open slice (`x[a:]`), which torch writes as the largest int64."""
    return constant_int(value) == _MAX_INT64
