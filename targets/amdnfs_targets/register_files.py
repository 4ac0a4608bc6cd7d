"""How many waves the registers and the LDS of a compute unit hold, by target. Standard library only.

Source: LLVM, ``llvm/lib/Target/AMDGPU/Utils/AMDGPUBaseInfo.cpp``, functions ``getTotalNumVGPRs``,
``getVGPRAllocGranule``, ``getMaxWavesPerEU``, ``getEUsPerCU``, ``getMaxWorkGroupsPerCU``, ``getLdsDwGranularity``,
``getOccupancyWithNumSGPRs``; ``AMDGPU.td``, which targets have ``Feature1_5xVGPRs``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterFile:
    """What the waves of one SIMD, and the workgroups of one compute unit, share."""

    vgprs: int
    """Vector registers of a lane that the waves of a SIMD share, for the target's usual wave size; AGPRs included."""

    vgpr_granule: int
    """Vector registers are given to a wave in multiples of this."""

    wave_size: int
    """The wave size that the two figures above are for. A wave of twice the size halves both."""

    max_waves: int
    """Most waves on a SIMD."""

    simds: int
    """SIMDs that share one LDS: those of a compute unit."""

    lds_bytes: int
    """Shared memory of these SIMDs, in bytes."""

    lds_granule_bytes: int
    """Shared memory is given to a workgroup in multiples of this."""

    max_workgroups: int
    """Most workgroups of more than one wave on these SIMDs: each needs a barrier."""

    sgpr_steps: tuple[tuple[int, int], ...]
    """Pairs (most scalar registers of a wave, waves that a SIMD then holds). Empty: scalar registers limit nothing."""

    has_workgroup_processors: bool
    """Whether two compute units can work as one, with twice the SIMDs, LDS and workgroups (RDNA)."""


_GFX942 = RegisterFile(
    vgprs=512,
    vgpr_granule=8,
    wave_size=64,
    max_waves=8,
    simds=4,
    lds_bytes=64 * 1024,
    lds_granule_bytes=512,
    max_workgroups=16,
    sgpr_steps=((100, 8), (1 << 16, 7)),
    has_workgroup_processors=False,
)
_GFX1030 = RegisterFile(
    vgprs=1024,
    vgpr_granule=16,
    wave_size=32,
    max_waves=16,
    simds=2,
    lds_bytes=64 * 1024,
    lds_granule_bytes=512,
    max_workgroups=16,
    sgpr_steps=(),
    has_workgroup_processors=True,
)
_GFX1100 = replace(_GFX1030, vgprs=1536, vgpr_granule=24)

REGISTER_FILES: Mapping[str, RegisterFile] = MappingProxyType(
    {
        "gfx90a": _GFX942,
        "gfx942": _GFX942,
        "gfx950": replace(_GFX942, lds_bytes=160 * 1024, lds_granule_bytes=1280),
        "gfx1030": _GFX1030,
        "gfx1100": _GFX1100,
        "gfx1101": _GFX1100,
        "gfx1102": _GFX1030,
        "gfx1103": _GFX1030,
        "gfx1150": _GFX1030,
        "gfx1151": _GFX1100,
        "gfx1152": _GFX1030,
        "gfx1200": _GFX1100,
        "gfx1201": _GFX1100,
    }
)
"""By LLVM processor name."""
