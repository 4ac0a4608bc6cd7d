"""Gives a model of transformers the weights that a bundle stores: what our programs are to compute, without them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.quantized_layout import Activations, ElementType, QuantizedLayout
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from amdnfs_compile.quantize.linears import data_name, scales_name
from amdnfs_compile.quantize.numerics import dequantize, quantize

_STORAGE_ERROR = {"f32": 2.0**-22, "f16": 2.0**-10, "bf16": 2.0**-7}
"""By how much of its size an element may be off because the model is loaded in the bundle's storage type, while the
quantiser read it as the checkpoint has it: two roundings to that type."""
_REMEDY = "give the folder of the model that the bundle was made from, or compile it again"


def load_stored_weights(model: torch.nn.Module, bundle: Path, manifest: Manifest) -> int:
    """Replaces the weights of `model` that the bundle stores quantised by what they stand for.

    Each is compared with the model's own weight first: what is stored must be that weight, rounded to the nearest.
    Where activations are rounded too, the linear layers do that first: to int8 or fp8, with one scale a row. Both
    flavours of fp8 give the same numbers.

    Args:
        model: A model of transformers in f32; changed.
        bundle: The bundle.
        manifest: Its manifest; of a quantised model.

    Returns:
        Number of weights.

    Raises:
        ModelError: Naming a weight that the model lacks, has in another shape, or that is another one.
    """
    layout = QuantizedLayout.parse(manifest.model.quantization)
    end = f".weight.{data_name(layout)}"
    count = 0
    for archive in manifest.weights:
        with safe_open(bundle / archive, framework="pt") as file:
            names = set(file.keys())
            for name in sorted(item for item in names if item.endswith(end)):
                path = name.removesuffix(end)
                module = _module(model, path)
                zeros = file.get_tensor(f"{path}.weight.zeros") if layout.has_zeros else None
                data = file.get_tensor(name).view(torch.int8)
                weight = dequantize(data, file.get_tensor(f"{path}.weight.{scales_name(layout)}"), zeros, layout)
                is_transposed = isinstance(module, Conv1D)
                own = module.weight.data.T if is_transposed else module.weight.data
                _check_weight(f"{path}.weight", own, weight, layout, manifest.model.dtype)
                module.weight.data = (weight.T if is_transposed else weight).to(module.weight.dtype)
                if layout.activations is not Activations.FLOAT:
                    module.register_forward_pre_hook(partial(_round_rows, layout))
                count += 1
    return count


def _module(model: torch.nn.Module, path: str) -> Any:
    """The layer of the model whose weight the bundle stores."""
    try:
        module = model.get_submodule(path)
    except AttributeError as error:
        raise ModelError(f"the bundle stores {path}.weight, which the model does not have; {_REMEDY}") from error
    if not isinstance(getattr(module, "weight", None), torch.Tensor):
        raise ModelError(f"the bundle stores {path}.weight, but in the model {path} has no weight; {_REMEDY}")
    return module


def _check_weight(name: str, own: torch.Tensor, stored: torch.Tensor, layout: QuantizedLayout, dtype: str) -> None:
    """Refuses a stored weight that is not the model's own, rounded to the nearest.

    Args:
        name: Of the weight.
        own: The model's, `[columns, depth]` in f32.
        stored: What the stored one stands for, of the same shape in f64.
        layout: How it is stored.
        dtype: Storage type that the model was loaded in.
    """
    if own.shape != stored.shape:
        raise ModelError(
            f"{name} is {list(own.shape)} in the model, but {list(stored.shape)} in the bundle (columns, depth); "
            f"{_REMEDY}"
        )
    # The scales that the model's own weight asks for: those of the bundle might be too large, and excuse anything.
    try:
        scales = quantize(own, layout).scales
    except ValueError as error:
        raise ModelError(f"{name} of the model is not what the bundle stores: {error}; {_REMEDY}") from error
    excess = (stored - own).abs() - _largest_error(own, scales, layout) - own.abs() * _STORAGE_ERROR[dtype]
    is_off = ~(excess <= 0)  # NaN is off, too
    if bool(is_off.any()):
        share = float(is_off.double().mean())
        raise ModelError(
            f"{name} of the model is not what the bundle stores, rounded to {layout.element}: {share:.1%} of its "
            f"elements differ by more than rounding does; {_REMEDY}"
        )


def _largest_error(own: torch.Tensor, scales: torch.Tensor, layout: QuantizedLayout) -> torch.Tensor:
    """By how much rounding to the nearest may move an element, in a shape that goes with `own`, in f64.

    Half a step. Without zero points int4 has one step less above zero than below, so that an element may lose a whole
    step there. An fp8 step is an eighth of the power of two below the element, and 2^-9 scales for the smallest. The
    hundredth on top is for a scale that is one bit off where the model is in another type.
    """
    steps = scales.double().abs()
    if layout.is_float:
        steps = steps * (0.5 if layout.element is ElementType.E4M3FNUZ else 1.0)
        return torch.maximum(own.double().abs() * 2.0**-4, steps * 2.0**-10) * 1.01
    share = 1.0 if layout.element is ElementType.I4 and not layout.has_zeros else 0.5
    if steps.shape[1] > 1:
        steps = steps.repeat_interleave(own.shape[1] // steps.shape[1], -1)
    return steps * share * 1.01


def _round_rows(
    layout: QuantizedLayout, _module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]
) -> tuple[Any, ...]:
    """Rounds the rows of the first argument to what `layout` says, and back."""
    x, *others = arguments
    most = layout.largest_activation
    largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-30)
    steps = x * (most / largest)
    whole = steps.clamp(-most, most).to(torch.float8_e4m3fn).to(x.dtype) if layout.is_float else steps.round()
    return whole * (largest / most), *others
