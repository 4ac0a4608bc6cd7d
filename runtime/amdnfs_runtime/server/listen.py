"""Listens, serves, and stops in good order.

    SIGTERM or Ctrl-C -> not ready, new requests refused -> running ones may end -> the rest are told -> closed

A second signal ends the wait for running requests, a third everything.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from amdnfs_runtime.async_engine import EngineStatus
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.app import make_app
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.gate import IS_TOO_MANY
from amdnfs_runtime.server.logs import log_event
from amdnfs_runtime.server.service import Service

_LAST_ANSWERS_S = 5
_KEEP_ALIVE_S = 30
_POLL_S = 0.02
_BACKLOG = 2048
_READER_POLL_S = 0.01
_SPARE_CONNECTIONS = 16  # over the limit, to be told so

Stop = Callable[[str], None]
"""Begins a stop, and is told why; a second call ends the wait for running requests."""


def open_socket(config: ServerConfig) -> socket.socket:
    """Takes the address, so that a port in use is found before a bundle is loaded. Nobody can connect yet.

    Raises:
        UsageError: If it cannot be taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {config.host}: no such address: {error}") from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise UsageError(
            f"cannot listen at {config.host} port {config.port}: {error.strerror}; choose another with --port, "
            "or 0 for a free one"
        ) from error
    return sock


def check_tls(config: ServerConfig) -> None:
    """Loads certificate and key once, so that bad ones are found before a bundle is loaded.

    Raises:
        UsageError: If they cannot be read, or do not belong together.
    """
    if config.tls_cert is None or config.tls_key is None:
        return
    for option, path in (("--tls-cert", config.tls_cert), ("--tls-key", config.tls_key)):
        _check_readable(option, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.tls_cert, config.tls_key, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"--tls-cert {config.tls_cert} and --tls-key {config.tls_key} are no certificate and key that belong "
            f"together, in PEM and without a pass phrase: {error}"
        ) from error


def url_of(config: ServerConfig, sock: socket.socket) -> str:
    """Where the server is reached."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if sock.family == socket.AF_INET6 else host
    return f"{'https' if config.tls_cert else 'http'}://{shown}:{port}"


def is_loopback(sock: socket.socket) -> bool:
    """Whether only this machine reaches the address."""
    return ipaddress.ip_address(sock.getsockname()[0].split("%")[0]).is_loopback


async def serve(service: Service, sock: socket.socket, on_ready: Callable[[Stop], None]) -> None:
    """Serves until a signal says otherwise, and has ended everything when it returns.

    Args:
        service: The model.
        sock: From `open_socket`.
        on_ready: Called when clients can connect, with what begins a stop as a signal does, from any thread.

    Raises:
        ArtifactError: If the chat template is no jinja.
    """
    server = _Server(service, on_ready, sock.getsockname()[0])
    await service.engine.start()
    try:
        await service.start()
        log_event("serving", model=service.model_names[0], target=service.engine.engine.target_name)
        await server.serve(sockets=[sock])
    finally:
        await service.close()
        await service.engine.close()
    log_event("stopped")


def run_server(service: Service, sock: socket.socket, on_ready: Callable[[Stop], None]) -> None:
    """Serves from this thread; see `serve`."""
    asyncio.run(serve(service, sock, on_ready))


class _Protocol(H11Protocol):
    """Ends connections that are too many, or whose head does not come; goes on with a stream that is still read."""

    read_timeout_s = 0.0
    max_connections = 0
    _head_timer: asyncio.TimerHandle | None = None
    _reader_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections + _SPARE_CONNECTIONS:
            transport.close()
            return
        if len(self.connections) > self.max_connections:
            self.app_state = {**self.app_state, IS_TOO_MANY: True}  # the gate tells the client
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()  # it would keep what is left of the connection
        if self._reader_timer is not None:
            self._reader_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps a connection open, if a client that sends no more gets a stream: it may still read.

        Before an answer has begun, a client that closes one side looks like one that has gone: only what is sent shows
        which it is. As most have gone, all are taken for it, and their pages are free at once.
        """
        is_answered = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not is_answered or self.scheme == "https":  # asyncio closes TLS either way
            return False
        self._watch_reader()
        return True

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reader_timer is not None and self._is_between_requests():
            self.transport.close()

    def _watch_reader(self) -> None:
        """Looks whether a client that sends no more has refused what was sent; asyncio sees it with the next event."""
        if self.transport.is_closing():
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self._reader_timer = self.loop.call_later(_READER_POLL_S, self._watch_reader)

    def _watch_head(self) -> None:
        """Times a head from its first byte, or from the beginning of the connection, to its end.

        uvicorn 0.54 times connections between requests only, until the first byte of the next.
        """
        if not self._is_between_requests():
            self._stop_timer()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self.read_timeout_s, self._close_if_silent)

    def _is_between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_if_silent(self) -> None:
        self._head_timer = None
        if self._is_between_requests() and not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn's server, but a signal begins a drain."""

    def __init__(self, service: Service, on_ready: Callable[[Stop], None], bound: str) -> None:
        config = service.config
        limits = {"read_timeout_s": config.read_timeout_s, "max_connections": config.max_connections}
        protocol = type("Protocol", (_Protocol,), limits)
        super().__init__(
            uvicorn.Config(
                make_app(service, bound),
                http=protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=config.max_header_bytes,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_LAST_ANSWERS_S,
                backlog=_BACKLOG,
                ssl_certfile=config.tls_cert,
                ssl_keyfile=config.tls_key,
            )
        )
        self._service = service
        self._on_ready = on_ready
        self._must_hurry = False
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_ready(self.begin_stop)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begins a drain; a second signal ends it."""
        self.begin_stop(signal.Signals(sig).name)

    def begin_stop(self, reason: str) -> None:
        """Does what a signal does."""
        if self._loop is None:  # before anybody could connect
            self.should_exit = True
            return
        with suppress(RuntimeError):  # the loop has ended: so has the server
            self._loop.call_soon_threadsafe(self._on_signal, reason)

    def _on_signal(self, name: str) -> None:
        if self._drain is None:
            self._drain = asyncio.create_task(self._stop(name))
        elif not self._must_hurry:
            self._must_hurry = True
        else:
            self.should_exit = self.force_exit = True

    async def _stop(self, name: str) -> None:
        service = self._service
        service.is_draining = True
        log_event(
            "stopping; a second signal ends at once",
            reason=name,
            active_requests=service.num_active,
            drain_seconds=service.config.drain_seconds,
        )
        deadline_s = asyncio.get_running_loop().time() + service.config.drain_seconds
        while service.num_active and self._may_wait() and asyncio.get_running_loop().time() < deadline_s:
            await asyncio.sleep(_POLL_S)
        num_left = service.num_active
        await service.engine.close()  # who still waits gets an error
        if num_left:
            log_event("ended requests that were still running", active_requests=num_left)
        self.should_exit = True

    def _may_wait(self) -> bool:
        return not self._must_hurry and self._service.engine.health().status is not EngineStatus.STUCK


def _check_readable(option: str, path: Path) -> None:
    try:
        path.read_bytes()
    except OSError as error:
        raise UsageError(f"{option} {path} cannot be read: {error.strerror}") from error
