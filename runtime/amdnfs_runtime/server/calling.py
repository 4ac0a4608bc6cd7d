"""Tools of a chat: what the model is shown of them, and how calls are found in what it writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from amdnfs_runtime.server.errors import not_supported
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

    shown: list[dict[str, Any]] | None = None
    """Tools that the chat template gets."""
    structure: Structure | None = None
    """What the answer must look like, if it must be a call."""

    def reader(self) -> Reader:
        """A new reader for one answer."""
        return PlainReader()


def tool_use_of(
    tools: Sequence[dict[str, Any]] | None, choice: str | Mapping[str, Any] | None, is_parallel: bool | None
) -> ToolUse:
    """What the fields `tools`, `tool_choice` and `parallel_tool_calls` ask for.

    Raises:
        ApiError: 400, if they make no sense.
    """
    if not tools or choice == "none":
        return ToolUse()
    raise not_supported("tools", "calls of functions are not supported")
