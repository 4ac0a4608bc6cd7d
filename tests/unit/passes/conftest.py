"""Fresh random inputs, whose seed is printed."""

from __future__ import annotations

import secrets

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    seed = secrets.randbits(32)
    print(f"np.random.default_rng({seed}) repeats this")
    return np.random.default_rng(seed)
