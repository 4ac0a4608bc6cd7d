"""Lower `aten.linear`, `aten.mm` and `aten.addmm` to one contraction that accumulates in f32.

The importer's own lowering turns a linear layer on `[B, T, K]` into a batched product with a broadcast, transposed
copy of the weight, which IREE then computes when the program is loaded: every weight exists twice. It also accumulates
in the storage type. Here the rows are flattened, the weight is read as it lies on disk, and the sum is in f32.

Before::

    func.func @f(%x: !torch.vtensor<[1,2,4],f32>, %w: !torch.vtensor<[8,4],f32>) -> !torch.vtensor<[1,2,8],f32> {
      %none = torch.constant.none
      %0 = torch.aten.linear %x, %w, %none : !torch.vtensor<[1,2,4],f32>, !torch.vtensor<[8,4],f32>, !torch.none -> !torch.vtensor<[1,2,8],f32>
      return %0 : !torch.vtensor<[1,2,8],f32>
    }

After::

    func.func private @amdnfs.linear.1x2x4xf32.8x4(%x: tensor<1x2x4xf32>, %w: tensor<8x4xf32>) -> tensor<1x2x8xf32> {
      %x2 = tensor.collapse_shape %x [[0, 1], [2]] : tensor<1x2x4xf32> into tensor<2x4xf32>
      %zero = arith.constant 0.0 : f32
      %empty = tensor.empty() : tensor<2x8xf32>
      %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<2x8xf32>) -> tensor<2x8xf32>
      %acc = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (m, k)>, affine_map<(m, n, k) -> (n, k)>, affine_map<(m, n, k) -> (m, n)>] ins(%x2, %w : tensor<2x4xf32>, tensor<8x4xf32>) outs(%init : tensor<2x8xf32>) -> tensor<2x8xf32>
      %y = tensor.expand_shape %acc [[0, 1], [2]] output_shape [1, 2, 8] : tensor<2x8xf32> into tensor<1x2x8xf32>
      return %y : tensor<1x2x8xf32>
    }
    func.func @f(%x: !torch.vtensor<[1,2,4],f32>, %w: !torch.vtensor<[8,4],f32>) -> !torch.vtensor<[1,2,8],f32> {
      %0 = torch_c.to_builtin_tensor %x : !torch.vtensor<[1,2,4],f32> -> tensor<1x2x4xf32>
      %1 = torch_c.to_builtin_tensor %w : !torch.vtensor<[8,4],f32> -> tensor<8x4xf32>
      %2 = func.call @amdnfs.linear.1x2x4xf32.8x4(%0, %1) : (tensor<1x2x4xf32>, tensor<8x4xf32>) -> tensor<1x2x8xf32>
      %3 = torch_c.from_builtin_tensor %2 : tensor<1x2x8xf32> -> !torch.vtensor<[1,2,8],f32>
      return %3 : !torch.vtensor<[1,2,8],f32>
    }

Leaves alone: operands with dynamic sizes, integer types, vectors, a bias that is broadcast in another way than row by
row (all refused); `addmm` with factors other than 1.
Source: `torch.nn.functional.linear`, `torch.addmm`; the copies were seen in the flow dialect of IREE 3.13.0.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, Value, constant_int, defining_op, walk
from amdnfs_passes.mlir_text import flatten_rows, tensor, unflatten_rows
from amdnfs_passes.templates import TensorType, call_function, tensor_type
from amdnfs_passes.vectors.linear import vector_linear
from amdnfs_passes.vectors.product import Vectors

_FLOATS = ("f16", "bf16", "f32")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Contraction:
    """`y = x . w (+ bias)`: operands by meaning."""

    x: Value
    weight: Value
    bias: Value | None
    weight_is_transposed: bool
    """True for `[N, K]` (linear), False for `[K, N]` (mm)."""


@dataclass(frozen=True, kw_only=True)
class LowerLinearPass(ModulePass):
    """Replaces linear layers by one contraction each, or by one dispatch written in vectors."""

    vector_lanes: int = 0
    """How many f32 a vector register holds, to write layers in vectors (`vectors/product.py`); 0 for contractions."""
    vector_registers: int = 0
    """How many vector registers there are; with `vector_lanes` only."""
    bf16_pairs: bool = False
    """Whether the processor adds products of pairs of bf16; with `vector_lanes` only."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            found = _match(op)
            if found is None:
                continue
            x, weight = tensor_type(found.x), tensor_type(found.weight)
            bias = tensor_type(found.bias) if found.bias is not None else None
            if x is None or weight is None or not (x.is_static and weight.is_static):
                self.refuse(refusals, op, "a size is dynamic; only static row counts are lowered")
                continue
            if x.element not in _FLOATS or weight.element != x.element:
                self.refuse(refusals, op, f"element types {x.element} and {weight.element} are not one float type")
                continue
            if len(x.shape) < 2 or len(weight.shape) != 2:
                self.refuse(refusals, op, "only rows times a matrix are lowered")
                continue
            if not _bias_fits(x, weight.shape[0 if found.weight_is_transposed else 1], bias):
                self.refuse(refusals, op, "the bias must be a row of the result, or all of them, of its element type")
                continue
            name = _function_name(x, weight, bias, found.weight_is_transposed)
            if self.vector_lanes and found.weight_is_transposed:
                text = vector_linear(name, x, weight, bias, self._vectors())
            else:
                text = _function_text(name, x, weight, bias, found.weight_is_transposed)
            operands = [found.x, found.weight] + ([found.bias] if found.bias is not None else [])
            call_function(module, op, name, text, operands)
            rewrites += 1
        return rewrites

    def _vectors(self) -> Vectors:
        return Vectors(lanes=self.vector_lanes, registers=self.vector_registers, has_bf16_pairs=self.bf16_pairs)


def _match(op: Operation) -> _Contraction | None:
    if op.name == "torch.aten.linear":
        x, weight, bias = op.operands
        return _Contraction(x=x, weight=weight, bias=_not_none(bias), weight_is_transposed=True)
    if op.name == "torch.aten.mm":
        x, weight = op.operands
        return _Contraction(x=x, weight=weight, bias=None, weight_is_transposed=False)
    if op.name == "torch.aten.addmm":
        bias, x, weight, beta, alpha = op.operands
        if constant_int(beta) == 1 and constant_int(alpha) == 1:
            return _Contraction(x=x, weight=weight, bias=bias, weight_is_transposed=False)
    return None


def _bias_fits(x: TensorType, columns: int | None, bias: TensorType | None) -> bool:
    """Whether `bias` is one row for all rows of `x`, or, if `x` is a matrix, a row for each."""
    if bias is None:
        return True
    shapes = [(columns,)] + ([(x.shape[0], columns)] if len(x.shape) == 2 else [])
    return bias.shape in shapes and bias.element == x.element


def _not_none(value: Value) -> Value | None:
    op = defining_op(value)
    return None if op is not None and op.name == "torch.constant.none" else value


def _function_name(x: TensorType, weight: TensorType, bias: TensorType | None, transposed: bool) -> str:
    kind = "linear" if transposed else "mm"
    suffix = "" if bias is None else f".bias{len(bias.shape)}"
    sizes = "x".join(str(size) for size in x.sizes)
    return f"amdnfs.{kind}.{sizes}x{x.element}.{'x'.join(str(size) for size in weight.sizes)}{suffix}"


def _function_text(name: str, x: TensorType, weight: TensorType, bias: TensorType | None, transposed: bool) -> str:
    depth, element = x.sizes[-1], x.builtin_element
    columns = weight.sizes[0] if transposed else weight.sizes[1]
    rows, result = math.prod(x.sizes[:-1]), (*x.sizes[:-1], columns)
    acc, flat_y = tensor((rows, columns), "f32"), tensor((rows, columns), element)
    collapse, flat_x = flatten_rows(x.sizes, element)
    epilogue, flat = _epilogue(flat_y, acc, element, bias)
    bias_argument = "" if bias is None else f", %bias: {bias.builtin}"
    return (
        f'func.func private @"{name}"(%x: {x.builtin}, %w: {weight.builtin}{bias_argument}) '
        f"-> {tensor(result, element)} {{\n"
        + collapse
        + f"""  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : {acc}
  %init = linalg.fill ins(%zero : f32) outs(%empty : {acc}) -> {acc}
  %acc = linalg.matmul indexing_maps = [affine_map<(m, n, k) -> (m, k)>,
    affine_map<(m, n, k) -> {"(n, k)" if transposed else "(k, n)"}>, affine_map<(m, n, k) -> (m, n)>]
    ins({flat_x}, %w : {tensor((rows, depth), element)}, {weight.builtin}) outs(%init : {acc}) -> {acc}
"""
        + epilogue
        + unflatten_rows(flat, result, element)
    )


def _epilogue(flat_y: str, acc: str, element: str, bias: TensorType | None) -> tuple[str, str]:
    """The element-wise tail: bias, then rounding to the storage type. Returns its text and the name of its result."""
    if bias is None and element == "f32":
        return "", "%acc"
    bias_map = "" if bias is None else f"affine_map<(m, n) -> ({'m, ' if len(bias.shape) == 2 else ''}n)>, "
    inputs = "%acc" if bias is None else f"%bias, %acc : {bias.builtin}"
    inputs += f" : {acc}" if bias is None else f", {acc}"
    arguments = f"%a: f32, %o: {element}" if bias is None else f"%b: {element}, %a: f32, %o: {element}"
    lines, value = [], "%a"
    if bias is not None:
        extended = "%b"
        if element != "f32":
            lines.append(f"    %be = arith.extf %b : {element} to f32")
            extended = "%be"
        lines.append(f"    %s = arith.addf %a, {extended} : f32")
        value = "%s"
    if element != "f32":
        lines.append(f"    %t = arith.truncf {value} : f32 to {element}")
        value = "%t"
    text = f"""  %out = tensor.empty() : {flat_y}
  %sum = linalg.generic {{indexing_maps = [{bias_map}affine_map<(m, n) -> (m, n)>, affine_map<(m, n) -> (m, n)>],
    iterator_types = ["parallel", "parallel"]}} ins({inputs}) outs(%out : {flat_y}) {{
  ^bb0({arguments}):
{chr(10).join(lines)}
    linalg.yield {value} : {element}
  }} -> {flat_y}
"""
    return text, "%sum"
