"""Gives a model of transformers the weights that a bundle stores: what our programs are to compute, without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from amdnfs_runtime.bundle import Manifest
from amdnfs_targets.quantized_layout import Activations, QuantizedLayout
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from amdnfs_compile.quantize.linears import data_name, scales_name
from amdnfs_compile.quantize.numerics import dequantize

_LARGEST_I8 = 127


def load_stored_weights(model: torch.nn.Module, bundle: Path, manifest: Manifest) -> int:
    """Replaces the weights of `model` that the bundle stores quantised by what they stand for.

    Where activations are rounded too, the linear layers do that first: to int8, with one scale a row.

    Args:
        model: A model of transformers in f32; changed.
        bundle: The bundle.
        manifest: Its manifest; of a quantised model.

    Returns:
        Number of weights.
    """
    layout = QuantizedLayout.parse(manifest.model.quantization)
    end = f".weight.{data_name(layout)}"
    count = 0
    for archive in manifest.weights:
        with safe_open(bundle / archive, framework="pt") as file:
            names = set(file.keys())
            for name in sorted(item for item in names if item.endswith(end)):
                path = name.removesuffix(end)
                module = model.get_submodule(path)
                zeros = file.get_tensor(f"{path}.weight.zeros") if layout.has_zeros else None
                data = file.get_tensor(name).view(torch.int8)
                weight = dequantize(data, file.get_tensor(f"{path}.weight.{scales_name(layout)}"), zeros, layout)
                module.weight.data = (weight.T if isinstance(module, Conv1D) else weight).to(module.weight.dtype)
                if layout.activations is Activations.ROW_I8:
                    module.register_forward_pre_hook(_round_rows)
                count += 1
    return count


def _round_rows(_module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[Any, ...]:
    """Rounds the rows of the first argument to int8 and back."""
    x, *others = arguments
    scale = x.abs().amax(-1, keepdim=True).clamp(min=1e-30) / _LARGEST_I8
    return (x / scale).round() * scale, *others
