"""What clients do that mean no good, and what the server does about it."""

from __future__ import annotations

import contextlib
import socket
import time

import httpx
import pytest

from tests.unit.runtime.server.harness import CONTEXT, Running, refusal, running, until

COMPLETIONS = "/v1/completions"


def test_a_text_that_cannot_fit_is_not_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:
        monkeypatch.setattr(server.service, "_most_token_chars", 3)
        number = 3 * CONTEXT + 1
        for path in (COMPLETIONS, "/tokenize"):
            error = refusal(server.post(path, prompt="a" * number), 400)
            assert (error["param"], error["code"]) == ("prompt", "context_length_exceeded")
            assert f"prompt: {number} characters are at least {CONTEXT + 1} tokens" in error["message"]
        error = refusal(server.post(COMPLETIONS, prompt="a" * (number - 1)), 400)
        assert f"the prompt has {number - 1} tokens" in error["message"]


def answer_to(server: Running, *pieces: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    with socket.create_connection(server.address) as connection:
        connection.settimeout(20)
        for piece in pieces:
            connection.sendall(piece)
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    return answer


def test_a_second_head_that_does_not_end_is_cut_off() -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(read_timeout_s=0.3) as server, socket.create_connection(server.address) as connection:
        connection.settimeout(20)
        for pause_s in (0.0, 0.6):  # a pause between requests is no slow head
            time.sleep(pause_s)
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 ")
        began_s = time.monotonic()
        connection.sendall(request[:20])
        assert connection.recv(4096) == b""
        assert time.monotonic() - began_s < 10  # uvicorn's own timer would be 30 s


def test_one_connection_is_one_connection() -> None:
    with running(max_connections=1) as server:
        assert server.client.get("/v1/models").status_code == 200
        with httpx.Client(base_url=server.client.base_url) as other:
            response = other.get("/v1/models")
            assert refusal(response, 503)["code"] == "too_many_connections"
            assert (response.headers["retry-after"], response.headers["connection"]) == ("1", "close")
            assert response.headers["x-request-id"].startswith("req-")
        assert 'status="503"' in server.client.get("/metrics").text
        held = [socket.create_connection(server.address) for _ in range(40)]

        def num_closed() -> int:
            closed = 0
            for connection in held:
                connection.settimeout(0.01)
                with contextlib.suppress(TimeoutError):
                    closed += connection.recv(1) == b""
            return closed

        until(lambda: num_closed() == 24)
        for connection in held:
            connection.close()


def test_two_lengths_of_one_body_are_refused() -> None:
    with running() as server:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        answer = answer_to(server, head + both + b"0\r\n\r\nGET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"Content-Length or Transfer-Encoding, not both" in answer
        assert answer.count(b"HTTP/1.1") == 1


def test_a_long_query_counts_as_head() -> None:
    with running(max_header_bytes=2000) as server:
        assert refusal(server.client.get("/v1/models?" + "a" * 3000), 431)
