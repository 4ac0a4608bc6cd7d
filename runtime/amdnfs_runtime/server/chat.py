"""`/v1/chat/completions`: answers in a chat, whole or as a stream."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from amdnfs_runtime.request import GenerationResult, Output
from amdnfs_runtime.server.calling import Reader, ToolUse, tool_use_of
from amdnfs_runtime.server.endpoint import DONE, Events, error_event, event
from amdnfs_runtime.server.errors import bad_request
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.fields import ChatFields
from amdnfs_runtime.server.formats import structure_of
from amdnfs_runtime.server.messages import template_messages, template_variables
from amdnfs_runtime.server.runs import Run, finish_reason, shown_logprobs, usage
from amdnfs_runtime.server.service import Service


async def answer_chat(service: Service, fields: ChatFields, exchange: Exchange) -> dict[str, Any] | Events:
    """Answers a chat.

    Raises:
        ApiError: For fields that make no sense together, and as `Service.run` does.
    """
    head = {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": "chat.completion.chunk" if fields.stream else "chat.completion",
        "created": int(time.time()),
        "model": service.check_model(fields.model),
        "system_fingerprint": service.fingerprint,
    }
    tools = tool_use_of(fields.tools, fields.tool_choice, fields.parallel_tool_calls, service.template_text)
    options, names = _options(service, fields, tools)
    text = await service.chat_text(
        tools.told(template_messages(fields.messages, service.template_text)),
        tools=tools.shown,
        add_generation_prompt=fields.add_generation_prompt is not False,
        variables=template_variables(fields.chat_template_kwargs, fields.reasoning_effort),
    )
    service.note_text(exchange, text)
    prompt = await service.text_ids(text, add_special_tokens=False, param="messages")
    run = await service.run([prompt], options, names)
    if fields.stream:
        has_usage = fields.stream_options is not None and bool(fields.stream_options.include_usage)
        chunks = _stream(service, exchange, run, tools, head, has_usage)
        return Events(events=chunks, failure=error_event)
    results = await run.results()
    service.note_results(exchange, results)
    choices = [_choice(service, tools, result) for result in results[0]]
    return {**head, "choices": choices, "usage": usage(results)}


def _options(service: Service, fields: ChatFields, tools: ToolUse) -> tuple[dict[str, Any], dict[str, str]]:
    """Options of `SamplingParams`, and what the request calls them."""
    if fields.top_logprobs is not None and not fields.logprobs:
        raise bad_request("top_logprobs needs logprobs: true", "top_logprobs")
    if fields.max_tokens is not None and fields.max_completion_tokens is not None:
        raise bad_request("give either max_tokens or max_completion_tokens, not both", "max_tokens")
    structure, source = structure_of(fields)
    if tools.structure is not None:
        if structure is not None:
            raise bad_request(f"{source}: tool_choice asks for a call already; leave one out", source)
        structure, source = tools.structure, "tools"
    options = service.sampling(
        fields,
        max_tokens=fields.max_completion_tokens or fields.max_tokens,
        logprobs=(fields.top_logprobs or 0) if fields.logprobs else None,
        structure=structure,
    )
    limit = "max_tokens" if fields.max_completion_tokens is None else "max_completion_tokens"
    return options, {"structure": source, "max_tokens": limit, "logprobs": "top_logprobs", "prompt": "messages"}


def _choice(service: Service, tools: ToolUse, result: GenerationResult) -> dict[str, Any]:
    reader = tools.reader()
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
    for delta in [*reader.push(result.text), *reader.finish()]:
        if "content" in delta:
            message["content"] = (message["content"] or "") + delta["content"]
        for call in delta.get("tool_calls", ()):
            _add_call(message.setdefault("tool_calls", []), call)
    if "tool_calls" not in message and message["content"] is None:
        message["content"] = ""
    return {
        "index": result.index,
        "message": message,
        "logprobs": _logprobs(service, result),
        "finish_reason": _reason(reader, result),
    }


def _add_call(calls: list[dict[str, Any]], delta: dict[str, Any]) -> None:
    """Adds a piece of a call; the first piece has its name, all have text of its arguments."""
    index = delta["index"]
    if index == len(calls):
        calls.append({"id": delta["id"], "type": "function", "function": {"name": "", "arguments": ""}})
    for name, text in delta["function"].items():
        calls[index]["function"][name] += text


async def _stream(
    service: Service, exchange: Exchange, run: Run, tools: ToolUse, head: dict[str, Any], has_usage: bool
) -> AsyncGenerator[bytes, None]:
    rest: dict[str, Any] = {"usage": None} if has_usage else {}
    readers: dict[int, Reader] = {}
    results: list[GenerationResult] = []
    async with aclosing(run.outputs()) as outputs:
        async for _, output in outputs:
            if output.index not in readers:
                readers[output.index] = tools.reader()
                first = {"role": "assistant", "content": ""}
                yield event({**head, "choices": [_delta(output.index, first)], **rest})
            for choice in _deltas(service, readers[output.index], output):
                yield event({**head, "choices": [choice], **rest})
            if output.result is not None:
                results.append(output.result)
    service.note_results(exchange, [results])
    if has_usage:
        yield event({**head, "choices": [], "usage": usage([results])})
    yield DONE


def _deltas(service: Service, reader: Reader, output: Output) -> list[dict[str, Any]]:
    """What an output adds to its choice."""
    texts = reader.push(output.text)
    if output.result is not None:
        texts += reader.finish()
    shown = shown_logprobs(output, service.manifest.eos_token_ids)
    logprobs = {"content": service.texts.chat_logprobs(shown), "refusal": None} if shown else None
    if logprobs is not None and not texts:
        texts = [{"content": ""}]
    made = [_delta(output.index, text, logprobs if number == 0 else None) for number, text in enumerate(texts)]
    if output.result is not None:
        made.append({**_delta(output.index, {}), "finish_reason": _reason(reader, output.result)})
    return made


def _delta(index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}


def _logprobs(service: Service, result: GenerationResult) -> dict[str, Any] | None:
    if result.logprobs is None:
        return None
    shown = shown_logprobs(result, service.manifest.eos_token_ids)
    return {"content": service.texts.chat_logprobs(shown), "refusal": None}


def _reason(reader: Reader, result: GenerationResult) -> str:
    reason = finish_reason(result)
    return "tool_calls" if reader.has_calls and reason == "stop" else reason
