"""Spans, as a collector gets them."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.tracing import make_tracing

from tests.unit.runtime.server.harness import refusal, running

PARENT = "4bf92f3577b34da6a3ce929d0e0e4736"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Something that takes traces."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", bodies
        server.shutdown()
        thread.join()


def values_of(span: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes}


def test_a_request_is_a_span() -> None:
    trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    with collector() as (url, bodies):
        with running(otlp_endpoint=url) as server:
            headers = {"traceparent": f"00-{PARENT}-00f067aa0ba902b7-01", "x-request-id": "mine"}
            body = {"prompt": "once", "max_tokens": 3, "ignore_eos": True}
            assert server.client.post("/v1/completions", json=body, headers=headers).status_code == 200
            refusal(server.post("/v1/completions", prompt=4), 400)
            server.client.get("/health/live")
        messages = [trace_service.ExportTraceServiceRequest.FromString(body) for body in bodies]
    resources = [resource for message in messages for resource in message.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    # A span is told when its answer is sent, at which the client may have begun the next.
    first, second = sorted(spans, key=lambda span: span.start_time_unix_nano)
    values = values_of(first)
    assert first.name == "POST /v1/completions"
    assert first.trace_id.hex() == PARENT
    assert 0 < first.end_time_unix_nano - first.start_time_unix_nano < 30e9
    assert (values["http.response.status_code"], values["amdnfs.request_id"]) == (200, "mine")
    assert (values["gen_ai.usage.input_tokens"], values["gen_ai.usage.output_tokens"]) == (4, 3)
    assert values["amdnfs.prefill_s"] >= 0
    assert values_of(second)["http.response.status_code"] == 400
    assert second.trace_id.hex() != PARENT
    assert values_of(resources[0].resource)["service.name"] == "amdnfs"
    assert b"once" not in b"".join(bodies)


def test_a_collector_that_is_not_there_keeps_nobody() -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with running(otlp_endpoint="http://127.0.0.1:9/v1/traces") as server:
        assert server.complete("a", max_tokens=2)["choices"]
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 20


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(
        UsageError, match=r"--otlp-endpoint needs .*; install it with: pip install 'amdnfs\[serve,otel\]'"
    ):
        make_tracing("http://127.0.0.1:4318/v1/traces")
