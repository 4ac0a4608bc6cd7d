"""From the logits of one step to the next token of one request.

Steps, in the order in which transformers' `generate` applies those that it has:

    logits -> repetition penalty -> presence and frequency penalty -> bias
           -> temperature -> top-k -> top-p -> min-p -> softmax -> one draw

All arithmetic is float64, so that a result does not hang on how float32 sums are ordered. When a request ends is not
this module's job.

Source: transformers, `generation/logits_process.py` and `GenerationMixin._get_logits_processor`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.request import SamplingParams, TokenLogprob

_FIRST_NUCLEUS_TOKENS = 256
_NUCLEUS_GROWTH = 8
_GROUP_TOKENS = 16

_LEAST_SCORE = -700.0
"""Tokens below exp(-700) = 1e-304 times the most likely one are never drawn, as such weights underflow float64."""

_REMEDY = "the program or the weights are damaged: run `amdnfs verify` on the bundle"


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
        self._penalises = params.repetition_penalty != 1.0
        self._counts: dict[int, int] | None = {} if params.presence_penalty or params.frequency_penalty else None
        bias = params.bias
        self._bias_ids = np.array([pair[0] for pair in bias], np.int64)
        self._bias = np.array([pair[1] for pair in bias], np.float64)
        self._needs_logits = (
            not params.is_greedy
            or self._penalises
            or self._counts is not None
            or bias != ()
            or params.logprobs is not None
        )
        self._seen = np.zeros(0, dtype=np.bool_)
        if self._penalises:
            self._mark(prompt_token_ids)

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
        if self._penalises:
            self._mark((token_id,))
        if self._counts is not None:
            self._counts[token_id] = self._counts.get(token_id, 0) + 1

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
            return int(np.argmax(self._adjusted(logits, allowed)))
        token_ids, probabilities = self.distribution(logits, allowed)
        cumulative = np.cumsum(probabilities)
        index = int(np.searchsorted(cumulative, self._draw() * cumulative[-1], side="right"))
        # The product may round up to the total, one past the last token.
        return int(token_ids[min(index, token_ids.size - 1)])

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
        scores = self._adjusted(logits, allowed)
        # Relative to the largest score no temperature, however small, can overflow to +inf.
        with np.errstate(over="ignore"):
            scores = (scores - scores.max()) / params.temperature
        token_ids = np.flatnonzero(_top_k(scores, params.top_k) & (scores > _LEAST_SCORE))
        if params.top_p < 1.0:
            token_ids = token_ids[_top_p(scores[token_ids], params.top_p)]
        weights = np.exp(scores[token_ids])
        # The largest weight is exp(0) = 1: weights are relative to the most likely token.
        kept = weights >= params.min_p
        token_ids, weights = token_ids[kept], weights[kept]
        return token_ids, weights / weights.sum()

    def _draw(self) -> float:
        """Return a random number, 0 <= x < 1."""
        if self._rng is None:
            seed = self._params.seed
            entropy = [seed, self._index] if seed is not None and self._index else seed
            self._rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
        return self._rng.random()

    def _adjusted(
        self, logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        """Return checked scores [vocab] float64 after penalties and bias; ids beyond the vocabulary have no score.

        Source: Keskar et al., CTRL (arXiv:1909.05858), section 4.1; for negative scores multiplied, not divided, as in
        transformers' `RepetitionPenaltyLogitsProcessor`. The other penalties: OpenAI, API reference, "Frequency and
        presence penalties".
        """
        _check_logits(logits)
        scores = logits.astype(np.float64)
        if self._penalises:
            seen_ids = np.flatnonzero(self._seen[: scores.size])
            seen = scores[seen_ids]
            penalty = self._params.repetition_penalty
            scores[seen_ids] = np.where(seen < 0, seen * penalty, seen / penalty)
        if self._counts:
            pairs = [(token_id, count) for token_id, count in self._counts.items() if token_id < scores.size]
            ids, counts = np.array(pairs, np.int64).reshape(-1, 2).T
            scores[ids] -= self._params.presence_penalty + self._params.frequency_penalty * counts
        if self._bias_ids.size:
            known = self._bias_ids < scores.size
            scores[self._bias_ids[known]] += self._bias[known]
        if allowed is not None:
            scores[~allowed] = -np.inf
            if np.isneginf(scores.max()):
                raise ArtifactError("the logits of all tokens that may come next are -inf; " + _REMEDY)
        return scores

    def _mark(self, token_ids: Sequence[int]) -> None:
        """Record tokens as seen; the mask grows by doubling, so that accepting a token stays cheap."""
        if not token_ids:
            return
        if min(token_ids) < 0:
            raise ValueError(f"token id {min(token_ids)} is negative")
        num_needed = max(token_ids) + 1
        if num_needed > self._seen.size:
            self._seen = np.pad(self._seen, (0, max(num_needed, 2 * self._seen.size) - self._seen.size))
        self._seen[list(token_ids)] = True


def token_logprob(logits: npt.NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprob:
    """Return how likely the model itself found a token, and which tokens it found most likely.

    Args:
        logits: Scores [vocab] float32; unchanged.
        token_id: The token that was chosen.
        num_top: How many of the most likely tokens to tell; >= 0. Of equally likely ones the lowest ids.

    Raises:
        ArtifactError: A logit is NaN or +inf, or every one is -inf.
    """
    _check_logits(logits)
    scores = logits.astype(np.float64)
    scores -= scores.max()
    scores -= np.log(np.exp(scores).sum())
    candidates = np.flatnonzero(_top_k(scores, num_top)) if num_top else np.zeros(0, np.int64)
    best = candidates[np.argsort(-scores[candidates], kind="stable")][:num_top]
    top = tuple((int(index), float(scores[index])) for index in best)
    return TokenLogprob(token_id=token_id, logprob=float(scores[token_id]), top=top)


def _check_logits(logits: npt.NDArray[np.float32]) -> None:
    if logits.ndim != 1 or logits.size == 0:
        raise ValueError(f"logits must have shape [vocab], not {list(logits.shape)}")
    largest = logits.max()
    if np.isfinite(largest):
        return
    bad = np.flatnonzero(np.isnan(logits) | np.isposinf(logits))
    if bad.size == 0:
        raise ArtifactError(f"all {logits.size} logits are -inf, so no token can follow; {_REMEDY}")
    raise ArtifactError(
        f"logits are not finite: {bad.size} of {logits.size} are NaN or +inf, the first is "
        f"{float(logits[bad[0]])} at token id {int(bad[0])}; {_REMEDY}"
    )


def _top_k(scores: npt.NDArray[np.float64], top_k: int) -> npt.NDArray[np.bool_]:
    """Return which scores [tokens] are at least the k-th largest; all of them when k is 0 or too large."""
    if not 0 < top_k < scores.size:
        return np.ones(scores.size, dtype=np.bool_)
    kept: npt.NDArray[np.bool_] = scores >= _kth_largest(scores, top_k)
    return kept


def _kth_largest(scores: npt.NDArray[np.float64], k: int) -> np.float64:
    """Return the k-th largest score; 1 <= k <= number of scores.

    A partition of a whole vocabulary takes most of the time of a draw. The k-th largest of the maxima of groups is not
    above the result, as k groups hold a score that large, and few scores are left at or above it.
    """
    num_groups = scores.size // _GROUP_TOKENS
    if 2 * k <= num_groups:
        largest = scores[: num_groups * _GROUP_TOKENS].reshape(_GROUP_TOKENS, num_groups).max(axis=0)
        scores = scores[scores >= np.partition(largest, num_groups - k)[num_groups - k]]
    index = scores.size - k
    result: np.float64 = np.partition(scores, index)[index]
    return result


def _top_p(scores: npt.NDArray[np.float64], top_p: float) -> npt.NDArray[np.bool_]:
    """Return which tokens make up the nucleus: from the most likely on, while the mass before is below `top_p`.

    Sorts only the most likely tokens, and more of them when their mass is too small: a nucleus is usually a few
    hundred tokens of a vocabulary of 10**5.

    Args:
        scores: Logarithms of unnormalised probabilities [tokens] float64, the largest 0. Sorted are these, because
            different scores can round to the same probability.
        top_p: Mass to keep; 0 < top_p < 1.

    Returns:
        Mask [tokens] bool, at least one of them True.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration (arXiv:1904.09751), section 3.1.
    """
    weights = np.exp(scores)
    limit = top_p * weights.sum()
    num_sorted = _FIRST_NUCLEUS_TOKENS
    while True:
        candidates = np.flatnonzero(_top_k(scores, num_sorted))
        if candidates.size == scores.size or weights[candidates].sum() >= limit:
            break
        num_sorted *= _NUCLEUS_GROWTH
    # Stable on ascending ids: of equally likely tokens the lowest id comes first.
    descending = candidates[np.argsort(-scores[candidates], kind="stable")]
    mass_before = np.concatenate(([0.0], np.cumsum(weights[descending])[:-1]))
    kept = np.zeros(scores.size, dtype=np.bool_)
    kept[descending[mass_before < limit]] = True
    return kept
