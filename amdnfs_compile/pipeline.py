"""The order of our passes: the only place that knows it.

torch    the program as it was imported              -> our ops recognised and lowered
(torch-mlir's own conversions to linalg)
flow     IREE has cut the layers into dispatches     -> layers folded into the entry points
stream   IREE has planned copies and allocations     -> checked; memory of GPU programs is allocated once
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amdnfs_passes.attention.dispatch_paged_attention import DispatchPagedAttentionPass
from amdnfs_passes.attention.lower_attention import LowerAttentionPass
from amdnfs_passes.attention.lower_paged_attention import LowerPagedAttentionPass
from amdnfs_passes.attention.lower_rotary import LowerRotaryPass
from amdnfs_passes.base import ModulePass, PassError, PassResult, Refusal
from amdnfs_passes.fuse.fuse_attention import FuseAttentionPass
from amdnfs_passes.fuse.fuse_rotary import FuseRotaryPass
from amdnfs_passes.ir import MLIRError, Module, PassManager, operator_name, walk
from amdnfs_passes.kvcache.cancel_pool_reshapes import CancelPoolReshapesPass
from amdnfs_passes.kvcache.dispatch_kv_write import DispatchKvWritePass
from amdnfs_passes.kvcache.fold_layer_calls import FoldLayerCallsPass
from amdnfs_passes.kvcache.fold_size_barriers import FoldSizeBarriersPass
from amdnfs_passes.kvcache.lower_kv_gather import LowerKvGatherPass
from amdnfs_passes.kvcache.lower_kv_write import LowerKvWritePass
from amdnfs_passes.lower.dispatch_linear import DispatchLinearPass
from amdnfs_passes.lower.dispatch_top_logits import DispatchTopLogitsPass
from amdnfs_passes.lower.hoist_allocations import HoistAllocationsPass
from amdnfs_passes.lower.lower_argmax import LowerArgmaxPass
from amdnfs_passes.lower.lower_kernel_objects import LowerKernelObjectsPass
from amdnfs_passes.lower.lower_linear import LowerLinearPass
from amdnfs_passes.quantize.cancel_tensor_barriers import CancelTensorBarriersPass
from amdnfs_passes.quantize.fuse_dequantize import FuseDequantizePass
from amdnfs_passes.quantize.lower_quantized_linear import LowerQuantizedLinearPass
from amdnfs_passes.verify.verify_causal_gathers import VerifyCausalGathersPass
from amdnfs_passes.verify.verify_pool_in_place import VerifyPoolInPlacePass
from amdnfs_runtime.errors import ModelError, PassFailed
from amdnfs_targets.detect import cpu_features
from amdnfs_targets.target import Fp8Format, Target, TargetKind

TORCH_PHASE, FLOW_PHASE, STREAM_PHASE = "torch", "flow", "stream"


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """Passes that run at one stage of the program."""

    name: str
    """One of the stages in the module docstring."""
    passes: tuple[ModulePass, ...]
    """In order."""


def build_pipeline(target: Target) -> tuple[Phase, ...]:
    """Everything a compile for `target` runs, in order."""
    # IREE knows no wave size for Vulkan: its reductions there are built in shared memory.
    has_unknown_waves = target.wave_size is None and target.lds_bytes is not None
    return (
        Phase(
            name=TORCH_PHASE,
            passes=(
                FuseDequantizePass(),
                FuseRotaryPass(),
                FuseAttentionPass(),
                VerifyCausalGathersPass(),
                *_kernels(target),
                LowerRotaryPass(),
                LowerKvWritePass(
                    fp8=cache_format(target), most_fused_bytes=16384 if target.kind is TargetKind.CPU else 0
                ),
                LowerKvGatherPass(),
                LowerPagedAttentionPass(
                    split_softmax=has_unknown_waves, fp8=cache_format(target), **_vector_facts(target)
                ),
                LowerAttentionPass(split_softmax=has_unknown_waves),
                _lower_quantized_linear(target),
                _lower_linear(target),
                LowerArgmaxPass(),
            ),
        ),
        Phase(
            name=FLOW_PHASE,
            passes=(
                LowerKernelObjectsPass(),
                FoldLayerCallsPass(),
                FoldSizeBarriersPass(),
                CancelTensorBarriersPass(),
                CancelPoolReshapesPass(),
            ),
        ),
        Phase(name=STREAM_PHASE, passes=(VerifyPoolInPlacePass(), *_hoists(target))),
    )


def _hoists(target: Target) -> tuple[ModulePass, ...]:
    """On processors an allocation costs nothing."""
    return (HoistAllocationsPass(),) if has_queue(target) else ()


def has_queue(target: Target) -> bool:
    """Whether programs for `target` are called through a queue: GPUs whose drivers IREE makes one for."""
    return target.kind in (TargetKind.HIP, TargetKind.CUDA)


def takes_kernels(target: Target) -> bool:
    """Whether programs for `target` can carry kernels of our own: it has matrix units and waves of a known size."""
    return has_queue(target) and bool(target.matrix_ops) and target.wave_size is not None


def cache_format(target: Target) -> Fp8Format:
    """The fp8 of a cache on `target`, where it has one."""
    return target.fp8_format or Fp8Format.E4M3FN


def _kernels(target: Target) -> tuple[ModulePass, ...]:
    """The passes that dispatch to kernels of our own."""
    if not takes_kernels(target):
        return ()
    facts: dict[str, Any] = {
        "backend": "hip" if target.kind is TargetKind.HIP else "cuda",
        "processor": target.gfx or target.name.removeprefix("cuda-"),
        "wave_size": target.wave_size,
        "lds_bytes": target.lds_bytes or 0,
        "num_compute_units": target.num_compute_units or 0,
    }
    fp8 = cache_format(target)
    return (
        DispatchKvWritePass(fp8=fp8, **facts),
        DispatchPagedAttentionPass(fp8=fp8, **facts),
        DispatchLinearPass(**facts),
        DispatchTopLogitsPass(**facts),
    )


def _vector_facts(target: Target) -> dict[str, Any]:
    """What the processor `target` computes in; nothing for a GPU."""
    if target.kind is not TargetKind.CPU:
        return {}
    features = cpu_features() if target.architecture == "host" else frozenset[str]()
    is_wide = "avx512f" in features
    return {
        "vector_lanes": 16 if is_wide else 8,
        "vector_registers": 32 if is_wide else 16,
        "bf16_pairs": is_wide and "avx512_bf16" in features,
    }


def _lower_linear(target: Target) -> LowerLinearPass:
    """The form of linear layers that `target` runs best."""
    return LowerLinearPass(**_vector_facts(target))


def _lower_quantized_linear(target: Target) -> LowerQuantizedLinearPass:
    """The form of quantised linear layers that `target` runs best."""
    if target.kind is TargetKind.CPU:
        return LowerQuantizedLinearPass(**_vector_facts(target))
    defect = target.skinny_matmul_defect
    if defect is None:
        # IREE 3.13.0 cannot convert fp8 for NVIDIA: "LLVM Translation failed for operation".
        return LowerQuantizedLinearPass(shift_fp8=target.kind is TargetKind.CUDA)
    return LowerQuantizedLinearPass(
        pad_rows_begin=defect.narrow_m_begin, pad_rows_end=defect.m_end, pad_rows=defect.pad_m
    )


TORCH_TO_LINALG = (
    "builtin.module("
    "func.func(torch-recompose-complex-ops,torch-reduce-op-variants,torch-decompose-complex-ops,canonicalize,"
    "torch-scalarize-shapes,convert-torch-to-tmtensor,torch-iree-tm-tensor-to-linalg-ext,convert-torch-to-tensor,"
    "torch-iree-torch-unstructured-to-linalg-ext,convert-torch-to-linalg,cse,convert-torch-to-scf,"
    "convert-torch-to-arith),torch-func-backend-type-conversion,canonicalize,"
    "func.func(torch-finalizing-backend-type-conversion),strip-debuginfo)"
)
"""torch-mlir's conversions, as IREE runs them, but with functions that still call each other."""


def run_phase(name: str, module: Module, target: Target) -> list[PassResult]:
    """Runs the passes of phase `name` for `target` on `module`.

    Raises:
        PassFailed: If a pass refuses the program.
    """
    phase = next(phase for phase in build_pipeline(target) if phase.name == name)
    results = []
    for item in phase.passes:
        try:
            results.append(item.apply(module))
        except PassError as error:
            raise PassFailed(f"phase {name}: {error}") from error
    return results


def convert_torch_to_linalg(module: Module, refusals: Sequence[Refusal] = ()) -> None:
    """Converts what is left of the torch dialect.

    Args:
        module: The module, changed in place.
        refusals: What our passes refused before; they say why one of our operations is still there.

    Raises:
        ModelError: Naming the first torch operation that has no conversion.
    """
    custom = sorted({name for op in walk(module.operation) if (name := operator_name(op)) is not None})
    if custom:
        stem = custom[0].rsplit(".", maxsplit=1)[-1]
        reasons = [item.reason for item in refusals if stem in item.operation]
        raise ModelError(
            f"the model uses {custom[0]} in a form that cannot be lowered: {'; '.join(reasons) or 'no pass takes it'}"
        )
    try:
        with module.context:
            PassManager.parse(TORCH_TO_LINALG).run(module.operation)
    except MLIRError as error:
        first = next((line for line in str(error).splitlines() if "failed to legalize" in line), str(error))
        raise ModelError(
            f"the model uses an operation that has no conversion to linalg: {first.strip()[:300]}"
        ) from error


def describe_pipeline(target: Target) -> str:
    """The order of a compile, one phase a line."""
    lines = [f"{p.name:<8}{', '.join(item.describe() for item in p.passes)}" for p in build_pipeline(target)]
    return "\n".join([f"a compile for {target.name} runs:", *(f"  {line}" for line in lines)])
