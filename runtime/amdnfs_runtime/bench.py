"""Times the entry points of a bundle on this machine's device, beside what they compute and move.

    report (FLOPs, bytes)  +  median time of synchronous calls  ->  tokens/s, FLOP/s, B/s, shares of a product's peaks

A call is what an engine's step pays for: its arguments, its dispatches, and the greedy tokens back on the host. Pools
are zeroed, tokens random: neither changes what is computed. Serving many users is not measured here.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amdnfs_targets.products import Product

from amdnfs_runtime.bundle import EntryPoint, Manifest, read_manifest, verify_files
from amdnfs_runtime.calls import Arguments, DeviceProgram
from amdnfs_runtime.checks import check_int, checked_float
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE, Program, choose_target, inspect_host
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.memory import device_memory, pool_pages
from amdnfs_runtime.report.build import make_report
from amdnfs_runtime.report.model import EntryReport

BENCH_VERSION = 1
"""Version of the JSON form."""
_LEAST_CALLS = 5
_MOST_CALLS = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchOptions:
    """How long to measure, and at which length of context.

    Raises:
        UsageError: A field is out of range; the message names it.
    """

    context_tokens: int | None = None
    """Context of each request, in tokens; None is 2048, or less if the model takes less."""
    seconds: float = 2.0
    """Time for the calls of each entry point, after the warm-up; at least 5 calls are made."""
    seed: int = 0
    """Seed of the tokens."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.context_tokens is not None:
            check_int("context", self.context_tokens, least=1)
        checked_float("seconds", self.seconds, least=0.0, most=3600.0, open_below=True)
        check_int("seed", self.seed, least=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One entry point."""

    name: str
    """Function name."""
    kind: str
    """`prefill` or `decode`."""
    batch: int
    """Requests a call."""
    tokens: int
    """New tokens a request."""
    context_tokens: int
    """Context of each request, new tokens included."""
    num_calls: int
    """Calls that were timed."""
    median_ms: float
    """Median time of a call, in milliseconds."""
    p10_ms: float
    """A tenth of the calls were faster; in milliseconds."""
    p90_ms: float
    """A tenth of the calls were slower; in milliseconds."""
    tokens_per_s: float
    """New tokens of all requests a second, at the median."""
    flops_per_s: float
    """Multiplications and additions of matmuls and attention a second, at the median."""
    bytes_per_s: float
    """Least bytes (weights once, live cache once) a second, at the median."""
    flops_share: float | None
    """Share of the arithmetic that the product could have done in that time; None without a product."""
    bytes_share: float | None
    """Share of the bytes that the product could have moved in that time; None without a product."""
    floor_ms: float | None
    """Floor of the call on the product, in milliseconds; None without a product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bench:
    """A bundle on a device."""

    bundle: str
    """Name of its folder."""
    model: str
    """Name of the model."""
    dtype: str
    """Storage type."""
    target: str
    """The target whose program ran."""
    product: str | None
    """Whose peaks the shares are of."""
    rows: tuple[BenchRow, ...]
    """As in the manifest."""
    bench_version: int = BENCH_VERSION
    """Version of the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """The figures as plain values."""
        return dataclasses.asdict(self)


def run_bench(
    bundle: Path,
    target: str | None = None,
    product: Product | None = None,
    options: BenchOptions | None = None,
    *,
    check: bool = True,
    clock: Callable[[], float] = time.perf_counter,
    on_entry: Callable[[str], None] = lambda _name: None,
) -> Bench:
    """Measures every entry point of one target.

    Args:
        bundle: The bundle.
        target: Canonical name of the target; by default the best for this machine.
        product: The product that this machine has, for shares of its peaks; it must run the target's programs.
        options: How to measure.
        check: Compare the files with their digests first.
        clock: Seconds.
        on_entry: Told of each entry point before it is measured.

    Raises:
        ArtifactError: If the bundle is damaged, or no program runs here.
        CapacityError: If the memory does not hold the pages of the largest batch.
        UsageError: If the context is out of range, the product does not fit, or a stand-in would be timed.
    """
    options = options or BenchOptions()
    manifest, host = read_manifest(bundle), inspect_host()
    name = choose_target(manifest, host, target)
    entry = manifest.targets[name]
    if entry.kind == "hip" and host.hip_stand_in:
        raise UsageError(
            f"{name}: the HIP library is a stand-in ({HIP_DYLIB_VARIABLE}={host.hip_stand_in}), whose times say "
            f"nothing of a GPU; unset {HIP_DYLIB_VARIABLE}, or look at amdnfs report, with --execute, for what can be "
            "known without one"
        )
    if check:
        verify_files(bundle, manifest, [*manifest.weights, entry.program, entry.facts])
    report = make_report(bundle, name, product, options.context_tokens).targets[0]
    num_pages = _pages_needed(manifest, report.entries, entry.kind)
    program = Program(bundle, manifest, name)
    pools = program.make_pools(manifest, num_pages)
    rows = []
    for point, costs in zip(entry.entry_points, report.entries, strict=True):
        on_entry(point.name)
        arguments = _arguments(manifest, point, costs.context_tokens, options.seed)
        times, pools = _measure(program, point.name, arguments, pools, options.seconds, clock)
        rows.append(_row(costs, times, product))
    return Bench(
        bundle=bundle.resolve().name,
        model=manifest.model.name,
        dtype=manifest.model.dtype,
        target=name,
        product=None if product is None else product.name,
        rows=tuple(rows),
    )


def _pages_needed(manifest: Manifest, entries: tuple[EntryReport, ...], kind: str) -> int:
    """Pages for the largest batch, the null page included, if the memory holds them."""
    most = max(entry.batch * -(-entry.context_tokens // manifest.page_tokens) for entry in entries)
    batch = max(entry.batch for entry in entries)
    return pool_pages(manifest, kind, EngineConfig(kv_pages=1 + most), batch, device_memory(kind))


def _arguments(manifest: Manifest, point: EntryPoint, context: int, seed: int) -> Arguments:
    """Random new tokens at the end of a context; every request has pages of its own."""
    shape = (point.batch, point.tokens)
    tokens = np.random.default_rng(seed).integers(0, manifest.model.vocab_size, shape, np.int64)
    start = np.full(point.batch, context - point.tokens, np.int64)
    valid = np.full(point.batch, point.tokens, np.int64)
    width = -(-context // manifest.page_tokens)
    table = 1 + np.arange(point.batch * width, dtype=np.int32).reshape(point.batch, width)
    return tokens, start, valid, table


def _measure(
    program: DeviceProgram,
    name: str,
    arguments: Arguments,
    pools: list[Any],
    seconds: float,
    clock: Callable[[], float],
) -> tuple[list[float], list[Any]]:
    """Times of calls after two that warm up, in seconds, and the pools."""
    times: list[float] = []
    for i in range(2 + _MOST_CALLS):
        began_s = clock()
        greedy, _, pools = program.call(name, *arguments, pools)
        program.read(greedy)
        if i >= 2:
            times.append(clock() - began_s)
        if len(times) >= _LEAST_CALLS and sum(times) >= seconds:
            break
    return times, pools


def _row(costs: EntryReport, times: list[float], product: Product | None) -> BenchRow:
    p10, median, p90 = (float(value) for value in np.percentile(times, [10, 50, 90]))
    compute_s = memory_s = None
    if product is not None:
        compute_s = sum(flops / product.peak_flops(kind) for kind, flops in costs.flops_by_type.items())
        memory_s = costs.least_bytes / product.memory_bytes_per_s
    return BenchRow(
        name=costs.name,
        kind=costs.kind,
        batch=costs.batch,
        tokens=costs.tokens,
        context_tokens=costs.context_tokens,
        num_calls=len(times),
        median_ms=median * 1e3,
        p10_ms=p10 * 1e3,
        p90_ms=p90 * 1e3,
        tokens_per_s=costs.batch * costs.tokens / median,
        flops_per_s=costs.flops / median,
        bytes_per_s=costs.least_bytes / median,
        flops_share=None if compute_s is None else compute_s / median,
        bytes_share=None if memory_s is None else memory_s / median,
        floor_ms=costs.floors[0].floor_ms if product is not None and costs.floors else None,
    )
