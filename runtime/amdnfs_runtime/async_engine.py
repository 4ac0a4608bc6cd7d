"""`AsyncEngine`: an engine in a thread of its own, for many users of one event loop.

    event loop                                engine's thread
    submit, cancel -> commands ------------>  obey, step, obey, step, ...
    streams        <- call_soon_threadsafe -  outputs of the step before

A cancelled request has its pages back before the next step. A device call that takes too long cannot be stopped: the
requests that wait for it fail, new ones are refused, and health says so until the call returns.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Self

from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import AmdnfsError, EngineError
from amdnfs_runtime.health import EngineStats
from amdnfs_runtime.news import News, Request, tell
from amdnfs_runtime.request import GenerationResult, Output, SamplingParams

_POLLS_A_TIMEOUT = 4
_LONGEST_POLL_S = 1.0
_JOIN_S = 5.0


class EngineStatus(StrEnum):
    """Whether requests can be served."""

    OK = "ok"
    """Yes."""
    FAILING = "failing"
    """The last device call failed; requests are taken, as the next may work."""
    STUCK = "stuck"
    """A device call takes too long; requests are refused."""
    STOPPED = "stopped"
    """The engine is not started, closing or closed; requests are refused."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthReport:
    """What to tell a load balancer."""

    status: EngineStatus
    """Whether requests can be served."""
    reason: str
    """What the last failure said; empty if there was none. It stays after the device works again."""
    num_failures: int
    """Device calls that failed or were stuck."""


class RequestStream:
    """The outputs of one request, as they come. One reader; who stops reading early cancels the request."""

    def __init__(self, owner: AsyncEngine, request: Request) -> None:
        """Called by `AsyncEngine.submit`."""
        self.request_id = request.request_id
        self._owner = owner
        self._num_open = self._num_undelivered = len(request.generations)
        self._queue: asyncio.Queue[Output] = asyncio.Queue()

    def __aiter__(self) -> AsyncIterator[Output]:
        """The outputs, up to the last one of the last sample.

        Raises:
            AmdnfsError: If the request failed.
        """
        return self._outputs()

    def cancel(self) -> None:
        """Ends the request; its samples end with the reason `cancelled`. Nothing happens if it has ended."""
        self._owner.cancel(self.request_id)

    def take_ready(self) -> list[Output]:
        """Outputs that have come already, for a reader who lags behind; between two steps of the iteration.

        An error stays for the iteration to raise.
        """
        outputs: list[Output] = []
        while not self._queue.empty():
            output = self._queue.get_nowait()
            if output.error is not None:  # nothing follows it
                self._queue.put_nowait(output)
                break
            self._num_open -= output.is_last
            outputs.append(output)
        return outputs

    async def results(self) -> list[GenerationResult]:
        """Waits for all samples.

        Raises:
            AmdnfsError: If the request failed.
        """
        results = [output.result async for output in self if output.result is not None]
        return sorted(results, key=lambda result: result.index)

    async def _outputs(self) -> AsyncIterator[Output]:
        try:
            while self._num_open:
                output = await self._queue.get()
                if output.error is not None:
                    raise output.error
                self._num_open -= output.is_last
                yield output
        finally:
            if self._num_open:
                self._num_open = 0
                self._owner._forget(self)


class AsyncEngine:
    """Serves requests of one event loop. All methods are for that loop's thread."""

    def __init__(self, engine: Engine) -> None:
        """Takes an engine over; nobody else may use it from now on, but for its hooks and `prepare`."""
        self.engine = engine
        self._streams: dict[str, RequestStream] = {}
        self._commands: deque[Request | str] = deque()
        self._wake = threading.Condition()
        self._news: list[News] = []
        self._is_loop_closed = False
        self._is_open = False
        self._must_end = False
        self._stuck_reason: str | None = None
        self._num_stuck = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._watchdog: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Starts."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes at once."""
        await self.close()

    @property
    def num_streams(self) -> int:
        """Requests that were taken and have not ended."""
        return len(self._streams)

    async def start(self) -> None:
        """Starts the engine's thread."""
        assert self._thread is None, "an AsyncEngine starts once"
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="amdnfs-engine", daemon=True)
        self._is_open = True
        self._thread.start()
        self._watchdog = asyncio.create_task(self._watch())

    async def close(self, drain_s: float = 0.0) -> None:
        """Takes no more requests, waits for those that run, and ends the thread.

        Args:
            drain_s: Longest wait, in seconds; requests that still run then fail with an `EngineError`.
        """
        self._is_open = False
        if self._thread is None:
            return
        deadline = time.monotonic() + drain_s
        while self._streams and self._stuck_reason is None and time.monotonic() < deadline:
            await asyncio.sleep(min(0.01, drain_s))
        self._fail_streams(EngineError("the engine was closed before the request had ended; send it again"))
        with self._wake:
            self._must_end = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join, _JOIN_S)  # a stuck thread is left behind
        if self._watchdog is not None:
            self._watchdog.cancel()
            with suppress(asyncio.CancelledError):
                await self._watchdog

    async def prepare(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None, request_id: str | None = None
    ) -> Request:
        """Checks a request without taking it, in a thread of its own: tokenising and compiling a structure take time.

        Raises:
            CapacityError: If the request can never fit.
            UsageError: If the prompt or an option makes no sense.
        """
        return await asyncio.to_thread(self.engine.prepare, prompt, params or SamplingParams(), request_id)

    def submit(
        self, prompt: str | Sequence[int] | Request, params: SamplingParams | None = None, request_id: str | None = None
    ) -> RequestStream:
        """Takes a request.

        Args:
            prompt: A text or token ids; or what `prepare` made of them, alone.
            params: How to choose tokens, and when to end.
            request_id: Name of the request; by default a new number.

        Raises:
            CapacityError: If the request can never fit.
            EngineError: If the device is stuck or the engine closed.
            UsageError: If the prompt or an option makes no sense, or a running request has the same name.
        """
        if not self._is_open:
            raise EngineError("the engine is closed and takes no requests")
        if self._stuck_reason is not None:
            raise EngineError(f"{self._stuck_reason}; no requests are taken until it answers")
        if isinstance(prompt, Request):
            request = prompt
        else:
            request = self.engine.prepare(prompt, params or SamplingParams(), request_id)
        self.engine.check_name(request.request_id, self._streams)
        stream = self._streams[request.request_id] = RequestStream(self, request)
        self._command(request)
        return stream

    def cancel(self, request_id: str) -> None:
        """Ends a request; its stream ends with the reason `cancelled`. Nothing happens if it has ended."""
        if request_id in self._streams:
            self._command(request_id)

    def stats(self) -> EngineStats:
        """Numbers for gauges and counters; of one moment, but not all of exactly the same one."""
        return self.engine.stats()

    def health(self) -> HealthReport:
        """Whether requests can be served."""
        health = self.engine.health
        status = EngineStatus.OK if health.is_ok else EngineStatus.FAILING
        if self._stuck_reason is not None:
            status = EngineStatus.STUCK
        elif not self._is_open:
            status = EngineStatus.STOPPED
        reason = self._stuck_reason or health.reason
        return HealthReport(status=status, reason=reason, num_failures=health.num_failures + self._num_stuck)

    def _forget(self, stream: RequestStream) -> None:
        """Ends a request that nobody reads any more; another one may have its name by now."""
        if self._streams.get(stream.request_id) is stream:
            del self._streams[stream.request_id]
            self._command(stream.request_id)

    def _command(self, command: Request | str) -> None:
        with self._wake:
            self._commands.append(command)
            self._wake.notify()

    def _deliver(self, outputs: list[Output]) -> None:
        """In the loop's thread: gives outputs to their streams; some may be gone."""
        for output in outputs:
            stream = self._streams.get(output.request_id)
            if stream is None:
                continue
            stream._queue.put_nowait(output)
            if output.error is not None:
                self._forget(stream)
                continue
            stream._num_undelivered -= output.is_last
            if stream._num_undelivered == 0:
                del self._streams[output.request_id]

    def _fail_streams(self, error: AmdnfsError) -> None:
        for name, stream in list(self._streams.items()):
            stream._queue.put_nowait(Output(request_id=name, index=0, text="", token_ids=(), error=error))
            self._forget(stream)

    async def _watch(self) -> None:
        """Looks now and then whether a device call takes too long, and whether one that did has returned."""
        timeout = self.engine.config.call_timeout_s
        while True:
            await asyncio.sleep(min(_LONGEST_POLL_S, timeout / _POLLS_A_TIMEOUT))
            began_s = self.engine.health.call_began_s
            is_late = began_s is not None and self.engine.now_s() - began_s > timeout
            if is_late and self._stuck_reason is None:
                self._stuck_reason = f"the device of {self.engine.target_name} has not answered for {timeout:g} s"
                self._num_stuck += 1
                self._fail_streams(EngineError(f"{self._stuck_reason}; check the device, then send the request again"))
            elif not is_late:
                self._stuck_reason = None

    def _run(self) -> None:
        """The engine's thread."""
        while True:
            with self._wake:
                while not (self._commands or self._must_end or self.engine.has_work):
                    self._wake.wait()
                if self._must_end and not self._commands:
                    return
                commands = list(self._commands)
                self._commands.clear()
            try:
                if any(isinstance(command, str) for command in commands):
                    self._publish_news()  # before the last words of what is cancelled
                self._publish([output for command in commands for output in self._obey(command)])
                self._news = self.engine.advance(self._publish_news)
                if not self.engine.has_work:
                    self._publish_news()
            except Exception as error:  # a bug of ours must not leave clients waiting
                self._fail_all(error)
            if self._is_loop_closed:
                return

    def _fail_all(self, error: Exception) -> None:
        """Ends all requests, also those that have ended and of which not all was told."""
        failure = EngineError(f"internal error of the engine: {error!r}; please report it")
        failure.__cause__ = error
        self._news = []
        self.engine.fail_all(failure)
        self._in_loop(self._fail_streams, failure)

    def _publish_news(self) -> None:
        """Tells what the last step brought: while the device computes the next one, where that is possible."""
        news, self._news = self._news, []
        self._publish(tell(news))

    def _obey(self, command: Request | str) -> list[Output]:
        if isinstance(command, str):
            return self.engine.cancel(command)
        self.engine.start(command)
        return []

    def _publish(self, outputs: list[Output]) -> None:
        if outputs:
            self._in_loop(self._deliver, outputs)

    def _in_loop(self, function: Callable[..., None], argument: object) -> None:
        assert self._loop is not None
        if not self._is_loop_closed:
            try:
                self._loop.call_soon_threadsafe(function, argument)
            except RuntimeError:  # the loop was closed without `close`
                self._is_loop_closed = True
