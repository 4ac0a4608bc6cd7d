"""The fields of `/v1/responses`: what is allowed, checked and documented from one table.

Source: OpenAI's API reference, "Responses".
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from amdnfs_runtime.request import MOST_LOGPROBS
from amdnfs_runtime.server.fields import Fields, JsonObject, Name, NoEffectFields, StreamOptions, TokenCount


class InputPart(Fields):
    """A part of a message."""

    type: Literal["input_text", "output_text", "text"]
    """Only text is supported."""
    text: str
    """The text."""
    annotations: list[Any] | None = None
    """No effect; answers have it."""
    logprobs: list[Any] | None = None
    """No effect; answers have it."""


class InputMessage(Fields):
    """A message."""

    type: Literal["message"] | None = None
    """What kind of item it is."""
    role: Literal["system", "developer", "user", "assistant"]
    """Who speaks."""
    content: str | Annotated[list[InputPart], Field(fail_fast=True)]
    """What is said; parts are joined by line ends."""
    id: str | None = None
    """No effect; answers have it."""
    status: str | None = None
    """No effect; answers have it."""
    phase: str | None = None
    """No effect; answers may have it."""


class InputCall(Fields):
    """A call of a function in an earlier answer."""

    type: Literal["function_call"]
    """What kind of item it is."""
    call_id: Name
    """Name of the call."""
    name: Name
    """The function."""
    arguments: str
    """Its arguments, a JSON object as text."""
    id: str | None = None
    """No effect; answers have it."""
    status: str | None = None
    """No effect; answers have it."""


class InputCallOutput(Fields):
    """What a function gave."""

    type: Literal["function_call_output"]
    """What kind of item it is."""
    call_id: Name
    """The call that it answers."""
    output: str | Annotated[list[InputPart], Field(fail_fast=True)]
    """What it gave."""
    id: str | None = None
    """No effect."""
    status: str | None = None
    """No effect."""


def _item_tag(item: object) -> str:
    kind = item.get("type") if isinstance(item, dict) else None
    return f"<{kind or 'message'}>"


InputItem = Annotated[
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[InputCall, Tag("<function_call>")]
    | Annotated[InputCallOutput, Tag("<function_call_output>")],
    Discriminator(
        _item_tag,
        custom_error_type="item_type",
        custom_error_message="type should be 'message', 'function_call' or 'function_call_output'",
    ),
]
"""A message, a call of a function, or what one gave; a missing type is a message."""


class TextOptions(Fields):
    """What the answer must look like."""

    format: JsonObject | None = None
    """`{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "name": ..., "schema": ...}`."""
    verbosity: Literal["medium"] | None = None
    """Not supported, but for the default."""


class ReasoningOptions(Fields):
    """How the model thinks."""

    effort: Name | None = None
    """Given to the chat template as `reasoning_effort`."""
    summary: None = None
    """Not supported."""


class ResponseFields(NoEffectFields):
    """A request for a response. Nothing is stored, so an earlier one cannot be named; send its items again."""

    model: Name | None = None
    """Name of the model; may be left out."""
    input: str | Annotated[list[InputItem], Field(min_length=1, fail_fast=True)]
    """What the user says, or the items of the talk so far."""
    instructions: str | None = None
    """A system message before them."""
    max_output_tokens: TokenCount | None = None
    """Most tokens to generate. Default: as many as fit."""
    temperature: float | None = Field(default=None, ge=0, le=1e6)
    """0 takes the most likely token. Default: the model's `generation_config.json`, else 1."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Keep the most likely tokens up to this probability. Default: the model's, else 1."""
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    """Tell so many of the most likely tokens each time; needs `include`."""
    include: Annotated[list[Literal["message.output_text.logprobs"]], Field(fail_fast=True)] | None = None
    """Tell the probability of each token."""
    text: TextOptions | None = None
    """What the answer must look like."""
    tools: Annotated[list[JsonObject], Field(fail_fast=True)] | None = None
    """Functions that the model may call: `{"type": "function", "name": ..., "parameters": ...}`."""
    tool_choice: Literal["none", "auto", "required"] | JsonObject | None = None
    """Whether it may, must, or must not call one, or the one to call."""
    parallel_tool_calls: bool | None = None
    """Whether it may call several at once."""
    reasoning: ReasoningOptions | None = None
    """How the model thinks."""
    stream: bool | None = None
    """Send server-sent events while the answer is made."""
    stream_options: StreamOptions | None = None
    """How a stream is sent."""
    store: bool | None = None
    """No effect: nothing is ever stored."""
    truncation: Literal["disabled"] | None = None
    """Not supported, but for the default: a prompt that is too long is refused."""
    background: Literal[False] | None = None
    """Not supported, but for the default."""
    previous_response_id: None = None
    """Not supported: nothing is stored."""
    conversation: None = None
    """Not supported: nothing is stored."""
    prompt: None = None
    """Not supported."""
