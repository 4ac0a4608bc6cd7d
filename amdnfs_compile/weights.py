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
from collections.abc import Mapping
from pathlib import Path

import torch
from amdnfs_runtime.errors import ModelError, UsageError
from safetensors import safe_open

from amdnfs_compile.frontend.checkpoint import Checkpoint
from amdnfs_compile.frontend.huggingface import Binding, archive_name

CONVERTED = "converted.safetensors"
"""Archive of tensors that changed type."""

_TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_ALIGNMENT_BYTES = 64
_MIN_FREE_BYTES = 64 << 20


def place_weights(checkpoint: Checkpoint, bindings: Mapping[str, Binding], folder: Path) -> list[Path]:
    """Puts all archives the program needs into `folder`.

    Returns:
        The archives, in name order.

    Raises:
        UsageError: If the disk has no room.
        ModelError: If a value is too large for the type it is converted to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    changed = {b.tensor: b for b in bindings.values() if checkpoint.tensors[b.tensor].dtype != b.dtype}
    kept = {
        checkpoint.tensors[b.tensor].file for b in bindings.values() if checkpoint.tensors[b.tensor].dtype == b.dtype
    }
    _check_space(checkpoint, changed, kept, folder)
    placed = [_link(checkpoint.folder / name, folder / name) for name in sorted(kept)]
    if changed:
        placed.append(_convert(checkpoint, changed, folder / _free_name(checkpoint)))
    return sorted(placed)


def _free_name(checkpoint: Checkpoint) -> str:
    """A name for the converted archive that no shard has: a shard's link must never be written to."""
    name = CONVERTED
    while name in checkpoint.shards:
        name = f"again-{name}"
    return name


def _check_space(checkpoint: Checkpoint, changed: Mapping[str, Binding], kept: set[str], folder: Path) -> None:
    needed = _MIN_FREE_BYTES
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
    return math.prod(checkpoint.tensors[name].shape) * _BYTES[dtype]


def _link(source: Path, target: Path) -> Path:
    source = source.resolve()
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target


def _convert(checkpoint: Checkpoint, changed: Mapping[str, Binding], path: Path) -> Path:
    header: dict[str, object] = {}
    offset = 0
    for name, binding in sorted(changed.items()):
        size = _size(checkpoint, name, binding.dtype)
        header[archive_name(checkpoint, binding)] = {
            "dtype": binding.dtype,
            "shape": list(checkpoint.tensors[name].shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % _ALIGNMENT_BYTES)
    with path.open("xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, binding in sorted(changed.items()):
            with safe_open(checkpoint.folder / checkpoint.tensors[name].file, framework="pt") as shard:
                original = shard.get_tensor(name)
            tensor = original.to(_TORCH[binding.dtype]).reshape(-1)
            if bool((tensor.isinf() & original.reshape(-1).isfinite()).any()):
                raise ModelError(
                    f"{checkpoint.folder}: tensor {name} has values too large for {binding.dtype.lower()}; "
                    "use --dtype bf16 or f32"
                )
            file.write(tensor.view(torch.uint8).numpy().data)
    return path
