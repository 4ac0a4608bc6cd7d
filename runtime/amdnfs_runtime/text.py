"""From token ids to text, piece by piece, and where a stop string ends it.

    ids -> Detokenizer -> pieces of whole characters -> StopMatcher -> pieces that may be shown

Encoding a prompt and chat templates are not this module's job.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from amdnfs_runtime.errors import UsageError

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_CONTEXT_TOKENS = 8
_CONTEXT_CHARS = 4


class Detokenizer:
    """Streaming form of `Tokenizer.decode`: the pieces of a text, joined, are what decoding all its ids at once gives.

    Only a window of the last tokens is decoded for each token, so the cost of a token does not grow with the text.

        window    [ context: already emitted | new ]
        decoded   [ num_sent characters      | piece | held back ]

    Held back are

    * a last U+FFFD: it may stand for the first bytes of a character whose other bytes are still to come;
    * byte tokens such as `<0x9F>` of a tokenizer with byte fallback, until a token that is none: such a decoder gives
      their characters when all bytes of a run are valid UTF-8, else one U+FFFD a byte, so no character of the run is
      certain before its end.

    Exact for decoders whose text for a list of ids does not depend on later ids, apart from the two cases above:
    ByteLevel, Metaspace, WordPiece, BPEDecoder (with its suffix at the end of tokens only), none, and sequences of
    Replace (of one character), ByteFallback, Fuse and Strip. CTC is not among them.

    Source: tokenizers, `decoders/byte_fallback.rs`; Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal
    Subparts".
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True) -> None:
        """Start an empty text.

        Args:
            tokenizer: Decodes the ids; is not changed.
            skip_special_tokens: Leave special tokens out of the text, as in `Tokenizer.decode`.
        """
        self._tokenizer = tokenizer
        self._skip_special_tokens = skip_special_tokens
        added = tokenizer.get_added_tokens_decoder().values() if skip_special_tokens else ()
        self._skipped = frozenset(token.content for token in added if token.special)
        decoder = tokenizer.decoder
        self._has_byte_fallback = decoder is not None and decoder.decode(["<0x41>"]) == "A"
        self._window: list[int] = []
        self._num_sent = 0

    def push(self, token_id: int) -> str:
        """Append one token.

        Args:
            token_id: The token; ids unknown to the tokenizer have no text, as in `Tokenizer.decode`.

        Returns:
            The text that became certain with it, often empty, never a part of a character.

        Raises:
            OverflowError: The id is negative.
        """
        token = self._tokenizer.id_to_token(token_id)
        if token is None or token in self._skipped:
            return ""
        self._window.append(token_id)
        if self._has_byte_fallback and _looks_like_byte(token):
            return ""
        text = self._decode(self._window)
        num_held = int(text.endswith(_REPLACEMENT))
        piece = text[self._num_sent : len(text) - num_held]
        self._num_sent += len(piece)
        if len(self._window) >= 2 * _CONTEXT_TOKENS:
            self._shrink_window(num_held)
        return piece

    def flush(self) -> str:
        """End the text.

        Returns:
            What was held back. The next token pushed begins another text.
        """
        piece = self._decode(self._window)[self._num_sent :]
        self._window = []
        self._num_sent = 0
        return piece

    def _decode(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=self._skip_special_tokens))

    def _shrink_window(self, num_held: int) -> None:
        """Drop the oldest tokens of the window, unless too little emitted text would be left as context.

        Context may decode to other text than it did before, as only its length counts: its beginning may be inside a
        character, whose at most three bytes then decode one by one, or inside a run of byte tokens, which has ended. It
        must be long enough that no later text depends on where it begins. Tokens can be without text of their own.
        """
        context = self._window[-_CONTEXT_TOKENS:]
        num_sent = len(self._decode(context)) - num_held
        if num_sent >= _CONTEXT_CHARS:
            self._window = context
            self._num_sent = num_sent


class StopMatcher:
    """Cuts a streamed text before the earliest stop string in it.

    What may be the beginning of a stop string is held back. The result does not depend on how the text is divided into
    pieces. A stop string that is complete within text that does not count yet is passed on like any other text.

    >>> matcher = StopMatcher(("END",))
    >>> matcher.push("one E"), matcher.push("NDtwo")
    (('one ', False), ('', True))
    >>> matcher = StopMatcher(("END",))
    >>> matcher.push("END an E", counts=False), matcher.push("ND")
    (('END an ', False), ('', True))
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        """Start an empty text.

        Args:
            stops: Strings to look for; none of them empty. Without any, all text passes at once.

        Raises:
            UsageError: A stop string is empty.
        """
        if "" in stops:
            raise UsageError(f"a stop string must not be empty: {stops!r}")
        self._stops = stops
        self._held = ""
        self._num_exempt = 0  # characters of the text held within which a complete stop string does not count
        self._has_hit = False

    def push(self, text: str, *, counts: bool = True) -> tuple[str, bool]:
        """Append text.

        Args:
            text: What comes next.
            counts: Whether stop strings end the text that end in this piece.

        Returns:
            The text that is safe to emit, and whether a stop string was found. After one was found the rest of the
            text is dropped and the answer is always `("", True)`.
        """
        if not self._stops:
            return text, False
        if self._has_hit:
            return "", True
        self._held += text
        if not counts:
            self._num_exempt = len(self._held)
        hit_index = self._find_stop()
        partial_index = self._find_partial()
        # A stop that is still incomplete but begins earlier goes first: only more text can tell.
        if hit_index is None or partial_index < hit_index:
            return self._emit(partial_index), False
        return self._end(hit_index), True

    def flush(self) -> tuple[str, bool]:
        """End the text.

        Returns:
            What was held back, cut before a stop string in it, and whether one was found in the whole text.
        """
        hit_index = None if self._has_hit else self._find_stop()
        if hit_index is not None:
            return self._end(hit_index), True
        return self._emit(len(self._held)), self._has_hit

    def _find_stop(self) -> int | None:
        """Return where the earliest complete stop string that counts begins in the text held."""
        found = (self._held.find(stop, max(0, self._num_exempt - len(stop) + 1)) for stop in self._stops)
        return min((index for index in found if index >= 0), default=None)

    def _find_partial(self) -> int:
        """Return where the longest end of the text held begins that may begin a stop string; its length if none."""
        num_chars = len(self._held)
        longest = max((len(stop) for stop in self._stops), default=0)
        for index in range(max(0, num_chars - longest + 1), num_chars):
            tail = self._held[index:]
            if any(stop != tail and stop.startswith(tail) for stop in self._stops):
                return index
        return num_chars

    def _emit(self, end: int) -> str:
        piece, self._held = self._held[:end], self._held[end:]
        self._num_exempt = max(0, self._num_exempt - end)
        return piece

    def _end(self, hit_index: int) -> str:
        piece, self._held = self._held[:hit_index], ""
        self._has_hit = True
        return piece


def _looks_like_byte(token: str) -> bool:
    """Return whether a byte fallback decoder may read the token as a byte; too often is safe, it only holds longer."""
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")
