"""`amdnfs bench`: how fast the entry points of a bundle are on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from amdnfs_compile.cli.names import product_named, target_named

if TYPE_CHECKING:
    from amdnfs_runtime.bench import Bench

_WIDTH = 200
"""Columns of a table that goes to a file or another program."""


@click.command(name="bench", epilog="Example: amdnfs bench my-llama.amdnfs --product mi300x --context 4096")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", help="Target to measure [default: the best for this machine].")
@click.option("--product", help="The product in this machine, such as mi300x, for shares of its peaks.")
@click.option("--context", type=int, help="Tokens of context a request [default: 2048, or what the model takes].")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Time for each entry point.")
@click.option("--no-check", is_flag=True, help="Skip the digests of the bundle's files.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def bench_command(
    bundle: Path,
    target: str | None,
    product: str | None,
    context: int | None,
    seconds: float,
    no_check: bool,
    as_json: bool,
) -> None:
    """Measure prefill and decode of BUNDLE on this machine's device.

    A call is timed until its greedy tokens are on the host. FLOPs and bytes are those of amdnfs report.
    """
    from amdnfs_runtime.bench import BenchOptions, run_bench

    bench = run_bench(
        bundle,
        target_named(target),
        product_named(product),
        BenchOptions(context_tokens=context, seconds=seconds),
        check=not no_check,
        on_entry=lambda name: click.echo(f"measuring {name}", err=True),
    )
    if as_json:
        click.echo(json.dumps(bench.to_json(), indent=1, sort_keys=True))
    else:
        _show(bench)


def _show(bench: Bench) -> None:
    from amdnfs_runtime.report.amounts import amount, milliseconds, share
    from rich.console import Console
    from rich.table import Table

    title = f"{bench.bundle}: {bench.model} ({bench.dtype}) on {bench.target}"
    table = Table(box=None, pad_edge=False)
    table.add_column("entry point", no_wrap=True)
    names = ["batch", "context", "calls", "median", "p10", "p90", "tokens/s", "FLOP/s", "least B/s"]
    if bench.product is not None:
        title += f", shares of the peaks of {bench.product}"
        names += ["FLOPs", "bytes", "floor"]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for row in bench.rows:
        cells = [row.name, str(row.batch), str(row.context_tokens), str(row.num_calls)]
        cells += [milliseconds(value) for value in (row.median_ms, row.p10_ms, row.p90_ms)]
        cells += [f"{row.tokens_per_s:.4g}", amount(row.flops_per_s, ""), amount(row.bytes_per_s, "B")]
        if bench.product is not None:
            cells += [share(row.flops_share), share(row.bytes_share), milliseconds(row.floor_ms or 0)]
        table.add_row(*cells)
    console = Console(highlight=False, width=None if Console().is_terminal else _WIDTH)
    console.print(title, style="bold", soft_wrap=True)
    console.print(table)
