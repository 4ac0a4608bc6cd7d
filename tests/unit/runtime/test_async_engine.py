"""The engine behind an event loop: many readers, cancels, failures, a device that hangs, and closing."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.async_engine import AsyncEngine, EngineStatus
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, CapacityError, EngineError, UsageError
from amdnfs_runtime.generation import Generation
from amdnfs_runtime.news import tell
from amdnfs_runtime.request import FinishReason, Output, SamplingParams

from tests.unit.runtime.fakes import PagedProgram, alone, make_engine, make_manifest

TEXT = [1 + (index * index) % 9 for index in range(64)]
LONG = SamplingParams(max_tokens=12, ignore_eos=True)
ENDLESS = SamplingParams(max_tokens=4000, ignore_eos=True)
SEEDED = SamplingParams(temperature=1.3, seed=5, max_tokens=12, ignore_eos=True, n=2)


@pytest.fixture(autouse=True, params=[False, True], ids=["", "queued"])
def is_queued(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether calls return before the device has done them."""
    monkeypatch.setattr(PagedProgram, "is_queued", request.param)
    return bool(request.param)


def served(body: Callable[[AsyncEngine], Awaitable[None]], program: PagedProgram | None = None, **config: Any) -> None:
    """Runs a test with an engine; afterwards all pages must be back and the thread gone."""
    manifest = make_manifest(context=5000, decode=(1, 8))
    engine = make_engine(1300, program, manifest, **config)

    async def main() -> None:
        async with AsyncEngine(engine) as serving:
            await asyncio.wait_for(body(serving), 30)
        assert serving.health().status is EngineStatus.STOPPED

    asyncio.run(main())
    engine.check_integrity()
    assert engine.pool.num_used == 0
    assert "amdnfs-engine" not in {thread.name for thread in threading.enumerate()}


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.002)


async def refusal(kind: type[AmdnfsError], results: Awaitable[Any]) -> str:
    with pytest.raises(kind) as error:
        await results
    return str(error.value)


def test_many_readers_get_what_each_gets_alone() -> None:
    async def body(serving: AsyncEngine) -> None:
        cases = [(TEXT[: 1 + index % 40], (LONG, SEEDED)[index % 2]) for index in range(60)]
        results = await asyncio.gather(*(serving.submit(*case).results() for case in cases))
        for (prompt, params), given in zip(cases, results, strict=True):
            assert [list(item.token_ids) for item in given] == [alone(prompt, params, n) for n in range(params.n)]
        assert serving.stats().totals.num_finished == 90
        assert serving.health().status is EngineStatus.OK

    served(body)


def test_outputs_come_while_the_request_runs() -> None:
    async def body(serving: AsyncEngine) -> None:
        outputs = [output async for output in serving.submit(TEXT[:20], LONG, "mine")]
        assert [output.token_ids for output in outputs] == [(token,) for token in alone(TEXT[:20], LONG)]
        assert {output.request_id for output in outputs} == {"mine"}
        assert [output.is_last for output in outputs] == [False] * 11 + [True]

    served(body)


def test_a_step_is_told_while_the_device_computes_the_next(is_queued: bool) -> None:
    """At the latest: a program whose calls wait for the device tells it before."""
    order: list[str] = []

    class Told(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            order.append("call")
            return super().call(*arguments)

        def read(self, array: Any) -> np.ndarray:
            order.append("read")
            return super().read(array)

    engine = make_engine(40, Told())
    engine.start(engine.prepare([1, 2], SamplingParams(max_tokens=3, ignore_eos=True)))
    news = engine.advance()
    assert order == ["call", "read"]

    def meanwhile() -> None:
        (output,) = tell(news)
        order.append(f"told {len(output.token_ids)}")

    order.clear()
    assert engine.advance(meanwhile)
    assert order == (["call", "told 1", "read"] if is_queued else ["told 1", "call", "read"])


def test_a_call_that_fails_takes_nothing_back(is_queued: bool) -> None:
    """The token before is told before the failure, and once."""

    async def body(serving: AsyncEngine) -> None:
        stream = serving.submit([1, 2, 3], LONG)
        tokens: list[int] = []
        with pytest.raises(ArtifactError, match="device lost in call 4"):
            async for output in stream:
                assert output.result is None
                tokens += output.token_ids
        assert tokens == alone([1, 2, 3], LONG)[:4]

    served(body, PagedProgram(fail_at=lambda number: number == 4))


def test_readers_that_leave_free_their_pages() -> None:
    async def body(serving: AsyncEngine) -> None:
        async for _ in serving.submit(TEXT[:20], ENDLESS):
            break
        task = asyncio.create_task(serving.submit(TEXT[:20], ENDLESS).results())
        await asyncio.sleep(0.02)
        task.cancel()
        await until(lambda: serving.num_streams == 0 and serving.stats().num_used_pages == 0)
        assert serving.stats().totals.num_cancelled == 2

    served(body)


def test_cancel_ends_the_stream_with_what_there_is() -> None:
    async def body(serving: AsyncEngine) -> None:
        stream = serving.submit(TEXT[:20], ENDLESS)
        outputs = []
        async for output in stream:
            outputs.append(output)
            if len(outputs) == 3:
                stream.cancel()
        result = outputs[-1].result
        assert result is not None
        assert result.finish_reason is FinishReason.CANCELLED
        assert result.token_ids == tuple(token for output in outputs for token in output.token_ids)
        stream.cancel()
        serving.cancel("nobody")

    served(body)


def test_a_storm_of_cancels_leaks_nothing() -> None:
    async def one(serving: AsyncEngine, rng: np.random.Generator, number: int) -> bool:
        params = (LONG, SEEDED)[number % 2]
        prompt = TEXT[: 1 + number % 30]
        await asyncio.sleep(rng.random() * 0.3)
        num_wanted = int(rng.integers(0, 12)) if number % 3 == 0 else 10**9
        tokens: dict[int, list[int]] = {0: [], 1: []}
        async for output in serving.submit(prompt, params):
            tokens[output.index] += output.token_ids
            if sum(map(len, tokens.values())) > num_wanted:
                return False
        assert all(tokens[index] == alone(prompt, params, index) for index in range(params.n))
        return True

    async def body(serving: AsyncEngine) -> None:
        rng = np.random.default_rng(0)
        ended = await asyncio.gather(*(one(serving, rng, number) for number in range(300)))
        assert sum(ended) >= 200
        await until(lambda: serving.stats().num_used_pages == 0)
        assert serving.num_streams == 0

    served(body, max_running=8)


def test_a_failing_device_fails_its_requests_and_says_so_until_it_works_again() -> None:
    program = PagedProgram(lambda number: number == 0)

    async def body(serving: AsyncEngine) -> None:
        assert await refusal(ArtifactError, serving.submit(TEXT[:20], LONG).results()) == "device lost in call 0"
        report = serving.health()
        assert (report.status, report.reason, report.num_failures) == (
            EngineStatus.FAILING,
            "device lost in call 0",
            1,
        )
        await serving.submit(TEXT[:20], LONG).results()
        assert serving.health().status is EngineStatus.OK
        assert serving.health().reason == "device lost in call 0"

    served(body, program)


def test_one_sample_that_fails_ends_all_samples_of_its_request() -> None:
    class Broken(PagedProgram):
        def read_rows(self, array: Any, rows: Any) -> np.ndarray:
            values = super().read_rows(array, rows)
            return np.where(np.arange(len(values))[:, None] == 1, np.nan, values)

    async def body(serving: AsyncEngine) -> None:
        assert "logits are not finite" in await refusal(ArtifactError, serving.submit(TEXT[:20], SEEDED).results())
        await until(lambda: serving.stats().num_used_pages == 0)

    served(body, Broken())


def test_a_device_that_hangs_fails_the_requests_and_refuses_new_ones_until_it_answers() -> None:
    gate = threading.Event()

    class Hanging(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            gate.wait(20)
            return super().call(*arguments)

    async def body(serving: AsyncEngine) -> None:
        stuck = "the device of cpu has not answered for 0.05 s"
        streams = [serving.submit(TEXT[:20], LONG) for _ in range(3)]
        for stream in streams:
            message = await refusal(EngineError, stream.results())
            assert message == f"{stuck}; check the device, then send the request again"
        assert (serving.health().status, serving.health().reason) == (EngineStatus.STUCK, stuck)
        with pytest.raises(EngineError, match=f"{stuck}; no requests are taken until it answers"):
            serving.submit(TEXT[:20], LONG)
        gate.set()
        await until(lambda: serving.health().status is EngineStatus.OK)
        await until(lambda: serving.stats().num_used_pages == 0)
        assert serving.health().num_failures == 1
        assert [list(item.token_ids) for item in await serving.submit([1], LONG).results()] == [alone([1], LONG)]

    served(body, Hanging(), call_timeout_s=0.05)


def test_a_bug_fails_the_requests_and_the_engine_goes_on() -> None:
    class Buggy(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            if self.num_calls == 0:
                self.num_calls = 1
                raise KeyError("oh")
            return super().call(*arguments)

    async def body(serving: AsyncEngine) -> None:
        message = await refusal(EngineError, serving.submit([1, 2], LONG).results())
        assert message == "internal error of the engine: KeyError('oh'); please report it"
        assert serving.health().status is EngineStatus.FAILING
        assert len(await serving.submit([1, 2], LONG).results()) == 1

    served(body, Buggy())


def test_a_bug_in_making_text_leaves_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Generation.take_output

    def take_output(generation: Generation) -> Output:
        if generation.request_id == "b" and generation.finish_reason is not None:
            raise ValueError("planted")
        return told(generation)

    monkeypatch.setattr(Generation, "take_output", take_output)

    async def body(serving: AsyncEngine) -> None:
        other = serving.submit([1, 2], ENDLESS, "a")
        broken = serving.submit([1, 2], SamplingParams(max_tokens=3, ignore_eos=True), "b")
        for stream in (broken, other):
            assert "internal error of the engine: ValueError('planted')" in await refusal(EngineError, stream.results())
        (result,) = await serving.submit([1, 2, 3], LONG, "c").results()
        assert list(result.token_ids) == alone([1, 2, 3], LONG)

    served(body)


def test_what_had_ended_before_a_bug_in_its_step_is_not_left_waiting() -> None:
    class Buggy(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            if self.num_calls == 1:
                self.num_calls += 1
                raise TypeError("planted")
            return super().call(*arguments)

    async def body(serving: AsyncEngine) -> None:
        one = SamplingParams(max_tokens=1, ignore_eos=True)
        streams = [serving.submit([1, 2], one), serving.submit([2, 3], one)]
        for stream in streams:
            assert "TypeError('planted')" in await refusal(EngineError, stream.results())
        (result,) = await serving.submit([1, 2, 3], LONG).results()
        assert list(result.token_ids) == alone([1, 2, 3], LONG)

    served(body, Buggy())


def test_a_late_reader_does_not_end_a_newer_request_of_the_same_name() -> None:
    async def body(serving: AsyncEngine) -> None:
        first = serving.submit([1, 2, 3], LONG, "r")
        await until(lambda: serving.num_streams == 0)
        second = serving.submit([1, 2, 3], LONG, "r")
        await refusal(ArtifactError, first.results())
        (result,) = await second.results()
        assert list(result.token_ids) == alone([1, 2, 3], LONG)

    served(body, PagedProgram(fail_at=lambda number: number == 0))


def test_closing_waits_for_those_that_run_and_fails_those_that_take_too_long() -> None:
    async def body(serving: AsyncEngine) -> None:
        short = asyncio.create_task(serving.submit([1, 2], LONG).results())
        long = asyncio.create_task(serving.submit([3, 4], ENDLESS).results())
        await asyncio.sleep(0)
        closing = asyncio.create_task(serving.close(drain_s=0.3))
        await asyncio.sleep(0)
        with pytest.raises(EngineError, match="the engine is closed and takes no requests"):
            serving.submit([1], LONG)
        assert [list(item.token_ids) for item in await short] == [alone([1, 2], LONG)]
        message = "the engine was closed before the request had ended; send it again"
        assert await refusal(EngineError, long) == message
        await closing

    served(body)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (([99],), UsageError, "prompt token ids must be from 0 to 10, and at least one; got [99]"),
        (([1] * 5000,), CapacityError, "the prompt has 5000 tokens, but the context is 5000 tokens"),
        (([1], LONG, "twice"), UsageError, "request 'twice' exists: wait until it has ended, or choose another name"),
    ],
)
def test_bad_requests_are_refused_at_once(arguments: Any, kind: type[AmdnfsError], message: str) -> None:
    async def body(serving: AsyncEngine) -> None:
        first = serving.submit([1], ENDLESS, "twice")
        with pytest.raises(kind, match=re.escape(message)):
            serving.submit(*arguments)
        first.cancel()
        await first.results()

    served(body)


def test_a_reader_that_lags_takes_what_has_come() -> None:
    async def body(serving: AsyncEngine) -> None:
        stream = serving.submit(TEXT[:20], SEEDED)
        tokens: dict[int, list[int]] = {0: [], 1: []}
        num_reads = 0
        async for first in stream:
            await until(lambda: serving.num_streams == 0)
            num_reads += 1
            for output in (first, *stream.take_ready()):
                tokens[output.index] += output.token_ids
        assert num_reads == 1
        assert stream.take_ready() == []
        assert [tokens[index] for index in (0, 1)] == [alone(TEXT[:20], SEEDED, index) for index in (0, 1)]

    served(body)


def test_what_has_come_before_a_failure_is_taken_and_the_failure_raised() -> None:
    program = PagedProgram(lambda number: number == 4)

    async def body(serving: AsyncEngine) -> None:
        stream = serving.submit(TEXT[:4], LONG)
        tokens: list[int] = []
        with pytest.raises(ArtifactError, match="device lost in call 4"):
            async for first in stream:
                await until(lambda: serving.num_streams == 0)
                for output in (first, *stream.take_ready()):
                    tokens += output.token_ids
        assert tokens == alone(TEXT[:4], LONG)[: len(tokens)]
        assert len(tokens) == 4

    served(body, program)
