"""Finds the AMD code objects in a program and reads what they say of their kernels: registers, LDS, spills.

A program holds each code object as it is, so the ELF images are found by their first bytes. Nothing here is executed,
and no tool of the vendor is needed. What a kernel's instructions are is not read here: the compile counts them in the
assembly and leaves the counts, with the digest of the code object, in the facts.

Source: ELF-64 object file format; LLVM AMDGPUUsage, "Code Object V5 Metadata" and "Kernel Descriptor".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.report.metadata import unpack

_MAGIC = b"\x7fELF\x02\x01"
_MACHINE_AMDGPU = 224
_NOTE_METADATA = 32
_SECTION_NOTE, _SECTION_SYMBOLS, _SECTION_DYNAMIC_SYMBOLS, _SECTION_NO_BITS = 7, 2, 11, 8
_DESCRIPTOR_BYTES = 64
_FLAG_EXECUTABLE = 4
_SYMBOL_FUNCTION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """What a code object says of one kernel."""

    name: str
    """Symbol, without `.kd`."""
    vgprs: int
    """Vector registers of a lane; on CDNA with the AGPRs, which come from the same file."""
    agprs: int
    """Of these, accumulation registers."""
    sgprs: int
    """Scalar registers of a wave."""
    vgpr_spills: int
    """Vector registers that did not fit and live in scratch memory."""
    sgpr_spills: int
    """Scalar registers that did not fit."""
    lds_bytes: int
    """Shared memory of a workgroup, in bytes, from the kernel descriptor: what the hardware is told."""
    scratch_bytes: int
    """Private memory of a lane, in bytes."""
    workgroup_threads: int
    """Most threads of a workgroup."""
    wave_size: int
    """Lanes of a wave."""
    is_workgroup_processor_mode: bool
    """Whether a workgroup may use both compute units of a workgroup processor (RDNA)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CodeObject:
    """One ELF image of a program."""

    offset: int
    """Where it begins in the program."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Digest of the image."""
    gfx: str
    """Processor that its metadata names, without features; empty if it names none."""
    code: tuple[tuple[int, int], ...]
    """Half-open ranges of the image that hold machine code."""
    functions: Mapping[str, tuple[int, int]]
    """Of each function the half-open range of the image that holds its code, by name."""
    kernels: Mapping[str, Kernel]
    """By name, in the order of the metadata."""


def find_code_objects(program: bytes) -> tuple[CodeObject, ...]:
    """All AMD code objects in a program, in the order in which they lie there.

    Raises:
        ArtifactError: If one is cut short or cannot be read.
    """
    found = []
    at = program.find(_MAGIC)
    while at >= 0:
        try:
            is_ours = struct.unpack_from("<H", program, at + 18)[0] == _MACHINE_AMDGPU
            image = _cut(program, at) if is_ours else b""
            if is_ours:
                found.append(_read_object(image, at))
        except (struct.error, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"the code object at byte {at} of the program cannot be read: {error}; compile the target again"
            ) from error
        at = program.find(_MAGIC, at + max(len(image), 1))
    return tuple(found)


def _cut(program: bytes, at: int) -> bytes:
    """The ELF image that begins at `at`; its end is that of the last section, segment or table."""
    program_table, section_table = struct.unpack_from("<QQ", program, at + 32)
    segment_bytes, num_segments, section_bytes, num_sections = struct.unpack_from("<HHHH", program, at + 54)
    ends = [program_table + segment_bytes * num_segments, section_table + section_bytes * num_sections]
    _check_end(program, at, max(ends))
    for i in range(num_sections):
        kind, offset, size = struct.unpack_from("<4xI16xQQ", program, at + section_table + i * section_bytes)
        ends.append(offset + (0 if kind == _SECTION_NO_BITS else size))
    for i in range(num_segments):
        offset, size = struct.unpack_from("<8xQ16xQ", program, at + program_table + i * segment_bytes)
        ends.append(offset + size)
    _check_end(program, at, max(ends))
    return program[at : at + max(ends)]


def _check_end(program: bytes, at: int, num_bytes: int) -> None:
    if at + num_bytes > len(program):
        raise ValueError(f"it claims {num_bytes} bytes, the program has {len(program) - at} from there on")


def _sections(image: bytes) -> list[tuple[int, ...]]:
    """Of each section: name, type, flags, address, offset, size, link, info, alignment, entry size."""
    (table,) = struct.unpack_from("<Q", image, 40)
    entry, count = struct.unpack_from("<HH", image, 58)
    return [struct.unpack_from("<IIQQQQIIQQ", image, table + i * entry) for i in range(count)]


def _read_object(image: bytes, offset: int) -> CodeObject:
    sections = _sections(image)
    notes = [note for section in sections if section[1] == _SECTION_NOTE for note in _notes(image, section)]
    if not notes:
        raise ValueError("it has no metadata note")
    metadata = unpack(notes[0])
    descriptors = _descriptors(image, sections)
    kernels = {}
    for entry in metadata["amdhsa.kernels"]:
        name = entry[".symbol"].removesuffix(".kd")
        if name not in descriptors:
            raise ValueError(f"kernel {name} has metadata but no descriptor")
        kernels[name] = _kernel(name, entry, descriptors[name])
    triple = str(metadata.get("amdhsa.target", ""))
    return CodeObject(
        offset=offset,
        num_bytes=len(image),
        sha256=hashlib.sha256(image).hexdigest(),
        gfx=triple.rsplit("-", maxsplit=1)[-1].split(":")[0],
        code=tuple((item[4], item[4] + item[5]) for item in sections if item[2] & _FLAG_EXECUTABLE),
        functions={
            name: (begin, begin + size)
            for name, kind, begin, size in _symbols(image, sections)
            if kind == _SYMBOL_FUNCTION
        },
        kernels=kernels,
    )


def _notes(image: bytes, section: tuple[int, ...]) -> Iterator[bytes]:
    """The metadata in a section of notes."""
    at, end = section[4], section[4] + section[5]
    while at + 12 <= end:
        name_bytes, size, kind = struct.unpack_from("<III", image, at)
        name_begin = at + 12
        begin = name_begin + (name_bytes + 3) // 4 * 4
        if kind == _NOTE_METADATA and image[name_begin : name_begin + name_bytes].rstrip(b"\0") == b"AMDGPU":
            yield image[begin : begin + size]
        at = begin + (size + 3) // 4 * 4


def _symbols(image: bytes, sections: list[tuple[int, ...]]) -> Iterator[tuple[str, int, int, int]]:
    """Of each symbol that lies in a section: name, type, offset in the image, size."""
    for table in sections:
        if table[1] not in (_SECTION_SYMBOLS, _SECTION_DYNAMIC_SYMBOLS):
            continue
        names = sections[table[6]][4]
        for at in range(table[4], table[4] + table[5], 24):
            name_offset, info, home_index, value, size = struct.unpack_from("<IBxHQQ", image, at)
            begin = names + name_offset
            name = image[begin : image.index(0, begin)].decode("utf-8", "replace")
            if 0 < home_index < len(sections):
                home = sections[home_index]
                yield name, info & 15, home[4] + value - home[3], size


def _descriptors(image: bytes, sections: list[tuple[int, ...]]) -> dict[str, bytes]:
    """The kernel descriptors (64 bytes each) by kernel."""
    return {
        name.removesuffix(".kd"): image[begin : begin + _DESCRIPTOR_BYTES]
        for name, _, begin, _ in _symbols(image, sections)
        if name.endswith(".kd")
    }


def _kernel(name: str, entry: Mapping[str, Any], descriptor: bytes) -> Kernel:
    lds_bytes, scratch_bytes = struct.unpack_from("<II", descriptor, 0)
    (resources,) = struct.unpack_from("<I", descriptor, 48)
    (properties,) = struct.unpack_from("<H", descriptor, 56)
    wave_size = int(entry[".wavefront_size"])
    is_wave32 = bool(properties >> 10 & 1)
    if is_wave32 != (wave_size == 32):
        raise ValueError(f"kernel {name}: the metadata says waves of {wave_size}, the descriptor says otherwise")
    if scratch_bytes != int(entry[".private_segment_fixed_size"]):
        raise ValueError(f"kernel {name}: metadata and descriptor differ in scratch memory")
    return Kernel(
        name=name,
        vgprs=int(entry[".vgpr_count"]),
        agprs=int(entry.get(".agpr_count", 0)),
        sgprs=int(entry[".sgpr_count"]),
        vgpr_spills=int(entry.get(".vgpr_spill_count", 0)),
        sgpr_spills=int(entry.get(".sgpr_spill_count", 0)),
        lds_bytes=max(lds_bytes, int(entry[".group_segment_fixed_size"])),
        scratch_bytes=scratch_bytes,
        workgroup_threads=int(entry[".max_flat_workgroup_size"]),
        wave_size=wave_size,
        is_workgroup_processor_mode=wave_size == 32 and bool(resources >> 29 & 1),
    )
