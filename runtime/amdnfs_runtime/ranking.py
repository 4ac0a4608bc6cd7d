"""The most likely of a row of scores, and memory for working on rows. What is drawn of them is told in `sampling`."""

from __future__ import annotations

import math
import threading

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.errors import ArtifactError

REMEDY = "the program or the weights are damaged: run `amdnfs verify` on the bundle"
"""What to do about logits that are no numbers."""

_LEAST_GROUPS = 256
_GROUPS_A_TOKEN = 8
_LOCAL = threading.local()


def check_logits(logits: npt.NDArray[np.float32]) -> float:
    """The largest logit, which is finite."""
    if logits.ndim != 1 or logits.size == 0:
        raise ValueError(f"logits must have shape [vocab], not {list(logits.shape)}")
    largest = float(logits.max())
    if math.isfinite(largest):
        return largest
    bad = np.flatnonzero(np.isnan(logits) | np.isposinf(logits))
    if bad.size == 0:
        raise ArtifactError(f"all {logits.size} logits are -inf, so no token can follow; {REMEDY}")
    raise ArtifactError(
        f"logits are not finite: {bad.size} of {logits.size} are NaN or +inf, the first is "
        f"{float(logits[bad[0]])} at token id {int(bad[0])}; {REMEDY}"
    )


def top_k(scores: npt.NDArray[np.floating], top_k: int) -> npt.NDArray[np.bool_]:
    """Return which scores [tokens] are at least the k-th largest; all of them when k is 0 or too large."""
    if not 0 < top_k < scores.size:
        return np.ones(scores.size, dtype=np.bool_)
    index = scores.size - top_k
    kept: npt.NDArray[np.bool_] = scores >= np.partition(scores, index)[index]
    return kept


def bound_of_top_k(row: npt.NDArray[np.float32], top_k: int) -> float:
    """Return a score that is not above the k-th largest, with few scores at or above it; -inf if k is too large.

    A partition of a whole vocabulary would take most of the time of a draw. The k-th largest of the maxima of groups is
    such a bound, as k groups hold a score that large.
    """
    num_groups = max(_LEAST_GROUPS, _GROUPS_A_TOKEN * top_k)
    group_tokens = row.size // num_groups
    if group_tokens < 2:
        return -math.inf
    largest = row[: num_groups * group_tokens].reshape(group_tokens, num_groups).max(axis=0)
    return float(np.partition(largest, num_groups - top_k)[num_groups - top_k])


def nucleus(scores: npt.NDArray[np.float64], limit: float) -> npt.NDArray[np.bool_]:
    """Return which tokens make up the nucleus: from the most likely on, while the mass before is below `limit`.

    Args:
        scores: Logarithms of unnormalised probabilities [tokens] float64, the largest 0. Sorted are these, because
            different scores can round to the same probability.
        limit: Mass to keep; > 0.

    Returns:
        Mask [tokens] bool, at least one of them True.

    Source: Holtzman et al., The Curious Case of Neural Text Degeneration (arXiv:1904.09751), section 3.1.
    """
    descending = np.sort(scores)[::-1]  # far faster than the order of the tokens, which ties alone need
    mass = np.cumsum(np.exp(descending))
    num_kept = 1 + int(np.searchsorted(mass[:-1], limit, side="left"))
    least = descending[num_kept - 1]
    kept: npt.NDArray[np.bool_] = scores >= least
    num_over = int(np.count_nonzero(kept)) - num_kept
    if num_over:  # of equally likely tokens the lowest ids are kept
        kept[np.flatnonzero(scores == least)[-num_over:]] = False
    return kept


def scratch(size: int) -> npt.NDArray[np.float32]:
    """Memory for one row, the same for each row of a thread: fresh memory costs as much as the arithmetic."""
    buffer: npt.NDArray[np.float32] | None = getattr(_LOCAL, "buffer", None)
    if buffer is None or buffer.size < size:
        buffer = _LOCAL.buffer = np.empty(size, np.float32)
    return buffer[:size]
