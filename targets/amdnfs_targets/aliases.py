"""Other names of targets: product names, short names and groups. Keys are lower case; look them up in lower case.

Source: LLVM AMDGPUUsage, section Processors (https://llvm.org/docs/AMDGPUUsage.html), and AMD GPU specifications
(https://rocm.docs.amd.com/en/latest/reference/gpu-specs.html), columns Name and LLVM target name; for NVIDIA,
https://developer.nvidia.com/cuda-gpus.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# The best known name of each target comes first: messages show it.
_PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "gfx90a": ("mi210", "mi250", "mi250x"),
    "gfx942": ("mi300x", "mi300a", "mi308x", "mi325x"),
    "gfx950": ("mi350x", "mi355x"),
    "gfx1030": ("rx6800", "rx6800xt", "rx6900xt", "rx6950xt", "w6800"),
    "gfx1100": ("rx7900xtx", "rx7900xt", "rx7900gre", "w7900", "w7800"),
    "gfx1101": ("rx7800xt", "rx7700xt", "w7700", "v710"),
    "gfx1102": ("rx7600", "rx7600xt", "w7600", "w7500"),
    "gfx1103": ("phoenix", "radeon-780m"),
    "gfx1150": ("strix-point", "radeon-890m"),
    "gfx1151": ("strix-halo", "radeon-8060s"),
    "gfx1152": ("krackan-point", "radeon-860m"),
    "gfx1200": ("rx9060xt", "rx9060"),
    "gfx1201": ("rx9070", "rx9070xt", "r9700"),
    "cpu": ("host",),
    "cpu-x86-64-v3": ("x86-64-v3",),
    "cuda-sm_80": ("sm_80", "cuda", "a100"),
    "cuda-sm_86": ("sm_86", "rtx3090"),
    "cuda-sm_89": ("sm_89", "rtx4090"),
    "cuda-sm_90": ("sm_90", "h100", "h200"),
}

ALIASES: Mapping[str, str] = MappingProxyType({alias: name for name, aliases in _PRODUCTS.items() for alias in aliases})
"""Alias in lower case to the canonical name of a target."""

WITHOUT_TARGET: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gfx803": ("mi6", "mi8"),
        "gfx900": ("mi25",),
        "gfx906": ("mi50", "mi60", "radeon-vii"),
        "gfx908": ("mi100",),
        "gfx1010": ("rx5700", "rx5700xt"),
        "gfx1012": ("rx5500", "rx5500xt"),
        "gfx1031": ("rx6700xt",),
        "gfx1032": ("rx6600", "rx6600xt"),
        "gfx1034": (),
        "gfx1035": (),
        "gfx1036": (),
    }
)
"""AMD GPUs that people may ask for and that have no target, with their product names: none of our programs is theirs,
so nothing that is spelt alike may be suggested."""

ALL_AMD = "all-amd"
"""The group of all AMD GPU targets that the pinned IREE can compile for."""
