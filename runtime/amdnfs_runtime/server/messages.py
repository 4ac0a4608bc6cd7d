"""From the messages of a request to those that a chat template expects.

Source: transformers, "Chat templates" of its documentation: `content` is a text, the arguments of a call are an object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from amdnfs_runtime import strict_json
from amdnfs_runtime.server.errors import bad_request
from amdnfs_runtime.server.fields import Message, TextPart, ToolCall
from amdnfs_runtime.server.responses_fields import InputCall, InputCallOutput, InputMessage, InputPart

_DEVELOPER = "developer"
_RESERVED = frozenset({"messages", "tools", "add_generation_prompt"})


def template_messages(messages: Iterable[Message], template_text: str) -> list[dict[str, Any]]:
    """The messages of a chat.

    Args:
        messages: The request's.
        template_text: The template: one that does not know developers gets system messages in their place.
    """
    return [_message(message, template_text) for message in messages]


def template_items(
    items: str | Iterable[InputMessage | InputCall | InputCallOutput], instructions: str | None, template_text: str
) -> list[dict[str, Any]]:
    """The items of a response as the messages of a chat; calls that follow each other are of one message."""
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        messages.append({"role": "system", "content": instructions})
    if isinstance(items, str):
        return [*messages, {"role": "user", "content": items}]
    for item in items:
        if isinstance(item, InputMessage):
            messages.append({"role": _role(item.role, template_text), "content": _text(item.content)})
        elif isinstance(item, InputCallOutput):
            messages.append({"role": "tool", "content": _text(item.output), "tool_call_id": item.call_id})
        else:
            call = _call(item.call_id, item.name, item.arguments, "input")
            if messages and messages[-1]["role"] == "assistant":
                messages[-1].setdefault("tool_calls", []).append(call)
            else:
                messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    return messages


def template_variables(given: Mapping[str, Any] | None, effort: str | None) -> dict[str, Any]:
    """More variables of a template.

    Raises:
        ApiError: 400, for a variable that the request sets otherwise.
    """
    variables = dict(given or {})
    if wrong := sorted(_RESERVED & set(variables)):
        raise bad_request(f"chat_template_kwargs: {wrong[0]} is a field of its own", "chat_template_kwargs")
    if effort is not None:
        variables["reasoning_effort"] = effort
    return variables


def _message(message: Message, template_text: str) -> dict[str, Any]:
    made: dict[str, Any] = {"role": _role(message.role, template_text), "content": _text(message.content or "")}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            made[name] = value
    if message.tool_calls:
        made["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    return made


def _tool_call(call: ToolCall) -> dict[str, Any]:
    return _call(call.id, call.function.name, call.function.arguments, "messages")


def _call(call_id: str, name: str, arguments: str, param: str) -> dict[str, Any]:
    try:
        values = strict_json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise bad_request(
            f"the arguments of the call {call_id!r:.80} are no JSON: {error}", param, "invalid_value"
        ) from error
    if not isinstance(values, dict):
        raise bad_request(f"the arguments of the call {call_id!r:.80} are no JSON object", param, "invalid_value")
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": values}}


def _role(role: str, template_text: str) -> str:
    return "system" if role == _DEVELOPER and _DEVELOPER not in template_text else role


def _text(content: str | Iterable[TextPart | InputPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)
