"""A layer of int4 and bf16 for `vectors/product.py`: a table of sixteen bf16 in a register widens the weight.

A byte holds two neighbours of a row, so that a load of 32 bytes, made 32 words, gives the even elements by one look-up
and the odd ones, after a shift, by another. Nothing puts them in order: `x` is taken apart into even and odd elements
instead: by a dispatch of its own for more than one row, which all layers that read these rows share. A zero point is
part of the table, which then is made for each column and group.

Why not `vector_form.py`: counted in the machine code, it widens 32 elements in nine instructions, and this in two.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_targets.quantized_layout import ElementType

from amdnfs_passes.mlir_text import tensor
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_form import QuantizedForm
from amdnfs_passes.vectors.bf16_pairs import join_pairs
from amdnfs_passes.vectors.product import Tiles, Vectors, most_columns

_DISPATCH = "!iree_tensor_ext.dispatch.tensor"
_LOOK_UP = "llvm.x86.avx512.permvar.hi.512"
"""Words of a register, by the low five bits of the words of another. Source: Intel SDM, VPERMW."""
_LANES = 32
_MOST_SUMS = 8
"""Sums of a group, and over groups, that are in registers together. Twelve are slower: 293 instead of 309 GFLOP/s for
192 rows on two Zen 4 cores."""


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
        """See the base class: one row is taken apart here, both vectors of a step with the first; more were before."""
        if self.rows > 1:
            read = f"vector.transfer_read %x.t[%m.{m}, %k.{index}], %no_x {{in_bounds = [true]}}"
            yield f"%x.{index}.{m} = {read} : {tensor((self.rows, self.depth), 'bf16')}, vector<{_LANES}xbf16>"
        elif index == 0:
            both, half = f"vector<{2 * _LANES}xbf16>", f"vector<{_LANES}xbf16>"
            read = f"vector.transfer_read %x.t[%m.{m}, %k.0], %no_x {{in_bounds = [true]}}"
            yield f"%both.{m} = {read} : {tensor((self.rows, self.depth), 'bf16')}, {both}"
            yield f"%x.0.{m}, %x.1.{m} = vector.deinterleave %both.{m} : {both} -> {half}"


def split_rows(rows: str, shape: tuple[int, int]) -> str:
    """Lines that define `%split`: of each 64 elements of a row the even ones, then the odd ones.

    Args:
        rows: Name of the rows, of bf16.
        shape: Their sizes.
    """
    kind, own = tensor(shape, "bf16"), tensor((1, shape[1]), "bf16")
    both, half = f"vector<{2 * _LANES}xbf16>", f"vector<{_LANES}xbf16>"
    place = f"offsets = [%m, 0], sizes = [1, {shape[1]}], strides = [1, 1]"
    return f"""%split = flow.dispatch.workgroups({rows}) : ({kind}) -> {kind} =
(%x.ref: {_DISPATCH}<readonly:{kind}>, %y.ref: {_DISPATCH}<writeonly:{kind}>) {{
%zero = arith.constant 0 : index
%depth = arith.constant {shape[1]} : index
%step = arith.constant {2 * _LANES} : index
%half = arith.constant {_LANES} : index
%no_x = arith.constant 0.0 : bf16
%m = flow.dispatch.workgroup.id[0] : index
%x = iree_tensor_ext.dispatch.tensor.load %x.ref, {place} : {_DISPATCH}<readonly:{kind}> -> {own}
%empty = tensor.empty() : {own}
%y = scf.for %k = %zero to %depth step %step iter_args(%old = %empty) -> {own} {{
%both = vector.transfer_read %x[%zero, %k], %no_x {{in_bounds = [true]}} : {own}, {both}
%even, %odd = vector.deinterleave %both : {both} -> {half}
%new = vector.transfer_write %even, %old[%zero, %k] {{in_bounds = [true]}} : {half}, {own}
%k.odd = arith.addi %k, %half : index
%whole = vector.transfer_write %odd, %new[%zero, %k.odd] {{in_bounds = [true]}} : {half}, {own}
scf.yield %whole : {own}
}}
iree_tensor_ext.dispatch.tensor.store %y, %y.ref, {place} : {own} -> {_DISPATCH}<writeonly:{kind}>
flow.return
}} count() -> (index, index, index) {{
%num_rows = arith.constant {shape[0]} : index
%one = arith.constant 1 : index
flow.return %num_rows, %one, %one : index, index, index
}}
"""


def _table(name: str, values: str) -> Iterator[str]:
    """Defines `name`: the bf16 of 16 f32, twice, as words; the fifth bit of a look-up then does not matter."""
    yield join_pairs(f"{name}.floats", values, values, _LANES)
    yield f"{name} = vector.bitcast {name}.floats : vector<{_LANES}xbf16> to vector<{_LANES}xi16>"
