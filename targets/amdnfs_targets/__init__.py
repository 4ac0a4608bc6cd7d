"""The targets that programs are compiled for: capabilities, compiler flags, names, and what this machine has.

Data only: nothing here compiles, prints or loads a library.
"""

from amdnfs_targets.aliases import ALIASES
from amdnfs_targets.detect import cpu_features, cpu_supports_x86_64_v3, detect_amd_gfx, has_nvidia_gpu
from amdnfs_targets.registry import (
    GROUPS,
    TARGETS,
    UnknownTargetError,
    aliases_of,
    get_target,
    resolve_targets,
)
from amdnfs_targets.target import (
    ComputeDtype,
    Fp8Format,
    MatrixOp,
    SkinnyMatmulDefect,
    Target,
    TargetKind,
    UnsupportedTargetError,
    Workaround,
    WorkaroundScope,
    require_supported,
)

__all__ = [
    "ALIASES",
    "GROUPS",
    "TARGETS",
    "ComputeDtype",
    "Fp8Format",
    "MatrixOp",
    "SkinnyMatmulDefect",
    "Target",
    "TargetKind",
    "UnknownTargetError",
    "UnsupportedTargetError",
    "Workaround",
    "WorkaroundScope",
    "aliases_of",
    "cpu_features",
    "cpu_supports_x86_64_v3",
    "detect_amd_gfx",
    "get_target",
    "has_nvidia_gpu",
    "require_supported",
    "resolve_targets",
]
