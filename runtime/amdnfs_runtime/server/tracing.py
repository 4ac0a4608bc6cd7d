"""OpenTelemetry spans: one a request that is not about health, sent to a collector. Needs `amdnfs[otel]`.

A client's `traceparent` header makes the span a part of its trace. Prompts and answers are not in spans.

Source: OpenTelemetry's semantic conventions for HTTP servers and for generative AI, for the names of attributes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.exchange import Exchange

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_NAME = "amdnfs"
"""What spans say of where they are from, unless `OTEL_SERVICE_NAME` says otherwise."""

_NS = 1e9
_EXPORT_S = 3.0
_OF_NOTES = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "queue_s": "amdnfs.queue_s",
    "prefill_s": "amdnfs.prefill_s",
    "decode_s": "amdnfs.decode_s",
}


class Tracing(Protocol):
    """Where finished requests are told."""

    def record(self, exchange: Exchange, method: str, path: str, status: int) -> None:
        """Tells of a request that is done."""

    def close(self) -> None:
        """Sends what is left."""


class NoTracing:
    """Nobody is told."""

    def record(self, exchange: Exchange, method: str, path: str, status: int) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class SpanTracing:
    """Tells a provider of OpenTelemetry's SDK."""

    def __init__(self, provider: TracerProvider) -> None:
        """Takes the provider over."""
        self._provider = provider
        self._tracer = provider.get_tracer("amdnfs_runtime.server")

    def record(self, exchange: Exchange, method: str, path: str, status: int) -> None:
        """Makes a span of the time that the request took."""
        from opentelemetry.trace import SpanKind, Status, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        end_ns = time.time_ns()
        start_ns = end_ns - int((time.perf_counter() - exchange.began_s) * _NS)
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.path": path,
            "http.response.status_code": status,
            "amdnfs.request_id": exchange.request_id,
        }
        attributes.update({_OF_NOTES[name]: value for name, value in exchange.notes.items() if name in _OF_NOTES})
        carrier = {name: exchange.headers[name] for name in ("traceparent", "tracestate") if name in exchange.headers}
        span = self._tracer.start_span(
            f"{method} {path}",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=SpanKind.SERVER,
            attributes=attributes,
            start_time=start_ns,
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_ns)

    def close(self) -> None:
        """Sends what is left, within the exporter's own time-out."""
        self._provider.shutdown()


def make_tracing(endpoint: str | None) -> Tracing:
    """Spans to a collector that speaks OTLP over HTTP, or none.

    Args:
        endpoint: Where it takes traces, e.g. `http://127.0.0.1:4318/v1/traces`.

    Raises:
        UsageError: If the packages for it are not installed.
    """
    if endpoint is None:
        return NoTracing()
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--otlp-endpoint needs {error.name}; install it with: pip install 'amdnfs[serve,otel]'"
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": SERVICE_NAME}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S)))
    return SpanTracing(provider)
