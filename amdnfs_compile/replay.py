"""What a comparison feeds to a program: prefill whole and in chunks, decode, reuse of pages, a batch, guessed tokens.

A replay is the same for every program of a bundle, so that two programs can be compared with each other, call by call.
It knows nothing of references and tolerances; see `verify.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.execution import Steps

NUM_TEXTS = 4
"""Texts of a replay."""
IntArray = npt.NDArray[np.int64]
PageArray = npt.NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What a program gave for one way of using it."""

    name: str
    """The way, e.g. `prefill whole`."""
    logits: npt.NDArray[np.float32]
    """`[rows, vocab]`."""
    rows: tuple[tuple[int, int], ...]
    """Of each row its text and the position of its last token."""


def default_tokens(manifest: Manifest) -> int:
    """Length of a text if none is named: two pages and a half."""
    return 2 * manifest.page_tokens + manifest.page_tokens // 2


def make_texts(manifest: Manifest, num_tokens: int, seed: int) -> IntArray:
    """Random texts `[NUM_TEXTS, num_tokens]`; the last begins like the second, with whole pages.

    Args:
        manifest: Of the bundle.
        num_tokens: Length of each.
        seed: Of the random numbers.
    """
    texts = np.random.default_rng(seed).integers(0, manifest.model.vocab_size, (NUM_TEXTS, num_tokens))
    shared = _shared_tokens(manifest.page_tokens, num_tokens)
    texts[3, :shared] = texts[1, :shared]
    return texts


def _shared_tokens(page_tokens: int, num_tokens: int) -> int:
    """Tokens of whole pages that two texts share: as much as leaves one token, and at most half of a text or a page."""
    half = max(page_tokens, num_tokens // 2 // page_tokens * page_tokens)
    return half if half < num_tokens else 0


def num_checked_tokens(manifest: Manifest, target: str) -> int:
    """Tokens that a target's programs for guesses check for each request; 0 if it has none."""
    points = manifest.targets[target].entry_points
    return max((point.tokens for point in points if point.kind == "verify"), default=0)


def replay(
    steps: Steps, manifest: Manifest, target: str, texts: IntArray, *, one_by_one: int | None = None
) -> Iterator[Observation]:
    """Uses a program in every way that serving does.

    Args:
        steps: The program, with `num_pages(...)` pages.
        manifest: Of the bundle.
        target: Whose entry points the program has.
        texts: From `make_texts`.
        one_by_one: Decode the tokens that another program checks as guesses, so many a request, one by one, instead of
            using this one's programs for guesses; 0 for none.

    Raises:
        ArtifactError: If the device fails.
    """
    player = _Player(steps, manifest, target, texts)
    for way in (player.whole, player.chunks, player.decode_on, player.reuse, player.batch):
        found = way()
        if found is not None:
            yield found
    if one_by_one is None:
        yield from player.guesses()
    elif one_by_one:
        yield player.guesses_one_by_one(one_by_one)


def num_pages(manifest: Manifest, num_tokens: int) -> int:
    """Pages that a replay needs, the null page included."""
    return 1 + NUM_TEXTS * -(-num_tokens // manifest.page_tokens)


class _Player:
    """Plays texts; every text has pages of its own, but for those it shares."""

    def __init__(self, steps: Steps, manifest: Manifest, target: str, texts: IntArray) -> None:
        points = manifest.targets[target].entry_points
        self._chunks = sorted((point.tokens, point.name) for point in points if point.kind == "prefill")
        self._batches = sorted((point.batch, point.name) for point in points if point.kind == "decode")
        self._checks = sorted((point.batch, point.tokens, point.name) for point in points if point.kind == "verify")
        self._steps, self._texts, self._page_tokens = steps, texts, manifest.page_tokens
        self._length = texts.shape[1]
        each = -(-self._length // self._page_tokens)
        self._pages = [1 + row * each + np.arange(each, dtype=np.int32) for row in range(NUM_TEXTS)]

    def whole(self) -> Observation:
        """The first text in one go."""
        return _observe("prefill whole", [(0, self._length - 1)], [self._prefill(0, 0, self._length)])

    def chunks(self) -> Observation:
        """The first half of the second text, in chunks whose borders are not those of pages."""
        first, step = self._page_tokens // 2 + 1, max(2, self._page_tokens - 3)
        borders = [0, *range(first, self._length // 2, step), self._length // 2]
        spans = [(begin, end) for begin, end in pairwise(borders) if begin < end]
        logits = [self._prefill(1, begin, end) for begin, end in spans]
        return _observe("prefill in chunks", [(1, end - 1) for _, end in spans], logits)

    def decode_on(self) -> Observation:
        """The rest of the second text, token by token."""
        rows = [(1, at) for at in range(self._length // 2, self._length)]
        return _observe("decode over page borders", rows, [self._decode([row])[0] for row in rows])

    def reuse(self) -> Observation | None:
        """The last text on the first pages of the second, which must not suffer; None if the texts are too short."""
        shared = _shared_tokens(self._page_tokens, self._length)
        if not shared:
            return None
        count = shared // self._page_tokens
        self._pages[3][:count] = self._pages[1][:count]
        last = self._length - 1
        logits = [self._prefill(3, shared, self._length), *self._decode([(1, last)]), *self._decode([(3, last)])]
        return _observe("reuse of a prefix's pages", [(3, last), (1, last), (3, last)], logits)

    def batch(self) -> Observation:
        """Three steps of three texts of different lengths."""
        starts = [3, self._length // 2, self._length - 4]
        for text, start in enumerate(starts):
            self._prefill(text, 0, start)
        steps = [[(text, start + offset) for text, start in enumerate(starts)] for offset in range(3)]
        logits = [row for rows in steps for row in self._decode(rows)]
        return _observe("batch of different lengths", [row for rows in steps for row in rows], logits)

    def guesses(self) -> Iterator[Observation]:
        """For each program for guesses: the next tokens of three texts at once, and the token after these."""
        for batch, size, name in self._checks:
            spans = self._spans(size)
            rows, logits = [], []
            for begin in range(0, len(spans), batch):
                part = spans[begin : begin + batch]
                for text, start, _ in part:
                    self._forget_after(text, start)
                found = self._check(name, batch, size, part)
                for (text, start, count), checked in zip(part, found, strict=True):
                    rows += _rows(text, start, count)
                    logits += [*checked[:count], *self._decode([(text, start + count)])]
            yield _observe(f"guessed tokens, {name}", rows, logits)

    def guesses_one_by_one(self, size: int) -> Observation:
        """The same tokens, decoded one by one."""
        rows: list[tuple[int, int]] = []
        logits: list[npt.NDArray[np.float32]] = []
        for text, start, count in self._spans(size):
            self._forget_after(text, start)
            rows += _rows(text, start, count)
            logits += [self._decode([row])[0] for row in _rows(text, start, count)]
        return _observe("guessed tokens, one by one", rows, logits)

    def _spans(self, size: int) -> list[tuple[int, int, int]]:
        """Text, first position and number of tokens to check: over a page border, fewer than all, and at the end."""
        last = self._length - size - 1
        starts = [self._page_tokens - size // 2 - 1, self._length // 2, last]
        counts = [size, max(1, size - 1), size]
        return [(text, max(1, min(start, last)), counts[text]) for text, start in enumerate(starts)]

    def _forget_after(self, text: int, start: int) -> None:
        """Fills the text's pages with another text, then with its own up to `start`: what lies there is not used."""
        self._prefill(text, 0, self._length, of=(text + 1) % NUM_TEXTS)
        self._prefill(text, 0, start)

    def _check(
        self, name: str, batch: int, size: int, spans: Sequence[tuple[int, int, int]]
    ) -> npt.NDArray[np.float32]:
        """Logits `[spans, size, vocab]` of a program for guesses; unused rows come first, as in `_decode`."""
        width = -(-max(start + count for _, start, count in spans) // self._page_tokens)
        tokens, table = np.zeros((batch, size), np.int64), np.zeros((batch, width), np.int32)
        begins, valid = [0] * batch, [0] * batch
        for index, (text, start, count) in enumerate(spans, start=batch - len(spans)):
            tokens[index, :count] = self._texts[text, start : start + count]
            table[index], begins[index], valid[index] = self._pages[text][:width], start, count
        return self._call(name, tokens, begins, valid, table)[batch - len(spans) :]

    def _prefill(self, text: int, begin: int, end: int, of: int | None = None) -> npt.NDArray[np.float32]:
        """Logits after token `end - 1` on the pages of `text`; the tokens before `begin` are in the cache.

        Args:
            text: Whose pages.
            begin: First token.
            end: Behind the last token.
            of: Text whose tokens are taken; by default the same.
        """
        source = text if of is None else of
        row = np.zeros(0, np.float32)
        while begin < end:
            size, name = next((item for item in self._chunks if item[0] >= end - begin), self._chunks[-1])
            count = min(size, end - begin)
            tokens = np.zeros((1, size), np.int64)
            tokens[0, :count] = self._texts[source, begin : begin + count]
            width = -(-(begin + count) // self._page_tokens)
            row = self._call(name, tokens, [begin], [count], self._pages[text][None, :width])[0]
            begin += count
        return row

    def _decode(self, rows: Sequence[tuple[int, int]]) -> list[npt.NDArray[np.float32]]:
        """Logits of each row `(text, position)`."""
        result: list[npt.NDArray[np.float32]] = []
        largest = self._batches[-1][0]
        for begin in range(0, len(rows), largest):
            part = rows[begin : begin + largest]
            batch, name = next(item for item in self._batches if item[0] >= len(part))
            width = -(-(1 + max(position for _, position in part)) // self._page_tokens)
            tokens, table = np.zeros((batch, 1), np.int64), np.zeros((batch, width), np.int32)
            start, valid = [0] * batch, [0] * batch
            # Rows are placed at the end, so that unused rows come first: a row must not depend on its neighbours.
            for index, (text, position) in enumerate(part, start=batch - len(part)):
                tokens[index, 0], table[index] = self._texts[text, position], self._pages[text][:width]
                start[index], valid[index] = position, 1
            result += list(self._call(name, tokens, start, valid, table)[batch - len(part) :])
        return result

    def _call(
        self, name: str, tokens: IntArray, start: list[int], valid: list[int], table: PageArray
    ) -> npt.NDArray[np.float32]:
        arguments = tokens, np.array(start, np.int64), np.array(valid, np.int64), np.ascontiguousarray(table, np.int32)
        return self._steps.step(name, arguments)[1]


def _rows(text: int, start: int, count: int) -> list[tuple[int, int]]:
    """The checked tokens of a text, and the one after them, which finds what the check left in the cache."""
    return [(text, start + offset) for offset in range(count + 1)]


def _observe(name: str, rows: Sequence[tuple[int, int]], logits: Sequence[npt.NDArray[np.float32]]) -> Observation:
    return Observation(name=name, logits=np.stack(logits), rows=tuple(rows))
