"""`amdnfs verify`: is a bundle whole, and do its programs compute what the model computes?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from amdnfs_runtime.bundle import Manifest, read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError

if TYPE_CHECKING:
    from amdnfs_compile.verify import Check

_WIDTH = 120
"""Columns of a table that goes to a file or another program."""


@click.command(
    name="verify",
    epilog="Example: amdnfs verify my-llama.amdnfs --against ./my-llama --target cpu",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="MODEL", help="Folder of the model it was made from."
)
@click.option("--target", help="Target to run [default: the best for this machine].")
@click.option("--emulate", is_flag=True, help="Execute a hip program's machine code on the CPU.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random texts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(
    bundle: Path, against: Path | None, target: str | None, emulate: bool, seed: int, as_json: bool
) -> None:
    """Check the digests of BUNDLE and, with --against, its logits against transformers in f32.

    With --emulate --target gfx942, a hip program is executed on the CPU and compared with the bundle's CPU program, if
    it has one, and with MODEL, if it is given.
    """
    manifest = read_manifest(bundle)
    if against is not None and not against.is_dir():  # before the weights are read
        raise UsageError(f"--against {against}: no such folder; give that of the model the bundle was made from")
    verify_files(bundle, manifest)
    checks, name = _compare(bundle, manifest, against, target, emulate, seed)
    if as_json:
        values: dict[str, Any] = {"files": len(manifest.files), "checks": [_values(check) for check in checks]}
        click.echo(json.dumps({**values, "target": name or None, "emulated": emulate}, indent=1, sort_keys=True))
    else:
        click.echo(f"{len(manifest.files)} files agree with their digests")
        if checks:
            _show(checks, f"{name}, executed on the emulator" if emulate else name)
        else:
            click.echo("numbers were not compared; give the model's folder with --against")
    wrong = [check for check in checks if not check.is_right]
    if wrong:
        whose = " and ".join(dict.fromkeys(f"{check.against}'s" for check in wrong)).replace("transformers's", _THEIRS)
        names = ", ".join(dict.fromkeys(check.name for check in wrong))
        raise ArtifactError(f"{bundle}: the logits differ from {whose} in: {names}")


_THEIRS = "transformers'"


def _compare(
    bundle: Path, manifest: Manifest, against: Path | None, target: str | None, emulate: bool, seed: int
) -> tuple[list[Check], str]:
    """The comparisons that are asked for, and the target that ran."""
    if against is None and not emulate:
        return [], ""
    from amdnfs_compile.cli.emulation import emulation
    from amdnfs_compile.verify import target_to_run, verify_bundle

    name = target_to_run(manifest, target, is_emulated=emulate)
    with_cpu = emulate and any(entry.kind == "cpu" for entry in manifest.targets.values())
    if against is None and not with_cpu:
        raise UsageError(
            f"--emulate: there is nothing to compare {name} with; give the model's folder with --against, or add a CPU "
            "program to the bundle: amdnfs-compile MODEL --target cpu -o BUNDLE"
        )
    how = emulation() if emulate else None
    return verify_bundle(bundle, against, name, seed=seed, emulation=how, with_cpu=with_cpu), name


def _values(check: Check) -> dict[str, Any]:
    return {
        "name": check.name,
        "against": check.against,
        "error": check.error,
        "tolerance": check.tolerance if math.isfinite(check.tolerance) else None,
        "same_argmax": check.same_argmax,
        "right": check.is_right,
    }


def _show(checks: list[Check], title: str) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for i, column in enumerate((title, "against", "error", "allowed", "same first choice", "")):
        table.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for check in checks:
        is_bounded = math.isfinite(check.tolerance)
        verdict = "" if not is_bounded else "right" if check.is_right else "WRONG"
        allowed = f"{check.tolerance:.0e}" if is_bounded else "-"
        cells = (check.name, check.against, f"{check.error:.1e}", allowed, f"{check.same_argmax:.1%}", verdict)
        table.add_row(*cells)
    Console(highlight=False, width=None if Console().is_terminal else _WIDTH).print(table)
