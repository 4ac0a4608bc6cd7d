"""Dispatch the choice of the likeliest tokens to kernels of our own, so that no row of logits goes to the host.

The argmax that a program returns becomes the ids of the `count` largest logits of each row, in order (of equal logits
the lowest id first), their values, and the logarithm of the sum of exp over the whole row: what greedy choice, top-k,
most nuclei and log-probabilities need. The logits stay a result, which nobody has to read.

Before::

    func.func @f(%x: !torch.vtensor<[2,5000],f32>) -> !torch.vtensor<[2],si64> {
      %axis = torch.constant.int -1
      %keep = torch.constant.bool false
      %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[2,5000],f32>, !torch.int, !torch.bool -> !torch.vtensor<[2],si64>
      return %0 : !torch.vtensor<[2],si64>
    }

After (the call; the called function holds two dispatches; `f` tells its caller by `iree.reflection`)::

    func.call @amdnfs.dispatch_top_logits...

A row of the result holds `count` ids, `count` logits and the logarithm, the floats as their bits.
Leaves alone: other axes, kept axes, other ranks than two, other types than f32, dynamic sizes, rows of fewer than
`least_columns` (cheap to read), an argmax that is used for anything but being returned, and what no tiling fits
(refused); `lower-argmax` takes those.
Source: see `amdnfs_passes/kernels/sources/top_of_part.py` and `top_of_row.py`.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.reflection import TOP_LOGITS_KEY

from amdnfs_passes.base import PassError, Refusal
from amdnfs_passes.ir import Attribute, Module, Operation, Type, constant_bool, constant_int, walk
from amdnfs_passes.kernels.embed import Cost, dispatch_text, executable_symbol, executable_text
from amdnfs_passes.kernels.kernel_pass import KernelPass
from amdnfs_passes.kernels.provider import KernelError
from amdnfs_passes.kernels.top_logits_kernels import TopLogitsKernels, build_top_logits
from amdnfs_passes.lower.returned_values import ReturnedValue, find_returned
from amdnfs_passes.templates import insert_call, tensor_type


@dataclass(frozen=True, kw_only=True)
class DispatchTopLogitsPass(KernelPass):
    """Replaces argmax by a dispatch that finds the largest logits."""

    count: int = 64
    """How many logits of a row are found; a power of two."""
    least_columns: int = 4097
    """Shorter rows are left alone: the host reads them whole."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        if self.count < 1 or self.count & (self.count - 1):
            raise PassError(f"pass {self.pass_name()}: count must be a power of two, not {self.count}")
        rewrites = 0
        for op in walk(module.operation):
            if op.name != "torch.aten.argmax" or constant_bool(op.operands[2]) is not False:
                continue
            kind = tensor_type(op.operands[0])
            if kind is None or len(kind.shape) != 2 or constant_int(op.operands[1]) not in (-1, 1):
                continue
            if not kind.is_static or kind.element != "f32" or kind.sizes[1] < max(self.count, self.least_columns):
                continue
            if not self.can_compile(refusals, op):
                continue
            returned = find_returned(module, op.result)
            if isinstance(returned, str):
                self.refuse(refusals, op, returned)
                continue
            try:
                built = build_top_logits(kind.sizes[1], self.count, self.kernel_target)
            except KernelError as error:
                self.refuse(refusals, op, str(error))
                continue
            self._replace(module, op, returned, built)
            rewrites += 1
        return rewrites

    def _replace(self, module: Module, op: Operation, returned: ReturnedValue, built: TopLogitsKernels) -> None:
        kind = tensor_type(op.operands[0])
        assert kind is not None
        rows, columns = kind.sizes
        result = Type.parse(f"!torch.vtensor<[{rows},{2 * self.count + 1}],si32>", module.context)
        stem = executable_symbol(built.part).replace("amdnfs.top_of_part", "amdnfs.dispatch_top_logits")
        name = f"{stem}.{rows}x{columns}"
        text = _function_text(name, built, rows, columns, self.count)
        (new,) = insert_call(module, op, name, text, [op.operands[0]], [result])
        returned.replace(new)
        for function in returned.public_functions:
            function.attributes["iree.reflection"] = Attribute.parse(
                f'{{{TOP_LOGITS_KEY} = "{self.count}"}}', module.context
            )
        op.erase()


def _function_text(name: str, built: TopLogitsKernels, rows: int, columns: int, count: int) -> str:
    logits, top = f"tensor<{rows}x{columns}xf32>", f"tensor<{rows}x{2 * count + 1}xi32>"
    keys = f"tensor<{rows}x{built.num_parts}x{count}xi64>"
    state = f"tensor<{rows}x{built.num_parts}x2xf32>"
    part_bytes = rows * built.num_parts * (8 * count + 8)
    part = dispatch_text(
        "%part:2",
        built.part,
        (built.num_parts, rows),
        [("%x", logits)],
        [keys, state],
        Cost(flops=(0, 0), num_bytes=(4 * rows * columns + part_bytes, 0)),
    )
    row = dispatch_text(
        "%top",
        built.row,
        (rows,),
        [("%part#0", keys), ("%part#1", state), ("%parts", "i32")],
        [top],
        Cost(flops=(0, 0), num_bytes=(part_bytes + 4 * rows * (2 * count + 1), 0)),
    )
    return f"""{executable_text(built.part, operation="top_logits", reads=1, writes=2, constants=0)}
{executable_text(built.row, operation="top_logits", reads=2, writes=1, constants=1)}
func.func private @"{name}"(%x: {logits}) -> {top} {{
    %spare = arith.constant 0 : i32
    %parts = arith.constant {built.num_parts} : i32
{part}{row}    return %top : {top}
}}
"""
