"""What a compile is going to do: model, targets, storage type, entry points. Reads headers only."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from amdnfs_passes.kernels.provider import TRITON_VERSION, has_triton
from amdnfs_runtime.errors import ModelError, UsageError
from amdnfs_targets.quantized_layout import QuantizedLayout, ScaleType
from amdnfs_targets.registry import UnknownTargetError, resolve_targets
from amdnfs_targets.target import Target, TargetKind, UnsupportedTargetError, require_supported

from amdnfs_compile.frontend.checkpoint import Checkpoint, odd_tokens, open_checkpoint, read_special_tokens
from amdnfs_compile.frontend.huggingface import bind_parameters, inspect_checkpoint
from amdnfs_compile.frontend.positions import context_limit
from amdnfs_compile.frontend.skeleton import Skeleton
from amdnfs_compile.frontend.trace import CallShape
from amdnfs_compile.options import CompileOptions, Dtype, KvCacheDtype
from amdnfs_compile.pipeline import takes_kernels
from amdnfs_compile.quantize.archive import QuantizedWeights
from amdnfs_compile.quantize.linears import require_divisible

_LEAST_CONTEXT = 2
_DTYPE_OF_CONFIG = {"torch.float32": "f32", "torch.float16": "f16", "torch.bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CompilePlan:
    """What a compile is going to do."""

    checkpoint: Checkpoint
    """The model's headers."""
    skeleton: Skeleton
    """Its layers."""
    targets: tuple[Target, ...]
    """What to compile for."""
    dtype: str
    """Storage type."""
    context_tokens: int
    """Longest prompt plus text."""
    options: CompileOptions
    """As given."""

    @property
    def layout(self) -> QuantizedLayout | None:
        """How quantised weights are stored, fp8 in the OCP flavour; None if there are none."""
        scheme = self.options.scheme
        return None if scheme is None else scheme.layout(ScaleType(self.dtype))

    @property
    def cache_dtype(self) -> str:
        """Element type of the pools, as the manifest spells it."""
        return self.dtype if self.options.kv_cache_dtype is KvCacheDtype.AUTO else str(self.options.kv_cache_dtype)

    @property
    def quantization(self) -> str:
        """The layout as text, or `none`."""
        return "none" if self.layout is None else self.layout.spelling

    def skeleton_for(self, target: Target) -> Skeleton:
        """The model's layers as a program for `target` reads them."""
        scheme = self.options.scheme
        if scheme is None:
            return self.skeleton
        return self.skeleton.quantized(scheme.layout_for(target, ScaleType(self.dtype)))

    def quantized_weights(self) -> QuantizedWeights | None:
        """What is to be quantised; None if nothing is."""
        if self.layout is None:
            return None
        bindings = bind_parameters(self.checkpoint, self.skeleton)
        linears = self.skeleton.linears
        tensors = {path: bindings[f"{path}.weight"].tensor for path in linears}
        return QuantizedWeights(layout=self.layout, linears=linears, tensors=tensors)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know before it begins, one line each."""
        slow = [item for item in self.targets if self.dtype not in item.dtypes and item.kind is not TargetKind.CPU]
        return (
            *odd_tokens(self.checkpoint),
            *self._kernel_warnings(),
            *(f"{target.name} does not compute in {self.dtype} itself; it will be slow there" for target in slow),
        )

    def _kernel_warnings(self) -> tuple[str, ...]:
        """What is given up without our own kernels."""
        names = [target.name for target in self.targets if takes_kernels(target)]
        if not names or has_triton():
            return ()
        return (
            f"triton {TRITON_VERSION} is not installed: attention for {', '.join(names)} uses no matrix cores and "
            "linear layers are IREE's own; install it with: pip install 'amdnfs[triton]'",
        )

    def shapes(self, target: Target) -> tuple[CallShape, ...]:
        """Entry points for `target`, without shapes that its compiler cannot take."""
        chunks = [size for size in self.options.prefill_chunks if size <= self.context_tokens]
        shapes = [CallShape(batch=1, tokens=size) for size in chunks or self.options.prefill_chunks[:1]]
        batches = sorted({_sound_batch(target, size, self.dtype) for size in self.options.decode_batches})
        shapes += [CallShape(batch=size, tokens=1) for size in batches]
        if not self.options.speculate:
            return tuple(shapes)
        tokens = min(self.options.speculate + 1, self.context_tokens)
        sound = {self._sound_verify_batch(target, batch, tokens) for batch in batches}
        return (*shapes, *(CallShape(batch=size, tokens=tokens, is_verify=True) for size in sorted(sound)))

    def _sound_verify_batch(self, target: Target, batch: int, tokens: int) -> int:
        """`batch`, or the next with which the rows of all its tokens do not meet the defect."""
        while _sound_batch(target, batch * tokens, self.dtype) != batch * tokens:
            batch += 1
        return batch


def _sound_batch(target: Target, batch: int, dtype: str) -> int:
    """`batch`, or the next size that does not meet the target's skinny-matmul defect.

    Kernels of our own have no such defect; should one layer need IREE's, the target's fallback flags are there.
    """
    defect = None if takes_kernels(target) and has_triton() else target.skinny_matmul_defect
    if defect is None or dtype not in defect.dtypes or not defect.narrow_m_begin <= batch < defect.m_end:
        return batch
    return defect.pad_m


def plan_compile(model: str, targets: Iterable[str], options: CompileOptions) -> CompilePlan:
    """Reads the model's headers and resolves targets; compiles nothing.

    Raises:
        UsageError: For an unknown target, or one the pinned IREE cannot take.
        ModelError: For a model that cannot be imported, or whose tensors are not those that it needs.
    """
    try:
        resolved = tuple(require_supported(target) for target in resolve_targets(targets))
    except (UnknownTargetError, UnsupportedTargetError) as error:
        raise UsageError(str(error)) from error
    if not resolved:
        raise UsageError("no target given; name at least one with --target, e.g. --target gfx942")
    checkpoint = open_checkpoint(model, revision=options.revision, offline=options.offline)
    read_special_tokens(checkpoint)  # refuses now what would otherwise fail after the compile
    _refuse_rope(checkpoint)
    dtype = _choose_dtype(checkpoint, options)
    for target in resolved:
        if target.kind is TargetKind.VULKAN and dtype not in target.dtypes:
            raise UsageError(
                f"{target.name} has no {dtype}; it computes in {', '.join(target.dtypes)}: "
                f"add --dtype f16, or leave out {target.name}"
            )
    skeleton = inspect_checkpoint(checkpoint, dtype)
    bind_parameters(checkpoint, skeleton)  # likewise
    _check_quantization(skeleton, resolved, dtype, options)
    if options.kv_cache_dtype is KvCacheDtype.FP8:
        _check_fp8_cache(skeleton, resolved)
        skeleton = replace(skeleton, cache_dtype=torch.int8)
    limit = context_limit(checkpoint.config.get_text_config())
    context = options.context_tokens or limit
    if not context:
        raise UsageError(f"{model} does not say how long its context is; add --context TOKENS")
    if context < _LEAST_CONTEXT:
        raise UsageError(f"--context {context}: too short, it must hold a prompt and one more token")
    if limit and context > limit:
        raise UsageError(f"--context {context}: the model's own limit is {limit} tokens")
    return CompilePlan(
        checkpoint=checkpoint,
        skeleton=skeleton,
        targets=resolved,
        dtype=dtype,
        context_tokens=context,
        options=options,
    )


def _check_quantization(skeleton: Skeleton, targets: tuple[Target, ...], dtype: str, options: CompileOptions) -> None:
    """Checks that the model's weights can be quantised as asked, and that every target can run it.

    Raises:
        UsageError: Naming a target that cannot.
        ModelError: Naming a weight that cannot.
    """
    scheme = options.scheme
    if scheme is None:
        return
    for target in targets:
        scheme.require_target(target)
    if not skeleton.linears:
        raise ModelError(
            f"{skeleton.config.model_type}: there is no linear layer in the decoder layers that could be quantised; "
            "use --quantize none"
        )
    require_divisible(skeleton.linears, scheme.layout(ScaleType(dtype)))


def _check_fp8_cache(skeleton: Skeleton, targets: tuple[Target, ...]) -> None:
    """Refuses targets without fp8, but for the CPU, which emulates it, and models that gather keys in their own code.

    Raises:
        UsageError: Naming the target.
        ModelError: Naming the family.
    """
    for target in targets:
        if target.fp8_format is None and target.kind is not TargetKind.CPU:
            raise UsageError(
                f"--kv-cache-dtype fp8: {target.name} has no fp8; use --kv-cache-dtype auto, or leave out {target.name}"
            )
    if skeleton.has_own_attention:
        raise ModelError(
            f"{skeleton.config.model_type}: its attention code reads keys and values itself, in the type of its "
            "activations; use --kv-cache-dtype auto"
        )


def _refuse_rope(checkpoint: Checkpoint) -> None:
    """Refuses rotary tables that depend on the longest position of a call: a program has one table for all calls.

    Raises:
        ModelError: Naming the type.
    """
    text = json.dumps(getattr(checkpoint.config.get_text_config(), "rope_parameters", None) or {}, default=str)
    found = [name for name in ("longrope", "dynamic") if f'"rope_type": "{name}"' in text]
    if found:
        raise ModelError(
            f"{checkpoint.folder}: rope_type {found[0]!r} changes the rotary table with the length of a text, which is "
            "not supported; use a variant of the model with a fixed table (default, linear, llama3 or yarn)"
        )


def _choose_dtype(checkpoint: Checkpoint, options: CompileOptions) -> str:
    if options.dtype is not Dtype.AUTO:
        return str(options.dtype)
    named = _DTYPE_OF_CONFIG.get(str(getattr(checkpoint.config.get_text_config(), "dtype", None)))
    return named or checkpoint.majority_dtype()
