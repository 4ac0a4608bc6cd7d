"""Clients that leave, devices that fail or hang, and a server that stops."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.unit.runtime.fakes import PagedProgram
from tests.unit.runtime.server.harness import Running, SlowProgram, greedy_text, read_events, refusal, running, until

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
ENDLESS = {"max_tokens": 380, "temperature": 0}
GO_ON = {"ignore_eos": True}
BODIES: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"prompt": "a", **ENDLESS},
    CHAT: {"messages": [{"role": "user", "content": "a"}], **ENDLESS},
    RESPONSES: {"input": "a", "temperature": 0},
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_pages(path: str, stream: bool) -> None:
    program = SlowProgram(delay_s=0.005)
    with running(program, defaults=GO_ON) as server:
        if stream:
            with server.client.stream("POST", path, json={**BODIES[path], "stream": True}) as response:
                next(response.iter_lines())
                until(lambda: server.engine.stats().num_used_pages > 0)
        else:
            with httpx.Client(base_url=server.client.base_url, timeout=0.2) as client, pytest.raises(httpx.ReadTimeout):
                client.post(path, json=BODIES[path])
        server.until_idle()
        totals = server.engine.stats().totals
        assert totals.num_generated_tokens < 300
        assert totals.num_cancelled == 1
        until(lambda: 'status="499"' in server.client.get("/metrics").text or stream)
        assert 'amdnfs_samples_total{finish_reason="cancelled"} 1.0' in server.client.get("/metrics").text


def test_a_client_that_leaves_ends_all_its_samples() -> None:
    with running(SlowProgram(delay_s=0.005), defaults=GO_ON) as server:
        body = {"prompt": ["a", "b", "c"], "n": 2, "stream": True, **ENDLESS}
        with server.client.stream("POST", COMPLETIONS, json=body) as response:
            assert response.status_code == 200, response.read()
            assert server.service.engine.num_streams == 3
        server.until_idle()
        assert server.service.engine.num_streams == 0
        assert 'amdnfs_samples_total{finish_reason="cancelled"} 6.0' in server.client.get("/metrics").text


@contextmanager
def half_closed(server: Running, **body: Any) -> Iterator[socket.socket]:
    """A client that has the begin of a stream, and sends no more."""
    data = json.dumps({"prompt": "a", "temperature": 0, "ignore_eos": True, "stream": True, **body}).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with socket.create_connection(server.address) as connection:
        connection.settimeout(20)
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection.shutdown(socket.SHUT_WR)
        yield connection


def test_a_client_that_only_sends_no_more_gets_its_whole_stream() -> None:
    with running(SlowProgram(delay_s=0.005)) as server, half_closed(server, max_tokens=60) as connection:
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
        assert b'"finish_reason":"length"' in answer
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert server.engine.stats().totals.num_cancelled == 0


def test_a_client_that_sends_no_more_and_then_leaves_frees_its_pages() -> None:
    with running(SlowProgram(delay_s=0.02)) as server:
        with half_closed(server, max_tokens=380) as connection:
            connection.recv(4096)
        num_tokens = server.engine.counters.num_generated_tokens
        server.until_idle()
        assert server.engine.stats().totals.num_cancelled == 1
        # One event shows that nobody reads, and the step that runs then is the last.
        assert server.engine.counters.num_generated_tokens - num_tokens < 20


def test_a_client_that_closes_before_its_answer_begins_has_left() -> None:
    with running(SlowProgram(delay_s=0.02)) as server:
        data = b'{"prompt": "a", "max_tokens": 380, "ignore_eos": true}'
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection(server.address) as connection:
            connection.settimeout(20)
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(data) + data)
            until(lambda: server.engine.num_running == 1)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(4096) == b""
        server.until_idle()
        assert server.engine.stats().totals.num_cancelled == 1


def test_a_client_that_leaves_before_its_body_came() -> None:
    with running() as server:
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            connection.sendall(b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
        until(lambda: 'status="499"' in server.client.get("/metrics").text)


def test_a_storm_of_clients_of_which_a_third_leaves() -> None:
    texts = ["once upon", "a time", "there was", "x" * 30]
    wanted = {text: greedy_text(text, 40) for text in texts}

    with running(SlowProgram(delay_s=0.0005), engine={"max_running": 8}) as server:

        def one(number: int) -> bool:
            text = texts[number % len(texts)]
            body = {"prompt": text, "max_tokens": 40, "temperature": 0, "stream": True}
            url = f"{server.client.base_url}{COMPLETIONS}"
            with httpx.stream("POST", url, json=body, timeout=60) as response:
                assert response.status_code == 200
                lines = response.iter_lines()
                if number % 3 == 0:
                    for _ in range(number % 7):
                        next(lines, None)
                    return False
                events = read_events(lines)
            assert events[-1] == "[DONE]"
            assert "".join(event["choices"][0]["text"] for event in events[:-1]) == wanted[text]
            return True

        with ThreadPoolExecutor(24) as pool:
            assert sum(pool.map(one, range(90))) == 60
        server.until_idle()


def test_a_device_that_fails_at_once_is_told_by_the_status() -> None:
    with running(PagedProgram(lambda number: number < 2)) as server:
        for stream in (False, True):
            error = refusal(server.post(COMPLETIONS, prompt="a", stream=stream), 500)
            assert (error["code"], error["type"]) == ("device_error", "server_error")
            assert error["message"].startswith("device lost in call ")
        assert 'amdnfs_samples_total{finish_reason="error"} 2.0' in server.client.get("/metrics").text
        health = server.client.get("/health/ready")
        assert (health.status_code, health.json()["status"]) == (200, "failing")
        assert server.complete("a")["choices"]
        assert server.client.get("/health/ready").json() == {
            "status": "ok",
            "reason": "device lost in call 1",
            "num_failures": 2,
        }


@pytest.mark.parametrize("path", BODIES)
def test_a_device_that_fails_later_is_told_in_the_stream(path: str) -> None:
    with running(PagedProgram(lambda number: number == 5), defaults=GO_ON) as server:
        *events, last = server.events(path, **BODIES[path])
        assert len(events) >= 1
        if path == RESPONSES:
            assert (last["type"], last["code"], last["message"]) == ("error", "device_error", "device lost in call 5")
            assert [event["sequence_number"] for event in [*events, last]] == list(range(len(events) + 1))
        else:
            assert last["error"]["message"] == "device lost in call 5"
        assert server.complete("a")["choices"]


def test_a_device_that_hangs() -> None:
    program = SlowProgram()
    with running(program, engine={"call_timeout_s": 0.2}) as server:
        program.gate.clear()
        response = server.post(COMPLETIONS, prompt="a")
        assert "has not answered for 0.2 s" in refusal(response, 503)["message"]
        assert response.headers["retry-after"] == "1"
        assert refusal(server.post(COMPLETIONS, prompt="a"), 503)["message"].endswith("taken until it answers")
        for path in ("/health", "/health/live", "/health/ready"):
            health = server.client.get(path)
            assert (health.status_code, health.json()["status"]) == (503, "stuck")
        assert server.client.get("/v2/health/live").json() == {"live": False}
        assert server.client.get("/v2/health/ready").json() == {"ready": False}
        assert "amdnfs_up 0.0" in server.client.get("/metrics").text
        program.gate.set()
        until(lambda: server.client.get("/health/ready").status_code == 200)
        assert server.complete("a")["choices"]


def in_thread(server: Running, path: str, results: list[Any], **body: Any) -> threading.Thread:
    """Reads a stream in another thread, and notes its events; of a refusal before the first text, its body."""

    def read() -> None:
        url = f"{server.client.base_url}{path}"
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=30) as response:
            if response.status_code == 200:
                results.extend(read_events(response.iter_lines()))
            else:
                results.append(json.loads(response.read()))

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_a_stop_lets_running_requests_end() -> None:
    with running(SlowProgram(delay_s=0.005), drain_seconds=30.0) as server:
        results: list[Any] = []
        thread = in_thread(server, COMPLETIONS, results, prompt="a", max_tokens=100, ignore_eos=True, temperature=0)
        until(lambda: server.service.num_active == 1)
        server.stop("SIGTERM")
        until(lambda: server.client.get("/health/ready").status_code == 503)
        assert server.client.get("/health/ready").json()["status"] == "stopping"
        assert server.client.get("/health/live").status_code == 200
        response = server.post(COMPLETIONS, prompt="a")
        assert refusal(response, 503)["code"] == "stopping"
        assert response.headers["retry-after"] == "1"
        thread.join()
        assert results[-1] == "[DONE]"
        assert results[-2]["choices"][0]["finish_reason"] == "length"
        server.thread.join(20)
        assert not server.thread.is_alive()
        with pytest.raises(httpx.ConnectError):
            server.client.get("/health/live")


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("signals", [1, 2])
def test_a_stop_tells_the_clients_that_are_left(path: str, signals: int) -> None:
    drain_s = 30.0 if signals == 2 else 0.3
    with running(SlowProgram(delay_s=0.01), defaults=GO_ON, drain_seconds=drain_s) as server:
        results: list[Any] = []
        thread = in_thread(server, path, results, **BODIES[path])
        with httpx.Client(base_url=server.client.base_url, timeout=30) as other, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(other.post, path, json=BODIES[path])
            until(lambda: server.engine.stats().num_running == 2 and server.engine.counters.num_decode_calls > 9)
            began_s = time.monotonic()
            for _ in range(signals):
                server.stop("SIGTERM")
            assert "closed before the request had ended" in refusal(answer.result(), 503)["message"]
        thread.join()
        assert time.monotonic() - began_s < 10
        assert "closed before the request had ended" in json.dumps(results[-1])
        server.thread.join(20)
        assert not server.thread.is_alive()
