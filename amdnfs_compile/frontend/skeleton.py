"""The model as transformers builds it, without its weights.

Two models are made from one configuration: a whole one on the meta device, to learn what every layer is and keeps,
and one with only the first few layers, to trace. Parameters of the second are allocated and never touched, so they
cost address space but no memory; its computed buffers (rotary frequencies) hold their real values.
"""

from __future__ import annotations

import copy
import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any

import torch
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.quantized_layout import QuantizedLayout
from transformers import AutoModelForCausalLM, initialization
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, apply_converters, apply_renamings

from amdnfs_compile.frontend.attention import NAME, Discovery, LayerCache, session
from amdnfs_compile.frontend.cached_attention import CacheDiscovery, use_own_attention
from amdnfs_compile.quantize.linears import Linear, find_linears, replace_linears

_PRIMITIVES = (bool, int, float, str, type(None))


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """What is known of a model before it is traced."""

    config: Any
    """The transformers configuration, all layers."""
    dtype: torch.dtype
    """Storage type of the parameters."""
    layer_prefix: str
    """Path of the list of decoder layers, e.g. `model.layers`."""
    signatures: tuple[str, ...]
    """One text a layer; equal for layers that are alike."""
    caches: tuple[LayerCache, ...]
    """One cache a layer."""
    parameters: dict[str, tuple[tuple[int, ...], torch.dtype]]
    """Shape and type of each parameter and persistent buffer, by name; tied ones under each of their names."""
    ties: dict[str, str]
    """Other names of tied parameters, each to the first name."""
    conversions: tuple[Any, ...]
    """transformers' rules from names in checkpoints to names of parameters."""
    has_own_attention: bool = False
    """Whether the model's own attention code runs, over keys and values that it asks its cache for."""
    linears: dict[str, Linear] = field(default_factory=dict)
    """Linear layers whose weights can be quantised, by path."""
    layout: QuantizedLayout | None = None
    """How their weights are stored; None as they are."""
    cache_dtype: torch.dtype | None = None
    """Storage type of the pools; None: `dtype`. Bytes are fp8 numbers."""

    @property
    def num_layers(self) -> int:
        """Number of decoder layers."""
        return len(self.signatures)

    @property
    def quantized_parameters(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each tensor of a quantised weight, by name."""
        if self.layout is None:
            return {}
        return {
            f"{path}.weight.{name}": value
            for path, linear in self.linears.items()
            for name, value in linear.stored(self.layout).items()
        }

    def quantized(self, layout: QuantizedLayout) -> Skeleton:
        """The model with the weights of its linear layers stored in `layout`."""
        weights = {f"{path}.weight" for path in self.linears}
        kept = {name: value for name, value in self.parameters.items() if name not in weights}
        found = dataclasses.replace(self, layout=layout)
        return dataclasses.replace(found, parameters={**kept, **found.quantized_parameters})

    def parameter_name(self, tensor: str) -> str | None:
        """The parameter that a checkpoint's tensor is, by transformers' rules; None if it is only a part of one."""
        name = apply_renamings(tensor, [rule for rule in self.conversions if isinstance(rule, WeightRenaming)])
        _, pattern = apply_converters(name, [rule for rule in self.conversions if isinstance(rule, WeightConverter)])
        return None if pattern is not None and name not in self.parameters else str(name)


def inspect_model(config: Any, dtype: torch.dtype) -> Skeleton:
    """Builds the whole model on the meta device and runs it once to see every attention call.

    Raises:
        ModelError: If transformers cannot build it as a causal language model, or it attends neither through
            transformers' attention interface nor over what it asks its cache for.
    """
    with torch.device("meta"):
        model = build_model(config, dtype)
    layer_prefix = _find_layers(model, config)
    count = len(list(model.get_submodule(layer_prefix).children()))
    has_own_attention = False
    try:
        found = _discover(model, config, count, Discovery())
    except ModelError as error:
        use_own_attention(model)
        try:
            found = _discover(model, config, count, CacheDiscovery())
        except ModelError:
            raise error from None
        has_own_attention = True
    layers = list(model.get_submodule(layer_prefix).children())
    caches = tuple(found[index] for index in range(count))
    ties = _ties(model)
    return Skeleton(
        config=config,
        dtype=dtype,
        layer_prefix=layer_prefix,
        signatures=tuple(f"{_signature(layer)} {cache}" for layer, cache in zip(layers, caches, strict=True)),
        caches=caches,
        parameters={name: (tuple(value.shape), value.dtype) for name, value in model.state_dict().items()},
        ties=ties,
        conversions=tuple(get_model_conversion_mapping(model)),
        has_own_attention=has_own_attention,
        linears=find_linears(model, layer_prefix, ties),
    )


def _discover(
    model: torch.nn.Module, config: Any, num_layers: int, discovery: Discovery | CacheDiscovery
) -> dict[int, LayerCache]:
    """Runs the model on shapes.

    Returns:
        The cache of each layer.

    Raises:
        ModelError: If the model does not run, or a layer reaches no attention of ours.
    """
    ids = torch.zeros(1, 2, dtype=torch.int64, device="meta")
    options: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "use_cache": False}
    if isinstance(discovery, CacheDiscovery):
        options = {"past_key_values": discovery, "use_cache": True}
    try:
        with torch.no_grad(), session(discovery):
            model(input_ids=ids, position_ids=torch.zeros_like(ids), **options)
    except ModelError as error:
        raise ModelError(f"{config.model_type}: {error}") from error
    except Exception as error:
        raise ModelError(
            f"{config.model_type}: running the model's own code on shapes failed: {_first_line(error)}; models whose "
            "code looks at the values of tensors (state-space layers, dynamic rotary scaling) are not supported"
        ) from error
    missing = sorted(set(range(num_layers)) - set(discovery.caches))
    if missing:
        raise ModelError(
            f"{config.model_type}: layers {missing[:8]} do not call transformers' attention interface, nor do they ask "
            "their cache for keys and values (linear attention and state-space layers are not supported)"
        )
    return discovery.caches


def build_prefix(skeleton: Skeleton, num_layers: int) -> torch.nn.Module:
    """The model with its first `num_layers` layers; parameters allocated, not initialised."""
    model = build_model(_shortened(skeleton.config, skeleton.num_layers, num_layers), skeleton.dtype)
    if skeleton.has_own_attention:
        use_own_attention(model)
    if skeleton.layout is not None:
        replace_linears(model, skeleton.layer_prefix, skeleton.linears, skeleton.layout)
    return model


def build_model(config: Any, dtype: torch.dtype) -> torch.nn.Module:
    """Builds the causal language model of `config` with our attention, uninitialised.

    Raises:
        ModelError: If transformers does not know it or cannot build it.
    """
    try:
        with initialization.no_init_weights():
            model = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=dtype, attn_implementation="eager", experts_implementation="batched_mm"
            )
            if model._can_set_attn_implementation():  # else it would only warn
                model.set_attn_implementation(NAME)
            model.tie_weights()  # building without initialisation leaves tied parameters apart
    except Exception as error:
        if "Unrecognized configuration class" in str(error):
            raise ModelError(f"{config.model_type}: not a causal language model that transformers knows") from error
        raise ModelError(f"{config.model_type}: transformers cannot build this model: {_first_line(error)}") from error
    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"{config.model_type}: not a torch module")
    return model.eval().requires_grad_(False)


def _shortened(config: Any, num_layers: int, keep: int) -> Any:
    """A copy of `config` for the first `keep` layers: per-layer lists are cut with it."""
    if keep == num_layers:
        return config
    values = config.to_dict()
    for name, value in values.items():
        if isinstance(value, list) and len(value) == num_layers:
            values[name] = value[:keep]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = keep
    return type(config).from_dict(values)


def _find_layers(model: torch.nn.Module, config: Any) -> str:
    count = config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count > 0:
            first = next(iter(module.children()))
            if any(getattr(inner, "layer_idx", None) == 0 for inner in first.modules()):
                return str(name)
    raise ModelError(f"{config.model_type}: found no list of {count} decoder layers in the model")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"


def _signature(layer: torch.nn.Module) -> str:
    """Everything about a layer that tracing could see, but its index."""
    parts = []
    for name, module in layer.named_modules():
        facts = {
            key: value
            for key, value in sorted(vars(module).items())
            if isinstance(value, _PRIMITIVES) and key not in ("layer_idx", "training") and not key.startswith("_")
        }
        parts.append(f"{name}:{type(module).__name__}:{facts}")
    parts += [f"{name}:{tuple(value.shape)}:{value.dtype}" for name, value in layer.state_dict().items()]
    return re.sub(r"\s+", " ", ";".join(parts))


def _ties(model: torch.nn.Module) -> dict[str, str]:
    """Other names of parameters that are one tensor, each to the first name."""
    first: dict[int, str] = {}
    ties = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in first:
            ties[name] = first[id(parameter)]
        else:
            first[id(parameter)] = name
    return ties
