"""Lower `amdnfs.rotary` to one element-wise op that reads both members of a pair.

    halves:       y[i]     = x[i] * cos[i] - x[i + n/2] * sin[i]          y[i + n/2] = x[i + n/2] * cos + x[i] * sin
    interleaved:  y[2i]    = x[2i] * cos   - x[2i + 1] * sin              y[2i + 1]  = x[2i + 1] * cos + x[2i] * sin

The last axis is split in two (the pair and the rest), so the partner is found with `1 - pair`: no slice, no
concatenation and no negative offset. Computed in f32, rounded once.

Before::

    func.func @f(%x: !torch.vtensor<[1,4,16,32],f16>, %cos: !torch.vtensor<[1,1,16,32],f32>, %sin: !torch.vtensor<[1,1,16,32],f32>) -> !torch.vtensor<[1,4,16,32],f32> {
      %interleaved = torch.constant.bool false
      %0 = torch.operator "torch.amdnfs.rotary"(%x, %cos, %sin, %interleaved) : (!torch.vtensor<[1,4,16,32],f16>, !torch.vtensor<[1,1,16,32],f32>, !torch.vtensor<[1,1,16,32],f32>, !torch.bool) -> !torch.vtensor<[1,4,16,32],f32>
      return %0 : !torch.vtensor<[1,4,16,32],f32>
    }

After (the call; the called function holds one `linalg.generic`)::

    func.call @amdnfs.rotary.halves.1x4x16x32xf16.1x1x16x32xf32.f32

Leaves alone: an odd last axis, dynamic sizes, tables whose types differ or do not fit (all refused).
Source: Su et al. 2021 (arXiv 2104.09864) section 3.4; the two layouts are those of GPT-NeoX and GPT-J.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, constant_bool, operator_name, walk
from amdnfs_passes.templates import TensorType, call_function, tensor_type


@dataclass(frozen=True, kw_only=True)
class LowerRotaryPass(ModulePass):
    """Replaces `amdnfs.rotary` by an element-wise op."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.rotary":
                continue
            x, cos, sin = (tensor_type(operand) for operand in list(op.operands)[:3])
            interleaved = constant_bool(op.operands[3])
            result = tensor_type(op.result)
            if x is None or cos is None or sin is None or result is None or interleaved is None:
                self.refuse(refusals, op, "operands must be tensors and a constant flag")
                continue
            if cos != sin or result.shape != x.shape or not rotary_fits(x, cos):
                self.refuse(refusals, op, "the last axis must be even, and both tables of one static type that fits")
                continue
            form = "interleaved" if interleaved else "halves"
            name = f"amdnfs.rotary.{form}.{_label(x)}.{_label(cos)}.{result.element}"
            call_function(module, op, name, _function_text(name, x, cos, result, interleaved), list(op.operands)[:3])
            rewrites += 1
        return rewrites


def rotary_fits(x: TensorType, table: TensorType) -> bool:
    """Whether `x` can be rotated by `table`: floats, an even last axis in both, other axes of 1 or the size in `x`."""
    if not (x.is_static and table.is_static) or len(x.sizes) != len(table.sizes) or x.sizes[-1] % 2:
        return False
    pairs = zip(x.sizes[:-1], table.sizes[:-1], strict=True)
    is_float = all(kind.element in ("f16", "bf16", "f32") for kind in (x, table))
    return is_float and x.sizes[-1] == table.sizes[-1] and all(size in (1, own) for own, size in pairs)


def _label(kind: TensorType) -> str:
    return "x".join(str(size) for size in kind.sizes) + "x" + kind.element


def _function_text(name: str, x: TensorType, table: TensorType, result: TensorType, interleaved: bool) -> str:
    rank = len(x.sizes)
    half = x.sizes[-1] // 2
    pair_axis = rank if interleaved else rank - 1
    split = f"{half}, 2" if interleaved else f"2, {half}"
    groups = "[" + ", ".join([f"[{axis}]" for axis in range(rank - 1)] + [f"[{rank - 1}, {rank}]"]) + "]"
    axes = [f"d{axis}" for axis in range(rank + 1)]
    fields = {
        "name": name,
        "x": x.builtin,
        "table": table.builtin,
        "y": result.builtin,
        "xs": _split_type(x, split),
        "tables": _split_type(table, split),
        "ys": _split_type(result, split),
        "groups": groups,
        "x_shape": _split_shape(x, split),
        "table_shape": _split_shape(table, split),
        "all": ", ".join(axes),
        "table_map": ", ".join(_table_axes(x, table, axes)),
        "iterators": ", ".join(['"parallel"'] * (rank + 1)),
        "pair_axis": pair_axis,
        "indices": "\n".join(f"    %i{axis} = linalg.index {axis} : index" for axis in range(rank + 1)),
        "partner": ", ".join("%other" if axis == pair_axis else f"%i{axis}" for axis in range(rank + 1)),
        "E": x.builtin_element,
        "F": table.builtin_element,
        "R": result.builtin_element,
        "widen_x": _widen("%own", "%xw", x) + _widen("%across", "%pw", x),
        "widen_t": _widen("%c", "%cw", table) + _widen("%s", "%sw", table),
        "xw": "%own" if x.element == "f32" else "%xw",
        "pw": "%across" if x.element == "f32" else "%pw",
        "cw": "%c" if table.element == "f32" else "%cw",
        "sw": "%s" if table.element == "f32" else "%sw",
        "round": "" if result.element == "f32" else f"    %small = arith.truncf %r : f32 to {result.builtin_element}",
        "out": "%r" if result.element == "f32" else "%small",
    }
    return _TEMPLATE.format(**fields)


def _split_type(kind: TensorType, split: str) -> str:
    sizes = [str(size) for size in kind.sizes[:-1]] + split.split(", ")
    return f"tensor<{'x'.join(sizes)}x{kind.builtin_element}>"


def _split_shape(kind: TensorType, split: str) -> str:
    return "[" + ", ".join([*(str(size) for size in kind.sizes[:-1]), split]) + "]"


def _table_axes(x: TensorType, table: TensorType, axes: list[str]) -> list[str]:
    lead = ["0" if size == 1 and x.sizes[axis] != 1 else axes[axis] for axis, size in enumerate(table.sizes[:-1])]
    return [*lead, axes[-2], axes[-1]]


def _widen(source: str, target: str, kind: TensorType) -> str:
    return "" if kind.element == "f32" else f"    {target} = arith.extf {source} : {kind.builtin_element} to f32\n"


_TEMPLATE = """
func.func private @"{name}"(%x: {x}, %cos: {table}, %sin: {table}) -> {y} {{
  %xs = tensor.expand_shape %x {groups} output_shape {x_shape} : {x} into {xs}
  %coss = tensor.expand_shape %cos {groups} output_shape {table_shape} : {table} into {tables}
  %sins = tensor.expand_shape %sin {groups} output_shape {table_shape} : {table} into {tables}
  %empty = tensor.empty() : {ys}
  %ys = linalg.generic {{indexing_maps = [affine_map<({all}) -> ({all})>, affine_map<({all}) -> ({table_map})>,
      affine_map<({all}) -> ({table_map})>, affine_map<({all}) -> ({all})>], iterator_types = [{iterators}]}}
      ins(%xs, %coss, %sins : {xs}, {tables}, {tables}) outs(%empty : {ys}) {{
  ^bb0(%own: {E}, %c: {F}, %s: {F}, %o: {R}):
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
{indices}
    %other = arith.subi %c1, %i{pair_axis} : index
    %across = tensor.extract %xs[{partner}] : {xs}
{widen_x}{widen_t}    %straight = arith.mulf {xw}, {cw} : f32
    %turned = arith.mulf {pw}, {sw} : f32
    %is_first = arith.cmpi eq, %i{pair_axis}, %c0 : index
    %minus = arith.subf %straight, %turned : f32
    %plus = arith.addf %straight, %turned : f32
    %r = arith.select %is_first, %minus, %plus : f32
{round}
    linalg.yield {out} : {R}
  }} -> {ys}
  %y = tensor.collapse_shape %ys {groups} : {ys} into {y}
  return %y : {y}
}}
"""
