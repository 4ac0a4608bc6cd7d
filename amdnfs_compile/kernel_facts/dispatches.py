"""Lists the dispatches of each entry point, with what they do and what they cost, from the flow dialect.

Read after our own passes at the flow phase: from there on IREE changes neither the order of the dispatches nor what is
in them. Sizes are known up to the number of pages of context; so costs are linear forms of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from amdnfs_passes.ir import Module, Operation, Value, defining_op, symbol_name, walk

from amdnfs_compile.kernel_facts.bodies import BodyFacts, read_body
from amdnfs_compile.kernel_facts.embedded import EmbeddedKernel, noted_facts, read_embedded
from amdnfs_compile.kernel_facts.shapes import element_bits, operand_groups
from amdnfs_compile.kernel_facts.sizes import (
    PAGE,
    POOL_PAGE,
    Size,
    UnknownSizeError,
    evaluate,
    number,
    product,
    smaller,
    total,
)
from amdnfs_compile.kernel_facts.sources import Evidence, Source, locate, reads_quantized

_PASS_THROUGH = {
    "flow.tensor.reshape",
    "flow.tensor.bitcast",
    "flow.tensor.slice",
    "flow.tensor.transfer",
    "flow.tensor.clone",
    "util.optimization_barrier",
}
_COPIES = {"flow.tensor.update", "flow.tensor.slice", "flow.tensor.clone", "flow.tensor.splat"}
_PARAMETER = re.compile(r'#flow\.parameter\.named<"[^"]*"::"([^"]+)">')


@dataclass(kw_only=True, slots=True)
class _Dispatch:
    """One dispatch of an entry point."""

    export: str
    """Key of its kernel: the export's name; of an embedded kernel executable and export."""
    facts: BodyFacts
    """What it does."""
    weights: dict[str, Size] = field(default_factory=dict)
    """Bytes read of each global that holds a weight."""
    cache_layer: int | None = None
    """Layer whose pool it touches."""
    has_context_sizes: bool = False
    """Whether an operand or a result, other than table and pools, grows with the context."""
    kernel: EmbeddedKernel | None = None
    """The kernel, if it is one of ours."""


def read_dispatches(module: Module) -> dict[str, Any]:
    """The dispatches of each entry point of a module in the flow dialect, as plain values for the facts.

    Returns:
        By entry point: `groups` of dispatches that differ in their layer only, in order of their first one; `copies`
        outside of dispatches; `weight_bytes`, each weight once. Costs have a `constant`, and may have parts `per_page`
        (page of context of each request) and `per_context_token`.
    """
    weights = _weights(module)
    functions = {symbol_name(op): op for op in walk(module.operation) if op.name == "func.func"}
    embedded = read_embedded(module)
    entries = [child.operation for child in module.body.operations if child.operation.name == "util.func"]
    return {
        symbol_name(entry): _Entry(entry, weights, functions, embedded).as_json()
        for entry in entries
        if "iree.abi.stub" in entry.attributes and len(entry.regions[0].blocks) > 0
    }


def _weights(module: Module) -> dict[str, str]:
    """Names in the model of the globals that hold its weights, as they are or as IREE has made something of them."""
    found = {}
    for child in module.body.operations:
        op = child.operation
        if op.name == "util.global" and "initial_value" in op.attributes:
            match = _PARAMETER.search(str(op.attributes["initial_value"]))
            if match:
                found[symbol_name(op)] = match[1]
    for child in module.body.operations:
        if child.operation.name == "util.initializer":
            stores = [op for op in walk(child.operation) if op.name == "util.global.store"]
            for store in stores:
                names = sorted(found[name] for name in _globals_behind(store.operands[0]) if name in found)
                if names:
                    found[_global(store)] = names[0]
    return found


def _global(op: Operation) -> str:
    """The global that an operation loads or stores."""
    return str(op.attributes["global"]).removeprefix("@").strip('"')


def _globals_behind(value: Value) -> set[str]:
    """The globals that a value is computed from."""
    op = defining_op(value)
    if op is None:
        return set()
    if op.name == "util.global.load":
        return {_global(op)}
    return set().union(*(_globals_behind(operand) for operand in op.operands), set())


class _Entry:
    """Walks one entry point."""

    def __init__(
        self,
        function: Operation,
        weights: Mapping[str, str],
        functions: Mapping[str, Operation],
        embedded: Mapping[str, EmbeddedKernel],
    ) -> None:
        self._function = function
        self._weights = weights
        self._functions = functions
        self._embedded = embedded
        self._bodies: dict[tuple[str, tuple[Size, ...]], BodyFacts] = {}
        self._pools: list[int] = []
        self._tables: set[int] = set()
        for op in walk(function):
            if op.name == "hal.tensor.import":
                self._note_import(op)

    def _note_import(self, op: Operation) -> None:
        """Dynamic inputs are the page table (integers) and the pools (numbers), these in the order of the layers."""
        kind: Any = op.results[0].type
        position = int(op.operands[0].arg_number)
        if not hasattr(kind, "shape") or kind.has_static_shape:
            return
        if str(kind.element_type).startswith("i"):
            self._tables.add(position)
        else:
            self._pools.append(position)

    def as_json(self) -> dict[str, Any]:
        """The entry point as plain values."""
        dispatches = [self._dispatch(op) for op in walk(self._function) if op.name == "flow.dispatch"]
        evidence = [
            Evidence(
                weights=tuple(self._weights[name] for name in item.weights),
                cache_layer=item.cache_layer,
                kind=item.facts.kind,
                has_context_sizes=item.has_context_sizes,
                operation=item.kernel.operation if item.kernel else None,
            )
            for item in dispatches
        ]
        largest: dict[str, Size] = {}
        for item in dispatches:
            for name, size in item.weights.items():
                known = largest.get(name, Size())
                largest[name] = size if smaller(known, size) == known else known
        return {
            "groups": _groups(dispatches, locate(evidence), [reads_quantized(item) for item in evidence]),
            "copies": list(self._copies()),
            "weight_bytes": total(largest.values()).as_json(),
        }

    def _leaf(self, value: Value) -> Size | None:
        """Dimensions of inputs: the columns of the page table, or the pages of a pool."""
        op = defining_op(value)
        if op is None or op.name != "hal.buffer_view.dim":
            return None
        return PAGE if int(op.operands[0].arg_number) in self._tables else POOL_PAGE

    def _bytes(self, value: Value, dims: Iterator[Value]) -> Size:
        """Bytes of a tensor whose dynamic sizes come next in `dims`."""
        kind: Any = value.type
        sizes = [
            evaluate(next(dims), self._leaf) if kind.is_dynamic_dim(i) else number(kind.shape[i])
            for i in range(kind.rank)
        ]
        return product(sizes).times(Fraction(element_bits(kind.element_type), 8))

    def _origin(self, value: Value) -> tuple[str, int | str] | None:
        """Where a tensor comes from: (`input`, position) or (`weight`, global)."""
        op = defining_op(value)
        while op is not None:
            if op.name == "hal.tensor.import":
                return "input", int(op.operands[0].arg_number)
            if op.name == "util.global.load":
                return ("weight", _global(op)) if _global(op) in self._weights else None
            following = self._tied(op, value) if op.name == "flow.dispatch" else None
            if following is None and op.name in _PASS_THROUGH:
                following = op.operands[0]
            if following is None:
                return None
            value, op = following, defining_op(following)
        return None

    def _tied(self, op: Operation, value: Value) -> Value | None:
        """The operand that a result of a dispatch is written over."""
        if "tied_operands" not in op.attributes:
            return None
        tied = [int(str(item).split(":")[0]) for item in op.attributes["tied_operands"]]
        index = tied[list(op.results).index(value)]
        return operand_groups(op)[1][index] if index >= 0 else None

    def _dispatch(self, op: Operation) -> _Dispatch:
        operands = operand_groups(op)[1]
        executable, export = (part.strip('"') for part in _path(op))
        kernel = self._embedded.get(executable)
        facts = kernel.facts(op) if kernel else noted_facts(op) or self._body(export, operands)
        result = _Dispatch(export=kernel.key if kernel else export, facts=facts, kernel=kernel)
        self._note_operands(op, operands, result)
        return result

    def _body(self, export: str, operands: list[Value]) -> BodyFacts:
        arguments = {}
        for position, value in enumerate(operands):
            if "tensor" not in str(value.type):
                try:
                    arguments[position] = evaluate(value, self._leaf)
                except UnknownSizeError:
                    continue  # an index that is no size; if it is one, the body says so
        key = (export, tuple(arguments.values()))
        if key not in self._bodies:
            self._bodies[key] = read_body(self._functions[export], arguments)
        return self._bodies[key]

    def _note_operands(self, op: Operation, operands: list[Value], dispatch: _Dispatch) -> None:
        _, _, operand_dims, result_dims = operand_groups(op)
        sized = [(i, value) for i, value in enumerate(operands) if hasattr(value.type, "shape")]
        dims = iter(operand_dims)
        for position, value in sized:
            size = self._bytes(value, dims)
            origin = self._origin(value)
            if origin is None or origin[0] != "input":
                dispatch.has_context_sizes |= size.grows_with_context
            elif origin[1] in self._pools:
                dispatch.cache_layer = self._pools.index(int(origin[1]))
            if origin is not None and origin[0] == "weight":
                read = dispatch.facts.reads.get(position, Size()) if dispatch.kernel is None else size
                name = str(origin[1])
                dispatch.weights[name] = dispatch.weights.get(name, Size()) + read
        dims = iter(result_dims)
        for value in op.results:
            if self._tied(op, value) is None:
                dispatch.has_context_sizes |= self._bytes(value, dims).grows_with_context

    def _copies(self) -> Iterator[dict[str, Any]]:
        """What IREE does between dispatches; at most, since it may still turn a slice into a view."""
        found: dict[str, list[Size]] = {}
        for op in walk(self._function):
            if op.name not in _COPIES:
                continue
            value = operand_groups(op)[3][0] if op.name == "flow.tensor.update" else op.results[0]
            kind: Any = value.type
            if kind.has_static_shape:
                moved = self._bytes(value, iter(()))
                found.setdefault(op.name, []).append(moved if op.name.endswith("splat") else moved.times(2))
            else:
                found.setdefault(f"{op.name} of dynamic size", []).append(Size())
        for name, sizes in sorted(found.items()):
            yield {"operation": name, "count": len(sizes), "bytes": total(sizes).as_json()}


def _path(dispatch: Operation) -> list[str]:
    """Executable and export that a dispatch names."""
    return [part.removeprefix("@") for part in str(dispatch.attributes["entry_points"][0]).split("::")]


def _groups(dispatches: list[_Dispatch], sources: list[Source], quantized: list[bool]) -> list[dict[str, Any]]:
    """Dispatches that are alike but for their layer, together."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item, source, is_quantized in zip(dispatches, sources, quantized, strict=True):
        group = {
            "export": item.export,
            "part": source.part,
            "op": source.operation,
            "kind": item.facts.kind,
            **({"quantized": True} if is_quantized else {}),
            **_costs(item),
        }
        key = (item.export, source.part, source.operation, str(group))
        known = groups.setdefault(key, {**group, "count": 0, "layers": []})
        known["count"] += 1
        if source.layer is not None and source.layer not in known["layers"]:
            known["layers"].append(source.layer)
    return list(groups.values())


def _costs(item: _Dispatch) -> dict[str, Any]:
    facts = item.facts
    habits = list(facts.habits)
    if facts.kind == "gather" and item.cache_layer is not None and facts.written.grows_with_context:
        habits.append("cache-gather")
    contractions = [
        {
            "operation": contraction.operation,
            "type": contraction.element_type,
            "sizes": dict(contraction.sizes),
            "rows": contraction.rows.as_json(),
            "flops": contraction.flops.as_json(),
        }
        for contraction in facts.contractions
    ]
    moved = facts.moved or total(facts.reads.values()) + facts.written
    return {
        "flops": total(contraction.flops for contraction in facts.contractions).as_json(),
        "bytes": moved.as_json(),
        "contractions": contractions,
        **({"habits": sorted(habits)} if habits else {}),
        **({"unknown": sorted(set(facts.unknown))} if facts.unknown else {}),
    }
