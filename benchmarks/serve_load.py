"""Load on a server over HTTP: Poisson arrivals, or many clients that leave when they like.

    python benchmarks/serve_load.py BUNDLE --rate 8 --requests 200 --plot load.svg
    python benchmarks/serve_load.py BUNDLE --soak --clients 500 --seconds 60
    python benchmarks/serve_load.py http://127.0.0.1:8000 --rate 8

With a bundle, `amdnfs serve` is started for it on this machine and ended afterwards; its options come after `--`.
Clients and server then share the processors. Requests are streams of `/v1/completions` with random prompts and lengths.
The time between tokens is that between pieces of text that the client gets; a piece mostly is a token.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

WORDS = ("the", "cat", "bird", "girl", "sun", "river", "went", "saw", "a", "small", "red", "ball", "1", "2", "7", "+")
TIMEOUT = httpx.Timeout(300.0)
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
PERCENTILES = (50, 90, 99)


@dataclass
class Seen:
    """What the clients saw."""

    first_s: list[float] = field(default_factory=list)
    """From sending a request to its first text."""
    between_s: list[float] = field(default_factory=list)
    """Between pieces of text of one request."""
    whole_s: list[float] = field(default_factory=list)
    """From sending a request to its end."""
    num_tokens: int = 0
    """Generated tokens, by the server's count."""
    num_prompt_tokens: int = 0
    """Tokens of prompts."""
    num_left: int = 0
    """Requests whose client left."""
    errors: Counter[str] = field(default_factory=Counter)
    """What went wrong, and how often."""


def body(rng: random.Random, prompt_words: int, max_tokens: int) -> dict[str, Any]:
    """A request with lengths around the given ones."""
    num_words = max(1, min(round(rng.expovariate(1 / prompt_words)), 4 * prompt_words))
    num_tokens = max(1, min(round(rng.expovariate(1 / max_tokens)), 4 * max_tokens))
    return {
        "prompt": " ".join(rng.choices(WORDS, k=num_words)),
        "max_tokens": num_tokens,
        "ignore_eos": True,
        "temperature": rng.choice([0.0, 0.8]),
        "seed": rng.randrange(2**31),
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream.

    Raises:
        ValueError: If it ends before its last event.
    """
    async for line in response.aiter_lines():
        if line == "data: [DONE]":
            return
        if line.startswith("data: "):
            yield json.loads(line[6:])
    raise ValueError("the stream ends before its last event")


async def ask(client: httpx.AsyncClient, given: dict[str, Any], seen: Seen, pieces_to_stay: int | None = None) -> None:
    """Sends a request, and leaves after some pieces if that is given."""
    began_s = last_s = time.perf_counter()
    num_pieces = 0
    try:
        async with client.stream("POST", "/v1/completions", json=given) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}: {(await response.aread())[:120]!r}")
            async for event in events(response):
                if "error" in event:
                    raise ValueError(event["error"]["message"])
                now_s = time.perf_counter()
                if event.get("usage"):
                    seen.num_tokens += event["usage"]["completion_tokens"]
                    seen.num_prompt_tokens += event["usage"]["prompt_tokens"]
                if not event["choices"] or not event["choices"][0]["text"]:
                    continue
                if num_pieces == pieces_to_stay:
                    seen.num_left += 1
                    return
                (seen.between_s if num_pieces else seen.first_s).append(now_s - last_s)
                last_s, num_pieces = now_s, num_pieces + 1
        seen.whole_s.append(time.perf_counter() - began_s)
    except (httpx.HTTPError, ValueError) as error:
        seen.errors[f"{type(error).__name__}: {error}"[:160]] += 1


async def poisson(url: str, options: argparse.Namespace) -> tuple[Seen, float]:
    """Sends requests at random times; what the clients saw, and how long it took in seconds."""
    rng, seen = random.Random(options.seed), Seen()
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=LIMITS) as client:
        await ask(client, body(rng, options.prompt_words, 4), Seen())  # the first request of a server is slower
        began_s = time.perf_counter()
        tasks, due_s = [], began_s
        for _ in range(options.requests):
            due_s += rng.expovariate(options.rate)
            await asyncio.sleep(max(0.0, due_s - time.perf_counter()))
            given = body(rng, options.prompt_words, options.max_tokens)
            tasks.append(asyncio.create_task(ask(client, given, seen)))
        await asyncio.gather(*tasks)
    return seen, time.perf_counter() - began_s


async def soak(url: str, options: argparse.Namespace, pid: int | None) -> bool:
    """Keeps clients busy for a while and prints what became of them; whether all is as it was before."""
    rng, seen = random.Random(options.seed), Seen()
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=LIMITS) as client:
        before = (await client.get("/metrics.json")).json()
        end_s = time.perf_counter() + options.seconds

        async def be_a_client(own: random.Random) -> None:
            while time.perf_counter() < end_s:
                stay = own.randrange(12) if own.random() < 1 / 3 else None
                await ask(client, body(own, options.prompt_words, options.max_tokens), seen, stay)

        memory, most_running, most_pages = [], 0, 0
        clients = [asyncio.create_task(be_a_client(random.Random(rng.random()))) for _ in range(options.clients)]
        while any(not task.done() for task in clients):
            await asyncio.sleep(1.0)
            now = (await client.get("/metrics.json")).json()
            most_running = max(most_running, now["num_running"])
            most_pages = max(most_pages, now["num_used_pages"])
            memory.append(rss_mib(pid))
        await asyncio.gather(*clients)
        await asyncio.sleep(2.0)
        after = (await client.get("/metrics.json")).json()
    third = max(1, len(memory) // 3)
    rows = [
        ("clients, seconds", f"{options.clients}, {options.seconds:g}"),
        ("requests that ended", f"{len(seen.whole_s)}"),
        ("requests whose client left", f"{seen.num_left}"),
        ("errors", f"{sum(seen.errors.values())}"),
        ("most running at once, most pages", f"{most_running}, {most_pages} of {after['num_pages']}"),
        ("pages used before and after", f"{before['num_used_pages']}, {after['num_used_pages']}"),
        ("time to first token, p50 / p90 / p99", percentiles(seen.first_s)),
        ("between tokens, p50 / p90 / p99", percentiles(seen.between_s)),
    ]
    if pid is not None:
        parts = (memory[third : 2 * third], memory[2 * third :])
        rows.append(("memory of the server, 2nd and last third", " and ".join(f"{max(p):.0f} MiB" for p in parts)))
    print_table("soak", rows)
    print_errors(seen)
    return not seen.errors and after["num_used_pages"] == before["num_used_pages"]


def rss_mib(pid: int | None) -> float:
    """Memory of a process; 0 if there is none."""
    if pid is None:
        return 0.0
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) / 1024  # type: ignore[index]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest value; NaN of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(percent / 100 * len(ordered)) - 1)] if ordered else math.nan


def percentiles(values: Sequence[float]) -> str:
    """Some percentiles of times in seconds, as text in ms."""
    return " / ".join(f"{percentile(values, percent) * 1e3:.1f}" for percent in PERCENTILES) + " ms"


def print_table(title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Prints Markdown."""
    print(f"| {title} | value |\n|---|---|")
    print("\n".join(f"| {name} | {value} |" for name, value in rows), flush=True)


def print_errors(seen: Seen) -> None:
    """Prints what went wrong, the most common first."""
    for text, count in seen.errors.most_common(5):
        print(f"error, {count} times: {text}", file=sys.stderr)


def print_load(seen: Seen, seconds: float, options: argparse.Namespace) -> None:
    """Prints throughput and latency."""
    rows = [
        ("requests, arrivals a second", f"{options.requests}, {options.rate:g}"),
        ("errors", f"{sum(seen.errors.values())}"),
        ("requests a second", f"{len(seen.whole_s) / seconds:.2f}"),
        ("generated tokens a second", f"{seen.num_tokens / seconds:.1f}"),
        ("prompt tokens a second", f"{seen.num_prompt_tokens / seconds:.1f}"),
        ("time to first token, p50 / p90 / p99", percentiles(seen.first_s)),
        ("between tokens, p50 / p90 / p99", percentiles(seen.between_s)),
        ("whole request, p50 / p90 / p99", percentiles(seen.whole_s)),
    ]
    print_table("load", rows)
    print_errors(seen)


def plot(seen: Seen) -> str:
    """Shares of requests and tokens by latency, as an SVG image with a logarithmic axis."""
    width, height, left, bottom, top = 720, 360, 50, 40, 24
    curves = [("time to first token", seen.first_s, "#b3261e"), ("between tokens", seen.between_s, "#1f5fa8")]
    known = [value for _, values, _ in curves for value in values if value > 0]
    low, high = math.floor(math.log10(min(known))), math.ceil(math.log10(max(known)) + 1e-9)

    def x(seconds: float) -> float:
        return left + (math.log10(max(seconds, 10**low)) - low) / (high - low) * (width - left - 16)

    def y(share: float) -> float:
        return height - bottom - share * (height - bottom - top)

    parts = [f'<rect width="{width}" height="{height}" fill="#fff"/>']
    for power in range(low, high + 1):
        label = f"{10**power:g} s" if power >= 0 else f"{10 ** (power + 3):g} ms"
        parts.append(f'<path d="M{x(10**power):.1f} {y(0)}V{y(1)}" stroke="#ddd"/>')
        parts.append(f'<text x="{x(10**power):.1f}" y="{height - bottom + 18}" text-anchor="middle">{label}</text>')
    for percent in (0, 50, 90, 100):
        parts.append(f'<path d="M{left} {y(percent / 100):.1f}H{width - 16}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y(percent / 100) + 4:.1f}" text-anchor="end">{percent} %</text>')
    for number, (name, values, colour) in enumerate(curves):
        points = [(percentile(values, percent / 2), percent / 200) for percent in range(1, 201)] if values else []
        line = " ".join(f"{x(seconds):.1f},{y(share):.1f}" for seconds, share in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{left + 10 + 190 * number}" y="16" fill="{colour}">{name}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12">{"".join(parts)}</svg>\n'
    )


@contextlib.contextmanager
def served(where: str, more: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """The URL of a server, and the id of its process if it was started here."""
    if where.startswith("http"):
        yield where, None
        return
    code = "from amdnfs_compile.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", where, "--port", "0", *more]
    # Its log is dropped: nobody reading a pipe would stop the server.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        try:
            found = re.search(r"^serving .* at (http\S+)", process.stdout.readline())
            if not found:
                raise SystemExit(f"the server does not start; try: amdnfs serve {where}")
            yield found[1], process.pid
        finally:
            process.terminate()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("where", help="a bundle, or the URL of a server")
    add("--rate", type=float, default=8.0, help="arrivals a second, on average")
    add("--requests", type=int, default=200)
    add("--prompt-words", type=int, default=40, help="mean length of a prompt, in words")
    add("--max-tokens", type=int, default=48, help="mean length of a text, in tokens")
    add("--seed", type=int, default=0)
    add("--plot", type=Path, help="write an SVG image here")
    add("--soak", action="store_true", help="many clients, a third of which leave at random")
    add("--clients", type=int, default=500, help="with --soak")
    add("--seconds", type=float, default=60.0, help="with --soak")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options = parser.parse_args(sys.argv[1:split])
    with served(options.where, sys.argv[split + 1 :]) as (url, pid):
        if options.soak:
            sys.exit(0 if asyncio.run(soak(url, options, pid)) else 1)
        seen, seconds = asyncio.run(poisson(url, options))
        print_load(seen, seconds, options)
        if options.plot is not None and seen.first_s:
            options.plot.write_text(plot(seen))


if __name__ == "__main__":
    main()
