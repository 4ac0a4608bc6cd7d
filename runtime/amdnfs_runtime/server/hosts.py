"""Which names of the server a request may use in its `Host` header.

A web page anywhere can let its own name point to 127.0.0.1, and a browser then takes answers of a server there for the
page's own ("DNS rebinding"). The header still has the page's name: a server that only this machine reaches and that
asks for no key must look at it.
"""

from __future__ import annotations

import ipaddress
import re

from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.errors import ApiError
from amdnfs_runtime.server.exchange import Exchange

_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::[0-9]*)?")


class Hosts:
    """The names of a server."""

    def __init__(self, names: tuple[str, ...]) -> None:
        """Takes the names and addresses that are allowed besides those of the loopback; without ports."""
        self._names = frozenset(_plain(name) for name in names)

    def check(self, exchange: Exchange) -> None:
        """Checks the header of a request.

        Raises:
            ApiError: 403, if it has another name, or none.
        """
        given = exchange.headers.get("host", "")
        found = _HOST.fullmatch(given)
        name = _plain(found[1]) if found is not None else ""
        if not (name == "localhost" or name in self._names or _is_loopback(name)):
            raise ApiError(
                403,
                f"the Host header {given!r:.80} is no name of this server; use localhost, or start the server with "
                "--allowed-host NAME",
                code="host_not_allowed",
            )


def hosts_of(config: ServerConfig, bound: str | None) -> Hosts | None:
    """What to check; None if any name will do.

    Args:
        config: Keys and names.
        bound: The address that the server listens at; None if that is not known.
    """
    is_local = bound is not None and _is_loopback(bound)
    if not config.allowed_hosts and (config.api_keys or not is_local):
        return None
    return Hosts((*config.allowed_hosts, config.host, *((bound,) if bound else ())))


def _plain(name: str) -> str:
    """A name as it is compared: small letters, no brackets, no dot at its end."""
    return name.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _is_loopback(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name.split("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
