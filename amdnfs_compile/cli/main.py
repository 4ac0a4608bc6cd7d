"""The programs that the distribution installs: `amdnfs`, `amdnfs-compile` and `amdnfs-opt`."""

from __future__ import annotations

from importlib.metadata import version

import click

from amdnfs_compile.cli import errors
from amdnfs_compile.cli.bench import bench_command
from amdnfs_compile.cli.compile import compile_command, merge_command
from amdnfs_compile.cli.generate import generate_command
from amdnfs_compile.cli.opt import opt_command
from amdnfs_compile.cli.report import report_command
from amdnfs_compile.cli.serve import serve_command
from amdnfs_compile.cli.show import doctor_command, inspect_command, targets_command
from amdnfs_compile.cli.verify import verify_command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("amdnfs"), prog_name="amdnfs")
def cli() -> None:
    """Ahead-of-time compiled language models for AMD GPUs: look at bundles and run them.

    Bundles are made with amdnfs-compile.
    """


for _command in (
    generate_command,
    serve_command,
    inspect_command,
    report_command,
    bench_command,
    verify_command,
    merge_command,
    targets_command,
    doctor_command,
):
    cli.add_command(_command)


def main() -> None:
    """Entry point of `amdnfs`."""
    errors.run(cli)


def compile_main() -> None:
    """Entry point of `amdnfs-compile`."""
    errors.run(compile_command)


def opt_main() -> None:
    """Entry point of `amdnfs-opt`."""
    errors.run(opt_command)
