"""Budgets: figures that must not get worse, in a file that a project keeps beside its code.

    {"format": "amdnfs-budget", "version": 1, "context_tokens": 2048,
     "targets": {"gfx942": {"decode_1": {"dispatches": 181, "matrix_share": 1.0}}}}

Any figure, entry point or target may be left out; what is there is checked. People may write rounder figures than a
report has, to leave some room.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_runtime.errors import ArtifactError, BudgetError, UsageError
from amdnfs_runtime.report.figures import EXECUTED_FIGURES, FIGURES, read_figures
from amdnfs_runtime.report.model import Report, TargetReport

FORMAT, VERSION = "amdnfs-budget", 1
_MAX_SHOWN = 12
_MAX_SHOWN_LENGTH = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """The content of a budget file."""

    path: Path
    """Where it was read from."""
    context_tokens: int
    """Context that its figures are for."""
    targets: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Limits by target, entry point and figure."""


def read_budget(path: Path) -> Budget:
    """Reads a budget file.

    Raises:
        UsageError: If it is missing, no budget, of another version, or has a figure or value that makes no sense.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_without_duplicates)
    except FileNotFoundError as error:
        raise UsageError(f"no budget at {path}; write one with: amdnfs report BUNDLE --write-budget {path}") from error
    except _FieldError as error:
        raise UsageError(f"{path}: damaged budget: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path}: cannot be read as JSON (lists or objects within each other, too deep)") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise UsageError(f"{path}: not a budget (its format is not {FORMAT!r})")
    version = values.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise UsageError(
            f"{path}: budget of version {version!r}, but this amdnfs reads version {VERSION}; write it anew with: "
            f"amdnfs report BUNDLE --write-budget {path}"
        )
    try:
        return Budget(path=path, context_tokens=_context(values), targets=_targets(values.get("targets")))
    except _FieldError as error:
        raise UsageError(f"{path}: damaged budget: {error}") from error


class _FieldError(ValueError):
    """What is wrong in a budget file: the field, its value, and what is allowed."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; Python's reader would keep the last of equal keys, and drop limits so."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _FieldError(f"the key {name!r} is there twice in one object")
        found[name] = value
    return found


def _context(values: Mapping[str, Any]) -> int:
    value = values.get("context_tokens")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise _FieldError(f"context_tokens is {_shown(value)}; allowed are whole numbers from 1")
    return value


def _targets(values: Any) -> dict[str, dict[str, dict[str, float]]]:
    return {
        target: {
            entry: {name: _limit(name, limit, f"targets, {target}, {entry}") for name, limit in figures.items()}
            for entry, figures in _object(entries, f"targets, {target}", "entry points with their figures").items()
            if _object(figures, f"targets, {target}, {entry}", "figures with their limits")
        }
        for target, entries in _object(values, "targets", "targets with their entry points").items()
    }


def _object(value: Any, field: str, what: str) -> dict[str, Any]:
    """`value` if it is an object of JSON with something in it: one without would pass as checked."""
    if not isinstance(value, dict) or not value:
        raise _FieldError(f"{field} is {_shown(value)}; allowed is an object of {what}, at least one")
    return value


def _limit(name: str, value: Any, field: str) -> float:
    if name not in FIGURES:
        raise _FieldError(f"{field}: unknown figure {name!r}; known are {', '.join(FIGURES)}")
    # An integer may be too large for a float, and nothing is worse than NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise _FieldError(f"{field}: {name} is {_shown(value)}, not a number that is finite and not negative")
    return value


def _shown(value: Any) -> str:
    """A value as the file has it, shortened."""
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:_MAX_SHOWN_LENGTH]}..."


def budget_text(report: Report) -> str:
    """A budget file with the figures of a report, as text."""
    targets = {
        target.name: {entry.name: _rounded(read_figures(target, entry)) for entry in target.entries}
        for target in report.targets
    }
    values = {
        "format": FORMAT,
        "version": VERSION,
        "context_tokens": report.context_tokens,
        "targets": targets,
    }
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: int(value) if value == int(value) else value for name, value in figures.items()}


def check_budget(report: Report, budget: Budget) -> int:
    """Compares a report with a budget; `targets_not_checked` tells what it leaves out.

    Returns:
        The number of figures that were compared.

    Raises:
        BudgetError: Naming each figure that got worse.
        ArtifactError: If the bundle lacks a target, an entry point or a figure that the budget has.
        UsageError: If the bundle has all targets of the budget, but the report is on none of them.
    """
    not_checked = targets_not_checked(report, budget)
    if len(not_checked) == len(budget.targets):
        raise UsageError(
            f"{budget.path} has limits for {', '.join(not_checked)} alone, but the report is on "
            f"{', '.join(item.name for item in report.targets)}: nothing would be checked; choose another --target or "
            "--product"
        )
    reports = {target.name: target for target in report.targets}
    worse: list[str] = []
    num_compared = 0
    for name, entries in budget.targets.items():
        if name in not_checked:
            continue
        if name not in reports:
            raise ArtifactError(f"{budget.path} has limits for {name}, but the report is on {', '.join(reports)}")
        for entry_name, limits in entries.items():
            found = _figures_of(reports[name], entry_name, budget)
            for figure_name, limit in limits.items():
                if figure_name not in found:
                    raise ArtifactError(
                        f"{budget.path} limits {figure_name} of {name}, {entry_name}, but {_why_missing(figure_name)}"
                    )
                num_compared += 1
                if FIGURES[figure_name].is_worse(found[figure_name], limit):
                    worse.append(f"{name}, {entry_name}: {figure_name} is {found[figure_name]:.15g}, was {limit:.15g}")
    if worse:
        more = [f"and {len(worse) - _MAX_SHOWN} more"] if len(worse) > _MAX_SHOWN else []
        raise BudgetError(
            f"{report.bundle}: {len(worse)} figure(s) worse than {budget.path}\n  "
            + "\n  ".join(worse[:_MAX_SHOWN] + more)
            + "\n  if that is meant, write the budget anew with --write-budget"
        )
    return num_compared


def targets_not_checked(report: Report, budget: Budget) -> tuple[str, ...]:
    """The targets that a budget has limits for, that the bundle has, and that the report was asked to leave out."""
    return tuple(name for name in budget.targets if name in report.left_out)


def _why_missing(figure_name: str) -> str:
    if figure_name in EXECUTED_FIGURES:
        return "the program was not executed; add --execute"
    return "the figure does not exist for this program"


def _figures_of(target: TargetReport, entry_name: str, budget: Budget) -> dict[str, float]:
    entry = next((item for item in target.entries if item.name == entry_name), None)
    if entry is None:
        names = ", ".join(item.name for item in target.entries)
        raise ArtifactError(f"{budget.path} has limits for {entry_name} of {target.name}, which has {names}")
    return read_figures(target, entry)
