"""NVIDIA GPUs: not what this project is for, but hardware on which a program of ours can be measured.

IREE 3.13.0 refuses ``sm_90``: its own kernels for that target are made for ``sm_80`` and run there, because they are
PTX; kernels of ours are made for ``sm_90`` itself.
Source of the figures: IREE ``KnownTargets.cpp`` at commit b48a5955, and the CUDA C++ Programming Guide.
"""

from __future__ import annotations

from dataclasses import replace

from amdnfs_targets.target import ComputeDtype, Fp8Format, MatrixOp, Target, TargetKind

_KNOWN_TARGETS = "IREE KnownTargets.cpp at b48a5955"
_GUIDE = "CUDA C++ Programming Guide, Compute Capabilities, table Technical Specifications per Compute Capability"


def _nv(unit: str, m: int, n: int, k: int, element: str, acc: str = "f32") -> MatrixOp:
    return MatrixOp(
        name=f"{unit}_{acc}_{m}x{n}x{k}_{element.lower()}",
        iree_intrinsic=f"NV_{unit.upper()}_{acc.upper()}_{m}x{n}x{k}_{element.upper()}",
        m=m,
        n=n,
        k=k,
        a_type=element,
        b_type=element,
        c_type=acc,
    )


_MMA_SYNC = (
    _nv("mma_sync", 16, 8, 16, "f16"),
    _nv("mma_sync", 16, 8, 16, "f16", "f16"),
    _nv("mma_sync", 16, 8, 16, "bf16"),
)
_WMMA = (_nv("wmma", 16, 16, 16, "f16"), _nv("wmma", 16, 16, 16, "f16", "f16"))

_AMPERE = Target(
    name="cuda-sm_80",
    kind=TargetKind.CUDA,
    architecture="ampere",
    wave_size=32,
    lds_bytes=163 * 1024,
    num_compute_units=108,
    matrix_ops=(*_MMA_SYNC, *_WMMA),
    dtypes=(ComputeDtype.F16, ComputeDtype.BF16, ComputeDtype.F32),
    iree_flags=("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_80"),
    products=("A100", "and every later NVIDIA GPU through PTX"),
    sources=(
        f"{_KNOWN_TARGETS}: getAmpereWgpDetails, lines 1055-1078 (matrix ops); line 1174 (108 SMs, A100)",
        f"{_GUIDE} (shared memory of a block: 163 KB)",
    ),
)

CUDA_SM_80 = _AMPERE
"""A100, and the choice for any newer GPU."""

CUDA_SM_86 = replace(
    _AMPERE,
    name="cuda-sm_86",
    lds_bytes=99 * 1024,
    num_compute_units=84,
    iree_flags=("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_86"),
    products=("RTX 3090", "RTX A6000", "A40"),
    sources=(
        f"{_KNOWN_TARGETS}: getAmpereWgpDetails, lines 1055-1078 (matrix ops); line 1179 (84 SMs, RTX 3090 Ti)",
        f"{_GUIDE} (shared memory of a block: 99 KB; IREE itself assumes 163 KB here)",
    ),
)
"""RTX 30 series, A40."""

CUDA_SM_89 = replace(
    _AMPERE,
    name="cuda-sm_89",
    architecture="ada",
    lds_bytes=99 * 1024,
    num_compute_units=128,
    matrix_ops=(*_MMA_SYNC, _nv("mma_sync", 16, 8, 32, "f8E4M3FN"), *_WMMA),
    fp8_format=Fp8Format.E4M3FN,
    iree_flags=("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_89"),
    products=("RTX 4090", "L4"),
    sources=(
        f"{_KNOWN_TARGETS}: getAdaWgpDetails, lines 1022-1050 (matrix ops, 99 KB); line 1175 (128 SMs, RTX 4090)",
        f"{_GUIDE} (shared memory of a block: 99 KB)",
    ),
)
"""RTX 40 series."""

CUDA_SM_90 = replace(
    _AMPERE,
    name="cuda-sm_90",
    architecture="hopper",
    lds_bytes=227 * 1024,
    num_compute_units=132,
    # Of kernels of our own: IREE knows no matrix instruction for it, as it makes its own kernels for sm_80.
    fp8_format=Fp8Format.E4M3FN,
    products=("H100", "H200"),
    sources=(
        f"{_KNOWN_TARGETS}: getAmpereWgpDetails, lines 1055-1078 (matrix ops, those of sm_80 that IREE is given)",
        f"{_GUIDE} (shared memory of a block: 227 KB)",
        "NVIDIA H100 white paper, table 2 (132 SMs, SXM5)",
        "PTX ISA, wgmma.mma_async (operands of e4m3)",
    ),
)
"""H100, H200."""

CUDA_TARGETS: tuple[Target, ...] = (CUDA_SM_80, CUDA_SM_86, CUDA_SM_89, CUDA_SM_90)
"""Every CUDA target, oldest first."""
