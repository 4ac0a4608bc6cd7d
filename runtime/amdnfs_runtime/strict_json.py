"""Reads JSON whose values can be written as JSON again: Python's own reader takes more than that."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

_LONGEST_SHOWN = 20


def loads(text: str) -> Any:
    """Reads a text: no NaN, no infinity, and no number that is read as infinity, such as 1e999.

    Raises:
        RecursionError: If it is nested too deeply.
        ValueError: If it is no JSON, or has such a number.

    >>> loads("[1, 2.5]")
    [1, 2.5]
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except json.JSONDecodeError:
        raise
    except ValueError as error:
        if "int_max_str_digits" not in str(error):  # Python's advice to programmers
            raise
        raise ValueError(f"a number has more than {sys.get_int_max_str_digits()} digits") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:_LONGEST_SHOWN]} is too large")
    return number
