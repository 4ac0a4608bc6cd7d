"""`amdnfs inspect`, `targets` and `doctor`: looking at things without running them."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click
from amdnfs_runtime.bundle import read_manifest, verify_files

_MEGABYTE = 1e6
_LEGEND = """
compiles: the shipped model and two-layer twins do, with this IREE
emulator: the shipped model's machine code gives the CPU's greedy tokens on a stand-in device
this machine: its programs can be verified on an ordinary computer
device: ran on real hardware; nobody has run the hip programs on AMD hardware yet"""


def describe_bundle(path: Path) -> dict[str, Any]:
    """What is in a bundle, as plain values."""
    manifest = read_manifest(path)
    weights = sum(manifest.files[name].size for name in manifest.weights)
    return {
        "bundle": str(path),
        "model": {
            "name": manifest.model.name,
            "architecture": manifest.model.architecture,
            "model_type": manifest.model.model_type,
            "dtype": manifest.model.dtype,
            "quantization": manifest.model.quantization,
            "vocab_size": manifest.model.vocab_size,
            "context_tokens": manifest.model.context_tokens,
            "digest": manifest.model.digest,
        },
        "cache": {
            "dtype": manifest.cache_dtype,
            "page_tokens": manifest.page_tokens,
            "page_bytes": manifest.page_bytes,
            "num_layers": len(manifest.layers),
            "windows": sorted({layer.window for layer in manifest.layers}),
        },
        "weight_bytes": weights,
        "total_bytes": sum(entry.size for entry in manifest.files.values()),
        "targets": {
            name: {
                "kind": target.kind,
                "gfx": target.gfx,
                "program_bytes": manifest.files[target.program].size,
                "entry_points": [point.name for point in target.entry_points],
            }
            for name, target in manifest.targets.items()
        },
    }


@click.command(name="inspect", epilog="Example: amdnfs inspect my-llama.amdnfs")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Compare every file with its digest too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect_command(bundle: Path, check: bool, as_json: bool) -> None:
    """Show what BUNDLE holds."""
    values = describe_bundle(bundle)
    if check:
        manifest = read_manifest(bundle)
        verify_files(bundle, manifest)
        values["checked_files"] = len(manifest.files)
    if as_json:
        click.echo(json.dumps(values, indent=1, sort_keys=True))
        return
    model, cache = values["model"], values["cache"]
    click.echo(f"{bundle}: {model['name']} ({model['architecture']}, {model['dtype']})")
    if model["quantization"] != "none":
        from amdnfs_compile.quantize.scheme import describe_layout

        click.echo(f"  decoder layers quantised: {describe_layout(model['quantization'])} ({model['quantization']})")
    click.echo(f"  context {model['context_tokens']} tokens, vocabulary {model['vocab_size']}")
    click.echo(
        f"  cache: {cache['num_layers']} layers, {cache['dtype']}, pages of {cache['page_tokens']} tokens, "
        f"{cache['page_bytes']} bytes a page"
    )
    click.echo(f"  weights {values['weight_bytes'] / _MEGABYTE:.2f} MB, all {values['total_bytes'] / _MEGABYTE:.2f} MB")
    for name, target in values["targets"].items():
        size = target["program_bytes"] / _MEGABYTE
        click.echo(f"  {name:<16} {target['kind']:<7} {size:7.2f} MB  {', '.join(target['entry_points'])}")
    if check:
        click.echo(f"  all {values['checked_files']} files agree with their digests")


@click.command(name="targets", epilog="Example: amdnfs targets --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def targets_command(as_json: bool) -> None:
    """List what can be compiled for, and what has been shown for each target."""
    from amdnfs_compile.states import target_rows

    rows = target_rows()
    if as_json:
        click.echo(json.dumps(rows, indent=1, sort_keys=True))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    columns = ("target", "architecture", "products", "compiles", "emulator", "this machine", "device")
    for column in columns:
        table.add_column(column, no_wrap=column != "products")
    for row in rows:
        table.add_row(*(str(row[column]) for column in columns))
    console = Console(highlight=False, width=None if Console().is_terminal else 140)
    console.print(table)
    console.print(_LEGEND)


@click.command(name="doctor", epilog="Example: amdnfs doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor_command(as_json: bool) -> None:
    """Show what this host can run, and what is missing."""
    from amdnfs_hipemu import why_not
    from amdnfs_runtime.device import inspect_host

    host, obstacle = inspect_host(), why_not()
    values: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": {
            name: _version(name)
            for name in ("amdnfs", "iree-base-runtime", "iree-base-compiler", "torch", "transformers")
        },
        "amd_gpus": list(host.amd_gfx),
        "nvidia_gpu": host.has_nvidia,
        "vulkan_device": host.has_vulkan,
        "stand_in_hip_library": host.hip_stand_in,
        "emulator": {"can_be_built": obstacle is None, "reason": obstacle},
        "can_compile": all(_version(name) for name in ("iree-base-compiler", "torch", "transformers")),
    }
    if as_json:
        click.echo(json.dumps(values, indent=1, sort_keys=True))
        return
    click.echo(f"python {values['python']}")
    for name, found in values["packages"].items():
        click.echo(f"  {name:<20} {found or 'not installed'}")
    click.echo(host.describe())
    if not host.amd_gfx:
        click.echo("no AMD GPU is visible: /sys/class/kfd lists none, so hip programs can only be emulated")
    click.echo(obstacle or "emulator: can be built; --emulate of verify and generate, --execute of report use it")
    if not values["can_compile"]:
        click.echo("compiling needs more packages: pip install 'amdnfs[compile]'")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
