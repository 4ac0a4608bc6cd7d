"""How many waves of a kernel a SIMD can hold at once, by its registers, LDS and workgroup size.

The best case: a device that is full of workgroups of this kernel. More waves hide more latency; few waves are no fault
of a kernel that keeps its operands in registers.

Source: see `amdnfs_targets.register_files`.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_targets.register_files import REGISTER_FILES, RegisterFile

from amdnfs_runtime.report.code_objects import Kernel


@dataclass(frozen=True, kw_only=True, slots=True)
class Occupancy:
    """Waves of one kernel on one SIMD."""

    waves: float
    """Waves; not whole where a few workgroups share several SIMDs. 0 if a workgroup does not fit at all."""
    limit: str
    """What keeps it from more: `VGPRs`, `SGPRs`, `LDS`, `workgroups` or `slots`."""


def occupancy_of(kernel: Kernel, gfx: str) -> Occupancy | None:
    """Waves of `kernel` on a SIMD of `gfx`; None for a processor whose register file is not known."""
    registers = REGISTER_FILES.get(gfx)
    return None if registers is None else _occupancy(kernel, registers)


def _occupancy(kernel: Kernel, registers: RegisterFile) -> Occupancy:
    """Whole workgroups are placed: each limit is turned into workgroups on the SIMDs that share the LDS."""
    scale = 2 if registers.has_workgroup_processors and kernel.is_workgroup_processor_mode else 1
    simds = registers.simds * scale
    group_waves = -(-kernel.workgroup_threads // kernel.wave_size)
    limits = {
        "slots": registers.max_waves * simds // group_waves,
        "VGPRs": _by_vgprs(kernel, registers) * simds // group_waves,
        "SGPRs": _by_sgprs(kernel, registers) * simds // group_waves,
    }
    if group_waves > 1:
        limits["workgroups"] = registers.max_workgroups * scale
    if kernel.lds_bytes:
        limits["LDS"] = registers.lds_bytes * scale // _up(kernel.lds_bytes, registers.lds_granule_bytes)
    limit, groups = min(limits.items(), key=lambda item: item[1])
    return Occupancy(waves=groups * group_waves / simds, limit=limit)


def _by_vgprs(kernel: Kernel, registers: RegisterFile) -> int:
    share = kernel.wave_size // registers.wave_size or 1
    taken = _up(max(kernel.vgprs, 1), registers.vgpr_granule // share)
    return min(registers.vgprs // share // taken, registers.max_waves)


def _by_sgprs(kernel: Kernel, registers: RegisterFile) -> int:
    return next((waves for most, waves in registers.sgpr_steps if kernel.sgprs <= most), registers.max_waves)


def _up(value: int, granule: int) -> int:
    return -(-value // granule) * granule
