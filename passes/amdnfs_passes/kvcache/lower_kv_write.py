"""Lower `amdnfs.kv_write` to one scatter of K and V rows into the pages of a pool.

The op takes the pool of one layer and gives the pool with the new tokens in it; IREE keeps it in place because the
scatter is the only user of the old value. Tokens past `num_valid` (padding of a chunk, unused rows of a batch) go to
page 0, the null page, which no request ever owns.

    pool       [num_pages, 2, page_tokens, kv_heads, head_dim]   0 = K, 1 = V
    key, value [batch, kv_heads, tokens, head_dim]
    table      [batch, pages]       page of each page_tokens positions of a request
    start      [batch]              position of the first token of this call
    num_valid  [batch]              how many of `tokens` are real

A pool of `si8` holds fp8 numbers: see `fp8_bits`.

Before::

    func.func @f(%pool: !torch.vtensor<[?,2,4,1,8],f32>, %k: !torch.vtensor<[1,1,2,8],f32>, %v: !torch.vtensor<[1,1,2,8],f32>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> !torch.vtensor<[?,2,4,1,8],f32> {
      %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %v, %table, %start, %valid) : (!torch.vtensor<[?,2,4,1,8],f32>, !torch.vtensor<[1,1,2,8],f32>, !torch.vtensor<[1,1,2,8],f32>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>) -> !torch.vtensor<[?,2,4,1,8],f32>
      return %0 : !torch.vtensor<[?,2,4,1,8],f32>
    }

After (the call; the called function holds `iree_linalg_ext.scatter`)::

    func.call @amdnfs.kv_write.b1.t2.kv1.d8.p4.f32

Leaves alone: pools whose K and V head dims differ, pools and tables that do not fit the keys (all refused).
Source: design of the paged cache, README section "The KV cache".
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Module, Operation, operator_name, walk
from amdnfs_passes.kvcache.fp8_bits import POOL_ELEMENT, encode_text
from amdnfs_passes.mlir_text import ELEMENT_BYTES
from amdnfs_passes.templates import TensorType, call_function, tensor_type


@dataclass(frozen=True, kw_only=True)
class LowerKvWritePass(ModulePass):
    """Replaces `amdnfs.kv_write` by a scatter."""

    fp8: str = "f8E4M3FN"
    """Format of pools of bytes: `f8E4M3FN` or `f8E4M3FNUZ`."""

    most_fused_bytes: int = 0
    """Keys and values of more bytes are made in a dispatch of their own, before the scatter; 0 for no limit.

    IREE 3.13.0 keeps 64 tokens of what it fuses into a scatter on the stack of a CPU's thread, and refuses more than
    32 KiB.
    """

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.kv_write":
                continue
            found = match_kv_write(op)
            if isinstance(found, str):
                self.refuse(refusals, op, found)
                continue
            pool, key = found
            batch, kv_heads, tokens, head_dim = key.sizes
            page_tokens = pool.shape[2]
            element = key.builtin_element
            element, stored = key.builtin_element, pool.builtin_element
            name = f"amdnfs.kv_write.b{batch}.t{tokens}.kv{kv_heads}.d{head_dim}.p{page_tokens}.{element}"
            is_fp8 = stored != element
            num_bytes = batch * tokens * 2 * kv_heads * head_dim * ELEMENT_BYTES[stored]
            is_apart = 0 < self.most_fused_bytes < num_bytes
            text = _TEMPLATE.format(
                name=name if not is_fp8 else (name := f"{name}.{self.fp8}"),
                B=batch,
                T=tokens,
                H=kv_heads,
                D=head_dim,
                P=page_tokens,
                E=element,
                S=stored,
                N=batch * tokens * 2,
                round=encode_text("%r", element, "%y", Fp8Format(self.fp8)) if is_fp8 else "",
                result="%y" if is_fp8 else "%r",
                rows="%kept_rows" if is_apart else "%flat_rows",
                barrier=_BARRIER.format(N=batch * tokens * 2, H=kv_heads, D=head_dim, S=stored) if is_apart else "",
            )
            call_function(module, op, name, text, list(op.operands))
            rewrites += 1
        return rewrites


_BARRIER = "  %kept_rows = util.optimization_barrier %flat_rows : tensor<{N}x{H}x{D}x{S}>\n"


def match_kv_write(op: Operation) -> tuple[TensorType, TensorType] | str:
    """The types of the pool and of the keys of an `amdnfs.kv_write`, or why it cannot be lowered."""
    pool, key, value = (tensor_type(operand) for operand in list(op.operands)[:3])
    if pool is None or key is None or value is None or key.shape != value.shape or not key.is_static:
        return "keys and values must have one static shape [batch, kv_heads, tokens, dim]"
    if [tensor_type(operand) for operand in op.operands] != _operand_types(pool, key):
        return "the pool must be [?, 2, page, kv_heads, dim] as the keys, the table [batch, ?]"
    return pool, key


def _operand_types(pool: TensorType, key: TensorType) -> list[TensorType]:
    """The types that all operands must have, given the page size of the pool; none if it has no such size."""
    if len(key.shape) != 4 or len(pool.shape) != 5 or pool.shape[2] is None:
        return []
    batch, kv_heads, _, head_dim = key.shape
    per_request = TensorType(shape=(batch,), element="si64")
    return [
        TensorType(
            shape=(None, 2, pool.shape[2], kv_heads, head_dim),
            element=POOL_ELEMENT if pool.element == POOL_ELEMENT else key.element,
        ),
        *(key, key),
        TensorType(shape=(batch, None), element="si32"),
        *(per_request, per_request),
    ]


# The scatter is told that its indices are unique. They are, but for the null page, whose content nobody reads.
_TEMPLATE = """
func.func private @"{name}"(
    %pool: tensor<?x2x{P}x{H}x{D}x{S}>, %key: tensor<{B}x{H}x{T}x{D}x{E}>, %value: tensor<{B}x{H}x{T}x{D}x{E}>,
    %table: tensor<{B}x?xi32>, %start: tensor<{B}xi64>, %valid: tensor<{B}xi64>) -> tensor<?x2x{P}x{H}x{D}x{S}> {{
  %rows_empty = tensor.empty() : tensor<{B}x{T}x2x{H}x{D}x{S}>
  %rows = linalg.generic {{
      indexing_maps = [affine_map<(b, t, j, h, d) -> (b, h, t, d)>, affine_map<(b, t, j, h, d) -> (b, h, t, d)>,
                       affine_map<(b, t, j, h, d) -> (b, t, j, h, d)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel", "parallel"]}}
      ins(%key, %value : tensor<{B}x{H}x{T}x{D}x{E}>, tensor<{B}x{H}x{T}x{D}x{E}>)
      outs(%rows_empty : tensor<{B}x{T}x2x{H}x{D}x{S}>) {{
  ^bb0(%k: {E}, %v: {E}, %o: {S}):
    %zero = arith.constant 0 : index
    %j = linalg.index 2 : index
    %is_key = arith.cmpi eq, %j, %zero : index
    %r = arith.select %is_key, %k, %v : {E}
{round}    linalg.yield {result} : {S}
  }} -> tensor<{B}x{T}x2x{H}x{D}x{S}>
  %flat_rows = tensor.collapse_shape %rows [[0, 1, 2], [3], [4]]
      : tensor<{B}x{T}x2x{H}x{D}x{S}> into tensor<{N}x{H}x{D}x{S}>
{barrier}  %slots_empty = tensor.empty() : tensor<{B}x{T}x2x3xi32>
  %slots = linalg.generic {{
      indexing_maps = [affine_map<(b, t, j, c) -> (b)>, affine_map<(b, t, j, c) -> (b)>,
                       affine_map<(b, t, j, c) -> (b, t, j, c)>],
      iterator_types = ["parallel", "parallel", "parallel", "parallel"]}}
      ins(%start, %valid : tensor<{B}xi64>, tensor<{B}xi64>) outs(%slots_empty : tensor<{B}x{T}x2x3xi32>) {{
  ^bb0(%s: i64, %n: i64, %o: i32):
    %b = linalg.index 0 : index
    %t = linalg.index 1 : index
    %j = linalg.index 2 : index
    %c = linalg.index 3 : index
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %zero = arith.constant 0 : i32
    %tokens = arith.constant {P} : index
    %begin = arith.index_cast %s : i64 to index
    %count = arith.index_cast %n : i64 to index
    %is_real = arith.cmpi slt, %t, %count : index
    %position = arith.addi %begin, %t : index
    %wanted = arith.divui %position, %tokens : index
    %column = arith.select %is_real, %wanted, %c0 : index
    %owned = tensor.extract %table[%b, %column] : tensor<{B}x?xi32>
    %page = arith.select %is_real, %owned, %zero : i32
    %within = arith.remui %position, %tokens : index
    %j32 = arith.index_cast %j : index to i32
    %within32 = arith.index_cast %within : index to i32
    %is_page = arith.cmpi eq, %c, %c0 : index
    %is_half = arith.cmpi eq, %c, %c1 : index
    %rest = arith.select %is_half, %j32, %within32 : i32
    %r = arith.select %is_page, %page, %rest : i32
    linalg.yield %r : i32
  }} -> tensor<{B}x{T}x2x3xi32>
  %flat_slots = tensor.collapse_shape %slots [[0, 1, 2], [3]] : tensor<{B}x{T}x2x3xi32> into tensor<{N}x3xi32>
  %written = iree_linalg_ext.scatter dimension_map = [0, 1, 2] unique_indices(true)
      ins({rows}, %flat_slots : tensor<{N}x{H}x{D}x{S}>, tensor<{N}x3xi32>)
      outs(%pool : tensor<?x2x{P}x{H}x{D}x{S}>) {{
  ^bb0(%new: {S}, %old: {S}):
    iree_linalg_ext.yield %new : {S}
  }} -> tensor<?x2x{P}x{H}x{D}x{S}>
  return %written : tensor<?x2x{P}x{H}x{D}x{S}>
}}
"""
