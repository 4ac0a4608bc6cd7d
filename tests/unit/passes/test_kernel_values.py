"""What our kernels compute, executed as AMD machine code on an emulator, against references in float64.

Every case has two targets, so that each feature meets both families. All cases of a target are one program. Bounds
follow from where the kernels round, as in `test_values.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.attention_cases import ATTENTIONS, Attention, check_attention
from tests.unit.passes.linear_cases import LINEARS, Linear, check_linear

pytestmark = [needs_emulator, pytest.mark.emulator]

NUM_COMPUTE_UNITS = 4
PASSES = ("dispatch-paged-attention", "dispatch-linear")
CASES = [*ATTENTIONS, *LINEARS]
TARGETS = sorted({target for case in CASES for target in case.targets})


@pytest.fixture(scope="module")
def programs() -> Callable[[str], EmulatedModule]:
    """The program of a target, compiled when it is first asked for."""

    @cache
    def build(target: str) -> EmulatedModule:
        text = "".join(case.text() for case in CASES if target in case.targets)
        return EmulatedModule(text, target, NUM_COMPUTE_UNITS, PASSES)

    return build


@pytest.mark.parametrize(
    ("target", "case"),
    [(target, case) for target in TARGETS for case in CASES if target in case.targets],
    ids=lambda value: getattr(value, "name", value),
)
def test_kernel(
    programs: Callable[[str], EmulatedModule], rng: np.random.Generator, target: str, case: Attention | Linear
) -> None:
    if isinstance(case, Attention):
        check_attention(programs(target), rng, case)
    else:
        check_linear(programs(target), rng, case)
