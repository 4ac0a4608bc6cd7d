"""How many pages the KV pool gets: from what the device has free, before anything is loaded.

    kind     free memory                                                    share for weights and pool
    cpu      what the kernel calls available, or what is left of a cgroup   0.6: others live there, too
    hip      amdgpu's counters in sysfs; on an APU memory is the machine's   0.9, on an APU 0.6
    cuda     nvidia-smi                                                     0.9
    vulkan   not known                                                      -

By default the pool holds a full context for each running request, but no more than 1 GiB unless a single context needs
it. `kv_pages` sets the pages, `memory_fraction` the share of the memory that is free beside the weights. A draft on the
same device has a pool of its own for as many tokens, and its weights and pages are counted with the others.
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
    manifest: Manifest,
    kind: str,
    config: EngineConfig,
    num_running: int,
    memory: DeviceMemory | None,
    draft: Manifest | None = None,
) -> int:
    """Pages of the KV pool, the null page included.

    Args:
        manifest: Sizes of pages, context and weights.
        kind: Kind of the target.
        config: What the user wants.
        num_running: Requests that run at once.
        memory: What the device has; None if that is not known.
        draft: A draft on the same device: room is left for its weights, and for a pool of as many tokens.

    Raises:
        CapacityError: If the memory does not hold the pool; with the numbers, and what to change.
        UsageError: If a share is wanted of a memory that is not known.
    """
    needs = _Needs.of(manifest, draft)
    if config.kv_pages is not None:
        check_num_pages(config.kv_pages)
        _check_holds(config.kv_pages, needs, kind, memory)
        return config.kv_pages
    one_context = -(-manifest.model.context_tokens // manifest.page_tokens)
    if config.memory_fraction is not None:
        return _pages_of_share(config.memory_fraction, manifest, needs, one_context, memory)
    affordable = DEFAULT_POOL_BYTES // max(1, manifest.page_bytes)
    num_pages = 1 + max(one_context, min(one_context * num_running, affordable))
    if memory is None:
        return num_pages
    most = needs.beside_weights(memory, memory.share) // needs.page_bytes
    if most <= one_context:
        context_bytes = (1 + one_context) * needs.page_bytes
        raise CapacityError(
            f"one full context of {manifest.model.context_tokens} tokens takes {_mib(context_bytes)} MiB of KV pages "
            f"beside {_mib(needs.weight_bytes)} MiB of weights{needs.note}, but {_mib(memory.free_bytes)} MiB are "
            f"free ({memory.source}), of which {memory.share:.0%} may be used; {_REMEDY}"
        )
    return min(num_pages, most)


def draft_pool_pages(draft: Manifest, manifest: Manifest, num_pages: int, num_running: int) -> int:
    """Pages of a draft's pool, the null page included: for as many tokens as the pool of the model holds.

    More than a full context for each running request is of no use, as a draft keeps nothing of what has ended.

    Args:
        draft: The draft.
        manifest: The model.
        num_pages: Pages of the model's pool, the null page included.
        num_running: Requests that run at once.
    """
    as_many = -(-(num_pages - 1) * manifest.page_tokens // draft.page_tokens)
    context = min(draft.model.context_tokens, manifest.model.context_tokens)
    return 1 + min(as_many, num_running * -(-context // draft.page_tokens))


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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Needs:
    """What a model and its draft take."""

    page_bytes: int
    """Bytes of a page of the model's pool, and of as many tokens in the draft's."""
    weight_bytes: int
    """Bytes of all weights."""
    draft_weight_bytes: int
    """Those of them that are the draft's."""
    note: str
    """What a message says of the draft."""

    @staticmethod
    def of(manifest: Manifest, draft: Manifest | None) -> _Needs:
        page_bytes, num_bytes = max(1, manifest.page_bytes), weight_bytes(manifest)
        if draft is None:
            return _Needs(page_bytes=page_bytes, weight_bytes=num_bytes, draft_weight_bytes=0, note="")
        share = -(-draft.page_bytes * manifest.page_tokens // draft.page_tokens)
        return _Needs(
            page_bytes=page_bytes + share,
            weight_bytes=num_bytes + weight_bytes(draft),
            draft_weight_bytes=weight_bytes(draft),
            note=" (the draft's counted with them)",
        )

    def beside_weights(self, memory: DeviceMemory, share: float) -> int:
        return int((memory.free_bytes - self.weight_bytes) * share)


def _pages_of_share(
    fraction: float, manifest: Manifest, needs: _Needs, one_context: int, memory: DeviceMemory | None
) -> int:
    if memory is None:
        raise UsageError("memory_fraction: nobody tells how much memory this device has free; give kv_pages instead")
    num_pages = needs.beside_weights(memory, fraction) // needs.page_bytes
    if num_pages <= one_context:
        raise CapacityError(
            f"memory_fraction={fraction:g} of {_mib(memory.free_bytes)} MiB free ({memory.source}), less "
            f"{_mib(needs.weight_bytes)} MiB of weights{needs.note}, is {max(0, num_pages)} KV pages of "
            f"{needs.page_bytes >> 10} KiB; one full context of {manifest.model.context_tokens} tokens needs "
            f"{1 + one_context}; give a larger memory_fraction, set kv_pages, or compile with a shorter --context"
        )
    return num_pages


def _check_holds(num_pages: int, needs: _Needs, kind: str, memory: DeviceMemory | None) -> None:
    """Refuses a pool that the device cannot hold, or that no device can."""
    available = _LARGEST_POOL_BYTES if memory is None else memory.free_bytes
    if kind == "cpu":  # what others use now may be free when it is needed: only what cannot be there is refused
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    wanted = num_pages * needs.page_bytes + needs.draft_weight_bytes
    if wanted > available:
        draft = ", with the draft's pool and weights," if needs.note else ""
        raise CapacityError(
            f"a pool of {num_pages} pages{draft} takes {_mib(wanted)} MiB, but there are {_mib(available)} "
            f"MiB; {_REMEDY}"
        )


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # a cgroup without a limit says "max"
        return None


def _mib(num_bytes: int) -> int:
    return num_bytes >> 20
