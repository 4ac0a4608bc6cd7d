"""The largest logits of a row, which programs for GPUs find themselves: enough for most choices, and little to copy.

A program that finds them says so by reflection, and its first result holds them for each row of the batch, packed as
i32: `count` ids, `count` logits and the logarithm of the sum of exp over the row, the floats as their bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.request import TokenLogprob

_MASS_ERROR = 2e-5
"""Of a sum of exp on the device, relative: sums and logarithms of f32, for logits up to a hundred."""


@dataclass(frozen=True, slots=True)
class TopLogits:
    """The largest logits of a row, the largest first; of equal ones the lowest id."""

    ids: npt.NDArray[np.int64]
    """Tokens `[count]`."""
    logits: npt.NDArray[np.float32]
    """Their logits `[count]`."""
    log_mass: float
    """Logarithm of the sum of exp(logit) over the whole row."""
    vocab: int
    """Length of the row."""

    @property
    def bound(self) -> float:
        """No token that is not here has a larger logit."""
        return -math.inf if self.ids.size >= self.vocab else float(self.logits[-1])

    def rest_range(self, temperature: float) -> tuple[float, float]:
        """Least and most that all other tokens together weigh, if the most likely of all weighs 1.

        A token's weight at a temperature below 1 is its weight at 1, times exp of a negative number that is at most
        the one of the last token here. Above 1 nothing is known but how many tokens there are.

        Args:
            temperature: What the logits are divided by; > 0.
        """
        below = self.logits.astype(np.float64) - float(self.logits[0])
        whole = math.exp(self.log_mass - float(self.logits[0]))
        rest = whole - float(np.exp(below).sum())
        least, most = max(0.0, rest - _MASS_ERROR * whole), max(0.0, rest + _MASS_ERROR * whole)
        if temperature == 1.0:
            return least, most
        last = self.bound - float(self.logits[0])
        num_others = self.vocab - self.ids.size
        if num_others <= 0 or math.isinf(last):
            return 0.0, 0.0
        if temperature < 1.0:
            return 0.0, most * math.exp(last * (1.0 / temperature - 1.0))
        return 0.0, num_others * math.exp(last / temperature)

    def logprob(self, token_id: int, num_top: int) -> TokenLogprob | None:
        """As `sampling.token_logprob`; None if it cannot be told from these tokens."""
        place = np.flatnonzero(self.ids == token_id)
        if not place.size or num_top > self.ids.size or not np.isfinite(self.logits[[0, place[0]]]).all():
            return None
        top = tuple(
            (int(index), float(logit) - self.log_mass)
            for index, logit in zip(self.ids[:num_top], self.logits[:num_top], strict=True)
        )
        return TokenLogprob(token_id=token_id, logprob=float(self.logits[place[0]]) - self.log_mass, top=top)


@dataclass(frozen=True, slots=True)
class PackedTop:
    """What a program made of a batch, still on the device."""

    array: Any
    """The device's array, `[batch, 2 * count + 1]` i32."""
    count: int
    """Tokens of a row."""
    vocab: int
    """Logits of a row."""

    def unpack(self, row: npt.NDArray[np.int32]) -> TopLogits:
        """One row of what was read of `array`."""
        floats = row[self.count :].view(np.float32)
        return TopLogits(row[: self.count].astype(np.int64), floats[:-1], float(floats[-1]), self.vocab)


def greedy_tokens(packed: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """The most likely token of each row of what was read of `PackedTop.array`; -1 where it is no number."""
    count = packed.shape[1] // 2
    largest = np.ascontiguousarray(packed[:, count]).view(np.float32)
    return np.where(np.isfinite(largest), packed[:, 0], -1).astype(np.int64)
