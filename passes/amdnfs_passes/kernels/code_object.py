"""What we change in and read from the code that Triton makes.

IREE 3.13.0 launches a HIP kernel without dynamic shared memory, so the amount that Triton would ask for at launch is
written into the kernel descriptor of the code object. NVIDIA: IREE gives dynamic shared memory itself.

Source: LLVM AMDGPUUsage, "Kernel Descriptor" (`group_segment_fixed_size` is its first word); ELF-64 object file format.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from dataclasses import asdict, dataclass

_ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
_SYMBOL_TABLES = (2, 11)  # SHT_SYMTAB, SHT_DYNSYM
_PTX_VERSION = "8.0"
_MATRIX = re.compile(r"^\s*(?:v_mfma|v_smfmac|v_wmma|v_swmmac)_", re.MULTILINE)
_LOADS = re.compile(r"^\s*(?:global|buffer|flat)_load_(?:lds_)?([a-z0-9_]+)", re.MULTILINE)
_STORES = re.compile(r"^\s*(?:global|buffer|flat)_store_([a-z0-9_]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelFacts:
    """Figures of one kernel, counted in its code."""

    matrix_instructions: int
    """Matrix-core instructions in the text of the kernel (not executed ones)."""
    vgprs: int | None
    """Vector registers of a lane; None where the code does not say (PTX)."""
    sgprs: int | None
    """Scalar registers of a wave; None where the code does not say."""
    num_spills: int
    """Registers that did not fit; 0 for PTX, which has no fixed registers yet."""
    scratch_bytes: int
    """Private memory of a lane, in bytes."""
    lds_bytes: int
    """Shared memory of a workgroup, in bytes."""
    load_widths: tuple[tuple[str, int], ...]
    """Memory loads in the text by width suffix, e.g. `(("b128", 8), ("dwordx4", 2))`."""
    store_widths: tuple[tuple[str, int], ...]
    """Memory stores in the text by width suffix."""

    @staticmethod
    def of_ptx(text: str, lds_bytes: int) -> KernelFacts:
        """Facts of PTX: what can be counted before the driver assigns registers."""
        return KernelFacts(
            matrix_instructions=len(re.findall(r"\b(?:mma\.sync|wgmma\.mma_async)", text)),
            vgprs=None,
            sgprs=None,
            num_spills=0,
            scratch_bytes=0,
            lds_bytes=lds_bytes,
            load_widths=tuple(sorted(Counter(re.findall(r"\bld\.global\S*?((?:\.v\d)?\.b\d+)", text)).items())),
            store_widths=tuple(sorted(Counter(re.findall(r"\bst\.global\S*?((?:\.v\d)?\.b\d+)", text)).items())),
        )

    def as_json(self) -> dict[str, object]:
        """The figures by name; those that the code does not say are left out."""
        plain = {key: value for key, value in asdict(self).items() if value is not None}
        return {**plain, "load_widths": dict(self.load_widths), "store_widths": dict(self.store_widths)}


def read_amd_facts(assembly: str, lds_bytes: int) -> KernelFacts:
    """Counts the figures of a kernel in the assembly of its code object.

    Raises:
        ValueError: If the metadata names no registers.
    """

    def figure(name: str) -> int:
        match = re.search(rf"\.{name}:\s+(\d+)", assembly)
        if match is None:
            raise ValueError(f"the assembly has no .{name}")
        return int(match[1])

    return KernelFacts(
        matrix_instructions=len(_MATRIX.findall(assembly)),
        vgprs=figure("vgpr_count"),
        sgprs=figure("sgpr_count"),
        num_spills=figure("vgpr_spill_count") + figure("sgpr_spill_count"),
        scratch_bytes=figure("private_segment_fixed_size"),
        lds_bytes=lds_bytes,
        load_widths=tuple(sorted(Counter(_LOADS.findall(assembly)).items())),
        store_widths=tuple(sorted(Counter(_STORES.findall(assembly)).items())),
    )


def set_lds_bytes(code: bytes, lds_bytes: int) -> bytes:
    """Writes the shared memory of a workgroup into the kernel descriptors of an AMD code object.

    Raises:
        ValueError: If `code` is no code object, is damaged, or has no kernel descriptor.
    """
    if code[:6] != _ELF64_LITTLE_ENDIAN:
        raise ValueError(f"{len(code)} bytes that are no code object: they begin with {code[:6]!r}")
    image = bytearray(code)
    try:
        places = _descriptor_places(image)
        for place in places:
            struct.pack_into("<I", image, place, lds_bytes)
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError(f"the code object of {len(code)} bytes is damaged: {error}") from error
    if not places:
        raise ValueError("the code object has no kernel descriptor")
    return bytes(image)


def _descriptor_places(image: bytearray) -> list[int]:
    """Where the kernel descriptors begin: the symbols that end in `.kd`."""
    (section_offset,) = struct.unpack_from("<Q", image, 40)
    entry_bytes, num_sections, _ = struct.unpack_from("<HHH", image, 58)
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, section_offset + i * entry_bytes) for i in range(num_sections)]
    table = next((section for section in sections if section[1] in _SYMBOL_TABLES), None)
    if table is None:
        return []
    names_offset = sections[table[6]][4]
    places = []
    for i in range(table[5] // 24):
        name_offset, _, _, section_index, value, _ = struct.unpack_from("<IBBHQQ", image, table[4] + i * 24)
        begin = names_offset + name_offset
        if image[begin : image.index(0, begin)].endswith(b".kd"):
            home = sections[section_index]
            places.append(home[4] + value - home[3])
    return places


def use_older_ptx(text: str) -> str:
    """Lowers the PTX version in the header to one that drivers in use accept, where the code itself allows it.

    Triton names the newest version that it knows. What it emits for sm_80 and sm_89 was accepted as 8.0 by a driver
    for CUDA 13.0; instructions of sm_90 need more.
    """
    version = "8.7" if ".target sm_9" in text or ".target sm_1" in text else _PTX_VERSION
    return re.sub(r"^\.version \S+", f".version {version}", text, flags=re.MULTILINE)
