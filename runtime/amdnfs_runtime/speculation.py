"""Guesses the next tokens of a text from the text itself: what followed the same tokens before may follow again.

A step then checks several tokens at the cost of reading the weights once. Guesses never change a text: a token is taken
only if it is the one that the request would have chosen there by itself, with its own random number, so greedy and
seeded texts are what they are without guesses. (A program that checks guesses may round otherwise than one that does
not; two tokens that are equally likely but for that can then change places.)

Source: Saxena, "Prompt Lookup Decoding" (2023), for the idea.
"""

from __future__ import annotations

_LENGTHS = (3, 2)
"""Tokens that must be the same, longest first. One alone says little."""
_LONGEST_PAUSE = 32


class PromptLookup:
    """Guesses for one request.

    >>> PromptLookup([1, 2, 3, 4, 1, 2, 3]).guess(2)
    [4, 1]
    """

    def __init__(self, tokens: list[int]) -> None:
        """Starts with a prompt.

        Args:
            tokens: Prompt and text; the list itself, which grows.
        """
        self._tokens = tokens
        self._num_known = 0
        self._following: tuple[dict[tuple[int, ...], int], ...] = tuple({} for _ in _LENGTHS)
        self._pause = self._num_skipped = 0

    def guess(self, most: int) -> list[int]:
        """Tokens that may come next: `most`, or none if nothing of the kind was seen or guesses were wrong lately."""
        if most < 1:
            return []
        self._learn()
        if self._num_skipped < self._pause:
            self._num_skipped += 1
            return []
        tokens = self._tokens
        for length, following in zip(_LENGTHS, self._following, strict=True):
            begin = following.get(tuple(tokens[-length:]))
            if begin is not None:
                period = len(tokens) - begin  # a text that repeats itself goes on beyond its end
                return [tokens[begin + index % period] for index in range(most)]
        return []

    def told(self, num_right: int) -> None:
        """Notes how many tokens of the last guess were right. After one that was all wrong the next ones wait."""
        self._num_skipped = 0
        self._pause = 0 if num_right else min(_LONGEST_PAUSE, 2 * self._pause + 1)

    def _learn(self) -> None:
        """Notes what followed what, up to but without the last token, which nothing follows yet."""
        tokens = self._tokens
        for end in range(self._num_known, len(tokens)):
            for length, following in zip(_LENGTHS, self._following, strict=True):
                if end >= length:
                    following[tuple(tokens[end - length : end])] = end
        self._num_known = len(tokens)
