"""Every pass by name, grouped by phase; the order here is for reading, the order of running is in the pipeline."""

from __future__ import annotations

import difflib

from amdnfs_passes.attention.dispatch_paged_attention import DispatchPagedAttentionPass
from amdnfs_passes.attention.lower_attention import LowerAttentionPass
from amdnfs_passes.attention.lower_paged_attention import LowerPagedAttentionPass
from amdnfs_passes.attention.lower_rotary import LowerRotaryPass
from amdnfs_passes.base import ModulePass
from amdnfs_passes.fuse.fuse_attention import FuseAttentionPass
from amdnfs_passes.fuse.fuse_rotary import FuseRotaryPass
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

PASSES: tuple[type[ModulePass], ...] = (
    # fuse: several torch ops become one of ours
    FuseAttentionPass,
    FuseRotaryPass,
    # lower: our ops and linear layers become linalg, or kernels of our own
    DispatchLinearPass,
    DispatchTopLogitsPass,
    HoistAllocationsPass,
    LowerArgmaxPass,
    LowerKernelObjectsPass,
    LowerLinearPass,
    # attention
    DispatchPagedAttentionPass,
    LowerAttentionPass,
    LowerPagedAttentionPass,
    LowerRotaryPass,
    # kvcache
    CancelPoolReshapesPass,
    DispatchKvWritePass,
    FoldLayerCallsPass,
    FoldSizeBarriersPass,
    LowerKvGatherPass,
    LowerKvWritePass,
    # quantize
    CancelTensorBarriersPass,
    FuseDequantizePass,
    LowerQuantizedLinearPass,
    # verify: change nothing, refuse bad programs
    VerifyCausalGathersPass,
    VerifyPoolInPlacePass,
)


class UnknownPassError(ValueError):
    """A pass name that is not registered."""


def _by_name() -> dict[str, type[ModulePass]]:
    table: dict[str, type[ModulePass]] = {}
    for cls in PASSES:
        if cls.pass_name() in table:
            raise ValueError(f"two passes are called {cls.pass_name()}")
        table[cls.pass_name()] = cls
    return table


_TABLE = _by_name()


def get_pass(name: str) -> type[ModulePass]:
    """The pass class called `name`.

    Raises:
        UnknownPassError: With the closest names.

    >>> get_pass("lower-rotary").__name__
    'LowerRotaryPass'
    """
    if name not in _TABLE:
        close = difflib.get_close_matches(name, _TABLE, n=3, cutoff=0.0)
        raise UnknownPassError(f"unknown pass {name!r}: the closest are {', '.join(close)}; --list shows all")
    return _TABLE[name]
