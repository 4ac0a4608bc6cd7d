"""Fuse a rotary embedding, `x * cos + rotate_half(x) * sin`, into one `amdnfs.rotary`.

Models write `rotate_half` as a concatenation of the negated second half and the first half, or as a stack of the
negated odd and the even elements. Both forms become one op with a flag.

Before::

    func.func @f(%x: !torch.vtensor<[1,1,1,4],f32>, %cos: !torch.vtensor<[1,1,1,4],f32>, %sin: !torch.vtensor<[1,1,1,4],f32>) -> !torch.vtensor<[1,1,1,4],f32> {
      %i0 = torch.constant.int 0
      %i1 = torch.constant.int 1
      %i2 = torch.constant.int 2
      %i3 = torch.constant.int 3
      %end = torch.constant.int 9223372036854775807
      %axis = torch.constant.int -1
      %0 = torch.aten.mul.Tensor %x, %cos : !torch.vtensor<[1,1,1,4],f32>, !torch.vtensor<[1,1,1,4],f32> -> !torch.vtensor<[1,1,1,4],f32>
      %1 = torch.aten.slice.Tensor %x, %i3, %i0, %i2, %i1 : !torch.vtensor<[1,1,1,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,1,1,2],f32>
      %2 = torch.aten.slice.Tensor %x, %i3, %i2, %end, %i1 : !torch.vtensor<[1,1,1,4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[1,1,1,2],f32>
      %3 = torch.aten.neg %2 : !torch.vtensor<[1,1,1,2],f32> -> !torch.vtensor<[1,1,1,2],f32>
      %4 = torch.prim.ListConstruct %3, %1 : (!torch.vtensor<[1,1,1,2],f32>, !torch.vtensor<[1,1,1,2],f32>) -> !torch.list<vtensor>
      %5 = torch.aten.cat %4, %axis : !torch.list<vtensor>, !torch.int -> !torch.vtensor<[1,1,1,4],f32>
      %6 = torch.aten.mul.Tensor %5, %sin : !torch.vtensor<[1,1,1,4],f32>, !torch.vtensor<[1,1,1,4],f32> -> !torch.vtensor<[1,1,1,4],f32>
      %7 = torch.aten.add.Tensor %0, %6, %i1 : !torch.vtensor<[1,1,1,4],f32>, !torch.vtensor<[1,1,1,4],f32>, !torch.int -> !torch.vtensor<[1,1,1,4],f32>
      return %7 : !torch.vtensor<[1,1,1,4],f32>
    }

After::

    func.func @f(%x: !torch.vtensor<[1,1,1,4],f32>, %cos: !torch.vtensor<[1,1,1,4],f32>, %sin: !torch.vtensor<[1,1,1,4],f32>) -> !torch.vtensor<[1,1,1,4],f32> {
      %interleaved = torch.constant.bool false
      %0 = torch.operator "torch.amdnfs.rotary"(%x, %cos, %sin, %interleaved) : (!torch.vtensor<[1,1,1,4],f32>, !torch.vtensor<[1,1,1,4],f32>, !torch.vtensor<[1,1,1,4],f32>, !torch.bool) -> !torch.vtensor<[1,1,1,4],f32>
      return %0 : !torch.vtensor<[1,1,1,4],f32>
    }

Leaves alone: halves taken from different tensors, an axis that is not the last; a straight term of another tensor, and
types that `lower-rotary` does not take (both refused).
Why: on gfx942 and gfx950, IREE 3.13.0 turns the concatenation in a one-token decode into a buffer load with a negative
vector offset, which the hardware checks as out of range.
Source: Su et al. 2021 (arXiv 2104.09864) section 3.4; llvm-project pull requests 169230 and 130616.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.attention.lower_rotary import rotary_fits
from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import (
    Attribute,
    InsertionPoint,
    Module,
    Operation,
    Type,
    Value,
    constant_int,
    defining_op,
    is_open_end,
    list_elements,
    walk,
)
from amdnfs_passes.templates import tensor_type


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rotated:
    """`rotate_half(x)`."""

    x: Value
    interleaved: bool


@dataclass(frozen=True, kw_only=True)
class FuseRotaryPass(ModulePass):
    """Recognises rotary embeddings."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if op.name != "torch.aten.add.Tensor" or constant_int(op.operands[2]) != 1:
                continue
            rewrites += self._rewrite(op, op.operands[0], op.operands[1], refusals) or self._rewrite(
                op, op.operands[1], op.operands[0], refusals
            )
        return rewrites

    def _rewrite(self, op: Operation, straight: Value, turned: Value, refusals: list[Refusal]) -> int:
        straight_op, turned_op = defining_op(straight), defining_op(turned)
        if straight_op is None or turned_op is None or {straight_op.name, turned_op.name} != {"torch.aten.mul.Tensor"}:
            return 0
        for position in (0, 1):
            rotated = _match_rotate_half(turned_op.operands[position])
            if rotated is None:
                continue
            sin = turned_op.operands[1 - position]
            cos = _other_factor(straight_op, rotated.x)
            if cos is None:
                self.refuse(refusals, op, "the term without rotation does not multiply the rotated tensor")
                return 0
            if not _fits(op.result, rotated.x, cos, sin):
                self.refuse(refusals, op, "the last axis must be even, and both tables of one static type that fits")
                return 0
            _replace(op, rotated, cos, sin)
            return 1
        return 0


def _other_factor(mul: Operation, x: Value) -> Value | None:
    if mul.operands[0] == x:
        return mul.operands[1]
    return mul.operands[0] if mul.operands[1] == x else None


def _fits(result: Value, x: Value, cos: Value, sin: Value) -> bool:
    """Whether `lower-rotary` takes these types: a fused op that is not lowered could not be compiled at all."""
    y, own, table = tensor_type(result), tensor_type(x), tensor_type(cos)
    if y is None or own is None or table is None or table != tensor_type(sin) or y.shape != own.shape:
        return False
    return rotary_fits(own, table)


def _match_rotate_half(value: Value) -> _Rotated | None:
    op = defining_op(value)
    if op is None:
        return None
    if op.name == "torch.aten.cat":
        return _match_halves(op)
    if op.name in ("torch.aten.view", "torch.aten.flatten.using_ints", "torch.aten.reshape"):
        return _match_interleaved(op)
    return None


def _match_halves(cat: Operation) -> _Rotated | None:
    parts = list_elements(cat.operands[0])
    kind = tensor_type(cat.result)
    if parts is None or len(parts) != 2 or kind is None or not _is_last(cat.operands[1], kind.shape):
        return None
    negated, first = defining_op(parts[0]), defining_op(parts[1])
    second = defining_op(negated.operands[0]) if negated is not None and negated.name == "torch.aten.neg" else None
    if first is None or second is None or not _are_slices(first, second, kind.shape):
        return None
    half = (kind.shape[-1] or 0) // 2
    begins = (constant_int(first.operands[2]), constant_int(second.operands[2]))
    steps = (constant_int(first.operands[4]), constant_int(second.operands[4]))
    ends = constant_int(first.operands[3]) == half and (
        is_open_end(second.operands[3]) or constant_int(second.operands[3]) == 2 * half
    )
    if begins == (0, half) and steps == (1, 1) and ends:
        return _Rotated(x=first.operands[0], interleaved=False)
    return None


def _match_interleaved(view: Operation) -> _Rotated | None:
    kind = tensor_type(view.result)
    joined = defining_op(view.operands[0])
    if kind is None or joined is None or joined.name not in ("torch.aten.stack", "torch.aten.cat"):
        return None
    joined_kind = tensor_type(joined.result)
    parts = list_elements(joined.operands[0])
    if parts is None or len(parts) != 2 or joined_kind is None or joined_kind.shape[-1] != 2:
        return None
    if joined_kind.shape[:-2] != kind.shape[:-1] or not _is_last(joined.operands[1], joined_kind.shape):
        return None
    if joined.name == "torch.aten.cat":
        widened = [defining_op(part) for part in parts]
        if any(op is None or op.name != "torch.aten.unsqueeze" for op in widened):
            return None
        parts = [op.operands[0] for op in widened if op is not None]
    negated, even = defining_op(parts[0]), defining_op(parts[1])
    odd = defining_op(negated.operands[0]) if negated is not None and negated.name == "torch.aten.neg" else None
    if even is None or odd is None or not _are_slices(even, odd, kind.shape):
        return None
    begins = (constant_int(even.operands[2]), constant_int(odd.operands[2]))
    steps = (constant_int(even.operands[4]), constant_int(odd.operands[4]))
    if begins == (0, 1) and steps == (2, 2) and is_open_end(even.operands[3]) and is_open_end(odd.operands[3]):
        return _Rotated(x=even.operands[0], interleaved=True)
    return None


def _are_slices(first: Operation, second: Operation, shape: tuple[int | None, ...]) -> bool:
    if {first.name, second.name} != {"torch.aten.slice.Tensor"} or first.operands[0] != second.operands[0]:
        return False
    source = tensor_type(first.operands[0])
    return (
        source is not None and source.shape == shape and all(_is_last(op.operands[1], shape) for op in (first, second))
    )


def _is_last(axis: Value, shape: tuple[int | None, ...]) -> bool:
    return constant_int(axis) in (-1, len(shape) - 1)


def _replace(op: Operation, rotated: _Rotated, cos: Value, sin: Value) -> None:
    with op.location, InsertionPoint(op):
        flag = Operation.create(
            "torch.constant.bool",
            results=[Type.parse("!torch.bool")],
            attributes={"value": Attribute.parse("true" if rotated.interleaved else "false")},
        ).result
        fused = Operation.create(
            "torch.operator",
            results=[op.result.type],
            operands=[rotated.x, cos, sin, flag],
            attributes={"name": Attribute.parse('"torch.amdnfs.rotary"')},
        )
    op.result.replace_all_uses_with(fused.result)
    op.erase()
