"""What this machine has, read from the kernel's files alone: no ROCm, no CUDA, no Vulkan library.

For the runtime and ``amdnfs doctor``. The compiler never asks: what it compiles for is what it is told.
"""

from __future__ import annotations

import re
from pathlib import Path

KFD_NODES = Path("/sys/class/kfd/kfd/topology/nodes")
"""One numbered folder for each CPU and GPU that the amdkfd driver knows."""

NVIDIA_GPUS = Path("/proc/driver/nvidia/gpus")
"""One folder for each GPU of the NVIDIA driver."""

NVIDIA_DEVICE = Path("/dev/nvidia0")
"""Device file of the first NVIDIA GPU; in a container often the only trace of it."""

CPUINFO = Path("/proc/cpuinfo")
"""The kernel's description of the processors."""

X86_64_V3_FEATURES: frozenset[str] = frozenset(
    {
        *("cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"),
        *("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    }
)
"""Flags in ``/proc/cpuinfo`` of an x86-64-v3 processor: ``pni`` is SSE3, ``abm`` is LZCNT, ``xsave`` gives OSXSAVE.

Source: System V ABI, AMD64 supplement, section 3.1.1, table 3.1; names as in Linux ``asm/cpufeatures.h``.
"""


def decode_gfx_target_version(version: int) -> str | None:
    """Turn the driver's ``gfx_target_version`` into an LLVM name: major * 10000 + minor * 100 + stepping.

    Source: Linux ``drivers/gpu/drm/amd/amdkfd/kfd_device.c``, field ``gfx_target_version``.

    Returns:
        The gfx name, or None for 0, which CPUs have.

    >>> decode_gfx_target_version(90402), decode_gfx_target_version(90010), decode_gfx_target_version(110501)
    ('gfx942', 'gfx90a', 'gfx1151')
    """
    if version <= 0:
        return None
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"


def detect_amd_gfx(root: Path = KFD_NODES) -> tuple[str, ...]:
    """The gfx name of each AMD GPU, in the driver's order; the same name twice for two equal GPUs.

    Nodes that cannot be read (a GPU of another container) are left out.
    """
    if not root.is_dir():
        return ()
    nodes = sorted((path for path in root.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    found = (_gfx_of_node(node / "properties") for node in nodes)
    return tuple(gfx for gfx in found if gfx is not None)


def has_nvidia_gpu(gpus: Path = NVIDIA_GPUS, device: Path = NVIDIA_DEVICE) -> bool:
    """Whether the NVIDIA driver shows at least one GPU."""
    return device.exists() or (gpus.is_dir() and any(gpus.iterdir()))


def cpu_features(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """The features that every processor of this machine has, by their names in ``/proc/cpuinfo``; empty if unknown."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    lines = re.findall(r"^(?:flags|Features)[ \t]*:(.*)$", text, flags=re.MULTILINE)
    return frozenset.intersection(*(frozenset(line.split()) for line in lines)) if lines else frozenset()


def cpu_supports_x86_64_v3(cpuinfo: Path = CPUINFO) -> bool:
    """Whether programs for the target ``cpu-x86-64-v3`` run here."""
    return cpu_features(cpuinfo) >= X86_64_V3_FEATURES


def _gfx_of_node(properties: Path) -> str | None:
    try:
        pairs = (line.split() for line in properties.read_text(encoding="utf-8").splitlines())
    except OSError:
        return None
    values = {pair[0]: pair[1] for pair in pairs if len(pair) == 2}
    if values.get("simd_count", "0") == "0":
        return None
    version = values.get("gfx_target_version", "0")
    return decode_gfx_target_version(int(version)) if version.isdigit() else None
