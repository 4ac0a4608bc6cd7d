"""Makes torch operations in front of another one."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from amdnfs_passes.fuse.index_terms import Atom, Axis, Load
from amdnfs_passes.ir import Attribute, Block, InsertionPoint, Operation, Type, Value, operator_name
from amdnfs_passes.templates import TensorType, tensor_type

_CHECK = "torch.aten._assert_tensor_metadata"
_OURS = ("torch.amdnfs.kv_gather", "torch.amdnfs.paged_attention", "torch.amdnfs.attention")
_PURE = ("torch.aten.", "torch.constant.", "torch.prim.ListConstruct", "torch.vtensor.literal")
_DTYPES = {"f16": 5, "f32": 6, "bf16": 15}
Shape = Sequence[int | None]


class TorchBuilder:
    """Makes operations in front of `anchor`."""

    def __init__(self, anchor: Operation) -> None:
        self._anchor = anchor

    def none(self) -> Value:
        """`None`."""
        return self._make("torch.constant.none", "!torch.none")

    def integer(self, value: int) -> Value:
        """A number."""
        return self._constant("int", f"{value} : i64")

    def number(self, value: float) -> Value:
        """A number."""
        return self._constant("float", f"{value!r} : f64" if "e" not in repr(value) else f"{value:.17e} : f64")

    def boolean(self, value: bool) -> Value:
        """A truth value."""
        return self._constant("bool", str(value).lower())

    def operator(self, name: str, operands: Sequence[Value], shape: Shape, element: str) -> Value:
        """An operation of ours, `torch.amdnfs.<name>`."""
        attributes = {"name": Attribute.parse(f'"torch.amdnfs.{name}"')}
        return self._make("torch.operator", _text(shape, element), operands, attributes)

    def aten(self, name: str, operands: Sequence[Value], shape: Shape, element: str) -> Value:
        """`torch.aten.<name>`."""
        return self._make(f"torch.aten.{name}", _text(shape, element), operands)

    def view(self, value: Value, shape: Shape) -> Value:
        """`value` under another shape, at most one size of which is dynamic."""
        kind = _kind(value)
        if kind.shape == tuple(shape):
            return value
        sizes = self._integers([-1 if size is None else size for size in shape])
        return self.aten("view", [value, sizes], shape, kind.element)

    def permute(self, value: Value, order: Sequence[int]) -> Value:
        """`value` with its axes in another order."""
        kind = _kind(value)
        if list(order) == sorted(order):
            return value
        return self.aten("permute", [value, self._integers(order)], [kind.shape[at] for at in order], kind.element)

    def cast(self, value: Value, element: str) -> Value:
        """`value` in another floating-point type."""
        kind = _kind(value)
        if kind.element == element:
            return value
        flags = [self.boolean(False), self.boolean(False), self.none()]
        return self.aten("to.dtype", [value, self.integer(_DTYPES[element]), *flags], kind.shape, element)

    def scale(self, value: Value, factor: float) -> Value:
        """`value` times a number."""
        kind = _kind(value)
        return value if factor == 1 else self.aten("mul.Scalar", [value, self.number(factor)], kind.shape, kind.element)

    def arrange(self, load: Load, axes: Sequence[Axis]) -> Value:
        """The tensor that `load` reads, as a tensor with the given axes; those it does not depend on have size 1."""
        atoms = [atom for axis in load.axes for atom in axis]
        wanted = [atom for axis in axes for atom in axis if atom in atoms]
        assert sorted(map(id, wanted)) == sorted(map(id, atoms))
        value = load.value
        if wanted != atoms:
            value = self.view(value, [atom.size for atom in atoms])
            value = self.permute(value, [atoms.index(atom) for atom in wanted])
        return self.view(value, [_product([atom for atom in axis if atom in atoms]) for axis in axes])

    def _integers(self, values: Sequence[int]) -> Value:
        return self._make("torch.prim.ListConstruct", "!torch.list<int>", [self.integer(value) for value in values])

    def _constant(self, kind: str, text: str) -> Value:
        return self._make(f"torch.constant.{kind}", f"!torch.{kind}", [], {"value": Attribute.parse(text)})

    def _make(
        self, name: str, result: str, operands: Sequence[Value] = (), attributes: dict[str, Attribute] | None = None
    ) -> Value:
        with self._anchor.location, InsertionPoint(self._anchor):
            return Operation.create(
                name, results=[Type.parse(result)], operands=list(operands), attributes=attributes or {}
            ).result


def erase_unused(block: Block) -> None:
    """Erases what `block` computes and nobody reads."""
    for op in reversed([item.operation for item in block.operations]):
        if not _only_computes(op):
            continue
        users = [use.owner.operation for result in op.results for use in result.uses]
        if all(user.name == _CHECK for user in users):
            for user in users:
                user.erase()
            op.erase()


def _only_computes(op: Operation) -> bool:
    """Whether `op` has results and no other effect: torch operations without a trailing underscore, and ours."""
    if operator_name(op) in _OURS:
        return True
    changes_operands = any(re.fullmatch(r"[a-z].*_", part) for part in op.name.split("."))  # add_, not __and__
    return op.name.startswith(_PURE) and len(op.results) > 0 and not changes_operands


def _text(shape: Shape, element: str) -> str:
    return f"!torch.vtensor<[{','.join('?' if size is None else str(size) for size in shape)}],{element}>"


def _kind(value: Value) -> TensorType:
    kind = tensor_type(value)
    assert kind is not None
    return kind


def _product(atoms: Sequence[Atom]) -> int | None:
    sizes = [atom.size for atom in atoms]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)
