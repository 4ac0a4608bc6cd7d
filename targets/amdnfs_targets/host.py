"""The host processor: ``cpu`` for the machine that compiles, ``cpu-x86-64-v3`` for any machine since about 2015."""

from __future__ import annotations

from amdnfs_targets.target import ComputeDtype, Target, TargetKind

_DEVICE_FLAGS = ("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu")

CPU = Target(
    name="cpu",
    kind=TargetKind.CPU,
    architecture="host",
    dtypes=(ComputeDtype.F32,),
    iree_flags=(*_DEVICE_FLAGS, "--iree-llvmcpu-target-cpu=host"),
    products=("this machine",),
    sources=("iree-compile --help, option --iree-llvmcpu-target-cpu ('host': the CPU that compiles)",),
)
"""The CPU of the machine that compiles. Its programs may not run on an older one."""

CPU_X86_64_V3 = Target(
    name="cpu-x86-64-v3",
    kind=TargetKind.CPU,
    architecture="x86-64-v3",
    dtypes=(ComputeDtype.F32,),
    iree_flags=(
        *_DEVICE_FLAGS,
        "--iree-llvmcpu-target-triple=x86_64-unknown-linux-gnu",
        "--iree-llvmcpu-target-cpu=x86-64-v3",
    ),
    products=("x86-64 with AVX2, BMI2, F16C and FMA",),
    sources=(
        "System V ABI, AMD64 supplement, section 3.1.1 Processor Architecture, table 3.1 (micro-architecture levels)",
    ),
)
"""A portable x86-64: AVX2, FMA, F16C, no AVX-512."""

HOST_TARGETS: tuple[Target, ...] = (CPU, CPU_X86_64_V3)
"""Both CPU targets."""
