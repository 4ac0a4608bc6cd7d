"""Lower `amdnfs.kv_gather` to one read of the pages that a page table names.

`fuse-attention` leaves none behind where it takes an attention. Where it refuses one, the keys and values are gathered,
and the model's own products and softmax work on them: right, but with every score and every gathered page in memory.

    pool       [num_pages, 2, page_tokens, kv_heads, head_dim]   0 = K, 1 = V
    table      [batch, pages]       page of each page_tokens positions of a request
    start      [batch]              position of the first token of this call
    num_valid  [batch]              how many tokens of this call are real
    which      0 for keys, 1 for values
    result     [batch, kv_heads, pages * page_tokens, head_dim]

    result(b, h, s, d) = pool(table(b, s / page_tokens), which, s mod page_tokens, h, d)   for s < start + num_valid
                         0                                                                 for other s

What is past the live context is read as zero, so that a stale NaN in a reused page cannot reach a result through a
score that the mask hides or a weight of zero.

Before::

    func.func @f(%pool: !torch.vtensor<[?,2,4,1,8],f32>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> !torch.vtensor<[1,1,?,8],f32> {
      %which = torch.constant.int 0
      %0 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %which) : (!torch.vtensor<[?,2,4,1,8],f32>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>, !torch.int) -> !torch.vtensor<[1,1,?,8],f32>
      return %0 : !torch.vtensor<[1,1,?,8],f32>
    }

After (the call; the called function holds one `linalg.generic`)::

    func.call @amdnfs.kv_gather.keys.b1.kv1.d8.p4.f32

Leaves alone: pools, tables and results that do not fit each other (all refused).
Source: design of the paged cache, README section "The KV cache".
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, constant_int, operator_name, walk
from amdnfs_passes.templates import TensorType, call_function, tensor_type


@dataclass(frozen=True, kw_only=True)
class LowerKvGatherPass(ModulePass):
    """Replaces `amdnfs.kv_gather` by a gather."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.kv_gather":
                continue
            operands = list(op.operands)
            pool, result, which = tensor_type(operands[0]), tensor_type(op.result), constant_int(operands[4])
            if which not in (0, 1):
                self.refuse(refusals, op, "which must be the constant 0 (keys) or 1 (values)")
                continue
            if pool is None or result is None or _types(pool, result) != [tensor_type(item) for item in operands[:4]]:
                self.refuse(
                    refusals,
                    op,
                    "the pool must be [?, 2, page, kv_heads, dim], the table [batch, ?] and the result "
                    "[batch, kv_heads, ?, dim]",
                )
                continue
            page_tokens, (batch, kv_heads, _, head_dim) = pool.shape[2], result.shape
            stem = f"{('keys', 'values')[which]}.b{batch}.kv{kv_heads}.d{head_dim}.p{page_tokens}"
            name = f"amdnfs.kv_gather.{stem}.{pool.builtin_element}"
            text = _TEMPLATE.format(
                name=name, W=which, B=batch, H=kv_heads, D=head_dim, P=page_tokens, E=pool.builtin_element
            )
            call_function(module, op, name, text, operands[:4])
            rewrites += 1
        return rewrites


def _types(pool: TensorType, result: TensorType) -> list[TensorType]:
    """The types that the operands must have; none if a size is missing that must be there."""
    if len(pool.shape) != 5 or len(result.shape) != 4 or pool.shape[2] is None or result.element != pool.element:
        return []
    batch, kv_heads, _, head_dim = result.shape
    if batch is None or kv_heads is None or head_dim is None:
        return []
    per_request = TensorType(shape=(batch,), element="si64")
    return [
        TensorType(shape=(None, 2, pool.shape[2], kv_heads, head_dim), element=pool.element),
        TensorType(shape=(batch, None), element="si32"),
        *(per_request, per_request),
    ]


_TEMPLATE = """
func.func private @"{name}"(%pool: tensor<?x2x{P}x{H}x{D}x{E}>, %table: tensor<{B}x?xi32>,
    %start: tensor<{B}xi64>, %valid: tensor<{B}xi64>) -> tensor<{B}x{H}x?x{D}x{E}> {{
  %c1 = arith.constant 1 : index
  %which = arith.constant {W} : index
  %page_tokens = arith.constant {P} : index
  %nothing = arith.constant 0.0 : {E}
  %pages = tensor.dim %table, %c1 : tensor<{B}x?xi32>
  %positions = arith.muli %pages, %page_tokens : index
  %covered = util.optimization_barrier %positions : index
  %empty = tensor.empty(%covered) : tensor<{B}x{H}x?x{D}x{E}>
  %rows = linalg.generic {{indexing_maps = [affine_map<(b, h, s, d) -> (b, h, s, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}} outs(%empty : tensor<{B}x{H}x?x{D}x{E}>) {{
  ^bb0(%o: {E}):
    %b = linalg.index 0 : index
    %h = linalg.index 1 : index
    %s = linalg.index 2 : index
    %d = linalg.index 3 : index
    %column = arith.divui %s, %page_tokens : index
    %within = arith.remui %s, %page_tokens : index
    %page32 = tensor.extract %table[%b, %column] : tensor<{B}x?xi32>
    %page = arith.index_cast %page32 : i32 to index
    %x = tensor.extract %pool[%page, %which, %within, %h, %d] : tensor<?x2x{P}x{H}x{D}x{E}>
    %begin = tensor.extract %start[%b] : tensor<{B}xi64>
    %count = tensor.extract %valid[%b] : tensor<{B}xi64>
    %end = arith.addi %begin, %count : i64
    %s64 = arith.index_cast %s : index to i64
    %is_live = arith.cmpi slt, %s64, %end : i64
    %r = arith.select %is_live, %x, %nothing : {E}
    linalg.yield %r : {E}
  }} -> tensor<{B}x{H}x?x{D}x{E}>
  return %rows : tensor<{B}x{H}x?x{D}x{E}>
}}
"""
