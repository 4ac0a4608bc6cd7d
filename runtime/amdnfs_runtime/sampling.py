"""From the logits of one step to the next token of one request.

Steps, in the order in which transformers' `generate` applies those that it has:

    logits -> repetition penalty -> presence and frequency penalty -> bias
           -> temperature -> top-k -> top-p -> min-p -> softmax -> one draw

What decides is float64, so that a result does not hang on how float32 sums are ordered. A large vocabulary is first
narrowed to the tokens that can matter, in float32 and with bounds that lose none; only its whole mass is a float32 sum,
which moves the limit of a nucleus by 1e-7 of it. Each row is worked on alone: what else is in a batch changes nothing.
When a request ends is not this module's job.

Source: transformers, `generation/logits_process.py` and `GenerationMixin._get_logits_processor`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.penalties import Adjusted, Penalties
from amdnfs_runtime.ranking import bound_of_top_k, check_logits, nucleus, scratch, top_k
from amdnfs_runtime.request import SamplingParams, TokenLogprob
from amdnfs_runtime.top_logits import TopLogits

_EXACT_TOKENS = 4096
"""Vocabularies up to this size are float64 throughout: narrowing them saves nothing."""
_NARROW_TEMPERATURES = (1e-3, 1e3)
"""Outside of these, float32 loses too much of a scaled score."""
_NUCLEUS_SHARES = (2.0**-8, 2.0**-10, 2.0**-12, 2.0**-14, 2.0**-16)
"""Shares of the whole mass; at most 256 tokens have the first each, and most nuclei are among them."""
_BLOCK_TOKENS = 256
_LEAST_LOGIT = float(np.finfo(np.float32).min)

_LEAST_SCORE = -700.0
"""Tokens below exp(-700) = 1e-304 times the most likely one are never drawn, as such weights underflow float64. In a
large vocabulary without any limit it is exp(-87), where float32 does."""


_MOST_SHIFT = 50.0
"""How far penalties may lower the largest logit, in powers of e, before nothing is known of the mass of the others."""

_Narrowed = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], float | None]
"""Token ids, ascending, their scores, and the mass of all tokens if there are more."""


class Sampler:
    """Chooses the tokens of one request.

    Every request has its own random numbers, one for each token drawn: the same seed and logits give the same tokens
    whatever else runs in the batch.

    >>> sampler = Sampler(SamplingParams(), prompt_token_ids=[1, 2])
    >>> sampler.needs_logits, sampler.sample(np.array([0.0, 3.0, 3.0], dtype=np.float32))
    (False, 1)
    """

    def __init__(self, params: SamplingParams, prompt_token_ids: Sequence[int], index: int = 0) -> None:
        """Start with the prompt as the text so far.

        Args:
            params: How to choose.
            prompt_token_ids: Tokens of the prompt; each >= 0.
            index: Which of several samples of the prompt this is; each has random numbers of its own.

        Raises:
            ValueError: A token id is negative.
        """
        self._params = params
        # Made when first needed: a greedy request never asks the operating system for random numbers.
        self._rng: np.random.Generator | None = None
        self._index = index
        self._penalties = Penalties(params, prompt_token_ids)
        self._needs_logits = not params.is_greedy or not self._penalties.are_none or params.logprobs is not None

    @property
    def needs_logits(self) -> bool:
        """Whether `sample` must be called; False when the argmax that the device computes is the next token."""
        return self._needs_logits

    def accept(self, token_id: int) -> None:
        """Append a token to the text so far, whoever chose it.

        Args:
            token_id: The token; >= 0.

        Raises:
            ValueError: The token id is negative.
        """
        self._penalties.accept(token_id)

    def sample(self, logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """Choose the next token; does not accept it.

        Among equally likely tokens greedy choice takes the lowest id.

        Args:
            logits: Scores [vocab] float32, unchanged by this call; -inf excludes a token.
            allowed: Which tokens may be chosen [vocab], at least one; None for all.

        Returns:
            A token id, 0 <= id < vocab.

        Raises:
            ArtifactError: A logit is NaN or +inf, or every one is -inf.
            ValueError: `logits` is not of shape [vocab], or is empty.
        """
        if self._params.is_greedy:
            return self._most_likely(self._penalties.adjusted(logits, allowed))
        if self._draws_from_all and self._can_narrow(logits):
            return self._draw_from_all(self._penalties.adjusted(logits, allowed))
        return self._draw_from(*self.distribution(logits, allowed))

    def sample_top(self, top: TopLogits, allowed: npt.NDArray[np.bool_] | None = None) -> int | None:
        """Choose the next token from the largest logits alone; does not accept it.

        Args:
            top: The largest logits of the row.
            allowed: As for `sample`.

        Returns:
            The token that `sample` would choose from the whole row, by the same random number. None if the other
            logits may matter, or one is not finite: nothing is drawn then, and `sample` must be called.
        """
        params = self._params
        if not self._penalties.only_lower or not math.isfinite(top.logits[0]):
            return None
        order = np.argsort(top.ids)
        token_ids = top.ids[order]
        scores = self._penalties.scores_of(token_ids, top.logits[order], allowed)
        largest = float(scores.max())
        if not largest > top.bound:
            return None
        if params.is_greedy:
            return int(token_ids[np.argmax(scores)])
        with np.errstate(over="ignore"):
            scores = (scores - largest) / params.temperature
        mass = self._known_mass(top, scores, largest, allowed)
        return None if mass is None else self._draw_from(*self._limited(token_ids, scores, mass or None))

    def distribution(
        self, logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_] | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Return the tokens that can be drawn and how likely each is; draws nothing.

        Tokens as likely as the last of the top-k are all kept; of tokens as likely as the last of the top-p those with
        the lowest ids are.

        Args:
            logits: Scores [vocab] float32, unchanged by this call; -inf excludes a token.
            allowed: Which tokens may be chosen [vocab], at least one; None for all.

        Returns:
            Token ids [kept] int64, ascending, and their probabilities [kept] float64, each > 0, their sum 1.

        Raises:
            ArtifactError: A logit is NaN or +inf, or every one is -inf.
            ValueError: `logits` is not of shape [vocab] or is empty, or the request is greedy and has no distribution.
        """
        params = self._params
        if params.is_greedy:
            raise ValueError("a greedy request (temperature 0) has no distribution")
        adjusted = self._penalties.adjusted(logits, allowed)
        return self._limited(*(self._narrowed(adjusted) if self._can_narrow(logits) else self._all(adjusted)))

    def _limited(
        self, token_ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], mass: float | None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Which of the tokens can be drawn and how likely each is; see `_Narrowed`."""
        params = self._params
        kept = top_k(scores, params.top_k) & (scores > _LEAST_SCORE)
        token_ids, scores = token_ids[kept], scores[kept]
        weights = np.exp(scores)
        if params.top_p < 1.0:
            kept = nucleus(scores, params.top_p * (float(weights.sum()) if mass is None else mass))
            token_ids, weights = token_ids[kept], weights[kept]
        if params.min_p:
            # The largest weight is exp(0) = 1: weights are relative to the most likely token.
            kept = weights >= params.min_p
            token_ids, weights = token_ids[kept], weights[kept]
        return token_ids, weights / weights.sum()

    def _known_mass(
        self, top: TopLogits, scores: npt.NDArray[np.float64], largest: float, allowed: npt.NDArray[np.bool_] | None
    ) -> float | None:
        """The mass that limits of `scores` are shares of; 0 where that is their own, None if others may be within.

        Args:
            top: The largest logits.
            scores: Their scores, relative to the largest, scaled by the temperature.
            largest: The largest score before that.
            allowed: As for `sample`.
        """
        params = self._params
        if math.isinf(top.bound):
            return 0.0
        bound = (top.bound - largest) / params.temperature
        if params.top_k:
            is_within = params.top_k > scores.size or not np.partition(scores, -params.top_k)[-params.top_k] > bound
            return None if is_within else 0.0
        if params.top_p < 1.0:
            return self._mass_of_nucleus(top, scores, largest, bound, allowed)
        return 0.0 if params.min_p and math.log(params.min_p) > bound + 1e-9 * abs(bound) else None

    def _mass_of_nucleus(
        self,
        top: TopLogits,
        scores: npt.NDArray[np.float64],
        largest: float,
        bound: float,
        allowed: npt.NDArray[np.bool_] | None,
    ) -> float | None:
        """A mass that gives the nucleus of the whole row, if each that is possible does, and it ends above `bound`."""
        params = self._params
        shift = (float(top.logits[0]) - largest) / params.temperature
        if shift > _MOST_SHIFT:
            return None
        least, most = (rest * math.exp(shift) for rest in top.rest_range(params.temperature))
        if allowed is not None or not self._penalties.are_none:
            least = 0.0  # the others may be excluded or penalised
        listed = float(np.exp(scores).sum())
        kept = nucleus(scores, params.top_p * (listed + most))
        is_known = np.array_equal(kept, nucleus(scores, params.top_p * (listed + least)))
        return listed + most if is_known and float(scores[kept].min()) > bound else None

    @property
    def _draws_from_all(self) -> bool:
        params = self._params
        return params.top_k == 0 and params.top_p == 1.0 and params.min_p == 0.0

    def _can_narrow(self, logits: npt.NDArray[np.float32]) -> bool:
        least, most = _NARROW_TEMPERATURES
        return logits.size > _EXACT_TOKENS and least <= self._params.temperature <= most

    @staticmethod
    def _most_likely(adjusted: Adjusted) -> int:
        """The token with the largest score; of equals the lowest id."""
        index = int(np.argmax(adjusted.row))
        if adjusted.ids.size:
            altered = int(np.argmax(adjusted.scores))
            pairs = [(-float(adjusted.row[index]), index), (-adjusted.scores[altered], int(adjusted.ids[altered]))]
            return min(pairs)[1]
        return index

    def _all(self, adjusted: Adjusted) -> _Narrowed:
        """All tokens that are not excluded."""
        row_ids = np.flatnonzero(adjusted.row > -np.inf)
        return (*self._relative(adjusted, row_ids, adjusted.ids, adjusted.scores), None)

    def _narrowed(self, adjusted: Adjusted) -> _Narrowed:
        """The tokens that can be among the result."""
        params = self._params
        if params.top_k:
            # The k best of all are among the k best of the row and those that stand apart.
            return (*self._above(adjusted, bound_of_top_k(adjusted.row, params.top_k)), None)
        if params.top_p < 1.0:
            return self._around_nucleus(adjusted)
        if params.min_p:
            bound = adjusted.largest + params.temperature * math.log(params.min_p)
            return (*self._above(adjusted, bound - 1e-5 * max(1.0, abs(bound))), None)
        return self._all(adjusted)

    def _around_nucleus(self, adjusted: Adjusted) -> _Narrowed:
        weights, scale = self._row_weights(adjusted)
        apart = np.exp((adjusted.scores - adjusted.largest) / self._params.temperature)
        mass = float(weights.sum()) * scale + float(apart.sum())
        for share in _NUCLEUS_SHARES:
            bound = adjusted.largest + self._params.temperature * math.log(share * mass)
            token_ids, scores = self._above(adjusted, bound)
            if np.exp(scores).sum() >= self._params.top_p * mass:
                return token_ids, scores, mass
        return self._all(adjusted)

    def _above(self, adjusted: Adjusted, bound: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Tokens with a score of at least `bound`, which rounds down to float32."""
        least = max(_LEAST_LOGIT, np.nextafter(np.float32(bound), np.float32(-np.inf)).item())
        kept = adjusted.scores >= least
        row_ids = np.flatnonzero(adjusted.row >= np.float32(least))
        return self._relative(adjusted, row_ids, adjusted.ids[kept], adjusted.scores[kept])

    def _relative(
        self,
        adjusted: Adjusted,
        row_ids: npt.NDArray[np.int64],
        ids: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Tokens of the row and others, ascending, and their scores below the largest, scaled by the temperature."""
        found = adjusted.row[row_ids].astype(np.float64)
        if ids.size:
            row_ids, found = np.concatenate((row_ids, ids)), np.concatenate((found, scores))
            order = np.argsort(row_ids, kind="stable")
            row_ids, found = row_ids[order], found[order]
        # Relative to the largest score no temperature, however small, can overflow to +inf.
        with np.errstate(over="ignore"):
            return row_ids, (found - adjusted.largest) / self._params.temperature

    def _row_weights(self, adjusted: Adjusted) -> tuple[npt.NDArray[np.float32], float]:
        """Weights of the row, relative to its own largest score, and what scales them to the largest of all."""
        largest = np.float32(adjusted.row_largest)
        buffer = scratch(adjusted.row.size)
        if math.isinf(adjusted.row_largest):
            buffer[:] = 0
            return buffer, 0.0
        with np.errstate(over="ignore"):  # far below the largest: -inf will do
            np.subtract(adjusted.row, largest, out=buffer)
            if self._params.temperature != 1.0:
                np.multiply(buffer, np.float32(1.0 / self._params.temperature), out=buffer)
        np.exp(buffer, out=buffer)
        return buffer, math.exp((adjusted.row_largest - adjusted.largest) / self._params.temperature)

    def _draw_from_all(self, adjusted: Adjusted) -> int:
        """Draws a token of a large vocabulary that no limit narrows: first a block of tokens, then one in it."""
        weights, scale = self._row_weights(adjusted)
        if adjusted.ids.size:
            weights *= np.float32(scale)
            weights[adjusted.ids] = np.exp((adjusted.scores - adjusted.largest) / self._params.temperature)
        begins = np.arange(0, weights.size, _BLOCK_TOKENS)
        cumulative = np.cumsum(np.add.reduceat(weights, begins), dtype=np.float64)
        wanted = self._draw() * cumulative[-1]
        block = min(int(np.searchsorted(cumulative, wanted, side="right")), cumulative.size - 1)
        if block:
            wanted -= cumulative[block - 1]
        within = weights[begins[block] : begins[block] + _BLOCK_TOKENS]
        index = int(np.searchsorted(np.cumsum(within, dtype=np.float64), wanted, side="right"))
        # Sums that round may leave the number one past the last token that can be drawn.
        return int(begins[block]) + min(index, int(np.flatnonzero(within)[-1]))

    def _draw_from(self, token_ids: npt.NDArray[np.int64], probabilities: npt.NDArray[np.float64]) -> int:
        cumulative = np.cumsum(probabilities)
        index = int(np.searchsorted(cumulative, self._draw() * cumulative[-1], side="right"))
        # The product may round up to the total, one past the last token.
        return int(token_ids[min(index, token_ids.size - 1)])

    def _draw(self) -> float:
        """Return a random number, 0 <= x < 1."""
        if self._rng is None:
            seed = self._params.seed
            entropy = [seed, self._index] if seed is not None and self._index else seed
            self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        return self._rng.random()


def token_logprob(logits: npt.NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprob:
    """Return how likely the model itself found a token, and which tokens it found most likely.

    Args:
        logits: Scores [vocab] float32; unchanged.
        token_id: The token that was chosen.
        num_top: How many of the most likely tokens to tell; >= 0. Of equally likely ones the lowest ids.

    Raises:
        ArtifactError: A logit is NaN or +inf, or every one is -inf.
    """
    largest = check_logits(logits)
    if logits.size <= _EXACT_TOKENS:
        weights: npt.NDArray[np.floating] = np.exp(logits.astype(np.float64) - largest)
    else:
        with np.errstate(over="ignore"):  # far below the largest: -inf will do
            weights = np.subtract(logits, np.float32(largest), out=scratch(logits.size))
        np.exp(weights, out=weights)
    log_mass = largest + math.log(weights.sum())
    best: npt.NDArray[np.int64] = np.zeros(0, np.int64)
    if num_top:
        bound = bound_of_top_k(logits, num_top)
        best = np.flatnonzero(logits >= bound)
        best = best[np.argsort(-logits[best], kind="stable")][:num_top]
    top = tuple((int(index), float(logits[index]) - log_mass) for index in best)
    return TokenLogprob(token_id=token_id, logprob=float(logits[token_id]) - log_mass, top=top)
