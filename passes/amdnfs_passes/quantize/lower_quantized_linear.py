"""Lower `amdnfs.quantized_linear` to one contraction that widens the weight as it reads it.

The layout, the last operand, says what the bytes of the weight mean. There are two forms. Where `vector_lanes` is
given, the layer is one dispatch written in vectors (`vector_template.py`: processors). Else it is a generic that widens
the weight and a contraction of it, which IREE makes one dispatch of (`linalg_template.py`: GPUs). Sums are in f32. A
layout with `a8` rounds the rows of `x` to int8 first, and sums in i32; one with `af8` rounds them to fp8, and sums
products of fp8 in f32 (`decoded_rows.py`: processors, which have none).

Before::

    func.func @f(%x: !torch.vtensor<[1,2,64],f16>, %data: !torch.vtensor<[8,32],si8>, %scales: !torch.vtensor<[8,2],f16>) -> !torch.vtensor<[1,2,8],f16> {
      %none = torch.constant.none
      %layout = torch.constant.str "i4-g32-rows-f16"
      %0 = torch.operator "torch.amdnfs.quantized_linear"(%x, %data, %scales, %none, %none, %layout) : (!torch.vtensor<[1,2,64],f16>, !torch.vtensor<[8,32],si8>, !torch.vtensor<[8,2],f16>, !torch.none, !torch.none, !torch.str) -> !torch.vtensor<[1,2,8],f16>
      return %0 : !torch.vtensor<[1,2,8],f16>
    }

After (the call; the called function holds the generic and the contraction)::

    func.call @amdnfs.quantized_linear.1x2x64xf16.8.i4_g32_rows_f16

Leaves alone: a layout that cannot be read, dynamic sizes, operands that do not have the layout's shapes and types (all
refused).
Why: without it a quantised weight would be widened in memory.
Source: the layout's docstring; padding avoids `SkinnyMatmulDefect` (amdnfs_targets).
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.quantized_layout import Activations

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, walk
from amdnfs_passes.quantize.decoded_rows import decoded_function
from amdnfs_passes.quantize.linalg_template import linalg_function
from amdnfs_passes.quantize.operands import QuantizedLinear, match_quantized_linear
from amdnfs_passes.quantize.vector_template import vector_function
from amdnfs_passes.templates import call_function
from amdnfs_passes.vectors.product import Vectors


@dataclass(frozen=True, kw_only=True)
class LowerQuantizedLinearPass(ModulePass):
    """Replaces quantised linear layers by one contraction each."""

    vector_lanes: int = 0
    """How many f32 a vector register holds, to write the layer in vectors; 0 for the form of GPUs."""
    vector_registers: int = 0
    """How many vector registers there are; with `vector_lanes` only."""
    bf16_pairs: bool = False
    """Whether the processor adds products of pairs of bf16; with `vector_lanes` only."""
    pad_rows_begin: int = 0
    """Smallest number of rows that the form of GPUs pads; 0 pads none."""
    pad_rows_end: int = 0
    """First number of rows above it that is not padded."""
    pad_rows: int = 0
    """Number of rows after padding."""
    shift_fp8: bool = False
    """Whether the form of GPUs makes f16 of fp8 by moving its bits: for a compiler that cannot convert it."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            try:
                linear = match_quantized_linear(op)
            except ValueError as error:
                self.refuse(refusals, op, str(error))
                continue
            if linear is None:
                continue
            name = f"amdnfs.quantized_linear.{linear.name}"
            call_function(module, op, name, self._function_text(name, linear), linear.operands)
            rewrites += 1
        return rewrites

    def _function_text(self, name: str, linear: QuantizedLinear) -> str:
        if self.vector_lanes:
            vectors = Vectors(lanes=self.vector_lanes, registers=self.vector_registers, has_bf16_pairs=self.bf16_pairs)
            is_decoded = linear.layout.activations is Activations.ROW_F8
            return (decoded_function if is_decoded else vector_function)(name, linear, vectors)
        is_padded = self.pad_rows and self.pad_rows_begin <= linear.rows < self.pad_rows_end
        return linalg_function(name, linear, self.pad_rows if is_padded else linear.rows, shift_fp8=self.shift_fp8)
