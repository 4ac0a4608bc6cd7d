"""Counts what kernels consist of, in the assembly that IREE leaves beside a code object.

Counts are of instructions in the text of a kernel, not of executed ones: a loop counts once.

Source: LLVM AMDGPUUsage, "Code Object V5 Metadata", and the AMD instruction set guides for the names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

_MATRIX = ("v_mfma_", "v_smfmac_", "v_wmma_", "v_swmmac_")
_ACCESS = re.compile(
    r"(?P<space>global|buffer|flat|ds|scratch|s|s_buffer)_"
    r"(?P<direction>load|store|read|write)(?P<pair>2|2st64|_2addr|_2addr_stride64)?_(?P<form>[a-z0-9_]+)$"
)
_WORDS = {"dword": 4, "short": 2, "ushort": 2, "sshort": 2, "byte": 1, "ubyte": 1, "sbyte": 1}
_FUNCTION = re.compile(r"^\s+\.type\s+(\S+),@function$", re.MULTILINE)
METADATA = {
    "vgprs": "vgpr_count",
    "agprs": "agpr_count",
    "sgprs": "sgpr_count",
    "vgpr_spills": "vgpr_spill_count",
    "sgpr_spills": "sgpr_spill_count",
    "lds_bytes": "group_segment_fixed_size",
    "scratch_bytes": "private_segment_fixed_size",
    "workgroup_threads": "max_flat_workgroup_size",
    "wave_size": "wavefront_size",
}
"""Figures of a kernel's metadata, by our names."""


def read_assembly(text: str) -> dict[str, dict[str, Any]]:
    """Facts of each kernel in the assembly of one code object.

    Returns:
        By kernel: the registers, bytes of LDS and scratch memory, spills, threads and wave size that its metadata
        states; `matrix_instructions` and other counts of instructions; `loads` and `stores` with the number of
        instructions by address space (`global`, `lds`, `scalar`) and bytes a lane (scalar: a wave).

    Raises:
        ValueError: If a kernel has metadata but no code, or a figure is missing.
    """
    facts = {}
    bodies = dict(_bodies(text))
    for name, metadata in _metadata(text):
        if name not in bodies:
            raise ValueError(f"the assembly has metadata of kernel {name}, but no code")
        facts[name] = {**metadata, **count_instructions(bodies[name])}
    return facts


def _bodies(text: str) -> Iterator[tuple[str, Iterable[str]]]:
    """Each function with its lines."""
    for match in _FUNCTION.finditer(text):
        name = match[1].strip('"')
        begin = text.index(f"{match[1]}:", match.end())
        end = text.find("\n.Lfunc_end", begin)
        yield name, text[begin : None if end < 0 else end].splitlines()[1:]


def _metadata(text: str) -> Iterator[tuple[str, dict[str, int]]]:
    begin = text.find("amdhsa.kernels:")
    end = text.find("\namdhsa.target:", begin)
    for entry in re.split(r"^  - ", text[begin:end], flags=re.MULTILINE)[1:]:
        symbol = re.search(r"^\s*\.symbol:\s+'?\"?([^'\"\s]+)\.kd", entry, flags=re.MULTILINE)
        if symbol is None:
            raise ValueError("the assembly has metadata of a kernel without a symbol")
        yield symbol[1], {key: _figure(entry, name, symbol[1]) for key, name in METADATA.items()}


def _figure(entry: str, name: str, kernel: str) -> int:
    match = re.search(rf"^\s*\.{name}:\s+(\d+)$", entry, flags=re.MULTILINE)
    if match is None:
        # RDNA has no AGPRs, and its metadata does not mention them.
        if name == "agpr_count":
            return 0
        raise ValueError(f"the assembly's metadata of kernel {kernel} has no .{name}")
    return int(match[1])


def count_instructions(lines: Iterable[str]) -> dict[str, Any]:
    """Counts of the instructions in the lines of one function.

    >>> counts = count_instructions(["  v_mfma_f32_16x16x16_f16 a[0:3], v[0:1], v[2:3], a[0:3]", "  s_barrier"])
    >>> counts["matrix_instructions"], counts["barriers"], counts["matrix"]
    (1, 1, {'v_mfma_f32_16x16x16_f16': 1})
    """
    counts: Counter[str] = Counter()
    matrix: Counter[str] = Counter()
    accesses: dict[str, dict[str, Counter[str]]] = {"loads": {}, "stores": {}}
    for line in lines:
        if line.lstrip().startswith((";", ".")) or not line[:1].isspace():
            continue
        # RDNA may issue two vector instructions at once, written on one line.
        for instruction in line.split(";")[0].split("::"):
            name = (instruction.split() or [""])[0]
            if name.startswith(_MATRIX):
                matrix[_base(name)] += 1
            elif name:
                _count_one(name, counts, accesses)
    names = ("vector_alu", "f64", "barriers", "waits", "atomics", "scratch_accesses")
    return {
        "matrix_instructions": matrix.total(),
        "matrix": dict(sorted(matrix.items())),
        **{name: counts[name] for name in names},
        **{direction: _sorted_widths(spaces) for direction, spaces in accesses.items()},
    }


def _count_one(name: str, counts: Counter[str], accesses: Mapping[str, dict[str, Counter[str]]]) -> None:
    if name.startswith("v_"):
        counts["vector_alu"] += 1
        counts["f64"] += "_f64" in name
    elif name.startswith("s_barrier"):
        counts["barriers"] += name != "s_barrier_wait"  # RDNA4 has a pair: signal, then wait
    elif name.startswith("s_wait"):
        counts["waits"] += 1
    elif "_atomic_" in name or name.startswith("ds_add_"):
        counts["atomics"] += 1
    match = _ACCESS.match(name)
    if match is None:
        return
    space = {"ds": "lds", "s": "scalar", "s_buffer": "scalar", "scratch": "scratch"}.get(match["space"], "global")
    if space == "scratch":
        counts["scratch_accesses"] += 1
        return
    direction = "loads" if match["direction"] in ("load", "read") else "stores"
    width = width_bytes(match["form"])
    key = "unknown" if width is None else str(width * (2 if match["pair"] else 1))
    accesses[direction].setdefault(space, Counter())[key] += 1


def width_bytes(form: str) -> int | None:
    """Bytes a lane of a load or store, from the last part of its name; None if the name tells nothing.

    >>> [width_bytes(form) for form in ("dwordx4", "b128", "ushort", "short_d16_hi", "u8", "d16_b16", "lds_dwordx3")]
    [16, 16, 2, 2, 1, 2, 12]
    """
    match = re.search(r"(?:^|_)(dword|[us]?short|[us]?byte)(?:x(\d+))?(?:_|$)", form)
    if match:
        return _WORDS[match[1]] * int(match[2] or 1)
    sizes = re.findall(r"(?:^|_)[bui](\d+)(?=_|$)", form)
    if sizes:
        return int(sizes[0]) // 8
    return None


def _base(name: str) -> str:
    return re.sub(r"_(?:e32|e64|dpp|sdwa|vgprcd_e64|gfx\d+\w*)$", "", name)


def _sorted_widths(spaces: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {
        space: dict(sorted(widths.items(), key=lambda item: (len(item[0]), item[0])))
        for space, widths in sorted(spaces.items())
    }
