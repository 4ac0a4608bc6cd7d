"""Facts of a whole program: its dispatches, its code objects, and the code of each kernel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amdnfs_passes.ir import Context, Module
from amdnfs_runtime.errors import LoweringError
from amdnfs_runtime.report.code_objects import CodeObject, Kernel, find_code_objects

from amdnfs_compile.kernel_facts.assembly import METADATA, read_assembly, width_bytes
from amdnfs_compile.kernel_facts.dispatches import read_dispatches
from amdnfs_compile.kernel_facts.embedded import EmbeddedKernel, read_embedded

ASSEMBLY_FLAG = "--iree-hal-dump-executable-intermediates-to="
"""Flag of iree-compile that leaves the assembly of AMD kernels in a folder. It changes no byte of the program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProgramFacts:
    """What a report needs to know of a program; plain values for facts.json."""

    dispatches: Mapping[str, Any] = field(default_factory=dict)
    """By entry point; see `read_dispatches`."""
    code_objects: tuple[Mapping[str, Any], ...] = ()
    """`sha256` and `num_bytes` of each code object in the program, in its order; none if it is for no AMD GPU."""
    kernels: Mapping[str, Any] = field(default_factory=dict)
    """By the `export` of a dispatch: `symbol`, `object` (its sha256), what the code object says of registers and
    memory, and what `read_assembly` counts."""


def measure_program(flow: Path, program: bytes, assembly: Path | None) -> ProgramFacts:
    """Facts of a compiled program.

    Args:
        flow: The module after our passes at the flow phase, as bytecode.
        program: The `.vmfb`.
        assembly: Folder that `ASSEMBLY_FLAG` named; None if the target is no AMD GPU.

    Raises:
        LoweringError: If IREE left no assembly, or assembly that does not belong to the program.
    """
    module = Module.parse(flow.read_bytes(), Context())
    embedded = read_embedded(module)
    if assembly is None:
        kernels = {item.key: _embedded_facts(item, None) for item in embedded.values()}
        return ProgramFacts(dispatches=read_dispatches(module), kernels=dict(sorted(kernels.items())))
    objects = find_code_objects(program)
    try:
        kernels = _generated(objects, assembly)
    except ValueError as error:
        raise LoweringError(f"the assembly that IREE left beside the program cannot be read: {error}") from error
    used = {item.sha256 for item in embedded.values()}
    for item in embedded.values():
        kernels[item.key] = _embedded_facts(item, next((o for o in objects if o.sha256 == item.sha256), None))
    if not kernels or any(o.sha256 not in used and not set(o.kernels) <= set(kernels) for o in objects):
        raise LoweringError("the assembly that IREE left beside the program is not that of its code objects")
    return ProgramFacts(
        dispatches=read_dispatches(module),
        code_objects=tuple({"sha256": item.sha256, "num_bytes": item.num_bytes} for item in objects),
        kernels=dict(sorted(kernels.items())),
    )


def _generated(objects: tuple[CodeObject, ...], folder: Path) -> dict[str, Any]:
    """Facts of the kernels that IREE made, from their assembly."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.rocmasm")):
        for symbol, figures in read_assembly(path.read_text(encoding="utf-8", errors="replace")).items():
            homes = [item for item in objects if symbol in item.kernels]
            if len(homes) != 1 or symbol in found:
                raise ValueError(f"kernel {symbol} is in {len(homes)} code objects")
            registers = _registers(homes[0].kernels[symbol])
            # IREE 3.13.0 makes assembly and code object in two runs of code generation, from two copies of a module.
            # On gfx1030, register allocation was seen to differ. `test_assembly_is_that_of_the_code_object` in
            # tests/e2e/test_report.py tells when this can go.
            differs = sorted(name for name, value in registers.items() if figures[name] != value)
            note = {"assembly_differs_in": differs} if differs else {}
            found[symbol] = {"symbol": symbol, "object": homes[0].sha256, **figures, **registers, **note}
    return found


def _registers(kernel: Kernel) -> dict[str, int]:
    """What a code object says of a kernel."""
    return {name: getattr(kernel, name) for name in METADATA}


def _embedded_facts(kernel: EmbeddedKernel, home: CodeObject | None) -> dict[str, Any]:
    """Facts of a kernel of ours, as its maker noted them; registers from the code object if there is one."""
    notes = dict(kernel.notes.get("kernel", {}))
    facts: dict[str, Any] = {
        "symbol": kernel.symbol,
        "object": home.sha256 if home else None,
        "made_by": "triton",
        "tiling": kernel.notes.get("tiling"),
        "matrix_instructions": notes.get("matrix_instructions"),
        "loads": {"global": _by_bytes(notes.get("loads", {}))},
        "stores": {"global": _by_bytes(notes.get("stores", {}))},
    }
    if home is not None and kernel.symbol in home.kernels:
        facts |= _registers(home.kernels[kernel.symbol])
    return {key: value for key, value in facts.items() if value is not None}


def _by_bytes(widths: Mapping[str, int]) -> dict[str, int]:
    """Numbers of accesses by bytes a lane, from their names: `dwordx4`, `b128`, PTX's `.v4.b32`."""
    counts: dict[str, int] = {}
    for name, count in widths.items():
        ptx = re.fullmatch(r"(?:\.v(\d))?\.b(\d+)", name)
        width = int(ptx[1] or 1) * int(ptx[2]) // 8 if ptx else width_bytes(name)
        key = "unknown" if width is None else str(width)
        counts[key] = counts.get(key, 0) + count
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))
