"""Fuse a linear layer whose weight is widened by explicit arithmetic into one `amdnfs.quantized_linear`.

    weight = (float(data) - zeros) * scales        scales, zeros   [columns, 1]           one a row
                                                                   [columns, groups, 1]   data viewed as groups
    data   = int8 [columns, depth], or int4 in pairs: stack((bytes << 4) >> 4, bytes >> 4) along a new last axis

Before::

    func.func @f(%x: !torch.vtensor<[2,64],f32>, %data: !torch.vtensor<[8,64],si8>, %scales: !torch.vtensor<[8,1],f32>) -> !torch.vtensor<[2,8],f32> {
      %none = torch.constant.none
      %false = torch.constant.bool false
      %f32 = torch.constant.int 6
      %0 = torch.aten._to_copy %data, %f32, %none, %none, %none, %false, %none : !torch.vtensor<[8,64],si8>, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none -> !torch.vtensor<[8,64],f32>
      %1 = torch.aten.mul.Tensor %0, %scales : !torch.vtensor<[8,64],f32>, !torch.vtensor<[8,1],f32> -> !torch.vtensor<[8,64],f32>
      %2 = torch.aten.linear %x, %1, %none : !torch.vtensor<[2,64],f32>, !torch.vtensor<[8,64],f32>, !torch.none -> !torch.vtensor<[2,8],f32>
      return %2 : !torch.vtensor<[2,8],f32>
    }

After::

    func.func @f(%x: !torch.vtensor<[2,64],f32>, %data: !torch.vtensor<[8,64],si8>, %scales: !torch.vtensor<[8,1],f32>) -> !torch.vtensor<[2,8],f32> {
      %none = torch.constant.none
      %zeros = torch.constant.none
      %layout = torch.constant.str "i8-channel-rows-f32"
      %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %zeros, %none, %layout) : (!torch.vtensor<[2,64],f32>, !torch.vtensor<[8,64],si8>, !torch.vtensor<[8,1],f32>, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[2,8],f32>
      return %0 : !torch.vtensor<[2,8],f32>
    }

Leaves alone: weights that are not widened from int8, zero points in floats, fp8, a product of another type than `x`;
groups of another size than 32, 64 or 128, and shapes that the layout does not have (both refused).
Why: the widened weight would be written to memory and read back.
Source: the layout's docstring (`amdnfs_targets/quantized_layout.py`).
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.quantized_layout import QuantizedLayout

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import (
    Attribute,
    InsertionPoint,
    Module,
    Operation,
    Type,
    Value,
    defining_op,
    has_uses,
    walk,
)
from amdnfs_passes.quantize.operands import OPERATOR
from amdnfs_passes.quantize.widened_weight import WidenedWeight, layout_of, match_widened_weight
from amdnfs_passes.templates import tensor_type


@dataclass(frozen=True, kw_only=True)
class FuseDequantizePass(ModulePass):
    """Recognises weights that are widened by explicit arithmetic."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            found = match_widened_weight(op.operands[1]) if op.name == "torch.aten.linear" else None
            if found is None:
                continue
            x, weight = tensor_type(op.operands[0]), tensor_type(op.operands[1])
            try:
                layout = layout_of(found, x, weight)
            except ValueError as error:
                self.refuse(refusals, op, str(error))
                continue
            _replace(op, found, layout)
            rewrites += 1
        return rewrites


def _replace(op: Operation, found: WidenedWeight, layout: QuantizedLayout) -> None:
    with op.location, InsertionPoint(op):
        none = Operation.create("torch.constant.none", results=[Type.parse("!torch.none")]).result
        zeros = none if found.zeros is None else _as_matrix(found.zeros)
        text = Operation.create(
            "torch.constant.str",
            results=[Type.parse("!torch.str")],
            attributes={"value": Attribute.parse(f'"{layout.spelling}"')},
        ).result
        fused = Operation.create(
            "torch.operator",
            results=[op.result.type],
            operands=[op.operands[0], found.data, _as_matrix(found.scales), zeros, op.operands[2], text],
            attributes={"name": Attribute.parse(f'"{OPERATOR}"')},
        )
    op.result.replace_all_uses_with(fused.result)
    weight = op.operands[1]
    op.erase()
    _erase_unused(weight)


def _erase_unused(value: Value) -> None:
    """Erases what made `value` if nothing uses it: not all of it could be converted."""
    op = defining_op(value)
    if op is None or has_uses(op) or not op.name.startswith(("torch.aten.", "torch.prims.", "torch.prim.List")):
        return
    operands = list(op.operands)
    op.erase()
    for operand in operands:
        _erase_unused(operand)


def _as_matrix(value: Value) -> Value:
    """`[columns, groups, 1]` as `[columns, groups]`."""
    kind = tensor_type(value)
    assert kind is not None
    if len(kind.shape) == 2:
        return value
    sizes = [
        Operation.create(
            "torch.constant.int",
            results=[Type.parse("!torch.int")],
            attributes={"value": Attribute.parse(f"{size} : i64")},
        ).result
        for size in kind.sizes[:2]
    ]
    shape = Operation.create(
        "torch.prim.ListConstruct", results=[Type.parse("!torch.list<int>")], operands=sizes
    ).result
    result = Type.parse(f"!torch.vtensor<[{kind.sizes[0]},{kind.sizes[1]}],{kind.element}>")
    return Operation.create("torch.aten.view", results=[result], operands=[value, shape]).result
