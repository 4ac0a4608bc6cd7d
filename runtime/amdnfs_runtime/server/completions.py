"""`/v1/completions`: continues prompts, whole or as a stream."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from amdnfs_runtime.request import GenerationResult, Output
from amdnfs_runtime.server.endpoint import DONE, Events, error_event, event
from amdnfs_runtime.server.errors import not_supported
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.fields import CompletionFields
from amdnfs_runtime.server.formats import structure_of
from amdnfs_runtime.server.runs import Run, finish_reason, shown_logprobs, usage
from amdnfs_runtime.server.service import Service

_DEFAULT_MAX_TOKENS = 16  # OpenAI's


async def answer_completion(service: Service, fields: CompletionFields, exchange: Exchange) -> dict[str, Any] | Events:
    """Continues one prompt or several.

    Raises:
        ApiError: For fields that make no sense together, and as `Service.run` does.
    """
    head = {
        "id": f"cmpl-{secrets.token_hex(12)}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": service.check_model(fields.model),
        "system_fingerprint": service.fingerprint,
    }
    if fields.echo and fields.logprobs is not None:
        raise not_supported("echo", "logprobs of the prompt are not computed; leave out echo or logprobs")
    structure, source = structure_of(fields)
    options = service.sampling(
        fields,
        max_tokens=fields.max_tokens or _DEFAULT_MAX_TOKENS,
        logprobs=fields.logprobs,
        structure=structure,
    )
    prompts = await _prompts(service, exchange, fields)
    echoes = [await _echo(service, ids) if fields.echo else "" for ids in prompts]
    run = await service.run(prompts, options, {"structure": source})
    if fields.stream:
        has_usage = fields.stream_options is not None and bool(fields.stream_options.include_usage)
        return Events(events=_stream(service, exchange, run, head, echoes, has_usage), failure=error_event)
    results = await run.results()
    service.note_results(exchange, results)
    num_samples = options.get("n", 1)
    choices = [
        _choice(service, index * num_samples + result.index, echoes[index], result)
        for index, samples in enumerate(results)
        for result in samples
    ]
    return {**head, "choices": choices, "usage": usage(results)}


async def _prompts(service: Service, exchange: Exchange, fields: CompletionFields) -> list[list[int]]:
    """Token ids of all prompts."""
    given = fields.prompt
    if isinstance(given, str):
        prompts: list[str] | list[list[int]] = [given]
    elif isinstance(given[0], int):
        prompts = [given]
    else:
        prompts = given
    ids = [await service.text_ids(item) if isinstance(item, str) else item for item in prompts]
    service.note_text(exchange, *(item if isinstance(item, str) else str(item) for item in prompts))
    return ids


async def _echo(service: Service, ids: list[int]) -> str:
    """The text of a prompt."""
    service.check_token_ids(ids, "prompt")
    return await asyncio.to_thread(lambda: str(service.tokenizer.decode(ids)))


def _choice(service: Service, index: int, echo: str, result: GenerationResult) -> dict[str, Any]:
    logprobs = None
    if result.logprobs is not None:
        logprobs, _ = service.texts.completion_logprobs(shown_logprobs(result, service.manifest.eos_token_ids), 0)
    return {"index": index, "text": echo + result.text, "logprobs": logprobs, "finish_reason": finish_reason(result)}


async def _stream(
    service: Service, exchange: Exchange, run: Run, head: dict[str, Any], echoes: list[str], has_usage: bool
) -> AsyncGenerator[bytes, None]:
    rest: dict[str, Any] = {"usage": None} if has_usage else {}
    offsets: dict[int, int] = {}
    results: list[list[GenerationResult]] = [[] for _ in echoes]
    num_samples = run.num_samples
    async with aclosing(run.outputs()) as outputs:
        async for prompt_index, output in outputs:
            index = prompt_index * num_samples + output.index
            echo = "" if index in offsets else echoes[prompt_index]
            choice = _delta(service, index, echo, output, offsets)
            if choice is not None:
                yield event({**head, "choices": [choice], **rest})
            if output.result is not None:
                results[prompt_index].append(output.result)
    service.note_results(exchange, results)
    if has_usage:
        yield event({**head, "choices": [], "usage": usage(results)})
    yield DONE


def _delta(service: Service, index: int, echo: str, output: Output, offsets: dict[int, int]) -> dict[str, Any] | None:
    """What an output adds to its choice; None if that is nothing yet."""
    text = echo + output.text
    offset = offsets.setdefault(index, 0)
    shown = shown_logprobs(output, service.manifest.eos_token_ids)
    if not (text or shown or output.result):
        return None
    logprobs = None
    if shown:
        logprobs, offsets[index] = service.texts.completion_logprobs(shown, offset)
    reason = None if output.result is None else finish_reason(output.result)
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": reason}
