"""`amdnfs report`: what a bundle's kernels are, and with `--execute` what they do on the emulator."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.errors import AmdnfsError, UsageError

from amdnfs_compile.cli.names import product_named, target_named

if TYPE_CHECKING:
    from amdnfs_runtime.report.budget import Budget
    from amdnfs_runtime.report.model import Report
    from amdnfs_targets.products import Product

_WIDTH = 200
"""Columns of a table that goes to a file or another program."""


@click.command(
    name="report",
    epilog="\b\nExample: amdnfs report my-llama.amdnfs --product mi300x --html report.html",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path), required=False)
@click.option("--target", help="Target to look at [default: all].")
@click.option("--product", help="Product for floors, such as mi300x [default: those of each target].")
@click.option("--context", type=int, help="Tokens of context a request [default: 2048; 64 with --execute].")
@click.option("--execute", is_flag=True, help="Execute hip programs on the CPU and count what they do; slow.")
@click.option("--dispatches", is_flag=True, help="Print the dispatches of each entry point too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page that stands alone.")
@click.option("--budget", type=click.Path(path_type=Path), help="Fail, with exit code 7, if a figure got worse.")
@click.option("--write-budget", type=click.Path(path_type=Path), help="Write a budget with the figures of BUNDLE.")
def report_command(
    bundle: Path,
    other: Path | None,
    target: str | None,
    product: str | None,
    context: int | None,
    execute: bool,
    dispatches: bool,
    as_json: bool,
    html: Path | None,
    budget: Path | None,
    write_budget: Path | None,
) -> None:
    """Tell what the kernels of BUNDLE are: costs, registers, spills, matrix instructions, floors.

    Everything is read from the bundle, and no GPU is needed. With --execute, hip programs are executed on the emulator,
    too, and what they did is counted: instructions, bytes, lines. With OTHER, compare the two bundles.
    """
    name, chosen = target_named(target), product_named(product)
    if other is not None:
        if html or budget or write_budget or dispatches:
            raise UsageError("--html, --budget, --write-budget and --dispatches are for a report on one bundle")
        _compare(bundle, other, name, chosen, context, execute, as_json)
        return
    limits = None if budget is None else _limits(budget, context)
    report = _make(bundle, name, chosen, context if limits is None else limits.context_tokens, execute)
    if html is not None:
        from amdnfs_runtime.report.html import report_page

        _write(html, report_page(report))
    try:
        if limits is not None:
            _check(report, limits)
        if write_budget is not None:
            from amdnfs_runtime.report.budget import budget_text

            _write(write_budget, budget_text(report), _without(report.left_out))
    except AmdnfsError:
        with suppress(UsageError):  # a report that cannot be printed does not hide what was found
            _show(report, as_json, dispatches)
        raise
    _show(report, as_json, dispatches)


def _make(bundle: Path, target: str | None, product: Product | None, context: int | None, execute: bool) -> Report:
    from amdnfs_runtime.report.build import make_report

    if not execute:
        return make_report(bundle, target, product, context)
    from amdnfs_runtime.report.execute import EXECUTED_CONTEXT_TOKENS, execute_report

    from amdnfs_compile.cli.emulation import emulation

    if context is None:
        context = min(EXECUTED_CONTEXT_TOKENS, read_manifest(bundle).model.context_tokens)
    report = make_report(bundle, target, product, context)
    return execute_report(report, bundle, emulation(), lambda name: click.echo(f"executing {name}", err=True))


def _limits(path: Path, context: int | None) -> Budget:
    from amdnfs_runtime.report.budget import read_budget

    limits = read_budget(path)
    if context is not None and context != limits.context_tokens:
        raise UsageError(f"{path} is for a context of {limits.context_tokens} tokens, not {context}")
    return limits


def _check(report: Report, limits: Budget) -> None:
    from amdnfs_runtime.report.budget import check_budget, targets_not_checked

    skipped = targets_not_checked(report, limits)
    if skipped:
        click.echo(f"warning: the limits for {', '.join(skipped)} are not checked: the report leaves it out", err=True)
    click.echo(f"{check_budget(report, limits)} figures are within {limits.path}", err=True)


def _without(targets: tuple[str, ...]) -> str:
    return f"; it has no limits for {', '.join(targets)}, which the report leaves out" if targets else ""


def _write(path: Path, text: str, remark: str = "") -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    click.echo(f"wrote {path}{remark}", err=True)


def _show(report: Report, as_json: bool, dispatches: bool) -> None:
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=1, sort_keys=True))
        return
    from amdnfs_runtime.report.text import report_text
    from rich.console import Console

    console = Console(highlight=False, width=None if Console().is_terminal else _WIDTH)
    console.print(report_text(report, with_dispatches=dispatches), soft_wrap=False)


def _compare(
    bundle: Path,
    other: Path,
    target: str | None,
    product: Product | None,
    context: int | None,
    execute: bool,
    as_json: bool,
) -> None:
    from amdnfs_runtime.report.compare import compare_reports

    before = _make(bundle, target, product, context, execute)
    comparison = compare_reports(before, _make(other, target, product, before.context_tokens, execute))
    if as_json:
        click.echo(json.dumps(comparison.to_json(), indent=1, sort_keys=True))
        return
    from amdnfs_runtime.report.text import comparison_text
    from rich.console import Console

    Console(highlight=False, width=None if Console().is_terminal else _WIDTH).print(comparison_text(comparison))
