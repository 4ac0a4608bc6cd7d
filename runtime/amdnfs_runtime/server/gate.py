"""What every HTTP request passes: its name, the key, the rate, the log, the metrics, and errors as JSON."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from amdnfs_runtime.errors import AmdnfsError, UsageError
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.endpoint import ClientGoneError, send_json
from amdnfs_runtime.server.errors import ApiError, from_failure, unavailable
from amdnfs_runtime.server.exchange import REQUEST_ID, Exchange, begin_exchange
from amdnfs_runtime.server.hosts import Hosts
from amdnfs_runtime.server.keys import Keys
from amdnfs_runtime.server.logs import log_bug, log_exchange
from amdnfs_runtime.server.metrics import Metrics
from amdnfs_runtime.server.rates import RateLimit, address_of
from amdnfs_runtime.server.tracing import Tracing

HEALTH_PATHS = frozenset({"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"})
"""Paths that everybody may ask, by any name of the server: load balancers have no key, and ask by address."""
OPEN_PATHS = HEALTH_PATHS | {"/", "/favicon.ico"}
"""Paths that need no key; a page asks for it itself."""
OPEN_FOLDERS = ("/page/",)
"""Beginnings of such paths."""
CLIENT_GONE = 499
"""Status in log and metrics of a request whose client left; nobody is there to get it. Source: nginx."""
IS_TOO_MANY = "amdnfs.is_too_many"
"""In a scope's state: its connection is over `max_connections`."""

_UNLIMITED_FOLDERS = ("/health", "/v2/health", "/metrics")


class Gate:
    """ASGI middleware around all endpoints; the innermost that sees every request."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: ServerConfig,
        hosts: Hosts | None,
        metrics: Metrics,
        tracing: Tracing,
        paths: frozenset[str],
    ) -> None:
        """Guards `app`.

        Args:
            app: What answers.
            config: Keys and limits.
            hosts: Names of the server that may be used; None for any.
            metrics: Counts requests.
            tracing: Is told of requests.
            paths: Paths to count by name; all others are counted together.
        """
        self._app = app
        self._hosts = hosts
        self._keys = Keys(config.api_keys)
        self._rate = None if config.requests_per_minute is None else RateLimit(config.requests_per_minute)
        self._max_header_bytes = config.max_header_bytes
        self._log_prompts = config.log_prompts
        self._metrics = metrics
        self._tracing = tracing
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = begin_exchange(scope, may_log_texts=self._log_prompts)

        async def send_named(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                extra = [(REQUEST_ID, exchange.request_id), ("x-content-type-options", "nosniff")]
                message["headers"] = [*message["headers"], *((a.encode(), b.encode()) for a, b in extra)]
            await send(message)

        try:
            self._let_in(scope, exchange)
            await self._app(scope, receive, send_named)
        except ClientGoneError:
            exchange.status = CLIENT_GONE
        except Exception as error:
            exchange.failure = error
            if exchange.status is not None:
                raise  # too late to tell; the server closes the connection
            await _send_error(send_named, _told(error))
        finally:
            self._note(scope, exchange)

    def _check_head(self, scope: Scope, exchange: Exchange) -> None:
        if scope.get("state", {}).get(IS_TOO_MANY):
            error = unavailable("the server has as many connections as it takes; try again", "too_many_connections")
            error.headers.update(_CLOSE)
            raise error
        # uvicorn's own limit is for heads that come in pieces only.
        num_bytes = sum(len(name) + len(value) for name, value in scope["headers"])
        num_bytes += len(scope["path"]) + len(scope["query_string"])
        if num_bytes > self._max_header_bytes:
            raise ApiError(431, f"the head of the request has more than {self._max_header_bytes} bytes")
        # A proxy may have read another end of the body. Source: RFC 9112, section 6.3.
        if "content-length" in exchange.headers and "transfer-encoding" in exchange.headers:
            raise ApiError(400, "a request has Content-Length or Transfer-Encoding, not both", headers=_CLOSE)

    def _let_in(self, scope: Scope, exchange: Exchange) -> None:
        self._check_head(scope, exchange)
        path, address, name = scope["path"], address_of(scope), ""
        if self._hosts is not None and path not in HEALTH_PATHS:
            self._hosts.check(exchange)
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDERS):
            name = self._keys.check(exchange, address)
        if self._rate is not None and not path.startswith(_UNLIMITED_FOLDERS):
            self._rate.take(name or address)
        exchange.notes.update({"key": name} if name else {})

    def _note(self, scope: Scope, exchange: Exchange) -> None:
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = exchange.status or CLIENT_GONE
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.http_requests.labels(path, method, str(status)).inc()
        if exchange.failure is not None and not isinstance(exchange.failure, (ApiError, AmdnfsError)):
            log_bug(exchange)
        log_exchange(exchange, scope["method"], scope["path"], status)
        if not scope["path"].startswith(_UNLIMITED_FOLDERS):
            self._tracing.record(exchange, method, path, status)


_CLOSE = {"Connection": "close"}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


async def _send_error(send: Send, error: ApiError) -> None:
    await send_json(send, error.status, error.to_json(), error.headers)


def _told(error: Exception) -> ApiError:
    """An error as clients get it."""
    if isinstance(error, UsageError):  # not from a place that knows the field: still the client's
        return ApiError(400, str(error))
    return from_failure(error)
