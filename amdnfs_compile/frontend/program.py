"""Writes the pieces of all entry points as one MLIR module in the torch dialect.

Every distinct layer becomes one private function; an entry point calls the head, then one function a layer with that
layer's weights and pool as arguments, then the tail. Weights are globals that name a tensor of the bundle's archive.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from amdnfs_passes.ir import Attribute, DenseElementsAttr, InsertionPoint, Location, Module, Operation, Type
from iree.compiler.extras.fx_importer import FxImporter, FxImporterHooks

from amdnfs_compile.frontend.partition import Partition, Piece, Source

PARAMETER_SCOPE = "model"
"""Scope under which programs ask the runtime for weights."""

_ELEMENTS = {
    torch.float32: "f32",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float64: "f64",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "i8",
    torch.bool: "i1",
}


class _InlineLiterals(FxImporterHooks):  # type: ignore[misc]
    """Writes tables of a model (positions, frequencies) into the module itself.

    The importer puts them beside it, from where IREE 3.13.0 loses large ones when it writes out the stream phase. Can
    go when `test_twin_equals_transformers[gptj]` passes without it.
    """

    def resolve_literal(self, gni: Any, literal: Any, info: Any) -> Any:
        """The operation that makes `literal`; None leaves it to the importer."""
        if not isinstance(literal, torch.Tensor) or literal.dtype is torch.bool or literal.numel() < 2:
            return None
        element = _torch_element(_ELEMENTS[literal.dtype])
        array = literal.detach().contiguous()
        array = array.view(torch.int16) if literal.dtype is torch.bfloat16 else array
        sizes = [str(size) for size in literal.shape]
        value = DenseElementsAttr.get(array.numpy(), type=Type.parse(f"tensor<{'x'.join([*sizes, element])}>"))
        kind = Type.parse(f"!torch.vtensor<[{','.join(sizes)}],{element}>")
        return Operation.create("torch.vtensor.literal", results=[kind], attributes={"value": value}).result


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerPlan:
    """How the layers of a whole model follow from those that were traced."""

    traced: tuple[int, ...]
    """For each layer of the model, the traced layer it is like."""


@dataclass(kw_only=True, slots=True)
class ProgramWriter:
    """Collects entry points; `module` is complete once all have been added."""

    layer_prefix: str
    """Path of the layer list, e.g. `model.layers`."""
    parameters: dict[str, tuple[tuple[int, ...], torch.dtype]]
    """Shape and storage type of every parameter."""
    tensor_names: dict[str, str]
    """Parameter names to names of tensors in the archive."""
    _importer: FxImporter = field(default_factory=lambda: FxImporter(hooks=_InlineLiterals()))
    _functions: dict[str, str] = field(default_factory=dict)
    used_parameters: set[str] = field(default_factory=set)
    """Parameters that some entry point reads."""
    declared_tensors: set[str] = field(default_factory=set)
    """Tensors that have a global; tied parameters share one."""

    @property
    def module(self) -> Module:
        """The module so far."""
        module: Module = self._importer.module
        return module

    @property
    def num_functions(self) -> int:
        """Number of distinct pieces: heads, layers and tails."""
        return len(self._functions)

    def add_entry(self, name: str, partition: Partition, plan: LayerPlan) -> None:
        """Adds the entry point `name`."""
        head = self._piece_function(f"{name}.head", partition.head)
        tail = self._piece_function(f"{name}.tail", partition.tail)
        layers = [self._piece_function(f"{name}.layer{i}", piece) for i, piece in enumerate(partition.layers)]
        with self._importer._c, Location.unknown():
            _EntryBuilder(writer=self, partition=partition, plan=plan, head=head, tail=tail, layers=layers).build(name)

    def _piece_function(self, name: str, piece: Piece) -> str:
        """Imports `piece` once; pieces that are alike share a function."""
        known = self._functions.get(piece.text)
        if known is not None:
            return known
        function = self._importer.import_stateless_graph(piece.module.graph, func_name=name, func_visibility="private")
        with self._importer._c:
            function.operation.attributes["noinline"] = Attribute.parse("unit")
        self._functions[piece.text] = name
        return name


@dataclass(kw_only=True, slots=True)
class _EntryBuilder:
    writer: ProgramWriter
    partition: Partition
    plan: LayerPlan
    head: str
    tail: str
    layers: list[str]
    arguments: dict[str, Any] = field(default_factory=dict)
    pools: list[Any] = field(default_factory=list)
    head_results: list[Any] = field(default_factory=list)
    layer_results: dict[int, list[Any]] = field(default_factory=dict)

    def build(self, name: str) -> None:
        types, pool_types = self._argument_types()
        body = self.writer.module.body
        results = [str(t) for t in self._function_type(self.tail)[1][: self.partition.num_tail_results]] + pool_types
        signature = f"({', '.join([*types.values(), *pool_types])}) -> ({', '.join(results)})"
        entry = Operation.create(
            "func.func",
            attributes={"sym_name": Attribute.parse(f'"{name}"'), "function_type": Attribute.parse(signature)},
            regions=1,
            ip=InsertionPoint(body),
        )
        block_types = [Type.parse(text) for text in [*types.values(), *pool_types]]
        block = entry.regions[0].blocks.append(*block_types)
        values = list(block.arguments)
        self.arguments = dict(zip(types, values, strict=False))
        self.pools = values[len(types) :]
        with InsertionPoint(block):
            self._fill()

    def _fill(self) -> None:
        self.head_results = self._call(self.head, self.partition.head, layer=None)
        for layer, traced in enumerate(self.plan.traced):
            piece = self.partition.layers[traced]
            self.layer_results[layer] = self._call(self.layers[traced], piece, layer=layer, traced=traced)
        tail = self._call(self.tail, self.partition.tail, layer=None)
        pools = []
        for layer, traced in enumerate(self.plan.traced):
            source = self.partition.results[traced]
            assert source.kind == "layer"
            pools.append(self.layer_results[layer][source.index])
        Operation.create("func.return", operands=[*tail[: self.partition.num_tail_results], *pools])

    def _call(self, function: str, piece: Piece, *, layer: int | None, traced: int = 0) -> list[Any]:
        operands = [self._value(source, layer, traced) for source in piece.inputs]
        results = [Type.parse(str(kind)) for kind in self._function_type(function)[1]]
        call = Operation.create(
            "func.call",
            results=results,
            operands=operands,
            attributes={"callee": Attribute.parse(f'@"{function}"')},
        )
        return list(call.results)

    def _value(self, source: Source, layer: int | None, traced: int) -> Any:
        last_traced, last = len(self.partition.layers) - 1, len(self.plan.traced) - 1
        match source.kind:
            case "input":
                return self.arguments[source.name]
            case "head":
                return self.head_results[source.index]
            case "pool":
                assert layer is not None
                assert source.layer == traced
                return self.pools[layer]
            case "layer":
                offset = (last - last_traced) if layer is None else (layer - traced)
                return self.layer_results[source.layer + offset][source.index]
            case "param":
                return self._parameter(self._renamed(source.name, layer, traced))

    def _renamed(self, name: str, layer: int | None, traced: int) -> str:
        prefix = f"{self.writer.layer_prefix}.{traced}."
        if layer is None or not name.startswith(prefix):
            return name
        return f"{self.writer.layer_prefix}.{layer}." + name[len(prefix) :]

    def _parameter(self, name: str) -> Any:
        """Loads the global of a parameter, declaring it on first use."""
        shape, dtype = self.writer.parameters[name]
        element = _ELEMENTS[dtype]
        sizes = "".join(f"{size}x" for size in shape)
        builtin = f"tensor<{sizes}{element}>"
        tensor = self.writer.tensor_names[name]
        symbol = f"param.{tensor}"
        self.writer.used_parameters.add(name)
        if tensor not in self.writer.declared_tensors:
            self.writer.declared_tensors.add(tensor)
            Operation.create(
                "util.global",
                attributes={
                    "sym_name": Attribute.parse(f'"{symbol}"'),
                    "sym_visibility": Attribute.parse('"private"'),
                    "type": Attribute.parse(builtin),
                    "initial_value": Attribute.parse(
                        f'#flow.parameter.named<"{PARAMETER_SCOPE}"::"{tensor}"> : {builtin}'
                    ),
                },
                ip=InsertionPoint.at_block_begin(self.writer.module.body),
            )
        loaded = Operation.create(
            "util.global.load",
            results=[Type.parse(builtin)],
            attributes={"global": Attribute.parse(f'@"{symbol}"')},
        )
        torch_type = f"!torch.vtensor<[{','.join(str(size) for size in shape)}],{_torch_element(element)}>"
        return Operation.create(
            "torch_c.from_builtin_tensor", results=[Type.parse(torch_type)], operands=[loaded.result]
        ).result

    def _argument_types(self) -> tuple[dict[str, str], list[str]]:
        """Types of the entry's arguments: named ones, then one pool a layer of the whole model."""
        named: dict[str, str] = {}
        pool_of: dict[int, str] = {}
        for function, piece in self._pieces():
            for source, kind in zip(piece.inputs, self._function_type(function)[0], strict=True):
                if source.kind == "input":
                    named[source.name] = str(kind)
                elif source.kind == "pool":
                    pool_of[source.layer] = str(kind)
        ordered = {name: named[name] for name in self.partition.inputs}
        return ordered, [pool_of[traced] for traced in self.plan.traced]

    def _pieces(self) -> Iterator[tuple[str, Piece]]:
        yield self.head, self.partition.head
        yield from zip(self.layers, self.partition.layers, strict=True)
        yield self.tail, self.partition.tail

    def _function_type(self, name: str) -> tuple[list[Any], list[Any]]:
        function = self.writer._importer.symbol_table[name]
        kind = function.type
        return list(kind.inputs), list(kind.results)


def _torch_element(element: str) -> str:
    return re.sub(r"^i(8|16|32|64)$", r"si\1", element)
