"""Numbers for Prometheus. What they mean is in `docs/serving.md`, which a test compares with this file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from amdnfs_runtime.async_engine import AsyncEngine, EngineStatus
from amdnfs_runtime.request import FinishReason
from amdnfs_runtime.speculation import DRAFT, NGRAM, GuessCounts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the text form."""

_FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NEXT_TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56)
_REQUEST_S = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Metrics:
    """All numbers of one server."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Counts from zero."""
        self._registry = CollectorRegistry()
        self._registry.register(EngineCollector(engine))
        self.http_requests = Counter(
            "amdnfs_http_requests",
            "HTTP requests by path, method and status.",
            ["path", "method", "status"],
            registry=self._registry,
        )
        self.samples = Counter(
            "amdnfs_samples", "Samples that ended, by reason.", ["finish_reason"], registry=self._registry
        )
        for reason in (*FinishReason, "error"):
            self.samples.labels(str(reason))  # there from the begin: a first one is a difference, too
        self.active = Gauge("amdnfs_active_requests", "HTTP requests that generate or wait.", registry=self._registry)
        self.first_token_s = Histogram(
            "amdnfs_time_to_first_token_seconds",
            "From the arrival of a request to the first token of a sample.",
            buckets=_FIRST_TOKEN_S,
            registry=self._registry,
        )
        self.next_token_s = Histogram(
            "amdnfs_inter_token_seconds",
            "From one token of a sample to the next.",
            buckets=_NEXT_TOKEN_S,
            registry=self._registry,
        )
        self.request_s = Histogram(
            "amdnfs_request_seconds",
            "From the arrival of a request that generates to its end.",
            buckets=_REQUEST_S,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All numbers in Prometheus' text form."""
        return generate_latest(self._registry)


class EngineCollector(Collector):
    """What the engine counts itself, read when somebody asks."""

    def __init__(self, engine: AsyncEngine) -> None:
        """Reads nothing yet."""
        self._engine = engine

    def collect(self) -> Iterator[Metric]:
        """The engine's numbers of this moment."""
        stats = self._engine.stats()
        totals = stats.totals
        health = self._engine.health()
        for name, text, value in (
            ("amdnfs_waiting_samples", "Samples that wait for pages.", stats.num_waiting),
            ("amdnfs_running_samples", "Samples that hold pages.", stats.num_running),
            ("amdnfs_kv_pages", "Pages of the KV pool that can be handed out.", stats.num_pages),
            ("amdnfs_kv_pages_used", "Pages that running samples hold.", stats.num_used_pages),
            ("amdnfs_kv_pages_cached", "Pages that later prompts can use.", stats.num_cached_pages),
            ("amdnfs_up", "1 if requests can be served, else 0.", int(health.status is EngineStatus.OK)),
        ):
            yield GaugeMetricFamily(name, text, value=value)
        for name, text, count in (
            ("amdnfs_prompt_tokens", "Tokens of prompts that have their first token.", totals.num_prompt_tokens),
            ("amdnfs_prefix_hit_tokens", "Those of them that the prefix cache had.", totals.num_cached_tokens),
            ("amdnfs_prefill_tokens", "Tokens that prefill computed.", totals.num_prefill_tokens),
            ("amdnfs_generated_tokens", "Tokens generated.", totals.num_generated_tokens),
            ("amdnfs_preemptions", "Samples that gave their pages back and waited.", stats.num_preemptions),
            ("amdnfs_cancelled_requests", "Requests whose client left.", totals.num_cancelled),
            ("amdnfs_device_failures", "Device calls that failed or were stuck.", health.num_failures),
            ("amdnfs_device_seconds", "Time in device calls.", totals.device_s),
        ):
            yield CounterMetricFamily(name, text, value=count)
        yield from self._guesses(stats.guesses)
        for name, text, count, total in (
            ("amdnfs_step_seconds", "Time of a step.", totals.num_steps, totals.step_s),
            ("amdnfs_batch_size", "Samples in a decode call.", totals.num_decode_calls, totals.num_decode_rows),
        ):
            yield SummaryMetricFamily(name, text, count_value=count, sum_value=total)

    @staticmethod
    def _guesses(counts: Mapping[str, GuessCounts]) -> Iterator[Metric]:
        """Guessed tokens by source; sources that are not asked have zeros, so that a first guess is a difference."""
        guessed = CounterMetricFamily("amdnfs_guessed_tokens", "Guessed tokens that were checked.", labels=["source"])
        right = CounterMetricFamily("amdnfs_accepted_guesses", "Those of them that were right.", labels=["source"])
        for source in (NGRAM, DRAFT):
            of_source = counts.get(source, GuessCounts())
            guessed.add_metric([source], of_source.num_guessed)
            right.add_metric([source], of_source.num_right)
        yield from (guessed, right)
