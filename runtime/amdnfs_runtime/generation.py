"""The state of one generation: its tokens, pages, sampler, text, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.pages import PagePool, RequestPages
from amdnfs_runtime.request import FinishReason, GenerationResult, SamplingParams, Timings
from amdnfs_runtime.sampling import Sampler
from amdnfs_runtime.text import Detokenizer, StopMatcher


class Generation:
    """One prompt on its way to a result. Knows no device."""

    def __init__(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        manifest: Manifest,
        tokenizer: Tokenizer,
        pool: PagePool,
    ) -> None:
        """Prepares a generation; takes no pages yet."""
        self.prompt_token_ids = list(prompt_token_ids)
        self.params = params
        self.num_positions = len(self.prompt_token_ids)
        self.token_ids: list[int] = []
        self.finish_reason: FinishReason | None = None
        self.prefill_s = 0.0
        self.decode_s = 0.0
        self._context = manifest.model.context_tokens
        self._vocab = manifest.model.vocab_size
        self._ends = frozenset(() if params.ignore_eos else manifest.eos_token_ids)
        self._stop_ids = frozenset(params.stop_token_ids)
        self._sampler = Sampler(params, self.prompt_token_ids)
        self._detokenizer = Detokenizer(tokenizer)
        self._stops = StopMatcher(tuple(params.stop))
        self._pages = RequestPages(pool)
        self._text: list[str] = []
        self._taken = 0

    @property
    def max_positions(self) -> int:
        """Most cache positions this request can come to need; the last token is never written."""
        return min(self._context, len(self.prompt_token_ids) + max(1, self.params.max_tokens)) - 1 or 1

    @property
    def last_token(self) -> int:
        """The token that the next decode step takes."""
        return self.token_ids[-1]

    @property
    def needs_logits(self) -> bool:
        """Whether the next token is chosen on the host."""
        return self._sampler.needs_logits or self._must_go_on

    @property
    def _must_go_on(self) -> bool:
        return len(self.token_ids) < self.params.min_tokens and bool(self._ends | self._stop_ids)

    @property
    def _stops_count(self) -> bool:
        """Whether a stop string that the last token completes ends the text."""
        return len(self.token_ids) > self.params.min_tokens

    def reserve(self) -> None:
        """Takes all pages this request can need."""
        self._pages.ensure(self.max_positions)

    def table(self, num_positions: int) -> np.ndarray:
        """The request's page table for its first `num_positions` positions, int32 `[pages]`."""
        count = -(-num_positions // (self._pages.token_capacity // len(self._pages.pages)))
        return self._pages.as_row(len(self._pages.pages))[:count]

    def accept(self, greedy: int, logits: np.ndarray | None) -> None:
        """Takes the next token: the device's greedy one, or one drawn from `logits` `[vocab]`.

        Raises:
            ArtifactError: If the device gave no token at all (its logits are not numbers).
        """
        token = greedy
        if self.needs_logits:
            assert logits is not None
            token = self._sampler.sample(self._without_ends(logits))
        if not 0 <= token < self._vocab:
            raise ArtifactError(
                f"the program gave token {token}, but the vocabulary has {self._vocab}: its logits are not finite; "
                "check the bundle with: amdnfs verify BUNDLE"
            )
        self._sampler.accept(token)
        self.token_ids.append(token)
        self._advance(token)

    def take_text(self) -> str:
        """Text that has become certain since the last call."""
        piece = "".join(self._text[self._taken :])
        self._taken = len(self._text)
        return piece

    def release(self) -> None:
        """Gives the pages back; harmless if they are back already."""
        self._pages.release()

    def release_if_finished(self) -> bool:
        """Gives the pages back if the generation has ended, and says whether it has."""
        if self.finish_reason is not None:
            self.release()
        return self.finish_reason is not None

    def result(self) -> GenerationResult:
        """The finished generation."""
        assert self.finish_reason is not None
        return GenerationResult(
            prompt_token_ids=tuple(self.prompt_token_ids),
            token_ids=tuple(self.token_ids),
            text="".join(self._text),
            finish_reason=self.finish_reason,
            timings=Timings(
                prefill_s=self.prefill_s,
                decode_s=self.decode_s,
                num_prompt_tokens=len(self.prompt_token_ids),
                num_generated_tokens=len(self.token_ids),
            ),
        )

    def _without_ends(self, logits: np.ndarray) -> np.ndarray:
        if not self._must_go_on:
            return logits
        masked = logits.copy()
        masked[[token for token in self._ends | self._stop_ids if token < len(masked)]] = -np.inf
        return masked

    def _advance(self, token: int) -> None:
        if token in self._ends or token in self._stop_ids:
            self._finish(FinishReason.EOS if token in self._ends else FinishReason.STOP)
            return
        text, is_stop = self._stops.push(self._detokenizer.push(token), counts=self._stops_count)
        self._text.append(text)
        if is_stop:
            self.finish_reason = FinishReason.STOP
        elif len(self.token_ids) >= self.params.max_tokens:
            self._finish(FinishReason.LENGTH)
        elif len(self.prompt_token_ids) + len(self.token_ids) >= self._context:
            self._finish(FinishReason.CONTEXT)

    def _finish(self, reason: FinishReason) -> None:
        """Ends the generation and lets out held-back text, unless that holds a stop string."""
        text, is_stop = self._stops.push(self._detokenizer.flush(), counts=self._stops_count)
        self._text.append(text)
        if not is_stop:
            rest, is_stop = self._stops.flush()
            self._text.append(rest)
        self.finish_reason = FinishReason.STOP if is_stop else reason
