"""Guesses from a draft: a small model that writes on greedily, with programs and a KV pool of its own.

    text of a request   [ computed by the draft | new since then | guesses ... ]
    catch up                                      prefill pieces, for long ones
    decode, all requests together                        last token -> guess -> guess -> ...

The draft only follows: what was refused is overwritten, and a request without room in the draft's pool, or beyond the
draft's context, has no guesses until there is room. The two embeddings may differ in length: a text with a token that
the draft has no row for is left alone, and guesses end before a token that the model has no row for. What becomes of
guesses is not this module's job; see `engine`.

Source: Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023), for the idea.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.calls import DeviceProgram, ProgramNames, arguments_of
from amdnfs_runtime.errors import AmdnfsError, ArtifactError
from amdnfs_runtime.health import Counters, Health
from amdnfs_runtime.pages import InternalError, PagePool
from amdnfs_runtime.scheduler import Call, DecodeCall, Job, PrefillCall, VerifyCall
from amdnfs_runtime.speculation import DRAFT, Ask, Patience

_MOST_WRONG = 3
"""A draft that is right half of the time is wrong three times in a row once in eight guesses."""
_PIECES_A_STEP = 2
"""Largest prefill pieces that a step spends on texts that are behind, so that running texts wait no longer."""
_LEAST_LAG = 2
"""Tokens that decode programs catch up with: when all guesses were right, the last one and what followed it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A loaded draft."""

    program: DeviceProgram
    """The device, with the draft's weights."""
    manifest: Manifest
    """What the program expects; the tokens that it shares with the model are the same, see `draft_bundle`."""
    target_name: str
    """Which target of the manifest the program is for."""
    num_pages: int
    """Pages of the draft's own pool, the null page included; >= 2."""


class _Text(Job):
    """A request as the draft sees it: tokens that are certain, then the guesses."""

    __slots__ = ("is_foreign", "num_certain", "num_wanted", "patience", "vocab_size")

    def __init__(self, tokens: Sequence[int], pool: PagePool, vocab_size: int) -> None:
        super().__init__(tokens, pool)
        self.vocab_size = vocab_size
        self.is_foreign = max(tokens) >= vocab_size
        self.num_certain = len(self.tokens)
        self.num_wanted = 0
        self.patience = Patience(_MOST_WRONG)

    @property
    def num_missing(self) -> int:
        """Guesses that are still to be made."""
        return self.num_wanted - len(self.tokens)

    def follow(self, tokens: Sequence[int]) -> None:
        """Takes over what became certain; what was computed for other tokens does not count any more."""
        num_same = self.num_certain
        self.is_foreign |= max(tokens[num_same:], default=0) >= self.vocab_size
        for token, certain in zip(self.tokens[num_same:], tokens[num_same:], strict=False):
            if token != certain:
                break
            num_same += 1
        self.tokens[num_same:] = tokens[num_same:]
        self.num_certain = len(tokens)
        # The last token is computed in any case: its result is the first guess.
        self.num_computed = min(self.num_computed, num_same, len(tokens) - 1)

    def release(self) -> None:
        """Gives the pages back."""
        self.pages.release()
        self.num_computed = 0


class DraftSource:
    """Asks the draft, for all requests at once."""

    name = DRAFT

    def __init__(
        self, draft: Draft, vocab_size: int, health: Health, counters: Counters, clock: Callable[[], float]
    ) -> None:
        """Makes the draft's pool on the device.

        Args:
            draft: The draft.
            vocab_size: Tokens that the model can look up: the rows of its embedding.
            health: Told of calls that fail, and of the call that runs.
            counters: Where the time of the draft's calls is added.
            clock: Seconds.

        Raises:
            ArtifactError: If the draft has no prefill or no decode entry point.
            CapacityError: If the device does not hold the pool.
        """
        self._draft = draft
        self._vocab_size = vocab_size
        self._names = ProgramNames(draft.manifest.targets[draft.target_name], f"the draft's {draft.target_name}")
        self._most_lag = max(_LEAST_LAG, self._names.verify_tokens)
        self._health, self._counters, self._clock = health, counters, clock
        self._pool = PagePool(draft.num_pages, draft.manifest.page_tokens)
        self._pools = draft.program.make_pools(draft.manifest, draft.num_pages)
        self._texts: dict[int, _Text] = {}
        self._is_broken = False

    @property
    def pool(self) -> PagePool:
        """The draft's page pool."""
        return self._pool

    def guess(self, asks: Sequence[Ask]) -> list[list[int]]:
        """See `GuessSource.guess`. A draft whose device fails is not asked again: its pool is not trusted any more."""
        if self._is_broken:
            return [[] for _ in asks]
        texts = {ask.number: text for ask in asks if (text := self._prepared(ask)) is not None}
        try:
            ready = self._catch_up(list(texts.values()))
            size = self._names.decode_sizes[-1]
            for begin in range(0, len(ready), size):
                self._write(ready[begin : begin + size])
        except AmdnfsError as error:
            self._break(error)
            return [[] for _ in asks]
        return [
            texts[ask.number].tokens[texts[ask.number].num_certain :] if ask.number in texts else [] for ask in asks
        ]

    def told(self, number: int, num_right: int) -> None:
        """See `GuessSource.told`."""
        self._texts[number].patience.told(num_right)

    def release(self, number: int) -> None:
        """See `GuessSource.release`."""
        if number in self._texts:
            self._texts[number].release()

    def forget(self, number: int) -> None:
        """See `GuessSource.forget`."""
        self.release(number)
        self._texts.pop(number, None)

    def check_integrity(self) -> None:
        """Checks what must hold between steps; for tests, as it is O(pages).

        Raises:
            InternalError: A page is not exactly where it should be, or something was computed that has no page.
        """
        self._pool.check_integrity()
        held = [page for text in self._texts.values() for page in text.pages.pages]
        if len(held) != len(set(held)) or len(held) != self._pool.num_used:
            raise InternalError(f"{self._pool.num_used} pages of the draft are used, but texts hold {len(held)}")
        for number, text in self._texts.items():
            if not 0 <= text.num_computed <= min(len(text.tokens), text.pages.token_capacity):
                raise InternalError(f"text {number}: {text.num_computed} tokens in {text.pages.num_pages} pages")

    def _prepared(self, ask: Ask) -> _Text | None:
        """The text of a request, with pages for all that is to be computed; None if there are to be no guesses."""
        text = self._texts.get(ask.number)
        if text is None:
            text = _Text(ask.tokens, self._pool, self._draft.manifest.model.vocab_size)
            self._texts[ask.number] = text
        if text.patience.is_pausing():
            return None
        text.follow(ask.tokens)
        if text.is_foreign:  # such a token never leaves the text again
            text.release()
            return None
        # The last guess is never computed: it takes no place.
        num_before = text.num_certain - 1
        num_spare = self._pool.num_free
        if not text.pages.num_pages:  # one for each other text is left, or the next step would take these pages back
            num_spare -= sum(other.pages.num_pages > 0 for other in self._texts.values())
        room = text.pages.token_capacity + max(0, num_spare) * self._pool.page_tokens
        most = min(ask.most, self._draft.manifest.model.context_tokens - num_before, room - num_before)
        if most < 1:
            text.release()
            return None
        text.pages.ensure(num_before + most)
        text.num_wanted = text.num_certain + most
        return text

    def _catch_up(self, texts: Sequence[_Text]) -> list[_Text]:
        """Computes texts that are far behind, as far as a step allows; those that are not behind any more."""
        sizes = self._names.prefill_sizes
        budget = _PIECES_A_STEP * sizes[-1]
        for text in texts:
            if text.num_left <= self._most_lag:
                continue
            while (num_behind := text.num_left - 1) > 0:
                size = next((size for size in sizes if size >= num_behind), sizes[-1])
                if size > budget:
                    break
                budget -= size
                call = PrefillCall(text, text.num_computed, min(size, num_behind), size)
                self._call(call)
                text.num_computed += call.count
        return [text for text in texts if text.num_left <= self._most_lag]

    def _write(self, texts: Sequence[_Text]) -> None:
        """Writes on until each text has its guesses; texts that are a little behind catch up in the same calls."""
        while rows := tuple(text for text in texts if text.num_missing):
            call, counts = self._next_call(rows)
            choices = self._call(call).reshape(call.size, -1)
            for row, (text, count) in enumerate(zip(rows, counts, strict=True)):
                text.num_computed += count
                if not text.num_left:
                    self._append(text, int(choices[row, count - 1]))

    def _next_call(self, rows: tuple[_Text, ...]) -> tuple[DecodeCall | VerifyCall, list[int]]:
        """What computes the next token of each text, or more of texts that are behind; and how many of each."""
        most = self._names.verify_tokens
        counts = [min(text.num_left, most) for text in rows]
        if max(counts) <= 1:  # nobody is behind, or the draft has no programs for several tokens
            return DecodeCall(rows, _least(self._names.decode_sizes, len(rows))), [1] * len(rows)
        known = tuple(
            tuple(text.tokens[text.num_computed + 1 : text.num_computed + count])
            for text, count in zip(rows, counts, strict=True)
        )
        return VerifyCall(rows, known, _least(self._names.verify_sizes, len(rows)), most), counts

    def _call(self, call: Call) -> Any:
        """Makes one device call: the greedy tokens; None for a piece of a text, which nobody waits for."""
        arguments = arguments_of(call, self._pool.page_tokens)
        program, name = self._draft.program, self._names.name(call)
        began_s = self._clock()
        self._health.call_began_s = began_s
        try:
            greedy, _logits, self._pools = program.call(name, *arguments, self._pools)
            return None if isinstance(call, PrefillCall) else program.read(greedy)
        finally:
            self._health.call_began_s = None
            self._counters.count_draft_call(self._clock() - began_s)

    def _append(self, text: _Text, token: int) -> None:
        """Adds a guess, or ends the guesses of a text before a token that the model cannot look up.

        Raises:
            ArtifactError: If it is no token of the draft either.
        """
        vocab = self._draft.manifest.model.vocab_size
        if not 0 <= token < vocab:
            raise ArtifactError(
                f"it gave token {token}, but the vocabulary has {vocab}: its logits are not finite; "
                "check it with: amdnfs verify BUNDLE"
            )
        if token < self._vocab_size:
            text.tokens.append(token)
            return
        text.num_wanted = len(text.tokens)
        if text.num_wanted == text.num_certain:  # nobody else will tell
            text.patience.told(0)

    def _break(self, error: AmdnfsError) -> None:
        """Stops guessing for good; texts go on without the draft."""
        self._is_broken = True
        self._health.call_failed(f"the draft failed and guesses no more until a restart: {error}")
        for text in self._texts.values():
            text.release()


def _least(sizes: Sequence[int], wanted: int) -> int:
    """The smallest size that is large enough."""
    return next(size for size in sizes if size >= wanted)
