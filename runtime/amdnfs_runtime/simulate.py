"""Serving without a device: the engine's own scheduler on a clock that a cost model moves.

    python -m amdnfs_runtime.simulate --product mi300x --parameters 8e9 --requests 10000

Requests arrive at random times (Poisson) with prompts and texts of random lengths; what they say does not matter. A
device call takes

    call + per token x tokens + per context token x context tokens         seconds

with figures given as they are, or made from the peaks of a product. Peaks give floors: no device reaches them, and what
is printed then is what the scheduler would do with a perfect device, never a measured or expected time.
"""

from __future__ import annotations

import argparse
import heapq
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amdnfs_targets.products import get_product

from amdnfs_runtime.bundle import EntryPoint, LayerCacheEntry, Manifest, ModelEntry, TargetEntry
from amdnfs_runtime.calls import IntArray, TableArray
from amdnfs_runtime.checks import check_int, checked_float
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.request import SamplingParams

_VOCAB = 50_000
_PAGE_TOKENS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class CostModel:
    """Time of a device call. Numbers as they are: from a measurement, a roofline or thin air.

    >>> round(CostModel(call_s=1e-3, token_s=1e-6, context_token_s=1e-8).seconds(32, 10_000), 6)
    0.001132
    """

    call_s: float
    """Seconds of a call, however small: reading the weights, launching kernels."""
    token_s: float
    """Seconds for each token computed, padding included."""
    context_token_s: float
    """Seconds for each cached token that attention reads."""

    def seconds(self, num_tokens: int, num_context_tokens: int) -> float:
        """Time of a call."""
        return self.call_s + self.token_s * num_tokens + self.context_token_s * num_context_tokens

    @staticmethod
    def from_peaks(
        product: str, *, num_parameters: float, kv_token_bytes: float, element_type: str, launch_s: float
    ) -> CostModel:
        """The floor of a product: weights and cache read once at peak bandwidth, then all arithmetic at peak.

        Args:
            product: Name of the product, e.g. `mi300x`.
            num_parameters: Parameters of the model.
            kv_token_bytes: Bytes of keys and values of one token, over all layers.
            element_type: MLIR type of weights and arithmetic: `f16`, `bf16`, `f32` or `f8...`.
            launch_s: Seconds of a call beside that.
        """
        peaks = get_product(product)
        num_bytes = {"f32": 4, "f16": 2, "bf16": 2}.get(element_type, 1)
        return CostModel(
            call_s=launch_s + num_parameters * num_bytes / peaks.memory_bytes_per_s,
            token_s=2 * num_parameters / peaks.peak_flops(element_type),
            context_token_s=kv_token_bytes / peaks.memory_bytes_per_s,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What comes in."""

    num_requests: int = 10_000
    """Requests; >= 1."""
    rate: float = 50.0
    """Requests a second, on average; > 0."""
    prompt_tokens: int = 256
    """Mean length of a prompt; >= 1. Lengths are exponential, cut at 8 times the mean."""
    output_tokens: int = 128
    """Mean length of a text, in the same way."""
    shared_tokens: int = 0
    """Tokens that all prompts begin with; >= 0."""
    seed: int = 0
    """Seed of all of it."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("num_requests", "prompt_tokens", "output_tokens"):
            check_int(name, getattr(self, name), least=1)
        for name in ("shared_tokens", "seed"):
            check_int(name, getattr(self, name), least=0)
        checked_float("rate", self.rate, least=0.0, most=1e9, open_below=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulationResult:
    """What came out. Times are on the simulated clock, in seconds, except `wall_s`."""

    num_requests: int
    """Requests that came."""
    num_lost: int
    """Those that did not end as they should."""
    num_leaked_pages: int
    """Pages in use at the end."""
    num_most_running: int
    """Most that ran at once."""
    num_steps: int
    """Steps."""
    num_preemptions: int
    """Requests that had to give their pages back."""
    num_generated_tokens: int
    """Tokens generated."""
    cached_share: float
    """Share of the prompt tokens that came from the prefix cache."""
    simulated_s: float
    """From the first arrival to the last token."""
    wall_s: float
    """How long the simulation took here."""
    first_token_s: np.ndarray
    """Time from arrival to first token `[requests]`."""
    between_tokens_s: np.ndarray
    """Times between tokens of one request, all requests together."""

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens a second."""
        return self.num_generated_tokens / self.simulated_s if self.simulated_s else 0.0


class Clock:
    """Time that stands still unless it is moved."""

    def __init__(self) -> None:
        """Starts at 0."""
        self.now_s = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now_s


class SimulatedProgram:
    """Has the interface of `device.Program`; moves a clock instead of computing."""

    is_queued = False

    def __init__(self, cost: CostModel, clock: Clock) -> None:
        """Remembers how long calls take."""
        self._cost = cost
        self._clock = clock

    def wait(self) -> None:
        """All is done already."""

    def make_pools(self, manifest: Manifest, num_pages: int) -> list[Any]:
        """There is nothing to hold."""
        return []

    def call(
        self, name: str, tokens: IntArray, start: IntArray, num_valid: IntArray, table: TableArray, pools: list[Any]
    ) -> tuple[Any, Any, list[Any]]:
        """Takes its time, and says tokens that depend on the positions alone."""
        context = int((start + num_valid).sum())
        self._clock.now_s += self._cost.seconds(tokens.size, context)
        return (start * 31 + 7) % _VOCAB, None, pools

    def read(self, array: Any) -> np.ndarray:
        """The greedy tokens."""
        return np.asarray(array)

    def read_rows(self, array: Any, rows: Sequence[int]) -> np.ndarray:
        """There are no logits: simulated requests are greedy."""
        raise NotImplementedError("a simulated device has no logits: only greedy requests can be simulated")


def simulated_manifest(prefill_chunks: Sequence[int], decode_batches: Sequence[int], context_tokens: int) -> Manifest:
    """A model that exists as a size only."""
    points = [EntryPoint(name=f"prefill_{size}", kind="prefill", batch=1, tokens=size) for size in prefill_chunks]
    points += [EntryPoint(name=f"decode_{size}", kind="decode", batch=size, tokens=1) for size in decode_batches]
    target = TargetEntry(kind="cpu", gfx=None, program="", facts="", entry_points=tuple(points), cpu_features=())
    model = ModelEntry(
        name="simulated",
        architecture="",
        model_type="",
        dtype="f16",
        vocab_size=_VOCAB,
        context_tokens=context_tokens,
        digest="",
    )
    return Manifest(
        model=model,
        page_tokens=_PAGE_TOKENS,
        cache_dtype="f16",
        layers=(LayerCacheEntry(kind="paged", kv_heads=1, head_dim=1, window=0),),
        bos_token_id=None,
        eos_token_ids=(),
        weights=(),
        targets={"simulated": target},
    )


def simulate(workload: Workload, cost: CostModel, manifest: Manifest, config: EngineConfig) -> SimulationResult:
    """Runs a workload to its end.

    Args:
        workload: What comes in.
        cost: How long device calls take.
        manifest: Entry points and context; `simulated_manifest` makes one.
        config: How the engine runs; `kv_pages` must be given, as there is no memory to ask.
    """
    began_s = time.perf_counter()
    assert config.kv_pages is not None
    clock = Clock()
    engine = Engine(SimulatedProgram(cost, clock), manifest, "simulated", None, config.kv_pages, config, clock=clock)
    arrivals = _arrivals(workload, manifest.model.context_tokens)
    last_s: dict[str, float] = {}
    first: list[float] = []
    between: list[float] = []
    num_ended = num_most = 0
    heapq.heapify(arrivals)
    while arrivals or engine.has_work:
        if not engine.has_work:
            clock.now_s = max(clock.now_s, arrivals[0][0])
        while arrivals and arrivals[0][0] <= clock.now_s:
            arrived_s, number, prompt, num_output = heapq.heappop(arrivals)
            params = SamplingParams(max_tokens=num_output, ignore_eos=True)
            engine.start(engine.prepare(prompt, params, f"{number}"))
            last_s[f"{number}"] = -arrived_s
        outputs = engine.step()
        for output in outputs:
            before = last_s[output.request_id]
            # Until the first token the time of arrival is kept, as a negative number.
            (first if before <= 0 else between).append(clock.now_s - abs(before))
            last_s[output.request_id] = clock.now_s
            num_ended += output.result is not None
        num_most = max(num_most, engine.num_running, len(outputs))  # some have ended in this step
    engine.check_integrity()
    stats = engine.stats()
    return SimulationResult(
        num_requests=workload.num_requests,
        num_lost=workload.num_requests - num_ended,
        num_leaked_pages=stats.num_used_pages,
        num_most_running=num_most,
        num_steps=stats.totals.num_steps,
        num_preemptions=stats.num_preemptions,
        num_generated_tokens=stats.totals.num_generated_tokens,
        cached_share=stats.totals.num_cached_tokens / max(1, stats.totals.num_prompt_tokens),
        simulated_s=clock.now_s,
        wall_s=time.perf_counter() - began_s,
        first_token_s=np.array(first),
        between_tokens_s=np.array(between),
    )


def _arrivals(workload: Workload, context: int) -> list[tuple[float, int, list[int], int]]:
    """Time of arrival, number, prompt and length of the text of each request."""
    rng = np.random.default_rng(workload.seed)
    times = np.cumsum(rng.exponential(1 / workload.rate, workload.num_requests))
    shared = rng.integers(0, _VOCAB, workload.shared_tokens).tolist()
    found = []
    for number in range(workload.num_requests):
        num_prompt = _length(rng, workload.prompt_tokens, context - len(shared) - 2)
        num_output = _length(rng, workload.output_tokens, context - len(shared) - num_prompt - 1)
        prompt = shared + rng.integers(0, _VOCAB, num_prompt).tolist()
        found.append((float(times[number]), number, prompt, num_output))
    return found


def _length(rng: np.random.Generator, mean: int, most: int) -> int:
    return max(1, min(round(rng.exponential(mean)), 8 * mean, most))


def report(result: SimulationResult) -> str:
    """The result as a table."""
    rows = [
        ("requests, lost", f"{result.num_requests}, {result.num_lost}"),
        ("pages leaked", f"{result.num_leaked_pages}"),
        ("most running at once", f"{result.num_most_running}"),
        ("steps, pre-emptions", f"{result.num_steps}, {result.num_preemptions}"),
        ("prompt tokens from the prefix cache", f"{result.cached_share:.1%}"),
        ("generated tokens", f"{result.num_generated_tokens}"),
        ("simulated time", f"{result.simulated_s:.1f} s"),
        ("throughput", f"{result.tokens_per_s:.0f} tokens/s"),
        ("time to first token, p50 / p90 / p99", _percentiles(result.first_token_s)),
        ("between tokens, p50 / p90 / p99", _percentiles(result.between_tokens_s)),
        ("time the simulation took", f"{result.wall_s:.1f} s"),
    ]
    return "\n".join(["| simulated | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _percentiles(seconds: np.ndarray) -> str:
    if not seconds.size:
        return "-"
    return " / ".join(f"{value * 1e3:.1f}" for value in np.percentile(seconds, (50, 90, 99))) + " ms"


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; prints a table."""
    given = _parser().parse_args(arguments)
    cost = CostModel(call_s=given.call_s, token_s=given.token_s, context_token_s=given.context_token_s)
    if given.product:
        cost = CostModel.from_peaks(
            given.product,
            num_parameters=given.parameters,
            kv_token_bytes=given.kv_token_bytes,
            element_type=given.dtype,
            launch_s=given.call_s,
        )
    workload = Workload(
        num_requests=given.requests,
        rate=given.rate,
        prompt_tokens=given.prompt_tokens,
        output_tokens=given.output_tokens,
        shared_tokens=given.shared_tokens,
        seed=given.seed,
    )
    config = EngineConfig(
        kv_pages=given.kv_pages,
        max_running=given.running,
        max_step_tokens=given.step_tokens,
        prefix_cache=not given.no_prefix_cache,
    )
    manifest = simulated_manifest(given.prefill_chunks, given.decode_batches, given.context)
    sys.stdout.write(report(simulate(workload, cost, manifest, config)) + "\n")


def _parser() -> argparse.ArgumentParser:
    workload = Workload()
    description = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m amdnfs_runtime.simulate", description=description)
    add = parser.add_argument
    add("--requests", type=int, default=workload.num_requests)
    add("--rate", type=float, default=workload.rate, help="requests a second")
    add("--prompt-tokens", type=int, default=workload.prompt_tokens, help="mean length")
    add("--output-tokens", type=int, default=workload.output_tokens, help="mean length")
    add("--shared-tokens", type=int, default=workload.shared_tokens, help="with which all prompts begin")
    add("--seed", type=int, default=workload.seed)
    add("--running", type=int, default=256, help="most requests at once")
    add("--kv-pages", type=int, default=20_000, help=f"pages of {_PAGE_TOKENS} tokens")
    add("--step-tokens", type=int, help="tokens of a step")
    add("--prefill-chunks", type=int, nargs="+", default=[64, 512])
    add("--decode-batches", type=int, nargs="+", default=[1, 8, 32, 64, 128, 256])
    add("--context", type=int, default=4096)
    add("--no-prefix-cache", action="store_true")
    add("--product", help="take the floor of this product, e.g. mi300x")
    add("--parameters", type=float, default=8e9, help="with --product: parameters of the model")
    add("--kv-token-bytes", type=float, default=131072, help="with --product: cache of one token")
    add("--dtype", default="bf16", help="with --product: type of weights and arithmetic")
    add("--call-s", type=float, default=1e-4, help="seconds of a call; with --product: beside its floor")
    add("--token-s", type=float, default=2e-5, help="without --product: seconds a token")
    add("--context-token-s", type=float, default=5e-8, help="without --product: seconds a cached token")
    return parser


if __name__ == "__main__":
    main()
