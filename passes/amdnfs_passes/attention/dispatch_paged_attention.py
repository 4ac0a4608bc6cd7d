"""Dispatch `amdnfs.paged_attention` to kernels of our own, compiled for the target and carried in the program.

The operation means what `lower-paged-attention` says. Here a tile of query rows meets the pages of its request in one
kernel, on the matrix cores, with a running softmax: neither the scores nor gathered keys and values are ever stored.
Where too few tiles would fill the device (one token a request), the keys are split over more workgroups and a second
kernel joins the parts.

Before::

    func.func @f(%q: !torch.vtensor<[1,4,1,16],f16>, %pool: !torch.vtensor<[?,2,16,2,16],f16>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> !torch.vtensor<[1,1,4,16],f16> {
      %sinks = torch.constant.none
      %slopes = torch.constant.none
      %scale = torch.constant.float 2.500000e-01
      %window = torch.constant.int 0
      %softcap = torch.constant.float 0.000000e+00
      %0 = torch.operator "torch.amdnfs.paged_attention"(%q, %pool, %table, %start, %valid, %sinks, %slopes, %scale, %window, %softcap) : (!torch.vtensor<[1,4,1,16],f16>, !torch.vtensor<[?,2,16,2,16],f16>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> !torch.vtensor<[1,1,4,16],f16>
      return %0 : !torch.vtensor<[1,1,4,16],f16>
    }

After (the call; the called function holds one or two dispatches)::

    func.call @amdnfs.paged_attention.b1.h4.t1.kv2.d16.p16.f16...

Leaves alone: f32 (its products have no matrix instructions on RDNA, and full precision is what it is asked for) and
whatever no tiling of the kernel fits; `lower-paged-attention` takes those.
Source: see `amdnfs_passes/kernels/sources/paged_attention.py`.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.attention.lower_paged_attention import match_paged_attention
from amdnfs_passes.attention.paged_attention import PagedAttention
from amdnfs_passes.base import Refusal
from amdnfs_passes.ir import Module, operator_name, walk
from amdnfs_passes.kernels.attention_kernels import build_attention
from amdnfs_passes.kernels.embed import Cost, dispatch_text, executable_text
from amdnfs_passes.kernels.kernel_pass import KernelPass
from amdnfs_passes.kernels.provider import KernelError, KernelTarget
from amdnfs_passes.templates import call_function

_ELEMENTS = ("f16", "bf16")


@dataclass(frozen=True, kw_only=True)
class DispatchPagedAttentionPass(KernelPass):
    """Replaces `amdnfs.paged_attention` by dispatches of compiled kernels."""

    fp8: str = "f8E4M3FN"
    """Format of pools of bytes: `f8E4M3FN` or `f8E4M3FNUZ`."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.paged_attention":
                continue
            attention = match_paged_attention(op)
            if isinstance(attention, str):
                continue  # lower-paged-attention says why
            if attention.element not in _ELEMENTS:
                self.refuse(refusals, op, f"{attention.element} has no kernel; f16 and bf16 have")
                continue
            if not self.can_compile(refusals, op):
                continue
            try:
                text = _function_text(attention, self.kernel_target, Fp8Format(self.fp8))
            except KernelError as error:
                self.refuse(refusals, op, str(error))
                continue
            operands = list(op.operands)[:5] + ([op.operands[5]] if attention.has_sinks else [])
            operands += [op.operands[6]] if attention.has_slopes else []
            call_function(module, op, attention.function_name, text, operands)
            rewrites += 1
        return rewrites


def _function_text(a: PagedAttention, target: KernelTarget, fp8: Fp8Format) -> str:
    built = build_attention(a, target, fp8 if a.has_bytes else None)
    stored = "i8" if a.has_bytes else a.element
    pool = f"tensor<?x2x{a.page_tokens}x{a.kv_heads}x{a.head_dim}x{stored}>"
    query = f"tensor<{a.batch}x{a.heads}x{a.tokens}x{a.head_dim}x{a.element}>"
    result = f"tensor<{a.batch}x{a.tokens}x{a.heads}x{a.head_dim}x{a.element}>"
    counts = f"tensor<{a.batch}xi64>"
    sinks = [("%sinks", f"tensor<{a.heads}x{a.element}>")] if a.has_sinks else []
    slopes = [("%slopes", f"tensor<{a.heads}xf32>")] if a.has_slopes else []
    tensors = [
        ("%query", query),
        ("%pool", f"{pool}{{%pages}}"),
        ("%table", f"tensor<{a.batch}x?xi32>{{%columns}}"),
        ("%start", counts),
        ("%valid", counts),
    ]
    constants = [("%columns32", "i32"), ("%tokens32", "i32")]
    if built.combine is None:
        tensors += sinks
        outs = [result]
    else:
        rows = a.batch * a.heads * a.tokens * built.num_splits
        outs = [f"tensor<{rows}x{a.head_dim}xf32>", f"tensor<{rows}x2xf32>"]
    tensors += slopes
    text = executable_text(
        built.attention, operation="paged_attention", reads=len(tensors), writes=len(outs), constants=2
    )
    name = "%part" if built.combine is None else "%part:2"
    body = dispatch_text(name, built.attention, built.grid, [*tensors, *constants], outs, _cost(a, built.num_splits))
    if built.combine is not None:
        parts = [("%part#0", outs[0]), ("%part#1", outs[1]), *sinks]
        text += executable_text(built.combine, operation="combine_splits", reads=len(parts), writes=1, constants=1)
        grid = (a.tokens * (a.heads // a.kv_heads), a.batch * a.kv_heads)
        cost = Cost(flops=(0, 0), num_bytes=(4 * rows * (a.head_dim + 2), 0))
        body += dispatch_text("%whole", built.combine, grid, [*parts, ("%tokens32", "i32")], [result], cost)
    sink_argument = "".join(f", {name}: {kind}" for name, kind in (*sinks, *slopes))
    return f"""{text}
func.func private @"{a.function_name}"(%query: {query}, %pool: {pool}, %table: tensor<{a.batch}x?xi32>,
    %start: {counts}, %valid: {counts}{sink_argument}) -> {result} {{
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %spare = arith.constant 0 : i32
    %tokens32 = arith.constant {a.tokens} : i32
    %pages = tensor.dim %pool, %c0 : {pool}
    %columns = tensor.dim %table, %c1 : tensor<{a.batch}x?xi32>
    %columns32 = arith.index_cast %columns : index to i32
{body}
    return {"%part" if built.combine is None else "%whole"} : {result}
}}
"""


def _cost(a: PagedAttention, num_splits: int) -> Cost:
    element_bytes, part_bytes, stored_bytes = 2, 4, 1 if a.has_bytes else 2
    rows = a.batch * a.heads * a.tokens
    results = rows * a.head_dim * element_bytes
    if num_splits > 1:
        # A sum, a maximum and a sum of weights of every split.
        results = rows * num_splits * (a.head_dim + 2) * part_bytes
    return Cost(
        flops=(0, 4 * rows * a.head_dim),
        num_bytes=(rows * a.head_dim * element_bytes + results, 2 * a.batch * a.kv_heads * a.head_dim * stored_bytes),
    )
