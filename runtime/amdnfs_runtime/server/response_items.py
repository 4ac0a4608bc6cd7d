"""The items of a response, and the events that tell of them, from the pieces of an answer."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

Event = tuple[str, dict[str, Any]]
"""Name and fields of an event."""


class ItemWriter:
    """Makes items: text becomes messages, calls become items of their own.

    >>> writer = ItemWriter()
    >>> [name for name, _ in writer.write([{"content": "Hi"}], [])][-1]
    'response.output_text.delta'
    """

    def __init__(self) -> None:
        """Nothing was said."""
        self.items: list[dict[str, Any]] = []
        self._call_index: int | None = None
        self._is_open = False

    def write(self, deltas: list[dict[str, Any]], logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        """Adds pieces, as `calling.Reader` gives them.

        Args:
            deltas: The pieces.
            logprobs: Those of their tokens, if asked for.
        """
        if logprobs and not deltas:
            deltas = [{"content": ""}]
        for delta in deltas:
            if "content" in delta:
                yield from self._text(delta["content"], logprobs)
                logprobs = []
            for call in delta.get("tool_calls", ()):
                yield from self._call(call)

    def close(self, status: str) -> Iterator[Event]:
        """Ends the last item; an answer without text has an empty message.

        Args:
            status: `completed`, or `incomplete` for a text that was cut.
        """
        if not self.items:
            yield from self._text("", [])
        yield from self._close_item(status)

    def _text(self, text: str, logprobs: list[dict[str, Any]]) -> Iterator[Event]:
        if not self._is_open or self._call_index is not None:
            yield from self._close_item("completed")
            self._call_index = None
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            item = {"type": "message", "role": "assistant", "content": [part]}
            yield from self._open_item("msg", item, {**item, "content": []})
            yield "response.content_part.added", {**self._place(), "part": dict(part, logprobs=[])}
        content = self.items[-1]["content"][0]
        content["text"] += text
        content["logprobs"] += logprobs
        yield "response.output_text.delta", {**self._place(), "delta": text, "logprobs": logprobs}

    def _call(self, call: dict[str, Any]) -> Iterator[Event]:
        function = call["function"]
        if self._call_index != call["index"]:
            yield from self._close_item("completed")
            self._call_index = call["index"]
            item = {"type": "function_call", "call_id": call["id"], "name": function["name"], "arguments": ""}
            yield from self._open_item("fc", item, item)
        if arguments := function.get("arguments", ""):
            self.items[-1]["arguments"] += arguments
            yield "response.function_call_arguments.delta", {**self._item_place(), "delta": arguments}

    def _open_item(self, prefix: str, item: dict[str, Any], shown: dict[str, Any]) -> Iterator[Event]:
        self._is_open = True
        names = {"id": f"{prefix}_{secrets.token_hex(12)}", "status": "in_progress"}
        self.items.append({**names, **item})
        yield "response.output_item.added", {"output_index": len(self.items) - 1, "item": {**names, **shown}}

    def _close_item(self, status: str) -> Iterator[Event]:
        if not self._is_open:
            return
        self._is_open = False
        item = self.items[-1]
        item["status"] = status
        if item["type"] == "message":
            part = item["content"][0]
            done = {"text": part["text"], "logprobs": part["logprobs"]}
            yield "response.output_text.done", {**self._place(), **done}
            yield "response.content_part.done", {**self._place(), "part": part}
        else:
            done = {"name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", {**self._item_place(), **done}
        yield "response.output_item.done", {"output_index": len(self.items) - 1, "item": item}

    def _item_place(self) -> dict[str, Any]:
        return {"item_id": self.items[-1]["id"], "output_index": len(self.items) - 1}

    def _place(self) -> dict[str, Any]:
        return {**self._item_place(), "content_index": 0}
