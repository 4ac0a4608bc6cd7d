"""From a checkpoint to one MLIR module with all entry points: which layers to trace, and how the rest follow."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from amdnfs_passes.base import PassResult
from amdnfs_passes.ir import Context, Module
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.quantized_layout import QuantizedLayout
from amdnfs_targets.target import Target

from amdnfs_compile.frontend.attention import LayerCache
from amdnfs_compile.frontend.checkpoint import Checkpoint
from amdnfs_compile.frontend.partition import Partition, partition_step
from amdnfs_compile.frontend.program import LayerPlan, ProgramWriter
from amdnfs_compile.frontend.skeleton import Skeleton, build_prefix, inspect_model
from amdnfs_compile.frontend.trace import CallShape, trace_call
from amdnfs_compile.pipeline import TORCH_PHASE, convert_torch_to_linalg, run_phase

TORCH_DTYPES: Mapping[str, torch.dtype] = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
"""Our storage types to torch's."""

_DTYPE_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_MAX_NAMED = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Binding:
    """Where a parameter of the program is in the checkpoint."""

    tensor: str
    """Name of the tensor."""
    dtype: str
    """Storage type the program wants, as safetensors names it; the tensor may have another."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedModel:
    """A model with its program, ready for IREE."""

    bytecode: bytes
    """Linalg on tensors, all entry points."""
    bindings: Mapping[str, Binding]
    """Tensors that the program reads, by parameter name."""
    caches: tuple[LayerCache, ...]
    """Each layer's cache."""
    shapes: tuple[CallShape, ...]
    """The entry points."""
    passes: tuple[PassResult, ...]
    """Our passes at the torch phase."""
    num_traced_layers: int
    """How many layers were traced."""
    num_distinct_layers: int
    """How many kinds of layers the program has, over all entry points."""


def inspect_checkpoint(checkpoint: Checkpoint, dtype: str) -> Skeleton:
    """Learns a model's layers, caches and parameters without its weights."""
    return inspect_model(checkpoint.config, TORCH_DTYPES[dtype])


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedModel:
    """A model as it was traced, before any pass: the same for every target with these entry points."""

    bytecode: bytes
    """Torch dialect, all entry points."""
    bindings: Mapping[str, Binding]
    """Tensors that the program reads as they are or converted, by parameter name; not those of quantised weights."""
    num_traced_layers: int
    """How many layers were traced."""
    num_distinct_layers: int
    """How many kinds of layers the program has, over all entry points."""


Traces = dict[tuple[QuantizedLayout | None, tuple[CallShape, ...]], TracedModel]
"""Traces of one model by the layout of its weights and the entry points."""


def import_model(
    checkpoint: Checkpoint,
    skeleton: Skeleton,
    shapes: Sequence[CallShape],
    page_tokens: int,
    target: Target,
    progress: Callable[[str], None],
    traces: Traces,
) -> ImportedModel:
    """Traces a model for `shapes` and runs the passes of the torch phase as `target` wants them.

    Args:
        checkpoint: The model.
        skeleton: What was learned about it.
        shapes: The entry points.
        page_tokens: Tokens of a page.
        target: What the passes are run for.
        progress: Told what happens.
        traces: Traces that are there already; a new one is added.

    Raises:
        ModelError: If the model or its checkpoint cannot be imported.
        PassFailed: If a pass refuses the program.
    """
    key = (skeleton.layout, tuple(shapes))
    if key not in traces:
        traces[key] = _trace_model(checkpoint, skeleton, shapes, page_tokens, progress)
    traced = traces[key]
    progress(f"rewriting for {target.name}")
    module = Module.parse(traced.bytecode, Context())
    passes = run_phase(TORCH_PHASE, module, target)
    convert_torch_to_linalg(module, [refusal for result in passes for refusal in result.refusals])
    return ImportedModel(
        bytecode=_bytecode(module),
        bindings=traced.bindings,
        caches=skeleton.caches,
        shapes=tuple(shapes),
        passes=tuple(passes),
        num_traced_layers=traced.num_traced_layers,
        num_distinct_layers=traced.num_distinct_layers,
    )


def _trace_model(
    checkpoint: Checkpoint,
    skeleton: Skeleton,
    shapes: Sequence[CallShape],
    page_tokens: int,
    progress: Callable[[str], None],
) -> TracedModel:
    bindings = bind_parameters(checkpoint, skeleton)
    num_traced = _layers_to_trace(skeleton)
    traced = _trace_all(skeleton, shapes, page_tokens, num_traced, progress)
    if traced is None:
        progress("layers that look alike trace differently; tracing all of them")
        num_traced = skeleton.num_layers
        traced = _trace_all(skeleton, shapes, page_tokens, num_traced, progress)
        assert traced is not None
    plan = LayerPlan(traced=_plan(skeleton, num_traced))
    writer = ProgramWriter(
        layer_prefix=skeleton.layer_prefix,
        parameters=skeleton.parameters,
        tensor_names={name: archive_name(checkpoint, binding) for name, binding in bindings.items()}
        | {name: name for name in skeleton.quantized_parameters},
    )
    for shape, partition in traced:
        writer.add_entry(shape.name, partition, plan)
    return TracedModel(
        bytecode=_bytecode(writer.module),
        bindings={name: bindings[name] for name in sorted(writer.used_parameters) if name in bindings},
        num_traced_layers=num_traced,
        num_distinct_layers=writer.num_functions - 2 * len(shapes),
    )


def _bytecode(module: Module) -> bytes:
    buffer = io.BytesIO()
    module.operation.write_bytecode(buffer)
    return buffer.getvalue()


def bind_parameters(checkpoint: Checkpoint, skeleton: Skeleton) -> dict[str, Binding]:
    """Finds the tensor of every parameter that a trace can name, but of those that come from a quantised weight.

    Raises:
        ModelError: Naming parameters without a tensor, or a tensor of another shape or an unsupported type.
    """
    base = type_prefix(skeleton)
    made = {*skeleton.ties, *skeleton.quantized_parameters}
    groups: dict[str, list[str]] = {name: [name] for name in skeleton.parameters if name not in made}
    for alias, name in skeleton.ties.items():
        groups[name].append(alias)
    by_parameter = {
        parameter: tensor for tensor in checkpoint.tensors if (parameter := skeleton.parameter_name(tensor))
    }
    parts = sorted(tensor for tensor in checkpoint.tensors if skeleton.parameter_name(tensor) is None)
    found: dict[str, Binding] = {}
    missing = []
    for name, names in groups.items():
        shape, dtype = skeleton.parameters[name]
        tensor = _find_tensor(by_parameter, base, names)
        if tensor is None:
            missing.append(name)
            continue
        header = checkpoint.tensors[tensor]
        if header.shape != shape:
            raise ModelError(
                f"{checkpoint.folder}: tensor {tensor} has shape {list(header.shape)}, but the configuration "
                f"asks for {list(shape)}; config.json and the weights are not of one model"
            )
        if header.dtype not in _DTYPE_NAMES.values():
            raise ModelError(
                f"{checkpoint.folder}: tensor {tensor} has type {header.dtype}; supported are "
                f"{', '.join(sorted(_DTYPE_NAMES.values()))}"
            )
        found.update(dict.fromkeys(names, Binding(tensor=tensor, dtype=_DTYPE_NAMES[dtype])))
    if missing and parts:
        raise ModelError(
            f"{checkpoint.folder}: {missing[0]} is stored in parts ({parts[0]}, ...), which are not joined yet; "
            "save the model in the layout of transformers 5: save_pretrained(FOLDER, save_original_format=False)"
        )
    if missing:
        raise ModelError(
            f"{checkpoint.folder}: {len(missing)} of {len(skeleton.parameters)} parameters have no tensor: "
            f"{', '.join(missing[:_MAX_NAMED])}{', ...' if len(missing) > _MAX_NAMED else ''}; the checkpoint is "
            "incomplete, or stored under other names than transformers uses"
        )
    return found


def archive_name(checkpoint: Checkpoint, binding: Binding) -> str:
    """The name under which a bundle holds a tensor; a converted one has its type in it and never hides an original."""
    if checkpoint.tensors[binding.tensor].dtype == binding.dtype:
        return binding.tensor
    return f"{binding.tensor}.{binding.dtype.lower()}"


def type_prefix(skeleton: Skeleton) -> str:
    """The attribute under which the language model sits, e.g. `model.`; some checkpoints leave it out."""
    return skeleton.layer_prefix.split(".", maxsplit=1)[0] + "."


def _find_tensor(by_parameter: Mapping[str, str], base: str, names: Sequence[str]) -> str | None:
    for name in names:
        for candidate in (name, name.removeprefix(base), base + name):
            if candidate in by_parameter:
                return by_parameter[candidate]
    return None


def _layers_to_trace(skeleton: Skeleton) -> int:
    """The shortest prefix that holds two layers of each kind (one, if there is but one): two show that they agree."""
    wanted = {signature: min(2, count) for signature, count in Counter(skeleton.signatures).items()}
    seen: Counter[str] = Counter()
    for index, signature in enumerate(skeleton.signatures):
        if all(seen[kind] >= count for kind, count in wanted.items()):
            return index
        seen[signature] += 1
    return skeleton.num_layers


def _plan(skeleton: Skeleton, num_traced: int) -> tuple[int, ...]:
    """For each layer the traced layer it is like: itself if traced, else the last one of its kind."""
    last = {skeleton.signatures[index]: index for index in range(num_traced)}
    return tuple(index if index < num_traced else last[kind] for index, kind in enumerate(skeleton.signatures))


def _trace_all(
    skeleton: Skeleton, shapes: Sequence[CallShape], page_tokens: int, num_traced: int, progress: Callable[[str], None]
) -> list[tuple[CallShape, Partition]] | None:
    """Traces every shape; None if the traced layers cannot stand for the others."""
    model = build_prefix(skeleton, num_traced)
    results = []
    for shape in shapes:
        progress(f"tracing {shape.name} ({num_traced} of {skeleton.num_layers} layers)")
        program = trace_call(
            model,
            skeleton.caches[:num_traced],
            shape,
            page_tokens,
            skeleton.has_own_attention,
            skeleton.cache_dtype,
        )
        partition = partition_step(program, skeleton.layer_prefix, num_traced, set(skeleton.parameters))
        if num_traced < skeleton.num_layers and not _stands_for_all(skeleton, partition, num_traced):
            return None
        results.append((shape, partition))
    return results


def _stands_for_all(skeleton: Skeleton, partition: Partition, num_traced: int) -> bool:
    texts: dict[str, str] = {}
    for index in range(num_traced):
        if texts.setdefault(skeleton.signatures[index], partition.layers[index].text) != partition.layers[index].text:
            return False
    sources = [
        (index, source)
        for index, piece in [*enumerate(partition.layers), (num_traced, partition.tail)]
        for source in piece.inputs
        if source.kind == "layer"
    ]
    return all(source.layer == index - 1 for index, source in sources)
