"""From what a user gives as a prompt to checked token ids."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ArtifactError, CapacityError, UsageError


def load_tokenizer(folder: Path) -> Tokenizer:
    """Reads the tokenizer of the bundle in `folder`.

    Raises:
        ArtifactError: If it cannot be read.
    """
    path = folder / "tokenizer" / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{path}: the tokenizer cannot be read: {error}") from error
    # Some files carry the settings of a training run: a prompt must be neither cut nor filled up in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def encode(tokenizer: Tokenizer, manifest: Manifest, prompt: str) -> list[int]:
    """Token ids of `prompt`, with the begin token if the tokenizer adds one.

    Raises:
        UsageError: If the prompt gives no token at all and the model has no begin token, or is not Unicode.
    """
    try:
        ids: list[int] = tokenizer.encode(prompt).ids
    except TypeError as error:  # what the library makes of lone surrogates
        raise UsageError(f"the prompt is not valid Unicode text: {prompt[:40]!a}") from error
    if not ids and manifest.bos_token_id is not None:
        return [manifest.bos_token_id]
    if not ids:
        raise UsageError("the prompt is empty and the model has no begin token; give at least one character")
    return ids


def check_prompt(prompt: Any, manifest: Manifest) -> list[int]:
    """Token ids as a list, which is not empty, known to the model and shorter than its context.

    Raises:
        CapacityError: If they leave no room for a token.
        UsageError: If they are no token ids.
    """
    try:
        ids = [operator.index(token) for token in prompt]
    except TypeError as error:
        raise UsageError(f"a prompt must be a text or a list of token ids, not {prompt!r:.80}") from error
    vocab, context = manifest.model.vocab_size, manifest.model.context_tokens
    if not ids or min(ids) < 0 or max(ids) >= vocab:
        bad = [token for token in ids if not 0 <= token < vocab]
        raise UsageError(f"prompt token ids must be from 0 to {vocab - 1}, and at least one; got {bad[:3] or 'none'}")
    if len(ids) >= context:
        raise CapacityError(
            f"the prompt has {len(ids)} tokens, but the context is {context} tokens and one must be left to "
            "generate; shorten the prompt, or compile with a longer --context if the model allows it"
        )
    return ids


def check_vocabulary(ids: Sequence[int], name: str, manifest: Manifest) -> None:
    """Checks that the token ids of an option are known to the model.

    Raises:
        UsageError: If one is not.
    """
    vocab = manifest.model.vocab_size
    bad = [token for token in ids if token >= vocab]
    if bad:
        raise UsageError(f"{name} names token {bad[0]}, but the vocabulary has {vocab} tokens (0 to {vocab - 1})")
