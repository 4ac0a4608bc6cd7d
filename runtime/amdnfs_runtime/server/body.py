"""From the bytes of a request to checked fields. What a field means is told where it is used.

bytes -> UTF-8 -> JSON, with bounds on depth and numbers -> a model of `fields`
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from amdnfs_runtime import strict_json
from amdnfs_runtime.server.errors import ApiError, bad_request

MOST_DEPTH = 64
"""Deepest nesting of a body; a JSON schema of a tool seldom has more than 20."""

MOST_MEMBERS = 2048
"""Most members of an object of a body; each could be an error of its own."""
MOST_PARTS = 100_000
"""Most lists and objects of a body; a prompt of token ids is one, a message two or three."""

_LONGEST_SHOWN = 80
_SHAPES = {"prompt": "must be a text, a list of texts, a list of token ids, or a list of lists of token ids"}
_WORDS = (
    (re.compile(r" or instance of \w+"), ""),
    (re.compile(r" after validation, not \d+$"), ""),
    (re.compile(r"\bdictionary\b", re.IGNORECASE), "object"),
    (re.compile(r"\bTrue\b"), "true"),
    (re.compile(r"\bFalse\b"), "false"),
    (re.compile(r"\bNone\b"), "null"),
)
_Model = TypeVar("_Model", bound=BaseModel)


def parse_json(data: bytes) -> dict[str, Any]:
    """Reads a JSON object that can be passed on to anything: no NaN, no infinity, no half characters, not deep.

    Raises:
        ApiError: 400, for anything else.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8: byte {error.start} is {data[error.start]:#04x}") from error
    try:
        value = strict_json.loads(text)
    except RecursionError as error:
        raise bad_request(f"the body is nested more than {MOST_DEPTH} levels deep") from error
    except ValueError as error:
        raise bad_request(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    _check_values(value)
    return value


def parse_body(data: bytes, model: type[_Model]) -> _Model:
    """Reads a JSON object with the fields of `model`.

    Raises:
        ApiError: 400 that names the field.
    """
    value = parse_json(data)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _field_error(error) from error


def _check_values(top: dict[str, Any]) -> None:
    """Checks depth, and that every text can be written as UTF-8; a JSON escape can stand for half a character."""
    num_parts = 0
    pending: list[tuple[Any, int]] = [(top, 1)]
    while pending:
        value, depth = pending.pop()
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, (dict, list)):
            if depth > MOST_DEPTH:
                raise bad_request(f"the body is nested more than {MOST_DEPTH} levels deep")
            num_parts += 1
            if num_parts > MOST_PARTS:
                raise bad_request(f"the body has more than {MOST_PARTS} lists and objects")
            if isinstance(value, dict):
                if len(value) > MOST_MEMBERS:
                    raise bad_request(f"an object of the body has more than {MOST_MEMBERS} members")
                pending += [(key, depth) for key in value]
                value = list(value.values())
            pending += [(item, depth + 1) for item in value if not isinstance(item, (int, float))]


def _check_text(text: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise bad_request(
            f"a text of the body holds half a character (\\u{ord(text[error.start]):04x}); send surrogates in pairs"
        ) from error


def _field_error(error: ValidationError) -> ApiError:
    """The most telling of the problems of a body."""
    problems = error.errors(include_url=False, include_context=False)
    problem = max(problems, key=_weight)
    name = _path(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return bad_request(f"unknown parameter: {name}", name, "unknown_parameter")
    if problem["type"] == "missing":
        return bad_request(f"missing parameter: {name}", name, "missing_parameter")
    field, message, given = problem["loc"][0], _words(problem), problem["input"]
    alternatives = {item["loc"][1:2] for item in problems if item["loc"][0] == field}
    if field in _SHAPES and len(alternatives) > 1:
        name, message = str(field), _SHAPES[str(field)]
        given = next(item["input"] for item in problems if item["loc"][0] == field)
    elif len(alternatives) > 1 and len(problem["loc"]) == 2:
        message = "; or ".join(sorted({_words(item) for item in problems if item["loc"][0] == field}))
    if problem["type"] == "none_required" and len(alternatives) == 1:
        return bad_request(f"{name} is not supported; leave it out", name, "not_supported")
    shown = json.dumps(given, ensure_ascii=False)
    if len(shown) > _LONGEST_SHOWN:
        shown = shown[:_LONGEST_SHOWN] + "..."
    return bad_request(f"{name}: {message}, not {shown}", name, "invalid_value")


def _words(problem: ErrorDetails) -> str:
    """What pydantic says, in the words of JSON and without the names of our classes."""
    message = problem["msg"]
    for pattern, text in _WORDS:
        message = pattern.sub(text, message)
    return message


def _weight(problem: ErrorDetails) -> tuple[bool, bool, int]:
    """An object of a wrong `type` comes first, then an unknown field, then what got furthest into the body."""
    return problem["loc"][-1] == "type", problem["type"] == "extra_forbidden", len(problem["loc"])


def _path(location: tuple[int | str, ...]) -> str:
    """`messages[0].content`; without the names that pydantic gives to the alternatives of a type."""
    name = ""
    for part in location:
        if isinstance(part, int):
            name += f"[{part}]"
        elif not name or (part.isascii() and part.replace("_", "a").isalnum() and part not in ("str", "TextPart")):
            name += f".{part}" if name else part
    return name[:200]
