"""Tools: what a request may ask for, what a forced call looks like, and calls found in text however it is divided."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.server.tool_calls import HERMES, LLAMA3, MISTRAL, CallForm, CallReader
from amdnfs_runtime.server.tools import MOST_TOOLS, form_of, read_tools
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tests.unit.runtime import fakes

FORMS = {"hermes": HERMES, "llama3": LLAMA3, "mistral": MISTRAL}
NAMES = frozenset({"add", "get_time"})
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/digit"}, "b": {"$ref": "#/$defs/digit"}},
            "required": ["a", "b"],
            "additionalProperties": False,
            "$defs": {"digit": {"type": "integer", "minimum": 0, "maximum": 9}},
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
TEMPLATES = {
    "hermes": "{% if tools %}<tool_call>{% endif %}",
    "llama3": '{{ tools }} {"name": function name, "parameters": dictionary}',
    "mistral": "{{ tools }} [TOOL_CALLS]",
}


def read(form: CallForm, pieces: Sequence[str], *, is_parallel: bool = True) -> tuple[str, list[tuple[str, str]]]:
    """The text and the calls of an answer, after a check of every delta."""
    reader = CallReader(form, NAMES, is_parallel)
    content, calls, ids = "", [], set()
    for delta in [delta for piece in pieces for delta in reader.push(piece)] + reader.finish():
        if "content" in delta:
            assert set(delta) == {"content"}
            assert delta["content"]
            content += delta["content"]
            continue
        (call,) = delta["tool_calls"]
        if call["index"] == len(calls):
            assert call["type"] == "function"
            assert len(call["id"]) == form.id_chars
            ids.add(call["id"])
            calls.append((call["function"]["name"], ""))
        else:
            assert set(call) == {"index", "function"}
            assert set(call["function"]) == {"arguments"}
        assert call["index"] == len(calls) - 1
        calls[-1] = calls[-1][0], calls[-1][1] + call["function"]["arguments"]
    assert len(ids) == len(calls)
    assert reader.has_calls is bool(calls)
    return content, calls


CASES = [
    # hermes
    ("hermes", "just text", "just text", []),
    ("hermes", "", "", []),
    ("hermes", '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>', "", [("add", '{"a": 1}')]),
    (
        "hermes",
        'I add.\n\n<tool_call>{"name": "add", "arguments": {"a": "}</tool_call>\\""}}</tool_call>\n',
        "I add.",
        [("add", '{"a": "}</tool_call>\\""}')],
    ),
    (
        "hermes",
        '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>\n<tool_call>\n'
        '{"name": "get_time", "arguments": {"x": [{}]}}\n</tool_call>',
        "",
        [("add", "{}"), ("get_time", '{"x": [{}]}')],
    ),
    (
        "hermes",
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call> done',
        " done",
        [("add", '{"a": 1}')],
    ),
    ("hermes", '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', "", [("add", '{"a": 1}')]),
    ("hermes", '<tool_call>{"name": "add"}</tool_call>', "", [("add", "{}")]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1, "id": 3}', "", [("add", '{"a": 1, "id": 3}')]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1', "", [("add", '{"a": 1')]),
    ("hermes", '<tool_call>{"name": "add", "arguments": {"a": 1}, "id": {"x": 2}}', "", [("add", '{"a": 1}')]),
    (
        "hermes",
        'a <tool_call>{"name": "other", "arguments": {}}</tool_call> b',
        'a <tool_call>{"name": "other", "arguments": {}}</tool_call> b',
        [],
    ),
    ("hermes", "a <tool_call>\n nothing", "a <tool_call>\n nothing", []),
    ("hermes", "a <tool_call> {]", "a <tool_call> {]", []),
    ("hermes", "a <tool_call>  ", "a <tool_call>  ", []),
    ("hermes", '<tool_call>{"name": ["add"], "arguments": 1}', '<tool_call>{"name": ["add"], "arguments": 1}', []),
    ("hermes", "a < b <tool", "a < b <tool", []),
    ("hermes", '{"name": "add", "arguments": {}}', '{"name": "add", "arguments": {}}', []),
    ("hermes", '<tool_call>{"name": "add", "arg', '<tool_call>{"name": "add", "arg', []),
    ("hermes", "<tool_call>x" + '<tool_call>{"name":"add"}', "<tool_call>x", [("add", "{}")]),
    # llama3
    ("llama3", '{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("llama3", ' <|python_tag|>{"name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("llama3", '{"type": "function", "name": "add", "parameters": {"a": 1}}', "", [("add", '{"a": 1}')]),
    ("llama3", '{"name": "add", "parameters": {}}; {"name": "get_time"}', "", [("add", "{}"), ("get_time", "{}")]),
    ("llama3", '{"name": "add", "parameters": {}}\n{"name": "get_time"}', "", [("add", "{}"), ("get_time", "{}")]),
    ("llama3", '{"name": "add", "parameters": {}} and more', "and more", [("add", "{}")]),
    ("llama3", 'Here: {"name": "add", "parameters": {}}', 'Here: {"name": "add", "parameters": {}}', []),
    ("llama3", '{"a": 1, "b": [2]} is JSON', '{"a": 1, "b": [2]} is JSON', []),
    # mistral
    ("mistral", '[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}]', "", [("add", '{"a": 1}')]),
    ("mistral", '[TOOL_CALLS] [{"name": "add"}, {"name": "get_time"}]', "", [("add", "{}"), ("get_time", "{}")]),
    ("mistral", '[{"name": "add", "arguments": {"a": [1]}}]', "", [("add", '{"a": [1]}')]),
    ("mistral", "[1] is a list", "[1] is a list", []),
    ("mistral", "[TOOL_CALLS]? no", "[TOOL_CALLS]? no", []),
    ("mistral", "see [TOOL", "see [TOOL", []),
    ("mistral", "[TOOL", "[TOOL", []),
]


@pytest.mark.parametrize(("name", "text", "content", "calls"), CASES)
def test_calls_are_found_however_the_text_is_divided(
    name: str, text: str, content: str, calls: list[tuple[str, str]]
) -> None:
    form = FORMS[name]
    assert read(form, [text]) == (content, calls)
    assert read(form, list(text)) == (content, calls)
    for size in (2, 3, 7):
        assert read(form, [text[begin : begin + size] for begin in range(0, len(text), size)]) == (content, calls)


BITS = st.sampled_from(
    [
        '{"name": "add", "arguments": {"a": "x"}}',
        '{"name": "add", "parameters": {"a": [1, {}]}}',
        '{"name": "zzz"}',
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[",
        "]",
        "{",
        "}",
        '"',
        "\\",
        " ",
        "\n",
        ";",
        ",",
        "word",
        "<tool",
    ]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(FORMS)), st.lists(BITS, max_size=9), st.randoms(use_true_random=False))
def test_any_text_gives_the_same_however_it_is_divided(name: str, bits: list[str], rng: Any) -> None:
    text = "".join(bits)
    cuts = sorted(rng.randrange(len(text) + 1) for _ in range(5))
    pieces = [text[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = read(FORMS[name], [text])
    assert read(FORMS[name], pieces) == whole
    assert read(FORMS[name], list(text)) == whole
    if not whole[1]:
        assert whole[0] == text


def test_no_part_of_a_marker_gets_out_before_it_is_certain() -> None:
    reader = CallReader(HERMES, NAMES)
    shown = [delta for char in "so <tool_call>\n" for delta in reader.push(char)]
    assert "".join(delta["content"] for delta in shown) == "so"


def test_arguments_come_while_they_are_written() -> None:
    reader = CallReader(HERMES, NAMES)
    reader.push('<tool_call>{"name": "add", "arguments": {"a": ')
    assert reader.has_calls
    assert [delta["tool_calls"][0]["function"] for delta in reader.push('"long')] == [{"arguments": '"long'}]


def test_without_parallel_calls_there_is_one() -> None:
    text = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>' * 3
    assert read(HERMES, [text], is_parallel=False) == ("", [("add", '{"a": 1}')])


def test_forms_are_told_by_the_template() -> None:
    assert [form_of(TEMPLATES[name]) for name in FORMS] == list(FORMS.values())
    assert form_of("<|python_tag|>") is LLAMA3
    assert form_of("nothing") is HERMES


def test_what_the_template_gets() -> None:
    flat = {"type": "function", "name": "get_time", "description": None, "strict": True}
    tools = read_tools([ADD, flat], None, None, TEMPLATES["hermes"])
    assert tools is not None
    assert tools.shown[0] == ADD
    no_parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    assert tools.shown[1] == {"type": "function", "function": {"name": "get_time", "parameters": no_parameters}}
    assert (tools.structure, tools.is_parallel, tools.instructions) == (None, True, None)
    assert read_tools([ADD], "none", None, "") is None
    assert read_tools([], "auto", None, "") is None


def test_a_template_without_tools_needs_instructions() -> None:
    tools = read_tools([ADD], "auto", None, "{{ messages }}")
    assert tools is not None
    assert tools.instructions is not None
    assert '"name": "add"' in tools.instructions
    assert "<tool_call>" in tools.instructions
    assert tools.form is HERMES


@pytest.mark.parametrize(
    ("tools", "choice", "message"),
    [
        (["x"], None, r"tools\[0\]: only tools of the type 'function' are supported, not 'x'"),
        ([ADD, {"type": "web"}], None, r"tools\[1\]: only tools of the type 'function' are supported, not 'web'"),
        ([{"type": "function", "function": []}], None, r"tools\[0\]: a function needs a name of 1 to 64 letters"),
        ([{"type": "function", "name": "a b"}], None, r"tools\[0\]: a function needs a name .*, not 'a b'"),
        ([{"type": "function", "name": "a", "parameters": []}], None, r"the parameters of a must be a JSON schema"),
        ([{"type": "function", "name": "a", "parameters": {"type": "array"}}], None, r"the parameters of a must be"),
        ([{"type": "function", "name": "a", "description": 1}], None, r"the description of a must be a text"),
        ([ADD, ADD], None, "tools: two functions have the same name"),
        ([{"type": "function", "name": f"f{i}"} for i in range(MOST_TOOLS + 1)], None, "tools: there are 129, at most"),
        ([ADD], "maybe", r"tool_choice: it must be 'none', 'auto', 'required' or .*, not 'maybe'"),
        ([ADD], {"type": "function"}, r"tool_choice: it must be"),
        ([ADD], {"type": "allowed_tools", "tools": []}, r"tool_choice: it must be"),
        ([ADD], {"type": "function", "function": {"name": "sub"}}, r"tool_choice: there is no tool 'sub'; known: add"),
        ([], "required", r"tool_choice: there are no tools to call"),
    ],
)
def test_requests_that_make_no_sense(tools: list[Any], choice: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_tools(tools, choice, None, TEMPLATES["hermes"])


TOKENIZER = Tokenizer.from_file(str(Path(__file__).parents[3] / "examples" / "demo_model" / "tokenizer.json"))


@pytest.mark.parametrize("name", sorted(FORMS))
@pytest.mark.parametrize(
    ("choice", "is_parallel", "allowed", "most"),
    [
        ("required", True, NAMES, 9),
        ("required", False, NAMES, 1),
        ({"type": "function", "function": {"name": "add"}}, True, {"add"}, 1),
        ({"type": "function", "name": "get_time"}, None, {"get_time"}, 1),
    ],
    ids=["required", "one", "add", "time"],
)
def test_a_forced_call_is_a_call_whatever_the_model_says(
    name: str, choice: Any, is_parallel: bool | None, allowed: set[str], most: int
) -> None:
    tools = read_tools([ADD, TIME], choice, is_parallel, TEMPLATES[name])
    assert tools is not None
    manifest = fakes.make_manifest(prefill=(16, 64), context=600, vocab=512)
    engine = Engine(fakes.PagedProgram(), manifest, "cpu", TOKENIZER, 999, EngineConfig())
    params = SamplingParams(structure=tools.structure, max_tokens=500, temperature=1.0, seed=1, n=6)
    for result in fakes.run_all(engine, [[5, 6, 7]], params):
        reader = tools.reader()
        deltas = [*reader.push(result.text), *reader.finish()]
        assert not any("content" in delta for delta in deltas)
        calls = [delta["tool_calls"][0]["function"] for delta in deltas]
        assert 1 <= len(calls) <= most
        for call in calls:
            assert call["name"] in allowed
            arguments = json.loads(call["arguments"])
            assert sorted(arguments) == (["a", "b"] if call["name"] == "add" else [])
            assert all(0 <= value <= 9 for value in arguments.values())
