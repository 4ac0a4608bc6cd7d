"""AMD Instinct accelerators: CDNA2 (gfx90a), CDNA3 (gfx942), CDNA4 (gfx950).

Source of the figures, unless a line says otherwise: IREE, ``KnownTargets.cpp`` under
``compiler/src/iree/compiler/Codegen/Dialect/GPU/TargetUtils`` at commit b48a5955. The lists of matrix instructions are
compared with the installed IREE by ``tests/unit/targets/test_iree_agreement.py``.
"""

from __future__ import annotations

from dataclasses import replace

from amdnfs_targets.target import (
    ComputeDtype,
    Fp8Format,
    MatrixOp,
    SkinnyMatmulDefect,
    Target,
    TargetKind,
    Workaround,
    WorkaroundScope,
)

_KNOWN_TARGETS = "IREE KnownTargets.cpp at b48a5955"
_LLVM = "LLVM AMDGPUUsage, section Processors, https://llvm.org/docs/AMDGPUUsage.html (gfx, family, products)"
_ROCM = (
    "AMD GPU specifications, https://rocm.docs.amd.com/en/latest/reference/gpu-specs.html (compute units, wave, LDS)"
)


def _mfma(m: int, n: int, k: int, element: str, acc: str = "f32") -> MatrixOp:
    intrinsic = f"MFMA_{acc.upper()}_{m}x{n}x{k}_{element.upper()}"
    return MatrixOp(
        name=f"mfma_{acc}_{m}x{n}x{k}_{element.lower()}",
        iree_intrinsic=intrinsic,
        m=m,
        n=n,
        k=k,
        a_type=element,
        b_type=element,
        c_type=acc,
    )


def _flags(gfx: str) -> tuple[str, ...]:
    return ("--iree-hal-target-device=hip", f"--iree-rocm-target={gfx}")


def _skinny_matmul_defect(*dtypes: ComputeDtype) -> SkinnyMatmulDefect:
    # Measured with IREE 3.13.0 over M = 1 to 9, N = 8 to 4096, K = 128 to 4096, plain, batched and with int4 weights.
    return SkinnyMatmulDefect(
        dtypes=dtypes, m_begin=5, m_end=9, narrow_m_begin=2, narrow_n_max=64, k_multiple=128, pad_m=16
    )


_F32_OP = _mfma(16, 16, 4, "f32")
_F16_OPS = (_mfma(16, 16, 16, "f16"), _mfma(32, 32, 8, "f16"))
_CDNA3_BF16_OPS = (_mfma(16, 16, 16, "bf16"), _mfma(32, 32, 8, "bf16"))
_CDNA3_I8_OPS = (_mfma(16, 16, 32, "i8", "i32"), _mfma(32, 32, 16, "i8", "i32"))

_CDNA2_OPS = (
    _mfma(16, 16, 8, "bf16"),
    _mfma(32, 32, 4, "bf16"),
    _F32_OP,
    *_F16_OPS,
    _mfma(16, 16, 16, "i8", "i32"),
    _mfma(32, 32, 8, "i8", "i32"),
)
_CDNA3_OPS = (
    *_CDNA3_BF16_OPS,
    _mfma(16, 16, 32, "f8E4M3FNUZ"),
    _mfma(32, 32, 16, "f8E4M3FNUZ"),
    *_CDNA3_I8_OPS,
    _F32_OP,
    *_F16_OPS,
)
_CDNA4_OPS = (
    _mfma(16, 16, 32, "f16"),
    _mfma(32, 32, 16, "f16"),
    _mfma(16, 16, 32, "bf16"),
    _mfma(32, 32, 16, "bf16"),
    _mfma(16, 16, 128, "f8E4M3FN"),
    _mfma(32, 32, 64, "f8E4M3FN"),
    _mfma(16, 16, 64, "i8", "i32"),
    _mfma(32, 32, 32, "i8", "i32"),
    *_CDNA3_BF16_OPS,
    _mfma(16, 16, 32, "f8E4M3FN"),
    _mfma(32, 32, 16, "f8E4M3FN"),
    *_CDNA3_I8_OPS,
    _F32_OP,
    *_F16_OPS,
)

_SPARSE_MFMA_FALLBACK = Workaround(
    name="no-sparse-mfma-on-cdna2",
    iree_versions=("3.13.0",),
    flags=("--iree-codegen-llvmgpu-use-tile-and-fuse-matmul=false",),
    scope=WorkaroundScope.ON_FAILURE,
    reason=(
        "IREE gives a static f16 matmul with 5 <= M <= 8 (2 <= M if N <= 64) and K a multiple of 128 to sparse matrix "
        "instructions that gfx90a lacks, and fails: \"'amdgpu.sparse_mfma' op sparse MFMA (smfmac) only supported on "
        'gfx942+". The flag makes it compile without matrix instructions (460 spilled VGPRs at M=5). It must not be '
        "given always: with it, M=9 loses the matrix instructions too, M=256 has 32 of them instead of 128, and a "
        "matmul with int4 weights fails at M=16 and M=256. Padding (skinny_matmul_defect) is the better remedy."
    ),
    test="tests/unit/targets/test_workarounds.py::test_compile_fails_without_the_flags[gfx90a]",
)

_DIRECT_LOAD = Workaround(
    name="no-direct-load-on-cdna4",
    iree_versions=("3.13.0",),
    flags=("--iree-llvmgpu-use-direct-load=false",),
    scope=WorkaroundScope.ALWAYS,
    reason=(
        "A static f16 or bf16 matmul with 5 <= M <= 8 (2 <= M if N <= 64) and K a multiple of 128 crashes the "
        "compiler (getXorShuffleParamsForTunedChipset). Turning off direct loads into LDS avoids it and keeps the "
        "matrix instructions of every shape tried (M = 5 to 256, int4 and int8 weights, attention). Its price is at "
        "M = 9 to 32: loads pass through registers (106 VGPRs instead of 58 at M=16). Turning off tile-and-fuse "
        "instead loses the matrix instructions at M=9 and fails for int4 weights. With every such matmul padded "
        "(skinny_matmul_defect), the flag is not needed."
    ),
    test="tests/unit/targets/test_workarounds.py::test_compile_fails_without_the_flags[gfx950]",
)

_CDNA3 = Target(
    name="gfx942",
    kind=TargetKind.HIP,
    architecture="cdna3",
    gfx="gfx942",
    wave_size=64,
    lds_bytes=64 * 1024,
    num_compute_units=304,
    matrix_ops=_CDNA3_OPS,
    fp8_format=Fp8Format.E4M3FNUZ,
    dtypes=(ComputeDtype.F16, ComputeDtype.BF16, ComputeDtype.F32),
    iree_flags=_flags("gfx942"),
    products=("MI300A", "MI300X", "MI308X", "MI325X"),
    sources=(
        _LLVM,
        _ROCM,
        f"{_KNOWN_TARGETS}: getCDNA3WgpDetails, lines 294-352 (matrix ops, wave, LDS); line 631 (304 CUs, MI300X)",
        "AMD Instinct MI300 Instruction Set Architecture, chapters Matrix Arithmetic Instructions, Local Data Share",
    ),
)

GFX942 = _CDNA3
"""MI300A, MI300X, MI308X, MI325X."""

GFX90A = replace(
    _CDNA3,
    name="gfx90a",
    architecture="cdna2",
    gfx="gfx90a",
    num_compute_units=110,
    matrix_ops=_CDNA2_OPS,
    fp8_format=None,
    iree_flags=_flags("gfx90a"),
    workarounds=(_SPARSE_MFMA_FALLBACK,),
    skinny_matmul_defect=_skinny_matmul_defect(ComputeDtype.F16),
    products=("MI210", "MI250", "MI250X"),
    sources=(
        _LLVM,
        _ROCM,
        f"{_KNOWN_TARGETS}: getCDNA2WgpDetails, lines 354-403 (matrix ops, wave, LDS); line 670 "
        "(MI250X: 220 CUs on two GCDs, each of which is a device)",
        "AMD Instinct MI200 Instruction Set Architecture, chapters Matrix Arithmetic Instructions, Local Data Share",
    ),
)
"""MI210, MI250, MI250X."""

GFX950 = replace(
    _CDNA3,
    name="gfx950",
    architecture="cdna4",
    gfx="gfx950",
    lds_bytes=160 * 1024,
    num_compute_units=256,
    matrix_ops=_CDNA4_OPS,
    fp8_format=Fp8Format.E4M3FN,
    iree_flags=_flags("gfx950"),
    workarounds=(_DIRECT_LOAD,),
    skinny_matmul_defect=_skinny_matmul_defect(ComputeDtype.F16, ComputeDtype.BF16),
    products=("MI350X", "MI355X"),
    sources=(
        _LLVM,
        _ROCM,
        f"{_KNOWN_TARGETS}: getCDNA4WgpDetails, lines 213-292 (matrix ops, wave, LDS); line 609 (256 CUs)",
        "AMD Instinct CDNA4 Instruction Set Architecture, chapters Matrix Arithmetic Instructions, Local Data Share",
    ),
)
"""MI350X, MI355X."""

CDNA_TARGETS: tuple[Target, ...] = (GFX90A, GFX942, GFX950)
"""Every CDNA target, oldest first."""
