"""Renders chat templates in processes of their own: a template that loops or grows ends with its process.

What a template is, is told in `chat_template`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
from collections.abc import Mapping
from typing import Any

from amdnfs_runtime.chat_template import TemplateSource
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, UsageError
from amdnfs_runtime.server.template_worker import LENGTH

MEMORY_BYTES = 2**30
"""Address space of a worker; an idle one takes a tenth of it."""

_NUM_WORKERS = 2
_START_TIMEOUT_S = 60.0
_GRACE_S = 2.0
_CODE = "import sys; sys.path[:] = {path!r}; from amdnfs_runtime.server.template_worker import main; main()"


class TemplateRenderer:
    """Renders chats, a few at a time."""

    def __init__(self, source: TemplateSource, timeout_s: float) -> None:
        """Starts nothing yet.

        Args:
            source: The templates.
            timeout_s: Longest time that a chat may take.
        """
        self._source = source
        self._workers = [_Worker(source, timeout_s) for _ in range(_NUM_WORKERS)]
        self._tasks: set[asyncio.Task[Any]] = set()
        # The last one used is taken first: others start only when it is busy.
        self._idle: asyncio.LifoQueue[_Worker] = asyncio.LifoQueue()

    @property
    def source(self) -> TemplateSource:
        """The templates."""
        return self._source

    async def start(self) -> None:
        """Starts the first worker.

        Raises:
            ArtifactError: If a template is no jinja.
        """
        for worker in reversed(self._workers):
            self._idle.put_nowait(worker)
        await self._workers[0].start()

    async def close(self) -> None:
        """Ends the workers."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            await worker.stop()

    async def render(
        self,
        messages: list[dict[str, Any]],
        *,
        tools: list[dict[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The text of a chat; see `ChatTemplate.render`.

        Raises:
            UsageError: If the template refuses the messages, fails with them, or needs too much time or memory.
        """
        job = {
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": add_generation_prompt,
            "variables": dict(variables or {}),
        }
        worker = await self._idle.get()
        # A client that leaves lets its render end: to start another process would cost more.
        task = asyncio.create_task(self._ask(worker, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        answer = await asyncio.shield(task)
        if isinstance(answer, AmdnfsError):
            raise answer
        if "error" in answer:
            raise UsageError(answer["error"])
        return answer["text"]

    async def _ask(self, worker: _Worker, job: dict[str, Any]) -> dict[str, str] | AmdnfsError:
        """Errors are returned: perhaps nobody waits for them any more."""
        try:
            return await worker.ask(job)
        except AmdnfsError as error:
            return error
        finally:
            self._idle.put_nowait(worker)


class _Worker:
    """One process; started again when it has ended."""

    def __init__(self, source: TemplateSource, timeout_s: float) -> None:
        self._source = source
        self._timeout_s = timeout_s
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        code = _CODE.format(path=[entry for entry in sys.path if entry])
        first = {
            "source": dataclasses.asdict(self._source),
            "timeout_s": self._timeout_s,
            "memory_bytes": MEMORY_BYTES,
        }
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                code,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the server, which ends its workers itself
            )
            answer = await self._exchange(first, _START_TIMEOUT_S)
        except (EOFError, OSError, TimeoutError) as error:
            await self.stop()
            raise ArtifactError(
                f"{self._source.origin}: the process that renders chat templates does not start, or does not end; "
                "give another template with --chat-template FILE"
            ) from error
        if "error" in answer:
            await self.stop()
            raise ArtifactError(answer["error"])

    async def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.kill()
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()

    async def ask(self, job: dict[str, Any]) -> dict[str, str]:
        if self._process is None:
            await self.start()
        try:
            return await self._exchange(job, self._timeout_s + _GRACE_S)
        except (EOFError, OSError, TimeoutError) as error:
            await self.stop()
            raise UsageError(
                f"the chat template needs more than {self._timeout_s:g} s or {MEMORY_BYTES >> 20} MiB for these "
                "messages; send fewer or shorter ones"
            ) from error

    async def _exchange(self, value: dict[str, Any], timeout_s: float) -> dict[str, str]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        data = json.dumps(value).encode("ascii")
        async with asyncio.timeout(timeout_s):
            process.stdin.write(LENGTH.pack(len(data)) + data)
            await process.stdin.drain()
            (length,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            answer = json.loads(await process.stdout.readexactly(length))
        assert isinstance(answer, dict)
        return answer
