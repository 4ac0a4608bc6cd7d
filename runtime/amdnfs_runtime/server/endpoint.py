"""One endpoint that takes JSON: reads the body, runs a handler, and ends it when the client has gone or time is up.

    head -> content type -> body, with bounds -> fields -> handler -> JSON, or server-sent events

A handler gives a JSON object, or an iterator of events. Whatever ends it early cancels its task, and with it its
requests: their pages are free before the next step.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Message, Receive, Scope, Send

from amdnfs_runtime.server.body import parse_body
from amdnfs_runtime.server.errors import ApiError, from_failure
from amdnfs_runtime.server.exchange import Exchange, exchange_of
from amdnfs_runtime.server.fields import Fields
from amdnfs_runtime.server.service import Service

DONE = b"data: [DONE]\n\n"
"""The last event of OpenAI's older streams."""

_SMALL_BYTES = 2**15
_F = TypeVar("_F", bound=Fields)
_T = TypeVar("_T")


class ClientGoneError(Exception):
    """The client closed the connection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Events:
    """An answer that is sent while it is made."""

    events: AsyncGenerator[bytes, None]
    """Server-sent events, whole ones."""
    failure: Callable[[ApiError], bytes]
    """The event for an error."""


Handler = Callable[[Service, _F, Exchange], Coroutine[Any, Any, dict[str, Any] | Events]]
"""What an endpoint does with the fields of a request."""


def event(value: object, name: str | None = None) -> bytes:
    """One server-sent event with JSON."""
    head = "" if name is None else f"event: {name}\n"
    return f"{head}data: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def error_event(error: ApiError) -> bytes:
    """An error in a stream of completions or chats; the clients of OpenAI raise it."""
    return event(error.to_json())


class Endpoint(Generic[_F]):
    """An ASGI application for one path."""

    def __init__(self, service: Service, fields: type[_F], handler: Handler[_F], *, generates: bool) -> None:
        """Makes an endpoint.

        Args:
            service: The model.
            fields: What a request may hold.
            handler: Answers a request.
            generates: Whether a request counts against the most at once.
        """
        self._service = service
        self._fields = fields
        self._handler = handler
        self._generates = generates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        Raises:
            ApiError: Instead of an answer, before one has begun.
        """
        exchange = exchange_of(scope)
        data = await self._read(exchange, receive)
        if len(data) < _SMALL_BYTES:
            fields = parse_body(data, self._fields)
        else:  # in a thread, as others wait for their tokens
            fields = await asyncio.to_thread(parse_body, data, self._fields)
        if not self._generates:
            await _unless_gone(receive, self._answer(fields, exchange, send))
            return
        service = self._service
        service.check_accepts()
        service.num_active += 1
        try:
            with service.metrics.active.track_inprogress(), service.metrics.request_s.time():
                await _unless_gone(receive, self._answer(fields, exchange, send))
        finally:
            service.num_active -= 1

    async def _read(self, exchange: Exchange, receive: Receive) -> bytes:
        kind = exchange.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, f"the content type must be application/json, not {kind!r:.80}")
        most = self._service.config.max_body_bytes
        length = exchange.headers.get("content-length", "0")
        if length.isdigit() and int(length[:20]) > most:
            raise _too_large(most)
        chunks, num_bytes = [], 0
        try:
            async with asyncio.timeout(self._service.config.read_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunks.append(message.get("body", b""))
                    num_bytes += len(chunks[-1])
                    if num_bytes > most:
                        raise _too_large(most)
                    if not message.get("more_body", False):
                        return b"".join(chunks)
        except TimeoutError as error:
            limit = f"{self._service.config.read_timeout_s:g} s"
            raise ApiError(408, f"the body did not come within {limit}", headers={"Connection": "close"}) from error

    async def _answer(self, fields: _F, exchange: Exchange, send: Send) -> None:
        limit_s = self._service.config.request_timeout_s
        answer: dict[str, Any] | Events | None = None
        try:
            async with asyncio.timeout(limit_s):
                answer = await self._handler(self._service, fields, exchange)
                if not isinstance(answer, Events):
                    await send_json(send, 200, answer)
                    return
                await _send_start(send, 200, {"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
                async with aclosing(answer.events) as events:
                    async for item in events:
                        await _send_part(send, item)
        except Exception as error:
            failure = error
            if isinstance(error, TimeoutError):
                failure = ApiError(504, f"the request was not done within {limit_s:g} s", code="timeout")
            if not isinstance(answer, Events):
                raise failure from error
            exchange.failure = failure
            # A client that does not read would keep this here for ever.
            async with asyncio.timeout(self._service.config.read_timeout_s):
                await _send_part(send, answer.failure(from_failure(failure)))
        await _send_part(send, b"", is_last=True)


async def send_json(send: Send, status: int, value: object, headers: dict[str, str] | None = None) -> None:
    """Sends a whole answer."""
    data = json.dumps(value, separators=(",", ":")).encode()
    given = {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}
    await _send_start(send, status, given)
    await _send_part(send, data, is_last=True)


async def send_bytes(send: Send, status: int, data: bytes, media_type: str) -> None:
    """Sends a whole answer of another type."""
    await _send_start(send, status, {"Content-Type": media_type, "Content-Length": str(len(data))})
    await _send_part(send, data, is_last=True)


async def _send_start(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    message: Message = {"type": "http.response.start", "status": status, "headers": raw}
    await send(message)


async def _send_part(send: Send, data: bytes, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": not is_last})


def _too_large(most: int) -> ApiError:
    # The rest of the body is not read, so the connection is of no more use.
    return ApiError(413, f"the body has more than {most} bytes", code="body_too_large", headers={"Connection": "close"})


async def _unless_gone(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """Does some work, and stops it when the client has gone.

    Raises:
        ClientGoneError: If it was stopped.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        await _cancelled(task)
        await _cancelled(gone)


async def _cancelled(task: Awaitable[Any]) -> None:
    assert isinstance(task, asyncio.Task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
