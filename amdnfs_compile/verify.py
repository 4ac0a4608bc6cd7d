"""Compares a bundle's programs with transformers, entry point by entry point, on random prompts.

The reference is the model's own code in f32 on the weights as the bundle stores them (rounded to its type, or
quantised, then widened), with the whole text in one call and no cache: nothing of ours takes part in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.device import Program, choose_target, inspect_host
from amdnfs_runtime.errors import ModelError, UsageError
from amdnfs_targets.quantized_layout import Activations
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from amdnfs_compile.frontend.checkpoint import open_checkpoint
from amdnfs_compile.frontend.huggingface import TORCH_DTYPES
from amdnfs_compile.quantize.reference import load_stored_weights

TOLERANCE = {"f32": 2e-4, "f16": 2e-2, "bf16": 1.2e-1}
"""Largest allowed difference of logits, as a share of the largest reference logit.

f32 differs by the order of sums. f16 and bf16 have 11 and 8 bits of mantissa: activations are rounded about ten times
a layer, and each rounding is 2^-12 or 2^-9 of the value.
"""

ROUNDED_TOLERANCE = {"f32": 4e-2, "f16": 1.5e-1, "bf16": 3e-1}
"""The same where activations are rounded to int8: a difference in the last bit of an activation can move it to the next
of 255 steps. In f32 that happens to few, and most errors are below 1e-5; in 16 bits it happens to many in each layer.
"""

DISTANCE = "distance from the unquantised model"
"""Name of the comparison that says what quantisation costs; it has no tolerance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One comparison."""

    name: str
    """What was compared."""
    error: float
    """Largest difference of a logit, as a share of the largest reference logit."""
    same_argmax: float
    """Share of rows whose greatest logit is at the same token."""
    tolerance: float
    """Allowed `error`."""

    @property
    def is_right(self) -> bool:
        """Whether the error is within the tolerance; NaN never is."""
        return self.error <= self.tolerance


def verify_bundle(
    bundle: Path, model: Path, target: str | None = None, *, seed: int = 0, num_tokens: int = 0
) -> list[Check]:
    """Runs prefill in one go and in chunks, decode over page borders, and a batch of different lengths.

    Args:
        bundle: The bundle.
        model: Folder of the model it was made from.
        target: Target to run; the best for this machine by default.
        seed: Of the random prompts.
        num_tokens: Length of the text; by default two pages and a half.

    Raises:
        ModelError: If transformers cannot load the model, or it is not the one the bundle was made from.
        ArtifactError: If the bundle cannot be run.
        UsageError: If the text does not fit the context.
    """
    manifest = read_manifest(bundle)
    _check_model(model, manifest)
    name = choose_target(manifest, inspect_host(), target)
    length = num_tokens or 2 * manifest.page_tokens + manifest.page_tokens // 2
    if length > manifest.model.context_tokens:
        raise UsageError(f"{length} tokens do not fit the context of {manifest.model.context_tokens}")
    rng = np.random.default_rng(seed)
    texts = rng.integers(0, manifest.model.vocab_size, (3, length))
    original, reference = _reference_logits(model, bundle, manifest, texts)
    replay = _Replay(bundle, manifest, name, length)
    checks = []
    tolerance = TOLERANCE[manifest.model.dtype]
    if manifest.model.quantization.endswith(Activations.ROW_I8):
        tolerance = ROUNDED_TOLERANCE[manifest.model.dtype]
    if original is not reference:
        checks.append(_compare(DISTANCE, reference, original, math.inf))

    def check(label: str, got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
        checks.append(_compare(label, np.stack(got), np.stack(wanted), tolerance))

    half = length // 2
    pages = [1 + np.arange(replay.pages_each) + row * replay.pages_each for row in range(3)]
    check("prefill whole", [replay.prefill(texts[0], 0, pages[0])], [reference[0, -1]])
    first, step = manifest.page_tokens // 2 + 1, max(2, manifest.page_tokens - 3)
    got, wanted, position = [], [], 0
    for size in [first, *([step] * length)]:
        end = min(position + size, half)
        if position >= end:
            break
        got.append(replay.prefill(texts[1, position:end], position, pages[1]))
        wanted.append(reference[1, end - 1])
        position = end
    check("prefill in chunks", got, wanted)
    got = [replay.decode([(texts[1, at], at, pages[1])])[0] for at in range(half, length)]
    check("decode over page borders", got, [reference[1, at] for at in range(half, length)])
    starts = [3, half, length - 4]
    for row, start in enumerate(starts):
        replay.prefill(texts[row, :start], 0, pages[row])
    got, wanted = [], []
    for offset in range(3):
        rows = [(texts[row, start + offset], start + offset, pages[row]) for row, start in enumerate(starts)]
        got += replay.decode(rows)
        wanted += [reference[row, start + offset] for row, start in enumerate(starts)]
    check("batch of different lengths", got, wanted)
    return checks


def _check_model(model: Path, manifest: Manifest) -> None:
    """Refuses what is no model, or plainly another one than that of the bundle.

    Raises:
        ModelError: Saying what is missing or different.
    """
    if not model.is_dir():
        raise ModelError(f"no folder at {model}; give the folder of the model that the bundle was made from")
    checkpoint = open_checkpoint(str(model))
    found = (checkpoint.config.model_type, checkpoint.vocab_size)
    wanted = (manifest.model.model_type, manifest.model.vocab_size)
    if found != wanted:
        raise ModelError(
            f"{model}: a {found[0]} model with a vocabulary of {found[1]} tokens, but the bundle was made from a "
            f"{wanted[0]} model with one of {wanted[1]}; give the folder of the model that the bundle was made from"
        )


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keeps transformers from drawing on the terminal; what the process has chosen is as before afterwards."""
    were_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_enabled:
            logging.enable_progress_bar()


def _compare(label: str, got: np.ndarray, wanted: np.ndarray, tolerance: float) -> Check:
    return Check(
        name=label,
        error=float(np.abs(got - wanted).max() / np.abs(wanted).max()),
        same_argmax=float((got.argmax(-1) == wanted.argmax(-1)).mean()),
        tolerance=tolerance,
    )


def _reference_logits(
    model: Path, bundle: Path, manifest: Manifest, texts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[rows, tokens, vocab]` of whole texts, in f32: of the model, and of the weights as they are stored."""
    try:
        with _no_progress_bars():
            reference = AutoModelForCausalLM.from_pretrained(
                model, dtype=TORCH_DTYPES[manifest.model.dtype], attn_implementation="eager", local_files_only=True
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"{model}: transformers cannot load this model: {reason}") from error
    reference = reference.eval().float()
    original = _logits(reference, texts)
    if manifest.model.quantization == "none":
        return original, original
    load_stored_weights(reference, bundle, manifest)
    return original, _logits(reference, texts)


def _logits(model: Any, texts: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        logits: np.ndarray = model(input_ids=torch.from_numpy(texts), use_cache=False).logits.float().numpy()
    return logits


class _Replay:
    """Feeds a program given tokens and hands back the logits of every call."""

    def __init__(self, bundle: Path, manifest: Manifest, target: str, num_tokens: int) -> None:
        points = manifest.targets[target].entry_points
        self._chunks = sorted((point.tokens, point.name) for point in points if point.kind == "prefill")
        self._batches = sorted((point.batch, point.name) for point in points if point.kind == "decode")
        self._program = Program(bundle, manifest, target)
        self._page_tokens = manifest.page_tokens
        self.pages_each = -(-num_tokens // manifest.page_tokens)
        self._pools: list[Any] = self._program.make_pools(manifest, 1 + 3 * self.pages_each)

    def prefill(self, tokens: np.ndarray, start: int, pages: np.ndarray) -> np.ndarray:
        """Logits after the last of `tokens`, which begin at position `start`."""
        position, row = 0, np.zeros(0)
        while position < len(tokens):
            left = len(tokens) - position
            size, name = next((item for item in self._chunks if item[0] >= left), self._chunks[-1])
            count = min(size, left)
            padded = np.zeros((1, size), np.int64)
            padded[0, :count] = tokens[position : position + count]
            width = -(-(start + position + count) // self._page_tokens)
            row = self._call(name, padded, [start + position], [count], pages[None, :width])[0]
            position += count
        return row

    def decode(self, rows: Sequence[tuple[int, int, np.ndarray]]) -> list[np.ndarray]:
        """Logits of each row `(token, position, pages)`."""
        result: list[np.ndarray] = []
        largest = self._batches[-1][0]
        for begin in range(0, len(rows), largest):
            part = rows[begin : begin + largest]
            batch, name = next(item for item in self._batches if item[0] >= len(part))
            width = -(-(1 + max(position for _, position, _ in part)) // self._page_tokens)
            tokens, table = np.zeros((batch, 1), np.int64), np.zeros((batch, width), np.int32)
            start, valid = [0] * batch, [0] * batch
            # Rows are placed at the end, so that unused rows come first: a row must not depend on its neighbours.
            for index, (token, position, pages) in enumerate(part, start=batch - len(part)):
                tokens[index, 0], start[index], valid[index], table[index] = token, position, 1, pages[:width]
            result += list(self._call(name, tokens, start, valid, table)[batch - len(part) :])
        return result

    def _call(self, name: str, tokens: np.ndarray, start: list[int], valid: list[int], table: np.ndarray) -> np.ndarray:
        _, logits, self._pools = self._program.call(
            name,
            tokens,
            np.array(start, np.int64),
            np.array(valid, np.int64),
            np.ascontiguousarray(table, np.int32),
            self._pools,
        )
        return self._program.read(logits).copy()
