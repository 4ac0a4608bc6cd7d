"""A quantised linear layer for `vectors/product.py`: the weight is widened in registers, less its zero points.

Rows of bf16 are multiplied in pairs where the processor can: every int8 is a bf16.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_targets.quantized_layout import Activations, ElementType, Grouping

from amdnfs_passes.mlir_text import Operand, convert, tensor
from amdnfs_passes.quantize.generic_text import LARGEST_I8
from amdnfs_passes.quantize.linalg_template import FP8_FACTOR
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.vectors.bf16_pairs import dot_pairs, narrow_pairs
from amdnfs_passes.vectors.product import Tiles, VectorForm, Vectors, most_columns


class QuantizedForm(VectorForm):
    """A layer whose weight is stored in 8 or 4 bits."""

    def __init__(self, linear: QuantizedLinear, vectors: Vectors) -> None:
        """Describes `linear` for a processor that computes in `vectors`."""
        self.rows, self.columns, self.depth, self.groups = linear.rows, linear.columns, linear.depth, linear.groups
        self.layout, self.element, self.has_bias = linear.layout, linear.element, linear.bias is not None
        self.is_integer = linear.layout.activations is Activations.ROW_I8
        self.x_element = "i8" if self.is_integer else linear.element
        self.sum_element = "i32" if self.is_integer else "f32"
        self._group = linear.depth // linear.groups
        self._is_grouped = self.layout.grouping is Grouping.GROUP
        self._vectors = vectors
        self._has_pairs = (
            linear.element == "bf16"
            and vectors.has_bf16_pairs
            and not self.is_integer
            and not linear.layout.is_float
            and self._group % (2 * vectors.lanes) == 0
        )

        # Times the scale, a bf16 would be rounded. One row has registers to spare for sums of a group.
        self.scales_groups = self._is_grouped and (self._has_pairs or self.rows == 1)

    def tiles(self) -> Tiles:
        """See the base class."""
        lanes = self._vectors.lanes
        is_wide = self.is_integer or self._has_pairs
        width = min(self._group & -self._group, 2 * lanes if is_wide else lanes)
        # More of int4 at a time spills registers: 162 ms instead of 110 for 128 rows on two Zen 5 cores.
        most = 2 if self.layout.element is ElementType.I4 and self.rows > 1 else 4
        columns = most_columns(self, self.layout.data_shape(1, self.depth)[1])
        return Tiles(
            columns=columns,
            m=min(self.rows, self._vectors.registers // 4),
            n=min(1 if self.rows == 1 else 2, columns),
            lanes=width,
            unroll=next(count for count in (most, 2, 1) if self._group % (width * count) == 0),
        )

    def inputs(self) -> list[Operand]:
        """See the base class."""
        scales = self.layout.scales_shape(self.columns, self.depth)
        data = self.layout.data_shape(self.columns, self.depth)
        found = [
            Operand(value="%data", shape=data, element="i8", dims="data"),
            Operand(value="%scales", shape=scales, element=self.layout.scale, dims="scales"),
        ]
        if self.layout.has_zeros:
            found.append(Operand(value="%zeros", shape=scales, element="i8", dims="zeros"))
        if self.is_integer:
            found.append(Operand(value="%largest", shape=(self.rows,), element="f32", dims="largest"))
        return found

    def is_shared(self, item: Operand) -> bool:
        """See the base class."""
        return item.dims == "largest" or item.shape == (1, 1)

    def sum_type(self, tiles: Tiles) -> str:
        """See the base class; neighbours of a product of integers are added at once, as `vpmaddwd` does."""
        if self.is_integer:
            return f"vector<{max(tiles.lanes // 2, 1)}xi32>"
        return f"vector<{tiles.lanes // 2 if self._has_pairs else tiles.lanes}xf32>"

    def constants(self, tiles: Tiles) -> Iterator[str]:
        """See the base class."""
        yield "%no_byte = arith.constant 0 : i8"
        yield f"%no_x = arith.constant 0.0 : {self.element}"
        if self.layout.element is ElementType.I4:
            count = tiles.lanes if tiles.unroll > 1 else tiles.lanes // 2
            yield f"%four = arith.constant dense<4> : vector<{count}xi8>"
        if self.layout.is_float:
            yield f"%seven = arith.constant dense<7> : vector<{tiles.lanes}xi16>"
            yield f"%no_top_exponent = arith.constant dense<-16385> : vector<{tiles.lanes}xi16>"

    def column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if self.layout.has_zeros and not self._is_grouped:
            yield from self._zero_point(tiles, n, "%zero")

    def group_column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if not self._is_grouped:
            return
        yield from self._group_scale(tiles, n)
        if self.layout.has_zeros:
            yield from self._zero_point(tiles, n, "%g")

    def _group_scale(self, tiles: Tiles, n: int) -> Iterator[str]:
        """Defines `%scale.<n>`, a group's scale as a vector."""
        shape = tensor((tiles.columns, self.groups), self.layout.scale)
        kind = self.sum_type(tiles)
        yield f"%stored.{n} = tensor.extract %scales.t[%n.{n}, %g] : {shape}"
        yield convert(f"%wide.{n}", f"%stored.{n}", self.layout.scale, "f32")
        yield f"%scale.{n} = vector.broadcast %wide.{n} : f32 to {kind}"

    def _zero_point(self, tiles: Tiles, n: int, group: str) -> Iterator[str]:
        """Defines `%zero.<n>`, the zero point of a column as a vector."""
        yield f"%point.{n} = tensor.extract %zeros.t[%n.{n}, {group}] : {tensor((tiles.columns, self.groups), 'i8')}"
        yield f"%long.{n} = arith.extsi %point.{n} : i8 to i32"
        yield f"%zero.{n} = vector.broadcast %long.{n} : i32 to vector<{tiles.lanes}xi32>"

    def scale_group(self, tiles: Tiles, m: int, n: int, part: str, outer: str) -> Iterator[str]:
        """See the base class."""
        yield f"%grown.{m}.{n} = vector.fma {part}, %scale.{n}, {outer} : {self.sum_type(tiles)}"

    def weight(self, tiles: Tiles, index: int, n: int) -> Iterator[str]:
        """See the base class: widened, less its zero points, times its own scales where the sum is not."""
        lanes, name = tiles.lanes, f"{index}.{n}"
        source = tensor((tiles.columns, self.layout.data_shape(1, self.depth)[1]), "i8")
        if self.layout.element is ElementType.I4:
            yield from _nibbles(tiles, index, n, source)
        else:
            read = f"vector.transfer_read %data.t[%n.{n}, %k.{index}], %no_byte {{in_bounds = [true]}}"
            yield f"%byte.{name} = {read} : {source}, vector<{lanes}xi8>"
        if self.layout.is_float:
            yield from _float_of_fp8(lanes, name)
            return
        whole = f"%w.{name}" if self.is_integer else f"%whole.{name}"
        yield f"{whole} = arith.extsi %byte.{name} : vector<{lanes}xi8> to vector<{lanes}xi32>"
        if self.is_integer:
            return
        if self.layout.has_zeros:
            yield f"%moved.{name} = arith.subi {whole}, %zero.{n} : vector<{lanes}xi32>"
            whole = f"%moved.{name}"
        is_scaled = self._is_grouped and not self.scales_groups
        result = f"%float.{name}" if is_scaled or self._has_pairs else f"%w.{name}"
        yield f"{result} = arith.sitofp {whole} : vector<{lanes}xi32> to vector<{lanes}xf32>"
        if self._has_pairs:
            yield from narrow_pairs(f"%w.{name}", result, lanes)
        elif is_scaled:
            yield f"%w.{name} = arith.mulf %float.{name}, %scale.{n} : vector<{lanes}xf32>"

    def row(self, tiles: Tiles, index: int, m: int) -> Iterator[str]:
        """See the base class."""
        source, vector = tensor((self.rows, self.depth), self.x_element), f"vector<{tiles.lanes}x{{}}>"
        padding = "%no_byte" if self.is_integer else "%no_x"
        raw = f"%x.{index}.{m}" if self._has_pairs else f"%raw.{index}.{m}"
        read = f"vector.transfer_read %x.t[%m.{m}, %k.{index}], {padding} {{in_bounds = [true]}}"
        yield f"{raw} = {read} : {source}, {vector.format(self.x_element)}"
        if self.is_integer:
            yield f"%x.{index}.{m} = arith.extsi {raw} : {vector.format('i8')} to {vector.format('i32')}"
        elif not self._has_pairs:
            yield convert(f"%x.{index}.{m}", raw, self.element, "f32", vector)

    def multiply(self, tiles: Tiles, name: str, x: str, w: str, into: str) -> Iterator[str]:
        """See the base class."""
        kind = self.sum_type(tiles)
        if self._has_pairs:
            yield dot_pairs(f"%new.{name}", x, w, into, tiles.lanes)
        elif not self.is_integer:
            yield f"%new.{name} = vector.fma {x}, {w}, {into} : {kind}"
        else:
            yield from _multiply_integers(tiles.lanes, kind, name, x, w, into)

    def finish(self, tiles: Tiles, index: int, m: int, n: int) -> Iterator[str]:
        """See the base class: times the row's and the column's scales."""
        value = f"%added.{index}"
        if self.is_integer:
            yield f"%float.{index} = arith.sitofp {value} : i32 to f32"
            yield f"%row.{index} = tensor.extract %largest.t[%m.{m}] : {tensor((self.rows,), 'f32')}"
            yield f"%most.{index} = arith.constant {LARGEST_I8} : f32"
            yield f"%unit.{index} = arith.divf %row.{index}, %most.{index} : f32"
            yield f"%stepped.{index} = arith.mulf %float.{index}, %unit.{index} : f32"
            value = f"%stepped.{index}"
        if not self._is_grouped:
            is_shared = self.layout.grouping is Grouping.TENSOR
            shape = (1, 1) if is_shared else (tiles.columns, 1)
            place = "%zero, %zero" if is_shared else f"%n.{n}, %zero"
            yield f"%own.{index} = tensor.extract %scales.t[{place}] : {tensor(shape, self.layout.scale)}"
            yield convert(f"%wide_own.{index}", f"%own.{index}", self.layout.scale, "f32")
            yield f"%owned.{index} = arith.mulf {value}, %wide_own.{index} : f32"
            value = f"%owned.{index}"
        factor = FP8_FACTOR[self.layout.element] if self.layout.is_float else 1.0
        yield f"%factor.{index} = arith.constant {factor} : f32"
        yield f"%scaled.{index} = arith.mulf {value}, %factor.{index} : f32"


def _float_of_fp8(lanes: int, name: str) -> Iterator[str]:
    """Defines `%w.<name>`, in f32, from `%byte.<name>`; `FP8_FACTOR` is left out."""
    yield f"%short.{name} = arith.extsi %byte.{name} : vector<{lanes}xi8> to vector<{lanes}xi16>"
    yield f"%moved.{name} = arith.shli %short.{name}, %seven : vector<{lanes}xi16>"
    yield f"%bits.{name} = arith.andi %moved.{name}, %no_top_exponent : vector<{lanes}xi16>"
    yield f"%half.{name} = arith.bitcast %bits.{name} : vector<{lanes}xi16> to vector<{lanes}xf16>"
    yield f"%w.{name} = arith.extf %half.{name} : vector<{lanes}xf16> to vector<{lanes}xf32>"


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


def _multiply_integers(lanes: int, kind: str, name: str, x: str, w: str, into: str) -> Iterator[str]:
    """Defines `%new.<name>` in i32."""
    product = f"vector<{lanes}xi32>"
    yield f"%product.{name} = arith.muli {x}, {w} : {product}"
    added = f"%product.{name}"
    if lanes > 1:
        yield f"%even.{name}, %odd.{name} = vector.deinterleave %product.{name} : {product} -> {kind}"
        yield f"%pair.{name} = arith.addi %even.{name}, %odd.{name} : {kind}"
        added = f"%pair.{name}"
    yield f"%new.{name} = arith.addi {into}, {added} : {kind}"
