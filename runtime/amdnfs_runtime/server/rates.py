"""How often a client may do something: a bucket for each, filled evenly."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import Scope

from amdnfs_runtime.server.errors import ApiError

_MINUTE_S = 60.0
_MOST_CLIENTS = 10_000
_IPV6_PREFIX = 64


def address_of(scope: Scope) -> str:
    """Where a request comes from; empty if that is not known.

    Of IPv6 it is the /64, as whoever has one address there has them all. Source: RFC 6177, section 1.
    """
    client = scope.get("client")
    if not client:
        return ""
    try:
        address = ipaddress.ip_address(client[0].split("%")[0])
    except ValueError:  # a server that tells a name
        return str(client[0])
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))


class Buckets:
    """A bucket for each of the last 10,000 clients."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """All buckets are full.

        Args:
            per_minute: What fills in within a minute, and what a full bucket has.
            clock: Seconds.
        """
        self._per_minute = per_minute
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._levels)

    def wait_s(self, client: str) -> float:
        """Seconds until a client's bucket has something to take; 0 if it has."""
        level, _ = self._level(client)
        return 0.0 if level >= 1 else (1 - level) * _MINUTE_S / self._per_minute

    def take(self, client: str) -> float:
        """Takes from a client's bucket if there is something.

        Returns:
            0 if there was, else the seconds until there is.
        """
        wait_s = self.wait_s(client)
        level, now_s = self._level(client)
        self._levels[client] = (level if wait_s else level - 1, now_s)
        self._levels.move_to_end(client)
        while len(self._levels) > _MOST_CLIENTS:
            self._levels.popitem(last=False)
        return wait_s

    def _level(self, client: str) -> tuple[float, float]:
        """What a bucket has, and the time."""
        now_s = self._clock()
        level, last_s = self._levels.get(client, (float(self._per_minute), now_s))
        return min(float(self._per_minute), level + (now_s - last_s) * self._per_minute / _MINUTE_S), now_s


class RateLimit:
    """Bounds the requests of each client."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Nobody has asked yet.

        Args:
            per_minute: Requests that a client may begin in a minute, with bursts of as many.
            clock: Seconds.
        """
        self._per_minute = per_minute
        self._buckets = Buckets(per_minute, clock)

    def take(self, client: str) -> None:
        """Counts a request.

        Raises:
            ApiError: 429, if it is one too many.
        """
        if wait_s := self._buckets.take(client):
            raise too_many(
                f"more than {self._per_minute} requests a minute; the next may come in {wait_s:.1f} s",
                "rate_limit_exceeded",
                wait_s,
            )


def too_many(message: str, code: str, wait_s: float) -> ApiError:
    """An error of status 429 that says when to come again, in whole seconds."""
    return ApiError(429, message, code=code, headers={"Retry-After": str(max(1, round(wait_s + 0.5)))})
