"""What an answer must look like: from the fields of OpenAI and vLLM to one `Structure`.

How a structure is kept is told in `amdnfs_runtime.structure`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.errors import bad_request, in_words_of
from amdnfs_runtime.server.fields import SamplingFields
from amdnfs_runtime.structure import Structure, StructureKind

_FORMATS = ("text", "json_object", "json_schema")
_WRAPPER = ("name", "description", "schema", "strict")
_OUTPUTS = ("json", "regex", "choice", "grammar", "json_object")
_SOURCES = ("response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar")


def structure_of(fields: SamplingFields) -> tuple[Structure | None, str]:
    """The structure that a request asks for, and the name of the field that does.

    Raises:
        ApiError: 400, if it makes no sense or is given twice.
    """
    given = {name: getattr(fields, name) for name in _SOURCES if getattr(fields, name) is not None}
    if len(given) > 1:
        first, second = sorted(given)[:2]
        raise bad_request(f"{second}: give either {first} or {second}, not both", second)
    for name, value in given.items():
        return checked(name, lambda name=name, value=value: _READERS[name](value)), name  # type: ignore[misc]
    return None, "response_format"


def structure_of_format(value: Mapping[str, Any], name: str) -> Structure | None:
    """The structure of `text.format` of a response, whose schema stands beside its type."""
    value = dict(value)
    if value.get("type") == "json_schema":
        value = {"type": value.pop("type"), "json_schema": value}
    return checked(name, lambda: _from_format(value))


def checked(name: str, read: Callable[[], Structure | None]) -> Structure | None:
    """Reads a structure; what is wrong with it is told as an error of the field `name`.

    Raises:
        ApiError: 400.
    """
    try:
        return read()
    except UsageError as error:
        told = in_words_of(str(error), {"structure": name})
        raise bad_request(told if told.startswith(name) else f"{name}: {told}", name, "invalid_value") from error


def _from_format(value: Mapping[str, Any]) -> Structure | None:
    kind = value.get("type")
    if kind not in _FORMATS:
        raise UsageError(f"the type must be one of {', '.join(_FORMATS)}, not {json.dumps(kind):.80}")
    _check_keys(value, ("type", "json_schema") if kind == "json_schema" else ("type",))
    if kind == "text":
        return None
    if kind == "json_object":
        return Structure(kind=StructureKind.JSON_OBJECT)
    wrapper = value.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    if not isinstance(wrapper, dict) or not isinstance(schema, dict):
        raise UsageError("json_schema must be an object with a name and a schema, which is an object, too")
    _check_keys(wrapper, _WRAPPER)
    if not isinstance(wrapper.get("strict"), (bool, NoneType)):
        raise UsageError(f"strict must be true or false, not {json.dumps(wrapper['strict']):.80}")
    return Structure.json_schema(schema)


def _check_keys(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"{unknown[0]!r:.80} is not known; known are {', '.join(known)}")


def _from_outputs(value: Mapping[str, Any]) -> Structure | None:
    given = {name: item for name, item in value.items() if item is not None and item is not False}
    unknown = sorted(set(given) - set(_OUTPUTS))
    if unknown or len(given) != 1:
        wrong = f"{unknown[0]!r:.80} is not known" if unknown else f"there are {len(given)}"
        raise UsageError(f"give exactly one of {', '.join(_OUTPUTS)}; {wrong}")
    ((name, item),) = given.items()
    if name == "json_object":
        return Structure(kind=StructureKind.JSON_OBJECT)
    if name == "json":
        return _from_schema(item)
    if name == "choice":
        return _from_choice(item)
    return Structure(kind=StructureKind.REGEX if name == "regex" else StructureKind.GRAMMAR, text=item)


def _from_schema(value: object) -> Structure:
    """A schema, also as text."""
    if isinstance(value, str):
        return Structure(kind=StructureKind.JSON_SCHEMA, text=value)
    if not isinstance(value, dict):
        raise UsageError(f"a schema is a JSON object, not {json.dumps(value):.80}")
    return Structure.json_schema(value)


def _from_choice(value: object) -> Structure:
    if not isinstance(value, list):
        raise UsageError(f"the choices are a list of texts, not {json.dumps(value):.80}")
    return Structure.choice(value)


_READERS: dict[str, Callable[[Any], Structure | None]] = {
    "response_format": _from_format,
    "structured_outputs": _from_outputs,
    "guided_json": _from_schema,
    "guided_regex": lambda value: Structure(kind=StructureKind.REGEX, text=value),
    "guided_choice": _from_choice,
    "guided_grammar": lambda value: Structure(kind=StructureKind.GRAMMAR, text=value),
}
