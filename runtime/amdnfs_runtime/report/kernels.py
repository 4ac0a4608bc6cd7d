"""Joins what a compile noted about its kernels with what the program's code objects say, and insists they agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.report.code_objects import CodeObject, Kernel, find_code_objects
from amdnfs_runtime.report.facts import Facts
from amdnfs_runtime.report.occupancy import occupancy_of

_ARCHIVE = b"PK\x03\x04"
"""How a `.vmfb` begins: it is a zip archive."""
_COMPARED = ("vgprs", "agprs", "sgprs", "vgpr_spills", "sgpr_spills", "lds_bytes", "scratch_bytes", "wave_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelReport:
    """Figures of one kernel. None: the figure does not exist, or nobody could count it."""

    export: str
    """Key of the kernel."""
    symbol: str
    """Name in its code object."""
    made_by: str
    """`iree` or `triton`."""
    tiling: str | None
    """How a kernel of ours is cut up."""
    matrix_instructions: int | None
    """Matrix instructions in its text."""
    matrix: Mapping[str, int]
    """These by name, where they were counted by name."""
    vgprs: int | None
    """Vector registers of a lane, AGPRs included."""
    agprs: int | None
    """Of these, accumulation registers."""
    sgprs: int | None
    """Scalar registers of a wave."""
    vgpr_spills: int | None
    """Vector registers that live in scratch memory."""
    sgpr_spills: int | None
    """Scalar registers that did not fit."""
    lds_bytes: int | None
    """Shared memory of a workgroup, in bytes."""
    scratch_bytes: int | None
    """Private memory of a lane, in bytes."""
    workgroup_threads: int | None
    """Most threads of a workgroup."""
    wave_size: int | None
    """Lanes of a wave."""
    waves_per_simd: float | None
    """Waves that a SIMD can hold."""
    waves_limit: str | None
    """What keeps it from more."""
    loads: Mapping[str, Mapping[str, int]]
    """Loads in its text by address space and bytes a lane."""
    stores: Mapping[str, Mapping[str, int]]
    """Stores likewise."""
    vector_alu: int | None
    """Vector instructions other than matrix instructions."""
    f64: int | None
    """Of these, in double precision."""
    barriers: int | None
    """Barriers in its text."""
    waits: int | None
    """Instructions that wait for memory."""
    assembly_differs_in: tuple[str, ...]
    """Figures in which the assembly that was counted differs from the code object: then the counts are close, not
    exact."""

    @property
    def uses_matrix_units(self) -> bool | None:
        """Whether there are matrix instructions in its text."""
        return None if self.matrix_instructions is None else self.matrix_instructions > 0


def read_kernels(program: Path, facts: Facts, gfx: str | None) -> dict[str, KernelReport]:
    """The kernels of a program by their key.

    Args:
        program: The `.vmfb`.
        facts: Its facts.
        gfx: Processor of a hip program; None for other programs, which hold no code objects that could be read.

    Raises:
        ArtifactError: If it is no program, the code objects are not those that the facts describe, or a figure differs.
    """
    if program.read_bytes()[: len(_ARCHIVE)] != _ARCHIVE:
        raise ArtifactError(f"{program}: is no program of IREE (no zip archive); compile the target again")
    if gfx is None:
        return {key: _report(key, values, None, None) for key, values in facts.kernels.items()}
    objects = {item.sha256: item for item in find_code_objects(program.read_bytes())}
    _check_objects(program, objects, facts, gfx)
    kernels = {}
    for key, values in facts.kernels.items():
        found = objects[values["object"]].kernels.get(values["symbol"]) if values.get("object") in objects else None
        if found is None:
            raise ArtifactError(
                f"{program}: the facts describe kernel {values.get('symbol')}, but no code object of the program "
                "has it; compile the target again"
            )
        _check_figures(program, values, found)
        kernels[key] = _report(key, values, found, gfx)
    return kernels


def _check_objects(program: Path, objects: Mapping[str, CodeObject], facts: Facts, gfx: str) -> None:
    if set(objects) != set(facts.code_objects):
        raise ArtifactError(
            f"{program}: its {len(objects)} code object(s) are not the {len(facts.code_objects)} that facts.json "
            "describes (their sha256 differ); program and facts are of different compiles: compile the target again"
        )
    others = sorted({item.gfx for item in objects.values()} - {gfx})
    if others:
        raise ArtifactError(f"{program}: holds a code object for {others[0]}, not for {gfx}; compile the target again")


def _check_figures(program: Path, values: Mapping[str, Any], kernel: Kernel) -> None:
    for name in _COMPARED:
        noted, found = values.get(name), getattr(kernel, name)
        if noted is not None and noted != found:
            raise ArtifactError(
                f"{program}: kernel {kernel.name} has {name} = {found} in the code object, but {noted} in facts.json; "
                "compile the target again"
            )


def _report(key: str, values: Mapping[str, Any], kernel: Kernel | None, gfx: str | None) -> KernelReport:
    occupancy = occupancy_of(kernel, gfx) if kernel is not None and gfx is not None else None
    return KernelReport(
        export=key,
        symbol=values["symbol"],
        made_by=values.get("made_by", "iree"),
        tiling=values.get("tiling"),
        matrix_instructions=values.get("matrix_instructions"),
        matrix=values.get("matrix", {}),
        vgprs=kernel.vgprs if kernel else None,
        agprs=kernel.agprs if kernel else None,
        sgprs=kernel.sgprs if kernel else None,
        vgpr_spills=kernel.vgpr_spills if kernel else None,
        sgpr_spills=kernel.sgpr_spills if kernel else None,
        lds_bytes=kernel.lds_bytes if kernel else None,
        scratch_bytes=kernel.scratch_bytes if kernel else None,
        workgroup_threads=kernel.workgroup_threads if kernel else None,
        wave_size=kernel.wave_size if kernel else None,
        waves_per_simd=occupancy.waves if occupancy else None,
        waves_limit=occupancy.limit if occupancy else None,
        loads=values.get("loads", {}),
        stores=values.get("stores", {}),
        vector_alu=values.get("vector_alu"),
        f64=values.get("f64"),
        barriers=values.get("barriers"),
        waits=values.get("waits"),
        assembly_differs_in=tuple(values.get("assembly_differs_in", ())),
    )
