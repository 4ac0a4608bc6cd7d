"""What the kernel that rotates queries and keys and writes a cache computes, executed as AMD machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.write_cases import WRITES, Write, check_write

pytestmark = [needs_emulator, pytest.mark.emulator]

PASSES = ("dispatch-kv-write", "dispatch-paged-attention")
TARGETS = sorted({target for case in WRITES for target in case.targets})


@pytest.fixture(scope="module")
def programs() -> Callable[[str], EmulatedModule]:
    """The program of a target, compiled when it is first asked for."""

    @cache
    def build(target: str) -> EmulatedModule:
        return EmulatedModule("".join(case.text() for case in WRITES if target in case.targets), target, 4, PASSES)

    return build


@pytest.mark.parametrize(
    ("target", "case"),
    [(target, case) for target in TARGETS for case in WRITES if target in case.targets],
    ids=lambda value: getattr(value, "name", value),
)
def test_write(programs: Callable[[str], EmulatedModule], rng: np.random.Generator, target: str, case: Write) -> None:
    check_write(programs(target), rng, case)
