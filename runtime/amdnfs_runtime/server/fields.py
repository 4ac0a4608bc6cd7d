"""The fields of requests that generate: what is allowed, checked and documented from one table.

The models here check a request, and `openapi` describes them. What a field does is told in `request`.

Source: OpenAI's API reference for names and meanings; vLLM's documentation of its server for the fields beyond it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from amdnfs_runtime.request import MOST_LOGPROBS, MOST_SAMPLES

MOST_STOPS = 16
"""Most stop strings of a request."""
MOST_STOP_CHARS = 256
"""Longest stop string; each token is compared with all of them."""
MOST_PROMPTS = 128
"""Most prompts of one request."""
MOST_TOKENS = 2**31
"""Largest limit that a client may name."""

_MOST_BIASES = 1024

Name = Annotated[str, Field(min_length=1, max_length=256)]
"""A short text."""
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
"""A token id."""
TokenCount = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
"""A limit on tokens."""
Stop = Annotated[str, Field(min_length=1, max_length=MOST_STOP_CHARS)]
"""A stop string."""
JsonObject = dict[str, Any]
"""Any JSON object."""
TokenIds = Annotated[list[TokenId], Field(fail_fast=True)]
"""Token ids. All lists stop at their first error, else a long one could have millions."""
Prompt = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS, fail_fast=True)]
    | Annotated[TokenIds, Field(min_length=1)]
    | Annotated[
        list[Annotated[TokenIds, Field(min_length=1)]],
        Field(min_length=1, max_length=MOST_PROMPTS),
        Field(fail_fast=True),
    ]
)
"""A text, token ids, or a list of either."""


class Fields(BaseModel):
    """A JSON object of a request: nothing is converted, unknown fields are refused, null is as good as absent."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, use_attribute_docstrings=True)


class StreamOptions(Fields):
    """How a stream is sent."""

    include_usage: bool | None = None
    """Send the numbers of tokens in a last event."""
    include_obfuscation: Literal[False] | None = None
    """Not supported: nothing is added to events."""


class NoEffectFields(Fields):
    """Fields of OpenAI's interface that say who asks or how to bill. They are taken, and change nothing."""

    user: str | None = None
    """No effect."""
    metadata: dict[str, str] | None = None
    """No effect."""
    service_tier: Literal["auto", "default"] | None = None
    """No effect."""
    safety_identifier: str | None = None
    """No effect."""
    prompt_cache_key: str | None = None
    """No effect: prompts with the same beginning always share it."""


class SamplingFields(NoEffectFields):
    """How tokens are chosen, and when a text ends."""

    model: Name | None = None
    """Name of the model; the server has one, so it may be left out."""
    temperature: float | None = Field(default=None, ge=0, le=1e6)
    """0 takes the most likely token. Default: the model's `generation_config.json`, else 1."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Keep the most likely tokens up to this probability. Default: the model's, else 1."""
    top_k: int | None = Field(default=None, ge=-1, le=2**31)
    """Keep this many tokens; 0 and -1 keep all. Default: the model's, else 0."""
    min_p: float | None = Field(default=None, ge=0, le=1)
    """Keep tokens at least this likely, as a share of the likeliest. Default: the model's, else 0."""
    repetition_penalty: float | None = Field(default=None, ge=1e-3, le=1e3)
    """Makes tokens of prompt and text less likely when > 1. Default: the model's, else 1."""
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Taken from the logit of tokens that were generated. Default: 0."""
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    """Taken from the logit of a token for each time it was generated. Default: 0."""
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=_MOST_BIASES)] | None
    ) = None
    """Added to the logits of tokens; the keys are token ids."""
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    """Same seed, same text, whatever else runs."""
    n: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    """Samples of each prompt. Default: 1."""
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS, fail_fast=True)] | None = None
    """Texts that end the answer; they are not part of it."""
    stop_token_ids: Annotated[TokenIds, Field(max_length=MOST_STOPS)] | None = None
    """Tokens that end the answer."""
    max_tokens: TokenCount | None = None
    """Most tokens to generate. Default: 16 for completions, as many as fit for chats."""
    min_tokens: int | None = Field(default=None, ge=0, le=MOST_TOKENS)
    """Tokens before anything but a limit ends the answer. Default: 0."""
    ignore_eos: bool | None = None
    """Go on after the model's end tokens."""
    stream: bool | None = None
    """Send server-sent events while the answer is made."""
    stream_options: StreamOptions | None = None
    """How a stream is sent."""
    structured_outputs: JsonObject | None = None
    """What the answer must look like: an object with one of `json`, `regex`, `choice`, `grammar`, `json_object`."""
    guided_json: JsonObject | str | None = None
    """The answer must be JSON that is valid by this schema."""
    guided_regex: str | None = None
    """The answer must match this regular expression."""
    guided_choice: Annotated[list[str], Field(fail_fast=True)] | None = None
    """The answer must be one of these."""
    guided_grammar: str | None = None
    """The answer must follow this grammar."""
    response_format: JsonObject | None = None
    """`{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": ...}}`."""


class CompletionFields(SamplingFields):
    """A request to continue prompts."""

    prompt: Prompt
    """What to continue: a text, token ids, or a list of either."""
    echo: bool | None = None
    """Begin the answer with the prompt; not together with `logprobs`."""
    logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    """Tell the probability of each token, and of so many others. Default: not."""
    best_of: Literal[1] | None = None
    """Not supported, but for 1."""
    suffix: Literal[""] | None = None
    """Not supported."""


class TextPart(Fields):
    """A part of a message."""

    type: Literal["text"]
    """Only text is supported."""
    text: str
    """The text."""


class CalledFunction(Fields):
    """A function that the model called."""

    name: Name
    """Its name."""
    arguments: str
    """Its arguments, a JSON object as text."""


class ToolCall(Fields):
    """A call of a tool in an earlier answer."""

    id: Name
    """Name of the call, which the message with its result repeats."""
    type: Literal["function"]
    """Only functions are supported."""
    function: CalledFunction
    """What was called."""
    index: int | None = None
    """No effect; streams have it."""


class Message(Fields):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    """Who speaks."""
    content: str | Annotated[list[TextPart], Field(fail_fast=True)] | None = None
    """What is said; parts are joined by line ends."""
    name: Name | None = None
    """Name of the speaker; whether the model sees it is up to its template."""
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    """Calls of an assistant."""
    tool_call_id: Name | None = None
    """The call that a tool's message answers."""
    reasoning_content: str | None = None
    """Thoughts of an assistant; whether the model sees them is up to its template."""
    refusal: str | None = None
    """No effect; answers have it."""
    annotations: list[Any] | None = None
    """No effect; answers have it."""
    audio: None = None
    """Not supported."""
    function_call: None = None
    """Not supported; use `tool_calls`."""


class ChatFields(SamplingFields):
    """A request to answer in a chat."""

    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)]
    """The chat so far."""
    max_completion_tokens: TokenCount | None = None
    """The newer name of `max_tokens`."""
    logprobs: bool | None = None
    """Tell the probability of each token."""
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_LOGPROBS)
    """Tell so many of the most likely tokens each time; needs `logprobs`."""
    tools: Annotated[list[JsonObject], Field(fail_fast=True)] | None = None
    """Functions that the model may call: `{"type": "function", "function": {"name": ..., "parameters": ...}}`."""
    tool_choice: Literal["none", "auto", "required"] | JsonObject | None = None
    """Whether it may, must, or must not call one, or the one to call."""
    parallel_tool_calls: bool | None = None
    """Whether it may call several at once."""
    reasoning_effort: Name | None = None
    """Given to the chat template as a variable of this name."""
    chat_template_kwargs: JsonObject | None = None
    """More variables for the chat template."""
    add_generation_prompt: bool | None = None
    """End the prompt with the beginning of an answer. Default: true."""
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    """Only text is supported."""
    store: bool | None = None
    """Nothing is ever stored."""


class TokenizeFields(Fields):
    """A request for the token ids of a prompt or a chat."""

    model: Name | None = None
    """Name of the model; may be left out."""
    prompt: str | None = None
    """A text."""
    add_special_tokens: bool | None = None
    """Add the begin token, if the model has one. Default: true for a text, false for a chat."""
    messages: Annotated[list[Message], Field(min_length=1, fail_fast=True)] | None = None
    """A chat, instead of a text."""
    tools: Annotated[list[JsonObject], Field(fail_fast=True)] | None = None
    """Functions that the model may call in the chat."""
    chat_template_kwargs: JsonObject | None = None
    """More variables for the chat template."""
    add_generation_prompt: bool | None = None
    """End the chat with the beginning of an answer. Default: true."""
    return_token_strs: bool | None = None
    """Tell the text of each token."""


class DetokenizeFields(Fields):
    """A request for the text of token ids."""

    model: Name | None = None
    """Name of the model; may be left out."""
    tokens: TokenIds
    """The token ids."""


class EmbeddingFields(NoEffectFields):
    """A request for embeddings."""

    model: Name | None = None
    """Name of the model; may be left out."""
    input: Prompt
    """What to embed."""
    encoding_format: Literal["float", "base64"] | None = None
    """Form of the numbers."""
    dimensions: int | None = Field(default=None, ge=1)
    """How many numbers."""
