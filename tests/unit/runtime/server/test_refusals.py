"""What is wrong with a request is told with the field's name, and the server goes on."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.runtime.server.harness import CONTEXT, Running, greedy_text, refusal, running

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
USER = {"role": "user", "content": "hi"}


def post_bytes(server: Running, path: str, data: bytes, **headers: str) -> Any:
    return server.client.post(path, content=data, headers={"Content-Type": "application/json", **headers})


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        (COMPLETIONS, {"prompt": "a", "zorg": 1}, "zorg", "unknown parameter: zorg"),
        (COMPLETIONS, {}, "prompt", "missing parameter: prompt"),
        (COMPLETIONS, {"prompt": 4}, "prompt", "prompt: must be a text, a list of texts, a list of token ids, or"),
        (COMPLETIONS, {"prompt": [1, "a"]}, "prompt", 'or a list of lists of token ids, not [1, "a"]'),
        (COMPLETIONS, {"prompt": []}, "prompt", "prompt: must be a text"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "the prompt is empty and the model has no begin token"),
        (COMPLETIONS, {"prompt": [99]}, "prompt", "prompt token ids must be from 0 to 39"),
        (COMPLETIONS, {"prompt": [99], "echo": True}, "prompt", "prompt: token ids are from 0 to 39, not 99"),
        (COMPLETIONS, {"prompt": "a", "temperature": -1}, "temperature", "greater than or equal to 0, not -1"),
        (COMPLETIONS, {"prompt": "a", "temperature": "1"}, "temperature", 'should be a valid number, not "1"'),
        (COMPLETIONS, {"prompt": "a", "temperature": True}, "temperature", "should be a valid number, not true"),
        (COMPLETIONS, {"prompt": "a", "top_p": 0}, "top_p", "greater than 0, not 0"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 10**30}, "max_tokens", "max_tokens: "),
        (COMPLETIONS, {"prompt": "a", "min_tokens": 17}, "min_tokens", "min_tokens must be <= max_tokens (16), not 17"),
        (
            COMPLETIONS,
            {"prompt": "abc", "min_tokens": 398, "max_tokens": 500},
            "min_tokens",
            "min_tokens: at most 397 tokens can follow the prompt, which has 3, not 398",
        ),
        (COMPLETIONS, {"prompt": "a", "stop_token_ids": [3, 40]}, "stop_token_ids", "stop_token_ids names token 40"),
        (COMPLETIONS, {"prompt": "a", "best_of": 3}, "best_of", "best_of: Input should be 1, not 3"),
        (COMPLETIONS, {"prompt": "a", "suffix": "b"}, "suffix", "suffix: Input should be ''"),
        (COMPLETIONS, {"prompt": "a", "n": 129}, "n", "less than or equal to 128"),
        (COMPLETIONS, {"prompt": ["a"] * 5, "n": 128}, "n", "prompts times n must be at most 512"),
        (COMPLETIONS, {"prompt": ["a"] * 129}, "prompt", "prompt: must be a text, a list of texts"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, "stop[0]", "at least 1 character"),
        (COMPLETIONS, {"prompt": "a", "stop": ["a"] * 17}, "stop", "at most 16 items"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, "logit_bias", "the keys are token ids, not 'x'"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"40": 1}}, "logit_bias", "logit_bias names token 40"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"1": 200}}, "logit_bias.1", "less than or equal to 100"),
        (COMPLETIONS, {"prompt": "a", "echo": True, "logprobs": 1}, "echo", "logprobs of the prompt are not computed"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {"x": 1}}, "stream_options.x", "unknown parameter"),
        (COMPLETIONS, {"prompt": "a", "stream_options": {}}, "stream_options", "stream_options needs stream: true"),
        (RESPONSES, {"input": "a", "stream_options": {}}, "stream_options", "stream_options needs stream: true"),
        (COMPLETIONS, {"prompt": "a", "response_format": {"type": "x"}}, "response_format", "must be one of text"),
        (
            COMPLETIONS,
            {"prompt": "a", "guided_regex": "a", "guided_choice": ["b"]},
            "guided_regex",
            "give either guided_choice or guided_regex, not both",
        ),
        (COMPLETIONS, {"prompt": "a", "structured_outputs": {"zorg": 1}}, "structured_outputs", "'zorg' is not known"),
        (COMPLETIONS, {"prompt": "a", "guided_json": "{"}, "guided_json", "guided_json: "),
        (COMPLETIONS, {"prompt": "a", "guided_regex": "("}, "guided_regex", "guided_regex: "),
        (COMPLETIONS, {"prompt": "a", "guided_json": '{"const": 1e999}'}, "guided_json", "number 1e999 is too large"),
        (
            COMPLETIONS,
            {"prompt": "a", "guided_json": '{"const": %s}' % ("9" * 5000)},
            "guided_json",
            "guided_json: the text is no JSON: a number has more than 4300 digits",
        ),
        (COMPLETIONS, {"prompt": "a", "stream_options": []}, "stream_options", "should be a valid object, not []"),
        (
            COMPLETIONS,
            {"prompt": "a", "response_format": {"type": "text", "zorg": 1}},
            "response_format",
            "'zorg' is not",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {}, "zorg": 1}}},
            "response_format",
            "'zorg' is not known; known are name, description, schema, strict",
        ),
        (
            COMPLETIONS,
            {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"schema": {}, "strict": 1}}},
            "response_format",
            "strict must be true or false, not 1",
        ),
        (CHAT, {"messages": []}, "messages", "at least 1 item, not []"),
        (CHAT, {"messages": [1]}, "messages[0]", "messages[0]: Input should be a valid object, not 1"),
        (RESPONSES, {"input": "a", "background": True}, "background", "background: Input should be false, not true"),
        (
            RESPONSES,
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "1e999"}]},
            "input",
            "the arguments of the call 'c' are no JSON: the number 1e999 is too large",
        ),
        (CHAT, {"messages": [{"role": "u"}]}, "messages[0].role", "should be 'system', 'developer'"),
        (CHAT, {"messages": [{"content": "x"}]}, "messages[0].role", "missing parameter: messages[0].role"),
        (CHAT, {"messages": [USER, {**USER, "x": 1}]}, "messages[1].x", "unknown parameter: messages[1].x"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "should be 'text', not \"image_url\"",
        ),
        (
            CHAT,
            {"messages": [USER], "min_tokens": 500},
            "min_tokens",
            "tokens can follow the prompt, which has 7, not 500",
        ),
        (CHAT, {"messages": [USER], "top_logprobs": 2}, "top_logprobs", "top_logprobs needs logprobs: true"),
        (CHAT, {"messages": [USER], "max_tokens": 3, "max_completion_tokens": 3}, "max_tokens", "not both"),
        (
            CHAT,
            {"messages": [USER], "min_tokens": 9, "max_completion_tokens": 3},
            "min_tokens",
            "min_tokens must be <= max_completion_tokens (3), not 9",
        ),
        (
            CHAT,
            {"messages": [USER], "chat_template_kwargs": {"messages": []}},
            "chat_template_kwargs",
            "messages is a field of its own",
        ),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": NaN}'}}
                        ],
                    }
                ]
            },
            "messages",
            "the arguments of the call 'c' are no JSON",
        ),
        (
            CHAT,
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": -1e999}'}}
                        ],
                    }
                ]
            },
            "messages",
            "the arguments of the call 'c' are no JSON: the number -1e999 is too large",
        ),
        (
            RESPONSES,
            {"input": "a", "previous_response_id": "resp_1"},
            "previous_response_id",
            "previous_response_id is not supported; leave it out",
        ),
        (RESPONSES, {"input": "a", "n": 2}, "n", "unknown parameter: n"),
        (RESPONSES, {"input": [{"type": "zorg"}]}, "input[0]", "type should be 'message', 'function_call' or"),
        (RESPONSES, {"input": [{"role": "user", "content": 4}]}, "input[0].content", "should be a valid string"),
        (RESPONSES, {"input": "a", "top_logprobs": 2}, "top_logprobs", "top_logprobs needs include"),
        (RESPONSES, {"input": "a", "text": {"format": {"type": "x"}}}, "text.format", "must be one of text"),
        ("/tokenize", {}, "prompt", "give either prompt or messages"),
        ("/tokenize", {"prompt": "a", "messages": [USER]}, "prompt", "give either prompt or messages"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]", "greater than or equal to 0"),
        ("/detokenize", {"tokens": [40]}, "tokens", "token ids are from 0 to 39, not 40"),
    ],
)
def test_a_wrong_field_is_named(server: Running, path: str, body: Any, param: str | None, message: str) -> None:
    error = refusal(server.post(path, **body), 400)
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_over_the_context_is_refused_with_numbers(server: Running, stream: bool) -> None:
    bodies: dict[str, tuple[str, Any]] = {
        COMPLETIONS: ("prompt", "a" * CONTEXT),
        CHAT: ("messages", [{"role": "user", "content": "a" * (CONTEXT - 5)}]),
        RESPONSES: ("input", "a" * (CONTEXT - 5)),
    }
    for path, (param, value) in bodies.items():
        error = refusal(server.post(path, **{param: value, "stream": stream}), 400)
        assert (error["param"], error["code"]) == (param, "context_length_exceeded")
        assert f"the prompt has {CONTEXT} tokens, but the context is {CONTEXT} tokens" in error["message"]
    error = refusal(server.post(COMPLETIONS, prompt="a" * CONTEXT, min_tokens=9), 400)
    assert error["code"] == "context_length_exceeded"
    assert f"the prompt has {CONTEXT} tokens, but the context is {CONTEXT} tokens" in error["message"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the body is not JSON"),
        (b"[]", "the body must be a JSON object"),
        (b'{"prompt": "a"', "the body is not JSON"),
        (b'{"prompt": "\xff"}', "the body is not UTF-8: byte 12 is 0xff"),
        (b'{"prompt": "\\ud800"}', "half a character (\\ud800)"),
        (b'{"\\udfff": 1}', "half a character"),
        (b'{"prompt": NaN}', "NaN is no JSON number"),
        (b'{"prompt": -Infinity}', "-Infinity is no JSON number"),
        (b'{"prompt": 1e999}', "the number 1e999 is too large"),
        (b'{"prompt": %s}' % (b"9" * 5000), "the body is not JSON: a number has more than 4300 digits"),
        (b'{"prompt": %s%s}' % (b"[" * 65, b"]" * 65), "nested more than 64 levels deep"),
        (b'{"prompt": [%s[]]}' % (b"[]," * 100_000), "more than 100000 lists and objects"),
        (b'{"prompt": ["a", %s 0]}' % (b"1," * 200_000), "prompt: must be a text, a list of texts"),
        (json.dumps({"prompt": "a", "metadata": dict.fromkeys(map(str, range(3000)))}).encode(), "more than 2048"),
        (b'{"prompt": %s}' % (b'{"a":' * 100_000), "nested more than 64 levels deep"),
    ],
)
def test_bodies_that_are_no_json(server: Running, data: bytes, message: str) -> None:
    assert message in refusal(post_bytes(server, COMPLETIONS, data), 400)["message"]
    assert server.complete("a", max_tokens=3)["choices"][0]["text"] == greedy_text("a", 3)


def test_surrogates_in_pairs_are_characters(server: Running) -> None:
    assert post_bytes(server, "/tokenize", b'{"prompt": "\\ud83d\\ude00"}').json()["count"] == 1


def test_surrogates_in_the_text_of_arguments(server: Running) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "\\ud800"}'}}
    with running(template="{{ messages[0].tool_calls[0].function.arguments.a }}") as other:
        error = refusal(other.post("/tokenize", messages=[{"role": "assistant", "tool_calls": [call]}]), 400)
    assert error["message"] == "messages: the text is no valid Unicode"


def test_other_media_types_are_refused_so_that_no_page_can_post_unasked(server: Running) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = server.client.post(COMPLETIONS, content=b'{"prompt": "a"}', headers={"Content-Type": kind})
        assert "must be application/json" in refusal(response, 415)["message"]
    assert post_bytes(server, COMPLETIONS, b'{"prompt": "a"}', **{"Content-Type": "Application/JSON; charset=x"})


def test_paths_and_methods(server: Running) -> None:
    assert refusal(server.client.get("/zorg"), 404)["message"] == "there is no such path"
    assert refusal(server.client.get("/v1/models/"), 404)["code"] == "model_not_found"
    assert refusal(server.client.get(COMPLETIONS), 405)["message"] == "the path has no such method"
    for path in ("/../etc/passwd", "/v1/models/../../etc/passwd", "/page/../../x", "/v1/models/%2e%2e%2fx", "/%00"):
        connection = http.client.HTTPConnection(*server.address)
        connection.request("GET", path)
        assert connection.getresponse().status in (404, 400)
        connection.close()


def test_a_chat_without_a_template() -> None:
    with running(template=None) as server:
        error = refusal(server.post(CHAT, messages=[USER]), 400)
        assert error["code"] == "no_chat_template"
        assert "use /v1/completions, or start the server with --chat-template FILE" in error["message"]
        assert server.complete("a", max_tokens=3)["usage"]["completion_tokens"] == 3


def test_a_template_that_raises_or_loops_refuses_its_request_alone() -> None:
    template = (
        "{% if messages[0].content == 'raise' %}{{ raise_exception('no raising') }}{% endif %}"
        "{% if messages[0].content == 'fail' %}{{ messages + 4 }}{% endif %}"
        "{% if messages[0].content == 'loop' %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}"
        "{% if messages[0].content == 'grow' %}{{ messages[0].content * 1000000000 }}{% endif %}"
        "{{ messages[0].content }}"
    )
    wanted = {
        "raise": "the chat template refuses these messages: no raising",
        "fail": "the chat template fails with these messages: TypeError",
        "loop": "the chat template needs more than 0.3 s or 1024 MiB",
        "grow": "the chat template ",
    }
    with running(template=template, template_timeout_s=0.3) as server:
        for content, message in wanted.items():
            error = refusal(server.post(CHAT, messages=[{"role": "user", "content": content}]), 400)
            assert message in error["message"]
            assert error["param"] == "messages"
        assert server.chat("hi")["usage"]["prompt_tokens"] == 2


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_NAMES = {
    COMPLETIONS: ("prompt", "max_tokens", "temperature", "stop", "logit_bias", "n", "logprobs", "seed", "echo", "model",
                  "guided_choice", "structured_outputs", "response_format", "stream_options", "user", "top_k"),
    CHAT: ("messages", "max_tokens", "tools", "tool_choice", "top_logprobs", "logprobs", "response_format", "stop",
           "chat_template_kwargs", "reasoning_effort", "metadata", "temperature"),
    RESPONSES: ("input", "instructions", "tools", "tool_choice", "text", "reasoning", "include", "metadata"),
    "/tokenize": ("prompt", "messages", "add_special_tokens", "tools", "chat_template_kwargs"),
    "/detokenize": ("tokens", "model"),
}  # fmt: skip
_GOOD = {
    COMPLETIONS: {"prompt": "ab", "max_tokens": 2},
    CHAT: {"messages": [USER], "max_tokens": 2},
    RESPONSES: {"input": "ab", "max_output_tokens": 2},
    "/tokenize": {"prompt": "ab"},
    "/detokenize": {"tokens": [1]},
}


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    path = draw(st.sampled_from(sorted(_NAMES)))
    if draw(st.booleans()):
        return path, draw(st.binary(max_size=40))
    body = {**_GOOD[path], draw(st.sampled_from(_NAMES[path])): draw(_JSON)}
    data = json.dumps(body, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    return path, data


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(_bodies())
def test_no_body_makes_an_internal_error(server: Running, case: tuple[str, bytes]) -> None:
    path, data = case
    response = post_bytes(server, path, data)
    assert response.status_code in (200, 400, 404), response.text
    if response.status_code != 200:
        refusal(response, response.status_code)


def test_a_chat_that_the_template_makes_nothing_of() -> None:
    with running(template="{{ messages[0].content }}") as server:
        for path, body in ((CHAT, {"messages": [{"role": "user"}]}), (RESPONSES, {"input": ""})):
            error = refusal(server.post(path, **body), 400)
            (param,) = body
            assert (error["param"], error["message"]) == (
                param,
                f"{param}: the prompt is empty; give at least one character",
            )
