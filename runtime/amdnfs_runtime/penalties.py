"""What penalties, bias and structures make of a row of logits. How a token is drawn from it is told in `sampling`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.ranking import REMEDY, check_logits
from amdnfs_runtime.request import SamplingParams

_NO_IDS = np.zeros(0, np.int64)
_NO_SCORES = np.zeros(0, np.float64)


@dataclass(frozen=True, slots=True)
class Adjusted:
    """Scores of one row, those that penalties and bias altered apart from the others."""

    row: npt.NDArray[np.float32]
    """The model's logits `[vocab]`, -inf for tokens that are excluded or stand apart."""
    ids: npt.NDArray[np.int64]
    """Tokens that stand apart, ascending."""
    scores: npt.NDArray[np.float64]
    """Their scores."""
    largest: float
    """The largest score of all; finite."""
    row_largest: float
    """The largest of `row`; may be -inf."""


class Penalties:
    """Changes logits for one text. Those of few tokens of a vocabulary, so that they are kept apart from the others."""

    def __init__(self, params: SamplingParams, prompt_token_ids: Sequence[int]) -> None:
        """Starts with the prompt.

        Raises:
            ValueError: A token id is negative.
        """
        self._params = params
        self._penalises = params.repetition_penalty != 1.0
        self._counts = bool(params.presence_penalty or params.frequency_penalty)
        bias = params.bias
        self._bias_ids = np.array([pair[0] for pair in bias], np.int64)
        self._bias = np.array([pair[1] for pair in bias], np.float64)
        self._is_altered = np.zeros(0, np.bool_)  # tokens whose logit is not the model's, by id
        self._is_seen = np.zeros(0, np.bool_)
        self._num_said = np.zeros(0, np.int64)
        if bias:
            self._grow(int(self._bias_ids[-1]))
            self._is_altered[self._bias_ids] = True
        if self._penalises and prompt_token_ids:
            self._mark(list(prompt_token_ids))

    @property
    def are_none(self) -> bool:
        """Whether all logits stay as they are."""
        return not self._penalises and not self._counts and not self._bias_ids.size

    @property
    def only_lower(self) -> bool:
        """Whether no token can gain: then one that was not among the largest logits is not among the largest scores."""
        params = self._params
        gains = params.presence_penalty < 0 or params.frequency_penalty < 0 or bool((self._bias > 0).any())
        return params.repetition_penalty >= 1.0 and not gains

    def accept(self, token_id: int) -> None:
        """Appends a token to the text.

        Raises:
            ValueError: The token id is negative.
        """
        if self._penalises or self._counts:
            self._mark([token_id])
        if self._counts:
            self._num_said[token_id] += 1

    def adjusted(self, logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_] | None) -> Adjusted:
        """Checked scores after penalties and bias; ids beyond the vocabulary have no score.

        Source: Keskar et al., CTRL (arXiv:1909.05858), section 4.1; for negative scores multiplied, not divided, as in
        transformers' `RepetitionPenaltyLogitsProcessor`. The other penalties: OpenAI, API reference, "Frequency and
        presence penalties".
        """
        largest = check_logits(logits)
        if allowed is None and not self._is_altered.size:
            return Adjusted(logits, _NO_IDS, _NO_SCORES, largest, largest)
        row = logits.copy() if allowed is None else np.where(allowed, logits, np.float32(-np.inf))
        ids = np.flatnonzero(self._is_altered[: logits.size])
        scores = self._altered(ids, logits[ids].astype(np.float64))
        if allowed is not None:
            scores[~allowed[ids]] = -np.inf
        row[ids] = -np.inf
        row_largest = float(row.max())
        largest = max(row_largest, float(scores.max(initial=-np.inf)))
        if math.isinf(largest):
            raise ArtifactError(f"the logits of all tokens that may come next are -inf; {REMEDY}")
        kept = scores > -np.inf
        return Adjusted(row, ids[kept], scores[kept], largest, row_largest)

    def scores_of(
        self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32], allowed: npt.NDArray[np.bool_] | None
    ) -> npt.NDArray[np.float64]:
        """Scores of some tokens after penalties and bias, -inf for what is excluded; unchecked.

        Args:
            ids: The tokens, ascending.
            logits: Their logits.
            allowed: Which tokens of the vocabulary may come next `[vocab]`; None for all.
        """
        scores = logits.astype(np.float64)
        known = ids[: int(np.searchsorted(ids, self._is_altered.size))]
        if known.size:
            is_altered = self._is_altered[known]
            places = np.flatnonzero(is_altered)
            if places.size:
                scores[places] = self._altered(known[places], scores[places])
        if allowed is not None:
            scores[~allowed[ids]] = -np.inf
        return scores

    def _altered(self, ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The scores of altered tokens after penalties and bias."""
        params = self._params
        if self._penalises:
            penalised = np.where(scores < 0, scores * params.repetition_penalty, scores / params.repetition_penalty)
            scores = np.where(self._is_seen[ids], penalised, scores)
        if self._counts:
            counts = self._num_said[ids]
            scores -= np.where(counts > 0, params.presence_penalty + params.frequency_penalty * counts, 0.0)
        if self._bias_ids.size:
            places = np.minimum(np.searchsorted(ids, self._bias_ids), max(ids.size - 1, 0))
            is_here = ids[places] == self._bias_ids if ids.size else np.zeros(self._bias_ids.size, np.bool_)
            scores[places[is_here]] += self._bias[is_here]
        return scores

    def _mark(self, token_ids: list[int]) -> None:
        """Records tokens as seen."""
        if min(token_ids) < 0:
            raise ValueError(f"token id {min(token_ids)} is negative")
        self._grow(max(token_ids))
        self._is_altered[token_ids] = self._is_seen[token_ids] = True

    def _grow(self, token_id: int) -> None:
        """Makes room for a token; by doubling, so that accepting a token stays cheap."""
        size = self._is_altered.size
        if token_id >= size:
            more = max(token_id + 1, 2 * size) - size
            self._is_altered = np.pad(self._is_altered, (0, more))
            self._is_seen = np.pad(self._is_seen, (0, more))
            self._num_said = np.pad(self._num_said, (0, more))
