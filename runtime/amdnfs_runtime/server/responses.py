"""`/v1/responses`: answers made of items (messages and calls of functions), whole or as a stream of events.

Nothing is stored: an earlier response cannot be named, its items must be sent again.

Source: OpenAI's API reference, "Responses" and "Streaming events".
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from amdnfs_runtime.request import GenerationResult
from amdnfs_runtime.server.calling import ToolUse, tool_use_of
from amdnfs_runtime.server.endpoint import Events, event
from amdnfs_runtime.server.errors import ApiError, bad_request
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.fields import SamplingFields
from amdnfs_runtime.server.formats import structure_of_format
from amdnfs_runtime.server.messages import template_items, template_variables
from amdnfs_runtime.server.response_items import ItemWriter
from amdnfs_runtime.server.responses_fields import ResponseFields
from amdnfs_runtime.server.runs import Run, finish_reason, shown_logprobs, usage
from amdnfs_runtime.server.service import Service

_LOGPROBS = "message.output_text.logprobs"


async def answer_response(service: Service, fields: ResponseFields, exchange: Exchange) -> dict[str, Any] | Events:
    """Answers with items.

    Raises:
        ApiError: For fields that make no sense together, and as `Service.run` does.
    """
    head = _head(service, fields)
    tools = tool_use_of(fields.tools, fields.tool_choice, fields.parallel_tool_calls, service.template_text)
    options, names = _options(service, fields, tools)
    effort = fields.reasoning.effort if fields.reasoning is not None else None
    text = await service.chat_text(
        tools.told(template_items(fields.input, fields.instructions, service.template_text)),
        tools=tools.shown,
        variables=template_variables(None, effort),
    )
    service.note_text(exchange, text)
    prompt = await service.text_ids(text, add_special_tokens=False, param="input")
    run = await service.run([prompt], options, names)
    stream = _Stream(service, exchange, run, tools, head)
    if fields.stream:
        return Events(events=stream.events(), failure=stream.failure)
    async with aclosing(stream.events()) as events:
        async for _ in events:
            pass
    return stream.response


class _Stream:
    """One response while it is made; the whole one is what the stream ends with."""

    def __init__(self, service: Service, exchange: Exchange, run: Run, tools: ToolUse, head: dict[str, Any]) -> None:
        self.response = head
        self._service = service
        self._exchange = exchange
        self._run = run
        self._reader = tools.reader()
        self._num_events = 0

    async def events(self) -> AsyncGenerator[bytes, None]:
        """All events, each numbered.

        Raises:
            AmdnfsError: If the request fails.
        """
        yield self._event("response.created", {"response": self.response})
        yield self._event("response.in_progress", {"response": self.response})
        writer = ItemWriter()
        result: GenerationResult | None = None
        async with aclosing(self._run.outputs()) as outputs:
            async for _, output in outputs:
                deltas = self._reader.push(output.text)
                result = output.result
                if result is not None:
                    deltas += self._reader.finish()
                shown = shown_logprobs(output, self._service.manifest.eos_token_ids)
                logprobs = self._service.texts.chat_logprobs(shown)
                for name, values in writer.write(deltas, logprobs):
                    yield self._event(name, values)
        assert result is not None
        self._service.note_results(self._exchange, [[result]])
        is_whole = finish_reason(result) != "length"
        for name, values in writer.close("completed" if is_whole else "incomplete"):
            yield self._event(name, values)
        self.response = {**self.response, **_end(result, writer, is_whole)}
        name = "response.completed" if is_whole else "response.incomplete"
        yield self._event(name, {"response": self.response})

    def failure(self, error: ApiError) -> bytes:
        """The event for an error."""
        told = error.to_json()["error"]
        values = {"code": told["code"] or told["type"], "message": told["message"], "param": told["param"]}
        return self._event("error", values)

    def _event(self, name: str, values: dict[str, Any]) -> bytes:
        number, self._num_events = self._num_events, self._num_events + 1
        return event({"type": name, **values, "sequence_number": number}, name)


def _head(service: Service, fields: ResponseFields) -> dict[str, Any]:
    """The response as it is before anything is generated."""
    text = {"format": {"type": "text"}, "verbosity": "medium"}
    if fields.text is not None and fields.text.format is not None:
        text["format"] = fields.text.format
    return {
        "id": f"resp_{secrets.token_hex(12)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": fields.instructions,
        "max_output_tokens": fields.max_output_tokens,
        "metadata": fields.metadata or {},
        "model": service.check_model(fields.model),
        "output": [],
        "parallel_tool_calls": fields.parallel_tool_calls is not False,
        "previous_response_id": None,
        "reasoning": {"effort": fields.reasoning.effort if fields.reasoning else None, "summary": None},
        "service_tier": "default",
        "store": False,
        "temperature": fields.temperature,
        "text": text,
        "tool_choice": fields.tool_choice or "auto",
        "tools": fields.tools or [],
        "top_logprobs": fields.top_logprobs or 0,
        "top_p": fields.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": fields.user,
    }


def _end(result: GenerationResult, writer: ItemWriter, is_whole: bool) -> dict[str, Any]:
    """What a response has at its end."""
    numbers = usage([[result]])
    return {
        "status": "completed" if is_whole else "incomplete",
        "completed_at": int(time.time()) if is_whole else None,
        "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
        "output": writer.items,
        "usage": {
            "input_tokens": numbers["prompt_tokens"],
            "input_tokens_details": numbers["prompt_tokens_details"],
            "output_tokens": numbers["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": numbers["total_tokens"],
        },
    }


def _options(service: Service, fields: ResponseFields, tools: ToolUse) -> tuple[dict[str, Any], dict[str, str]]:
    """Options of `SamplingParams`, and what the request calls them."""
    tells = fields.include is not None and _LOGPROBS in fields.include
    if fields.top_logprobs and not tells:
        raise bad_request(f"top_logprobs needs include: [{_LOGPROBS!r}]", "top_logprobs")
    structure, source = tools.structure, "tools"
    if fields.text is not None and fields.text.format is not None:
        wanted = structure_of_format(fields.text.format, "text.format")
        if wanted is not None:
            if structure is not None:
                raise bad_request("text.format: tool_choice asks for a call already; leave one out", "text.format")
            structure, source = wanted, "text.format"
    shared = ("temperature", "top_p", "stream", "stream_options")
    options = service.sampling(
        SamplingFields(**{name: getattr(fields, name) for name in shared}),
        max_tokens=fields.max_output_tokens,
        logprobs=(fields.top_logprobs or 0) if tells else None,
        structure=structure,
    )
    names = {"max_tokens": "max_output_tokens", "logprobs": "top_logprobs", "prompt": "input"}
    return options, {**names, "structure": source}
