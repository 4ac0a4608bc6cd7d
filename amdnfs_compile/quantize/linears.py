"""Which matrices of a model are quantised, and the module that takes the place of a linear layer while it is traced.

Quantised are the linear layers inside the decoder layers (torch's Linear, transformers' Conv1D). Everything else
stays as it is: embeddings, norms, biases, the output projection, experts that are stored as one tensor, and matrices
that are tied to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.quantized_layout import ElementType, QuantizedLayout
from transformers.pytorch_utils import Conv1D

from amdnfs_compile.quantize.numerics import SCALE_DTYPES

GROUP_SIZES_TO_TRY = ("128", "64", "32")
"""Group sizes, the coarsest first."""

_LIBRARY = torch.library.Library("amdnfs", "FRAGMENT")
_LIBRARY.define(
    "quantized_linear(Tensor x, Tensor data, Tensor scales, Tensor? zeros, Tensor? bias, str layout) -> Tensor"
)


def _quantized_linear_shape(
    x: torch.Tensor,
    data: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    bias: torch.Tensor | None,
    layout: str,
) -> torch.Tensor:
    return x.new_empty(*x.shape[:-1], data.shape[0])


# The op exists to be traced, imported and lowered by `lower-quantized-linear`; it has no implementation.
_LIBRARY.impl("quantized_linear", _quantized_linear_shape, "Meta")


@dataclass(frozen=True, kw_only=True, slots=True)
class Linear:
    """A linear layer of a model."""

    columns: int
    """Width of its result."""
    depth: int
    """Width of its input."""
    is_transposed: bool
    """Whether its weight is `[depth, columns]` (Conv1D), not `[columns, depth]`."""

    def stored(self, layout: QuantizedLayout) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each tensor of the weight in `layout`, by its name behind `weight.`."""
        shape: tuple[int, ...] = layout.scales_shape(self.columns, self.depth)
        found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            data_name(layout): (layout.data_shape(self.columns, self.depth), torch.int8),
            scales_name(layout): (shape, SCALE_DTYPES[layout.scale]),
        }
        return {**found, "zeros": (shape, torch.int8)} if layout.has_zeros else found


def data_name(layout: QuantizedLayout) -> str:
    """Name of the stored elements: `int4`, `int8` or `fp8`; both flavours of fp8 have the same bytes."""
    return "fp8" if layout.is_float else f"int{layout.bits}"


def scales_name(layout: QuantizedLayout) -> str:
    """Name of the scales; those of `f8E4M3FNUZ` are others than those of `f8E4M3FN`."""
    return "scales_fnuz" if layout.element is ElementType.E4M3FNUZ else "scales"


def find_linears(model: torch.nn.Module, layer_prefix: str, ties: Mapping[str, str]) -> dict[str, Linear]:
    """The linear layers that can be quantised, by the path of the module."""
    tied = {*ties, *ties.values()}
    found = {}
    for path, module in _modules(model, layer_prefix):
        if f"{path}.weight" in tied:
            continue
        shape = tuple(module.weight.shape)
        is_transposed = type(module) is Conv1D
        columns, depth = reversed(shape) if is_transposed else shape
        found[path] = Linear(columns=columns, depth=depth, is_transposed=is_transposed)
    return found


def require_divisible(linears: Mapping[str, Linear], layout: QuantizedLayout) -> None:
    """Checks that every matrix can be stored in `layout`.

    Raises:
        ModelError: Naming the first that cannot, and the group sizes that fit all.
    """
    for path, linear in linears.items():
        try:
            layout.groups(linear.depth)
        except ValueError as error:
            depths = {item.depth for item in linears.values()}
            sizes = [size for size in GROUP_SIZES_TO_TRY if all(depth % int(size) == 0 for depth in depths)]
            remedy = f"use --group-size {' or '.join(sizes or ['channel'])}"
            raise ModelError(f"{path}.weight cannot be stored as {layout.spelling}: {error}; {remedy}") from error


def replace_linears(
    model: torch.nn.Module, layer_prefix: str, linears: Mapping[str, Linear], layout: QuantizedLayout
) -> None:
    """Puts a `QuantizedLinear` in the place of each of `linears` that the model has."""
    for path, module in list(_modules(model, layer_prefix)):
        if path in linears:
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, QuantizedLinear(linears[path], module.bias, layout))


class QuantizedWeight(torch.nn.Module):
    """The tensors of a quantised weight, allocated and never touched: they are in the place of a parameter `weight`."""

    def __init__(self, linear: Linear, layout: QuantizedLayout) -> None:
        super().__init__()
        for name, (shape, dtype) in linear.stored(layout).items():
            self.register_buffer(name, torch.empty(shape, dtype=dtype))


class QuantizedLinear(torch.nn.Module):
    """A linear layer that traces as one `amdnfs.quantized_linear`."""

    def __init__(self, linear: Linear, bias: torch.Tensor | None, layout: QuantizedLayout) -> None:
        super().__init__()
        self.weight = QuantizedWeight(linear, layout)
        self.bias = bias
        self._layout = layout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[..., depth]` to `[..., columns]`."""
        layout, weight = self._layout, self.weight
        tensors = [getattr(weight, name) for name in (data_name(layout), scales_name(layout))]
        zeros = weight.zeros if layout.has_zeros else None
        result: torch.Tensor = torch.ops.amdnfs.quantized_linear.default(x, *tensors, zeros, self.bias, layout.spelling)
        return result


def _modules(model: torch.nn.Module, layer_prefix: str) -> Iterator[tuple[str, torch.nn.Module]]:
    """Linear layers below `layer_prefix`, with their paths."""
    for path, module in model.named_modules():
        kind: Any = type(module)  # for the checker torch's classes are Any, and not hashable
        if path.startswith(f"{layer_prefix}.") and _is_linear(kind):
            yield path, module


@cache
def _is_linear(kind: type[torch.nn.Module]) -> bool:
    """Whether modules of `kind` multiply with their weight, add their bias, and do nothing else.

    A subclass of Linear may be one with other arithmetic (a router, say), so it is tried.
    """
    if kind in (torch.nn.Linear, Conv1D) or not issubclass(kind, torch.nn.Linear):
        return kind in (torch.nn.Linear, Conv1D)
    try:
        with torch.random.fork_rng(devices=[]):
            module = kind(5, 3)
        x = torch.arange(10.0).reshape(2, 5)
        return bool(torch.allclose(module(x), torch.nn.functional.linear(x, module.weight, module.bias)))
    except (TypeError, ValueError, RuntimeError, AttributeError):
        return False
