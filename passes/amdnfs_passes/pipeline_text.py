"""Passes written as text, `fuse-rotary,verify-pool-in-place{first-pool-argument=4}`, and running them on MLIR text.

    passes   = pass ("," pass)*
    pass     = name | name "{" [option (" " option)*] "}"
    option   = key "=" value          a key is a field of the pass, with `-` for `_`
    value    = 4 | true | text | 1,2,3

The order of a whole compile is not written here: that is the pipeline's job.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import typing
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass
from typing import Any

from amdnfs_passes.base import ModulePass, PassError, PassResult
from amdnfs_passes.ir import Context, Module
from amdnfs_passes.registry import PASSES, get_pass

PART_MARKER = "// -----"
"""A line that begins with this ends a part of a file; parts are modules of their own, as for mlir-opt."""

_PASS = re.compile(r"(?P<name>[a-z0-9-]+)\s*(?:\{(?P<options>[^{}]*)\})?\s*")
_OPTION = re.compile(r"(?P<key>[A-Za-z0-9_-]+)=(?P<value>\([^()]*\)|\S*)(?:\s+|$)")
_BOOLS = {"true": True, "false": False}


class PassOptionError(ValueError):
    """Passes that cannot be read: bad syntax, an unknown option, a bad value, or a wrong order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptResult:
    """What a run of passes over a file gave."""

    text: str
    """The modules after the passes, with a `// -----` line between them."""
    results: tuple[PassResult, ...]
    """One for each part of the file and each pass, part by part."""


def parse_passes(text: str) -> tuple[ModulePass, ...]:
    """Reads passes from the form that the command line takes.

    Args:
        text: Names with options; empty for no pass.

    Raises:
        UnknownPassError: For a name that is not registered, with the closest.
        PassOptionError: For anything else that is wrong, with the closest option or the values allowed.

    >>> [item.describe() for item in parse_passes("fuse-rotary, verify-pool-in-place{first-pool-argument=2}")]
    ['fuse-rotary', 'verify-pool-in-place{first-pool-argument=2}']
    """
    passes = tuple(_make(name, options) for name, options in _split(text))
    check_order(passes)
    return passes


def check_order(passes: Sequence[ModulePass]) -> None:
    """Checks that every pass stands after the passes it requires.

    Raises:
        PassOptionError: Naming the first pass that does not.
    """
    names = [item.pass_name() for item in passes]
    for index, item in enumerate(passes):
        for required in item.requires:
            if required not in names[:index]:
                place = "stands later" if required in names else "is missing"
                raise PassOptionError(f"pass {names[index]} must come after {required}, which {place}")


def list_passes() -> str:
    """All passes, grouped by phase: name, what it does, and its options with their defaults."""
    return "\n".join(_list_entry(cls) for cls in PASSES)


def run_opt(text: str, passes: Sequence[ModulePass], *, why: bool = False) -> OptResult:
    """Runs `passes` in order on MLIR text, each part of it (see `PART_MARKER`) apart.

    Args:
        text: MLIR assembly.
        passes: In order.
        why: Whether to add a line `// refused: <pass>: <reason>` after a module for each near miss.

    Raises:
        MLIRError: If a part does not parse or verify; line numbers are those of the whole text.
        PassError: If passes refuse parts; all parts are tried, and the message names each refusal.
    """
    texts: list[str] = []
    results: list[PassResult] = []
    errors: list[PassError] = []
    for part in split_parts(text):
        module = Module.parse(part, Context())
        try:
            part_results = [item.apply(module) for item in passes]
        except PassError as error:
            errors.append(error)
            continue
        results += part_results
        texts.append(str(module).rstrip("\n") + "\n" + (_reasons(part_results) if why else ""))
    if errors:
        raise PassError("\n".join(str(error) for error in errors)) from errors[0]
    return OptResult(text=f"{PART_MARKER}\n".join(texts), results=tuple(results))


def split_parts(text: str) -> list[str]:
    r"""The parts of `text`, each behind as many empty lines as stand before it, so that errors name the right line.

    >>> split_parts("a\n// -----\nb\n")
    ['a\n', '\n\nb\n']
    """
    parts = [""]
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if line.startswith(PART_MARKER):
            parts.append("\n" * number)
        else:
            parts[-1] += line
    return parts


def _reasons(results: Sequence[PassResult]) -> str:
    """A comment for each refusal: the reason, then where."""
    lines = []
    for refusal in (refusal for result in results for refusal in result.refusals):
        place = f"in @{refusal.function}, " if refusal.function else ""
        lines.append(f"// refused: {refusal.pass_name}: {refusal.reason} [{place}{refusal.operation}]\n")
    return "".join(lines)


def _split(text: str) -> Iterator[tuple[str, str]]:
    position, end = 0, len(text.rstrip())
    while position < end:
        position += len(text[position:]) - len(text[position:].lstrip())
        match = _PASS.match(text, position)
        if match is None or (match.end() < end and text[match.end()] != ","):
            raise PassOptionError(
                f"cannot read {text[position:end]!r}: write name{{key=value}}, with ',' between passes"
            )
        yield match["name"], match["options"] or ""
        position = match.end() + 1
        if match.end() < end and position >= end:
            raise PassOptionError(f"no pass after the last ',' of {text!r}")


def _make(name: str, options: str) -> ModulePass:
    cls = get_pass(name)
    kinds = _option_types(cls)
    values: dict[str, object] = {}
    position = len(options) - len(options.lstrip())
    while position < len(options):
        match = _OPTION.match(options, position)
        if match is None:
            rest = options[position:].rstrip()
            raise PassOptionError(f"pass {name}: cannot read {rest!r}: write key=value, with ' ' between options")
        field_name = match["key"].replace("-", "_")
        if field_name not in kinds:
            raise PassOptionError(_unknown_option(name, match["key"], kinds))
        if field_name in values:
            raise PassOptionError(f"pass {name}: option {match['key']} is given twice")
        values[field_name] = _value(name, match["key"], match["value"], kinds[field_name])
        position = match.end()
    missing = [item.name for item in _fields(cls) if item.default is MISSING and item.name not in values]
    if missing:
        raise PassOptionError(f"pass {name} needs the option {missing[0].replace('_', '-')}")
    return cls(**values)


def _fields(cls: type[ModulePass]) -> tuple[Field[Any], ...]:
    return dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()


def _option_types(cls: type[ModulePass]) -> dict[str, object]:
    hints = typing.get_type_hints(cls)
    return {item.name: hints[item.name] for item in _fields(cls)}


def _unknown_option(name: str, key: str, kinds: dict[str, object]) -> str:
    if not kinds:
        return f"pass {name} takes no options, not {key!r}"
    known = [field_name.replace("_", "-") for field_name in kinds]
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"pass {name} has no option {key!r}: did you mean {close[0]}?"


def _value(name: str, key: str, text: str, kind: object) -> object:
    def bad(wanted: str) -> PassOptionError:
        return PassOptionError(f"pass {name}: option {key} must be {wanted}, not {text!r}")

    if kind is bool:
        if text.lower() not in _BOOLS:
            raise bad("true or false")
        return _BOOLS[text.lower()]
    if kind is int:
        if not re.fullmatch(r"-?[0-9]+", text):
            raise bad("a whole number")
        return int(text)
    if kind is str:
        return text
    if kind == tuple[int, ...]:
        items = [item.strip() for item in text.strip("()").split(",") if item.strip()]
        if not all(re.fullmatch(r"-?[0-9]+", item) for item in items):
            raise bad("whole numbers with ',' between")
        return tuple(int(item) for item in items)
    raise TypeError(f"pass {name}: options of type {kind} cannot be written as text")


def _list_entry(cls: type[ModulePass]) -> str:
    doc = (sys.modules[cls.__module__].__doc__ or "").strip().splitlines()
    lines = [cls.pass_name(), f"    {doc[0] if doc else '(no description)'}"]
    for item in _fields(cls):
        default = "" if item.default is MISSING else item.default
        lines.append(f"    {item.name.replace('_', '-')}={default} ({item.type})")
    return "\n".join(lines)
