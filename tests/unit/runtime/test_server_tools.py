"""Tools through HTTP: forced calls, streams, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import httpx
from amdnfs_runtime.async_engine import AsyncEngine
from amdnfs_runtime.chat_template import TemplateSource
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.server.app import make_app
from amdnfs_runtime.server.config import ServerConfig
from amdnfs_runtime.server.service import Service

from tests.unit.runtime import fakes
from tests.unit.runtime.test_tools import ADD, TIME, TOKENIZER

KNOWS = "{% if tools %}<tool_call>{{ tools | tojson }}{% endif %}{{ messages[0].content }}"
PLAIN = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"


def post(path: str, body: dict[str, Any]) -> httpx.Response:
    return post_all(path, [body])[0]


def post_all(path: str, bodies: Sequence[dict[str, Any]], template: str = KNOWS) -> list[httpx.Response]:
    async def run() -> list[httpx.Response]:
        manifest = fakes.make_manifest(prefill=(16, 64), context=3000, vocab=512)
        engine = AsyncEngine(Engine(fakes.PagedProgram(), manifest, "cpu", TOKENIZER, 3000, EngineConfig()))
        service = Service(engine, ServerConfig(), template=TemplateSource(templates={"default": template}))
        async with engine:
            await service.start()
            try:
                transport = httpx.ASGITransport(app=make_app(service))
                async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                    return [await client.post(path, json=body) for body in bodies]
            finally:
                await service.close()

    return asyncio.run(run())


def chat(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "one"}], "seed": 3, "max_tokens": 400, **fields}


def test_a_forced_call() -> None:
    body = chat(tools=[ADD, TIME], tool_choice={"type": "function", "function": {"name": "add"}})
    answer = post("/v1/chat/completions", body).json()
    choice = answer["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "add"
    assert sorted(json.loads(call["function"]["arguments"])) == ["a", "b"]


def test_a_forced_call_as_a_stream() -> None:
    body = chat(tools=[ADD], tool_choice="required", parallel_tool_calls=False, stream=True)
    for _ in range(5):  # where the server's thread gets no time, pieces are joined
        lines = post("/v1/chat/completions", body).text.split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        if len(calls) > 2:
            break
    assert len(calls) > 2
    assert calls[0]["function"]["name"] == "add"
    assert sorted(json.loads("".join(call["function"]["arguments"] for call in calls))) == ["a", "b"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(delta.get("content") for delta in deltas)


def test_a_forced_call_that_is_cut_leaves_nothing_in_the_text() -> None:
    forced = {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False}
    whole = post("/v1/chat/completions", chat(**forced)).json()
    num_tokens = whole["usage"]["completion_tokens"]
    (wanted,) = whole["choices"][0]["message"]["tool_calls"]
    assert num_tokens > 40
    for limit in (1, 15, num_tokens // 2, num_tokens - 4, num_tokens - 1):
        answer = post("/v1/chat/completions", chat(**forced, max_tokens=limit)).json()
        (choice,) = answer["choices"]
        assert choice["finish_reason"] == "length"
        assert not choice["message"]["content"]
        for call in choice["message"].get("tool_calls", ()):
            assert wanted["function"]["arguments"].startswith(call["function"]["arguments"])
    assert call == {**wanted, "id": call["id"]}


def test_a_response_calls_too() -> None:
    tool = {"type": "function", **ADD["function"]}
    body = {"input": "one", "tools": [tool], "tool_choice": {"type": "function", "name": "add"}}
    answer = post("/v1/responses", {**body, "max_output_tokens": 400}).json()
    (item,) = answer["output"]
    assert (item["type"], item["name"]) == ("function_call", "add")
    assert sorted(json.loads(item["arguments"])) == ["a", "b"]


def test_a_template_without_tools_gets_them_in_a_system_message() -> None:
    user = {"role": "user", "content": "one"}
    bodies = [{"messages": messages, "tools": [TIME]} for messages in ([user], [{**user, "role": "system"}, user])]
    texts = [TOKENIZER.decode(answer.json()["tokens"]) for answer in post_all("/tokenize", bodies, PLAIN)]
    assert texts[0].startswith("system: You can call these functions.")
    assert texts[1].startswith("system: one\n\nYou can call these functions.")
    assert texts[1].endswith("user: one\n")
    answer = post("/tokenize", bodies[0])
    assert TOKENIZER.decode(answer.json()["tokens"]).startswith("<tool_call>[{")


REFUSED = [
    ({"tools": [{"type": "web_search"}]}, "tools", "tools[0]: only tools of the type 'function' are supported"),
    ({"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "no tool 'x'"),
    ({"tool_choice": "required"}, "tool_choice", "there are no tools to call"),
    (
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
            "tool_choice": "required",
        },
        "tools",
        "tools: Unimplemented keys",
    ),
    (
        {"tools": [ADD], "tool_choice": "required", "response_format": {"type": "json_object"}},
        "response_format",
        "tool_choice asks for a call already",
    ),
]


def test_what_makes_no_sense_is_refused() -> None:
    responses = post_all("/v1/chat/completions", [chat(**fields) for fields, _, _ in REFUSED])
    for response, (_, param, message) in zip(responses, REFUSED, strict=True):
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == param
        assert message in error["message"]
