"""`amdnfs-opt`: runs our passes on a file of MLIR, as users of mlir-opt expect."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from amdnfs_runtime.errors import PassFailed, UsageError


@click.command(
    name="amdnfs-opt",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: amdnfs-opt layer.mlir --passes='fuse-rotary,lower-rotary' --why",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--passes", default="", help="Names in order, with options: 'a,b{key=value}'.")
@click.option("--list", "list_only", is_flag=True, help="List the passes and the order in which a compile runs them.")
@click.option("--why", is_flag=True, help="Add a comment for each place that nearly matched, with the reason.")
def opt_command(file: Path | None, passes: str, list_only: bool, why: bool) -> None:
    """Run passes on FILE (MLIR text; `-` is standard input) and print the result."""
    from amdnfs_passes.base import PassError
    from amdnfs_passes.ir import MLIRError
    from amdnfs_passes.pipeline_text import list_passes, parse_passes, run_opt

    if list_only:
        from amdnfs_targets.registry import get_target

        from amdnfs_compile.pipeline import describe_pipeline

        click.echo(f"{list_passes()}\n\n{describe_pipeline(get_target('gfx942'))}")
        return
    if file is None:
        raise UsageError("no file given; amdnfs-opt FILE.mlir --passes=..., or --list")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    if why and not passes.strip():
        raise UsageError("--why tells what passes refused, but none is named; add --passes=..., or see --list")
    try:
        parsed = parse_passes(passes)
    except ValueError as error:
        raise UsageError(f"--passes={passes}: {error}") from error
    try:
        click.echo(run_opt(text, parsed, why=why).text)
    except MLIRError as error:
        raise UsageError(f"{file} is not valid MLIR: {error}") from error
    except PassError as error:
        raise PassFailed(str(error)) from error
