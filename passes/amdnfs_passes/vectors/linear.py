"""A linear layer of floats for `product.py`: the weight is `[columns, depth]`, of the element type of `x`."""

from __future__ import annotations

import math
from collections.abc import Iterator

from amdnfs_passes.mlir_text import ELEMENT_BYTES, Operand, convert, flatten_rows, tensor, unflatten_rows
from amdnfs_passes.templates import TensorType
from amdnfs_passes.vectors.bf16_pairs import dot_pairs
from amdnfs_passes.vectors.product import Tiles, VectorForm, Vectors, dispatch_text, most_columns


def choose_rows(rows: int, vectors: Vectors) -> tuple[int, int]:
    """How many rows and columns have a sum in a register at a time.

    Three quarters of the registers hold sums, the rest a vector of each column and one of a row. One row waits for
    memory, which reads one stream faster than several. Of two sizes the one that computes fewer rows twice is taken;
    from 64 rows on it is the first, which reads less.
    """
    most = vectors.registers * 3 // 4
    if rows == 1:
        return 1, 1
    if rows <= vectors.registers // 6:
        return rows, min(8, most // rows)
    sizes = [(6, 4), (4, 6)] if vectors.registers >= 32 else [(3, 4), (4, 3)]
    return min(sizes, key=lambda size: math.ceil(rows / size[0]) * size[0] if rows < 64 else 0)


class PlainForm(VectorForm):
    """A layer whose weight has the type of `x`."""

    def __init__(self, x: TensorType, columns: int, vectors: Vectors, *, has_bias: bool) -> None:
        """Describes the layer.

        Args:
            x: Type of the rows, `[..., depth]`; static.
            columns: Rows of the weight.
            vectors: What the processor computes in.
            has_bias: Whether `[columns]` are added.
        """
        self.rows, self.depth = math.prod(x.sizes[:-1]), x.sizes[-1]
        self.columns, self.element, self.x_element, self.has_bias = columns, x.element, x.element, has_bias
        self._vectors = vectors
        self._has_pairs = x.element == "bf16" and vectors.has_bf16_pairs and self.depth % (2 * vectors.lanes) == 0

    def tiles(self) -> Tiles:
        """See the base class."""
        m, n = choose_rows(self.rows, self._vectors)
        lanes = 2 * self._vectors.lanes if self._has_pairs else min(self.depth & -self.depth, self._vectors.lanes)
        columns = most_columns(self, self.depth * ELEMENT_BYTES[self.element])
        most = 4 if self.rows == 1 else 1
        unroll = next(count for count in (most, 2, 1) if self.depth % (lanes * count) == 0)
        return Tiles(columns=columns, m=m, n=min(n, columns), lanes=lanes, unroll=unroll)

    def inputs(self) -> list[Operand]:
        """See the base class."""
        return [Operand(value="%w", shape=(self.columns, self.depth), element=self.element, dims="w")]

    def sum_type(self, tiles: Tiles) -> str:
        """See the base class."""
        return f"vector<{tiles.lanes // 2 if self._has_pairs else tiles.lanes}xf32>"

    def constants(self, tiles: Tiles) -> Iterator[str]:
        """See the base class."""
        yield f"%padding = arith.constant 0.0 : {self.element}"

    def weight(self, tiles: Tiles, index: int, n: int) -> Iterator[str]:
        """See the base class."""
        return self._read(tiles, "w", (tiles.columns, self.depth), f"{index}.{n}", f"%n.{n}", index)

    def row(self, tiles: Tiles, index: int, m: int) -> Iterator[str]:
        """See the base class."""
        return self._read(tiles, "x", (self.rows, self.depth), f"{index}.{m}", f"%m.{m}", index)

    def multiply(self, tiles: Tiles, name: str, x: str, w: str, into: str) -> Iterator[str]:
        """See the base class."""
        if self._has_pairs:
            yield dot_pairs(f"%new.{name}", x, w, into, tiles.lanes)
        else:
            yield f"%new.{name} = vector.fma {x}, {w}, {into} : {self.sum_type(tiles)}"

    def _read(
        self, tiles: Tiles, source: str, shape: tuple[int, int], name: str, row: str, index: int
    ) -> Iterator[str]:
        """Defines `%<source>.<name>`, in f32 but for pairs."""
        vector = f"vector<{tiles.lanes}x{{}}>"
        raw = f"%{source}.{name}" if self._has_pairs else f"%raw.{source}.{name}"
        read = f"vector.transfer_read %{source}.t[{row}, %k.{index}], %padding {{in_bounds = [true]}}"
        yield f"{raw} = {read} : {tensor(shape, self.element)}, {vector.format(self.element)}"
        if not self._has_pairs:
            yield convert(f"%{source}.{name}", raw, self.element, "f32", vector)


def vector_linear(name: str, x: TensorType, weight: TensorType, bias: TensorType | None, vectors: Vectors) -> str:
    """A private function of `%x`, `%w` and, if there is one, `%bias`, a row.

    Args:
        name: Its name.
        x: Type of `%x`, `[..., depth]`.
        weight: Type of `%w`, `[columns, depth]`.
        bias: Type of `%bias`, `[columns]`.
        vectors: What the processor computes in.
    """
    form = PlainForm(x, weight.sizes[0], vectors, has_bias=bias is not None)
    result = (*x.sizes[:-1], form.columns)
    argument = "" if bias is None else f", %bias: {bias.builtin}"
    flat, rows = flatten_rows(x.sizes, x.element)
    return (
        f'func.func private @"{name}"(%x: {x.builtin}, %w: {weight.builtin}{argument}) '
        f"-> {tensor(result, x.element)} {{\n"
        + flat
        + dispatch_text(form, rows, None if bias is None else "%bias")
        + unflatten_rows("%result", result, x.element)
    )
