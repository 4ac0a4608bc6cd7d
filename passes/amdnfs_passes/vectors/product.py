"""The CPU's form of a linear layer: one dispatch, written in vectors, whatever its weight is stored as.

A workgroup makes all rows of some columns of the result. Its inner loop holds sums for `m` rows and `n` columns in
registers. It loads a vector of each of the `n` rows of the weight, widens it where it must, and multiplies it with `m`
rows of `x`. A sum is a vector along the depth; its elements are added up at the end. So the weight is read as it lies
on disk, once, from its beginning to its end.

    for rows, m at a time                      they stay in the first cache while the columns go by
      for columns, n at a time                 those of a workgroup stay in the second cache
        for groups
          for the depth of a group, a step at a time

The last `m` rows and `n` columns may overlap those before: they are computed twice, to the same values.

Why not linalg: IREE 3.13.0 keeps the widened weight of more than one row in memory on the CPU, and makes no use of
instructions that multiply pairs of bf16; benchmarks/README.md has the times.

Names in the text: `%x.t`, `%w.t`, ... are the workgroup's tensors, `%m.<i>` and `%n.<j>` the row and the column of a
sum, `%sum.<i>.<j>` the sum.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from amdnfs_passes.mlir_text import Operand, convert, tensor

_DISPATCH = "!iree_tensor_ext.dispatch.tensor"
_MOST_COLUMNS = 64
"""Columns of a workgroup: enough work to hide its start, few enough to share a small layer between threads."""
_PANEL_BYTES = 512 * 1024
"""Part of a weight that a workgroup goes through once for every `m` rows: it should stay in the second cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vectors:
    """What a processor computes in."""

    lanes: int
    """How many f32 a vector register holds."""
    registers: int
    """How many vector registers there are."""
    has_bf16_pairs: bool = False
    """Whether it adds products of pairs of bf16 to f32 (AVX512-BF16)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiles:
    """Sizes of the loops."""

    columns: int
    """Columns of a workgroup; divides the columns."""
    m: int
    """Rows of `x` at a time."""
    n: int
    """Columns at a time."""
    lanes: int
    """Elements of a vector of the weight, once widened."""
    unroll: int
    """Such vectors a step; `lanes * unroll` divides a group."""

    @property
    def sums(self) -> list[tuple[int, int]]:
        """Row and column of each sum."""
        return [(row, column) for row in range(self.m) for column in range(self.n)]


class VectorForm(ABC):
    """What a layer multiplies, and how; one instance a layer."""

    rows: int
    """Rows of `x` and of the result."""
    columns: int
    """Columns of the result: rows of the weight."""
    depth: int
    """Elements of a sum."""
    groups: int = 1
    """Parts of the depth with scales of their own."""
    element: str
    """Type of the result and of the bias: `f32`, `f16` or `bf16`."""
    x_element: str
    """Type of `x` as it is read."""
    sum_element: str = "f32"
    """Type of an element of a sum."""
    has_bias: bool
    """Whether `[columns]` are added."""
    scales_groups: bool = False
    """Whether the sum over a group is scaled, not the weight."""

    @abstractmethod
    def tiles(self) -> Tiles:
        """Sizes of the loops."""

    @abstractmethod
    def inputs(self) -> list[Operand]:
        """What is read beside `x` and the bias: `dims` is the name within."""

    @abstractmethod
    def sum_type(self, tiles: Tiles) -> str:
        """The vector type of a sum."""

    def part_type(self, tiles: Tiles) -> str:
        """The vector type of a sum over a group; another one than `sum_type` only if `scales_groups`."""
        return self.sum_type(tiles)

    def constants(self, tiles: Tiles) -> Iterator[str]:
        """Constants of the form's own."""
        yield from ()

    def is_shared(self, item: Operand) -> bool:
        """Whether all columns read the whole of `item`."""
        return False

    def column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """What is made once for a column."""
        yield from ()

    def group_column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """What is made once for a group of a column."""
        yield from ()

    @abstractmethod
    def weight(self, tiles: Tiles, index: int, n: int) -> Iterator[str]:
        """Defines `%w.<index>.<n>`, a vector of the weight at `%k.<index>`."""

    @abstractmethod
    def row(self, tiles: Tiles, index: int, m: int) -> Iterator[str]:
        """Defines `%x.<index>.<m>`, a vector of a row at `%k.<index>`."""

    @abstractmethod
    def multiply(self, tiles: Tiles, name: str, x: str, w: str, into: str) -> Iterator[str]:
        """Defines `%new.<name>`: the sum `into` with one more product."""

    def scale_group(self, tiles: Tiles, m: int, n: int, part: str, outer: str) -> Iterator[str]:
        """Defines `%grown.<m>.<n>`: `outer` plus a group's sum `part` times its scale, if `scales_groups`."""
        yield from ()

    def finish(self, tiles: Tiles, index: int, m: int, n: int) -> Iterator[str]:
        """Defines `%scaled.<index>` in f32 from `%added.<index>`, the elements of a sum added up."""
        yield convert(f"%scaled.{index}", f"%added.{index}", "f32", "f32")


def most_columns(form: VectorForm, row_bytes: int) -> int:
    """Columns of a workgroup.

    Args:
        form: The layer.
        row_bytes: Stored bytes of a column's weight.
    """
    fitting = _MOST_COLUMNS if form.rows == 1 else max(8, min(_MOST_COLUMNS, _PANEL_BYTES // max(row_bytes, 1)))
    most = min(fitting, form.columns)
    return next(size for size in range(most, 0, -1) if form.columns % size == 0)


def dispatch_text(form: VectorForm, rows: str, bias: str | None) -> str:
    """Lines that define `%result`, `[rows, columns]`.

    Args:
        form: The layer.
        rows: Name of `x` as a matrix, of `form.x_element`.
        bias: Name of the bias, if there is one.
    """
    tiles = form.tiles()
    result = tensor((form.rows, form.columns), form.element)
    inputs = [Operand(value=rows, shape=(form.rows, form.depth), element=form.x_element, dims="x"), *form.inputs()]
    if bias is not None:
        inputs.append(Operand(value=bias, shape=(form.columns,), element=form.element, dims="bias"))
    types = ", ".join(item.type for item in inputs)
    references = [f"%{item.dims}.ref: {_DISPATCH}<readonly:{item.type}>" for item in inputs]
    references.append(f"%y.ref: {_DISPATCH}<writeonly:{result}>")
    lines = [
        f"%result = flow.dispatch.workgroups({', '.join(item.value for item in inputs)}) : ({types}) -> {result} =",
        f"({', '.join(references)}) {{",
        *_constants(form, tiles),
        *form.constants(tiles),
        *_loads(form, inputs, tiles),
        *_loops(form, tiles),
        _store(form, tiles),
        "flow.return",
        "} count() -> (index, index, index) {",
        f"%parts = arith.constant {form.columns // tiles.columns} : index",
        "%one = arith.constant 1 : index",
        "flow.return %parts, %one, %one : index, index, index",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _constants(form: VectorForm, tiles: Tiles) -> Iterator[str]:
    sizes = {"zero": 0, "one": 1, "two": 2, "groups": form.groups, "group": form.depth // form.groups}
    sizes |= {"step": tiles.lanes * tiles.unroll, "num_rows": form.rows, "columns": tiles.columns}
    sizes |= {"m_step": tiles.m, "n_step": tiles.n, "m_last": form.rows - tiles.m, "n_last": tiles.columns - tiles.n}
    sizes |= {f"c{index}": index for index in range(max(tiles.m, tiles.n))}
    for name, size in sizes.items():
        yield f"%{name} = arith.constant {size} : index"
    for name, kind in (("nothing", form.sum_type(tiles)), ("no_part", form.part_type(tiles))):
        yield f"%{name} = arith.constant dense<{'0' if kind.endswith('xi32>') else '0.0'}> : {kind}"


def _loads(form: VectorForm, inputs: Sequence[Operand], tiles: Tiles) -> Iterator[str]:
    """The workgroup's part of what the dispatch reads: all rows of `x`, and its columns of everything else."""
    yield "%id = flow.dispatch.workgroup.id[0] : index"
    yield "%first = arith.muli %id, %columns : index"
    for item in inputs:
        is_whole = item.dims == "x" or form.is_shared(item)
        begins = ["0" if is_whole or index else "%first" for index in range(len(item.shape))]
        sizes = item.shape if is_whole else (tiles.columns, *item.shape[1:])
        steps = ", ".join("1" for _ in sizes)
        yield (
            f"%{item.dims}.t = iree_tensor_ext.dispatch.tensor.load %{item.dims}.ref, offsets = [{', '.join(begins)}], "
            f"sizes = [{', '.join(str(size) for size in sizes)}], strides = [{steps}] : "
            f"{_DISPATCH}<readonly:{item.type}> -> {tensor(sizes, item.element)}"
        )


def _loops(form: VectorForm, tiles: Tiles) -> Iterator[str]:
    """Makes `%done`, `[rows, columns of a workgroup]`."""
    kind = tensor((form.rows, tiles.columns), form.element)
    yield f"%empty = tensor.empty() : {kind}"
    yield f"%done = scf.for %m = %zero to %num_rows step %m_step iter_args(%y.m = %empty) -> {kind} {{"
    yield "%m.first = arith.minui %m, %m_last : index"
    for m in range(tiles.m):
        yield f"%m.{m} = arith.addi %m.first, %c{m} : index"
    yield f"%y.columns = scf.for %n = %zero to %columns step %n_step iter_args(%y.n = %y.m) -> {kind} {{"
    yield "%n.first = arith.minui %n, %n_last : index"
    for n in range(tiles.n):
        yield f"%n.{n} = arith.addi %n.first, %c{n} : index"
        yield from form.column(tiles, n)
    yield from _accumulate(form, tiles)
    target = "%y.n"
    for index, (m, n) in enumerate(tiles.sums):
        yield from _finish(form, tiles, index, m, n)
        yield f"%y.{index} = tensor.insert %rounded.{index} into {target}[%m.{m}, %n.{n}] : {kind}"
        target = f"%y.{index}"
    for value in (target, "%y.columns"):
        yield f"scf.yield {value} : {kind}\n}}"


def _accumulate(form: VectorForm, tiles: Tiles) -> Iterator[str]:
    """Defines `%total#i`, the vector of the i-th sum."""
    count = len(tiles.sums)
    kinds, part_kinds = (", ".join([kind] * count) for kind in (form.sum_type(tiles), form.part_type(tiles)))
    outer = ", ".join(f"%outer.{m}.{n} = %nothing" for m, n in tiles.sums)
    inner = ", ".join(
        f"%sum.{m}.{n} = {'%no_part' if form.scales_groups else f'%outer.{m}.{n}'}" for m, n in tiles.sums
    )
    yield f"%total:{count} = scf.for %g = %zero to %groups step %one iter_args({outer}) -> ({kinds}) {{"
    yield "%begin = arith.muli %g, %group : index"
    for n in range(tiles.n):
        yield from form.group_column(tiles, n)
    yield f"%part:{count} = scf.for %k = %zero to %group step %step iter_args({inner}) -> ({part_kinds}) {{"
    yield "%place = arith.addi %begin, %k : index"
    sums = {(m, n): f"%sum.{m}.{n}" for m, n in tiles.sums}
    for index in range(tiles.unroll):
        yield f"%off.{index} = arith.constant {index * tiles.lanes} : index"
        yield f"%k.{index} = arith.addi %place, %off.{index} : index"
        for n in range(tiles.n):
            yield from form.weight(tiles, index, n)
        for m in range(tiles.m):
            yield from form.row(tiles, index, m)
            for n in range(tiles.n):
                yield from form.multiply(tiles, f"{index}.{m}.{n}", f"%x.{index}.{m}", f"%w.{index}.{n}", sums[m, n])
                sums[m, n] = f"%new.{index}.{m}.{n}"
    yield f"scf.yield {', '.join(sums.values())} : {part_kinds}"
    yield "}"
    parts = [f"%part#{index}" for index in range(count)]
    if form.scales_groups:
        for part, (m, n) in zip(parts, tiles.sums, strict=True):
            yield from form.scale_group(tiles, m, n, part, f"%outer.{m}.{n}")
        parts = [f"%grown.{m}.{n}" for m, n in tiles.sums]
    yield f"scf.yield {', '.join(parts)} : {kinds}"
    yield "}"


def _finish(form: VectorForm, tiles: Tiles, index: int, m: int, n: int) -> Iterator[str]:
    """Defines `%rounded.<index>`, a sum in the type of the result: times its scales, plus its bias."""
    yield f"%added.{index} = vector.reduction <add>, %total#{index} : {form.sum_type(tiles)} into {form.sum_element}"
    yield from form.finish(tiles, index, m, n)
    value = f"%scaled.{index}"
    if form.has_bias:
        yield f"%shift.{index} = tensor.extract %bias.t[%n.{n}] : {tensor((tiles.columns,), form.element)}"
        yield convert(f"%wide_shift.{index}", f"%shift.{index}", form.element, "f32")
        yield f"%shifted.{index} = arith.addf {value}, %wide_shift.{index} : f32"
        value = f"%shifted.{index}"
    yield convert(f"%rounded.{index}", value, "f32", form.element)


def _store(form: VectorForm, tiles: Tiles) -> str:
    part, whole = (tensor((form.rows, size), form.element) for size in (tiles.columns, form.columns))
    return (
        f"iree_tensor_ext.dispatch.tensor.store %done, %y.ref, offsets = [0, %first], "
        f"sizes = [{form.rows}, {tiles.columns}], strides = [1, 1] : {part} -> {_DISPATCH}<writeonly:{whole}>"
    )
