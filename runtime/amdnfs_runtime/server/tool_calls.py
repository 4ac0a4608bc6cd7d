"""Finds the calls of functions in what a model writes, piece by piece. What may be called is told in `tools`."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

from amdnfs_runtime import strict_json

Delta = dict[str, Any]
"""A piece of a message: `{"content": text}` or `{"tool_calls": [...]}`, as in OpenAI's streams."""

_HEAD = re.compile(r'\{\s*"name"\s*:\s*"([A-Za-z0-9_.-]+)"\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{)')
_LONGEST_HEAD = 512
"""Characters within which the name of a call and the begin of its arguments are looked for; else it is read whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallForm:
    """How a model writes calls."""

    opener: str
    """What it writes before calls. Tokenizers with a special token for it leave it out of the text."""
    closer: str
    """What it writes after a call; empty for nothing."""
    bare: str
    """The character with which a text begins that is calls without an opener; empty if there is none."""
    is_list: bool
    """Whether the calls are a JSON array."""
    arguments: str
    """Key of the arguments."""
    id_chars: int
    """Length of a call's id; some templates check it."""
    separators: str
    """What may stand between calls."""


HERMES = CallForm(
    opener="<tool_call>",
    closer="</tool_call>",
    bare="",
    is_list=False,
    arguments="arguments",
    id_chars=24,
    separators="",
)
"""The most common form; also what is asked of models whose template shows no tools."""
LLAMA3 = CallForm(
    opener="<|python_tag|>",
    closer="",
    bare="{",
    is_list=False,
    arguments="parameters",
    id_chars=24,
    separators=";,",
)
"""Several calls are no habit of these models; with a semicolon or line end between them they are read."""
MISTRAL = CallForm(
    opener="[TOOL_CALLS]",
    closer="",
    bare="[",
    is_list=True,
    arguments="arguments",
    id_chars=9,
    separators=",",
)
"""The opener is a special token, and not in the text."""


class _State(Enum):
    TEXT = auto()
    """Outside of calls."""
    CALL = auto()
    """Before or in the JSON object of a call."""
    AFTER = auto()
    """Behind the JSON object of a call."""


class CallReader:
    """Finds calls in the text of one answer, piece by piece.

    The deltas, joined, do not depend on how the text is divided. No part of a marker gets out as text, unless the text
    ends with it or what follows is no call of a known function: then all of it is plain text. What a cut leaves of the
    marker behind a call is dropped.

    >>> reader = CallReader(HERMES, {"f"})
    >>> [delta.get("content") for delta in reader.push("Let me see. <tool")]
    ['Let me see.']
    >>> (delta,) = reader.push('_call>{"name": "f", "arguments": {"x')
    >>> delta["tool_calls"][0]["function"]
    {'name': 'f', 'arguments': '{"x'}
    """

    def __init__(
        self, form: CallForm, names: frozenset[str] | set[str], is_parallel: bool = True, is_forced: bool = False
    ) -> None:
        """Starts an answer.

        Args:
            form: How calls are written.
            names: Functions that can be called.
            is_parallel: Whether there may be several; if not, all after the first are left out.
            is_forced: Whether the answer is nothing but calls: what is no call is the begin of one that was cut, and
                no text.
        """
        self._form = form
        self._names = frozenset(names)
        self._is_parallel = is_parallel
        self._is_forced = is_forced
        self._state = _State.TEXT
        self._held = ""  # text that is not read yet
        self._marker = ""  # what was read of a call before its object, to be text if it is none
        self._is_start = True
        self._needs_bracket = False
        self._object = _ObjectScanner()
        self._num_calls = 0

    @property
    def has_calls(self) -> bool:
        """Whether a call was found."""
        return self._num_calls > 0

    def push(self, text: str) -> list[Delta]:
        """Reads more text and returns what is certain."""
        self._held += text
        return self._read(is_end=False)

    def finish(self) -> list[Delta]:
        """Ends the text and returns what was held back."""
        return self._read(is_end=True)

    def _read(self, is_end: bool) -> list[Delta]:
        steps = {_State.TEXT: self._read_text, _State.CALL: self._read_call, _State.AFTER: self._read_after}
        deltas: list[Delta] = []
        while (found := steps[self._state](is_end)) is not None:
            deltas += found
        return _merged(deltas)

    def _read_text(self, is_end: bool) -> list[Delta] | None:
        """Lets text out up to where a call may begin; None when more text is needed."""
        opener, bare = self._form.opener, self._form.bare
        stripped = self._held.lstrip()
        if self._is_start and bare and stripped.startswith(bare) and not stripped.startswith(opener):
            if opener.startswith(stripped) and not is_end:
                return None
            self._begin_call(len(self._held) - len(stripped))
            return []
        begin = self._held.find(opener)
        if begin >= 0:
            content = self._held[:begin].rstrip()
            self._held = self._held[len(content) :]
            deltas = self._content(content)
            self._begin_call(begin - len(content) + len(opener))
            return deltas
        end = len(self._held) if is_end else self._certain_end()
        content, self._held = self._held[:end], self._held[end:]
        return self._content(content) if content else None

    def _certain_end(self) -> int:
        """Where text begins that may be part of an opener, or whitespace before one."""
        end = len(self._held)
        for size in range(min(len(self._form.opener) - 1, end), 0, -1):
            if self._form.opener.startswith(self._held[end - size :]):
                end -= size
                break
        return len(self._held[:end].rstrip())

    def _begin_call(self, num_chars: int) -> None:
        self._marker, self._held = self._held[:num_chars], self._held[num_chars:]
        self._state = _State.CALL
        self._needs_bracket = self._form.is_list
        self._object = _ObjectScanner()

    def _read_call(self, is_end: bool) -> list[Delta] | None:
        if not self._object.has_begun:
            rest = self._held.lstrip()
            wanted = "[" if self._needs_bracket else "{"
            if not rest and not is_end:
                return None
            if not rest.startswith(wanted):
                return self._no_call()
            skipped = len(self._held) - len(rest) + self._needs_bracket
            self._marker, self._held = self._marker + self._held[:skipped], self._held[skipped:]
            if self._needs_bracket:
                self._needs_bracket = False
                return []
        self._held = self._object.take(self._held)
        name = self._object.open_call(self._names)
        if name is not None:
            deltas = self._open_call(name)
            if not deltas and not self._object.is_complete:
                return self._cut() if is_end else None
        elif self._object.is_complete:
            call = self._object.whole_call(self._names)
            if call is None:
                return self._no_call()
            deltas = [*self._begin_delta(call[0]), *self._arguments_delta(call[1])]
        else:
            return self._no_call() if is_end else None
        if self._object.is_complete:
            self._state = _State.AFTER
        return deltas

    def _read_after(self, is_end: bool) -> list[Delta] | None:
        """Skips what stands behind a call: a closer, a separator, the end of a list."""
        rest = self._held.lstrip()
        closer = "]" if self._form.is_list else self._form.closer
        if not is_end and closer.startswith(rest) and rest != closer:
            return None
        following = rest[1:].lstrip() if rest[:1] in tuple(self._form.separators) else rest
        if not is_end and not following:
            return None
        self._held, self._state = rest, _State.TEXT
        if rest and closer.startswith(rest):  # whole, or cut by the end of the answer
            self._held = ""
        elif self._form.separators and following.startswith("{"):
            self._held = following
            self._begin_call(0)
            self._needs_bracket = False
        elif closer and rest.startswith(closer):
            self._held = rest[len(closer) :]
        return []

    def _no_call(self) -> list[Delta]:
        """What was taken for a call is text."""
        text = self._marker + self._object.text
        self._marker, self._object = "", _ObjectScanner()
        self._state, self._is_start = _State.TEXT, False
        return self._content(text)

    def _cut(self) -> list[Delta]:
        """The answer ends within the arguments of a call: they stay as they are."""
        self._state, self._object = _State.TEXT, _ObjectScanner()
        return []

    def _content(self, text: str) -> list[Delta]:
        if self._is_forced or (not text.strip() and self.has_calls):
            return []
        self._is_start = self._is_start and not text.strip()
        return [{"content": text}] if text else []

    def _open_call(self, name: str) -> list[Delta]:
        """What is new of a call whose arguments are read as they come."""
        begin = [] if self._object.num_given else self._begin_delta(name)
        return [*begin, *self._arguments_delta(self._object.new_arguments())]

    def _begin_delta(self, name: str) -> list[Delta]:
        self._num_calls += 1
        if self._is_left_out:
            return []
        size = self._form.id_chars
        call_id = secrets.token_hex(size)[:size]
        function = {"name": name, "arguments": ""}
        index = self._num_calls - 1
        return [{"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}]

    def _arguments_delta(self, text: str) -> list[Delta]:
        if not text or self._is_left_out:
            return []
        return [{"tool_calls": [{"index": self._num_calls - 1, "function": {"arguments": text}}]}]

    @property
    def _is_left_out(self) -> bool:
        return self._num_calls > 1 and not self._is_parallel


class _ObjectScanner:
    """Reads one JSON object up to its end."""

    def __init__(self) -> None:
        self.text = ""
        self.is_complete = False
        self.num_given = 0  # where the arguments end that were given out; 0 for none
        self._depth = 0
        self._is_string = self._is_escaped = False
        self._first_end: int | None = None  # end of the first object within the object

    @property
    def has_begun(self) -> bool:
        return bool(self.text)

    def take(self, text: str) -> str:
        """Reads on; returns what stands behind the object."""
        if self.is_complete:
            return text
        for index, char in enumerate(text):
            if self._is_string:
                self._is_string = self._is_escaped or char != '"'
                self._is_escaped = char == "\\" and not self._is_escaped
            elif char == '"':
                self._is_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth == 1 and self._first_end is None:
                    self._first_end = len(self.text) + index + 1
                if self._depth == 0:
                    self.text += text[: index + 1]
                    self.is_complete = True
                    return text[index + 1 :]
        self.text += text
        return ""

    def open_call(self, names: frozenset[str]) -> str | None:
        """Name of the function whose arguments have begun, if it is one of `names`."""
        found = _HEAD.match(self.text[:_LONGEST_HEAD])
        return found[1] if found is not None and found[1] in names else None

    def new_arguments(self) -> str:
        """Text of the arguments that was not given before; for open calls only."""
        found = _HEAD.match(self.text[:_LONGEST_HEAD])
        assert found is not None
        begin = self.num_given or found.end()
        self.num_given = len(self.text) if self._first_end is None else self._first_end
        return self.text[begin : self.num_given]

    def whole_call(self, names: frozenset[str]) -> tuple[str, str] | None:
        """Name and arguments of a complete object; None if it is no call of one of `names`."""
        try:
            value = strict_json.loads(self.text)
            name = value.get("name")
            arguments = value.get("arguments", value.get("parameters")) or {}
            arguments = strict_json.loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError):
            return None
        if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
            return None
        return name, json.dumps(arguments, ensure_ascii=False)


def _merged(deltas: list[Delta]) -> list[Delta]:
    """Joins deltas that follow each other and belong together."""
    merged: list[Delta] = []
    for delta in deltas:
        if merged and "content" in delta and "content" in merged[-1]:
            merged[-1]["content"] += delta["content"]
        elif merged and "content" not in delta and _index(merged[-1]) == _index(delta):
            merged[-1]["tool_calls"][0]["function"]["arguments"] += delta["tool_calls"][0]["function"]["arguments"]
        else:
            merged.append(delta)
    return merged


def _index(delta: Delta) -> int | None:
    return None if "content" in delta else delta["tool_calls"][0]["index"]
