"""The inner loops of the CPU's form of a quantised linear layer; `vector_template.py` says where they stand.

Names in the text: `%x.t`, `%data.t`, `%scales.t`, `%zeros.t`, `%bias.t`, `%largest.t` are the workgroup's tensors,
`%m.<i>` and `%n.<j>` the row and the column of a sum, `%sum.<i>.<j>` the sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amdnfs_targets.quantized_layout import Activations, ElementType, Grouping

from amdnfs_passes.quantize.generic_text import convert, tensor
from amdnfs_passes.quantize.operands import QuantizedLinear

_MOST_COLUMNS = 64
"""Columns of a workgroup: enough work to hide its start, few enough to share a small layer between threads."""


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

    @classmethod
    def choose(cls, linear: QuantizedLinear, lanes: int, registers: int) -> Tiles:
        """Sizes for a processor that has `registers` vector registers of `lanes` f32."""
        group = linear.depth // linear.groups
        width = min(group & -group, 2 * lanes if is_integer(linear) else lanes)
        # More of int4 at a time spills registers: 162 ms instead of 110 for 128 rows on two Zen 5 cores.
        most = 2 if linear.layout.element is ElementType.I4 and linear.rows > 1 else 4
        columns = next(size for size in range(min(_MOST_COLUMNS, linear.columns), 0, -1) if linear.columns % size == 0)
        return cls(
            columns=columns,
            m=min(linear.rows, registers // 4),
            n=min(4 if linear.rows == 1 else 2, columns),
            lanes=width,
            unroll=next(count for count in (most, 2, 1) if group % (width * count) == 0),
        )

    @property
    def sums(self) -> list[tuple[int, int]]:
        """Row and column of each sum."""
        return [(row, column) for row in range(self.m) for column in range(self.n)]


def is_integer(linear: QuantizedLinear) -> bool:
    """Whether both operands are int8."""
    return linear.layout.activations is Activations.ROW_I8


def sum_type(linear: QuantizedLinear, tiles: Tiles) -> str:
    """Type of a sum: neighbours of a product of integers are added at once, as `vpmaddwd` does."""
    return f"vector<{max(tiles.lanes // 2, 1)}xi32>" if is_integer(linear) else f"vector<{tiles.lanes}xf32>"


def accumulate(linear: QuantizedLinear, tiles: Tiles) -> Iterator[str]:
    """Defines `%total#i`, the vector of the i-th sum."""
    kind, count = sum_type(linear, tiles), len(tiles.sums)
    kinds = ", ".join([kind] * count)
    outer = ", ".join(f"%outer.{m}.{n} = %nothing" for m, n in tiles.sums)
    inner = ", ".join(f"%sum.{m}.{n} = %outer.{m}.{n}" for m, n in tiles.sums)
    yield f"%total:{count} = scf.for %g = %zero to %groups step %one iter_args({outer}) -> ({kinds}) {{"
    yield "%begin = arith.muli %g, %group : index"
    if linear.layout.grouping is Grouping.GROUP:
        yield from _group_columns(linear, tiles)
    yield f"%part:{count} = scf.for %k = %zero to %group step %step iter_args({inner}) -> ({kinds}) {{"
    yield "%place = arith.addi %begin, %k : index"
    sums = {(m, n): f"%sum.{m}.{n}" for m, n in tiles.sums}
    for index in range(tiles.unroll):
        yield f"%off.{index} = arith.constant {index * tiles.lanes} : index"
        yield f"%k.{index} = arith.addi %place, %off.{index} : index"
        for n in range(tiles.n):
            yield from _weight(linear, tiles, index, n)
        for m in range(tiles.m):
            yield from _row(linear, tiles, index, m)
            for n in range(tiles.n):
                yield from _multiply(
                    linear, tiles, f"{index}.{m}.{n}", f"%x.{index}.{m}", f"%w.{index}.{n}", sums[m, n]
                )
                sums[m, n] = f"%new.{index}.{m}.{n}"
    yield f"scf.yield {', '.join(sums.values())} : {kinds}"
    yield "}"
    yield f"scf.yield {', '.join(f'%part#{index}' for index in range(count))} : {kinds}"
    yield "}"


def _group_columns(linear: QuantizedLinear, tiles: Tiles) -> Iterator[str]:
    """Defines `%scale.<n>` and, with zero points, `%zero.<n>`: of a group, as vectors."""
    vector = f"vector<{tiles.lanes}x{{}}>"
    shape = (tiles.columns, linear.groups)
    for n in range(tiles.n):
        yield f"%stored.{n} = tensor.extract %scales.t[%n.{n}, %g] : {tensor(shape, linear.layout.scale)}"
        yield convert(f"%wide.{n}", f"%stored.{n}", linear.layout.scale, "f32")
        yield f"%scale.{n} = vector.broadcast %wide.{n} : f32 to {vector.format('f32')}"
        if linear.zeros is not None:
            yield from zero_column(n, "%g", shape, vector.format("i32"))


def zero_column(n: int, group: str, shape: tuple[int, int], vector: str) -> Iterator[str]:
    """Defines `%zero.<n>`, the zero point of a column as a vector."""
    yield f"%point.{n} = tensor.extract %zeros.t[%n.{n}, {group}] : {tensor(shape, 'i8')}"
    yield f"%long.{n} = arith.extsi %point.{n} : i8 to i32"
    yield f"%zero.{n} = vector.broadcast %long.{n} : i32 to {vector}"


def _weight(linear: QuantizedLinear, tiles: Tiles, index: int, n: int) -> Iterator[str]:
    """Defines `%w.<index>.<n>`: a vector of the weight, widened, less its zero points, times its own scales."""
    lanes, layout, name = tiles.lanes, linear.layout, f"{index}.{n}"
    source = tensor((tiles.columns, linear.layout.data_shape(1, linear.depth)[1]), "i8")
    if layout.element is ElementType.I4:
        yield from _nibbles(tiles, index, n, source)
    else:
        read = f"vector.transfer_read %data.t[%n.{n}, %k.{index}], %no_byte {{in_bounds = [true]}}"
        yield f"%byte.{name} = {read} : {source}, vector<{lanes}xi8>"
    if layout.is_float:
        yield f"%short.{name} = arith.extsi %byte.{name} : vector<{lanes}xi8> to vector<{lanes}xi16>"
        yield f"%moved.{name} = arith.shli %short.{name}, %seven : vector<{lanes}xi16>"
        yield f"%bits.{name} = arith.andi %moved.{name}, %no_top_exponent : vector<{lanes}xi16>"
        yield f"%half.{name} = arith.bitcast %bits.{name} : vector<{lanes}xi16> to vector<{lanes}xf16>"
        yield f"%w.{name} = arith.extf %half.{name} : vector<{lanes}xf16> to vector<{lanes}xf32>"
        return
    whole = f"%w.{name}" if is_integer(linear) else f"%whole.{name}"
    yield f"{whole} = arith.extsi %byte.{name} : vector<{lanes}xi8> to vector<{lanes}xi32>"
    if is_integer(linear):
        return
    if linear.zeros is not None:
        yield f"%moved.{name} = arith.subi {whole}, %zero.{n} : vector<{lanes}xi32>"
        whole = f"%moved.{name}"
    is_scaled = layout.grouping is Grouping.GROUP
    result = f"%float.{name}" if is_scaled else f"%w.{name}"
    yield f"{result} = arith.sitofp {whole} : vector<{lanes}xi32> to vector<{lanes}xf32>"
    if is_scaled:
        yield f"%w.{name} = arith.mulf %float.{name}, %scale.{n} : vector<{lanes}xf32>"


def _nibbles(tiles: Tiles, index: int, n: int, source: str) -> Iterator[str]:
    """Defines `%byte.<index>.<n>` from int4; two vectors at a time where the step has two, which loads wider."""
    pair = 2 if tiles.unroll > 1 else 1
    lanes, count, name = tiles.lanes, tiles.lanes * pair // 2, f"{index}.{n}"
    packed, unpacked = f"vector<{count}xi8>", f"vector<{2 * count}xi8>"
    if index % pair == 0:
        yield f"%half_k.{name} = arith.divui %k.{index}, %two : index"
        read = f"vector.transfer_read %data.t[%n.{n}, %half_k.{name}], %no_byte {{in_bounds = [true]}}"
        yield f"%packed.{name} = {read} : {source}, {packed}"
        yield f"%up.{name} = arith.shli %packed.{name}, %four : {packed}"
        yield f"%low.{name} = arith.shrsi %up.{name}, %four : {packed}"
        yield f"%high.{name} = arith.shrsi %packed.{name}, %four : {packed}"
        yield f"%both.{name} = vector.interleave %low.{name}, %high.{name} : {packed} -> {unpacked}"
    first, offset = f"%both.{index - index % pair}.{n}", index % pair * lanes
    cut = f"offsets = [{offset}], sizes = [{lanes}], strides = [1]"
    yield f"%byte.{name} = vector.extract_strided_slice {first} {cut} : {unpacked} to vector<{lanes}xi8>"


def _row(linear: QuantizedLinear, tiles: Tiles, index: int, m: int) -> Iterator[str]:
    """Defines `%x.<index>.<m>`: a vector of a row, in f32 or i32."""
    element = "i8" if is_integer(linear) else linear.element
    source, vector = tensor((linear.rows, linear.depth), element), f"vector<{tiles.lanes}x{{}}>"
    padding = "%no_byte" if is_integer(linear) else "%no_x"
    read = f"vector.transfer_read %x.t[%m.{m}, %k.{index}], {padding} {{in_bounds = [true]}}"
    yield f"%raw.{index}.{m} = {read} : {source}, {vector.format(element)}"
    if is_integer(linear):
        yield f"%x.{index}.{m} = arith.extsi %raw.{index}.{m} : {vector.format('i8')} to {vector.format('i32')}"
    else:
        yield convert(f"%x.{index}.{m}", f"%raw.{index}.{m}", element, "f32", vector)


def _multiply(linear: QuantizedLinear, tiles: Tiles, name: str, x: str, w: str, into: str) -> Iterator[str]:
    """Defines `%new.<name>`: a sum with one more product."""
    kind = sum_type(linear, tiles)
    if not is_integer(linear):
        yield f"%new.{name} = vector.fma {x}, {w}, {into} : {kind}"
        return
    product = f"vector<{tiles.lanes}xi32>"
    yield f"%product.{name} = arith.muli {x}, {w} : {product}"
    added = f"%product.{name}"
    if tiles.lanes > 1:
        yield f"%even.{name}, %odd.{name} = vector.deinterleave %product.{name} : {product} -> {kind}"
        yield f"%pair.{name} = arith.addi %even.{name}, %odd.{name} : {kind}"
        added = f"%pair.{name}"
    yield f"%new.{name} = arith.addi {into}, {added} : {kind}"
