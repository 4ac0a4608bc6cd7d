"""`amdnfs verify`: is a bundle whole, and do its programs compute what the model computes?"""

from __future__ import annotations

import json
import math
import tempfile
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
@click.option(
    "--bisect",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="If numbers differ, find the first dispatch that does; leaves its operands and code in FOLDER.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random texts.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_command(
    bundle: Path,
    against: Path | None,
    target: str | None,
    emulate: bool,
    bisect: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Check the digests of BUNDLE and, with --against, its logits against transformers in f32.

    With --emulate --target gfx942, a hip program is executed on the CPU and compared with the bundle's CPU program, if
    it has one, and with MODEL, if it is given.
    """
    manifest = read_manifest(bundle)
    if against is not None and not against.is_dir():  # before the weights are read
        raise UsageError(f"--against {against}: no such folder; give that of the model the bundle was made from")
    if bisect is not None and not (emulate and against is not None):
        raise UsageError(
            "--bisect runs programs on the emulator and compiles the model again: add --emulate and --against"
        )
    verify_files(bundle, manifest)
    checks, name = _compare(bundle, manifest, against, target, emulate, seed)
    wrong = [check for check in checks if not check.is_right]
    values: dict[str, Any] = {"files": len(manifest.files), "checks": [_values(check) for check in checks]}
    values |= {"target": name or None, "emulated": emulate}
    lines: list[str] = []
    if wrong and bisect is not None and against is not None:
        values["bisection"], lines = _bisect(bundle, against, name, seed, bisect)
    try:
        _print(values, lines, checks, f"{name}, executed on the emulator" if emulate else name, as_json)
    finally:  # output that cannot be written does not hide what was found
        if wrong:
            whose = " and ".join(dict.fromkeys(f"{check.against}'s" for check in wrong)).replace(
                "transformers's", _THEIRS
            )
            names = ", ".join(dict.fromkeys(check.name for check in wrong))
            raise ArtifactError(f"{bundle}: the logits differ from {whose} in: {names}")


def _print(values: dict[str, Any], lines: list[str], checks: list[Check], title: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(values, indent=1, sort_keys=True))
        return
    click.echo(f"{values['files']} files agree with their digests")
    if checks:
        _show(checks, title)
    else:
        click.echo("numbers were not compared; give the model's folder with --against")
    for line in lines:
        click.echo(line)


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


def _bisect(bundle: Path, model: Path, target: str, seed: int, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Looks for the first wrong dispatch: what was found as plain values, and as lines to print."""
    from amdnfs_compile.bisect import bisect, judge
    from amdnfs_compile.bisect_text import finding_values, write_bisection
    from amdnfs_compile.cli.emulation import emulation
    from amdnfs_compile.replay import default_tokens, make_texts
    from amdnfs_compile.verify import tolerance_of

    manifest = read_manifest(bundle)
    texts, tolerance = make_texts(manifest, default_tokens(manifest), seed), tolerance_of(manifest)
    is_right = judge(bundle, model, target, texts, tolerance)
    click.echo(f"looking for the first dispatch of {target} that differs: compiling again, with traces", err=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="amdnfs-") as work:
        found = bisect(bundle, model, target, texts, is_right, tolerance, Path(work), emulation())
        lines = write_bisection(found, folder)
    values = None if found.finding is None else finding_values(found.finding)
    return {"finding": values, "notes": list(found.notes)}, lines


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
