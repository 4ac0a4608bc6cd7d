"""Writes the opcode tables of the emulator in C: format and opcode to mnemonic, for each instruction set.

CDNA3/4, RDNA3/3.5 and RDNA4 come from the tables that `tinygrad` generates from AMD's machine-readable ISA files; what
that package lacks (RDNA2, CDNA2's own opcodes) stands in the `*_opcodes.txt` beside this file. Only opcodes and names
are read here: encodings and meanings are in `csrc`.
"""

from __future__ import annotations

import importlib
import re
from enum import Enum
from pathlib import Path

_FORMATS = (
    *("SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "SMEM", "VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P", "VOPD"),
    *("DS", "FLAT", "GLOBAL", "SCRATCH", "MUBUF"),
)
"""In the order of `Format` in csrc/isa.h."""

_TABLES = ("cdna", "cdna2", "rdna2", "rdna3", "rdna4")
"""In the order of `opcode_table` in csrc/isa.c."""

_NAMES_ON_RDNA4 = {"FLAT": "VFLAT", "GLOBAL": "VGLOBAL", "SCRATCH": "VSCRATCH", "MUBUF": "VBUFFER"}
_NUM_OPCODES = 1024

Opcodes = dict[tuple[str, int], str]
"""Mnemonic by format and opcode."""


def write_tables(path: Path) -> None:
    """Writes the C file that `csrc/isa.c` includes."""
    cdna = _read_package("cdna")
    tables = {
        "cdna": cdna,
        "cdna2": {**cdna, **_read_list("cdna2")},
        "rdna2": _read_list("rdna2"),
        "rdna3": _read_package("rdna3"),
        "rdna4": _read_package("rdna4"),
    }
    lines = [f"static const char *const opcode_names[{len(_TABLES)}][{len(_FORMATS)}][{_NUM_OPCODES}] = {{"]
    for i, table in enumerate(_TABLES):
        for (form, opcode), name in sorted(tables[table].items()):
            lines.append(f'  [{i}][{_FORMATS.index(form)}][{opcode}] = "{name}",')
    path.write_text("\n".join([*lines, "};", ""]), encoding="utf-8")


def _read_package(family: str) -> Opcodes:
    enums = importlib.import_module(f"tinygrad.runtime.autogen.amd.{family}.enum")
    found: Opcodes = {}
    for form in _FORMATS:
        names = [form, _NAMES_ON_RDNA4.get(form, form)]
        kind = next((getattr(enums, f"{name}Op") for name in names if hasattr(enums, f"{name}Op")), None)
        if kind is None:
            continue  # CDNA has no VOPD
        assert issubclass(kind, Enum)
        for member in kind:
            found[form, int(member.value)] = _mnemonic(member.name)
    return found


def _mnemonic(name: str) -> str:
    return re.sub(r"_(e32|e64)$", "", name.lower()).replace("v_dual_", "v_")


def _read_list(family: str) -> Opcodes:
    text = (Path(__file__).parent / f"{family}_opcodes.txt").read_text(encoding="utf-8")
    rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return {(form, int(opcode)): name for form, opcode, name in rows}
