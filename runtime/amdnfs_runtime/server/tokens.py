"""`/tokenize`, `/detokenize` and `/v1/embeddings`.

Source: vLLM's documentation of its server, "Tokenizer API", for the fields.
"""

from __future__ import annotations

import asyncio
from typing import Any

from amdnfs_runtime.server.calling import tool_use_of
from amdnfs_runtime.server.errors import bad_request
from amdnfs_runtime.server.exchange import Exchange
from amdnfs_runtime.server.fields import DetokenizeFields, EmbeddingFields, TokenizeFields
from amdnfs_runtime.server.messages import template_messages, template_variables
from amdnfs_runtime.server.service import Service


async def answer_tokenize(service: Service, fields: TokenizeFields, exchange: Exchange) -> dict[str, Any]:
    """The token ids of a text or a chat.

    Raises:
        ApiError: If there is neither or both, and for what makes no sense.
    """
    service.check_model(fields.model)
    if (fields.prompt is None) == (fields.messages is None):
        raise bad_request("give either prompt or messages", "prompt")
    if fields.messages is None:
        text, adds, param = fields.prompt or "", fields.add_special_tokens is not False, "prompt"
    else:
        tools = tool_use_of(fields.tools, None, None, service.template_text)
        text = await service.chat_text(
            tools.told(template_messages(fields.messages, service.template_text)),
            tools=tools.shown,
            add_generation_prompt=fields.add_generation_prompt is not False,
            variables=template_variables(fields.chat_template_kwargs, None),
        )
        adds, param = bool(fields.add_special_tokens), "messages"
    ids = await service.text_ids(text, add_special_tokens=adds, param=param) if text or adds else []
    answer: dict[str, Any] = {
        "count": len(ids),
        "max_model_len": service.manifest.model.context_tokens,
        "tokens": ids,
    }
    if fields.return_token_strs:
        answer["token_strs"] = [service.texts.text(token) for token in ids]
    return answer


async def answer_detokenize(service: Service, fields: DetokenizeFields, exchange: Exchange) -> dict[str, Any]:
    """The text of token ids, special tokens and all.

    Raises:
        ApiError: For an id that the model does not have.
    """
    service.check_model(fields.model)
    service.check_token_ids(fields.tokens, "tokens")

    def decode() -> str:
        return str(service.tokenizer.decode(fields.tokens, skip_special_tokens=False))

    return {"prompt": await asyncio.to_thread(decode)}


async def answer_embeddings(service: Service, fields: EmbeddingFields, exchange: Exchange) -> dict[str, Any]:
    """Bundles have no entry point for embeddings yet.

    Raises:
        ApiError: Always.
    """
    service.check_model(fields.model)
    kinds = sorted({point.kind for point in service.manifest.targets[service.engine.engine.target_name].entry_points})
    raise bad_request(
        f"this bundle has no entry point for embeddings; it has {', '.join(kinds)}", "model", "not_supported"
    )
