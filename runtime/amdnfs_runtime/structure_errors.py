"""What llguidance says of a grammar, in words for whoever wrote the grammar.

Its messages are made for its own input: they quote lines that we added, and name states of its parser.

Source: llguidance 1.9.1, whose messages are matched here; one that is not known is told as it is.
"""

from __future__ import annotations

import re

_LONGEST = 300
_EXCERPT = re.compile(r"^\s*(?:\d+ \|.*|\^+\s*)$\n?", re.MULTILINE)
_PLACE = re.compile(r"^(?:at )?(\d+)\((\d+)\): ")
_SHORTER = (
    (re.compile(r"^failed to compile JSON schema: "), ""),
    (re.compile(r"(?<=Regex is empty)\b.*", re.DOTALL), ""),
    (re.compile(r"\bSome\((\S+?)\)"), r"\1"),
    (re.compile(r"Enable 'coerce_one_of' option"), 'Set "x-guidance": {"coerce_one_of": true} in the schema'),
)
_STATES = {
    "NoExtension": "it allows no text at all, or none that this vocabulary can write",
    "NoExtensionBias": "it allows no text at all, or none that this vocabulary can write",
    "LexerTooComplex": "its expressions need more work than is allowed; make them simpler",
    "ParserTooComplex": "its rules need more work than is allowed; make them simpler",
}


def told(message: str, num_added_lines: int | None = None) -> str:
    """One line about what is wrong.

    Args:
        message: From llguidance.
        num_added_lines: Lines that stand before the user's own text; None if nothing of it is the user's.

    >>> told("at 3(8): unknown name: x", num_added_lines=1)
    'line 2, column 8: unknown name: x'
    """
    message = _EXCERPT.sub("", message.replace("<non-verbose/>", "")).strip()
    place = _PLACE.match(message)
    where = ""
    if place is not None:
        message = message[place.end() :]
        if num_added_lines is not None:
            where = f"line {int(place[1]) - num_added_lines}, column {place[2]}: "
    for pattern, text in _SHORTER:
        message = pattern.sub(text, message)
    message = " ".join(message.split())
    return (where + _STATES.get(message, message))[:_LONGEST]
