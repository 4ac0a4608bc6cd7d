"""What a model says about positions, and what its trace shows of them."""

from __future__ import annotations

from typing import Any

import torch
from amdnfs_runtime.errors import ModelError
from torch import fx

_INDEX_OPERAND = {torch.ops.aten.embedding.default: 1, torch.ops.aten.index_select.default: 2}


_LIMITS = ("max_position_embeddings", "max_seq_len", "seq_length")


def context_limit(config: Any) -> int:
    """The longest context that a transformers configuration names, in tokens; 0 if it names none.

    >>> from types import SimpleNamespace
    >>> context_limit(SimpleNamespace(seq_length=2048))
    2048
    """
    return next((int(value) for name in _LIMITS if (value := getattr(config, name, None))), 0)


def check_positions(program: torch.export.ExportedProgram) -> None:
    """Refuses a model that looks up an embedding at positions counted from the beginning of the call.

    A chunk that does not begin a prompt, and every decode step, would then be computed at wrong positions.

    Raises:
        ModelError: Naming the embedding.
    """
    known = _input_free_nodes(program)
    for node in program.graph.nodes:
        at = _INDEX_OPERAND.get(node.target)
        if at is None or node.args[at] not in known:
            continue
        indices = _evaluate(program, node.args[at])
        if indices.unique().numel() > 1:
            raise ModelError(
                f"{_name(program, node.args[0])} is looked up at positions {indices.flatten()[:3].tolist()}... "
                "whatever the positions of the call are; models that count positions themselves are not supported"
            )


def replace_bounded_maxima(program: torch.export.ExportedProgram) -> None:
    """Replaces `max(size, c)` by `size` where the trace has shown that the size is at least c.

    The importer has no operation for the maximum of sizes.
    """
    for node in list(program.graph.nodes):
        if node.target is not torch.sym_max:
            continue
        sizes = [item for item in node.args if isinstance(item, fx.Node)]
        floors = [item for item in node.args if isinstance(item, int)]
        if len(sizes) != 1 or len(floors) != 1:
            continue
        value = sizes[0].meta["val"].node
        if value.shape_env.bound_sympy(value.expr).lower >= floors[0]:
            node.replace_all_uses_with(sizes[0])
            program.graph.erase_node(node)


def _input_free_nodes(program: torch.export.ExportedProgram) -> set[fx.Node]:
    """Nodes whose value depends on no argument of the step: constants, and what follows from them."""
    signature = program.graph_signature
    constants = {*signature.inputs_to_buffers, *signature.inputs_to_lifted_tensor_constants}
    known: set[fx.Node] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            is_known = node.name in constants
        else:
            is_known = node.op == "call_function" and all(argument in known for argument in node.all_input_nodes)
        if is_known:
            known.add(node)
    return known


def _evaluate(program: torch.export.ExportedProgram, wanted: fx.Node) -> torch.Tensor:
    signature = program.graph_signature
    tensors = {**program.state_dict, **program.constants}
    named = {**signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    values: dict[fx.Node, Any] = {}

    def value(node: fx.Node) -> Any:
        if node not in values:
            if node.op == "placeholder":
                values[node] = tensors[named[node.name]]
            else:
                arguments = fx.node.map_arg(node.args, value)
                values[node] = node.target(*arguments, **fx.node.map_arg(node.kwargs, value))
        return values[node]

    result: torch.Tensor = value(wanted)
    return result


def _name(program: torch.export.ExportedProgram, node: fx.Node) -> str:
    return str(program.graph_signature.inputs_to_parameters.get(node.name, node.name)).removeprefix("model.")
