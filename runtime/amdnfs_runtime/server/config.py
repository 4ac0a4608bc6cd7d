"""How the server listens, whom it serves and how much it takes: plain data, checked when it is built."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from amdnfs_runtime.checks import check_bool, check_int, checked_float
from amdnfs_runtime.errors import UsageError

LONGEST_S = 1e7
"""Longest time-out; 115 days."""

_PORT_END = 65536
_URL = re.compile(r"https?://[^/\s]+")
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]")
_ORIGIN = re.compile(r"https?://[^/\s*]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerConfig:
    """Limits and habits of a server.

    Raises:
        UsageError: A field has a wrong type or is out of range; the message names the field and what is allowed.

    >>> ServerConfig(port=0).host
    '127.0.0.1'
    """

    host: str = "127.0.0.1"
    """Address to listen at. The default is reached from this machine only; `0.0.0.0` is every IPv4 address."""

    port: int = 8000
    """Port; 0 takes a free one."""

    api_keys: tuple[str, ...] = field(default=(), repr=False)
    """Keys that clients may send as `Authorization: Bearer KEY`; printable ASCII. None, the default, asks for none."""

    tls_cert: Path | None = None
    """Certificate chain, PEM; together with `tls_key` it makes the server speak HTTPS."""

    tls_key: Path | None = None
    """Private key, PEM, without a pass phrase."""

    model_names: tuple[str, ...] = ()
    """Names that clients may use for the model, the first is told. None, the default, is the bundle's own."""

    chat_template: Path | None = None
    """File with a chat template to use instead of the bundle's."""

    template_timeout_s: float = 5.0
    """Longest time that the template may need for one chat, in seconds."""

    max_body_bytes: int = 4 * 2**20
    """Largest body of a request; 128,000 tokens of text are about 0.5 MiB."""

    max_header_bytes: int = 16 * 2**10
    """Largest head of a request (request line and headers)."""

    max_connections: int = 4096
    """Most open connections; each takes a file descriptor."""

    max_concurrent_requests: int = 1024
    """Most requests that generate or wait at once; more are refused with 503 and `Retry-After`. A waiting request costs
    a few KiB and its prompt."""

    requests_per_minute: int | None = None
    """Requests that one key, or one address where there are no keys, may begin in a minute, with bursts of as many.
    More are refused with 429 and `Retry-After`. None, the default, does not limit."""

    read_timeout_s: float = 30.0
    """Longest time for a client to send a head, and again for a body, in seconds."""

    request_timeout_s: float = 600.0
    """Longest time that a request may take as a whole, waiting included, in seconds."""

    drain_seconds: float = 30.0
    """How long running requests may go on after SIGTERM, in seconds; 0 ends them at once."""

    cors_origins: tuple[str, ...] = ()
    """Web origins whose pages may use the server, e.g. `https://chat.example.org`; `*` is every page. None, the
    default, lets no other page in."""

    allowed_hosts: tuple[str, ...] = ()
    """More names that the `Host` header of a request may have, without ports, e.g. of a proxy on this machine. The
    header is checked if there are some, or if only this machine reaches the server and no key is asked for."""

    otlp_endpoint: str | None = None
    """Where a collector takes OpenTelemetry's traces over HTTP, e.g. `http://127.0.0.1:4318/v1/traces`. None, the
    default, sends none."""

    log_prompts: bool = False
    """Write prompts and answers to the log."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.host, str) or not self.host:
            raise UsageError(f"host must be an address such as 127.0.0.1, not {self.host!r}")
        check_int("port", self.port, least=0, end=_PORT_END)
        for key in self.api_keys:
            if not key or not key.isascii() or not key.isprintable() or " " in key:
                raise UsageError("api_keys: a key must be printable ASCII without spaces, at least one character")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("give both tls_cert and tls_key, or neither")
        for name in self.model_names:
            if not name or not name.isprintable():
                raise UsageError(f"model_names: a name must be printable, at least one character, not {name!r}")
        for origin in self.cors_origins:
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise UsageError(f"cors_origins: an origin is like https://chat.example.org, or *, not {origin!r}")
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise UsageError(f"allowed_hosts: a host is like chat.example.org, without a port, not {name!r}")
        if self.otlp_endpoint is not None and not _URL.match(self.otlp_endpoint):
            raise UsageError(f"otlp_endpoint must be like http://127.0.0.1:4318/v1/traces, not {self.otlp_endpoint!r}")
        check_bool("log_prompts", self.log_prompts)
        self._check_numbers()

    def _check_numbers(self) -> None:
        for name, least in (
            ("max_body_bytes", 1024),
            ("max_header_bytes", 1024),
            ("max_connections", 1),
            ("max_concurrent_requests", 1),
        ):
            check_int(name, getattr(self, name), least=least)
        if self.requests_per_minute is not None:
            check_int("requests_per_minute", self.requests_per_minute, least=1)
        for name in ("template_timeout_s", "read_timeout_s", "request_timeout_s", "drain_seconds"):
            value = getattr(self, name)
            is_open = name != "drain_seconds"
            object.__setattr__(self, name, checked_float(name, value, least=0.0, most=LONGEST_S, open_below=is_open))
