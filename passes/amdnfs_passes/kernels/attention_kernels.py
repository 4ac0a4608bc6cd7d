"""How paged attention runs on a target: tile sizes, number of splits, and the compiled kernels.

The order of the candidates is by evidence of counted instructions and, for NVIDIA, of time on a device; see
`benchmarks/README.md`. The first that neither spills nor needs too much shared memory is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.kernels.provider import CompiledKernel, KernelTarget, Tiling, compile_kernel, element_name

_LOG2E = 1.4426950408889634
_MAX_SPLITS = 64
_MAX_SPLIT_ROWS = 64
"""With more rows than a decode step has, writing and reading the parts moves more bytes than the keys themselves."""
_WORKGROUPS_PER_UNIT = 2
"""Workgroups for each compute unit: enough to hide memory latency, few enough to combine cheaply."""


class AttentionShape(Protocol):
    """What the kernels need to know of one attention; `PagedAttention` has it."""

    @property
    def batch(self) -> int: ...  # noqa: D102 - as named
    @property
    def heads(self) -> int: ...  # noqa: D102
    @property
    def tokens(self) -> int: ...  # noqa: D102
    @property
    def kv_heads(self) -> int: ...  # noqa: D102
    @property
    def head_dim(self) -> int: ...  # noqa: D102
    @property
    def page_tokens(self) -> int: ...  # noqa: D102
    @property
    def element(self) -> str: ...  # noqa: D102
    @property
    def scale(self) -> float: ...  # noqa: D102
    @property
    def window(self) -> int: ...  # noqa: D102
    @property
    def softcap(self) -> float: ...  # noqa: D102
    @property
    def has_sinks(self) -> bool: ...  # noqa: D102
    @property
    def has_slopes(self) -> bool: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionKernels:
    """Compiled kernels of one attention."""

    attention: CompiledKernel
    """Tiles of query rows against the keys."""
    combine: CompiledKernel | None
    """Joins the splits; None with one split."""
    num_splits: int
    """Splits of the keys."""
    grid: tuple[int, int, int]
    """Workgroups of `attention`: row tiles, requests times KV heads, splits."""


FP8_POINTERS = {Fp8Format.E4M3FN: "*fp8e4nv", Fp8Format.E4M3FNUZ: "*fp8e4b8"}
"""Triton's pointer types."""


def build_attention(shape: AttentionShape, target: KernelTarget, fp8: Fp8Format | None = None) -> AttentionKernels:
    """Compiles the kernels of `shape` for `target`.

    Args:
        shape: The attention.
        target: What to compile for.
        fp8: What the pool holds; None: what the queries are.

    Raises:
        KernelError: If no tiling fits.
    """
    num_rows = shape.tokens * (shape.heads // shape.kv_heads)
    element = f"*{element_name(shape.element)}"
    pairs = shape.batch * shape.kv_heads
    padded_dim = max(16, 1 << (shape.head_dim - 1).bit_length())
    candidates = _candidates(num_rows, padded_dim, target)
    num_splits = _num_splits(pairs, num_rows, dict(candidates[0].sizes)["ROWS"], target)
    common = {
        "KV_HEADS": shape.kv_heads,
        "GROUP": shape.heads // shape.kv_heads,
        "HEAD_DIM": shape.head_dim,
        "PADDED_DIM": padded_dim,
        "NUM_SPLITS": num_splits,
    }
    sinks = {"sinks": element} if shape.has_sinks else {}
    outputs = {"out": element} if num_splits == 1 else {"out": "*fp32", "state": "*fp32"}
    attention = compile_kernel(
        "paged_attention",
        target,
        {
            "query": element,
            "pool": element if fp8 is None else FP8_POINTERS[fp8],
            "table": "*i32",
            "start": "*i64",
            "num_valid": "*i64",
            **(sinks if num_splits == 1 else {}),
            **({"slopes": "*fp32"} if shape.has_slopes else {}),
            **outputs,
            "num_columns": "i32",
            "tokens": "i32",
        },
        {
            **common,
            # Scores in base 2; with a cap the scale stays in base e, because the cap stands between them.
            "SCALE": shape.scale if shape.softcap else shape.scale * _LOG2E,
            "SOFTCAP": shape.softcap,
            "WINDOW": shape.window,
            "PAGE_TOKENS": shape.page_tokens,
            "PARTS": 1,
        },
        candidates,
    )
    rows = dict(attention.tiling.sizes)["ROWS"]
    combine = None
    if num_splits > 1:
        combine = compile_kernel(
            "combine_splits",
            target,
            {"partial": "*fp32", "state": "*fp32", **sinks, "out": element, "tokens": "i32"},
            common,
            [Tiling(sizes=(), num_waves=waves, num_stages=1) for waves in (4, 8)],
        )
    return AttentionKernels(
        attention=attention, combine=combine, num_splits=num_splits, grid=(-(-num_rows // rows), pairs, num_splits)
    )


def _candidates(num_rows: int, padded_dim: int, target: KernelTarget) -> list[Tiling]:
    """Tilings, best first."""
    kind = "cuda" if target.backend == "cuda" else f"wave{target.wave_size}"
    table = _BY_KIND["wave32_wide" if kind == "wave32" and padded_dim > _WIDE else kind]
    tallest = max(16, 1 << (num_rows - 1).bit_length())
    return [
        Tiling(
            sizes=(("ROWS", rows), ("KEYS", keys), *((("PARTS", parts[0]),) if parts else ())),
            num_waves=waves,
            num_stages=stages,
        )
        for rows, keys, waves, stages, *parts in table
        if rows <= tallest
    ]


def _num_splits(pairs: int, num_rows: int, rows: int, target: KernelTarget) -> int:
    """Splits of the keys, a power of two, so that there is work for every compute unit."""
    if num_rows > _MAX_SPLIT_ROWS:
        return 1
    workgroups = pairs * -(-num_rows // rows)
    wanted = _WORKGROUPS_PER_UNIT * target.num_compute_units // workgroups
    return min(_MAX_SPLITS, 1 << (wanted.bit_length() - 1)) if wanted >= 2 else 1


_WIDE = 128
"""Head dims above it do not fit the registers of RDNA3 in one product."""

_BY_KIND: dict[str, Sequence[tuple[int, ...]]] = {
    # (rows, keys, waves, stages) of a tile, and the parts of its product, if it is not one
    "cuda": (
        *((128, 64, 4, 3), (128, 64, 8, 2), (64, 64, 4, 3), (64, 32, 4, 2), (32, 64, 4, 3), (32, 32, 4, 2)),
        *((16, 64, 4, 3), (16, 64, 4, 2), (16, 32, 4, 2), (16, 16, 4, 1)),
    ),
    "wave64": (
        *((128, 64, 4, 2), (128, 32, 4, 2), (128, 32, 4, 1), (64, 64, 4, 2), (64, 32, 4, 2), (64, 32, 4, 1)),
        *((32, 64, 4, 2), (32, 32, 4, 1), (16, 64, 4, 2), (16, 64, 4, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
    ),
    "wave32": (
        *((128, 32, 8, 1), (64, 32, 8, 1), (64, 32, 4, 1), (64, 16, 4, 1), (32, 32, 4, 1), (32, 16, 8, 1)),
        *((32, 16, 4, 1), (16, 64, 8, 1), (16, 32, 4, 2), (16, 32, 8, 1), (16, 32, 4, 1), (16, 16, 4, 1)),
        *((16, 16, 8, 1), (16, 16, 2, 1)),
    ),
    # The ones in one product fit RDNA4.
    "wave32_wide": (
        *((128, 32, 8, 1), (64, 32, 8, 1), (32, 32, 8, 1), (32, 32, 8, 1, 4), (16, 64, 8, 1), (16, 32, 8, 1, 4)),
        *((16, 16, 8, 1, 4), (16, 16, 4, 1, 4)),
    ),
}
