"""Fuse attention that a model wrote itself, products around a softmax, into one operation of ours.

    softmax(scale * Q K^T + bias where seen) V

It is recognised by what it computes, not by how it is written: views, transposes and permutations, heads merged into
the batch, keys and values repeated for several heads, `baddbmm`, scales before or after, a softcap, masks that are
added, filled in or chosen, and biases by position (ALiBi) in any of these places.

Keys and values that `amdnfs.kv_gather` reads from the pages of one pool make `amdnfs.paged_attention`; its mask must be
causal by the positions that `start` gives, or a causal window. Other keys and values make `amdnfs.attention`. What was
only needed for the old form is erased.

Before::

    func.func @f(%q: !torch.vtensor<[1,4,6,8],f32>, %k: !torch.vtensor<[1,4,6,8],f32>, %v: !torch.vtensor<[1,4,6,8],f32>) -> !torch.vtensor<[1,4,6,8],f32> {
      %none = torch.constant.none
      %last = torch.constant.int -1
      %other = torch.constant.int -2
      %two = torch.constant.float 2.000000e+00
      %0 = torch.aten.transpose.int %k, %last, %other : !torch.vtensor<[1,4,6,8],f32>, !torch.int, !torch.int -> !torch.vtensor<[1,4,8,6],f32>
      %1 = torch.aten.matmul %q, %0 : !torch.vtensor<[1,4,6,8],f32>, !torch.vtensor<[1,4,8,6],f32> -> !torch.vtensor<[1,4,6,6],f32>
      %2 = torch.aten.div.Scalar %1, %two : !torch.vtensor<[1,4,6,6],f32>, !torch.float -> !torch.vtensor<[1,4,6,6],f32>
      %3 = torch.aten.softmax.int %2, %last, %none : !torch.vtensor<[1,4,6,6],f32>, !torch.int, !torch.none -> !torch.vtensor<[1,4,6,6],f32>
      %4 = torch.aten.matmul %3, %v : !torch.vtensor<[1,4,6,6],f32>, !torch.vtensor<[1,4,6,8],f32> -> !torch.vtensor<[1,4,6,8],f32>
      return %4 : !torch.vtensor<[1,4,6,8],f32>
    }

After::

    func.func @f(%q: !torch.vtensor<[1,4,6,8],f32>, %k: !torch.vtensor<[1,4,6,8],f32>, %v: !torch.vtensor<[1,4,6,8],f32>) -> !torch.vtensor<[1,4,6,8],f32> {
      %none = torch.constant.none
      %scale = torch.constant.float 5.000000e-01
      %softcap = torch.constant.float 0.000000e+00
      %causal = torch.constant.bool false
      %0 = torch.operator "torch.amdnfs.attention"(%q, %k, %v, %none, %none, %none, %scale, %softcap, %causal) : (!torch.vtensor<[1,4,6,8],f32>, !torch.vtensor<[1,4,6,8],f32>, !torch.vtensor<[1,4,6,8],f32>, !torch.none, !torch.none, !torch.none, !torch.float, !torch.float, !torch.bool) -> !torch.vtensor<[1,6,4,8],f32>
      %order0 = torch.constant.int 0
      %order1 = torch.constant.int 2
      %order2 = torch.constant.int 1
      %order3 = torch.constant.int 3
      %order = torch.prim.ListConstruct %order0, %order1, %order2, %order3 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
      %1 = torch.aten.permute %0, %order : !torch.vtensor<[1,6,4,8],f32>, !torch.list<int> -> !torch.vtensor<[1,4,6,8],f32>
      return %1 : !torch.vtensor<[1,4,6,8],f32>
    }

Leaves alone: a softmax that no product reads; and, refused with the precondition that failed, attention whose weights
are read elsewhere, whose mask over pages is not causal, or whose heads do not share keys in groups.
What is left out: roundings to a narrower type between the products (they are computed in f32), and what is added to all
scores of a query alike (it cancels in the softmax). A query that sees no key at all has no defined result.
Source: Vaswani et al. 2017 (arXiv 1706.03762) eq. 1; Press et al. 2021 (arXiv 2108.12409) section 3.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.fuse.attention_match import NoMatchError, find_product, match_attention
from amdnfs_passes.fuse.attention_operands import check, fused_operation
from amdnfs_passes.fuse.attention_scores import read_scores
from amdnfs_passes.fuse.index_forms import SOFTMAX
from amdnfs_passes.fuse.torch_builder import erase_unused
from amdnfs_passes.ir import Module, Operation, walk


@dataclass(frozen=True, kw_only=True)
class FuseAttentionPass(ModulePass):
    """Recognises attention between two products of matrices."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        results: list[Operation] = []
        for op in walk(module.operation):
            if op.name not in SOFTMAX:
                continue
            try:
                result = find_product(op)
                if result is None:
                    continue
                matched = match_attention(op, result)
                fused = fused_operation(matched, read_scores(matched, check(matched)))
            except NoMatchError as reason:
                self.refuse(refusals, op, str(reason))
                continue
            result.result.replace_all_uses_with(fused)
            results.append(result)
        for block in {hash(result.block): result.block for result in results}.values():
            erase_unused(block)
        return len(results)
