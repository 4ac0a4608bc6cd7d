"""The script that puts load on servers, against one that runs here."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.runtime.server.harness import Running


@pytest.fixture(scope="module")
def load() -> Any:
    path = Path(__file__).parents[4] / "benchmarks" / "serve_load.py"
    spec = importlib.util.spec_from_file_location("serve_load", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["serve_load"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**{"seed": 1, "prompt_words": 3, "max_tokens": 6, **given})


def test_poisson_arrivals(load: Any, server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(rate=200.0, requests=12)
    seen, seconds = asyncio.run(load.poisson(str(server.client.base_url), given))
    assert not seen.errors
    assert (len(seen.first_s), len(seen.whole_s)) == (12, 12)
    assert seen.num_tokens >= len(seen.first_s) + len(seen.between_s)
    load.print_load(seen, seconds, given)
    assert "| errors | 0 |" in capsys.readouterr().out
    assert load.plot(seen).count("<polyline") == 2


def test_a_soak_leaves_no_pages_behind(load: Any, server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    given = options(clients=12, seconds=0.5)
    assert asyncio.run(load.soak(str(server.client.base_url), given, None))
    text = capsys.readouterr().out
    assert "| errors | 0 |" in text
    assert "| pages used before and after | 0, 0 |" in text
    assert "| requests whose client left | 0 |" not in text


def test_failures_are_counted(load: Any, server: Running) -> None:
    seen = load.Seen()

    async def ask() -> None:
        async with load.httpx.AsyncClient(base_url=str(server.client.base_url)) as client:
            await load.ask(client, {"prompt": "x", "max_tokens": -1}, seen)

    asyncio.run(ask())
    ((text, count),) = seen.errors.items()
    assert text.startswith("ValueError: status 400")
    assert count == 1


def test_percentiles(load: Any) -> None:
    values = list(range(1, 101))
    assert [load.percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert math.isnan(load.percentile([], 50))
