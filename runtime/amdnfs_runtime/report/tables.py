"""Tables for a terminal of any width: one that is too wide is broken into several, and no number loses digits."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

_GAP = 2
"""Columns of the terminal between two columns of a table."""


class _BreakableTable(Table):
    """A table that repeats its first columns, with text, beside as many of the others as fit."""

    def __init__(self, num_left: int) -> None:
        super().__init__(box=None, pad_edge=False)
        self._num_left = num_left

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        parts = list(self._parts(options.max_width))
        if len(parts) <= 1:
            yield from super().__rich_console__(console, options)
            return
        for indices in parts:
            table = Table(box=None, pad_edge=False)
            kept = [*range(self._num_left), *indices]
            for i in kept:
                _add_column(table, str(self.columns[i].header), is_text=i < self._num_left)
            for row in zip(*(self.columns[i].cells for i in kept), strict=True):
                table.add_row(*row)
            yield table

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Indices of the columns with numbers, in parts that fit beside the text; text takes half at most."""
        widths = [max(cell_len(str(text)) for text in (column.header, *column.cells)) + _GAP for column in self.columns]
        room = width + _GAP - min(sum(widths[: self._num_left]), width // 2)
        part: list[int] = []
        for i in range(self._num_left, len(widths)):
            if part and sum(widths[k] for k in part) + widths[i] > room:
                yield part
                part = []
            part.append(i)
        yield part


def plain_table(*columns: str, left: int = 1) -> Table:
    """A plain table whose first `left` columns hold text, which may wrap, and the others numbers."""
    table = _BreakableTable(left)
    for i, column in enumerate(columns):
        _add_column(table, column, is_text=i < left)
    return table


def _add_column(table: Table, header: str, *, is_text: bool) -> None:
    table.add_column(header, justify="left" if is_text else "right", no_wrap=not is_text, overflow="fold")
