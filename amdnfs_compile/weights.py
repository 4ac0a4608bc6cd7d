"""Brings a checkpoint's weights into a bundle, one tensor at a time.

Shards whose tensors are used as they are get linked (or copied, across file systems). Tensors that change type are
written to an archive of their own, streamed; the shards are never read whole.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from amdnfs_runtime.errors import ModelError, UsageError
from safetensors import safe_open

from amdnfs_compile.frontend.checkpoint import Checkpoint
from amdnfs_compile.frontend.huggingface import Binding, archive_name
from amdnfs_compile.quantize.archive import BYTES, QuantizedWeights

CONVERTED = "converted.safetensors"
"""Archive of tensors that changed type."""

_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_ALIGNMENT_BYTES = 64
_MIN_FREE_BYTES = 64 << 20


def place_weights(
    checkpoint: Checkpoint, bindings: Mapping[str, Binding], folder: Path, quantized: QuantizedWeights | None = None
) -> list[Path]:
    """Puts all archives the program needs into `folder`.

    Args:
        checkpoint: The model.
        bindings: The tensors that a program reads as they are, or converted.
        folder: The folder; is made.
        quantized: What is to be quantised. The shards then hold more than is needed, so that none is linked: what a
            program reads as it is becomes part of the archive of converted tensors.

    Returns:
        The archives, in name order.

    Raises:
        UsageError: If the disk has no room.
        ModelError: If a value is too large for the type it is converted to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    is_kept = {b.tensor: quantized is None and checkpoint.tensors[b.tensor].dtype == b.dtype for b in bindings.values()}
    changed = {b.tensor: b for b in bindings.values() if not is_kept[b.tensor]}
    kept = {checkpoint.tensors[tensor].file for tensor, value in is_kept.items() if value}
    _check_space(checkpoint, changed, kept, quantized, folder)
    placed = [_link(checkpoint.folder / name, folder / name) for name in sorted(kept)]
    if changed:
        placed.append(_convert(checkpoint, changed, folder / _free_name(checkpoint)))
    if quantized is not None:
        placed.append(folder / quantized.file_name)
        _write(placed[-1], list(quantized.entries()), quantized.values(checkpoint))
    return sorted(placed)


def _free_name(checkpoint: Checkpoint) -> str:
    """A name for the converted archive that no shard has: a shard's link must never be written to."""
    name = CONVERTED
    while name in checkpoint.shards:
        name = f"again-{name}"
    return name


def _check_space(
    checkpoint: Checkpoint,
    changed: Mapping[str, Binding],
    kept: set[str],
    quantized: QuantizedWeights | None,
    folder: Path,
) -> None:
    needed = _MIN_FREE_BYTES + (0 if quantized is None else quantized.num_bytes)
    needed += sum(_size(checkpoint, name, binding.dtype) for name, binding in changed.items())
    for name in kept:
        source = (checkpoint.folder / name).resolve()
        if source.stat().st_dev != folder.stat().st_dev:
            needed += source.stat().st_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UsageError(
            f"not enough disk for the bundle at {folder.parent.parent}: {-(-needed >> 20)} MiB needed, "
            f"{free >> 20} MiB free; free some, or choose another place with -o"
        )


def _size(checkpoint: Checkpoint, name: str, dtype: str) -> int:
    return _num_bytes(dtype, checkpoint.tensors[name].shape)


def _num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * BYTES[dtype]


def _link(source: Path, target: Path) -> Path:
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _convert(checkpoint: Checkpoint, changed: Mapping[str, Binding], path: Path) -> Path:
    ordered = sorted(changed.items())
    entries = [(archive_name(checkpoint, b), b.dtype, checkpoint.tensors[name].shape) for name, b in ordered]
    _write(path, entries, (_converted(checkpoint, name, binding) for name, binding in ordered))
    return path


def _converted(checkpoint: Checkpoint, name: str, binding: Binding) -> torch.Tensor:
    with safe_open(checkpoint.folder / checkpoint.tensors[name].file, framework="pt") as shard:
        original = shard.get_tensor(name)
    tensor = original.to(_TORCH[binding.dtype])
    if bool((tensor.isinf() & original.isfinite()).any()):
        raise ModelError(
            f"{checkpoint.folder}: tensor {name} has values too large for {binding.dtype.lower()}; "
            "use --dtype bf16 or f32"
        )
    return tensor


def _write(path: Path, entries: Sequence[tuple[str, str, tuple[int, ...]]], tensors: Iterable[torch.Tensor]) -> None:
    """Writes an archive: name, type and shape of each tensor, then the tensors, one at a time."""
    header: dict[str, object] = {}
    offset = 0
    for name, dtype, shape in entries:
        size = _num_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT_BYTES)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for (_, _, shape), tensor in zip(entries, tensors, strict=True):
            assert tuple(tensor.shape) == tuple(shape)
            file.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
