"""AMD Radeon GPUs: RDNA2 (gfx1030), RDNA3 (gfx110x), RDNA3.5 (gfx115x), RDNA4 (gfx120x).

Source of the figures, unless a line says otherwise: IREE, ``KnownTargets.cpp`` under
``compiler/src/iree/compiler/Codegen/Dialect/GPU/TargetUtils`` at commit b48a5955. The lists of matrix instructions are
compared with the installed IREE by ``tests/unit/targets/test_iree_agreement.py``.

IREE 3.13.0 refuses ``--iree-rocm-target=`` for gfx1030, gfx1102 and gfx1152 ("Unknown ROCM target"), because the table
``normalizeAMDGPUTarget`` lacks them, although its code generator has all they need. For these the device is described
in full, with what IREE itself says of a chip of the same family; the code object then carries the right gfx.
"""

from __future__ import annotations

from dataclasses import replace

from amdnfs_targets.target import ComputeDtype, Fp8Format, MatrixOp, Target, TargetKind

_KNOWN_TARGETS = "IREE KnownTargets.cpp at b48a5955"
_LLVM = "LLVM AMDGPUUsage, section Processors, https://llvm.org/docs/AMDGPUUsage.html (gfx, family, products)"
_ROCM = "AMD GPU specifications, https://rocm.docs.amd.com/en/latest/reference/gpu-specs.html (compute units)"
_LDS_BYTES = 64 * 1024


def _wmma(generation: int, element: str, acc: str) -> MatrixOp:
    return MatrixOp(
        name=f"wmma_{acc}_16x16x16_{element.lower()}",
        iree_intrinsic=f"WMMAR{generation}_{acc.upper()}_16x16x16_{element.upper()}",
        m=16,
        n=16,
        k=16,
        a_type=element,
        b_type=element,
        c_type=acc,
    )


_RDNA3_FLOAT_OPS = (("f16", "f32"), ("f16", "f16"), ("bf16", "f32"), ("bf16", "bf16"))
_RDNA3_OPS = tuple(_wmma(3, element, acc) for element, acc in (*_RDNA3_FLOAT_OPS, ("i8", "i32")))
_RDNA4_OPS = tuple(_wmma(4, element, acc) for element, acc in (*_RDNA3_FLOAT_OPS, ("f8E4M3FN", "f32"), ("i8", "i32")))

_RDNA3_WGP_TAIL = (
    ", max_load_instruction_bits = 128, simds_per_wgp = 4, vgpr_space_bits = 8192, workgroup_memory_bank_count = 64"
)


def _flags(gfx: str) -> tuple[str, ...]:
    return ("--iree-hal-target-device=hip", f"--iree-rocm-target={gfx}")


def _described_device_flags(gfx: str, ops: tuple[MatrixOp, ...], wgp_tail: str = "") -> tuple[str, ...]:
    """The one flag that gives IREE a whole device, under the name that it gives to its own."""
    mma = f"mma = [{', '.join(f'<{op.iree_intrinsic}>' for op in ops)}], " if ops else ""
    device = (
        '#hal.device.target<"hip", [#hal.executable.target<"rocm", "rocm-hsaco-fb", {abi = "hip", '
        "iree.encoding.resolver = #iree_gpu.gpu_encoding_resolver<>, "
        f'iree_codegen.target_info = #iree_gpu.target<arch = "{gfx}", features = "", wgp = <'
        "compute = fp64|fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8, "
        f"subgroup = shuffle|arithmetic, dot = dp4xi8toi32, {mma}"
        "subgroup_size_choices = [32, 64], max_workgroup_sizes = [1024, 1024, 1024], "
        f"max_thread_count_per_workgroup = 1024, max_workgroup_memory_bytes = {_LDS_BYTES}, "
        f'max_workgroup_counts = [2147483647, 2147483647, 2147483647]{wgp_tail}>>, ukernels = "none"}}>]>'
    )
    return (f"--iree-hal-target-device=__device_0={device}",)


_RDNA3_SOURCES = (
    _LLVM,
    _ROCM,
    f"{_KNOWN_TARGETS}: getRDNA3WgpDetails, lines 478-506 (matrix ops, wave, LDS)",
    "AMD RDNA3 Instruction Set Architecture, sections Wave Matrix Multiply Accumulate (WMMA), Local Data Share",
)

_RDNA3 = Target(
    name="gfx1100",
    kind=TargetKind.HIP,
    architecture="rdna3",
    gfx="gfx1100",
    wave_size=32,
    lds_bytes=_LDS_BYTES,
    num_compute_units=96,
    matrix_ops=_RDNA3_OPS,
    dtypes=(ComputeDtype.F16, ComputeDtype.BF16, ComputeDtype.F32),
    iree_flags=_flags("gfx1100"),
    products=("RX 7900 XTX", "RX 7900 XT", "Radeon PRO W7900", "Radeon PRO W7800"),
    sources=_RDNA3_SOURCES,
)

GFX1030 = replace(
    _RDNA3,
    name="gfx1030",
    architecture="rdna2",
    gfx="gfx1030",
    num_compute_units=80,
    matrix_ops=(),
    # A bf16 matmul compiles by emulation: 29 s of compile time and 311 spilled VGPRs for 256x2048x2048.
    dtypes=(ComputeDtype.F16, ComputeDtype.F32),
    iree_flags=_described_device_flags("gfx1030", ()),
    products=("RX 6800", "RX 6800 XT", "RX 6900 XT", "RX 6950 XT", "Radeon PRO W6800"),
    sources=(
        _LLVM,
        _ROCM,
        f"{_KNOWN_TARGETS}: getRDNA2WgpDetails, lines 508-523 (no matrix ops, wave, LDS)",
        "AMD RDNA2 Instruction Set Architecture, chapter Vector ALU Operations (no WMMA, no bf16)",
    ),
)
"""RX 6800 to RX 6950 XT. No matrix instructions."""

GFX1100 = _RDNA3
"""RX 7900 XTX, RX 7900 XT, W7900, W7800."""

GFX1101 = replace(
    _RDNA3,
    name="gfx1101",
    gfx="gfx1101",
    num_compute_units=60,
    iree_flags=_flags("gfx1101"),
    products=("RX 7800 XT", "RX 7700 XT", "Radeon PRO W7700", "Radeon PRO V710"),
)
"""RX 7800 XT, RX 7700 XT, W7700, V710."""

GFX1102 = replace(
    _RDNA3,
    name="gfx1102",
    gfx="gfx1102",
    num_compute_units=32,
    iree_flags=_described_device_flags("gfx1102", _RDNA3_OPS, _RDNA3_WGP_TAIL),
    products=("RX 7600", "RX 7600 XT", "Radeon PRO W7600", "Radeon PRO W7500"),
)
"""RX 7600, RX 7600 XT."""

GFX1103 = replace(
    _RDNA3,
    name="gfx1103",
    gfx="gfx1103",
    num_compute_units=12,
    iree_flags=_flags("gfx1103"),
    products=("Radeon 780M (Phoenix, Hawk Point)",),
)
"""Radeon 780M."""

_RDNA35 = replace(
    _RDNA3,
    name="gfx1151",
    architecture="rdna3.5",
    gfx="gfx1151",
    num_compute_units=40,
    iree_flags=_flags("gfx1151"),
    products=("Radeon 8060S (Strix Halo)",),
    sources=(
        *_RDNA3_SOURCES[:3],
        "AMD RDNA3.5 Instruction Set Architecture, sections Wave Matrix Multiply Accumulate (WMMA), Local Data Share",
    ),
)

GFX1150 = replace(
    _RDNA35,
    name="gfx1150",
    gfx="gfx1150",
    num_compute_units=16,
    iree_flags=_flags("gfx1150"),
    products=("Radeon 890M (Strix Point)",),
)
"""Radeon 890M."""

GFX1151 = _RDNA35
"""Radeon 8060S (Ryzen AI Max)."""

GFX1152 = replace(
    _RDNA35,
    name="gfx1152",
    gfx="gfx1152",
    num_compute_units=8,
    iree_flags=_described_device_flags("gfx1152", _RDNA3_OPS, _RDNA3_WGP_TAIL),
    products=("Radeon 860M (Krackan Point)",),
)
"""Radeon 860M."""

_RDNA4 = replace(
    _RDNA3,
    name="gfx1201",
    architecture="rdna4",
    gfx="gfx1201",
    num_compute_units=64,
    matrix_ops=_RDNA4_OPS,
    fp8_format=Fp8Format.E4M3FN,
    iree_flags=_flags("gfx1201"),
    products=("RX 9070 XT", "RX 9070", "Radeon AI PRO R9700"),
    sources=(
        _LLVM,
        _ROCM,
        f"{_KNOWN_TARGETS}: getRDNA4WgpDetails, lines 445-476 (matrix ops, wave, LDS)",
        "AMD RDNA4 Instruction Set Architecture, sections Wave Matrix Multiply Accumulate (WMMA), Local Data Share",
    ),
)

GFX1200 = replace(
    _RDNA4,
    name="gfx1200",
    gfx="gfx1200",
    num_compute_units=32,
    iree_flags=_flags("gfx1200"),
    products=("RX 9060 XT", "RX 9060"),
)
"""RX 9060 XT, RX 9060."""

GFX1201 = _RDNA4
"""RX 9070 XT, RX 9070, R9700."""

RDNA_TARGETS: tuple[Target, ...] = (
    GFX1030,
    GFX1100,
    GFX1101,
    GFX1102,
    GFX1103,
    GFX1150,
    GFX1151,
    GFX1152,
    GFX1200,
    GFX1201,
)
"""Every RDNA target, oldest first."""
