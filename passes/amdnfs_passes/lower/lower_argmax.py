"""Lower `aten.argmax` over the last axis to two f32 maxima: the value, then how far from the end it first stands.

    index = C - max over c of (C - c if x[c] >= max(x) else 0)          ties go to the lowest index

Maxima of floats are what every softmax needs, so they compile to right code everywhere. Integer minima do not: IREE
3.13.0 starts a signed minimum across a wave at -1 (the largest *unsigned* number), so the result is -1 whatever the
input; and its reduction of value and index together gives 0 for one row on gfx1201. Both were seen in the machine code.

Before::

    func.func @f(%x: !torch.vtensor<[2,8],f32>) -> !torch.vtensor<[2],si64> {
      %axis = torch.constant.int -1
      %keep = torch.constant.bool false
      %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,8],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
      return %0 : !torch.vtensor<[2],si64>
    }

After (the call; the called function holds two `linalg.generic` reductions)::

    func.call @amdnfs.argmax.2x8xf32

Leaves alone: other axes, kept axes, other ranks than two, other types than f32, dynamic sizes, rows of 2^24 and more
(where f32 no longer tells neighbouring integers apart).
Source: `torch.argmax`. A row that holds NaN gives C, which is no token: the host takes it as an error.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, constant_bool, constant_int, walk
from amdnfs_passes.templates import call_function, tensor_type

_EXACT_INTEGERS_F32 = 1 << 24


@dataclass(frozen=True, kw_only=True)
class LowerArgmaxPass(ModulePass):
    """Replaces argmax by two reductions."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if op.name != "torch.aten.argmax" or constant_bool(op.operands[2]) is not False:
                continue
            kind = tensor_type(op.operands[0])
            if kind is None or len(kind.shape) != 2 or constant_int(op.operands[1]) not in (-1, 1):
                continue
            if not kind.is_static or kind.element != "f32" or kind.sizes[1] >= _EXACT_INTEGERS_F32:
                self.refuse(refusals, op, "only static f32 rows shorter than 2^24 are lowered")
                continue
            rows, columns = kind.sizes
            name = f"amdnfs.argmax.{rows}x{columns}xf32"
            call_function(module, op, name, _TEMPLATE.format(name=name, R=rows, C=columns), [op.operands[0]])
            rewrites += 1
        return rewrites


_TEMPLATE = """
#all = affine_map<(r, c) -> (r, c)>
#row = affine_map<(r, c) -> (r)>
func.func private @"{name}"(%x: tensor<{R}x{C}xf32>) -> tensor<{R}xi64> {{
  %lowest = arith.constant 0xFF800000 : f32
  %zero = arith.constant 0.0 : f32
  %max_empty = tensor.empty() : tensor<{R}xf32>
  %max_init = linalg.fill ins(%lowest : f32) outs(%max_empty : tensor<{R}xf32>) -> tensor<{R}xf32>
  %max = linalg.generic {{indexing_maps = [#all, #row], iterator_types = ["parallel", "reduction"]}}
      ins(%x : tensor<{R}x{C}xf32>) outs(%max_init : tensor<{R}xf32>) {{
  ^bb0(%v: f32, %o: f32):
    %r = arith.maximumf %v, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{R}xf32>
  %rank_init = linalg.fill ins(%zero : f32) outs(%max_empty : tensor<{R}xf32>) -> tensor<{R}xf32>
  %rank = linalg.generic {{indexing_maps = [#all, #row, #row], iterator_types = ["parallel", "reduction"]}}
      ins(%x, %max : tensor<{R}x{C}xf32>, tensor<{R}xf32>) outs(%rank_init : tensor<{R}xf32>) {{
  ^bb0(%v: f32, %top: f32, %o: f32):
    %columns = arith.constant {C} : i32
    %c = linalg.index 1 : index
    %c32 = arith.index_cast %c : index to i32
    %left = arith.subi %columns, %c32 : i32
    %left_f32 = arith.uitofp %left : i32 to f32
    %is_top = arith.cmpf oge, %v, %top : f32
    %here = arith.select %is_top, %left_f32, %zero : f32
    %r = arith.maximumf %here, %o : f32
    linalg.yield %r : f32
  }} -> tensor<{R}xf32>
  %index_empty = tensor.empty() : tensor<{R}xi64>
  %index = linalg.generic {{indexing_maps = [affine_map<(r) -> (r)>, affine_map<(r) -> (r)>],
      iterator_types = ["parallel"]}} ins(%rank : tensor<{R}xf32>) outs(%index_empty : tensor<{R}xi64>) {{
  ^bb0(%v: f32, %o: i64):
    %columns = arith.constant {C} : i32
    %left = arith.fptoui %v : f32 to i32
    %index32 = arith.subi %columns, %left : i32
    %r = arith.extui %index32 : i32 to i64
    linalg.yield %r : i64
  }} -> tensor<{R}xi64>
  return %index : tensor<{R}xi64>
}}
"""
