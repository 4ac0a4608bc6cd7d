"""`amdnfs report` on some of a bundle's targets, and on two bundles of different models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.report.build import make_report
from amdnfs_targets.products import get_product

from tests.report_bundle import add_target, make_bundle

RunCli = Callable[..., Any]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A bundle for gfx942 and cpu."""
    return add_target(make_bundle(tmp_path / "two"), make_bundle(tmp_path / "cpu", target="cpu", kind="cpu"))


def _budget(path: Path, *targets: str) -> Path:
    limits = {target: {"prefill_16": {"dispatches": 5}} for target in targets}
    path.write_text(json.dumps({"format": "amdnfs-budget", "version": 1, "context_tokens": 64, "targets": limits}))
    return path


def test_what_a_product_leaves_out_is_told(two: Path, run_cli: RunCli) -> None:
    text = "mi300x runs the program for gfx942; not looked at: cpu"
    report = make_report(two, product=get_product("mi300x"))
    assert [item.name for item in report.targets] == ["gfx942"]
    assert report.left_out == ("cpu",)
    assert report.targets[0].missing[0] == text
    assert text in run_cli("amdnfs", "report", two, "--product", "mi300x").out
    named = make_report(two, "gfx942", get_product("mi300x"))
    assert (named.left_out, named.targets[0].missing) == (("cpu",), ())
    assert make_report(two).left_out == ()


@pytest.mark.parametrize("choice", [("--product", "mi300x"), ("--target", "gfx942")])
def test_a_budget_of_some_targets_is_told_apart(
    two: Path, tmp_path: Path, run_cli: RunCli, choice: tuple[str, str]
) -> None:
    budget = tmp_path / "budget.json"
    done = run_cli("amdnfs", "report", two, *choice, "--write-budget", budget)
    assert (done.code, done.err) == (0, f"wrote {budget}; it has no limits for cpu, which the report leaves out\n")
    assert list(json.loads(budget.read_text())["targets"]) == ["gfx942"]


def test_limits_of_targets_that_are_left_out_are_not_checked_and_that_is_told(
    two: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    budget = _budget(tmp_path / "budget.json", "cpu", "gfx942")
    done = run_cli("amdnfs", "report", two, "--target", "gfx942", "--budget", budget)
    assert (done.code, done.err) == (
        0,
        f"warning: the limits for cpu are not checked: the report leaves it out\n1 figures are within {budget}\n",
    )
    assert run_cli("amdnfs", "report", two, "--budget", budget).err == f"2 figures are within {budget}\n"


def test_a_budget_of_which_nothing_would_be_checked_is_refused(two: Path, tmp_path: Path, run_cli: RunCli) -> None:
    budget = _budget(tmp_path / "budget.json", "cpu")
    done = run_cli("amdnfs", "report", two, "--product", "mi300x", "--budget", budget)
    assert done.code == 2
    assert "has limits for cpu alone, but the report is on gfx942: nothing would be checked; choose another" in done.err
