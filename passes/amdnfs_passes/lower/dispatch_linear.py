"""Dispatch linear layers to a kernel of our own, with what stands before and after them.

Layers that share an input are one kernel (query, key and value read the hidden state once, from three weights that lie
as they do in the checkpoint); a gate and its partner are one; the residual is added, and the bias, before the result is
rounded; up to `max_norm_rows` rows, RMS normalisation happens while the input is read. Where a quantisation rounds
activations, so does that; more rows are normalised and rounded by a kernel of their own before.

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
from amdnfs_passes.kernels.provider import CompiledKernel, KernelError
from amdnfs_passes.kernels.round_kernels import RoundShape, build_round
from amdnfs_passes.lower.linear_groups import LinearGroup, find_groups
from amdnfs_passes.templates import insert_call, tensor_type

_ELEMENT_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class DispatchLinearPass(KernelPass):
    """Replaces linear layers and their surroundings by dispatches of compiled kernels."""

    max_norm_rows: int = 64
    """Rows are normalised and rounded in the kernel up to this many: each column tile repeats it."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        groups = find_groups(module, self.max_norm_rows)
        if groups and not self.can_compile(refusals, groups[0].before):
            return 0
        replaced: dict[Value, Value] = {}
        rewrites = 0
        for group in groups:
            rounding = self._build_rounding(group, refusals)
            try:
                built = build_linear(_shape(group, rounding is not None), self.kernel_target)
            except KernelError as error:
                self.refuse(refusals, group.before, str(error))
                continue
            operands = [replaced.get(value, value) for value in group.operands]
            text = _function_text(group, built, rounding, operands)
            kinds = [result.type for result in group.results]
            new = insert_call(module, group.before, _function_name(group, built, rounding), text, operands, kinds)
            for old, value in zip(group.results, new, strict=True):
                old.replace_all_uses_with(value)
                replaced[old] = value
            rewrites += 1
        if rewrites:
            erase_unused(module)
        return rewrites

    def _build_rounding(self, group: LinearGroup, refusals: list[Refusal]) -> CompiledKernel | None:
        """The kernel that rounds the rows before; None if there is nothing to round, or each tile does it itself."""
        layout = group.layout
        if layout is None or not layout.largest_activation or group.num_rows <= self.max_norm_rows:
            return None
        norm = group.norm
        shape = RoundShape(
            depth=group.depth,
            element=group.element,
            eps=norm.eps if norm is not None else None,
            gain_offset=norm.gain_offset if norm is not None else 0.0,
            layout=layout,
        )
        try:
            return build_round(shape, self.kernel_target)
        except KernelError as error:
            self.refuse(refusals, group.before, f"every tile rounds its rows again: {error}")
            return None


def _shape(group: LinearGroup, is_rounded: bool) -> LinearShape:
    norm = None if is_rounded else group.norm
    return LinearShape(
        num_rows=group.num_rows,
        depth=group.depth,
        columns=group.columns,
        element=group.element,
        gate=group.gate,
        eps=norm.eps if norm is not None else None,
        gain_offset=norm.gain_offset if norm is not None else 0.0,
        has_bias=group.layers[0].bias is not None,
        has_residual=group.residual is not None,
        layout=group.layout,
        is_rounded=is_rounded,
    )


def _function_name(group: LinearGroup, built: LinearKernel, rounding: CompiledKernel | None) -> str:
    # The kernels' names stand for their constants, the sizes of the operands for the rest.
    kind = tensor_type(group.x)
    assert kind is not None
    sizes = "x".join(str(size) for size in kind.sizes)
    before = "" if rounding is None else f".{executable_symbol(rounding).removeprefix('amdnfs.')}"
    return f"{executable_symbol(built.kernel).replace('amdnfs.linear', 'amdnfs.dispatch_linear')}.{sizes}{before}"


def _function_text(
    group: LinearGroup, built: LinearKernel, rounding: CompiledKernel | None, operands: list[Value]
) -> str:
    types = [kind.builtin for value in operands if (kind := tensor_type(value)) is not None]
    results = [kind.builtin for value in group.results if (kind := tensor_type(value)) is not None]
    read = [(f"%a{i}", kind) for i, kind in enumerate(types)]
    arguments = ", ".join(f"{name}: {kind}" for name, kind in read)
    before = executable = ""
    if rounding is not None:
        executable, before, read = _rounding_text(group, rounding, read)
    num_results = len(results)
    executable += executable_text(built.kernel, operation="linear", reads=len(read), writes=num_results, constants=1)
    dispatch = dispatch_text(
        "%y" if num_results == 1 else f"%y:{num_results}",
        built.kernel,
        (built.num_workgroups,),
        [*read, ("%rows", "i32")],
        results,
        _cost(group, rounding is not None),
    )
    returned = ["%y"] if num_results == 1 else [f"%y#{i}" for i in range(num_results)]
    return f"""{executable}
func.func private @"{_function_name(group, built, rounding)}"({arguments}) -> ({", ".join(results)}) {{
    %spare = arith.constant 0 : i32
    %rows = arith.constant {group.num_rows} : i32
{before}{dispatch}    return {", ".join(returned)} : {", ".join(results)}
}}
"""


def _rounding_text(
    group: LinearGroup, kernel: CompiledKernel, read: list[tuple[str, str]]
) -> tuple[str, str, list[tuple[str, str]]]:
    """The executable, the dispatch, and what the layers read then."""
    x, gain, rest = read[0], [], read[1:]
    if group.gain_place is not None:
        gain = [rest.pop(group.gain_place - 1)]
    rounded, largest = f"tensor<{group.num_rows}x{group.depth}xi8>", f"tensor<{group.num_rows}xf32>"
    num_elements = group.num_rows * group.depth
    moved = num_elements * (_ELEMENT_BYTES + 1) + 4 * group.num_rows + _ELEMENT_BYTES * group.depth * len(gain)
    dispatch = dispatch_text(
        "%q:2",
        kernel,
        (group.num_rows,),
        [x, *gain],
        [rounded, largest],
        Cost(flops=(0, 0), num_bytes=(moved, 0)),
    )
    executable = executable_text(kernel, operation="round_rows", reads=1 + len(gain), writes=2, constants=0)
    return executable, dispatch, [("%q#0", rounded), ("%q#1", largest), *rest]


def _cost(group: LinearGroup, is_rounded: bool) -> Cost:
    elements = sum(group.columns) * group.depth
    stored = elements * (_ELEMENT_BYTES * 8 if group.layout is None else group.layout.bits) // 8
    for layer in group.layers if group.layout is not None else ():
        scales, zeros = tensor_type(layer.scales) if layer.scales is not None else None, layer.zeros
        stored += math.prod(scales.sizes) * (_ELEMENT_BYTES + (zeros is not None)) if scales is not None else 0
    ends = _ELEMENT_BYTES * group.num_rows * sum(_shape(group, is_rounded).output_columns)
    ends += group.num_rows * (group.depth + 4 if is_rounded else _ELEMENT_BYTES * group.depth)
    extra = group.num_rows * group.columns[0] if group.residual is not None else 0
    layout = group.layout
    return Cost(
        flops=(2 * group.num_rows * elements, 0),
        num_bytes=(stored + ends + _ELEMENT_BYTES * extra, 0),
        element=str(layout.element) if layout is not None and layout.largest_activation else None,
    )
