"""Checks of options: every message names the field, what is allowed and what was given."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, TypeVar

from amdnfs_runtime.errors import UsageError

_T = TypeVar("_T")
_LONGEST_SHOWN = 80


def check_int(name: str, value: object, *, least: int, end: int | None = None) -> None:
    """Checks that a value is a whole number, `least <= value < end`.

    Raises:
        UsageError: It is not; True and False are no numbers.
    """
    allowed = f">= {least}" if end is None else f">= {least} and < {end}"
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < least or (end is not None and value >= end):  # type: ignore[operator]
        raise UsageError(f"{name} must be an integer {allowed}, not {_shown(value)}")


def checked_float(name: str, value: object, *, least: float, most: float, open_below: bool = False) -> float:
    """Returns a number as a float, `least <= value <= most`, or `least < value` with `open_below`.

    Raises:
        UsageError: It is no finite number in that range.
    """
    allowed = f"{'>' if open_below else '>='} {least:g}" + ("" if math.isinf(most) else f" and <= {most:g}")
    message = f"{name} must be a finite number {allowed}, not {_shown(value)}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(message)
    try:
        number = float(value)
    except OverflowError as error:
        raise UsageError(message) from error
    if not math.isfinite(number) or not least <= number <= most or (open_below and number == least):
        raise UsageError(message)
    return number


def check_bool(name: str, value: object) -> None:
    """Checks that a value is True or False.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(value, bool):
        raise UsageError(f"{name} must be True or False, not {value!r}")


def from_options(kind: type[_T], options: Mapping[str, Any], what: str) -> _T:
    """Builds a dataclass from its fields by name.

    Args:
        kind: The dataclass.
        options: Its fields.
        what: How a message calls one of them, e.g. `sampling option`.

    Raises:
        UsageError: A name is unknown, or the dataclass refuses a value.
    """
    known = sorted(item.name for item in dataclasses.fields(kind))  # type: ignore[arg-type]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise UsageError(f"unknown {what} {unknown[0]!r}; known are {', '.join(known)}")
    return kind(**options)


def _shown(value: object) -> str:
    """A value in a message, not too long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a number of thousands of digits"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
