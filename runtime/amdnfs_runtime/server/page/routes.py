"""Serves the page and the numbers that it shows."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from importlib import resources
from typing import Any

from prometheus_client import Histogram
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from amdnfs_runtime.server.service import Service

_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


class Page:
    """The page of one server."""

    def __init__(self, service: Service) -> None:
        """Reads the page."""
        self._service = service
        self._html = resources.files(__package__).joinpath("index.html").read_text(encoding="utf-8")
        scripts = _SCRIPT.findall(self._html)
        hashes = " ".join(f"'sha256-{_base64_sha256(script)}'" for script in scripts)
        # The texts of models and of those who ask are shown as text only; this holds if that should ever fail.
        policy = (
            f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._headers = {
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",
        }

    async def index(self, _: Request) -> Response:
        """The page."""
        return HTMLResponse(self._html, headers=self._headers)

    async def numbers(self, _: Request) -> Response:
        """What the page shows; sums since the start, so that whoever asks takes differences."""
        service = self._service
        stats, metrics = service.engine.stats(), service.metrics
        totals = stats.totals
        status = "stopping" if service.is_draining else str(service.engine.health().status)
        return JSONResponse(
            {
                "time_s": time.monotonic(),
                "status": status,
                "num_running": stats.num_running,
                "num_waiting": stats.num_waiting,
                "num_pages": stats.num_pages,
                "num_used_pages": stats.num_used_pages,
                "num_cached_pages": stats.num_cached_pages,
                "num_generated_tokens": totals.num_generated_tokens,
                "num_prompt_tokens": totals.num_prompt_tokens,
                "num_cached_tokens": totals.num_cached_tokens,
                "first_token_s": _buckets(metrics.first_token_s),
                "next_token_s": _buckets(metrics.next_token_s),
                "facts": self._facts(),
            }
        )

    def _facts(self) -> dict[str, Any]:
        """What the bundle is."""
        service, manifest = self._service, self._service.manifest
        engine, model = service.engine.engine, manifest.model
        points = manifest.targets[engine.target_name].entry_points
        pool_mib = engine.pool.num_pages * manifest.page_bytes / 2**20
        shown = [
            ("Model", model.name),
            ("Architecture", model.architecture or model.model_type),
            ("Target", engine.target_name),
            ("Type", model.dtype),
            ("Context", f"{model.context_tokens} tokens"),
            ("Vocabulary", f"{model.vocab_size} tokens"),
            ("KV cache", f"{engine.pool.num_pages - 1} pages of {manifest.page_tokens} tokens, {pool_mib:.1f} MiB"),
            ("Programs", ", ".join(point.name for point in points)),
            ("Digest", model.digest[:12]),
        ]
        return {
            "model": service.model_names[0],
            "has_chat_template": service.renderer is not None,
            "shown": [[name, value] for name, value in shown if value],
        }


def _buckets(histogram: Histogram) -> list[tuple[float | None, float]]:
    """Upper bounds in seconds, the last None, and how many values are not above each."""
    (metric,) = histogram.collect()
    found = [(sample.labels["le"], sample.value) for sample in metric.samples if sample.name.endswith("_bucket")]
    return [(None if bound == "+Inf" else float(bound), count) for bound, count in found]


def _base64_sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
