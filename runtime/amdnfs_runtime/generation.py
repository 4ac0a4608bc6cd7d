"""The state of one generation: its tokens, sampler, text, and when it ends. Pages are the scheduler's job."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.request import FinishReason, GenerationResult, Output, SamplingParams, Timings, TokenLogprob
from amdnfs_runtime.sampling import Sampler, token_logprob
from amdnfs_runtime.structure import Constraint
from amdnfs_runtime.text import Detokenizer, StopMatcher
from amdnfs_runtime.top_logits import TopLogits


class Generation:
    """One sample of a prompt on its way to a result. Knows no device."""

    def __init__(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        manifest: Manifest,
        tokenizer: Tokenizer | None,
        *,
        request_id: str = "",
        index: int = 0,
        constraint: Constraint | None = None,
    ) -> None:
        """Prepares a generation.

        Args:
            prompt_token_ids: The prompt.
            params: How to choose tokens, and when to end.
            manifest: Vocabulary, context and end tokens.
            tokenizer: Makes text; without one there is none, and no stop string is found.
            request_id: The request that it belongs to.
            index: Which of the samples of the request it is.
            constraint: What `params.structure` allows; needed if that is given.
        """
        self.request_id = request_id
        self.index = index
        self.prompt_token_ids = list(prompt_token_ids)
        self.params = params
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.num_cached_tokens = 0
        self.arrived_s = self.first_token_s = self.last_token_s = 0.0
        self.started_s: float | None = None
        self._context = manifest.model.context_tokens
        self._vocab = manifest.model.vocab_size
        assert (constraint is None) is (params.structure is None)
        self._constraint = constraint
        self._model_ends = frozenset(manifest.eos_token_ids)
        self._ends = frozenset(() if params.ignore_eos else manifest.eos_token_ids)
        self._stop_ids = frozenset(params.stop_token_ids)
        # Any choice of the device will do, at any time: what most greedy requests are.
        self._is_free = constraint is None and not (params.min_tokens and self._ends | self._stop_ids)
        self._sampler = Sampler(params, self.prompt_token_ids, index)
        self.takes_greedy = self._is_free and not self._sampler.needs_logits
        """Whether every next token is the device's own choice."""
        self._detokenizer = None if tokenizer is None else Detokenizer(tokenizer)
        self._stops = StopMatcher(tuple(params.stop))
        self._chosen: tuple[int, TokenLogprob | None] | None = None
        self._logprobs: list[TokenLogprob] = []
        self._text: list[str] = []
        self._untold: list[int] = []
        self._is_whole = False
        self._num_text_taken = 0
        self._num_tokens_taken = 0

    @property
    def max_positions(self) -> int:
        """Most cache positions this request can come to need; the last token is never written."""
        return min(self._context, len(self.prompt_token_ids) + self.params.max_tokens) - 1 or 1

    @property
    def last_token(self) -> int:
        """The token that the next decode step takes."""
        return self.token_ids[-1]

    def needs_logits(self, greedy: int) -> bool:
        """Whether the next token is chosen on the host, when the device's own choice is `greedy`."""
        if self._sampler.needs_logits:
            return True
        if self._is_free:
            return False
        if not 0 <= greedy < self._vocab:
            return False  # no choice at all, which `accept` tells
        if self._constraint is not None and not self._constraint.allows(greedy):
            return True
        return greedy in self._unwanted

    def choose_from_top(self, top: TopLogits) -> bool:
        """Chooses the next token, which `accept` then takes, from the largest logits alone if they tell it.

        Args:
            top: The largest logits of the row.

        Returns:
            Whether they do; the whole row is needed otherwise.
        """
        num_top = self.params.logprobs
        if num_top is not None and num_top > top.ids.size:
            return False
        try:
            token = self._sampler.sample_top(top, self._allowed(top.vocab))
        except UsageError:  # `accept` meets it again, and ends the request with it
            return False
        if token is not None:
            self._chosen = (token, None if num_top is None else top.logprob(token, num_top))
        return token is not None

    def look_ahead(self) -> None:
        """Works on the next choice while the device computes; it would be done later otherwise."""
        if self._constraint is not None and self._sampler.needs_logits:
            with suppress(UsageError):  # `accept` meets it again, and ends the request with it
                self._constraint.mask()

    @property
    def _unwanted(self) -> frozenset[int]:
        """Tokens that may not come next, though they may later."""
        if self._must_go_on:
            return self._ends | self._stop_ids
        if self._constraint is not None and self.params.ignore_eos:
            return self._model_ends
        return frozenset()

    @property
    def _must_go_on(self) -> bool:
        return len(self.token_ids) < self.params.min_tokens and bool(self._ends | self._stop_ids)

    @property
    def _stops_count(self) -> bool:
        """Whether a stop string that the last token completes ends the text."""
        return len(self.token_ids) > self.params.min_tokens

    def accept(self, greedy: int, logits: npt.NDArray[np.float32] | None, now_s: float = 0.0) -> None:
        """Takes the next token: what `choose_from_top` chose, the device's greedy one, or one drawn from `logits`.

        Args:
            greedy: The device's choice.
            logits: The whole row `[vocab]`, where it is needed.
            now_s: The time.

        Raises:
            ArtifactError: If the device gave no token at all (its logits are not numbers).
            UsageError: If the structure cannot go on.
        """
        token, logprob = greedy, None
        if self._chosen is not None:
            (token, logprob), self._chosen = self._chosen, None
        elif not self.takes_greedy and self.needs_logits(greedy):
            assert logits is not None
            token = self._sampler.sample(logits, self._allowed(len(logits)))
        if not 0 <= token < self._vocab:
            raise ArtifactError(
                f"the program gave token {token}, but the vocabulary has {self._vocab}: its logits are not finite; "
                "check the bundle with: amdnfs verify BUNDLE"
            )
        if self.params.logprobs is not None:
            if logprob is None:
                assert logits is not None
                logprob = token_logprob(logits, token, self.params.logprobs)
            self._logprobs.append(logprob)
        self._sampler.accept(token)
        if self._constraint is not None:
            self._constraint.accept(token)
        if not self.token_ids:
            self.first_token_s = now_s
        self.last_token_s = now_s
        self.token_ids.append(token)
        self._advance(token)

    def accept_run(
        self, greedy: Sequence[int], logits: npt.NDArray[np.float32] | None, guess: Sequence[int], now_s: float = 0.0
    ) -> int:
        """Takes the next token, and more as long as they are those that were guessed.

        Args:
            greedy: The device's choice after the last token, and after each guess.
            logits: The logits there `[tokens, vocab]`; needed unless it `takes_greedy`.
            guess: The guessed tokens.
            now_s: The time.

        Returns:
            How many tokens were taken.

        Raises:
            ArtifactError: As `accept`.
            UsageError: As `accept`.
        """
        for index in range(len(guess) + 1):
            self.accept(greedy[index], None if logits is None else logits[index], now_s)
            if self.finish_reason is not None or index == len(guess) or self.last_token != guess[index]:
                break
        return index + 1

    def take_text(self) -> str:
        """Text that has become certain since the last call."""
        self._make_text()
        piece = "".join(self._text[self._num_text_taken :])
        self._num_text_taken = len(self._text)
        return piece

    def take_output(self) -> Output:
        """What is new since the last call; the result comes with the last one."""
        begin, self._num_tokens_taken = self._num_tokens_taken, len(self.token_ids)
        return Output(
            request_id=self.request_id,
            index=self.index,
            text=self.take_text(),
            token_ids=tuple(self.token_ids[begin:]),
            logprobs=tuple(self._logprobs[begin:]),
            result=None if self.finish_reason is None else self.result(),
        )

    def cancel(self) -> None:
        """Ends the generation where it is; what was held back is dropped. Nothing happens if it has ended."""
        if self.finish_reason is None:
            self.finish_reason = FinishReason.CANCELLED

    def result(self) -> GenerationResult:
        """The finished generation."""
        assert self.finish_reason is not None
        self._make_text()
        started_s = self.last_token_s if self.started_s is None else self.started_s
        return GenerationResult(
            prompt_token_ids=tuple(self.prompt_token_ids),
            token_ids=tuple(self.token_ids),
            text="".join(self._text),
            finish_reason=self.finish_reason,
            timings=Timings(
                prefill_s=max(0.0, self.first_token_s - started_s),
                decode_s=self.last_token_s - self.first_token_s,
                num_prompt_tokens=len(self.prompt_token_ids),
                num_generated_tokens=len(self.token_ids),
                num_cached_tokens=self.num_cached_tokens,
                queue_s=max(0.0, started_s - self.arrived_s),
            ),
            index=self.index,
            logprobs=None if self.params.logprobs is None else tuple(self._logprobs),
        )

    def _allowed(self, num_logits: int) -> npt.NDArray[np.bool_] | None:
        """Which tokens may come next `[num_logits]`; None for all."""
        unwanted = [token for token in self._unwanted if token < num_logits]
        if self._constraint is None:
            if not unwanted:
                return None
            mask = np.ones(num_logits, np.bool_)
        else:
            mask = self._constraint.mask()[:num_logits]
            if not unwanted:
                return mask
            mask = mask.copy()
        mask[unwanted] = False
        # A structure that is complete ends the text, whatever else was wanted of it.
        return mask if self._constraint is None or mask.any() else self._constraint.mask()[:num_logits]

    def _advance(self, token: int) -> None:
        if token in self._ends or token in self._stop_ids:
            self._finish(FinishReason.EOS if token in self._ends else FinishReason.STOP)
            return
        self._untold.append(token)
        if self.params.stop and self._make_text():
            self.finish_reason = FinishReason.STOP
        elif self._constraint is not None and self._constraint.is_complete:
            self._finish(FinishReason.STOP)
        elif len(self.token_ids) >= self.params.max_tokens:
            self._finish(FinishReason.LENGTH)
        elif len(self.prompt_token_ids) + len(self.token_ids) >= self._context:
            self._finish(FinishReason.CONTEXT)

    def _finish(self, reason: FinishReason) -> None:
        """Ends the generation; its text, too, if a stop string may be in what is held back of it."""
        self._is_whole = True
        self.finish_reason = FinishReason.STOP if self.params.stop and self._make_text() else reason

    def _make_text(self) -> bool:
        """Makes the text of new tokens, and lets out what is held back if they are the last; whether a stop was hit.

        Without stop strings nobody needs to know before the text is taken.
        """
        if self._detokenizer is None:
            return False
        is_stop = False
        for token in self._untold:
            text, is_stop = self._stops.push(self._detokenizer.push(token), counts=self._stops_count)
            self._text.append(text)
        self._untold.clear()
        if self._is_whole:
            self._is_whole = False
            text, is_stop = self._stops.push(self._detokenizer.flush(), counts=self._stops_count)
            self._text.append(text)
            if not is_stop:
                rest, is_stop = self._stops.flush()
                self._text.append(rest)
        return is_stop
