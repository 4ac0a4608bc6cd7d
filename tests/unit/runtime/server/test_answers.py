"""What the endpoints answer, in front of a fake device."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from amdnfs_runtime.request import TokenLogprob
from amdnfs_runtime.server.texts import TokenTexts

from tests.unit.runtime.server.harness import CONTEXT, VOCAB, Running, greedy_text, make_tokenizer, refusal, running

TEXT = "once upon"


def test_a_completion(server: Running) -> None:
    answer = server.complete(TEXT, max_tokens=12)
    (choice,) = answer["choices"]
    assert choice["text"] == greedy_text(TEXT, 12)
    assert (answer["object"], choice["index"], choice["logprobs"]) == ("text_completion", 0, None)
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["prompt_tokens"] == len(TEXT)
    assert answer["model"] == "m"


def test_16_tokens_by_default(server: Running) -> None:
    answer = server.complete(TEXT, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 16
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("stream", [False, True])
def test_several_prompts_and_samples_are_numbered(server: Running, stream: bool) -> None:
    prompts = [TEXT, "in a"]
    body = {"prompt": prompts, "n": 2, "temperature": 0.9, "seed": 4, "max_tokens": 9, "ignore_eos": True}
    alone = [server.complete(**{**body, "prompt": prompt})["choices"] for prompt in prompts]
    wanted = {0: alone[0][0]["text"], 1: alone[0][1]["text"], 2: alone[1][0]["text"], 3: alone[1][1]["text"]}
    if stream:
        *events, done = server.events("/v1/completions", **body)
        assert done == "[DONE]"
        texts = dict.fromkeys(range(4), "")
        reasons = {}
        for event in events:
            (choice,) = event["choices"]
            texts[choice["index"]] += choice["text"]
            reasons[choice["index"]] = choice["finish_reason"]
        assert texts == wanted
        assert set(reasons.values()) == {"length"}
    else:
        answer = server.complete(**body)
        assert {choice["index"]: choice["text"] for choice in answer["choices"]} == wanted
        assert answer["usage"]["prompt_tokens"] == len(TEXT) + len("in a")
        assert answer["usage"]["completion_tokens"] == 4 * 9


def test_token_ids_are_prompts_too(server: Running) -> None:
    ids = [VOCAB.index(char) for char in TEXT]
    texts = [
        choice["text"]
        for prompt in (ids, [ids], [ids, ids])
        for choice in server.complete(prompt, max_tokens=7)["choices"]
    ]
    assert texts == [greedy_text(TEXT, 7)] * 4


def test_echo_begins_with_the_prompt(server: Running) -> None:
    body = {"prompt": [TEXT, "a"], "echo": True, "max_tokens": 5, "temperature": 0}
    texts = [choice["text"] for choice in server.complete(**body)["choices"]]
    assert texts == [TEXT + greedy_text(TEXT, 5), "a" + greedy_text("a", 5)]
    streamed = ["", ""]
    for event in server.events("/v1/completions", **body)[:-1]:
        streamed[event["choices"][0]["index"]] += event["choices"][0]["text"]
    assert streamed == texts


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_completions_go_side_by_side(server: Running, stream: bool) -> None:
    body = {"prompt": TEXT, "max_tokens": 6, "logprobs": 3, "temperature": 0, "ignore_eos": True}
    events = server.events("/v1/completions", **body)[:-1] if stream else [server.complete(**body)]
    parts = [event["choices"][0]["logprobs"] for event in events if event["choices"][0]["logprobs"]]
    names = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
    lists = {name: [item for part in parts for item in part[name]] for name in names}
    assert [len(values) for values in lists.values()] == [6] * 4
    assert lists["text_offset"] == [sum(map(len, lists["tokens"][:index])) for index in range(6)]
    for token, logprob, top in zip(*(lists[name] for name in names[:3]), strict=True):
        assert len(top) == 3
        assert top[token] == logprob == max(top.values())
        assert math.exp(logprob) <= 1


def test_stop_texts_and_tokens(server: Running) -> None:
    whole = greedy_text(TEXT, 12)
    stopped = server.complete(TEXT, max_tokens=12, stop=whole[3:5])["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (whole[: whole.index(whole[3:5])], "stop")
    token = VOCAB.index(whole[2])
    stopped = server.complete(TEXT, max_tokens=12, stop_token_ids=[token], stop=["zz", "yy"])["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == (whole[: whole.index(whole[2])], "stop")


def test_fields_reach_the_sampler(server: Running) -> None:
    bias = {str(VOCAB.index("q")): 100}
    assert server.complete(TEXT, max_tokens=4, logit_bias=bias)["choices"][0]["text"] == "qqqq"
    assert server.complete(TEXT, max_tokens=4, logit_bias=bias, presence_penalty=2)["choices"][0]["text"] == "qqqq"
    seeded = [server.complete(TEXT, temperature=1.5, seed=seed, max_tokens=12)["choices"] for seed in (-1, -1, 5)]
    assert seeded[0] == seeded[1] != seeded[2]
    assert server.complete(TEXT, temperature=2, top_k=1, max_tokens=5)["choices"][0]["text"] == greedy_text(TEXT, 5)
    assert server.complete(TEXT, temperature=2, min_p=1, max_tokens=5)["choices"][0]["text"] == greedy_text(TEXT, 5)
    assert server.complete(TEXT, temperature=2, top_p=0.01, top_k=-1, max_tokens=5)["choices"][0][
        "text"
    ] == greedy_text(TEXT, 5)


def test_a_temperature_of_1_by_default_as_openai_has_it(server: Running) -> None:
    texts = {server.post("/v1/completions", prompt=TEXT, max_tokens=20).json()["choices"][0]["text"] for _ in range(6)}
    assert len(texts) > 1


def test_null_is_as_good_as_absent(server: Running) -> None:
    nothing = dict.fromkeys(("n", "stop", "seed", "logit_bias", "stream", "stream_options", "user", "top_k", "suffix"))
    assert server.complete(TEXT, max_tokens=5, **nothing)["choices"][0]["text"] == greedy_text(TEXT, 5)


def test_a_chat(server: Running) -> None:
    answer = server.chat("hi")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": greedy_text("u.hi a.", 8), "refusal": None}
    assert answer["object"] == "chat.completion"
    assert answer["usage"]["prompt_tokens"] == len("u.hi a.")
    bare = server.chat("hi", add_generation_prompt=False)
    assert bare["usage"]["prompt_tokens"] == len("u.hi ")


def test_messages_as_clients_send_them(server: Running) -> None:
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "kind"}]},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": None, "refusal": None, "annotations": [], "audio": None, "tool_calls": None},
    ]
    answer = server.post("/tokenize", messages=messages, return_token_strs=True).json()
    assert "".join(answer["token_strs"]) == "s.be.kind u.hi a. a."  # the line end is an unknown letter here
    assert answer["count"] == len(answer["tokens"])


@pytest.mark.parametrize("body", [{}, {"n": 3, "seed": 3, "temperature": 1, "logprobs": True, "top_logprobs": 2}])
def test_a_chat_stream_adds_up_to_the_answer(server: Running, body: dict[str, Any]) -> None:
    body = {"max_tokens": 14, "temperature": 0, **body}
    whole = server.chat("hi", **body)
    messages = [{"role": "user", "content": "hi"}]
    *events, last, done = server.events(
        "/v1/chat/completions", messages=messages, stream_options={"include_usage": True}, **body
    )
    assert done == "[DONE]"
    assert (last["choices"], last["usage"]["completion_tokens"]) == ([], whole["usage"]["completion_tokens"])
    assert {event["usage"] for event in events} == {None}
    found: dict[int, dict[str, Any]] = {}
    for event in events:
        (choice,) = event["choices"]
        one = found.setdefault(choice["index"], {"role": "", "content": "", "logprobs": [], "finish_reason": None})
        one["role"] += choice["delta"].get("role", "")
        one["content"] += choice["delta"].get("content", "")
        one["logprobs"] += (choice["logprobs"] or {}).get("content", [])
        assert one["finish_reason"] is None, "a delta after the last"
        one["finish_reason"] = choice["finish_reason"]
    assert len(found) == body.get("n", 1)
    for choice in whole["choices"]:
        one = found[choice["index"]]
        assert (one["role"], one["content"]) == ("assistant", choice["message"]["content"])
        assert one["finish_reason"] == choice["finish_reason"]
        assert one["logprobs"] == ((choice["logprobs"] or {}).get("content") or [])


def test_logprobs_of_chats_tell_bytes(server: Running) -> None:
    answer = server.chat("hi", logprobs=True, top_logprobs=2, ignore_eos=True)
    entries = answer["choices"][0]["logprobs"]["content"]
    assert len(entries) == 8
    for entry in entries:
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert [top["logprob"] for top in entry["top_logprobs"]] == sorted(
            (top["logprob"] for top in entry["top_logprobs"]), reverse=True
        )
    assert server.chat("hi", logprobs=True)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []


def test_a_chat_may_fill_the_context(server: Running) -> None:
    answer = server.chat("hi", max_tokens=None, ignore_eos=True)
    assert answer["usage"]["total_tokens"] == CONTEXT
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_chat_takes_what_a_small_pool_holds() -> None:
    with running(num_pages=11) as small:
        answer = small.chat("hi", max_tokens=None, ignore_eos=True)
        assert answer["usage"]["total_tokens"] == 10 * 4 + 1
        error = refusal(small.post("/v1/completions", prompt=TEXT, max_tokens=100), 400)
        assert error["code"] == "context_length_exceeded"
        assert "the pool has 10" in error["message"]


def test_tokens_there_and_back(server: Running) -> None:
    answer = server.post("/tokenize", prompt=TEXT).json()
    assert answer == {"count": 9, "max_model_len": CONTEXT, "tokens": [VOCAB.index(char) for char in TEXT]}
    assert server.post("/detokenize", tokens=answer["tokens"]).json() == {"prompt": TEXT}
    assert server.post("/detokenize", tokens=[]).json() == {"prompt": ""}
    assert server.post("/tokenize", prompt="", add_special_tokens=False).json()["count"] == 0


def test_models(server: Running) -> None:
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_model_len"]) == ("m", "model", CONTEXT)
    assert server.client.get("/v1/models/m").json() == model
    assert refusal(server.client.get("/v1/models/zorg"), 404)["code"] == "model_not_found"
    with running(model_names=("org/a", "b")) as named:
        assert [item["id"] for item in named.client.get("/v1/models").json()["data"]] == ["org/a", "b"]
        assert named.client.get("/v1/models/org/a").status_code == 200
        assert named.complete(TEXT, model="b")["model"] == "b"
        assert refusal(named.post("/v1/completions", prompt=TEXT, model="m"), 404)["param"] == "model"


def test_no_embeddings(server: Running) -> None:
    error = refusal(server.post("/v1/embeddings", input="a", model="m"), 400)
    assert error["message"] == "this bundle has no entry point for embeddings; it has decode, prefill"


def test_defaults_of_the_model_are_taken_where_a_request_has_none() -> None:
    with running(defaults={"temperature": 0.0, "top_k": 4}) as server:
        answer = server.post("/v1/completions", prompt=TEXT, max_tokens=6).json()
        assert answer["choices"][0]["text"] == greedy_text(TEXT, 6)


def test_logprobs_are_json_and_have_the_chosen_token() -> None:
    entry = TokenLogprob(token_id=3, logprob=-math.inf, top=((1, -0.5), (2, -math.inf)))
    texts = TokenTexts(make_tokenizer())
    lists, _ = texts.completion_logprobs([entry], 0)
    assert lists["token_logprobs"] == [-9999.0]
    assert lists["top_logprobs"] == [{"a": -0.5, "b": -9999.0, "c": -9999.0}]
    json.dumps([lists, texts.chat_logprobs([entry])], allow_nan=False)
