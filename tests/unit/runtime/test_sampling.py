"""The sampler against a slow reference, against transformers, and its invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest
from amdnfs_runtime import sampling
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.sampling import Sampler, token_logprob
from hypothesis import assume, given, settings
from hypothesis import strategies as st

NEG_INF = -math.inf
RELAXED = settings(max_examples=150, deadline=None, derandomize=True)


def slow_scores(logits, params, seen):
    scores = [float(x) for x in logits]
    for i in set(seen):
        if i < len(scores):
            scores[i] = (
                scores[i] * params.repetition_penalty if scores[i] < 0 else scores[i] / params.repetition_penalty
            )
    return scores


def slow_distribution(logits, params, seen):
    """Token id -> probability, one step after the other, each with a softmax of its own."""
    largest = max(slow_scores(logits, params, seen))
    alive = {i: (s - largest) / params.temperature for i, s in enumerate(slow_scores(logits, params, seen))}

    def softmax():
        weights = {i: math.exp(s) for i, s in alive.items()}
        total = math.fsum(weights.values())
        return {i: w / total for i, w in weights.items()}

    if params.top_k:
        threshold = sorted(alive.values(), reverse=True)[min(params.top_k, len(alive)) - 1]
        alive = {i: s for i, s in alive.items() if s >= threshold}
    if params.top_p < 1:
        probabilities, before, kept = softmax(), 0.0, {}
        for i in sorted(alive, key=lambda i: (-alive[i], i)):
            if before < params.top_p:
                kept[i] = alive[i]
            before += probabilities[i]
        alive = kept
    probabilities = softmax()
    floor = params.min_p * max(probabilities.values())
    alive = {i: s for i, s in alive.items() if probabilities[i] >= floor}
    return {i: p for i, p in softmax().items() if p > 1e-300}


def random_logits(rng, vocab=50, excluded=0.0):
    logits = rng.normal(scale=3, size=vocab).astype(np.float32)
    logits[rng.random(vocab) < excluded] = NEG_INF
    logits[rng.integers(vocab)] = 4.0
    return logits


def random_params(rng):
    return SamplingParams(
        temperature=float(rng.uniform(0.2, 2)),
        top_k=int(rng.choice([0, 1, 5, 20, 500])),
        top_p=float(rng.choice([1.0, 0.99, 0.9, 0.5, 0.01])),
        min_p=float(rng.choice([0.0, 0.02, 0.3, 1.0])),
        repetition_penalty=float(rng.choice([1.0, 0.7, 1.3, 5.0])),
        seed=3,
    )


@pytest.mark.parametrize("case", range(120))
def test_distribution_equals_slow_reference(case):
    rng = np.random.default_rng(case)
    logits, params = random_logits(rng, excluded=0.2), random_params(rng)
    prompt = rng.integers(60, size=6).tolist()
    generated = rng.integers(60, size=3).tolist()
    sampler = Sampler(params, prompt)
    for token_id in generated:
        sampler.accept(token_id)
    token_ids, probabilities = sampler.distribution(logits)
    expected = slow_distribution(logits, params, prompt + generated)
    assert token_ids.tolist() == sorted(expected)
    np.testing.assert_allclose(probabilities, [expected[i] for i in sorted(expected)], rtol=1e-12)


@pytest.mark.parametrize("case", range(60))
def test_distribution_equals_transformers(case):
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    rng = np.random.default_rng(1000 + case)
    logits, params = random_logits(rng, vocab=80, excluded=0.1), random_params(rng)
    prompt = rng.integers(90, size=8).tolist()
    steps = [
        processors.RepetitionPenaltyLogitsProcessor(params.repetition_penalty),
        processors.TemperatureLogitsWarper(params.temperature),
        *([processors.TopKLogitsWarper(params.top_k)] if params.top_k else []),
        processors.TopPLogitsWarper(params.top_p),
        processors.MinPLogitsWarper(params.min_p),
    ]
    scores = torch.from_numpy(logits)[None]
    for step in steps:
        scores = step(torch.tensor([prompt]), scores)
    expected = torch.softmax(scores[0], dim=-1).numpy()
    token_ids, probabilities = Sampler(params, prompt).distribution(logits)
    assert token_ids.tolist() == np.flatnonzero(expected).tolist()
    # float32 there: 24 bits, and sums of up to 80 terms.
    np.testing.assert_allclose(probabilities, expected[token_ids], rtol=2e-5)


def test_large_vocabulary_with_a_flat_top_keeps_the_same_nucleus():
    rng = np.random.default_rng(5)
    logits = rng.normal(scale=0.1, size=5000).astype(np.float32)
    for top_p in (0.01, 0.3, 0.9, 0.9999):
        params = SamplingParams(temperature=1.0, top_p=top_p)
        token_ids, _ = Sampler(params, []).distribution(logits)
        assert token_ids.tolist() == sorted(slow_distribution(logits, params, []))


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=1.0, seed=11),
        SamplingParams(temperature=0.7, top_k=5, seed=12),
        SamplingParams(temperature=1.5, top_p=0.8, repetition_penalty=1.5, seed=13),
    ],
)
def test_drawn_frequencies_follow_the_distribution(params):
    logits = np.array([1.0, 0.5, 0.0, -1.0, NEG_INF, 2.0, 0.7, -0.2], dtype=np.float32)
    sampler = Sampler(params, [5])
    expected = slow_distribution(logits, params, [5])
    num_draws = 8_000
    counts = np.bincount([sampler.sample(logits) for _ in range(num_draws)], minlength=logits.size)
    assert set(np.flatnonzero(counts)) == set(expected)
    chi_square = sum((counts[i] - num_draws * p) ** 2 / (num_draws * p) for i, p in expected.items())
    # 99.9 % point of chi-square with 6 degrees of freedom; fewer degrees have a lower one.
    assert chi_square < 22.46


def test_same_seed_same_tokens_whatever_else_is_drawn():
    logits = random_logits(np.random.default_rng(0))
    params = SamplingParams(temperature=1.0, seed=42)
    alone = Sampler(params, [])
    expected = [alone.sample(logits) for _ in range(50)]
    first, other, second = (
        Sampler(params, []),
        Sampler(SamplingParams(temperature=1.0, seed=1), []),
        Sampler(params, []),
    )
    drawn = []
    for _ in range(50):
        drawn.append((first.sample(logits), other.sample(logits), second.sample(logits)))
        np.random.default_rng().random()
    assert [row[0] for row in drawn] == [row[2] for row in drawn] == expected
    assert [row[1] for row in drawn] != expected
    assert len(set(expected)) > 3


def test_top_k_of_large_vocabularies() -> None:
    rng = np.random.default_rng(9)
    for size in (15, 16, 33, 640, 5000):
        for logits in (rng.normal(size=size), rng.integers(0, 9, size), np.where(rng.random(size) < 0.9, NEG_INF, 1.0)):
            logits[rng.integers(size)] = 20.0
            for top_k in {1, 2, 7, size // 40 + 1, size // 2, size}:
                params = SamplingParams(temperature=1.0, top_k=top_k)
                token_ids, _ = Sampler(params, []).distribution(logits.astype(np.float32))
                least = sorted(logits, reverse=True)[min(top_k, size) - 1]
                assert token_ids.tolist() == np.flatnonzero((logits >= least) & (logits > NEG_INF)).tolist()


def slow_adjusted(logits, params, prompt, generated):
    scores = slow_scores(logits, params, prompt + generated)
    for token in set(generated):
        if token < len(scores):
            scores[token] -= params.presence_penalty + params.frequency_penalty * generated.count(token)
    for token, bias in params.bias:
        if token < len(scores):
            scores[token] += bias
    return scores


@pytest.mark.parametrize("case", range(40))
def test_penalties_and_bias_equal_a_slow_reference(case):
    rng = np.random.default_rng(2000 + case)
    logits = random_logits(rng, excluded=0.1)
    params = SamplingParams(
        repetition_penalty=float(rng.choice([1.0, 1.4])),
        presence_penalty=float(rng.choice([0.0, 1.5, -1.0])),
        frequency_penalty=float(rng.choice([0.0, 2.0, -0.5])),
        logit_bias={int(token): float(rng.uniform(-9, 9)) for token in rng.integers(0, 60, rng.integers(0, 4))},
        temperature=float(rng.choice([0.0, 1.0])),
        seed=1,
    )
    prompt, generated = rng.integers(60, size=5).tolist(), rng.integers(60, size=9).tolist()
    sampler = Sampler(params, prompt)
    for token_id in generated:
        sampler.accept(token_id)
    expected = np.array(slow_adjusted(logits, params, prompt, generated))
    if params.is_greedy:
        assert sampler.sample(logits) == int(np.argmax(expected))
        return
    token_ids, probabilities = sampler.distribution(logits)
    weights = np.exp(expected - expected.max())
    assert token_ids.tolist() == np.flatnonzero(weights > 0).tolist()
    np.testing.assert_allclose(probabilities, (weights / weights.sum())[token_ids], rtol=1e-9)


def test_presence_and_frequency_count_generated_tokens_only():
    sampler = Sampler(SamplingParams(presence_penalty=2.0, frequency_penalty=1.0), [1, 1, 1])
    logits = np.array([0.0, 5.0, 4.0], dtype=np.float32)
    chosen = []
    for _ in range(4):
        chosen.append(sampler.sample(logits))
        sampler.accept(chosen[-1])
    # 1 has 5, then 2, then (it is chosen again) 1; 2 has 4, then 1; 0 has 0. Of equals the lowest id.
    assert chosen == [1, 2, 1, 1]
    assert sampler.needs_logits


def test_samples_of_one_seed_differ_and_the_first_is_that_of_one_sample():
    logits = random_logits(np.random.default_rng(0))
    params = SamplingParams(temperature=1.0, seed=42)
    draws = [[sampler.sample(logits) for _ in range(20)] for sampler in (Sampler(params, [], n) for n in range(3))]
    assert draws[0] == [sampler.sample(logits) for sampler in [Sampler(params, [])] for _ in range(20)]
    assert draws[0] != draws[1] != draws[2] != draws[0]


def test_logprobs_are_a_log_softmax_of_the_raw_logits():
    logits = np.array([1.0, 3.0, NEG_INF, 3.0, 2.0], dtype=np.float32)
    item = token_logprob(logits, 4, 3)
    total = math.log(math.exp(1) + 2 * math.exp(3) + math.exp(2))
    assert item.token_id == 4
    assert item.logprob == pytest.approx(2 - total)
    assert [token for token, _ in item.top] == [1, 3, 4]
    assert [value for _, value in item.top] == pytest.approx([3 - total, 3 - total, 2 - total])
    assert token_logprob(logits, 1, 0).top == ()
    assert len(token_logprob(logits, 1, 20).top) == 5
    with pytest.raises(ArtifactError, match="are NaN"):
        token_logprob(logits * np.nan, 1, 0)


def test_random_numbers_are_used_one_a_token_even_when_the_choice_is_forced():
    logits = random_logits(np.random.default_rng(0))
    forced = np.full_like(logits, NEG_INF)
    forced[7] = 0.0
    params = SamplingParams(temperature=1.0, seed=42)
    one, other = Sampler(params, []), Sampler(params, [])
    one.sample(logits)
    assert other.sample(forced) == 7
    assert [one.sample(logits) for _ in range(20)] == [other.sample(logits) for _ in range(20)]


def test_without_seed_samplers_differ():
    logits = np.zeros(1000, dtype=np.float32)
    one, other = (Sampler(SamplingParams(temperature=1.0), []) for _ in range(2))
    assert [one.sample(logits) for _ in range(20)] != [other.sample(logits) for _ in range(20)]


def test_greedy_takes_the_lowest_of_equal_tokens():
    assert Sampler(SamplingParams(), []).sample(np.array([0, 2, 1, 2], dtype=np.float32)) == 1


def test_greedy_with_penalty_leaves_what_was_said():
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), [3])
    logits = np.array([NEG_INF, -1.0, 1.9, 3.0, 2.0], dtype=np.float32)
    before = logits.copy()
    assert sampler.sample(logits) == 4
    sampler.accept(4)
    assert sampler.sample(logits) == 2
    sampler.accept(100)
    assert sampler.sample(logits) == 2
    np.testing.assert_array_equal(logits, before)


def test_negative_logits_are_multiplied_by_the_penalty():
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), [0])
    assert sampler.sample(np.array([-1.0, -1.5], dtype=np.float32)) == 1


@pytest.mark.parametrize(
    ("params", "needed"),
    [
        (SamplingParams(), False),
        (SamplingParams(top_k=5, top_p=0.5, min_p=0.1, seed=3), False),
        (SamplingParams(repetition_penalty=1.1), True),
        (SamplingParams(temperature=0.1), True),
        (SamplingParams(presence_penalty=0.1), True),
        (SamplingParams(frequency_penalty=0.1), True),
        (SamplingParams(logit_bias={1: 1}), True),
        (SamplingParams(logprobs=0), True),
    ],
)
def test_needs_logits(params, needed):
    assert Sampler(params, [1]).needs_logits is needed


@pytest.mark.parametrize("params", [SamplingParams(), SamplingParams(temperature=1.0, top_k=2)])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (
            [0, math.nan, math.nan, math.inf],
            "3 of 4 are NaN or \\+inf, the first is nan at token id 1; .*`amdnfs verify`",
        ),
        ([0, 1, math.inf, NEG_INF], "1 of 4 are NaN or \\+inf, the first is inf at token id 2"),
        ([NEG_INF, NEG_INF], "all 2 logits are -inf, so no token can follow; .*`amdnfs verify`"),
    ],
)
def test_logits_that_are_not_finite_are_refused(params, logits, message):
    with pytest.raises(ArtifactError, match=message):
        Sampler(params, []).sample(np.array(logits, dtype=np.float32))


@pytest.mark.parametrize("shape", [(0,), (2, 3), ()])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"logits must have shape \[vocab\]"):
        Sampler(SamplingParams(), []).sample(np.zeros(shape, dtype=np.float32))


def test_negative_token_ids_are_refused():
    params = SamplingParams(repetition_penalty=2.0)
    with pytest.raises(ValueError, match="token id -1 is negative"):
        Sampler(params, [4, -1])
    with pytest.raises(ValueError, match="token id -2 is negative"):
        Sampler(params, []).accept(-2)


def test_greedy_has_no_distribution():
    with pytest.raises(ValueError, match="has no distribution"):
        Sampler(SamplingParams(), []).distribution(np.zeros(3, dtype=np.float32))


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-6])
def test_smallest_temperatures_take_the_most_likely_tokens(temperature):
    logits = np.array([3e38, 1.0, 3e38, -3e38, NEG_INF], dtype=np.float32)
    params = SamplingParams(temperature=temperature, seed=1)
    token_ids, probabilities = Sampler(params, []).distribution(logits)
    assert (token_ids.tolist(), probabilities.tolist()) == ([0, 2], [0.5, 0.5])


def test_top_k_keeps_all_equal_to_its_last_and_top_p_the_lowest_ids():
    logits = np.array([1, 0, 1, 2, 1], dtype=np.float32)
    top_k = Sampler(SamplingParams(temperature=1.0, top_k=2), []).distribution(logits)[0]
    assert top_k.tolist() == [0, 2, 3, 4]
    top_p = Sampler(SamplingParams(temperature=1.0, top_p=0.5), []).distribution(np.zeros(4, dtype=np.float32))[0]
    assert top_p.tolist() == [0, 1]
    many = np.tile(np.array([0, 1, -9], dtype=np.float32), 300)
    top_p = Sampler(SamplingParams(temperature=1.0, top_p=0.9), []).distribution(many)[0]
    zeros = top_p[many[top_p] == 0]
    assert 0 < zeros.size < 300
    assert zeros.tolist() == list(range(0, 3 * zeros.size, 3))


LOGITS = st.lists(
    st.one_of(st.floats(-(2.0**127), 2.0**127, width=32), st.floats(-5, 5, width=32), st.just(NEG_INF)),
    min_size=1,
    max_size=40,
)


@RELAXED
@given(
    values=LOGITS,
    prompt=st.lists(st.integers(0, 50), max_size=5),
    temperature=st.floats(1e-3, 1e3),
    top_k=st.integers(0, 60),
    top_p=st.floats(1e-6, 1),
    min_p=st.floats(0, 1),
    penalty=st.floats(1e-3, 1e3),
)
def test_any_parameters_give_a_distribution_over_the_best_tokens(
    values, prompt, temperature, top_k, top_p, min_p, penalty
):
    assume(max(values) > NEG_INF)
    logits = np.array(values, dtype=np.float32)
    params = SamplingParams(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty, seed=0
    )
    sampler = Sampler(params, prompt)
    token_ids, probabilities = sampler.distribution(logits)
    scores = np.array(slow_scores(logits, params, prompt))
    assert np.all(np.diff(token_ids) > 0)
    assert np.all(probabilities > 0)
    assert abs(probabilities.sum() - 1) < 1e-12
    assert np.all(logits[token_ids] > NEG_INF)
    assert int(np.argmax(scores)) in token_ids.tolist()
    dropped = np.setdiff1d(np.arange(logits.size), token_ids)
    # float64 rounds scores that differ by less to the same distance from the largest.
    tolerance = 1e-12 * np.abs(scores[scores > NEG_INF]).max()
    assert scores[dropped].max(initial=NEG_INF) <= scores[token_ids].min() + tolerance
    assert sampler.sample(logits) in token_ids.tolist()


LARGE = [
    {},
    {"top_k": 40},
    {"top_k": 3000},
    {"top_k": 10**6},
    {"top_p": 0.9},
    {"top_p": 0.999},
    {"top_p": 1e-9},
    {"top_k": 40, "top_p": 0.8, "min_p": 0.05},
    {"min_p": 0.02},
    {"min_p": 1.0},
    {"top_p": 0.9, "min_p": 0.1},
]


def large_logits(kind, size=9_001):
    rng = np.random.default_rng(11)
    if kind == "flat":
        return rng.normal(scale=0.01, size=size).astype(np.float32)
    if kind == "coarse":
        return rng.integers(-3, 4, size).astype(np.float32)
    if kind == "excluded":
        return np.where(rng.random(size) < 0.99, NEG_INF, rng.normal(size=size)).astype(np.float32)
    logits = rng.normal(scale=3, size=size).astype(np.float32)
    logits[:50] += 9
    return logits * np.float32(1e35) if kind == "huge" else logits


@pytest.mark.parametrize("options", LARGE, ids=str)
@pytest.mark.parametrize("kind", ["peaked", "flat", "coarse", "excluded", "huge"])
@pytest.mark.parametrize("is_altered", [False, True])
def test_narrowing_a_large_vocabulary_loses_nothing(options, kind, is_altered, monkeypatch):
    logits = large_logits(kind)
    best = np.argsort(-logits)[:40].tolist()
    altering = {"repetition_penalty": 1.5, "presence_penalty": 0.5, "logit_bias": {4000: 30.0, 10**5: 3.0}}
    params = SamplingParams(temperature=0.8, seed=5, **options, **(altering if is_altered else {}))
    allowed = np.random.default_rng(1).random(logits.size) < 0.7 if is_altered else None
    if allowed is not None:
        allowed[best[:10]] = True

    def results():
        sampler = Sampler(params, best[::2])
        for token_id in best[:9]:
            sampler.accept(token_id)
        token_ids, probabilities = sampler.distribution(logits, allowed)
        return token_ids, probabilities, [sampler.sample(logits, allowed) for _ in range(40)]

    narrowed = results()
    monkeypatch.setattr(sampling, "_EXACT_TOKENS", 10**9)
    exact = results()
    # Without a limit the narrow path keeps all tokens, too: only draws are made in float32.
    assert narrowed[0].tolist() == exact[0].tolist()
    np.testing.assert_allclose(narrowed[1], exact[1], rtol=1e-12)
    assert narrowed[2] == exact[2]
    if allowed is not None:
        assert allowed[exact[0]].all()


def test_draws_from_a_large_vocabulary_follow_the_distribution():
    rng = np.random.default_rng(3)
    logits = np.full(5_000, -60.0, np.float32)
    likely = np.sort(rng.choice(5_000, 12, replace=False))
    logits[likely] = rng.normal(size=12)
    sampler = Sampler(SamplingParams(temperature=1.0, seed=1), [])
    num_draws = 6_000
    counts = np.bincount([sampler.sample(logits) for _ in range(num_draws)], minlength=logits.size)
    expected = np.exp(logits[likely].astype(float))
    expected *= num_draws / expected.sum()
    assert counts.sum() == counts[likely].sum()
    # 99.9 % point of chi-square with 11 degrees of freedom.
    assert ((counts[likely] - expected) ** 2 / expected).sum() < 31.3


def test_greedy_and_logprobs_of_a_large_vocabulary():
    logits = large_logits("peaked")
    best = np.argsort(-logits, kind="stable")[:5].tolist()
    sampler = Sampler(SamplingParams(repetition_penalty=100.0), best[:2])
    assert sampler.sample(logits) == best[2]
    allowed = np.ones(logits.size, np.bool_)
    allowed[best[2]] = False
    assert sampler.sample(logits, allowed) == best[3]
    item = token_logprob(logits, best[1], 5)
    assert [token for token, _ in item.top] == best
    exact = logits.astype(np.float64)
    exact -= exact.max() + np.log(np.exp(exact - exact.max()).sum())
    np.testing.assert_allclose([value for _, value in item.top], exact[best], atol=1e-6)
    assert item.logprob == item.top[1][1]


def test_when_all_allowed_tokens_are_excluded_the_program_is_broken():
    logits = np.array([1.0, NEG_INF], dtype=np.float32)
    with pytest.raises(ArtifactError, match="the logits of all tokens that may come next are -inf"):
        Sampler(SamplingParams(), []).sample(logits, np.array([False, True]))
