"""Writes the quantised tensors of a model into an archive, one weight at a time.

Every tensor of every weight is written, whatever the targets: the archive follows from the model and the layout alone,
so that bundles made for different targets can be joined. For fp8 both kinds of scales are written; the bytes of the
weights are shared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.quantized_layout import ElementType, QuantizedLayout
from safetensors import safe_open

from amdnfs_compile.frontend.checkpoint import Checkpoint
from amdnfs_compile.quantize.linears import Linear, data_name
from amdnfs_compile.quantize.numerics import fnuz_scales, quantize

_NAMES = {torch.int8: "I8", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_FP8 = "F8_E4M3"
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1, _FP8: 1}
"""Size of an element by its type in safetensors."""


@dataclass(kw_only=True, slots=True)
class QuantizedWeights:
    """What is to be quantised, and what came of it."""

    layout: QuantizedLayout
    """How; of fp8 in the OCP flavour."""
    linears: Mapping[str, Linear]
    """The linear layers by path."""
    tensors: Mapping[str, str]
    """For each of them the checkpoint's tensor."""
    num_elements: int = 0
    """Elements that were quantised so far."""
    num_saturated: int = 0
    """Those among them that did not fit the range."""
    saturated: list[str] = field(default_factory=list)
    """Weights with such elements."""

    @property
    def file_name(self) -> str:
        """Name of the archive."""
        return f"quantized-{self.layout.spelling}.safetensors"

    @property
    def num_bytes(self) -> int:
        """Size of the archive's tensors in bytes."""
        return sum(self.tensor_bytes.values())

    @property
    def tensor_bytes(self) -> dict[str, int]:
        """Size of each tensor of the archive in bytes, by its name, in the order of the file."""
        return {name: BYTES[dtype] * math.prod(shape) for name, dtype, shape in self.entries()}

    @property
    def layouts(self) -> tuple[QuantizedLayout, ...]:
        """The layouts whose tensors are written."""
        if not self.layout.is_float:
            return (self.layout,)
        return tuple(
            dataclasses.replace(self.layout, element=element) for element in (ElementType.E4M3FN, ElementType.E4M3FNUZ)
        )

    def summary(self) -> str:
        """What came of it, in one line."""
        text = f"{self.num_elements} elements, {self.num_saturated} rounded to the end of the range"
        text += f" of {self.layout.element}"
        return text + (f" (in {len(self.saturated)} weights, first {self.saturated[0]})" if self.saturated else "")

    def entries(self) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """Name, type (as safetensors names it) and shape of each tensor, in the order of the file."""
        for path, linear in self.linears.items():
            stored = {name: item for layout in self.layouts for name, item in linear.stored(layout).items()}
            for name, (shape, dtype) in stored.items():
                is_fp8 = self.layout.is_float and name == data_name(self.layout)
                yield f"{path}.weight.{name}", _FP8 if is_fp8 else _NAMES[dtype], shape

    def values(self, checkpoint: Checkpoint) -> Iterator[torch.Tensor]:
        """The tensors of `entries`, in the same order; counts what did not fit.

        Raises:
            ModelError: Naming a weight that is not finite, or whose scales do not fit their type.
        """
        for path, linear in self.linears.items():
            tensor = self.tensors[path]
            with safe_open(checkpoint.folder / checkpoint.tensors[tensor].file, framework="pt") as shard:
                weight = shard.get_tensor(tensor)
            if not bool(weight.isfinite().all()):
                what = "values that are no numbers (NaN)" if bool(weight.isnan().any()) else "infinite values"
                raise ModelError(f"{checkpoint.folder}: tensor {tensor} has {what}, which cannot be quantised")
            try:
                found = quantize(weight.T if linear.is_transposed else weight, self.layout)
            except ValueError as error:
                raise ModelError(f"{checkpoint.folder}: tensor {tensor}: {error}; use --dtype bf16 or f32") from error
            self.num_elements += weight.numel()
            self.num_saturated += found.num_saturated
            if found.num_saturated:
                self.saturated.append(path)
            yield found.data
            yield found.scales
            if self.layout.is_float:
                yield fnuz_scales(found.scales)
            if found.zeros is not None:
                yield found.zeros
