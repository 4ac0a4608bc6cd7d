"""The engine on a device that reads texts through the page table: nothing is lost, mixed up, starved or leaked."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.errors import CapacityError, UsageError
from amdnfs_runtime.request import FinishReason, SamplingParams
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.unit.runtime.fakes import PAGE_TOKENS, PagedProgram, alone, finish, make_engine, make_manifest, run_all

TEXT = [1 + (index * index) % 9 for index in range(64)]
LONG = SamplingParams(max_tokens=12, ignore_eos=True)
SEEDED = SamplingParams(temperature=1.3, top_k=8, seed=5, max_tokens=12, ignore_eos=True)

PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 12),
    temperature=st.sampled_from([0.0, 0.0, 1.2]),
    seed=st.integers(0, 3),
    n=st.sampled_from([1, 1, 1, 3]),
    ignore_eos=st.booleans(),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.7]),
)


class EngineMachine(RuleBasedStateMachine):
    """Random requests, cancels and failures on a pool that is too small for all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.failing = False
        self.program = PagedProgram(lambda number: self.failing)
        self.stored: set[int] = set()
        self.engine = make_engine(14, self.program, max_running=5, max_step_tokens=24)
        cache = self.engine._cache
        assert cache is not None
        cache.on_stored = self.on_stored
        cache.on_removed = lambda names: self.stored.difference_update(names)
        self.open: dict[str, tuple[list[int], SamplingParams]] = {}
        self.tokens: dict[tuple[str, int], list[int]] = {}

    def on_stored(self, names: tuple[int, ...], parent: int, tokens: tuple[int, ...]) -> None:
        assert len(tokens) == len(names) * PAGE_TOKENS
        assert not self.stored & set(names)
        assert len(set(names)) == len(names)
        self.stored.update(names)

    @rule(begin=st.sampled_from([0, 0, 0, 20]), length=st.integers(1, 30), params=PARAMS)
    def submit(self, begin: int, length: int, params: SamplingParams) -> None:
        prompt = TEXT[begin : begin + length]
        request = self.engine.prepare(prompt, params)
        self.engine.start(request)
        self.open[request.request_id] = (prompt, params)

    @rule(num_steps=st.integers(1, 6))
    def run(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.step()

    @rule()
    def fail_once(self) -> None:
        self.failing = True
        num_calls = self.program.num_calls
        self.step()
        self.failing = False
        if self.program.num_calls > num_calls:
            assert not self.engine.health.is_ok
            assert self.stored == set()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        name = data.draw(st.sampled_from(sorted(self.open)))
        assert self.engine.cancel(name)
        del self.open[name]
        self.engine.check_integrity()
        assert not self.engine.cancel(name)

    def step(self) -> None:
        for output in self.engine.step():
            prompt, params = self.open[output.request_id]
            tokens = self.tokens.setdefault((output.request_id, output.index), [])
            tokens += output.token_ids
            if output.error is not None:
                assert self.failing
                self.engine.cancel(output.request_id)
                self.open.pop(output.request_id, None)
                break
            if output.result is not None:
                assert list(output.result.token_ids) == tokens == alone(prompt, params, output.index)
        for name in list(self.open):
            if name not in self.engine.request_ids:
                del self.open[name]
        self.engine.check_integrity()
        cache = self.engine._cache
        assert cache is not None
        assert self.stored == set(cache._entries)

    def teardown(self) -> None:
        for _ in range(10_000):
            if not self.engine.has_work:
                break
            self.step()
        assert not self.engine.has_work, "somebody starves"
        assert self.engine.pool.num_used == 0
        assert self.open == {}


TestEngineMachine = EngineMachine.TestCase
TestEngineMachine.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize("params", [LONG, SEEDED])
@pytest.mark.parametrize("config", [{}, {"max_running": 1}, {"max_step_tokens": 1}, {"prefix_cache": False}])
def test_output_under_load_equals_output_alone(params: SamplingParams, config: dict[str, Any]) -> None:
    prompts = [TEXT[:length] for length in (1, 2, 4, 5, 16, 17, 30, 33, 8, 8, 21)]
    results = run_all(make_engine(**config), prompts, params)
    assert [list(result.token_ids) for result in results] == [alone(prompt, params) for prompt in prompts]


def test_preemption_gives_the_same_text() -> None:
    prompts = [TEXT[index : index + 10] for index in range(12)]
    for params in (LONG, SEEDED):
        for cached in (True, False):
            engine = make_engine(1 + 9, prefix_cache=cached)
            results = run_all(engine, prompts, params)
            assert [list(result.token_ids) for result in results] == [alone(prompt, params) for prompt in prompts]
            assert engine.stats().num_preemptions > 0


def test_the_request_that_came_last_is_preempted_and_the_first_never() -> None:
    engine = make_engine(1 + 7)
    names = []
    for index in range(3):
        request = engine.prepare(TEXT[index : index + 7], SamplingParams(max_tokens=20, ignore_eos=True))
        engine.start(request)
        names.append(request.request_id)
    ends = []
    while engine.has_work:
        ends += [output.request_id for output in engine.step() if output.is_last]
    assert ends == names
    assert engine.stats().num_preemptions > 0


def test_pages_are_taken_as_they_are_needed() -> None:
    engine = make_engine()
    engine.start(engine.prepare(TEXT[:5], SamplingParams(max_tokens=20, ignore_eos=True)))
    used = []
    while engine.has_work:
        engine.step()
        used.append(engine.pool.num_used)
    assert used[:4] == [2, 2, 2, 2]
    assert max(used) == 6
    assert used[-1] == 0


def test_a_greedy_step_reads_no_logits_and_a_mixed_one_only_the_rows_that_sample() -> None:
    program = PagedProgram()
    engine = make_engine(program=program)
    run_all(engine, [TEXT[:9], TEXT[:3]], LONG)
    assert program.num_rows_read == 0
    greedy, sampled = engine.prepare(TEXT[:9], LONG), engine.prepare(TEXT[:5], SEEDED)
    for request in (greedy, sampled):
        engine.start(request)
    finish(engine)
    assert program.num_rows_read == 12


def test_decode_takes_the_smallest_program_that_holds_all_or_several() -> None:
    program = PagedProgram()
    engine = make_engine(program=program, manifest=make_manifest(decode=(1, 2, 4)), max_running=7)
    run_all(engine, [[token] for token in range(1, 8)], SamplingParams(max_tokens=2, ignore_eos=True))
    assert program.names == ["decode_4", "decode_4"] * 2
    run_all(engine, [[token] for token in range(1, 6)], SamplingParams(max_tokens=1, ignore_eos=True))
    assert program.names[4:] == ["decode_4", "decode_1"]


def test_a_long_prompt_does_not_stop_those_that_run() -> None:
    engine = make_engine(manifest=make_manifest(prefill=(4,), decode=(4,)), max_step_tokens=8)
    running = engine.prepare(TEXT[:2], LONG)
    engine.start(running)
    engine.step()
    engine.start(engine.prepare(TEXT[:40], LONG))
    for _ in range(5):
        assert [output.request_id for output in engine.step()] == [running.request_id]
    finish(engine)


def test_prompts_go_on_while_others_decode_however_small_a_step_is() -> None:
    engine = make_engine(max_step_tokens=1)
    engine.start(engine.prepare(TEXT[:2], SamplingParams(max_tokens=60, ignore_eos=True)))
    engine.step()
    late = engine.prepare(TEXT[:9], SamplingParams(max_tokens=1))
    engine.start(late)
    outputs = [output for _ in range(5) for output in engine.step()]
    assert late.request_id in {output.request_id for output in outputs}
    finish(engine)


def test_samples_share_the_pages_of_their_prompt() -> None:
    program = PagedProgram()
    engine = make_engine(program=program)
    params = SamplingParams(temperature=1.0, seed=3, n=4, max_tokens=6, ignore_eos=True)
    results = run_all(engine, [TEXT[:30]], params)
    assert [list(result.token_ids) for result in results] == [alone(TEXT[:30], params, index) for index in range(4)]
    assert [result.timings.num_cached_tokens for result in results] == [0, 28, 28, 28]
    assert program.num_tokens == 30 + 3 * 2 + 4 * 5
    assert len({result.token_ids for result in results}) == 4


def test_a_chat_computes_little_of_what_is_sent() -> None:
    rng = np.random.default_rng(0)
    manifest = make_manifest(prefill=(16, 64), context=4096)
    engine = make_engine(1024, manifest=manifest)
    chat = rng.integers(1, 11, 1000).tolist()
    for _ in range(20):
        chat += rng.integers(1, 11, 30).tolist()
        result = run_all(engine, [chat], SamplingParams(max_tokens=40, ignore_eos=True))[0]
        chat += result.token_ids
    totals = engine.stats().totals
    assert totals.num_prompt_tokens > 20_000
    computed = totals.num_prompt_tokens - totals.num_cached_tokens
    assert computed == totals.num_prefill_tokens <= totals.num_prompt_tokens * 0.1


def test_without_a_prefix_cache_everything_is_computed() -> None:
    engine = make_engine(prefix_cache=False)
    for _ in range(2):
        run_all(engine, [TEXT[:30]], LONG)
    assert engine.stats().totals.num_cached_tokens == 0
    assert engine.stats().num_cached_pages == 0


def test_the_prefix_cache_gives_pages_up_when_they_are_needed() -> None:
    engine = make_engine(1 + 12)
    first = run_all(engine, [TEXT[:20]], LONG)
    assert engine.stats().num_cached_pages > 0
    run_all(engine, [TEXT[index : index + 20] for index in range(1, 9)], LONG)
    again = run_all(engine, [TEXT[:20]], LONG)
    assert again[0].token_ids == first[0].token_ids
    assert again[0].timings.num_cached_tokens == 0


def test_a_failing_call_fails_its_requests_only_and_the_engine_goes_on() -> None:
    program = PagedProgram()
    engine = make_engine(program=program, manifest=make_manifest(decode=(2,)), max_running=4)
    requests = [engine.prepare([token], LONG) for token in range(1, 5)]
    for request in requests:
        engine.start(request)
    engine.step()
    program.fail_at = lambda number: number == 2
    outputs = engine.step()
    assert [output.error is None for output in outputs] == [False, False, True, True]
    assert str(outputs[0].error) == "device lost in call 2"
    assert (engine.health.num_failures, engine.health.reason) == (1, "device lost in call 2")
    assert engine.health.is_ok, "the second call of the step worked"
    engine.check_integrity()
    assert len(finish(engine)) == 2
    assert engine.stats().totals.num_failed == 2
    assert [list(result.token_ids) for result in run_all(engine, [[1]], LONG)] == [alone([1], LONG)]


def test_a_piece_of_a_prompt_that_fails_takes_the_rest_of_the_prompt_along() -> None:
    program = PagedProgram(lambda number: number == 0)
    engine = make_engine(program=program, max_step_tokens=64)
    engine.start(engine.prepare(TEXT[:40], LONG))
    assert [str(output.error) for output in engine.step()] == ["device lost in call 0"]
    assert program.num_calls == 1
    assert not engine.health.is_ok
    assert not engine.has_work
    assert engine.stats().num_cached_pages == 0


def test_logits_that_are_not_numbers_fail_one_request() -> None:
    class Broken(PagedProgram):
        def read_rows(self, array: Any, rows: Any) -> np.ndarray:
            return super().read_rows(array, rows) * np.nan

    engine = make_engine(program=Broken())
    good, bad = engine.prepare([1], LONG), engine.prepare([2], SEEDED)
    for request in (good, bad):
        engine.start(request)
    last = finish(engine)
    assert "logits are not finite" in str(last[bad.request_id, 0].error)
    assert last[good.request_id, 0].result is not None


def test_cancel_frees_pages_at_once_wherever_a_request_is() -> None:
    for num_steps in range(8):
        engine = make_engine(1 + 12, max_step_tokens=4)
        requests = [engine.prepare(TEXT[index : index + 14], LONG) for index in range(4)]
        for request in requests:
            engine.start(request)
        for _ in range(num_steps):
            engine.step()
        for request in requests:
            engine.cancel(request.request_id)
            engine.check_integrity()
        assert engine.pool.num_used == 0
        assert engine.step() == []
        assert {item.finish_reason for request in requests for item in request.generations} == {FinishReason.CANCELLED}


def test_a_storm_of_cancels() -> None:
    rng = np.random.default_rng(1)
    engine = make_engine(1 + 30, max_running=8, manifest=make_manifest(decode=(1, 8)))
    for number in range(600):
        begin, length = rng.integers(0, 8), rng.integers(1, 30)
        engine.start(engine.prepare(TEXT[begin : begin + length], LONG if number % 2 else SEEDED))
        engine.step()
        if rng.random() < 0.6:
            engine.cancel(str(rng.choice(engine.request_ids or ("none",))))
        engine.check_integrity()
    finish(engine)
    totals = engine.stats().totals
    assert totals.num_finished + totals.num_cancelled == 600
    assert totals.num_cancelled > 200


def test_10000_requests_lose_nothing_and_leak_no_page() -> None:
    rng = np.random.default_rng(2)
    engine = make_engine(1 + 400, manifest=make_manifest(decode=(1, 64), vocab=50), max_running=64)
    lengths = rng.integers(1, 9, 10_000)
    names = set()
    for length in lengths:
        request = engine.prepare(rng.integers(1, 50, length).tolist(), SamplingParams(max_tokens=2, ignore_eos=True))
        engine.start(request)
        names.add(request.request_id)
    ended = []
    while engine.has_work:
        ended += [output.request_id for output in engine.step() if output.result is not None]
    engine.check_integrity()
    assert (len(ended), set(ended)) == (10_000, names)
    assert engine.pool.num_used == 0


def test_a_request_that_can_never_fit_is_refused_before_it_starts() -> None:
    engine = make_engine(1 + 5)
    message = (
        "the request needs 8 pages of 4 tokens (20 of prompt, up to 11 generated), but the pool has 5; "
        "ask for fewer tokens, or load with more pages"
    )
    with pytest.raises(CapacityError, match=re.escape(message)):
        engine.prepare(TEXT[:20], LONG)
    with pytest.raises(CapacityError, match="the prompt has 64 tokens, but the context is 64"):
        engine.prepare(TEXT, LONG)


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ("text", {}, "this engine has no tokenizer: give token ids instead of text"),
        ([1], {"stop": "a"}, "this engine has no tokenizer: it cannot look for stop strings"),
        ([1], {"logit_bias": {11: 1}}, "logit_bias names token 11, but the vocabulary has 11 tokens (0 to 10)"),
    ],
)
def test_requests_that_make_no_sense(prompt: Any, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        make_engine().prepare(prompt, SamplingParams(**params))


def test_two_requests_of_one_name() -> None:
    engine = make_engine()
    engine.start(engine.prepare([1], LONG, "mine"))
    with pytest.raises(UsageError, match="request 'mine' exists: wait until it has ended, or choose another name"):
        engine.start(engine.prepare([1], LONG, "mine"))
    finish(engine)
    engine.start(engine.prepare([1], LONG, "mine"))
