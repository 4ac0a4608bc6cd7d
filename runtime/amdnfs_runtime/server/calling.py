"""Tools of a chat: what the model is shown of them, and how calls are found in what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.server.errors import bad_request
from amdnfs_runtime.server.tools import Tools, read_tools
from amdnfs_runtime.structure import Structure


class Reader(Protocol):
    """Reads one answer: what is said, and what is called."""

    @property
    def has_calls(self) -> bool:
        """Whether a call was found."""

    def push(self, text: str) -> list[dict[str, Any]]:
        """Reads more text.

        Returns:
            What to send: `{"content": text}`, or `{"tool_calls": [{"index": 0, "id": ..., "type": "function",
            "function": {"name": ..., "arguments": ...}}]}`; pieces of a call after its first have `index` and a
            function with more `arguments`.
        """

    def finish(self) -> list[dict[str, Any]]:
        """Ends the text; returns what was held back."""


class PlainReader:
    """Reads answers that call nothing."""

    has_calls = False
    """Never."""

    def push(self, text: str) -> list[dict[str, Any]]:
        """The text as it is."""
        return [{"content": text}] if text else []

    def finish(self) -> list[dict[str, Any]]:
        """Nothing is held back."""
        return []


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolUse:
    """How a request uses tools."""

    tools: Tools | None = None
    """The tools; None if there are none to call."""

    @property
    def shown(self) -> list[dict[str, Any]] | None:
        """Tools that the chat template gets."""
        return None if self.tools is None else self.tools.shown

    @property
    def structure(self) -> Structure | None:
        """What the answer must look like, if it must be a call."""
        return None if self.tools is None else self.tools.structure

    def reader(self) -> Reader:
        """A new reader for one answer."""
        return PlainReader() if self.tools is None else self.tools.reader()

    def told(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, with a description of the tools if the chat template has none."""
        text = None if self.tools is None else self.tools.instructions
        if text is None:
            return messages
        if messages and messages[0]["role"] == "system":
            return [{**messages[0], "content": f"{messages[0]['content']}\n\n{text}"}, *messages[1:]]
        return [{"role": "system", "content": text}, *messages]


def tool_use_of(
    tools: Sequence[dict[str, Any]] | None,
    choice: str | Mapping[str, Any] | None,
    is_parallel: bool | None,
    template_text: str,
) -> ToolUse:
    """What the fields `tools`, `tool_choice` and `parallel_tool_calls` ask for, with the chat template of the model.

    Raises:
        ApiError: 400, if they make no sense.
    """
    try:
        return ToolUse(tools=read_tools(tools or [], choice, is_parallel, template_text))
    except UsageError as error:
        field = "tool_choice" if str(error).startswith("tool_choice") else "tools"
        raise bad_request(str(error), field, "invalid_value") from error
