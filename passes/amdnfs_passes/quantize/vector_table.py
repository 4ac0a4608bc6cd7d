"""A layer of int4 and bf16 for `vectors/product.py`: a table of sixteen bf16 in a register widens the weight.

A byte holds two neighbours of a row, so that a load of 32 bytes, made 32 words, gives the even elements by one look-up
and the odd ones, after a shift, by another. Nothing puts them in order: `x` is taken apart into even and odd elements
instead, once for all columns. A zero point is part of the table, which then is made for each column and group.

Why not `vector_form.py`: shifts of bytes, the interleaving and two conversions are about twenty instructions for 32
elements; here they are three.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_targets.quantized_layout import ElementType

from amdnfs_passes.mlir_text import tensor
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_form import QuantizedForm
from amdnfs_passes.vectors.bf16_pairs import join_pairs
from amdnfs_passes.vectors.product import Tiles, Vectors, most_columns

_LOOK_UP = "llvm.x86.avx512.permvar.hi.512"
"""Words of a register, by the low five bits of the words of another. Source: Intel SDM, VPERMW."""
_LANES = 32
_MOST_SUMS = 12
"""Sums of a group and over groups are in registers together: 24 of 32."""


def takes_table(linear: QuantizedLinear, vectors: Vectors) -> bool:
    """Whether a processor can widen the weight of `linear` by a table."""
    is_int4 = linear.layout.element is ElementType.I4 and linear.element == "bf16"
    group = linear.depth // linear.groups
    return is_int4 and vectors.has_bf16_pairs and 2 * vectors.lanes == _LANES and group % (2 * _LANES) == 0


class TableForm(QuantizedForm):
    """Int4 and bf16, in steps of 64 elements: an even vector of 32, and an odd one."""

    def tiles(self) -> Tiles:
        """See the base class."""
        m = min(self.rows, 4 if self.rows % 4 == 0 else 3)
        columns = most_columns(self, self.depth // 2)
        # One row waits for memory, which reads one stream twice as fast as four.
        n = 1 if m == 1 else min(_MOST_SUMS // m, columns)
        return Tiles(columns=columns, m=m, n=n, lanes=_LANES, unroll=2)

    def constants(self, tiles: Tiles) -> Iterator[str]:
        """See the base class."""
        yield "%no_byte = arith.constant 0 : i8"
        yield f"%no_x = arith.constant 0.0 : {self.element}"
        yield f"%four = arith.constant dense<4> : vector<{_LANES}xi16>"
        values = ", ".join(f"{value}.0" for value in (*range(8), *range(-8, 0)))
        yield f"%plain = arith.constant dense<[{values}]> : vector<16xf32>"
        if not self.layout.has_zeros:
            yield from _table("%table", "%plain")

    def column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if self.layout.has_zeros and not self._is_grouped:
            yield from self._own_table(tiles, n, "%zero")

    def group_column(self, tiles: Tiles, n: int) -> Iterator[str]:
        """See the base class."""
        if not self._is_grouped:
            return
        yield from self._group_scale(tiles, n)
        if self.layout.has_zeros:
            yield from self._own_table(tiles, n, "%g")

    def _own_table(self, tiles: Tiles, n: int, group: str) -> Iterator[str]:
        """Defines `%table.<n>`, less the zero point."""
        yield f"%point.{n} = tensor.extract %zeros.t[%n.{n}, {group}] : {tensor((tiles.columns, self.groups), 'i8')}"
        yield f"%float_point.{n} = arith.sitofp %point.{n} : i8 to f32"
        yield f"%points.{n} = vector.broadcast %float_point.{n} : f32 to vector<16xf32>"
        yield f"%less.{n} = arith.subf %plain, %points.{n} : vector<16xf32>"
        yield from _table(f"%table.{n}", f"%less.{n}")

    def weight(self, tiles: Tiles, index: int, n: int) -> Iterator[str]:
        """See the base class: even elements, then odd ones."""
        words = f"vector<{_LANES}xi16>"
        table = f"%table.{n}" if self.layout.has_zeros else "%table"
        source = f"%words.{n}"
        if index == 0:
            kind = tensor((tiles.columns, self.depth // 2), "i8")
            yield f"%half_k.{n} = arith.divui %k.{index}, %two : index"
            read = f"vector.transfer_read %data.t[%n.{n}, %half_k.{n}], %no_byte {{in_bounds = [true]}}"
            yield f"%bytes.{n} = {read} : {kind}, vector<{_LANES}xi8>"
            yield f"%words.{n} = arith.extui %bytes.{n} : vector<{_LANES}xi8> to {words}"
        else:
            source = f"%high.{n}"
            yield f"%high.{n} = arith.shrui %words.{n}, %four : {words}"
        call = f'llvm.call_intrinsic "{_LOOK_UP}"({table}, {source}) : ({words}, {words}) -> {words}'
        yield f"%found.{index}.{n} = {call}"
        yield f"%w.{index}.{n} = vector.bitcast %found.{index}.{n} : {words} to vector<{_LANES}xbf16>"

    def row(self, tiles: Tiles, index: int, m: int) -> Iterator[str]:
        """See the base class: both vectors of a step are made with the first."""
        if index:
            return
        both, half = f"vector<{2 * _LANES}xbf16>", f"vector<{_LANES}xbf16>"
        read = f"vector.transfer_read %x.t[%m.{m}, %k.0], %no_x {{in_bounds = [true]}}"
        yield f"%both.{m} = {read} : {tensor((self.rows, self.depth), 'bf16')}, {both}"
        yield f"%x.0.{m}, %x.1.{m} = vector.deinterleave %both.{m} : {both} -> {half}"


def _table(name: str, values: str) -> Iterator[str]:
    """Defines `name`: the bf16 of 16 f32, twice, as words; the fifth bit of a look-up then does not matter."""
    yield join_pairs(f"{name}.floats", values, values, _LANES)
    yield f"{name} = vector.bitcast {name}.floats : vector<{_LANES}xbf16> to vector<{_LANES}xi16>"
