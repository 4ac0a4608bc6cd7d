"""Cuts a traced step into head, layers and tail, so that layers that are alike are compiled once.

torch records for every node which module it came from. Nodes of `model.layers.<i>` form layer i; what no layer feeds
is the head (embedding, rotary tables); the rest is the tail (final norm, output projection, sampling). Two layers are
alike when their nodes, read in order with inputs numbered by first use, give the same text.

What follows from the positions of a call alone and has a dynamic size (masks, position biases), or is no tensor
(sizes), or follows from nothing, is computed anew in every piece that reads it: no size crosses from piece to piece,
and a piece shows by itself what its mask is.

    source of an input      "param"  name of a parameter          "pool"   index of a layer's pool
                            "head"   result index of the head     "layer"  (layer, result index)
                            "input"  name of an entry argument
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from amdnfs_runtime.errors import ModelError
from torch import fx

HEAD = -1
TAIL = 1 << 30
_IGNORED = "_assert_tensor_metadata"
_POSITIONS = ("start", "num_valid", "table")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where an input of a piece comes from."""

    kind: Literal["param", "pool", "head", "layer", "input"]
    """See the module docstring."""
    name: str = ""
    """Parameter or argument name."""
    layer: int = 0
    """Layer of a pool or of a layer's result."""
    index: int = 0
    """Result index within the head or a layer."""


@dataclass(kw_only=True, slots=True)
class Piece:
    """The head, one layer or the tail as a graph of its own."""

    module: fx.GraphModule
    """Graph with one placeholder an input; constants are attributes."""
    inputs: list[Source]
    """Source of each placeholder, in order."""
    num_results: int
    """Number of results."""
    text: str
    """The canonical form: equal for pieces that are alike."""


@dataclass(kw_only=True, slots=True)
class Partition:
    """A step in pieces."""

    head: Piece
    layers: list[Piece]
    tail: Piece
    results: list[Source]
    """Results of the entry point beyond the tail's own: the pool of each layer."""
    num_tail_results: int
    """How many results of the entry point the tail makes (greedy token, logits)."""
    inputs: list[str]
    """Names of the entry's arguments before the pools: tokens, start, num_valid, table."""


@dataclass(kw_only=True, slots=True)
class _Cutter:
    program: torch.export.ExportedProgram
    layer_path: re.Pattern[str]
    strip_prefix: str
    stage: dict[fx.Node, int] = field(default_factory=dict)
    source: dict[fx.Node, Source] = field(default_factory=dict)
    constants: dict[fx.Node, torch.Tensor] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    results: dict[int, list[fx.Node]] = field(default_factory=dict)


def partition_step(
    program: torch.export.ExportedProgram, layer_prefix: str, num_layers: int, persistent: set[str]
) -> Partition:
    """Cuts `program`, the trace of a step of a model with `num_layers` layers.

    Args:
        program: The traced step; its module holds the model as `model`.
        layer_prefix: Path of the layer list inside the model.
        num_layers: Number of layers in the trace.
        persistent: Names of parameters and buffers that the checkpoint holds; other buffers become constants.

    Raises:
        ModelError: If values other than tensors cross from one piece to another.
    """
    pattern = re.compile(rf"(?:^|\.)model\.{re.escape(layer_prefix)}\.(\d+)(?:\.|$)")
    cut = _Cutter(program=program, layer_path=pattern, strip_prefix="model.")
    _read_placeholders(cut, persistent)
    _assign_stages(cut)
    _localise(cut)
    stages = [HEAD, *range(num_layers), TAIL]
    outputs = list(next(node for node in program.graph.nodes if node.op == "output").args[0])
    pools, tail_outputs = outputs[-num_layers:], outputs[:-num_layers]
    for stage in stages:
        wanted = tail_outputs if stage == TAIL else []
        cut.results[stage] = _results_of(cut, stage, wanted, pools)
    pieces = {stage: _build_piece(cut, stage) for stage in stages}
    return Partition(
        head=pieces[HEAD],
        layers=[pieces[index] for index in range(num_layers)],
        tail=pieces[TAIL],
        results=[_source_of(cut, node) for node in pools],
        num_tail_results=len(tail_outputs),
        inputs=cut.inputs,
    )


def _read_placeholders(cut: _Cutter, persistent: set[str]) -> None:
    signature = cut.program.graph_signature
    tensors = {**cut.program.state_dict, **cut.program.constants}
    named = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    pool_count = 0
    for node in cut.program.graph.nodes:
        if node.op != "placeholder":
            continue
        if node.name in named:
            target = named[node.name]
            name = target.removeprefix(cut.strip_prefix)
            if name in persistent:
                cut.source[node] = Source(kind="param", name=name)
            else:
                cut.constants[node] = tensors[target]
        elif node.name.startswith("pools_"):
            cut.source[node] = Source(kind="pool", layer=pool_count)
            pool_count += 1
        else:
            cut.inputs.append(node.name)
            cut.source[node] = Source(kind="input", name=node.name)


def _assign_stages(cut: _Cutter) -> None:
    """Gives each computing node its stage: by module path, else by what it depends on."""
    nodes = [node for node in cut.program.graph.nodes if node.op not in ("placeholder", "output")]
    for node in nodes:
        stack = node.meta.get("nn_module_stack") or {}
        layers = [int(match[1]) for path, _ in stack.values() if (match := cut.layer_path.search(path))]
        depends = max((cut.stage.get(argument, HEAD) for argument in node.all_input_nodes), default=HEAD)
        cut.stage[node] = max(layers[-1], depends) if layers else depends
    # A node outside all layers that no later layer reads belongs to the tail.
    needed_by: dict[fx.Node, int] = {}
    for node in reversed(nodes):
        stack = node.meta.get("nn_module_stack") or {}
        in_layer = any(cut.layer_path.search(path) for path, _ in stack.values())
        users = [cut.stage[user] for user in node.users if user.op != "output" and user in cut.stage]
        feeds_layer = any(needed_by.get(user, HEAD) >= 0 for user in node.users)
        needed_by[node] = cut.stage[node] if in_layer else (0 if feeds_layer else HEAD)
        if (not in_layer and not feeds_layer and cut.stage[node] >= 0) or (
            not in_layer and not feeds_layer and all(user == TAIL for user in users)
        ):
            cut.stage[node] = TAIL


def _localise(cut: _Cutter) -> None:
    """Copies values of positions into each piece that reads them, in the order in which it does.

    The piece that computed them first gets copies, too: else it would not look like the others.
    """
    graph = cut.program.graph
    depends = _input_dependence(cut)
    nodes = [node for node in graph.nodes if node in cut.stage and _IGNORED not in str(node.target)]
    local = {node for node in nodes if _is_local(node, depends[node])}
    copies: dict[tuple[fx.Node, int], fx.Node] = {}
    origins: dict[fx.Node, fx.Node] = {}

    def copy_into(node: fx.Node, stage: int) -> fx.Node:
        node = origins.get(node, node)
        if node not in cut.stage:
            return node
        if (node, stage) not in copies:
            arguments = {argument: copy_into(argument, stage) for argument in node.all_input_nodes}
            copies[node, stage] = graph.node_copy(node, lambda old: arguments[old])
            origins[copies[node, stage]] = node
        return copies[node, stage]

    for node in nodes:
        if node in local:
            continue
        for argument in node.all_input_nodes:
            if argument in local:
                with graph.inserting_before(node):
                    node.replace_input_with(argument, copy_into(argument, cut.stage[node]))
    cut.stage.update({copy: stage for (_, stage), copy in copies.items()})
    for node in reversed(graph.nodes):
        if node in local and all(_IGNORED in str(user.target) for user in node.users):
            for user in list(node.users):
                graph.erase_node(user)
            graph.erase_node(node)


def _is_local(node: fx.Node, depends: set[str] | None) -> bool:
    value = node.meta.get("val")
    is_static = isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape)
    return depends is not None and not (is_static and depends)


def _input_dependence(cut: _Cutter) -> dict[fx.Node, set[str] | None]:
    """For each node the arguments of the call that it follows from; None if tokens, weights or pools are among them."""
    depends: dict[fx.Node, set[str] | None] = {}
    for node in cut.program.graph.nodes:
        if node.op == "placeholder":
            source = cut.source.get(node)
            if source is None:
                depends[node] = set()
            else:
                depends[node] = {source.name} if source.kind == "input" and source.name in _POSITIONS else None
            continue
        parts = [depends[argument] for argument in node.all_input_nodes]
        depends[node] = None if None in parts else set().union(*(part for part in parts if part is not None))
    return depends


def _results_of(cut: _Cutter, stage: int, wanted: list[fx.Node], pools: list[fx.Node]) -> list[fx.Node]:
    """Nodes of `stage` that another stage or the entry point reads, in graph order after those asked for."""
    results = list(wanted)
    for node in cut.program.graph.nodes:
        if cut.stage.get(node) != stage or node in results:
            continue
        outside = [user for user in node.users if user.op != "output" and _IGNORED not in str(user.target)]
        if node in pools or any(cut.stage[user] != stage for user in outside):
            results.append(node)
    return results


def _source_of(cut: _Cutter, node: fx.Node) -> Source:
    if node in cut.source:
        return cut.source[node]
    stage = cut.stage[node]
    index = cut.results[stage].index(node)
    return Source(kind="head", index=index) if stage == HEAD else Source(kind="layer", layer=stage, index=index)


def _build_piece(cut: _Cutter, stage: int) -> Piece:
    graph = fx.Graph()
    module = torch.nn.Module()
    env: dict[fx.Node, fx.Node] = {}
    inputs: list[Source] = []
    lines: list[str] = []
    nodes = [n for n in cut.program.graph.nodes if cut.stage.get(n) == stage and _IGNORED not in str(n.target)]
    external = list(dict.fromkeys(a for n in nodes for a in n.all_input_nodes if cut.stage.get(a) != stage))
    external += [n for n in cut.results[stage] if cut.stage.get(n) != stage and n not in external]
    for node in external:
        if node not in cut.constants:
            _check_crossing(node)
            placeholder = graph.placeholder(f"arg{len(inputs)}")
            placeholder.meta = {"val": node.meta["val"]}
            inputs.append(_source_of(cut, node))
            lines.append(f"arg{len(inputs) - 1}: {_type_text(node)}")
            env[node] = placeholder
    for node in external:
        if node in cut.constants:
            name = f"constant{len([a for a in env if a in cut.constants])}"
            module.register_buffer(name, cut.constants[node])
            lines.append(f"{name} = {_type_text(node)} {_digest(cut.constants[node])}")
            env[node] = graph.get_attr(name)
            env[node].meta = {"val": node.meta["val"]}
    for position, node in enumerate(nodes):
        copy = graph.node_copy(node, lambda old: env[old])
        copy.name = f"v{position}"
        copy.meta = {"val": node.meta["val"]}
        env[node] = copy
        lines.append(f"{copy.name} = {copy.target}{copy.args}{copy.kwargs} : {_type_text(node)}")
    graph.output(tuple(env[node] for node in cut.results[stage]))
    lines.append(f"return {[env[node].name for node in cut.results[stage]]}")
    return Piece(
        module=fx.GraphModule(module, graph),
        inputs=inputs,
        num_results=len(cut.results[stage]),
        text="\n".join(lines),
    )


def _check_crossing(node: fx.Node) -> None:
    if not isinstance(node.meta.get("val"), torch.Tensor):
        raise ModelError(f"the value {node.name} ({type(node.meta.get('val')).__name__}) crosses between layers")


def _digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def _type_text(node: fx.Node) -> str:
    return _value_type(node.meta.get("val"))


def _value_type(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"({', '.join(_value_type(item) for item in value)})"
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    sizes = ["?" if isinstance(size, torch.SymInt) else str(size) for size in value.shape]
    return f"{value.dtype}[{','.join(sizes)}]"
