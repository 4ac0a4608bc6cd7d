"""Compiles a model once more with traces: a program that shows what every dispatch reads and writes.

    model --compile_model--> 2-flow-folded --traces around each dispatch--> flow --iree--> traced.vmfb

The dispatches are those of a program for a bundle, from the same intermediate module. Only what lies between them
differs: IREE copies what is traced, so pools are not updated in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_passes.ir import (
    Attribute,
    Context,
    InsertionPoint,
    Location,
    Module,
    Operation,
    Value,
    defining_op,
    symbol_name,
    walk,
)
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import UsageError
from amdnfs_targets.quantized_layout import ScaleType
from amdnfs_targets.registry import get_target

from amdnfs_compile.compiler import compile_model
from amdnfs_compile.lower import compile_from_flow, write_bytecode
from amdnfs_compile.options import CompileOptions, Dtype, KvCacheDtype
from amdnfs_compile.quantize.scheme import GroupSize, Quantize

_DISPATCH = "flow.dispatch"
_WEIGHT = "util.global.load"
_MAX_HOPS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedDispatch:
    """One dispatch of an entry point."""

    entry: str
    """Entry point."""
    index: int
    """Its place there, from 0; keys of traces are `<entry> <index> in` and `... out`."""
    export: str
    """Key of its kernel in facts.json."""
    operands: tuple[str, ...]
    """What each traced operand is: `%name: type` of the tensor that it comes from."""
    results: tuple[str, ...]
    """Types of its results."""
    readers: tuple[int, ...]
    """Dispatches of the entry point that read a result, directly or reshaped."""
    is_kept: bool
    """Whether a result is updated in place or returned: something that a later call sees."""

    @property
    def likeness(self) -> tuple[str, str, tuple[str, ...]]:
        """What two programs with the same dispatches have in common.

        Not the digests of kernels, and not sizes: targets cut attention into different numbers of parts.
        """
        types = tuple(re.sub(r"[0-9?]+x", "", item) for item in self.results)
        return self.entry, re.sub(r"\.[0-9a-f]{12}::", "::", self.export), types


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedProgram:
    """A compiled program with traces."""

    target: str
    """What it is for."""
    bundle: Path
    """The bundle of the program without traces."""
    program: Path
    """The `.vmfb` with traces."""
    dispatches: tuple[TracedDispatch, ...]
    """In program order."""


def compile_traced(model: Path, manifest: Manifest, target: str, folder: Path) -> TracedProgram:
    """Compiles `model` as a bundle was compiled, for one target, without and with traces.

    Args:
        model: Folder of the model.
        manifest: Of the bundle, for its sizes and types.
        target: What to compile for.
        folder: Keeps everything.

    Raises:
        AmdnfsError: If the compile fails.
    """
    bundle = compile_model(model, [target], folder / f"{target}.amdnfs", options_of(manifest), intermediates=folder)
    module = Module.parse((folder / target / "2-flow-folded.mlirbc").read_bytes(), Context())
    dispatches = tuple(_trace(module))
    flow = folder / target / "traced-flow.mlirbc"
    write_bytecode(module, flow)
    program = compile_from_flow(flow, get_target(target), "traced.vmfb")
    return TracedProgram(target=target, bundle=bundle, program=program, dispatches=dispatches)


def options_of(manifest: Manifest) -> CompileOptions:
    """The options that give programs with the entry points and types of a bundle.

    Raises:
        UsageError: If no option gives its quantisation.
    """
    points = next(iter(manifest.targets.values())).entry_points
    sizes: dict[str, Any] = {
        "dtype": Dtype(manifest.model.dtype),
        "page_tokens": manifest.page_tokens,
        "context_tokens": manifest.model.context_tokens,
        "prefill_chunks": tuple(sorted(point.tokens for point in points if point.kind == "prefill")),
        "decode_batches": tuple(sorted({point.batch for point in points if point.kind == "decode"})),
        "kv_cache_dtype": KvCacheDtype.FP8 if manifest.cache_dtype == "fp8" else KvCacheDtype.AUTO,
        "speculate": max((point.tokens for point in points if point.kind == "verify"), default=1) - 1,
        "offline": True,
    }
    if manifest.model.quantization == "none":
        return CompileOptions(**sizes)
    for options in _quantized(sizes):
        if options.scheme and options.scheme.layout(ScaleType(manifest.model.dtype)).spelling == (
            manifest.model.quantization
        ):
            return options
    raise UsageError(f"no option of this amdnfs gives weights that are quantised as {manifest.model.quantization}")


def _quantized(sizes: dict[str, Any]) -> Iterator[CompileOptions]:
    for quantize in Quantize:
        for group_size in GroupSize:
            for zero_points in (False, True):
                try:
                    yield CompileOptions(quantize=quantize, group_size=group_size, zero_points=zero_points, **sizes)
                except UsageError:  # they do not go together
                    continue


def _trace(module: Module) -> Iterator[TracedDispatch]:
    for function in module.body.operations:
        operation = function.operation
        if operation.name != "util.func":
            continue
        found = [item for item in walk(operation) if item.name == _DISPATCH]
        for index, dispatch in enumerate(found):
            yield _trace_one(symbol_name(operation), index, dispatch, found)


def _trace_one(entry: str, index: int, dispatch: Operation, all_of_them: Sequence[Operation]) -> TracedDispatch:
    """Puts a trace before a dispatch and one behind it, and describes it."""
    num_workload, num_arguments, num_sizes, _ = (int(item) for item in dispatch.attributes["operandSegmentSizes"])
    operands = list(dispatch.operands)
    arguments = operands[num_workload : num_workload + num_arguments]
    sizes = iter(operands[num_workload + num_arguments : num_workload + num_arguments + num_sizes])
    traced: list[Value] = []
    traced_sizes: list[Value] = []
    for value in arguments:
        own = [next(sizes) for _ in range(_num_dynamic(value))]
        if str(value.type).startswith("tensor") and not _is_weight(value):
            traced.append(value)
            traced_sizes += own
    outer = operands[num_workload + num_arguments + num_sizes :]
    if traced:
        _insert(f"{entry} {index} in", traced, traced_sizes, dispatch)
    behind = _insert(f"{entry} {index} out", list(dispatch.results), outer, dispatch)
    readers, is_kept = _readers(dispatch, all_of_them)
    behind.move_after(dispatch)
    tied = (
        [int(item) for item in dispatch.attributes["tied_operands"]] if "tied_operands" in dispatch.attributes else []
    )
    export = str(dispatch.attributes["entry_points"]).strip("[]").replace("@", "")
    home, _, symbol = export.partition("::")
    return TracedDispatch(
        entry=entry,
        index=index,
        export=export if home.startswith("amdnfs.") else symbol,
        operands=tuple(f"{value.get_name()}: {value.type}" for value in traced),
        results=tuple(str(value.type) for value in dispatch.results),
        readers=readers,
        is_kept=is_kept or any(item >= 0 for item in tied),
    )


def _num_dynamic(value: Value) -> int:
    text = str(value.type)
    return text.split(",")[0].count("?") if text.startswith("tensor") else 0


def _is_weight(value: Value) -> bool:
    """Whether a value is a weight, perhaps reshaped: it is not traced, for it may be large and is never wrong."""
    for _ in range(_MAX_HOPS):
        operation = defining_op(value)
        if operation is None or operation.name == _DISPATCH:
            return False
        if operation.name == _WEIGHT:
            return True
        if not operation.operands:
            return False
        value = operation.operands[0]
    return False


def _insert(key: str, values: Sequence[Value], sizes: Sequence[Value], before: Operation) -> Operation:
    with before.context, Location.unknown():
        return Operation.create(
            "flow.tensor.trace",
            operands=[*values, *sizes],
            attributes={
                "key": Attribute.parse(f'"{key}"'),
                "operandSegmentSizes": Attribute.parse(f"array<i32: {len(values)}, {len(sizes)}>"),
            },
            ip=InsertionPoint(before),
        )


def _readers(dispatch: Operation, all_of_them: Sequence[Operation]) -> tuple[tuple[int, ...], bool]:
    """Dispatches that read a result, directly or through other operations; whether the function returns one."""
    waiting, seen, found, is_returned = list(dispatch.results), set(), set(), False
    while waiting:
        for use in waiting.pop().uses:
            owner = use.owner.operation
            if owner.name == _DISPATCH:
                found.add(next(i for i, item in enumerate(all_of_them) if item == owner))
            elif owner.name == "util.return":
                is_returned = True
            elif owner.name != "flow.tensor.trace" and owner not in seen:
                seen.add(owner)
                waiting += list(owner.results)
    return tuple(sorted(found)), is_returned
