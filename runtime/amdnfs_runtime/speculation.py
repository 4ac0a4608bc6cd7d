"""Guesses of the next tokens of texts: who is asked for them, and guesses from the text itself.

    scheduler -- Ask --> Guesser --> NgramSource   what followed the same tokens before may follow again
                                 --> DraftSource   what a small model writes; only where the others know nothing

A step then checks several tokens at the cost of reading the weights once. Guesses never change a text: a token is taken
only if it is the one that the request would have chosen there by itself, with its own random number, so greedy and
seeded texts are what they are without guesses. (A program that checks guesses may round otherwise than one that does
not; two tokens that are equally likely but for that can then change places.) The draft is in `drafts`.

Source: Saxena, "Prompt Lookup Decoding" (2023), for the idea.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

_LENGTHS = (3, 2)
"""Tokens that must be the same, longest first. One alone says little."""
_LONGEST_PAUSE = 32

NGRAM = "ngram"
"""Name of the source that looks into the text itself."""
DRAFT = "draft"
"""Name of the source that asks a small model."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that could use guesses."""

    number: int
    """Which request; the same in every step."""
    tokens: list[int]
    """Prompt and text; the list itself, which grows and does not change otherwise."""
    most: int
    """Most tokens to guess; at least 1."""


class GuessSource(Protocol):
    """Somebody who guesses. What it keeps of a request is its own; the texts do not depend on it."""

    @property
    def name(self) -> str:
        """What counters call it."""

    def guess(self, asks: Sequence[Ask]) -> list[list[int]]:
        """Guessed tokens of each, up to `most`; none where it has no idea or no room."""

    def told(self, number: int, num_right: int) -> None:
        """How many tokens of the last guess for a request were right."""

    def release(self, number: int) -> None:
        """A request waits: what it holds of the device goes back. Nothing happens if it is not known."""

    def forget(self, number: int) -> None:
        """A request has ended. Nothing happens if it is not known."""


@dataclass(kw_only=True, slots=True)
class GuessCounts:
    """What became of the guesses of one source."""

    num_guessed: int = 0
    """Guessed tokens that calls checked."""
    num_right: int = 0
    """Those of them that were right."""


class Guesser:
    """Asks the sources one after the other, each for the requests that have no guess yet."""

    def __init__(self, sources: Sequence[GuessSource]) -> None:
        """Begins with nothing known.

        Args:
            sources: Who guesses; the cheapest first.
        """
        self._sources = tuple(sources)
        self._counts = {source.name: GuessCounts() for source in sources}
        self._asked: dict[int, GuessSource] = {}

    @property
    def counts(self) -> Mapping[str, GuessCounts]:
        """Sums since the start by name of the source; a copy."""
        return {name: dataclasses.replace(counts) for name, counts in self._counts.items()}

    def guess(self, asks: Sequence[Ask]) -> dict[int, list[int]]:
        """Guessed tokens by number of the request; those without a guess are not there."""
        guesses: dict[int, list[int]] = {}
        for source in self._sources:
            open_asks = [ask for ask in asks if ask.number not in guesses]
            if not open_asks:
                break
            for ask, tokens in zip(open_asks, source.guess(open_asks), strict=True):
                if tokens:
                    guesses[ask.number] = tokens
                    self._asked[ask.number] = source
        return guesses

    def told(self, number: int, num_guessed: int, num_right: int) -> None:
        """What came out of the last guess for a request."""
        source = self._asked[number]
        source.told(number, num_right)
        counts = self._counts[source.name]
        counts.num_guessed += num_guessed
        counts.num_right += num_right

    def release(self, number: int) -> None:
        """A request waits."""
        for source in self._sources:
            source.release(number)

    def forget(self, number: int) -> None:
        """A request has ended."""
        self._asked.pop(number, None)
        for source in self._sources:
            source.forget(number)


class Patience:
    """When to stop guessing for a while, and when to try again.

    >>> patience = Patience(most_wrong=1)
    >>> patience.told(0)
    >>> patience.is_pausing(), patience.is_pausing()
    (True, False)
    """

    def __init__(self, most_wrong: int) -> None:
        """Begins without a pause.

        Args:
            most_wrong: Guesses in a row without a right token after which the next ones wait, ever longer.
        """
        self._most_wrong = most_wrong
        self._num_wrong = self._pause = self._num_skipped = 0

    def is_pausing(self) -> bool:
        """Whether the next guess is left out; counts it as left out."""
        if self._num_skipped < self._pause:
            self._num_skipped += 1
            return True
        return False

    def told(self, num_right: int) -> None:
        """Notes how many tokens of the last guess were right."""
        self._num_skipped = 0
        self._num_wrong = 0 if num_right else self._num_wrong + 1
        if self._num_wrong < self._most_wrong:
            self._pause = 0
        else:
            self._pause = min(_LONGEST_PAUSE, 2 * self._pause + 1)


class NgramSource:
    """Prompt lookup for all requests."""

    name = NGRAM

    def __init__(self) -> None:
        """Knows no request yet."""
        self._lookups: dict[int, PromptLookup] = {}

    def guess(self, asks: Sequence[Ask]) -> list[list[int]]:
        """See `GuessSource.guess`."""
        for ask in asks:
            if ask.number not in self._lookups:
                self._lookups[ask.number] = PromptLookup(ask.tokens)
        return [self._lookups[ask.number].guess(ask.most) for ask in asks]

    def told(self, number: int, num_right: int) -> None:
        """See `GuessSource.told`."""
        self._lookups[number].told(num_right)

    def release(self, number: int) -> None:
        """Holds nothing of the device."""

    def forget(self, number: int) -> None:
        """See `GuessSource.forget`."""
        self._lookups.pop(number, None)


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
        self._patience = Patience(most_wrong=1)

    def guess(self, most: int) -> list[int]:
        """Tokens that may come next: `most`, or none if nothing of the kind was seen or guesses were wrong lately."""
        if most < 1:
            return []
        self._learn()
        if self._patience.is_pausing():
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
        self._patience.told(num_right)

    def _learn(self) -> None:
        """Notes what followed what, up to but without the last token, which nothing follows yet."""
        tokens = self._tokens
        for end in range(self._num_known, len(tokens)):
            for length, following in zip(_LENGTHS, self._following, strict=True):
                if end >= length:
                    following[tuple(tokens[end - length : end])] = end
        self._num_known = len(tokens)
