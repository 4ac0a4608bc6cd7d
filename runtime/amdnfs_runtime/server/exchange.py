"""What the server keeps of one HTTP request while it is served: its name, its headers, and what the log will tell."""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

REQUEST_ID = "x-request-id"
"""The header with the name of a request, in and out."""

_KEY = "amdnfs.exchange"
_CLEAN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(kw_only=True, slots=True)
class Exchange:
    """One HTTP request and its answer."""

    request_id: str
    """The client's own name for it if that is harmless, else a new one."""
    headers: Headers
    """Headers of the request."""
    began_s: float = field(default_factory=time.perf_counter)
    """When it came, on the clock of `time.perf_counter`."""
    status: int | None = None
    """Status of the answer; None before it begins."""
    failure: BaseException | None = None
    """What ended it, if it did not end well."""
    may_log_texts: bool = False
    """Whether prompts, and messages that may quote them, may be in the log."""
    notes: dict[str, Any] = field(default_factory=dict)
    """More for its line in the log."""


def begin_exchange(scope: Scope, *, may_log_texts: bool) -> Exchange:
    """Makes the exchange of a request and keeps it in its scope."""
    headers = Headers(scope=scope)
    given = headers.get(REQUEST_ID, "")
    name = given if _CLEAN_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
    exchange = scope[_KEY] = Exchange(request_id=name, headers=headers, may_log_texts=may_log_texts)
    return exchange


def exchange_of(scope: Scope) -> Exchange:
    """The exchange of a request that `begin_exchange` has seen."""
    exchange = scope[_KEY]
    assert isinstance(exchange, Exchange)
    return exchange
