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


def script(name: str) -> Any:
    path = Path(__file__).parents[4] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def load() -> Any:
    return script("serve_load")


@pytest.fixture(scope="module")
def comparison(load: Any) -> Any:
    return script("serve_compare")


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


def test_servers_side_by_side(comparison: Any, server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(server.client.base_url)
    given = options(requests=[1, 4], rounds=2, prompt_tokens=5, vocab=30)
    comparison.print_table(comparison.compare({"a": url, "b": url}, given))
    captured = capsys.readouterr()
    rows = [line.split(" | ") for line in captured.out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["| a", "1"], ["| b", "1"], ["| a", "4"], ["| b", "4"]]
    assert [row[3] for row in rows[:2]] == ["1.0", "1.0"]
    # A client that was slow may have found all of a short text at once: then there is nothing between.
    assert {row[5] for row in rows[:2]} <= {"1.0", "nan"}
    assert captured.err.count("tokens/s") == 8
    with pytest.raises(SystemExit, match="0 tokens of 4, 1 errors"):
        comparison.compare({"a": url}, options(requests=[1], rounds=1, prompt_tokens=5, vocab=3000))


def test_percentiles(load: Any) -> None:
    values = list(range(1, 101))
    assert [load.percentile(values, percent) for percent in (50, 90, 99, 100)] == [50, 90, 99, 100]
    assert math.isnan(load.percentile([], 50))
