"""Servers with OpenAI's interface side by side under the same load: many requests at once against one.

    python benchmarks/serve_compare.py amdnfs=http://127.0.0.1:8000 llama.cpp=http://127.0.0.1:8080

Each round asks one server after the other, so that a change of the machine's speed hits all of them. A case is a number
of requests that begin together: streams of `/v1/completions`, greedy, with random token ids as prompts, so that no
cache has them, and as many tokens as were asked for. Tokens are counted by the servers; all of the time counts, that of
the prompts, too. "While all write" is without that: requests over the median time between pieces of text. The table
has the fastest round of each case, which other work on the machine disturbed least.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from dataclasses import dataclass
from typing import Any

import httpx
from serve_load import LIMITS, TIMEOUT, Seen, ask, percentile, print_errors


@dataclass(frozen=True)
class Round:
    """What one server did in one round of one case."""

    tokens_per_s: float
    """Generated tokens of all requests over the time from the first request to the last token."""
    first_s: float
    """Median time to the first text."""
    between_s: float
    """Median time from one piece of text of a request to the next; a piece mostly is a token."""


def body(rng: random.Random, options: argparse.Namespace) -> dict[str, Any]:
    """A request; low token ids are left out, as many vocabularies have control tokens and bytes there."""
    least = min(300, options.vocab // 2)
    return {
        "prompt": [rng.randrange(least, options.vocab) for _ in range(options.prompt_tokens)],
        "max_tokens": options.max_tokens,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def measure(url: str, bodies: list[dict[str, Any]]) -> Round:
    """Sends all requests at once.

    Raises:
        SystemExit: If a server fails, or gives another number of tokens than was asked for.
    """
    seen = Seen()
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, limits=LIMITS) as client:
        began_s = time.perf_counter()
        await asyncio.gather(*(ask(client, given, seen) for given in bodies))
        took_s = time.perf_counter() - began_s
    wanted = sum(given["max_tokens"] for given in bodies)
    if seen.errors or seen.num_tokens != wanted:
        print_errors(seen)
        raise SystemExit(f"{url}: {seen.num_tokens} tokens of {wanted}, {sum(seen.errors.values())} errors")
    first_s, between_s = percentile(seen.first_s, 50), percentile(seen.between_s, 50)
    return Round(tokens_per_s=seen.num_tokens / took_s, first_s=first_s, between_s=between_s)


def compare(servers: dict[str, str], options: argparse.Namespace) -> dict[tuple[str, int], list[Round]]:
    """All rounds of all cases, by server and number of requests."""
    rng = random.Random(options.seed)
    rounds: dict[tuple[str, int], list[Round]] = {}
    for url in servers.values():  # the first request of a server is slower
        asyncio.run(measure(url, [{**body(rng, options), "max_tokens": 4}]))
    for number in range(options.rounds):
        for count in options.requests:
            for name, url in servers.items():
                bodies = [body(rng, options) for _ in range(count)]
                done = asyncio.run(measure(url, bodies))
                rounds.setdefault((name, count), []).append(done)
                print(f"round {number + 1}, {name}, {count}: {done.tokens_per_s:.1f} tokens/s", file=sys.stderr)
    return rounds


def print_table(rounds: dict[tuple[str, int], list[Round]]) -> None:
    """Prints Markdown; gains are over the least number of requests."""
    least = min(count for _, count in rounds)
    best = {case: max(done, key=lambda item: item.tokens_per_s) for case, done in rounds.items()}
    print("| server | requests at once | tokens/s | gain | while all write | gain | first text | between texts |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, count), item in best.items():
        alone = best[name, least]
        gain = item.tokens_per_s / alone.tokens_per_s
        writing = (count / item.between_s, count * alone.between_s / (least * item.between_s))
        print(
            f"| {name} | {count} | {item.tokens_per_s:.1f} | {gain:.1f} | {writing[0]:.1f} | {writing[1]:.1f} "
            f"| {item.first_s:.2f} s | {item.between_s * 1e3:.0f} ms |",
            flush=True,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("servers", nargs="+", metavar="NAME=URL")
    add("--requests", type=int, nargs="+", default=[1, 32], help="requests that begin together, case by case")
    add("--rounds", type=int, default=3)
    add("--prompt-tokens", type=int, default=32)
    add("--max-tokens", type=int, default=128)
    add("--vocab", type=int, default=32000, help="token ids of prompts are below this")
    add("--seed", type=int, default=0)
    options = parser.parse_args()
    servers = dict(item.partition("=")[::2] for item in options.servers)
    if not all(url.startswith("http") for url in servers.values()):
        parser.error("name each server as NAME=URL, e.g. amdnfs=http://127.0.0.1:8000")
    print_table(compare(servers, options))


if __name__ == "__main__":
    main()
