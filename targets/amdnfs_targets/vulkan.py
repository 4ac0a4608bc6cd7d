"""One program for any Vulkan 1.3 device: RADV on an AMD GPU, lavapipe on a machine without one.

None of IREE's named Vulkan targets will do. Those for GPUs (``rdna2``, ``rdna3``, ``ampere``) write a subgroup size
into the program: on lavapipe, whose subgroups have 8 lanes, IREE 3.13.0 then refuses the program or, worse, runs it
with wrong results (a softmax was off by 0.01 where values are about 0.002). ``llvmpipe`` does the same with 8 lanes for
a GPU. The default and ``vp_android_baseline_2022`` cannot load f16. So the device is described in full, with what every
such device has, and without subgroup operations. f16, f32 and int8 weights compile; bf16 and int4 do not.
"""

from __future__ import annotations

from amdnfs_targets.target import ComputeDtype, Target, TargetKind

_MAX_WORKGROUP_INVOCATIONS = 256
_SHARED_BYTES = 32 * 1024

_DEVICE = (
    '#hal.device.target<"vulkan", [#hal.executable.target<"vulkan-spirv", "vulkan-spirv-fb", {'
    'iree_codegen.target_info = #iree_gpu.target<arch = "", features = "spirv:v1.6,cap:Shader", wgp = <'
    "compute = fp32|fp16|int64|int32|int16|int8, storage = b64|b32|b16|b8, "
    "subgroup = none, dot = none, mma = [], subgroup_size_choices = [32], "
    f"max_workgroup_sizes = [{_MAX_WORKGROUP_INVOCATIONS}, {_MAX_WORKGROUP_INVOCATIONS}, 64], "
    f"max_thread_count_per_workgroup = {_MAX_WORKGROUP_INVOCATIONS}, "
    f"max_workgroup_memory_bytes = {_SHARED_BYTES}, "
    "max_workgroup_counts = [65535, 65535, 65535]>>}>]>"
)

VULKAN = Target(
    name="vulkan",
    kind=TargetKind.VULKAN,
    architecture="vulkan1.3",
    lds_bytes=_SHARED_BYTES,
    dtypes=(ComputeDtype.F16, ComputeDtype.F32),
    iree_flags=(f"--iree-hal-target-device=__device_0={_DEVICE}",),
    products=("AMD GPUs through RADV", "any CPU through lavapipe"),
    sources=(
        "Vulkan profile VP_KHR_roadmap_2022 (256 invocations, 256x256x64 a workgroup)",
        "Vulkan specification, Required Limits (65535 workgroups a dimension)",
        "IREE KnownTargets.cpp at b48a5955, line 199 (32 KiB of shared memory on llvmpipe; RADV has 64 KiB)",
    ),
)
"""Any Vulkan 1.3 device with 16-bit floats and 8-bit and 16-bit storage."""

VULKAN_TARGETS: tuple[Target, ...] = (VULKAN,)
"""The one Vulkan target."""
