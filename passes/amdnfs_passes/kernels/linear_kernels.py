"""How linear layers run on a target: tile sizes by number of rows, and the compiled kernel.

Few rows (a decode step) read each weight once, in narrow column tiles, so that every compute unit has some. Many rows
(a prefill) want tiles as square as the registers allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from amdnfs_targets.quantized_layout import ElementType, Grouping, QuantizedLayout

from amdnfs_passes.kernels.provider import CompiledKernel, KernelTarget, Tiling, compile_kernel, element_name

_ENOUGH = 0.6
"""Workgroups for each compute unit that a large tile must leave. H200, decode of 1.1B: 88 workgroups of 64 columns on
132 units read 3.0 TB/s, more of narrower ones less; 64 workgroups of the smallest layers lose to 128."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearShape:
    """What the kernel needs to know of a group of linear layers."""

    num_rows: int
    """Rows of the input."""
    depth: int
    """Length of the contraction."""
    columns: tuple[int, ...]
    """Columns of each weight, one to three; two alike with a gate."""
    element: str
    """`f16` or `bf16`."""
    gate: str
    """Activation of the gate; empty without one."""
    eps: float | None
    """Of the RMS normalisation; None without one."""
    gain_offset: float
    """Added to the gain."""
    has_bias: bool
    """Whether each weight has a bias."""
    has_residual: bool
    """Whether something is added last."""
    layout: QuantizedLayout | None = None
    """How quantised weights are stored; None for weights of type `element`."""
    is_rounded: bool = False
    """Whether the input is rounded already, to the type of the weights."""

    @property
    def output_columns(self) -> tuple[int, ...]:
        """Columns of each output."""
        return self.columns[:1] if self.gate else self.columns


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearKernel:
    """A compiled kernel and its grid."""

    kernel: CompiledKernel
    """The kernel."""
    num_workgroups: int
    """Workgroups, in x."""


def build_linear(shape: LinearShape, target: KernelTarget) -> LinearKernel:
    """Compiles the kernel of `shape` for `target`.

    Raises:
        KernelError: If no tiling fits.
    """
    pointer = f"*{element_name(shape.element)}"
    count = len(shape.columns)
    layout = shape.layout
    stored = {f"weight{i}": pointer if layout is None else STORED[layout.element] for i in range(count)}
    if layout is not None:
        stored |= {f"scales{i}": f"*{element_name(layout.scale)}" for i in range(count)}
        stored |= {f"zeros{i}": "*i8" for i in range(count)} if layout.has_zeros else {}
    names = ["gain"] if shape.eps is not None else []
    names += [f"bias{i}" for i in range(count)] if shape.has_bias else []
    names += ["residual"] if shape.has_residual else []
    names += [f"out{i}" for i in range(len(shape.output_columns))]
    columns = (*shape.columns, 0, 0)[:3]
    x = {"x": pointer}
    if shape.is_rounded and layout is not None:
        x = {"x": STORED[layout.element], "x_largest": "*fp32"}
    kernel = compile_kernel(
        "linear",
        target,
        {**x, **stored, **dict.fromkeys(names, pointer), "num_rows": "i32"},
        {
            "COLUMNS0": columns[0],
            "COLUMNS1": columns[1],
            "COLUMNS2": columns[2],
            "DEPTH": shape.depth,
            "GATE": shape.gate,
            "EPS": shape.eps or 0.0,
            "GAIN_OFFSET": shape.gain_offset,
            "BITS": 16 if layout is None else layout.bits,
            "GROUPS": 1 if layout is None else layout.groups(shape.depth),
            "LARGEST": 0.0 if layout is None else layout.largest_activation,
            "IS_TENSOR_SCALE": layout is not None and layout.grouping is Grouping.TENSOR,
        },
        _candidates(shape, target),
    )
    return LinearKernel(kernel=kernel, num_workgroups=_num_workgroups(shape, kernel.tiling))


def _num_workgroups(shape: LinearShape, tiling: Tiling) -> int:
    sizes = dict(tiling.sizes)
    tiles = sum(-(-columns // sizes["COLUMNS"]) for columns in shape.output_columns)
    return tiles * -(-shape.num_rows // sizes["ROWS"])


def _candidates(shape: LinearShape, target: KernelTarget) -> list[Tiling]:
    """Tilings, best first: of the tallest that the rows fill, those that give every compute unit a tile."""
    rows = min(128, max(16, 1 << (shape.num_rows - 1).bit_length()))
    tilings = []
    while rows >= 16:
        table = _BY_ROWS[_kind(target)][rows]
        if shape.is_rounded:
            rounded = _ROUNDED.get((_kind(target), rows), table)
            # Two sums at a time leave registers for half the columns.
            table = [row for row in rounded if not shape.gate or row[0] <= _MOST_GATED] or rounded
        elif shape.layout is not None:
            table = _QUANTIZED.get((_kind(target), rows), table)
        level = [_tiling(rows, *rest) for rest in table if rest[1] <= max(64, shape.depth)]
        enough = _ENOUGH * target.num_compute_units
        filling = [item for item in level if _num_workgroups(shape, item) >= enough]
        tilings += filling
        if rows == 16:
            # Nothing fills the device: the smallest tiles come nearest.
            rest = [item for item in level if item not in filling]
            tilings += sorted(rest, key=lambda item: -_num_workgroups(shape, item))
        rows //= 2
    if shape.layout is not None and shape.layout.group_size > _LEAST_STEP and target.backend == "hip":
        # A step of the contraction stays in one group, so that its scale is applied exactly.
        size = shape.layout.group_size
        tilings = [_with_depths(item, min(size, dict(item.sizes)["DEPTHS"])) for item in tilings]
    return list(dict.fromkeys(tilings))


_LEAST_STEP = 32
"""Groups up to this size are taken several at a time: fewer int4 than that are no load of 16 bytes."""


def _with_depths(tiling: Tiling, depths: int) -> Tiling:
    sizes = tuple((name, depths if name == "DEPTHS" else size) for name, size in tiling.sizes)
    return replace(tiling, sizes=sizes)


def _tiling(rows: int, columns: int, depths: int, waves: int, stages: int) -> Tiling:
    band = 8 if rows >= 64 else 1
    return Tiling(
        sizes=(("ROWS", rows), ("COLUMNS", columns), ("DEPTHS", depths), ("BAND", band)),
        num_waves=waves,
        num_stages=stages,
    )


def _kind(target: KernelTarget) -> str:
    return "cuda" if target.backend == "cuda" else f"wave{target.wave_size}"


STORED = {
    ElementType.I4: "*i8",
    ElementType.I8: "*i8",
    ElementType.E4M3FN: "*fp8e4nv",
    ElementType.E4M3FNUZ: "*fp8e4b8",
}
"""Triton's pointer type for stored weights."""

_Row = tuple[int, int, int, int]
_BY_ROWS: dict[str, dict[int, Sequence[_Row]]] = {
    # (columns, depths, waves, stages) by rows of a tile. On AMD each lane reads 16 bytes of a weight at least.
    "wave64": {
        128: [(128, 64, 4, 2), (128, 64, 8, 2), (128, 32, 8, 2), (64, 64, 4, 2), (64, 32, 4, 2)],
        64: [(128, 64, 4, 2), (64, 64, 4, 2), (64, 64, 4, 1), (32, 64, 4, 1)],
        32: [(64, 128, 4, 2), (64, 64, 4, 2), (32, 128, 4, 1), (32, 64, 4, 1), (16, 128, 4, 1), (16, 64, 2, 1)],
        16: [(64, 128, 4, 2), (32, 128, 4, 2), (32, 128, 4, 1), (16, 128, 4, 2), (16, 128, 4, 1), (16, 64, 2, 1)],
    },
    "wave32": {
        128: [(128, 32, 8, 1), (128, 32, 8, 2), (64, 32, 8, 1), (64, 32, 4, 1)],
        64: [(64, 64, 4, 1), (64, 64, 8, 1), (64, 32, 4, 1), (32, 32, 4, 1)],
        32: [(64, 64, 4, 1), (32, 64, 4, 1), (32, 32, 4, 1), (16, 64, 4, 1)],
        16: [(32, 128, 4, 2), (32, 128, 4, 1), (16, 128, 4, 1), (16, 64, 4, 1), (16, 32, 2, 1)],
    },
    # H200, 1.1B shape, best of 150 to 300 tilings a layer: few rows 1.0 (QKV), 1.5 (O), 3.0 (gate and up), 2.0 (down)
    # and 3.7 (head) TB/s of weights; 2048 rows 487 (QKV) and 578 (O) TFLOP/s.
    "cuda": {
        128: [(256, 64, 8, 3), (128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3), (64, 32, 4, 2)],
        64: [(128, 64, 4, 3), (64, 64, 4, 3), (32, 64, 4, 2)],
        32: [(128, 128, 8, 3), (64, 128, 8, 3), (32, 128, 8, 4), (32, 64, 4, 2)],
        16: [(128, 128, 8, 3), (64, 128, 8, 4), (32, 128, 8, 4), (16, 512, 2, 4), (16, 128, 4, 4), (16, 64, 4, 2)],
    },
}

_QUANTIZED: dict[tuple[str, int], Sequence[_Row]] = {
    # H200, int8 and int4 in groups of 128: long steps, up to 1.7 times faster than those of f16.
    ("cuda", 16): [(64, 128, 8, 3), (32, 512, 4, 3), (16, 512, 2, 4), (16, 256, 2, 4), (16, 128, 4, 2)],
    ("cuda", 128): [(64, 128, 4, 2), (64, 64, 4, 3), (128, 128, 8, 3), (64, 64, 4, 2)],
}
"""Tables of quantised weights, by target and rows of a tile; without one those above."""

_ROUNDED: dict[tuple[str, int], Sequence[_Row]] = {
    # H200, 2048 rows, best of 108 tilings: 33 us for 5632 -> 2048 in int8 and 51 us in fp8 (67 us in f16), 90 and 103
    # us for a gate of 2048 -> 5632.
    ("cuda", 128): [(128, 128, 8, 3), (64, 128, 8, 3), (64, 128, 4, 3), (64, 64, 4, 3)],
}
"""Tables for rows that are rounded already."""
_MOST_GATED = 64
