"""Reads the notes of AMD code objects: MessagePack, the part of it that LLVM writes.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md; LLVM AMDGPUUsage, "Code Object Metadata".
"""

from __future__ import annotations

import struct
from typing import Any

_UNSIGNED = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q"}
_SIGNED = {0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
_TEXT = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}
_PLAIN: dict[int, object] = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(data: bytes) -> Any:
    """The one value in `data`; bytes after it are ignored, because notes are padded.

    >>> unpack(bytes([0x82, 0xA1, 0x61, 0x01, 0xA1, 0x62, 0x92, 0xC3, 0xCD, 0x01, 0x00]))
    {'a': 1, 'b': [True, 256]}

    Raises:
        ValueError: If it ends early or holds a type that such notes never have.
    """
    try:
        return _read(data, 0)[0]
    except (struct.error, IndexError) as error:
        raise ValueError("the metadata ends in the middle of a value") from error


def _read(data: bytes, at: int) -> tuple[Any, int]:
    """A value and where the next one begins."""
    tag = data[at]
    at += 1
    if tag <= 0x7F:
        return tag, at
    if tag >= 0xE0:
        return tag - 0x100, at
    if tag in _PLAIN:
        return _PLAIN[tag], at
    if 0x80 <= tag <= 0x8F:
        return _read_map(data, at, tag & 0x0F)
    if 0x90 <= tag <= 0x9F:
        return _read_list(data, at, tag & 0x0F)
    if 0xA0 <= tag <= 0xBF:
        return _read_text(data, at, tag & 0x1F)
    return _read_sized(data, at, tag)


def _read_sized(data: bytes, at: int, tag: int) -> tuple[Any, int]:
    form = next((table[tag] for table in (_UNSIGNED, _SIGNED, _TEXT, _LISTS, _MAPS) if tag in table), None)
    if form is None:
        raise ValueError(f"the metadata holds a value of the unexpected type 0x{tag:02x}")
    (number,) = struct.unpack_from(form, data, at)
    at += struct.calcsize(form)
    if tag in _TEXT:
        return _read_text(data, at, number)
    if tag in _LISTS:
        return _read_list(data, at, number)
    if tag in _MAPS:
        return _read_map(data, at, number)
    return number, at


def _read_text(data: bytes, at: int, length: int) -> tuple[str, int]:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length].decode("utf-8", "replace"), at + length


def _read_list(data: bytes, at: int, length: int) -> tuple[list[Any], int]:
    items = []
    for _ in range(length):
        item, at = _read(data, at)
        items.append(item)
    return items, at


def _read_map(data: bytes, at: int, length: int) -> tuple[dict[Any, Any], int]:
    items = {}
    for _ in range(length):
        key, at = _read(data, at)
        items[key], at = _read(data, at)
    return items, at
