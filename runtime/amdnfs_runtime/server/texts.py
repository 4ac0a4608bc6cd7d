"""The text and the bytes of single tokens, and logprobs in OpenAI's two forms.

The text of an answer is not made here: a character can span tokens (see `amdnfs_runtime.text`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Tokenizer

from amdnfs_runtime.request import TokenLogprob

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_ANCHOR_TEXT = "a"
_LEAST_LOGPROB = -9999.0
"""In place of minus infinity, which JSON does not have. Source: OpenAI's API reference, "logprob"."""


def _byte_of_char() -> dict[str, int]:
    """Which byte each character of a byte-level token stands for.

    Source: GPT-2, `encoder.py`, `bytes_to_unicode`: printable bytes stand for themselves, the others for the characters
    from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    table.update({chr(256 + index): byte for index, byte in enumerate(others)})
    return table


_BYTES = _byte_of_char()


class TokenTexts:
    """The texts of a tokenizer's tokens, each looked up once."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Looks at the tokenizer, and does not change it."""
        self._tokenizer = tokenizer
        decoder = json.loads(tokenizer.to_str()).get("decoder")
        self._is_byte_level = '"ByteLevel"' in json.dumps(decoder)
        self._added = {token: item.content for token, item in tokenizer.get_added_tokens_decoder().items()}
        # Some decoders drop a space at the begin of a text, so a token is decoded behind another.
        self._anchor = tokenizer.encode(_ANCHOR_TEXT, add_special_tokens=False).ids[-1:]
        self._num_anchor_chars = len(self._decode(self._anchor))
        self._known: dict[int, tuple[str, bytes]] = {}

    def text(self, token_id: int) -> str:
        """The token's text; a part of a character is U+FFFD."""
        return self._look_up(token_id)[0]

    def chat_logprobs(self, entries: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
        """The form of chats and responses: one object a token."""
        return [
            {
                **self._one(entry.token_id, entry.logprob),
                "top_logprobs": [self._one(token_id, logprob) for token_id, logprob in entry.top],
            }
            for entry in entries
        ]

    def completion_logprobs(self, entries: Sequence[TokenLogprob], offset: int) -> tuple[dict[str, Any], int]:
        """The form of completions: lists that go side by side.

        Args:
            entries: The tokens.
            offset: Characters before the first.

        Returns:
            The lists, and the characters up to the last.
        """
        tokens, offsets = [], []
        for entry in entries:
            tokens.append(self.text(entry.token_id))
            offsets.append(offset)
            offset += len(tokens[-1])
        lists = {
            "tokens": tokens,
            "token_logprobs": [_number(entry.logprob) for entry in entries],
            "top_logprobs": [self._likely(entry) for entry in entries],
            "text_offset": offsets,
        }
        return lists, offset

    def _likely(self, entry: TokenLogprob) -> dict[str, float]:
        """The most likely tokens by their text, and the chosen one; of tokens with one text the likeliest."""
        likely: dict[str, float] = {}
        for token_id, logprob in (*entry.top, (entry.token_id, entry.logprob)):
            likely.setdefault(self.text(token_id), _number(logprob))
        return likely

    def _one(self, token_id: int, logprob: float) -> dict[str, Any]:
        text, data = self._look_up(token_id)
        return {"token": text, "logprob": _number(logprob), "bytes": list(data)}

    def _look_up(self, token_id: int) -> tuple[str, bytes]:
        known = self._known.get(token_id)
        if known is None:
            known = self._known[token_id] = self._make(token_id)
        return known

    def _make(self, token_id: int) -> tuple[str, bytes]:
        piece = self._added.get(token_id)
        if piece is not None:
            return piece, piece.encode()
        piece = self._tokenizer.id_to_token(token_id)
        if piece is None:
            return "", b""
        data = None
        if self._is_byte_level and all(char in _BYTES for char in piece):
            data = bytes(_BYTES[char] for char in piece)
        elif match := _BYTE_TOKEN.fullmatch(piece):
            data = bytes([int(match[1], 16)])
        if data is not None:
            return data.decode("utf-8", errors="replace"), data
        text = self._decode([*self._anchor, token_id])[self._num_anchor_chars :]
        return text, text.encode()

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))


def _number(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
