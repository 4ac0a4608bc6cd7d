"""Reads values of JSON that another version or a person may have written: every field is looked at before it is used.

A `Field` knows where it stands, so that a message can name it: `dispatches, decode_1, groups[3], count`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST = 10**18
"""Larger numbers are no counts, FLOPs or bytes of one dispatch; sums of these stay finite."""
_MAX_SHOWN_LENGTH = 40


class FieldError(ValueError):
    """A field that is missing or wrong: its place, what was found, and what is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A value of JSON, and where it stands."""

    value: Any
    """The value."""
    place: str = ""
    """Names of the fields around it, and its own; empty for the whole file."""

    def __getitem__(self, name: str) -> Field:
        """The field `name` of an object.

        Raises:
            FieldError: If this is no object, or lacks the field.
        """
        values = self._object()
        if name not in values:
            raise FieldError(f"{self._inner(name)} is missing")
        return Field(value=values[name], place=self._inner(name))

    def get(self, name: str, default: Any) -> Field:
        """The field `name`, or one with a default value."""
        return Field(value=self._object().get(name, default), place=self._inner(name))

    def names(self) -> set[str]:
        """Names of the fields of an object."""
        return set(self._object())

    def items(self) -> Iterator[tuple[str, Field]]:
        """The fields of an object; their names are text."""
        for name, value in self._object().items():
            yield Field(value=name, place=self._inner("a name")).text(), Field(value=value, place=self._inner(name))

    def elements(self) -> list[Field]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        return [Field(value=value, place=f"{self.place}[{index}]") for index, value in enumerate(self.value)]

    def text(self) -> str:
        """Text that can be printed."""
        if not isinstance(self.value, str):
            raise self._wrong("text")
        try:
            self.value.encode()
        except UnicodeEncodeError as error:
            raise self._wrong("text in Unicode") from error
        return self.value

    def one_of(self, *allowed: str) -> str:
        """One of some words."""
        if self.value not in allowed or not isinstance(self.value, str):
            raise self._wrong(" or ".join(repr(item) for item in allowed))
        return self.value

    def whole(self, least: int = 0, most: int = MOST) -> int:
        """A whole number."""
        if isinstance(self.value, bool) or not isinstance(self.value, int) or not least <= self.value <= most:
            raise self._wrong(f"a whole number from {least} to {most:g}")
        return self.value

    def number(self) -> float:
        """A number that is finite and not negative."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | float) or not 0 <= self.value <= MOST:
            raise self._wrong(f"a number from 0 to {MOST:g}")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self._wrong("true or false")
        return self.value

    def texts(self) -> tuple[str, ...]:
        """A list of texts."""
        return tuple(item.text() for item in self.elements())

    def counts(self) -> dict[str, int]:
        """An object of whole numbers."""
        return {name: item.whole() for name, item in self.items()}

    def _object(self) -> dict[str, Any]:
        if not isinstance(self.value, dict):
            raise self._wrong("an object")
        return self.value

    def _inner(self, name: str) -> str:
        return f"{self.place}, {name}" if self.place else name

    def _wrong(self, allowed: str) -> FieldError:
        return FieldError(f"{self.place or 'the file'} is {shown(self.value)}; allowed is {allowed}")


def shown(value: Any) -> str:
    """A value as JSON has it, shortened.

    >>> shown(None), shown([1, 2]), shown("x" * 50)
    ('null', '[1, 2]', '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...')
    """
    text = json.dumps(value) if not isinstance(value, int) or abs(value) <= MOST else "a number with too many digits"
    return text if len(text) <= _MAX_SHOWN_LENGTH else f"{text[:_MAX_SHOWN_LENGTH]}..."
