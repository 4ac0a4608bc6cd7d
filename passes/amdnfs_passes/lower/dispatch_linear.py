"""Dispatch linear layers to a kernel of our own, with what stands before and after them.

Layers that share an input are one kernel (query, key and value read the hidden state once, from three weights that lie
as they do in the checkpoint); a gate and its partner are one; the residual is added, and the bias, before the result is
rounded; up to `max_norm_rows` rows, RMS normalisation happens while the input is read.

Before::

    func.func @f(%x: !torch.vtensor<[2,16],f16>, %w: !torch.vtensor<[32,16],f16>) -> !torch.vtensor<[2,32],f16> {
      %none = torch.constant.none
      %0 = torch.aten.linear %x, %w, %none : !torch.vtensor<[2,16],f16>, !torch.vtensor<[32,16],f16>, !torch.none -> !torch.vtensor<[2,32],f16>
      return %0 : !torch.vtensor<[2,32],f16>
    }

After (the call; the called function holds one dispatch)::

    func.call @amdnfs.dispatch_linear...

Leaves alone: f32, dynamic sizes, a depth that is not a multiple of 8, `mm` and `addmm`, and what no tiling fits
(refused); `lower-linear` takes those.
Source: see `amdnfs_passes/kernels/sources/linear.py`.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

import math
from dataclasses import dataclass

from amdnfs_passes.base import Refusal
from amdnfs_passes.ir import Module, Value, erase_unused
from amdnfs_passes.kernels.embed import Cost, dispatch_text, executable_symbol, executable_text
from amdnfs_passes.kernels.kernel_pass import KernelPass
from amdnfs_passes.kernels.linear_kernels import LinearKernel, LinearShape, build_linear
from amdnfs_passes.kernels.provider import KernelError
from amdnfs_passes.lower.linear_groups import LinearGroup, find_groups
from amdnfs_passes.templates import insert_call, tensor_type

_ELEMENT_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class DispatchLinearPass(KernelPass):
    """Replaces linear layers and their surroundings by dispatches of compiled kernels."""

    max_norm_rows: int = 64
    """A normalisation is taken into the kernel up to this many rows: each column tile repeats it."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        groups = find_groups(module, self.max_norm_rows)
        if groups and not self.can_compile(refusals, groups[0].before):
            return 0
        replaced: dict[Value, Value] = {}
        rewrites = 0
        for group in groups:
            try:
                built = build_linear(_shape(group), self.kernel_target)
            except KernelError as error:
                self.refuse(refusals, group.before, str(error))
                continue
            operands = [replaced.get(value, value) for value in group.operands]
            text = _function_text(group, built, operands)
            kinds = [result.type for result in group.results]
            new = insert_call(module, group.before, _function_name(group, built), text, operands, kinds)
            for old, value in zip(group.results, new, strict=True):
                old.replace_all_uses_with(value)
                replaced[old] = value
            rewrites += 1
        if rewrites:
            erase_unused(module)
        return rewrites


def _shape(group: LinearGroup) -> LinearShape:
    return LinearShape(
        num_rows=group.num_rows,
        depth=group.depth,
        columns=group.columns,
        element=group.element,
        gate=group.gate,
        eps=group.norm.eps if group.norm is not None else None,
        gain_offset=group.norm.gain_offset if group.norm is not None else 0.0,
        has_bias=group.layers[0].bias is not None,
        has_residual=group.residual is not None,
        layout=group.layout,
    )


def _function_name(group: LinearGroup, built: LinearKernel) -> str:
    # The kernel's name stands for its constants, the sizes of the operands for the rest.
    kind = tensor_type(group.x)
    assert kind is not None
    sizes = "x".join(str(size) for size in kind.sizes)
    return f"{executable_symbol(built.kernel).replace('amdnfs.linear', 'amdnfs.dispatch_linear')}.{sizes}"


def _function_text(group: LinearGroup, built: LinearKernel, operands: list[Value]) -> str:
    types = [kind.builtin for value in operands if (kind := tensor_type(value)) is not None]
    results = [kind.builtin for value in group.results if (kind := tensor_type(value)) is not None]
    names = [f"%a{i}" for i in range(len(types))]
    num_results = len(results)
    executable = executable_text(built.kernel, operation="linear", reads=len(types), writes=num_results, constants=1)
    dispatch = dispatch_text(
        "%y" if num_results == 1 else f"%y:{num_results}",
        built.kernel,
        (built.num_workgroups,),
        [*zip(names, types, strict=True), ("%rows", "i32")],
        results,
        _cost(group),
    )
    arguments = ", ".join(f"{name}: {kind}" for name, kind in zip(names, types, strict=True))
    returned = ["%y"] if num_results == 1 else [f"%y#{i}" for i in range(num_results)]
    return f"""{executable}
func.func private @"{_function_name(group, built)}"({arguments}) -> ({", ".join(results)}) {{
    %spare = arith.constant 0 : i32
    %rows = arith.constant {group.num_rows} : i32
{dispatch}    return {", ".join(returned)} : {", ".join(results)}
}}
"""


def _cost(group: LinearGroup) -> Cost:
    elements = sum(group.columns) * group.depth
    stored = elements * (_ELEMENT_BYTES * 8 if group.layout is None else group.layout.bits) // 8
    for layer in group.layers if group.layout is not None else ():
        scales, zeros = tensor_type(layer.scales) if layer.scales is not None else None, layer.zeros
        stored += math.prod(scales.sizes) * (_ELEMENT_BYTES + (zeros is not None)) if scales is not None else 0
    ends = group.num_rows * (group.depth + sum(_shape(group).output_columns))
    extra = group.num_rows * group.columns[0] if group.residual is not None else 0
    layout = group.layout
    return Cost(
        flops=(2 * group.num_rows * elements, 0),
        num_bytes=(stored + _ELEMENT_BYTES * (ends + extra), 0),
        element=str(layout.element) if layout is not None and layout.largest_activation else None,
    )
