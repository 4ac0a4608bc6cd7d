"""How many pages the KV pool gets: from what the device has free, before anything is loaded.

    kind     free memory                                                    share for weights and pool
    cpu      what the kernel calls available, or what is left of a cgroup   0.6: others live there, too
    hip      amdgpu's counters in sysfs; on an APU memory is the machine's   0.9, on an APU 0.6
    cuda     nvidia-smi                                                     0.9
    vulkan   not known                                                      -

By default the pool holds a full context for each running request, but no more than 1 GiB unless a single context needs
it. `kv_pages` sets the pages, `memory_fraction` the share of the memory that is free beside the weights.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.config import EngineConfig, check_num_pages
from amdnfs_runtime.errors import CapacityError, UsageError

DEFAULT_POOL_BYTES = 1 << 30
"""Upper bound of the default pool, in bytes; one full context is always allowed."""

_LARGEST_POOL_BYTES = 1 << 40
_SMI_TIMEOUT_S = 10.0
_DRM = Path("/sys/class/drm")
_CGROUP = Path("/sys/fs/cgroup")
_REMEDY = "give fewer pages (--kv-pages, num_pages), or compile with a shorter --context"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceMemory:
    """What a device has left."""

    free_bytes: int
    """Bytes that nobody uses."""
    share: float
    """Part of them that weights and pool may take; > 0 and <= 1."""
    source: str
    """Where the number comes from, for messages."""


def pool_pages(
    manifest: Manifest, kind: str, config: EngineConfig, num_running: int, memory: DeviceMemory | None
) -> int:
    """Pages of the KV pool, the null page included.

    Args:
        manifest: Sizes of pages, context and weights.
        kind: Kind of the target.
        config: What the user wants.
        num_running: Requests that run at once.
        memory: What the device has; None if that is not known.

    Raises:
        CapacityError: If the memory does not hold the pool; with the numbers, and what to change.
        UsageError: If a share is wanted of a memory that is not known.
    """
    page_bytes = max(1, manifest.page_bytes)
    if config.kv_pages is not None:
        check_num_pages(config.kv_pages)
        _check_holds(config.kv_pages, page_bytes, kind, memory)
        return config.kv_pages
    one_context = -(-manifest.model.context_tokens // manifest.page_tokens)
    if config.memory_fraction is not None:
        return _pages_of_share(config.memory_fraction, manifest, one_context, memory)
    affordable = DEFAULT_POOL_BYTES // page_bytes
    num_pages = 1 + max(one_context, min(one_context * num_running, affordable))
    if memory is None:
        return num_pages
    most = _beside_weights(manifest, memory, memory.share) // page_bytes
    if most <= one_context:
        raise CapacityError(
            f"one full context of {manifest.model.context_tokens} tokens takes {_mib((1 + one_context) * page_bytes)} "
            f"MiB of KV pages beside {_mib(weight_bytes(manifest))} MiB of weights, but {_mib(memory.free_bytes)} MiB "
            f"are free ({memory.source}), of which {memory.share:.0%} may be used; {_REMEDY}"
        )
    return min(num_pages, most)


def weight_bytes(manifest: Manifest) -> int:
    """Size of the weights, in bytes."""
    return sum(manifest.files[path].size for path in manifest.weights if path in manifest.files)


def device_memory(kind: str) -> DeviceMemory | None:
    """What a device of this machine has free; None if nobody tells."""
    probes: dict[str, Callable[[], DeviceMemory | None]] = {
        "cpu": host_memory,
        "hip": amd_memory,
        "cuda": nvidia_memory,
    }
    return probes[kind]() if kind in probes else None


def host_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = _CGROUP) -> DeviceMemory | None:
    """Available memory of the machine, or of the container if that has less."""
    try:
        lines = meminfo.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {name: text.split()[0] for name, _, text in (line.partition(":") for line in lines)}
    free = int(values["MemAvailable"]) * 1024
    limit, used = _number(cgroup / "memory.max"), _number(cgroup / "memory.current")
    if limit is not None and used is not None and limit - used < free:
        return DeviceMemory(free_bytes=max(0, limit - used), share=0.6, source="memory limit of the cgroup")
    return DeviceMemory(free_bytes=free, share=0.6, source="available memory of the machine")


def amd_memory(drm: Path = _DRM) -> DeviceMemory | None:
    """Free memory of the first AMD GPU, as the amdgpu driver counts it.

    An APU has little memory of its own and uses the machine's: then the free part of that counts, as the driver lets
    programs have it (GTT).

    Source: Linux kernel documentation, "amdgpu: memory usage information" (mem_info_vram_* and mem_info_gtt_*).
    """
    for device in sorted(drm.glob("card*/device")):
        sizes = {
            name: _number(device / f"mem_info_{name}") for name in ("vram_total", "vram_used", "gtt_total", "gtt_used")
        }
        if any(value is None for value in sizes.values()):
            continue
        known = {name: value or 0 for name, value in sizes.items()}
        if known["gtt_total"] > known["vram_total"]:
            host = host_memory()
            free = known["gtt_total"] - known["gtt_used"]
            free = free if host is None else min(free, host.free_bytes)
            return DeviceMemory(
                free_bytes=free, share=0.6, source=f"memory shared with the machine, {device.parent.name}"
            )
        free = known["vram_total"] - known["vram_used"]
        return DeviceMemory(free_bytes=free, share=0.9, source=f"memory of {device.parent.name}")
    return None


def nvidia_memory() -> DeviceMemory | None:
    """Free memory of the first NVIDIA GPU, as nvidia-smi tells it."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SMI_TIMEOUT_S)
        return DeviceMemory(free_bytes=int(done.stdout.split()[0]) << 20, share=0.9, source="nvidia-smi")
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _pages_of_share(fraction: float, manifest: Manifest, one_context: int, memory: DeviceMemory | None) -> int:
    if memory is None:
        raise UsageError("memory_fraction: nobody tells how much memory this device has free; give kv_pages instead")
    page_bytes = max(1, manifest.page_bytes)
    num_pages = _beside_weights(manifest, memory, fraction) // page_bytes
    if num_pages <= one_context:
        raise CapacityError(
            f"memory_fraction={fraction:g} of {_mib(memory.free_bytes)} MiB free ({memory.source}), less "
            f"{_mib(weight_bytes(manifest))} MiB of weights, is {max(0, num_pages)} KV pages of {page_bytes >> 10} "
            f"KiB; one full context of {manifest.model.context_tokens} tokens needs {1 + one_context}; "
            "give a larger memory_fraction, set kv_pages, or compile with a shorter --context"
        )
    return num_pages


def _check_holds(num_pages: int, page_bytes: int, kind: str, memory: DeviceMemory | None) -> None:
    """Refuses a pool that the device cannot hold, or that no device can."""
    available = _LARGEST_POOL_BYTES if memory is None else memory.free_bytes
    if kind == "cpu":  # what others use now may be free when it is needed: only what cannot be there is refused
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_pages * page_bytes > available:
        raise CapacityError(
            f"a pool of {num_pages} pages takes {_mib(num_pages * page_bytes)} MiB, but there are {_mib(available)} "
            f"MiB; {_REMEDY}"
        )


def _beside_weights(manifest: Manifest, memory: DeviceMemory, share: float) -> int:
    return int((memory.free_bytes - weight_bytes(manifest)) * share)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # a cgroup without a limit says "max"
        return None


def _mib(num_bytes: int) -> int:
    return num_bytes >> 20
