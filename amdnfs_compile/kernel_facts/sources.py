"""Which layer and which operation of the model a dispatch comes from.

IREE keeps no names of the model in its dispatches, and alike layers share them. What remains is what a dispatch reads:
weights carry the model's names, and pools stand in the order of the layers. A dispatch that reads neither belongs to
the layer of the one before it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
_STORED = re.compile(r"\.weight\.(?:int4|int8|fp8|scales|scales_fnuz|zeros)$")
"""The end of the name of a tensor of a quantised weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is known of one dispatch before its neighbours are asked."""

    weights: tuple[str, ...]
    """Names in the model of the weights that it reads."""
    cache_layer: int | None
    """Layer whose pool it reads or writes."""
    kind: str
    """As in `BodyFacts`."""
    has_context_sizes: bool
    """Whether an operand or a result, other than table and pools, grows with the context."""
    operation: str | None = None
    """What a kernel of ours says that it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a dispatch comes from."""

    part: str
    """`head` (before the first layer), `layer` or `tail`."""
    layer: int | None
    """Index of the layer; None outside the layers."""
    operation: str
    """`self_attn.q_proj`, `attention`, `kv_write`, or the kind of the dispatch."""


def locate(dispatches: Sequence[Evidence]) -> list[Source]:
    """The source of each dispatch of an entry point, which are given in program order."""
    layers = [_layer_of(item) for item in dispatches]
    known = [i for i, layer in enumerate(layers) if layer is not None]
    first, last = (known[0], known[-1]) if known else (len(dispatches), -1)
    end = next((i for i in range(last + 1, len(dispatches)) if dispatches[i].weights), len(dispatches))
    sources: list[Source] = []
    current: int | None = None
    for i, item in enumerate(dispatches):
        current = layers[i] if layers[i] is not None else current
        part = "head" if i < first else "layer" if i < end else "tail"
        sources.append(
            Source(part=part, layer=current if part == "layer" else None, operation=_operation_of(item, part))
        )
    return _name_attention(dispatches, sources)


def reads_quantized(item: Evidence) -> bool:
    """Whether a dispatch reads a quantised weight."""
    return any(_STORED.search(name) for name in item.weights)


def _layer_of(item: Evidence) -> int | None:
    for name in item.weights:
        match = _LAYER.search(name)
        if match:
            return int(match[1])
    return item.cache_layer


def _operation_of(item: Evidence, part: str) -> str:
    if item.cache_layer is not None:
        return "kv_write" if item.kind == "scatter" or "kv_write" in (item.operation or "") else "attention"
    if item.weights:
        return _join(list(dict.fromkeys(_short(name) for name in item.weights)))
    if item.operation is not None:
        return item.operation
    return "attention" if part == "layer" and item.has_context_sizes else item.kind


def _join(names: Sequence[str]) -> str:
    """Several names as one; a parent that stays the same is said once.

    >>> _join(["self_attn.q_proj", "self_attn.k_proj", "input_layernorm"])
    'self_attn.q_proj+k_proj+input_layernorm'
    """
    parts = []
    parent = ""
    for name in names:
        home, _, last = name.rpartition(".")
        parts.append(last if home and home == parent else name)
        parent = home
    return "+".join(parts)


def _short(name: str) -> str:
    """The name of a weight within its layer, without the last part; all tensors of a quantised weight have one name.

    >>> _short("model.layers.3.self_attn.q_proj.weight"), _short("lm_head.weight"), _short("transformer.h.0.attn.bias")
    ('self_attn.q_proj', 'lm_head', 'attn')
    >>> _short("model.layers.3.mlp.up_proj.weight.int4"), _short("model.layers.3.mlp.up_proj.weight.zeros")
    ('mlp.up_proj', 'mlp.up_proj')
    """
    match = _LAYER.search(name)
    inner = name[match.end() :] if match else name
    head, _, tail = _STORED.sub(".weight", inner).rpartition(".")
    return head if head and tail in ("weight", "bias", "weight_scale", "scales") else inner


def _name_attention(dispatches: Sequence[Evidence], sources: list[Source]) -> list[Source]:
    """Calls what lies between two parts of a layer's attention, or reads no weight after it, attention too."""
    result = list(sources)
    inside: int | None = None
    for i, source in enumerate(sources):
        if source.operation in ("attention", "kv_write"):
            inside = source.layer
        elif dispatches[i].weights or source.layer != inside:
            inside = None
        elif inside is not None:
            result[i] = replace(source, operation="attention")
    return result
