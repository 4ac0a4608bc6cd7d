"""Who may come in: keys and guesses of them, rates, and names of the server."""

from __future__ import annotations

import httpx
import pytest
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.errors import ApiError
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.hosts import hosts_of
from amdnfs_runtime.server.keys import WRONG_KEYS_PER_MINUTE, Keys
from amdnfs_runtime.server.rates import Buckets, RateLimit, address_of
from starlette.datastructures import Headers

from tests.unit.runtime.server.harness import Running, refusal, running

COMPLETIONS = "/v1/completions"


def test_keys() -> None:
    with running(api_keys=("first", "second")) as server:
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/zorg"):
            for headers in ({}, {"Authorization": "Bearer third"}, {"Authorization": "first"}, {"Authorization": "x"}):
                with httpx.Client(base_url=server.client.base_url) as stranger:
                    response = stranger.get(path, headers=headers)
                assert refusal(response, 401)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
        for key in ("first", "second"):
            for scheme in ("Bearer", "bearer"):
                assert server.client.get("/v1/models", headers={"Authorization": f"{scheme} {key}"}).status_code == 200
        with httpx.Client(base_url=server.client.base_url) as stranger:
            assert stranger.get("/health/ready").status_code == 200
            assert stranger.get("/v2/health/live").json() == {"live": True}
            assert refusal(stranger.post(COMPLETIONS, json={"prompt": "a"}), 401)
    assert "first" not in repr(server.service.config)


def stranger(server: Running, address: str = "127.0.0.1", **headers: str) -> httpx.Client:
    """A client from an address of its own."""
    transport = httpx.HTTPTransport(local_address=address)
    return httpx.Client(base_url=server.client.base_url, transport=transport, headers=headers)


def test_guesses_of_keys_are_bounded() -> None:
    right = {"Authorization": "Bearer secret"}
    with running(api_keys=("secret",)) as server:
        assert server.client.get("/v1/models").status_code == 200, "from 127.0.0.1"
        with stranger(server) as neighbour, stranger(server, "127.0.0.2") as guesser:
            for client in (neighbour, guesser):
                for number in range(WRONG_KEYS_PER_MINUTE + 3):
                    response = client.get("/v1/models", headers={"Authorization": f"Bearer guess-{number}"})
                    error = refusal(response, 401 if number < WRONG_KEYS_PER_MINUTE else 429)
                assert error["code"] == "too_many_wrong_keys"
                assert error["message"].startswith("too many wrong API keys came from this address; the next may be")
                assert 1 <= int(response.headers["retry-after"]) <= 7
            # Whether a guess is right is not told, but who came before from an address may go on.
            assert refusal(guesser.get("/v1/models", headers=right), 429)["code"] == "too_many_wrong_keys"
            assert neighbour.get("/v1/models", headers=right).status_code == 200
            # To have no key is no guess.
            assert guesser.get("/v1/models").status_code == 401
        with stranger(server, "127.0.0.3", **right) as other:
            assert other.get("/v1/models").status_code == 200


def test_guesses_come_back() -> None:
    now = [0.0]
    keys = Keys(("secret",), lambda: now[0])

    def status(key: str) -> int:
        exchange = Exchange(request_id="a", headers=Headers({"authorization": f"Bearer {key}"}))
        try:
            keys.check(exchange, "192.0.2.1")
        except ApiError as error:
            return error.status
        return 200

    assert [status("wrong") for _ in range(WRONG_KEYS_PER_MINUTE + 1)][-2:] == [401, 429]
    assert status("secret") == 429
    now[0] = 60.0 / WRONG_KEYS_PER_MINUTE
    assert status("secret") == 200
    assert [status("wrong"), status("wrong"), status("secret")] == [401, 429, 200]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        (None, ""),
    ],
)
def test_addresses_of_clients(address: str | None, name: str) -> None:
    assert address_of({"client": None if address is None else (address, 1)}) == name


LOOPBACK_NAMES = ("localhost", "LocalHost:81", "localhost.", "127.0.0.1", "127.9.8.7:1", "[::1]", "[::1]:8000")
OTHER_NAMES = ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "[")


def test_only_names_of_the_loopback_without_a_key() -> None:
    with running() as server:
        for name in LOOPBACK_NAMES:
            assert server.client.get("/v1/models", headers={"Host": name}).status_code == 200, name
        for name in OTHER_NAMES:
            for path in ("/v1/models", "/", "/metrics", "/zorg"):
                response = server.client.get(path, headers={"Host": name})
                if response.status_code == 400:  # the parser of HTTP knows it for no name
                    continue
                error = refusal(response, 403)
                assert error["code"] == "host_not_allowed"
                assert f"the Host header {name!r} is no name of this server; use localhost, or" in error["message"]
            assert server.client.get("/health/ready", headers={"Host": name}).status_code in (200, 400)
        assert refusal(server.client.get("/v1/models", headers={"Host": "evil.example"}), 403)


def test_other_names_if_they_are_allowed_or_a_key_is_needed() -> None:
    host = {"Host": "chat.example.org:8000"}
    with running(allowed_hosts=("Chat.Example.org",)) as server:
        assert server.client.get("/v1/models", headers=host).status_code == 200
        assert server.client.get("/v1/models").status_code == 200
        assert server.client.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    with running(api_keys=("key",)) as server:
        assert server.client.get("/v1/models", headers=host).status_code == 200
    assert hosts_of(ServerConfig(host="0.0.0.0"), "0.0.0.0") is None
    assert hosts_of(ServerConfig(), None) is None
    assert hosts_of(ServerConfig(host="box.example"), "127.0.1.1") is not None


def test_a_rate_for_each_key() -> None:
    with running(api_keys=("first", "second"), requests_per_minute=3) as server:
        statuses = [server.client.get("/v1/models").status_code for _ in range(4)]
        assert statuses == [200, 200, 200, 429]
        response = server.client.get("/v1/models")
        error = refusal(response, 429)
        assert error["code"] == "rate_limit_exceeded"
        assert error["message"].startswith("more than 3 requests a minute; the next may come in ")
        assert 1 <= int(response.headers["retry-after"]) <= 21
        assert server.client.get("/v1/models", headers={"Authorization": "Bearer second"}).status_code == 200
        assert server.client.get("/health/ready").status_code == 200


def test_a_bucket_fills_evenly() -> None:
    now = [0.0]
    rate = RateLimit(60, lambda: now[0])

    def takes(number: int) -> int:
        for taken in range(number):
            try:
                rate.take("a")
            except ApiError:
                return taken
        return number

    assert takes(100) == 60
    rate.take("b")
    now[0] = 2.5
    assert takes(100) == 2
    now[0] = 1e6
    assert takes(100) == 60
    buckets = Buckets(60)
    for index in range(20_000):
        assert buckets.take(f"client {index}") == 0
    assert len(buckets) == 10_000
