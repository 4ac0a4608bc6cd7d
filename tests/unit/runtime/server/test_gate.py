"""Limits, names of requests, the log, metrics and the OpenAPI document."""

from __future__ import annotations

import http.client
import io
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server import listen
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.logs import LOGGER, TextFormatter, configure_logs

from tests.unit.runtime.fakes import PagedProgram
from tests.unit.runtime.server.harness import Running, SlowProgram, refusal, running, until

COMPLETIONS = "/v1/completions"
DOCS = Path(__file__).parents[4] / "docs" / "serving.md"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the server writes to its log."""
    loggers = [LOGGER, logging.getLogger("uvicorn")]
    before = [(logger.handlers, logger.propagate, logger.level) for logger in loggers]
    stream = io.StringIO()
    configure_logs(stream)
    yield stream
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def lines_of(log: io.StringIO, message: str = "request") -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in lines if line["message"] == message]


def test_too_large_bodies_and_heads() -> None:
    with running(max_body_bytes=2000, max_header_bytes=2000) as server:
        response = server.post(COMPLETIONS, prompt="a" * 3000)
        assert refusal(response, 413)["message"] == "the body has more than 2000 bytes"

        def pieces() -> Iterator[bytes]:
            for _ in range(30):
                yield b"a" * 100

        response = server.client.post(COMPLETIONS, content=pieces(), headers={"Content-Type": "application/json"})
        assert refusal(response, 413)["code"] == "body_too_large"
        response = server.client.get("/v1/models", headers={"X-Long": "a" * 3000})
        assert refusal(response, 431)["message"] == "the head of the request has more than 2000 bytes"
        with socket.create_connection(server.address) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 10_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        assert server.complete("a" * 100)["usage"]["prompt_tokens"] == 100


def test_slow_senders_are_cut_off() -> None:
    with running(read_timeout_s=0.2) as server:
        with socket.create_connection(server.address) as silent:
            silent.settimeout(10)
            assert silent.recv(100) == b"", "a head that does not come"
        with socket.create_connection(server.address) as slow:
            slow.settimeout(10)
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
            slow.sendall(b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{")
            answer = b""
            while piece := slow.recv(4096):
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"the body did not come within 0.2 s" in answer


def test_too_many_connections() -> None:
    with running(max_connections=3) as server:
        held = [socket.create_connection(server.address) for _ in range(3)]
        assert server.client.get("/v1/models").status_code == 503
        for connection in held:
            connection.close()

        def works() -> bool:
            with httpx.Client(base_url=server.client.base_url) as client:
                return client.get("/v1/models").status_code == 200

        until(works)


def test_too_many_requests_at_once() -> None:
    program = SlowProgram()
    program.gate.clear()
    with running(program, max_concurrent_requests=1) as server:
        with httpx.Client(base_url=server.client.base_url, timeout=0.05) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.post(COMPLETIONS, json={"prompt": "a"})
        # The first client has gone; one that stays takes its place.
        with server.client.stream("GET", "/health/ready"):
            pass
        until(lambda: server.service.num_active == 0)
        program.gate.set()
        assert server.complete("a")["choices"]
        server.until_idle()
        server.service.num_active = 1
        response = server.post(COMPLETIONS, prompt="a")
        server.service.num_active = 0
        assert refusal(response, 503)["code"] == "overloaded"
        assert response.headers["retry-after"] == "1"


def test_names_of_requests() -> None:
    with running() as server:
        for given, kept in (("abc-1.2_3", True), ("a b", False), ("a" * 65, False), ("\xe9", False), ("", False)):
            response = server.client.get("/v1/models", headers={"X-Request-Id": given.encode("latin-1")})
            name = response.headers["x-request-id"]
            assert (name == given) is kept
            assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name)
        assert server.client.get("/zorg").headers["x-request-id"].startswith("req-")


def test_no_other_page_may_read_unless_let_in() -> None:
    ask = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with running() as server:
        response = server.client.options(COMPLETIONS, headers=ask)
        assert response.status_code == 405
        assert "access-control-allow-origin" not in server.client.get("/v1/models", headers=ask).headers
    with (
        running(cors_origins=("https://a.example",), api_keys=("key",)) as server,
        httpx.Client(base_url=server.client.base_url) as browser,
    ):
        response = browser.options(COMPLETIONS, headers=ask)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, "https://a.example")
        other = browser.options(COMPLETIONS, headers={**ask, "Origin": "https://b.example"})
        assert other.status_code == 400
        refused = browser.get("/v1/models", headers=ask)
        assert refusal(refused, 401)
        assert refused.headers["access-control-allow-origin"] == "https://a.example"


def test_prompts_are_not_in_the_log(log: io.StringIO) -> None:
    with running() as server:
        server.complete("secret", max_tokens=3)
        refusal(server.post(COMPLETIONS, prompt={"secret": 1}), 400)
        refusal(server.post(COMPLETIONS, prompt="secret", zorg="secret"), 400)
        server.client.get("/health/live")
    # A line is written when its answer is sent, at which the client may have begun the next.
    first, second, third = sorted(lines_of(log), key=lambda line: ("error" in line, line.get("error")))
    assert (first["path"], first["status"], first["prompt_tokens"]) == (COMPLETIONS, 200, 6)
    assert first["completion_tokens"] in (1, 2, 3)
    assert (second["status"], second["error"]) == (400, "invalid_value prompt")
    assert third["error"] == "unknown_parameter zorg"
    assert "secret" not in log.getvalue()
    assert [line["message"] for line in map(json.loads, log.getvalue().splitlines())][-1] == "stopped"


def test_prompts_are_in_the_log_if_asked_for(log: io.StringIO) -> None:
    with running(log_prompts=True) as server:
        answer = server.complete("public", max_tokens=3)
        server.chat("hi")
    first, second = sorted(lines_of(log), key=lambda line: bool(line["prompts"] != ["public"]))
    assert (first["prompts"], first["answers"]) == (["public"], [answer["choices"][0]["text"]])
    assert second["prompts"] == ["u.hi a."]


def test_a_bug_is_told_in_the_log_and_not_to_the_client(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server:

        def fail(*_: object) -> None:
            raise KeyError("secret")

        monkeypatch.setattr(server.service, "sampling", fail)
        error = refusal(server.post(COMPLETIONS, prompt="a"), 500)
        assert (error["type"], error["code"]) == ("server_error", "internal_error")
        assert error["message"] == "internal error of the server; its log tells more"
        monkeypatch.undo()
        server.complete("a")
    (line,) = lines_of(log, "internal error; please report it")
    assert line["level"] == "error"
    assert "completions.py" in line["traceback"]
    assert "secret" not in log.getvalue()


def test_text_for_terminals() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "request", None, None)
    record.fields = {"status": 200, "path": "/a\n"}
    assert re.fullmatch(r"\d\d:\d\d:\d\d info request status=200 path='/a\\n'", TextFormatter().format(record))


def test_metrics() -> None:
    with running() as server:
        text = "once upon a time there was"
        server.complete(text, max_tokens=9, ignore_eos=True)
        server.complete(text, max_tokens=9, ignore_eos=True, n=2)
        refusal(server.post(COMPLETIONS, prompt=1), 400)
        server.client.get("/no/such/path")
        response = server.client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain")
        lines = [line for line in response.text.splitlines() if not line.startswith("#")]
        values = dict(line.rsplit(" ", 1) for line in lines)
    wanted = {
        'amdnfs_http_requests_total{method="POST",path="/v1/completions",status="200"}': 2,
        'amdnfs_http_requests_total{method="POST",path="/v1/completions",status="400"}': 1,
        'amdnfs_http_requests_total{method="GET",path="other",status="404"}': 1,
        'amdnfs_samples_total{finish_reason="length"}': 3,
        'amdnfs_samples_total{finish_reason="cancelled"}': 0,
        "amdnfs_time_to_first_token_seconds_count": 3,
        "amdnfs_inter_token_seconds_count": 24,
        "amdnfs_request_seconds_count": 2,
        "amdnfs_generated_tokens_total": 27,
        'amdnfs_guessed_tokens_total{source="ngram"}': 0,
        'amdnfs_accepted_guesses_total{source="draft"}': 0,
        "amdnfs_prompt_tokens_total": 3 * len(text),
        "amdnfs_kv_pages_used": 0,
        "amdnfs_kv_pages": 299,
        "amdnfs_running_samples": 0,
        "amdnfs_active_requests": 0,
        "amdnfs_up": 1,
    }
    assert {name: float(values[name]) for name in wanted} == wanted
    assert float(values["amdnfs_prefix_hit_tokens_total"]) > 0
    assert float(values["amdnfs_step_seconds_sum"]) > 0
    assert float(values["amdnfs_batch_size_sum"]) >= float(values["amdnfs_batch_size_count"]) > 0


def test_the_docs_name_every_metric_and_option() -> None:
    text = DOCS.read_text(encoding="utf-8")
    with running() as server:
        found = re.findall(r"^# TYPE (\S+)", server.client.get("/metrics").text, re.MULTILINE)
    families = {name for name in found if not name.endswith("_created")}
    assert len(families) > 15
    assert sorted(name for name in families if f"`{name}`" not in text) == []
    from amdnfs_compile.cli.serve import serve_command

    options = {item.opts[0]: item for item in serve_command.params if isinstance(item, click.Option)}
    told = {}
    for row in text.splitlines():
        if row.startswith("| `--"):
            names, default = (cell.strip() for cell in row.split("|")[1:3])
            defaults = default.split(", ")  # one for each name, or one for all
            for index, name in enumerate(re.findall(r"--[a-z-]+", names)):
                told[name] = defaults[min(index, len(defaults) - 1)]
    assert set(told) == set(options)
    for name, item in options.items():
        if isinstance(item.default, (int, float)) and not item.is_flag:
            number, *unit = told[name].split()
            assert float(number) * {"MiB": 2**20, "KiB": 2**10}.get("".join(unit), 1) == item.default, name


def test_the_openapi_document_lists_every_path(server: Running) -> None:
    document = server.client.get("/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    served = {route.path for route in listen.make_app(server.service).routes}  # type: ignore[attr-defined]
    assert set(document["paths"]) == {path.replace(":path}", "}") for path in served} - {"/"}
    schemas = document["components"]["schemas"]
    assert schemas["CompletionFields"]["additionalProperties"] is False
    assert schemas["CompletionFields"]["properties"]["prompt"]["description"].startswith("What to continue")
    references = re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document))
    assert set(references) <= set(schemas)
    undocumented = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, facts in schema.get("properties", {}).items()
        if name != "Error" and "description" not in facts
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"port": 65536}, "port must be an integer >= 0 and < 65536, not 65536"),
        ({"host": ""}, "host must be an address such as 127.0.0.1"),
        ({"api_keys": ("a b",)}, "api_keys: a key must be printable ASCII without spaces"),
        ({"api_keys": ("",)}, "api_keys: a key must be"),
        ({"tls_cert": Path("a")}, "give both tls_cert and tls_key, or neither"),
        ({"model_names": ("",)}, "model_names: a name must be printable"),
        ({"cors_origins": ("a.example",)}, "cors_origins: an origin is like https://chat.example.org"),
        ({"allowed_hosts": ("a.example:80",)}, "allowed_hosts: a host is like chat.example.org, without a port"),
        ({"max_body_bytes": 10}, "max_body_bytes must be an integer >= 1024, not 10"),
        ({"requests_per_minute": 0}, "requests_per_minute must be an integer >= 1"),
        ({"drain_seconds": -1}, "drain_seconds must be a finite number >= 0"),
        ({"request_timeout_s": 0}, "request_timeout_s must be a finite number > 0"),
        ({"read_timeout_s": float("nan")}, "read_timeout_s must be a finite number"),
    ],
)
def test_settings_are_checked(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        ServerConfig(**values)
    assert message in str(error.value)


def test_a_port_in_use() -> None:
    with listen.open_socket(ServerConfig(port=0)) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1 port {port}: Address already in use; choose"):
            listen.open_socket(ServerConfig(port=port))
        assert listen.is_loopback(sock)
    with pytest.raises(UsageError, match=r"--host no\.such\.host\.invalid: no such address"):
        listen.open_socket(ServerConfig(host="no.such.host.invalid", port=0))
    with listen.open_socket(ServerConfig(host="0.0.0.0", port=0)) as sock:
        assert not listen.is_loopback(sock)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def test_https(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    with running(tls_cert=cert, tls_key=key) as server:
        assert server.client.base_url.scheme == "https"
        assert server.complete("a")["choices"]
        context = ssl.create_default_context(cafile=str(cert))
        context.check_hostname = False
        with socket.create_connection(server.address) as raw, context.wrap_socket(raw) as wrapped:
            assert wrapped.version() == "TLSv1.3"


def test_bad_certificates(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    cert, key = certificate
    with pytest.raises(UsageError, match=r"--tls-cert .*absent cannot be read: No such file"):
        listen.check_tls(ServerConfig(tls_cert=tmp_path / "absent", tls_key=key))
    with pytest.raises(UsageError, match="are no certificate and key that belong together"):
        listen.check_tls(ServerConfig(tls_cert=key, tls_key=cert))


def test_time_is_up() -> None:
    with running(SlowProgram(delay_s=0.02), request_timeout_s=0.3) as server:
        began_s = time.monotonic()
        error = refusal(server.post(COMPLETIONS, prompt="a", max_tokens=300, ignore_eos=True), 504)
        assert (error["code"], error["message"]) == ("timeout", "the request was not done within 0.3 s")
        *_, last = server.events(COMPLETIONS, prompt="a", max_tokens=300, ignore_eos=True)
        assert last["error"]["code"] == "timeout"
        assert time.monotonic() - began_s < 5
        server.until_idle()
        assert server.complete("a", max_tokens=2)["choices"]


def test_a_head_request_has_no_body() -> None:
    with running(PagedProgram()) as server:
        connection = http.client.HTTPConnection(*server.address)
        connection.request("HEAD", "/health/live")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"")
        connection.close()
