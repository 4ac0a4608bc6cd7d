"""Dispatch `amdnfs.kv_write` to a kernel of our own that also rotates the keys, and the queries that will meet them.

Normalisation, rotary embedding and the write of a layer's keys and values are one kernel: it reads what the projections
made as it lies (also where one projection made all three), writes keys and values into their pages, and gives the
queries of the attention on that pool, rotated. The operation means what `lower-kv-write` says, but for padding: its
keys and values are not written at all.

Before::

    func.func @f(%pool: !torch.vtensor<[?,2,16,1,8],f16>, %k: !torch.vtensor<[1,1,2,8],f16>, %v: !torch.vtensor<[1,1,2,8],f16>, %table: !torch.vtensor<[1,?],si32>, %start: !torch.vtensor<[1],si64>, %valid: !torch.vtensor<[1],si64>) -> !torch.vtensor<[?,2,16,1,8],f16> {
      %0 = torch.operator "torch.amdnfs.kv_write"(%pool, %k, %v, %table, %start, %valid) : (!torch.vtensor<[?,2,16,1,8],f16>, !torch.vtensor<[1,1,2,8],f16>, !torch.vtensor<[1,1,2,8],f16>, !torch.vtensor<[1,?],si32>, !torch.vtensor<[1],si64>, !torch.vtensor<[1],si64>) -> !torch.vtensor<[?,2,16,1,8],f16>
      return %0 : !torch.vtensor<[?,2,16,1,8],f16>
    }

After (the call; the called function holds one dispatch)::

    func.call @amdnfs.dispatch_kv_write...

Leaves alone: f32, operands that do not fit each other (`lower-kv-write` says why), and what no tiling fits (refused).
Queries stay as they are where they are rotated by other tables than the keys, or not only read by one attention.
Source: see `amdnfs_passes/kernels/sources/write_heads.py`.
"""  # noqa: E501 - torch types cannot be broken over lines

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.base import Refusal
from amdnfs_passes.ir import Module, Operation, erase_unused, operator_name, walk
from amdnfs_passes.kernels.embed import Cost, dispatch_text, executable_symbol, executable_text
from amdnfs_passes.kernels.kernel_pass import KernelPass
from amdnfs_passes.kernels.provider import KernelError
from amdnfs_passes.kernels.write_heads_kernels import WriteKernel, build_write
from amdnfs_passes.kvcache.lower_kv_write import match_kv_write
from amdnfs_passes.kvcache.write_match import HeadWrite, match_write
from amdnfs_passes.templates import TensorType, insert_call, tensor_type

_ELEMENT_BYTES = 2


@dataclass(frozen=True, kw_only=True)
class DispatchKvWritePass(KernelPass):
    """Replaces `amdnfs.kv_write` and the rotary embeddings before it by a dispatch of a compiled kernel."""

    fp8: str = "f8E4M3FN"
    """Format of pools of bytes: `f8E4M3FN` or `f8E4M3FNUZ`."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        """See the module docstring."""
        rewrites = 0
        for op in walk(module.operation):
            if operator_name(op) != "torch.amdnfs.kv_write" or isinstance(match_kv_write(op), str):
                continue
            found = match_write(op, Fp8Format(self.fp8))
            if isinstance(found, str):
                self.refuse(refusals, op, found)
                continue
            if not self.can_compile(refusals, op):
                continue
            try:
                built = build_write(found.shape, self.kernel_target)
            except KernelError as error:
                self.refuse(refusals, op, str(error))
                continue
            _replace(module, op, found, built)
            rewrites += 1
        if rewrites:
            erase_unused(module)
        return rewrites


def _replace(module: Module, op: Operation, found: HeadWrite, built: WriteKernel) -> None:
    pool = op.operands[0]
    operands = [*found.reads, pool]
    results = [pool.type] + ([found.attention.operands[0].type] if found.attention is not None else [])
    kinds = [kind for value in operands if (kind := tensor_type(value)) is not None]
    query = tensor_type(found.attention.operands[0]) if found.attention is not None else None
    # The kernel's name stands for its constants, the sizes of the operands for the rest.
    sizes = "_".join("x".join("n" if size is None else str(size) for size in kind.shape) for kind in kinds)
    name = f"{executable_symbol(built.kernel).replace('amdnfs.write_heads', 'amdnfs.dispatch_kv_write')}.{sizes}"
    new = insert_call(module, op, name, _function_text(name, found, built, kinds, query), operands, results)
    if found.attention is not None:
        found.attention.operands[0] = new[1]
    op.result.replace_all_uses_with(new[0])
    op.erase()


def _function_text(
    name: str, found: HeadWrite, built: WriteKernel, kinds: list[TensorType], query: TensorType | None
) -> str:
    shape, batch = found.shape, found.batch
    names = [f"%a{i}" for i in range(len(kinds))]
    pool, pool_type, table, table_type = names[-1], kinds[-1].builtin, names[-4], kinds[-4].builtin
    dynamic = {pool: f"{pool_type}{{%pages}}", table: f"{table_type}{{%columns}}"}
    operands = [(item, dynamic.get(item, kind.builtin)) for item, kind in zip(names, kinds, strict=True)]
    constants = [("%rows32", "i32"), ("%tokens32", "i32"), ("%columns32", "i32")]
    outs = [query.builtin] if query is not None else []
    executable = executable_text(
        built.kernel, operation="kv_write", reads=len(kinds) - 1, writes=1 + len(outs), constants=len(constants)
    )
    dispatch = dispatch_text(
        f"%y:{1 + len(outs)}" if outs else "%y",
        built.kernel,
        (built.num_workgroups,),
        [*operands, *constants],
        [f"{pool}{{%pages}}", *outs],
        _cost(found, kinds),
    )
    arguments = ", ".join(f"{item}: {kind.builtin}" for item, kind in zip(names, kinds, strict=True))
    types = ", ".join([pool_type, *outs])
    return f"""{executable}
func.func private @"{name}"({arguments}) -> ({types}) {{
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %spare = arith.constant 0 : i32
    %rows32 = arith.constant {shape.num_rows} : i32
    %tokens32 = arith.constant {shape.num_rows // batch} : i32
    %pages = tensor.dim {pool}, %c0 : {pool_type}
    %columns = tensor.dim {table}, %c1 : {table_type}
    %columns32 = arith.index_cast %columns : index to i32
{dispatch}    return {"%y#0, %y#1" if outs else "%y"} : {types}
}}
"""


def _cost(found: HeadWrite, kinds: list[TensorType]) -> Cost:
    shape = found.shape
    vectors = shape.num_rows * shape.head_dim * (shape.heads + 2 * shape.kv_heads)
    narrowed = shape.num_rows * shape.head_dim * 2 * shape.kv_heads if shape.fp8 is not None else 0
    tables = shape.table
    entries = 0 if tables is None else 2 * shape.num_rows * tables.size // (2 if tables.is_paired else 1)
    table_bytes = 4 if tables is not None and tables.element == "f32" else _ELEMENT_BYTES
    return Cost(flops=(0, 0), num_bytes=(2 * _ELEMENT_BYTES * vectors - narrowed + table_bytes * entries, 0))
