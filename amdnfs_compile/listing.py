"""Machine code as text, for people who look for a fault: addresses as the emulator gives them, and instructions.

The instructions are spelled as the tables of tinygrad print them (extra `emulate`), which is not the assembler's
syntax. What the tables do not know is shown as data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_TABLES = {"gfx9": "cdna", "gfx11": "rdna3", "gfx12": "rdna4"}
"""Tables by the first characters of a processor's name; RDNA2 has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One instruction."""

    offset: int
    """Of its first byte in the code object."""
    num_bytes: int
    """Its length."""
    text: str
    """Mnemonic and operands; `.long` and a number for what is not known."""


def list_code(image: bytes, begin: int, end: int, gfx: str) -> Iterator[Line]:
    """The instructions in `[begin, end)` of a code object.

    Args:
        image: The code object.
        begin: Offset of the first instruction.
        end: Offset behind the last one.
        gfx: Processor that it is for.
    """
    tables = next((name for prefix, name in _TABLES.items() if gfx.startswith(prefix)), None)
    at = begin
    while at < end:
        found = None if tables is None else _decode(image[at:end], tables)
        size = 4 if found is None else int(found.size())
        text = f".long 0x{int.from_bytes(image[at : at + 4], 'little'):08x}" if found is None else repr(found)
        yield Line(offset=at, num_bytes=size, text=text)
        at += size


def _decode(code: bytes, tables: str) -> Any:
    """An instruction of the tables, or None."""
    from tinygrad.renderer.amd import decode_inst

    try:
        return decode_inst(code[:16], tables)
    except (ValueError, KeyError, IndexError, AssertionError):
        return None
