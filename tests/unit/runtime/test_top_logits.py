"""What is chosen from the largest logits must be what is chosen from all of them, whenever it is chosen at all."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.sampling import Sampler, token_logprob
from amdnfs_runtime.top_logits import PackedTop, TopLogits, greedy_tokens

from tests.unit.runtime.fakes import PagedProgram, alone, make_engine

VOCAB, COUNT = 5000, 64


@pytest.fixture
def rng() -> np.random.Generator:
    seed = secrets.randbits(32)
    print(f"np.random.default_rng({seed}) repeats this")
    return np.random.default_rng(seed)


def top_of(logits: np.ndarray, count: int = COUNT) -> TopLogits:
    order = np.argsort(-logits.astype(np.float64), kind="stable")[:count]
    wide = logits.astype(np.float64)
    mass = np.float32(wide.max() + np.log(np.exp(wide - wide.max()).sum()))
    return TopLogits(order, logits[order], float(mass), logits.size)


def random_logits(rng: np.random.Generator, spread: float) -> np.ndarray:
    return (spread * rng.standard_normal(VOCAB)).astype(np.float32)


@pytest.mark.parametrize(
    ("params", "least_share"),
    [
        ({}, 1.0),
        ({"temperature": 0.7, "top_k": 40}, 1.0),
        ({"temperature": 1.3, "top_k": 64, "top_p": 0.9}, 0.0),  # the 64th of 64 may have equals that are not here
        ({"temperature": 1.3, "top_k": 50, "top_p": 0.9, "min_p": 0.01}, 1.0),
        ({"temperature": 1.0, "top_p": 0.9}, 0.1),
        ({"temperature": 0.6, "top_p": 0.95}, 0.2),
        ({"temperature": 1.4, "top_p": 0.3}, 0.0),
        ({"temperature": 0.8, "min_p": 0.05}, 0.3),
        ({"temperature": 1.0, "top_k": 20, "repetition_penalty": 1.3}, 1.0),
        ({"temperature": 0.8, "top_p": 0.9, "frequency_penalty": 0.5, "presence_penalty": 0.2}, 0.05),
        ({"repetition_penalty": 1.5}, 1.0),
        ({"temperature": 0.9, "top_k": 8, "logit_bias": {3: -5.0, 70: -100.0}}, 1.0),
    ],
)
def test_the_same_tokens_as_from_all_logits(
    params: dict[str, Any], least_share: float, rng: np.random.Generator
) -> None:
    prompt = rng.integers(0, VOCAB, 40).tolist()
    numbers = {"seed": int(rng.integers(1 << 30))} if params.get("temperature") else {}
    one, other = (Sampler(SamplingParams(**params, **numbers), prompt) for _ in range(2))
    num_chosen = 0
    for index in range(120):
        logits = random_logits(rng, (1.0, 3.0, 6.0)[index % 3])
        top = top_of(logits)
        if index % 4 == 0:  # penalised tokens among the largest
            logits[prompt[:3]] = logits[top.ids[0]]
            top = top_of(logits)
        expected = one.sample(logits)
        chosen = other.sample_top(top)
        assert chosen is None or chosen == expected
        num_chosen += chosen is not None
        if chosen is None:
            other.sample(logits)  # by the random number that was not used
        for sampler in (one, other):
            sampler.accept(expected)
    assert num_chosen >= least_share * 120


@pytest.mark.parametrize("params", [{}, {"temperature": 0.8, "top_k": 5}, {"temperature": 1.0, "top_p": 0.8}])
def test_structures_choose_from_what_is_allowed(params: dict[str, Any], rng: np.random.Generator) -> None:
    one, other = (Sampler(SamplingParams(**params, **({"seed": 7} if params else {})), [1]) for _ in range(2))
    num_chosen = 0
    for _ in range(60):
        logits, allowed = random_logits(rng, 5.0), rng.random(VOCAB) < 0.4
        expected, chosen = one.sample(logits, allowed), other.sample_top(top_of(logits), allowed)
        assert chosen in (None, expected)
        num_chosen += chosen is not None
        if chosen is None:
            other.sample(logits, allowed)
    assert num_chosen


def test_nothing_is_chosen_where_others_may_matter(rng: np.random.Generator) -> None:
    logits = random_logits(rng, 2.0)
    top = top_of(logits)
    nobody = np.zeros(VOCAB, np.bool_)
    nobody[np.argmin(logits)] = True
    greedy = SamplingParams()
    assert Sampler(greedy, [1]).sample_top(top, nobody) is None
    assert Sampler(SamplingParams(temperature=1.0), [1]).sample_top(top) is None
    assert Sampler(SamplingParams(temperature=1.0, top_k=65), [1]).sample_top(top) is None
    assert Sampler(SamplingParams(logit_bias={5: 1.0}), [1]).sample_top(top) is None
    assert Sampler(SamplingParams(repetition_penalty=0.9), [1]).sample_top(top) is None
    equal = np.zeros(VOCAB, np.float32)
    assert Sampler(SamplingParams(temperature=1.0, top_k=8), [1]).sample_top(top_of(equal)) is None
    for bad in (np.nan, np.inf, -np.inf):
        row = np.full(VOCAB, bad, np.float32)
        assert Sampler(greedy, [1]).sample_top(TopLogits(np.arange(COUNT), row[:COUNT], float(bad), VOCAB)) is None


def test_a_short_row_is_known_whole(rng: np.random.Generator) -> None:
    logits = rng.standard_normal(50).astype(np.float32)
    params = SamplingParams(temperature=1.5, top_p=0.99, seed=3)
    assert Sampler(params, [1]).sample_top(top_of(logits, 50)) == Sampler(params, [1]).sample(logits)


def test_log_probabilities_are_those_of_the_row(rng: np.random.Generator) -> None:
    logits = random_logits(rng, 4.0)
    top = top_of(logits)
    for token, num_top in ((int(top.ids[0]), 5), (int(top.ids[40]), 0), (int(top.ids[3]), 64)):
        told, wanted = top.logprob(token, num_top), token_logprob(logits, token, num_top)
        assert told is not None
        assert told.logprob == pytest.approx(wanted.logprob, abs=1e-5)
        assert [pair[0] for pair in told.top] == [pair[0] for pair in wanted.top]
        assert [pair[1] for pair in told.top] == pytest.approx([pair[1] for pair in wanted.top], abs=1e-5)
    assert top.logprob(int(np.argmin(logits)), 5) is None
    assert top.logprob(int(top.ids[0]), 65) is None


def test_the_rest_weighs_what_is_said(rng: np.random.Generator) -> None:
    for spread in (0.5, 2.0, 6.0):
        logits = random_logits(rng, spread)
        top = top_of(logits)
        others = np.delete(logits.astype(np.float64), top.ids) - float(top.logits[0])
        for temperature in (0.3, 0.7, 1.0, 1.7):
            least, most = top.rest_range(temperature)
            assert least <= np.exp(others / temperature).sum() <= most


def test_what_a_program_packed_is_unpacked() -> None:
    packed = np.array([[7, 3, 0, 0, 0], [2, 9, 0, 0, 0]], np.int32)
    packed[:, 2:] = np.array([[1.5, -2.0, 1.6], [np.nan, 4.0, np.nan]], np.float32).view(np.int32)
    first, second = (PackedTop(None, 2, 10).unpack(row) for row in packed)
    assert (first.ids.tolist(), first.logits.tolist(), first.vocab) == ([7, 3], [1.5, -2.0], 10)
    assert first.log_mass == pytest.approx(1.6)
    assert second.ids.tolist() == [2, 9]
    assert greedy_tokens(packed).tolist() == [7, -1]  # what is no number is no token


@pytest.mark.parametrize(
    ("params", "may_read"),
    [
        ({}, False),
        ({"logprobs": 2}, False),
        ({"temperature": 0.9, "top_k": 3, "seed": 5}, False),
        ({"temperature": 0.9, "top_k": 3, "seed": 5, "logprobs": 3}, False),
        ({"temperature": 0.9, "seed": 5}, True),
        ({"logprobs": 7}, True),
        ({"min_tokens": 4, "stop_token_ids": (2, 3)}, True),
    ],
)
def test_an_engine_reads_no_row_that_it_does_not_need(params: dict[str, Any], may_read: bool) -> None:
    program = PagedProgram(num_top=6)
    engine = make_engine(program=program)
    prompts = [[1, 2, 3], [4, 5], [6]]
    sampling = SamplingParams(max_tokens=6, **params)
    for index, prompt in enumerate(prompts):
        engine.start(engine.prepare(prompt, sampling, request_id=str(index)))
    results = {}
    while len(results) < len(prompts):
        for output in engine.step():
            if output.result is not None:
                results[output.request_id] = output.result
    for index, prompt in enumerate(prompts):
        assert list(results[str(index)].token_ids) == alone(prompt, sampling)
    assert engine.counters.num_rows_read == program.num_rows_read
    assert may_read or not program.num_rows_read
