"""Logits that transformers computes in f32 for whole texts, without a cache: nothing of ours takes part in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ModelError
from amdnfs_targets.registry import TARGETS
from amdnfs_targets.target import Fp8Format
from transformers import AutoModelForCausalLM
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import logging

from amdnfs_compile.frontend.checkpoint import open_checkpoint
from amdnfs_compile.frontend.huggingface import TORCH_DTYPES
from amdnfs_compile.quantize.reference import load_stored_weights

_ROUNDED_CACHE = "amdnfs_rounded_cache"
_FP8 = {Fp8Format.E4M3FN: (torch.float8_e4m3fn, 448.0), Fp8Format.E4M3FNUZ: (torch.float8_e4m3fnuz, 240.0)}


def check_model(model: Path, manifest: Manifest) -> None:
    """Refuses what is no model, or plainly another one than that of the bundle.

    Raises:
        ModelError: Saying what is missing or different.
    """
    if not model.is_dir():
        raise ModelError(f"no folder at {model}; give the folder of the model that the bundle was made from")
    checkpoint = open_checkpoint(str(model))
    found = (checkpoint.config.model_type, checkpoint.vocab_size)
    wanted = (manifest.model.model_type, manifest.model.vocab_size)
    remedy = "give the folder of the model that the bundle was made from"
    if found != wanted:
        raise ModelError(
            f"{model}: a {found[0]} model with a vocabulary of {found[1]} tokens, but the bundle was made from a "
            f"{wanted[0]} model with one of {wanted[1]}; {remedy}"
        )
    if checkpoint.architecture != manifest.model.architecture:
        raise ModelError(
            f"{model}: a {checkpoint.architecture}, but the bundle was made from a {manifest.model.architecture}; "
            f"{remedy}"
        )


def reference_logits(
    model: Path, bundle: Path, manifest: Manifest, texts: npt.NDArray[np.int64], target: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Logits `[texts, tokens, vocab]` of whole texts: of the model, and of it as the bundle stores weights and cache.

    Args:
        model: Its folder.
        bundle: The bundle.
        manifest: Its manifest.
        texts: Token ids `[texts, tokens]`.
        target: Name of the target whose flavour of fp8 the cache has.

    Raises:
        ModelError: If transformers cannot load the model, or its weights are not those that the bundle stores.
    """
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
    if manifest.model.quantization == "none" and manifest.cache_dtype != "fp8":
        return original, original
    if manifest.model.quantization != "none":
        try:
            load_stored_weights(reference, bundle, manifest)
        except ModelError as error:
            raise ModelError(f"{model}: {error}") from error
    if manifest.cache_dtype == "fp8":
        _round_cache(reference, TARGETS[target].fp8_format or Fp8Format.E4M3FN)
    return original, _logits(reference, texts)


def _round_cache(model: Any, fp8: Fp8Format) -> None:
    """Makes a model round keys and values to fp8, with torch's own conversion, before its own attention reads them."""
    kind, largest = _FP8[fp8]

    def rounded(values: torch.Tensor) -> torch.Tensor:
        return values.clamp(-largest, largest).to(kind).to(values.dtype)

    def attend(
        module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
    ) -> Any:
        eager = sys.modules[type(module).__module__].eager_attention_forward
        return eager(module, query, rounded(key), rounded(value), mask, **options)

    ALL_ATTENTION_FUNCTIONS.register(_ROUNDED_CACHE, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(_ROUNDED_CACHE, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    model.set_attn_implementation(_ROUNDED_CACHE)


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


def _logits(model: Any, texts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        logits: npt.NDArray[np.float32] = (
            model(input_ids=torch.from_numpy(texts), use_cache=False).logits.float().numpy()
        )
    return logits
