"""API keys: who may come in, and how often a wrong key may be tried.

    right key, address without too many wrong ones, or from which it came before   let in
    wrong key                                                                      401, one less to try
    any other key while the address has no more to try                             429, right or wrong

So that guesses are bounded, a right key that is new to an address is not let in either while the address has tried too
many. One that came from there before is: who guesses does not shut out those who share the address.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable

from amdnfs_runtime.server.errors import ApiError
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.rates import Buckets, too_many

WRONG_KEYS_PER_MINUTE = 10
"""Wrong keys that an address may try in a minute, with bursts of as many; a person who mistypes needs fewer."""

_MOST_KNOWN = 10_000


class Keys:
    """Who may come in."""

    def __init__(self, keys: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        """Keeps digests of the keys.

        Args:
            keys: The right ones; none lets everybody in.
            clock: Seconds.
        """
        self._digests = [_digest(key) for key in keys]
        self._guesses = Buckets(WRONG_KEYS_PER_MINUTE, clock)
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()  # addresses from which right keys came

    def check(self, exchange: Exchange, address: str) -> str:
        """The name of the key that a request has; empty if none is asked for.

        Args:
            exchange: The request.
            address: Where it comes from.

        Raises:
            ApiError: 401, for no key or a wrong one; 429 for a key from an address that tried too many wrong ones.
        """
        if not self._digests:
            return ""
        kind, _, key = exchange.headers.get("authorization", "").partition(" ")
        key = key.strip() if kind.lower() == "bearer" else ""
        if not key:  # no guess
            raise _wanted()
        given = _digest(key)
        found = [hmac.compare_digest(given, digest) for digest in self._digests]  # all, so that time tells nothing
        if not any(found):
            self._refuse_if(self._guesses.take(address))
            raise _wanted()
        pair = (address, found.index(True))
        if pair not in self._known:
            self._refuse_if(self._guesses.wait_s(address))
            self._known[pair] = None
            while len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        self._known.move_to_end(pair)
        return f"key-{pair[1]}"

    @staticmethod
    def _refuse_if(wait_s: float) -> None:
        if wait_s:
            raise too_many(
                f"too many wrong API keys came from this address; the next may be tried in {wait_s:.1f} s",
                "too_many_wrong_keys",
                wait_s,
            )


def _wanted() -> ApiError:
    return ApiError(
        401,
        "a valid API key is needed: send it as Authorization: Bearer KEY",
        code="invalid_api_key",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
