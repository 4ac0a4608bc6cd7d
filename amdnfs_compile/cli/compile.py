"""`amdnfs-compile` and `amdnfs merge`: making bundles."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from amdnfs_runtime.errors import UsageError

from amdnfs_compile.cli.show import describe_bundle
from amdnfs_compile.options import CompileOptions, Dtype, KvCacheDtype
from amdnfs_compile.quantize.scheme import GroupSize, Quantize

_DEFAULTS = CompileOptions()


def _sizes(_context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        return tuple(int(item) for item in value.split(","))
    except ValueError as error:
        raise UsageError(f"--{(parameter.name or '').replace('_', '-')} {value}: give numbers, e.g. 1,8") from error


def _joined(values: tuple[int, ...]) -> str:
    return ",".join(str(value) for value in values)


@click.command(
    name="amdnfs-compile",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExample: amdnfs-compile ./my-llama --target mi300x --target cpu -o my-llama.amdnfs",
)
@click.argument("model")
@click.option("--target", "targets", multiple=True, metavar="T", help="gfx942, mi300x, cpu, all-amd, ...; repeatable.")
@click.option("-o", "--output", metavar="DIR", help="The bundle [default: ./<model name>.amdnfs].")
@click.option(
    "--dtype",
    type=click.Choice([str(item) for item in Dtype]),
    default=str(_DEFAULTS.dtype),
    show_default=True,
    help="Storage type of weights and cache.",
)
@click.option(
    "--kv-cache-dtype",
    type=click.Choice([str(item) for item in KvCacheDtype]),
    default=str(_DEFAULTS.kv_cache_dtype),
    show_default=True,
    help="Storage type of keys and values [auto: as --dtype].",
)
@click.option("--page-tokens", type=int, default=_DEFAULTS.page_tokens, show_default=True, help="Tokens of a KV page.")
@click.option(
    "--prefill-chunks",
    default=_joined(_DEFAULTS.prefill_chunks),
    show_default=True,
    callback=_sizes,
    help="Chunk sizes of prefill programs.",
)
@click.option(
    "--decode-batches",
    default=_joined(_DEFAULTS.decode_batches),
    show_default=True,
    callback=_sizes,
    help="Batch sizes of decode programs.",
)
@click.option(
    "--speculate",
    type=int,
    default=_DEFAULTS.speculate,
    show_default=True,
    metavar="K",
    help="Also make programs that check K guessed tokens a step.",
)
@click.option("--context", "context_tokens", type=int, help="Longest prompt plus text [default: the model's limit].")
@click.option(
    "--quantize",
    type=click.Choice([str(item) for item in Quantize]),
    default=str(_DEFAULTS.quantize),
    show_default=True,
    help="Storage of the weights of the decoder layers; w8a8 and w8a8-fp8 also round activations to int8 or fp8.",
)
@click.option(
    "--group-size",
    type=click.Choice([str(item) for item in GroupSize]),
    default=str(_DEFAULTS.group_size),
    show_default=True,
    help="Elements of a quantised weight that share a scale [auto: 128 for int4, else channel].",
)
@click.option("--zero-points", is_flag=True, help="Quantise int4 and int8 with zero points.")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a hub id.")
@click.option("--offline", is_flag=True, help="Use only the hub's local cache.")
@click.option("--jobs", type=int, default=_DEFAULTS.jobs, show_default=True, help="Targets compiled at the same time.")
@click.option("--keep-intermediates", type=click.Path(path_type=Path), metavar="DIR", help="Keep every program here.")
@click.option("--dry-run", is_flag=True, help="Read headers, print what would be compiled, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def compile_command(
    model: str,
    targets: tuple[str, ...],
    output: str | None,
    quantize: str,
    keep_intermediates: Path | None,
    dry_run: bool,
    as_json: bool,
    dtype: str,
    group_size: str,
    kv_cache_dtype: str,
    **choices: Any,
) -> None:
    """Compile MODEL (a folder or a hub id) into a bundle for one or more targets.

    An existing bundle of the same model is extended; targets that are up to date are kept.
    """
    if not targets:
        raise UsageError("no target given; name at least one, e.g. --target gfx942 (amdnfs targets lists them)")
    options = CompileOptions(
        dtype=Dtype(dtype),
        quantize=Quantize(quantize),
        group_size=GroupSize(group_size),
        kv_cache_dtype=KvCacheDtype(kv_cache_dtype),
        **choices,
    )
    from amdnfs_compile import compiler, identity
    from amdnfs_compile.plan import plan_compile

    progress = _Progress(quiet=as_json)
    if dry_run:
        plan = plan_compile(model, targets, options)
        for text in plan.warnings:
            progress("plan", f"warning: {text}")
        _print_plan(plan, identity.compile_keys(plan) if as_json else None)
        return
    begin = time.perf_counter()
    bundle = compiler.compile_model(model, targets, output, options, progress, keep_intermediates)
    own, children = compiler.peak_rss_bytes()
    if as_json:
        values = {
            "bundle": str(bundle),
            "seconds": round(time.perf_counter() - begin, 3),
            "peak_rss_bytes": {"amdnfs": own, "iree_compile": children},
            "targets": sorted(describe_bundle(bundle)["targets"]),
        }
        click.echo(json.dumps(values, indent=1, sort_keys=True))
    else:
        click.echo(str(bundle))


class _Progress:
    """Prints phases on stderr: a live line on a terminal, plain lines elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet and not sys.stderr.isatty()
        self._begin = time.perf_counter()
        self._console: Any = None
        self._escape: Any = None

    def __call__(self, phase: str, text: str) -> None:
        """Shows one line; a warning is shown even when quiet."""
        if self._quiet and not text.startswith("warning"):
            return
        if self._console is None:
            from rich.console import Console
            from rich.markup import escape

            self._escape = escape
            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        elapsed = time.perf_counter() - self._begin
        self._console.print(f"[dim]{elapsed:7.1f} s[/dim]  [bold]{phase:<8}[/bold] {self._escape(text)}")


def _print_plan(plan: Any, keys: dict[str, str] | None) -> None:
    """Prints the plan; as JSON, with the compile keys, if those are given (they cost a read of the weights)."""
    rows = {target.name: [shape.name for shape in plan.shapes(target)] for target in plan.targets}
    kinds = len(set(plan.skeleton.signatures))
    values = {
        "model": plan.checkpoint.name,
        "model_type": plan.checkpoint.config.model_type,
        "dtype": plan.dtype,
        "cache_dtype": plan.cache_dtype,
        "quantization": plan.quantization,
        "context_tokens": plan.context_tokens,
        "layers": plan.skeleton.num_layers,
        "kinds_of_layers": kinds,
        "weight_bytes": plan.checkpoint.num_bytes,
        "targets": rows,
    }
    quantized = plan.quantized_weights()
    values["quantized_weights"] = None
    if quantized is not None:
        values["quantized_weights"] = {
            "count": len(quantized.linears),
            "bytes": quantized.num_bytes,
            "tensor_bytes": quantized.tensor_bytes,
        }
    if keys is not None:
        click.echo(json.dumps({**values, "compile_keys": keys}, indent=1, sort_keys=True))
        return
    click.echo(
        f"{values['model']}: {values['model_type']}, {plan.skeleton.num_layers} layers of {kinds} kind(s), "
        f"{plan.dtype}, {plan.checkpoint.num_bytes / 1e6:.1f} MB of weights, context {plan.context_tokens} tokens"
    )
    if quantized is not None:
        click.echo(
            f"  {len(quantized.linears)} weights of the decoder layers become {plan.options.scheme.describe()}: "
            f"{quantized.num_bytes / 1e6:.1f} MB; everything else stays {plan.dtype}"
        )
    for name, entries in rows.items():
        click.echo(f"  {name}: {', '.join(entries)}")


@click.command(name="merge", epilog="Example: amdnfs merge a.amdnfs b.amdnfs -o all.amdnfs")
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The new bundle.")
def merge_command(bundles: tuple[Path, ...], output: Path) -> None:
    """Join bundles of one model, each made for other targets, into one."""
    from amdnfs_compile.merge import merge_bundles

    click.echo(str(merge_bundles(bundles, output)))
