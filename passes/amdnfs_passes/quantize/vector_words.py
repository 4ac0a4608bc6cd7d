"""A layer of int8 or int4 beside bf16 for `vectors/product.py`: rows and weight are multiplied as words of 16 bits.

Neighbours are multiplied and added up by one instruction, in integers; a group's sum is converted once. A weight is
widened by one instruction (int8), or by three for two vectors (int4). What makes words of the rows, and how exact they
are, is in `vector_round.py`.

Int4: a byte holds two neighbours of a row. A load of bytes gives a vector of even elements and one of odd ones, and the
words of the rows lie in that order, too.

Why not `vector_form.py`: widening to f32 and narrowing to bf16 again takes longer than reading the weight does.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_targets.quantized_layout import Activations, ElementType, Grouping

from amdnfs_passes.mlir_text import Operand, convert, tensor
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.vectors.product import Tiles, VectorForm, Vectors, most_columns

_MULTIPLY = {16: "llvm.x86.avx512.pmaddw.d.512", 8: "llvm.x86.avx2.pmadd.wd"}
"""Adds products of neighbours, by the f32 of a register. Source: Intel SDM, VPMADDWD. With the addition that follows,
LLVM makes one instruction of it where the processor has one (AVX512-VNNI)."""
_LONGEST = 512
"""Most elements of a group of a layer with a scale a channel: sums of 2^9 products of 2^15 and 2^8 fit 32 bits."""


def takes_words(linear: QuantizedLinear, vectors: Vectors) -> bool:
    """Whether `linear` can be multiplied as words."""
    layout = linear.layout
    is_plain = layout.activations is Activations.FLOAT and not layout.is_float and linear.element == "bf16"
    step = 2 * vectors.lanes * (2 if layout.element is ElementType.I4 else 1)
    return is_plain and vectors.lanes in _MULTIPLY and word_group(linear) % step == 0


def word_group(linear: QuantizedLinear) -> int:
    """Elements of a row that share a unit: the groups of the weight, or else a power of two."""
    if linear.layout.grouping is Grouping.GROUP:
        return linear.layout.group_size
    return min(linear.depth & -linear.depth, _LONGEST)


class WordForm(VectorForm):
    """Int8 or int4, times words."""

    x_element = "i16"
    scales_groups = True

    def __init__(self, linear: QuantizedLinear, vectors: Vectors) -> None:
        """Describes `linear` for a processor that computes in `vectors`."""
        self.rows, self.columns, self.depth = linear.rows, linear.columns, linear.depth
        self.layout, self.element, self.has_bias = linear.layout, linear.element, linear.bias is not None
        self._group, self._vectors, self._num_scales = word_group(linear), vectors, linear.groups
        self.groups = self.depth // self._group
        self.is_int4 = linear.layout.element is ElementType.I4
        self._is_grouped = linear.layout.grouping is Grouping.GROUP

    def tiles(self) -> Tiles:
        """See the base class. Few rows wait for memory, which reads one stream faster than several."""
        lanes = 2 * self._vectors.lanes
        columns = most_columns(self, self.layout.data_shape(1, self.depth)[1])
        m, n = (self.rows, 1) if self.rows <= 3 else (4 if self._vectors.registers >= 32 else 2, 4)
        counts = (4, 2, 1) if m == 1 and not self.is_int4 else (2, 1)
        return Tiles(
            columns=columns,
            m=m,
            n=min(n, columns),
            lanes=lanes,
            unroll=next(count for count in counts if self._group % (lanes * count) == 0),
        )

    def inputs(self) -> list[Operand]:
        """See the base class."""
        scales = self.layout.scales_shape(self.columns, self.depth)
        data = self.layout.data_shape(self.columns, self.depth)
        found = [
            Operand(value="%data", shape=data, element="i8", dims="data"),
            Operand(value="%scales", shape=scales, element=self.layout.scale, dims="scales"),
            Operand(value="%units", shape=(self.rows, self.groups), element="f32", dims="units"),
        ]
        if self.layout.has_zeros:
            found.append(Operand(value="%zeros", shape=scales, element="i8", dims="zeros"))
        return found

    def is_shared(self, item: Operand) -> bool:
        """See the base class."""
        return item.dims == "units" or item.shape == (1, 1)

    def sum_type(self, tiles: Tiles) -> str:
        """See the base class."""
        return f"vector<{self._vectors.lanes}xf32>"

    def part_type(self, tiles: Tiles) -> str:
        """See the base class."""
        return f"vector<{self._vectors.lanes}xi32>"

    def constants(self, tiles: Tiles) -> Iterator[str]:
        """See the base class."""
        yield "%no_byte = arith.constant 0 : i8"
        yield "%no_word = arith.constant 0 : i16"
        for name, count in (("four", 4), ("twelve", 12)):
            yield f"%{name} = arith.constant dense<{count}> : vector<{tiles.lanes}xi16>"

    def column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if self.layout.has_zeros and not self._is_grouped:
            yield from self._zero_point(tiles, n, "%zero")

    def group_column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if self.layout.has_zeros and self._is_grouped:
            yield from self._zero_point(tiles, n, "%g")

    def _zero_point(self, tiles: Tiles, n: int, group: str) -> Iterator[str]:
        """Defines `%zero.<n>`, the zero point of a column as a vector."""
        shape = tensor((tiles.columns, self._num_scales), "i8")
        yield f"%point.{n} = tensor.extract %zeros.t[%n.{n}, {group}] : {shape}"
        yield f"%long.{n} = arith.extsi %point.{n} : i8 to i16"
        yield f"%zero.{n} = vector.broadcast %long.{n} : i16 to vector<{tiles.lanes}xi16>"

    def weight(self, tiles: Tiles, index: int, n: int) -> Iterator[str]:
        """See the base class: widened, less its zero point."""
        lanes, name = tiles.lanes, f"{index}.{n}"
        words, result = f"vector<{lanes}xi16>", f"%{'raw' if self.layout.has_zeros else 'w'}.{name}"
        if index % 2 == 0 or not self.is_int4:
            place = f"%k.{index}"
            if self.is_int4:
                place = f"%half.{name}"
                yield f"{place} = arith.divui %k.{index}, %two : index"
            source = tensor((tiles.columns, self.layout.data_shape(1, self.depth)[1]), "i8")
            read = f"vector.transfer_read %data.t[%n.{n}, {place}], %no_byte {{in_bounds = [true]}}"
            yield f"%bytes.{name} = {read} : {source}, vector<{lanes}xi8>"
            wide = f"%wide.{name}" if self.is_int4 else result
            yield f"{wide} = arith.extsi %bytes.{name} : vector<{lanes}xi8> to {words}"
        if self.is_int4 and index % 2 == 0:
            yield f"%top.{name} = arith.shli %wide.{name}, %twelve : {words}"
            yield f"{result} = arith.shrsi %top.{name}, %twelve : {words}"
        elif self.is_int4:
            yield f"{result} = arith.shrsi %wide.{index - 1}.{n}, %four : {words}"
        if self.layout.has_zeros:
            yield f"%w.{name} = arith.subi {result}, %zero.{n} : {words}"

    def row(self, tiles: Tiles, index: int, m: int) -> Iterator[str]:
        """See the base class."""
        read = f"vector.transfer_read %x.t[%m.{m}, %k.{index}], %no_word {{in_bounds = [true]}}"
        yield f"%x.{index}.{m} = {read} : {tensor((self.rows, self.depth), 'i16')}, vector<{tiles.lanes}xi16>"

    def multiply(self, tiles: Tiles, name: str, x: str, w: str, into: str) -> Iterator[str]:
        """See the base class."""
        words, kind = f"vector<{tiles.lanes}xi16>", self.part_type(tiles)
        call = f'llvm.call_intrinsic "{_MULTIPLY[self._vectors.lanes]}"({x}, {w})'
        yield f"%product.{name} = {call} : ({words}, {words}) -> {kind}"
        yield f"%new.{name} = arith.addi {into}, %product.{name} : {kind}"

    def scale_group(self, tiles: Tiles, m: int, n: int, part: str, outer: str) -> Iterator[str]:
        """See the base class: times the unit of the row, and the scale of the column if it has one a group."""
        kind, name = self.sum_type(tiles), f"{m}.{n}"
        yield f"%float.{name} = arith.sitofp {part} : {self.part_type(tiles)} to {kind}"
        yield f"%unit.{name} = tensor.extract %units.t[%m.{m}, %g] : {tensor((self.rows, self.groups), 'f32')}"
        yield f"%units.{name} = vector.broadcast %unit.{name} : f32 to {kind}"
        factor = f"%units.{name}"
        if self._is_grouped:
            yield from self._scale(tiles, name, n, "%g")
            yield f"%scales.{name} = vector.broadcast %scale.{name} : f32 to {kind}"
            yield f"%factor.{name} = arith.mulf %units.{name}, %scales.{name} : {kind}"
            factor = f"%factor.{name}"
        yield f"%grown.{name} = vector.fma %float.{name}, {factor}, {outer} : {kind}"

    def finish(self, tiles: Tiles, index: int, m: int, n: int) -> Iterator[str]:
        """See the base class: times the column's scale, if it is one."""
        if self._is_grouped:
            yield from super().finish(tiles, index, m, n)
            return
        yield from self._scale(tiles, f"own.{index}", n, "%zero")
        yield f"%scaled.{index} = arith.mulf %added.{index}, %scale.own.{index} : f32"

    def _scale(self, tiles: Tiles, name: str, n: int, group: str) -> Iterator[str]:
        """Defines `%scale.<name>`, a scale in f32."""
        is_shared = self.layout.grouping is Grouping.TENSOR
        shape = (1, 1) if is_shared else (tiles.columns, self._num_scales)
        place = "%zero, %zero" if is_shared else f"%n.{n}, {group}"
        yield f"%stored.{name} = tensor.extract %scales.t[{place}] : {tensor(shape, self.layout.scale)}"
        yield convert(f"%scale.{name}", f"%stored.{name}", self.layout.scale, "f32")
