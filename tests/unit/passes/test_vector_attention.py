"""Paged attention written in vectors, the CPU's form, against float64, for one token, for some, and for chunks.

Requests have uneven lengths, pages lie in random order, and what a token may not see is NaN, as is all of page 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amdnfs_targets.detect import cpu_features

from tests.unit.passes.attention_cases import Attention, attend, make_step
from tests.unit.passes.cpu_programs import Array, assert_within, build, call
from tests.unit.passes.test_vector_values import in_f32

FORMS = {
    "pairs": "{vector-lanes=16 vector-registers=32 bf16-pairs=true}",
    "vectors16": "{vector-lanes=16 vector-registers=32}",
    "vectors8": "{vector-lanes=8 vector-registers=16}",
}
UNEVEN = ((70, 1), (0, 1), (0, 0), (33, 1))
CASES = [
    Attention(name="decode", targets=(), spans=UNEVEN, kv_heads=2, group=8, element="bf16"),
    Attention(name="decode_one_head_each", targets=(), spans=((40, 1),), kv_heads=3, head_dim=96, element="bf16"),
    Attention(name="decode_80_window", targets=(), spans=((70, 1),), group=7, head_dim=80, element="bf16", window=9),
    Attention(name="decode_128_sinks", targets=(), spans=UNEVEN[1:], group=4, head_dim=128, page=32, has_sinks=True),
    Attention(name="decode_256_softcap", targets=(), spans=((31, 1),), group=4, head_dim=256, softcap=5.0),
    Attention(name="decode_wide_group", targets=(), spans=UNEVEN[:2], group=24, has_slopes=True),
    Attention(
        name="guesses_everything",
        targets=(),
        spans=((37, 5), (0, 2), (16, 1)),
        tokens=5,
        kv_heads=2,
        group=3,
        element="bf16",
        window=12,
        softcap=5.0,
        has_sinks=True,
        has_slopes=True,
    ),
    Attention(name="guesses_two", targets=(), spans=((37, 4), (0, 2)), tokens=4, group=4, head_dim=80, has_sinks=True),
    Attention(name="chunk", targets=(), spans=((17, 30), (0, 9)), tokens=32, kv_heads=2, group=2, element="bf16"),
    Attention(name="chunk_256", targets=(), spans=((5, 16),), tokens=16, group=2, head_dim=256, element="bf16"),
    Attention(name="chunk_odd", targets=(), spans=((5, 9),), tokens=9, group=4, element="bf16", softcap=5.0),
]


@pytest.fixture(scope="module", params=FORMS)
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    needed = {"pairs": {"avx512f", "avx512_bf16"}, "vectors16": {"avx512f"}}.get(request.param, set())
    if missing := needed - cpu_features():
        pytest.skip(f"this processor has no {', '.join(sorted(missing))}")
    text = "".join(in_f32(case.text()) for case in CASES)
    return build(tmp_path_factory.mktemp(request.param), text, f"lower-paged-attention{FORMS[request.param]}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_attention(module: Any, rng: np.random.Generator, case: Attention) -> None:
    step = make_step(rng, case)
    floats = [item.astype(np.float32) for item in (step.query, step.pool, step.sinks)]
    inputs: list[Array] = [floats[0], floats[1], step.table, step.start, step.valid]
    inputs += [floats[2]] * case.has_sinks + [step.slopes] * case.has_slopes
    got = call(module, f"f32_{case.name}", *inputs)
    for request, (_, valid) in enumerate(case.spans):
        for token in range(valid):
            assert_within(got[request, token], *attend(case, step, request, token))
