"""From what a user gives as a prompt to checked token ids."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ArtifactError, CapacityError, UsageError

_NUM_BYTES = 256
_GENTLE_NORMALIZERS = frozenset({"NFC", "Prepend"})
_GENTLE_SPLITTERS = frozenset({"ByteLevel", "Metaspace", "Digits"})
_MOST_COMPOSED = 4  # characters that NFC makes one of. Source: Unicode, UAX 15, table of the maximum expansion factors


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


def encode_text(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool = True) -> list[int]:
    """Token ids of `text`.

    Other threads run meanwhile: the library's `encode` keeps the interpreter's lock, its function for batches does not.

    Raises:
        TypeError: If it is not Unicode.
    """
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    ids: list[int] = encoding.ids
    return ids


def most_token_chars(tokenizer: Tokenizer) -> int | None:
    """Most characters of a text that one token can stand for, never too few.

    None if the tokenizer may drop characters, or merge any number of them, such as unknown ones: then a text of any
    length can be few tokens.
    """
    parts = json.loads(tokenizer.to_str())
    model, added = parts["model"], parts.get("added_tokens") or []
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    normalizers, splitters = list(_leaves(parts.get("normalizer"))), list(_leaves(parts.get("pre_tokenizer")))
    is_gentle = (
        model.get("type") == "BPE"
        and all(part["type"] in _GENTLE_NORMALIZERS or _keeps_length(part) for part in normalizers)
        and all(part["type"] in _GENTLE_SPLITTERS or part.get("behavior", "Removed") != "Removed" for part in splitters)
        and not any(item.get("lstrip") or item.get("rstrip") for item in added)
    )
    # Without a token for each byte, characters are dropped or become unknown ones.
    if any(part["type"] == "ByteLevel" for part in splitters):
        pieces = {piece for piece in vocab if len(piece) == 1}
        has_bytes = pieces.issuperset(ByteLevel.alphabet())
    else:
        has_bytes = bool(model.get("byte_fallback")) and all(f"<0x{byte:02X}>" in vocab for byte in range(_NUM_BYTES))
    if not (is_gentle and has_bytes and vocab):
        return None
    return max(map(len, vocab)) * (_MOST_COMPOSED if normalizers else 1)


def _leaves(part: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """The parts that a normalizer or pre-tokenizer is made of."""
    if part is None:
        return
    inner = part.get("normalizers", part.get("pretokenizers")) if part["type"] == "Sequence" else None
    if inner is None:
        yield part
        return
    for item in inner:
        yield from _leaves(item)


def _keeps_length(part: dict[str, Any]) -> bool:
    """Whether a normalizer replaces a text by one that is no shorter."""
    pattern = part.get("pattern", {}).get("String")
    return part["type"] == "Replace" and pattern is not None and len(part["content"]) >= len(pattern)


def encode(tokenizer: Tokenizer, manifest: Manifest, prompt: str) -> list[int]:
    """Token ids of `prompt`, with the begin token if the tokenizer adds one.

    Raises:
        UsageError: If the prompt gives no token at all and the model has no begin token, or is not Unicode.
    """
    try:
        ids = encode_text(tokenizer, prompt)
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
