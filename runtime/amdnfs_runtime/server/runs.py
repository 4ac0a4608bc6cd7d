"""The requests behind one HTTP request while they run: their outputs in one stream, measured for the metrics."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from typing import Any

from amdnfs_runtime.async_engine import RequestStream
from amdnfs_runtime.errors import AmdnfsError
from amdnfs_runtime.request import FinishReason, GenerationResult, Output, TokenLogprob
from amdnfs_runtime.server.metrics import Metrics

CANCELLED = str(FinishReason.CANCELLED)
"""How the metrics call the end of a sample that nobody waits for any more."""
ERROR = "error"
"""How they call that of one that failed."""

_FINISH_REASONS = {FinishReason.LENGTH: "length", FinishReason.CONTEXT: "length"}

Item = tuple[int, Output]
"""The number of a prompt, and what is new for one of its samples."""


class Run:
    """The requests of one HTTP request, one a prompt, while they run."""

    def __init__(self, metrics: Metrics, num_samples: int) -> None:
        """Has no requests yet.

        Args:
            metrics: Gets the times.
            num_samples: Samples of each prompt.
        """
        self.num_samples = num_samples
        self.streams: list[RequestStream] = []
        self._metrics = metrics
        self._began_s = time.perf_counter()
        self._last_s: dict[tuple[int, int], float] = {}
        self._num_ended = 0
        self._source = self._merged()
        self._first: Item | None = None

    async def begin(self) -> None:
        """Waits for the first output, so that a device that fails at once is told by the status of the answer."""
        self._first = await anext(self._source)

    def end(self, reason: str) -> None:
        """Ends all requests; what has ended stays as it is.

        Args:
            reason: How the metrics call the end of the samples that are left: `cancelled` or `error`.
        """
        for stream in self.streams:
            stream.cancel()
        num_left = self.num_samples * len(self.streams) - self._num_ended
        if num_left:
            self._metrics.samples.labels(reason).inc(num_left)
            self._num_ended += num_left

    async def outputs(self) -> AsyncGenerator[Item, None]:
        """The outputs of all samples, each with the number of its prompt.

        Raises:
            AmdnfsError: If a request failed.
        """
        reason = CANCELLED
        try:
            assert self._first is not None
            self._measure(*self._first)
            yield self._first
            async with aclosing(self._source) as source:
                async for item in source:
                    self._measure(*item)
                    yield item
        except AmdnfsError:
            reason = ERROR
            raise
        finally:
            self.end(reason)

    async def results(self) -> list[list[GenerationResult]]:
        """Waits for all samples; those of the first prompt, those of the second, and so on.

        Raises:
            AmdnfsError: If a request failed.
        """
        found: list[dict[int, GenerationResult]] = [{} for _ in self.streams]
        async with aclosing(self.outputs()) as outputs:
            async for prompt_index, output in outputs:
                if output.result is not None:
                    found[prompt_index][output.index] = output.result
        return [[samples[index] for index in sorted(samples)] for samples in found]

    async def _merged(self) -> AsyncGenerator[Item, None]:
        if len(self.streams) == 1:
            async for output in self.streams[0]:
                for joined in _joined([output, *self.streams[0].take_ready()]):
                    yield 0, joined
            return
        queue: asyncio.Queue[tuple[int, Output | Exception | None]] = asyncio.Queue()
        tasks = [asyncio.create_task(_pump(index, stream, queue)) for index, stream in enumerate(self.streams)]
        try:
            num_open = len(tasks)
            while num_open:
                index, item = await queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    num_open -= 1
                else:
                    yield index, item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _measure(self, prompt_index: int, output: Output) -> None:
        key = prompt_index, output.index
        num_tokens = len(output.token_ids)
        if num_tokens:
            now_s = time.perf_counter()
            last_s = self._last_s.get(key)
            if last_s is None:
                self._metrics.first_token_s.observe(now_s - self._began_s)
                last_s, num_tokens = now_s, num_tokens - 1
            for _ in range(num_tokens):  # those that came together share the time
                self._metrics.next_token_s.observe((now_s - last_s) / num_tokens)
            self._last_s[key] = now_s
        if output.result is not None:
            self._num_ended += 1
            self._metrics.samples.labels(str(output.result.finish_reason)).inc()


def finish_reason(result: GenerationResult) -> str:
    """Why a sample ended, in OpenAI's words: `stop` or `length`."""
    return _FINISH_REASONS.get(result.finish_reason, "stop")


def usage(results: Sequence[Sequence[GenerationResult]]) -> dict[str, Any]:
    """The numbers of tokens of an answer; each prompt counts once."""
    num_prompt = sum(len(samples[0].prompt_token_ids) for samples in results)
    num_generated = sum(len(result.token_ids) for samples in results for result in samples)
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_generated,
        "total_tokens": num_prompt + num_generated,
        "prompt_tokens_details": {"cached_tokens": sum(samples[0].timings.num_cached_tokens for samples in results)},
    }


def _joined(outputs: list[Output]) -> Iterable[Output]:
    """One output a sample: a server that lags behind sends less often instead of ever later."""
    if len(outputs) == 1:
        return outputs
    made: dict[int, Output] = {}
    for output in outputs:
        before = made.get(output.index)
        if before is not None:
            output = dataclasses.replace(
                output,
                text=before.text + output.text,
                token_ids=before.token_ids + output.token_ids,
                logprobs=before.logprobs + output.logprobs,
            )
        made[output.index] = output
    return made.values()


async def _pump(index: int, stream: RequestStream, queue: asyncio.Queue[tuple[int, Output | Exception | None]]) -> None:
    try:
        async for output in stream:
            for joined in _joined([output, *stream.take_ready()]):
                queue.put_nowait((index, joined))
        queue.put_nowait((index, None))
    except Exception as error:  # the reader raises it
        queue.put_nowait((index, error))


def shown_logprobs(ended: Output | GenerationResult, eos_token_ids: Sequence[int]) -> list[TokenLogprob]:
    """The logprobs of an output or a whole sample, without that of an end token, which is not part of the text."""
    logprobs = list(ended.logprobs or ())
    result = ended.result if isinstance(ended, Output) else ended
    is_eos = result is not None and result.finish_reason is FinishReason.EOS
    if logprobs and is_eos and logprobs[-1].token_id in eos_token_ids:
        logprobs.pop()
    return logprobs
