"""Damaged code objects: refused with a text, or run, but never the end of the process."""

from __future__ import annotations

import ctypes
import mmap
import re
import struct
from collections import Counter
from collections.abc import Iterator
from ctypes import byref, c_size_t, c_void_p
from pathlib import Path

import numpy as np
import pytest

from tests.unit.hipemu.machine import HipError, Machine, assemble, kernel_text

pytest.importorskip("triton")

ROUNDS = 3000
LANES = 64
SECTION_BYTES, PROGRAM_HEADER_BYTES, DESCRIPTOR_BYTES = 64, 56, 64
PROGBITS, NOTE, DYNSYM = 1, 7, 11
MEANS = re.compile(
    r"damaged code object: |code object for an unknown chip|the code object has no kernel k|kernel k asks for|"
    r"the arguments of kernel k do not fit|^[a-z-]+ in kernel k|^kernel k has run$"
)
"""How the texts of refusals and faults begin."""
RAN = "kernel k has run"


class Loader(Machine):
    """Loads code objects that end where readable memory ends, and runs their kernel."""

    def __init__(self, folder: Path, room_bytes: int) -> None:
        """Takes memory for code objects of up to `room_bytes`, with a page behind it that nobody may touch."""
        super().__init__(folder, {"BUDGET": "1000", "CHECKS": "all"})
        self._pages = mmap.mmap(-1, (-(-room_bytes // mmap.PAGESIZE) + 1) * mmap.PAGESIZE)
        begin = ctypes.addressof(ctypes.c_char.from_buffer(self._pages))
        self._end = begin + len(self._pages) - mmap.PAGESIZE
        assert ctypes.CDLL(None).mprotect(c_void_p(self._end), c_size_t(mmap.PAGESIZE), 0) == 0
        memory = c_void_p()
        self._check(self._hip.hipMalloc(byref(memory), c_size_t(LANES * 32)))
        self._check(self._hip.hipMemset(memory, 0, c_size_t(LANES * 32)))
        # A damaged description may have other arguments: each is the same memory, with bytes to spare.
        self._argument = (ctypes.c_uint64 * 512)(memory.value or 0)
        self._arguments = (c_void_p * 128)(*([ctypes.addressof(self._argument)] * 128))

    def run(self, code: bytes) -> None:
        """Loads and runs.

        Raises:
            HipError: If it is refused or stopped.
        """
        ctypes.memmove(self._end - len(code), code, len(code))
        module, kernel = c_void_p(), c_void_p()
        self._check(self._hip.hipModuleLoadData(byref(module), c_void_p(self._end - len(code))))
        try:
            self._check(self._hip.hipModuleGetFunction(byref(kernel), module, b"k"))
            self._check(self._hip.hipModuleLaunchKernel(kernel, 1, 1, 1, LANES, 1, 1, 0, None, self._arguments, None))
        finally:
            self._hip.hipModuleUnload(module)


@pytest.fixture(scope="module")
def code() -> bytes:
    return assemble("gfx942", kernel_text("gfx942", "v_mov_b32_e32 v12, v4", wave=64, lds_bytes=512))


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory, code: bytes) -> Loader:
    return Loader(tmp_path_factory.mktemp("emulator"), len(code))


def sections(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Place of the header, type, offset and size of each section."""
    (table,), (count,) = struct.unpack_from("<Q", code, 40), struct.unpack_from("<H", code, 60)
    for at in range(table, table + count * SECTION_BYTES, SECTION_BYTES):
        yield at, *struct.unpack_from("<I", code, at + 4), *struct.unpack_from("<QQ", code, at + 24)


def headers(code: bytes) -> list[range]:
    """The bytes that say where something is: ELF header, both tables, symbols, metadata, kernel descriptor."""
    (programs,), (count,) = struct.unpack_from("<Q", code, 32), struct.unpack_from("<H", code, 56)
    found = [range(64), range(programs, programs + count * PROGRAM_HEADER_BYTES)]
    for at, kind, offset, size in sections(code):
        found.append(range(at, at + SECTION_BYTES))
        if kind in (NOTE, DYNSYM) or (kind == PROGBITS and size == DESCRIPTOR_BYTES):
            found.append(range(offset, offset + size))
    return found


def damaged(code: bytes, rng: np.random.Generator) -> bytes:
    """One to three fields of 1, 2, 4 or 8 bytes are other numbers: random, or next to a border."""
    changed, places = bytearray(code), headers(code)
    for _ in range(rng.integers(1, 4)):
        place = places[rng.integers(len(places))]
        width = int(rng.choice([1, 2, 4, 8]))
        at = int(rng.choice(place)) // width * width
        borders = (0, 1, len(code) - 1, len(code), 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 64)
        number = int(rng.choice(borders)) if rng.integers(2) else int(rng.integers(2**63))
        changed[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, "little")
    return bytes(changed[: len(code)])


def outcome(loader: Loader, code: bytes) -> str:
    try:
        loader.run(code)
    except HipError as error:
        return str(error)
    return RAN


def test_damage_ends_in_a_text(loader: Loader, code: bytes) -> None:
    rng = np.random.default_rng(7)
    loader.run(code)
    texts = [outcome(loader, damaged(code, rng)) for _ in range(ROUNDS)]
    assert [text for text in texts if not MEANS.search(text)] == []
    seen = Counter(text.partition(" in kernel")[0] for text in texts)
    loader.run(code)
    assert ROUNDS - seen[RAN] > ROUNDS / 8
    assert len(seen) > 12, seen


@pytest.mark.parametrize(
    ("offset", "text"),
    [
        (40, "its section table lies outside the file"),
        (32, "its program headers lie outside the file"),
    ],
)
@pytest.mark.parametrize("place", [2**12, 2**32, 2**64 - 8])
def test_tables_outside_the_file(loader: Loader, code: bytes, offset: int, text: str, place: int) -> None:
    changed = bytearray(code)
    struct.pack_into("<Q", changed, offset, len(code) + place if place < 2**63 else place)
    with pytest.raises(HipError, match=f"damaged code object: {text}"):
        loader.run(bytes(changed))


def test_a_file_that_is_cut_off(loader: Loader, code: bytes) -> None:
    for size in range(0, len(code), 61):
        with pytest.raises(HipError, match="damaged code object: "):
            loader.run(code[:size])


def test_metadata_that_is_nested_without_end(loader: Loader, code: bytes) -> None:
    """A map whose only value is an array of an array of an array, to the end of the note."""
    changed = bytearray(code)
    _, _, offset, size = next(row for row in sections(code) if row[1] == NOTE)
    begin = offset + 12 + 8
    changed[begin : begin + 3] = b"\x81\xa1a"
    changed[begin + 3 : offset + size] = b"\x91" * (size - 23)
    with pytest.raises(HipError, match="damaged code object: its metadata cannot be read"):
        loader.run(bytes(changed))


def test_more_arguments_than_there_is_room_for(loader: Loader, code: bytes) -> None:
    changed = bytearray(code)
    _, _, offset, _ = next(row for row in sections(code) if row[1] == PROGBITS and row[3] == DESCRIPTOR_BYTES)
    for size in (4097, 2**32 - 1):
        struct.pack_into("<I", changed, offset + 8, size)
        with pytest.raises(HipError, match="damaged code object: a kernel has more arguments than fit"):
            loader.run(bytes(changed))
