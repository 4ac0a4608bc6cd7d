"""How queries are rotated and keys and values written on a target: vectors a workgroup, and the compiled kernel.

The kernel computes next to nothing: every lane moves 16 bytes at a time. One wave a workgroup spreads a decode step
over the device; four are fewer workgroups to start where there are enough of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.kernels.provider import CompiledKernel, KernelTarget, Tiling, compile_kernel, element_name
from amdnfs_passes.kvcache.fp8_bits import Fp8Numbers

_LANE_ELEMENTS = 8
"""16 bytes of f16 or bf16."""
_ENOUGH = 4
"""Workgroups for each compute unit that large ones must leave."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorShape:
    """Where vectors of heads lie and how they are normalised."""

    begin: int
    """Place of the first element."""
    row_stride: int
    """Distance of neighbouring rows, in elements."""
    head_stride: int
    """Distance of neighbouring heads, in elements."""
    eps: float | None
    """Of the RMS normalisation; None without one."""
    gain_offset: float
    """Added to the gain."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableShape:
    """Rotary tables and what they do."""

    element: str
    """Element type, as MLIR writes it."""
    cos: tuple[int, int]
    """Place of the first cosine, and distance of neighbouring rows."""
    sin: tuple[int, int]
    """The same of the sines."""
    size: int
    """Elements of a vector that are rotated."""
    interleaved: bool
    """Whether a pair are neighbours."""
    is_paired: bool
    """Whether the tables have one number a pair."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteShape:
    """What the kernel needs to know of one write."""

    num_rows: int
    """Tokens of all requests."""
    heads: int
    """Query heads."""
    kv_heads: int
    """Heads of keys and values."""
    head_dim: int
    """Elements of a vector."""
    page_tokens: int
    """Tokens of a page."""
    element: str
    """Element type of vectors, as MLIR writes it."""
    query: VectorShape | None
    """Queries, where they take part."""
    key: VectorShape
    """Keys."""
    value: VectorShape
    """Values."""
    table: TableShape | None
    """Rotary embedding; None without one."""
    fp8: Fp8Numbers | None = None
    """What the pool holds, as bytes; None: what the vectors are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteKernel:
    """The compiled kernel and its grid."""

    kernel: CompiledKernel
    """The kernel."""
    num_workgroups: int
    """Workgroups, in x."""


def build_write(shape: WriteShape, target: KernelTarget) -> WriteKernel:
    """Compiles the kernel of `shape` for `target`.

    Raises:
        KernelError: If no tiling fits.
    """
    pointer = f"*{element_name(shape.element)}"
    table = shape.table
    arguments = {"query": pointer} if shape.query is not None else {}
    arguments |= {"key": pointer, "value": pointer}
    arguments |= dict.fromkeys(("cos", "sin"), f"*{element_name(table.element)}") if table is not None else {}
    arguments |= {"query_gain": pointer} if shape.query is not None and shape.query.eps is not None else {}
    arguments |= {"key_gain": pointer} if shape.key.eps is not None else {}
    arguments |= {"table": "*i32", "start": "*i64", "num_valid": "*i64"}
    arguments |= {"pool": pointer if shape.fp8 is None else "*i8"}
    arguments |= {"out": pointer} if shape.query is not None else {}
    arguments |= dict.fromkeys(("num_rows", "tokens", "num_columns"), "i32")
    kernel = compile_kernel("write_heads", target, arguments, _constants(shape), _candidates(shape, target))
    return WriteKernel(kernel=kernel, num_workgroups=_num_workgroups(shape, dict(kernel.tiling.sizes)["ROWS"]))


def _constants(shape: WriteShape) -> dict[str, float | int | bool]:
    rotated = shape.table.size if shape.table is not None else 0
    constants: dict[str, float | int | bool] = {
        "HEADS": shape.heads if shape.query is not None else 0,
        "KV_HEADS": shape.kv_heads,
        "HEAD_DIM": shape.head_dim,
        "PAGE_TOKENS": shape.page_tokens,
        "ROTATED": rotated,
        "HALF": _power_of_two(rotated // 2),
        "REST": _power_of_two(shape.head_dim - rotated),
        "PADDED_DIM": _power_of_two(shape.head_dim),
        "FP8_BIAS": shape.fp8.bias if shape.fp8 is not None else 0,
        "FP8_LARGEST": shape.fp8.largest_bits if shape.fp8 is not None else 0,
        "IS_INTERLEAVED": shape.table is not None and shape.table.interleaved,
        "IS_PAIRED": shape.table is not None and shape.table.is_paired,
    }
    for name, vectors in (("QUERY", shape.query), ("KEY", shape.key), ("VALUE", shape.value)):
        constants |= {
            f"{name}_BEGIN": vectors.begin if vectors is not None else 0,
            f"{name}_ROW": vectors.row_stride if vectors is not None else 0,
            f"{name}_HEAD": vectors.head_stride if vectors is not None else 0,
        }
        if name != "VALUE":
            constants[f"{name}_EPS"] = vectors.eps or 0.0 if vectors is not None else 0.0
            constants[f"{name}_OFFSET"] = vectors.gain_offset if vectors is not None else 0.0
    for name, place in (
        (("COS", (0, 0)), ("SIN", (0, 0)))
        if shape.table is None
        else (
            ("COS", shape.table.cos),
            ("SIN", shape.table.sin),
        )
    ):
        constants |= {f"{name}_BEGIN": place[0], f"{name}_ROW": place[1]}
    return constants


def _power_of_two(size: int) -> int:
    return 1 << max(0, size - 1).bit_length()


def _num_workgroups(shape: WriteShape, rows: int) -> int:
    heads = [shape.heads] if shape.query is not None else []
    return sum(-(-shape.num_rows * count // rows) for count in (*heads, shape.kv_heads, shape.kv_heads))


def _candidates(shape: WriteShape, target: KernelTarget) -> list[Tiling]:
    """Tilings, best first: large workgroups if there are enough of them."""
    tilings = []
    for waves in (4, 1):
        lanes = waves * target.wave_size
        # A lane has 16 bytes of each half of a vector.
        rows = max(1, lanes * _LANE_ELEMENTS * 2 // _power_of_two(shape.head_dim))
        rows = min(rows, _power_of_two(shape.num_rows * max(shape.heads, shape.kv_heads)))
        tilings.append(Tiling(sizes=(("ROWS", rows),), num_waves=waves, num_stages=1))
    large = dict(tilings[0].sizes)["ROWS"]
    has_enough = _num_workgroups(shape, large) >= _ENOUGH * target.num_compute_units
    return tilings if has_enough else tilings[1:]
