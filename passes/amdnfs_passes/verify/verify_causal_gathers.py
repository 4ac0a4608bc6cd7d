"""Verify that attention over gathered pages hides the keys that come after each query.

`fuse-attention` proves that before it makes `amdnfs.paged_attention`. Attention that it refuses works on what
`amdnfs.kv_gather` reads: whole pages, with zeros past the live context. If the model does not hide those, or hides them
by anything but the positions of the call, every result is wrong, and nothing else would show it.

Before::

    func.func @f(%scores: !torch.vtensor<[1,2,1,?],f32>, %pool: !torch.vtensor<[?,2,4,2,8],f32>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> (!torch.vtensor<[1,2,1,?],f32>, !torch.vtensor<[1,2,?,8],f32>) {
      %none = torch.constant.none
      %last = torch.constant.int -1
      %one = torch.constant.int 1
      %four = torch.constant.int 4
      %low = torch.constant.float -1.000000e+38
      %0 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %one) : (!torch.vtensor<[?,2,4,2,8],f32>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>, !torch.int) -> !torch.vtensor<[1,2,?,8],f32>
      %1 = torch.aten.size.int %table, %one : !torch.vtensor<[1,?],si32>, !torch.int -> !torch.int
      %2 = torch.aten.mul.int %1, %four : !torch.int, !torch.int -> !torch.int
      %3 = torch.aten.arange %2, %none, %none, %none, %none : !torch.int, !torch.none, !torch.none, !torch.none, !torch.none -> !torch.vtensor<[?],si64>
      %4 = torch.aten.le.Tensor %3, %start : !torch.vtensor<[?],si64>, !torch.vtensor<[1],si64> -> !torch.vtensor<[?],i1>
      %5 = torch.aten.where.ScalarOther %4, %scores, %low : !torch.vtensor<[?],i1>, !torch.vtensor<[1,2,1,?],f32>, !torch.float -> !torch.vtensor<[1,2,1,?],f32>
      %6 = torch.aten.softmax.int %5, %last, %none : !torch.vtensor<[1,2,1,?],f32>, !torch.int, !torch.none -> !torch.vtensor<[1,2,1,?],f32>
      return %6, %0 : !torch.vtensor<[1,2,1,?],f32>, !torch.vtensor<[1,2,?,8],f32>
    }

After (nothing changes): the same program. With `%scores` as the operand of the softmax, it would be refused.

Leaves alone: functions without `amdnfs.kv_gather`; a softmax over a static number of keys, which cannot be pages.
Source: design of the paged cache, README section "The KV cache".
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, PassError, Refusal
from amdnfs_passes.fuse.attention_scores import hides_later_keys
from amdnfs_passes.fuse.index_forms import SOFTMAX
from amdnfs_passes.ir import Module, Operation, operator_name, symbol_name, walk
from amdnfs_passes.templates import tensor_type


@dataclass(frozen=True, kw_only=True)
class VerifyCausalGathersPass(ModulePass):
    """Refuses programs whose attention over gathered pages is not seen to hide later keys."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """Checks; never rewrites.

        Raises:
            PassError: Naming the function and the softmax that hides nothing.
        """
        for function in [child.operation for child in module.body.operations]:
            starts = {op.operands[2] for op in walk(function) if operator_name(op) == "torch.amdnfs.kv_gather"}
            if not starts:
                continue
            softmaxes = [op for op in walk(function) if op.name in SOFTMAX and _is_over_pages(op)]
            wrong = [op for op in softmaxes if not all(hides_later_keys(op, start) for start in starts)]
            if wrong or not softmaxes:
                where = str(wrong[0]).strip()[:200] if wrong else "there is no softmax over the gathered keys"
                raise PassError(
                    f"pass verify-causal-gathers: function @{symbol_name(function)}: the model's own attention code "
                    f"is not seen to hide the keys after each query, so it would read what is no key\n  {where}"
                )
        return 0


def _is_over_pages(softmax: Operation) -> bool:
    kind = tensor_type(softmax.result)
    return kind is not None and kind.shape[-1:] == (None,)
