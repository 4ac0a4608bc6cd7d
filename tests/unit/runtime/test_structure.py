"""Structured output: what is allowed, what is refused, and that an engine keeps to it whatever else happens."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.request import FinishReason, GenerationResult, SamplingParams
from amdnfs_runtime.structure import Constraint, Structure, StructureCompiler, StructureKind
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from tests.unit.runtime import fakes

TOKENIZER = Tokenizer.from_file(str(Path(__file__).parents[3] / "examples" / "demo_model" / "tokenizer.json"))
VOCAB, EOS = 512, fakes.EOS  # <s> is the end token of the fake's manifest
MANIFEST = fakes.make_manifest(prefill=(16, 64), context=256, vocab=VOCAB)
COMPILER = StructureCompiler(TOKENIZER, MANIFEST)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMA = Structure.json_schema(PERSON)


def regex(text: str) -> Structure:
    return Structure(kind=StructureKind.REGEX, text=text)


def make_engine(num_pages: int = 400, **config: Any) -> Engine:
    return Engine(fakes.PagedProgram(), MANIFEST, "cpu", TOKENIZER, num_pages, EngineConfig(**config))


def run(params: SamplingParams, prompts: Sequence[str] = ("one",), **engine: Any) -> list[GenerationResult]:
    return fakes.run_all(make_engine(**engine), [TOKENIZER.encode(prompt).ids for prompt in prompts], params)


def walk(constraint: Constraint, text: str) -> bool:
    """Whether a text may be written token by token."""
    for token in TOKENIZER.encode(text, add_special_tokens=False).ids:
        if not constraint.allows(token):
            return False
        assert constraint.mask()[token]
        constraint.accept(token)
    return True


def may_end(constraint: Constraint) -> bool:
    return constraint.is_complete or constraint.allows(EOS)


@pytest.mark.parametrize(
    ("structure", "good", "bad"),
    [
        (regex("[a-c]{2,3}"), "abc", "ad"),
        (regex("a/b\\d+"), "a/b12", "a/bc"),
        (Structure.choice(["yes", "no", "a|b", 'q"\n/']), "a|b", "a"),
        (Structure.choice(["yes", "no"]), "no", "not"),
        (SCHEMA, '{"name": "x", "age": 7}', '{"age": 7}'),
        (Structure(kind=StructureKind.JSON_OBJECT), '{"a": [1, {"b": null}]}', "[1]"),
        (Structure(kind=StructureKind.GRAMMAR, text='start: "(" start ")" | "x"'), "((x))", "((x)x"),
        (Structure.items([["f ", {"type": "boolean"}, "."]], begin="", join=None, end=""), "f true.", "f true.f true."),
        (Structure.items([["a", {}], ["b"]], begin="[", join=", ", end="]"), '[b, a{"x": 1}, b]', "[b, ]"),
        (
            Structure.items(
                [[{"$ref": "#/$defs/a", "$defs": {"a": {"const": '\u00e9"'}}}]], begin='"\n', join=None, end="/"
            ),
            '"\n"\u00e9\\""/',
            '"\n"e"/',
        ),
        (Structure(kind="json_schema", text="{}"), "[1, 2]", "[1, 2}"),  # type: ignore[arg-type]
    ],
)
def test_what_is_allowed(structure: Structure, good: str, bad: str) -> None:
    constraint = COMPILER.start(structure)
    assert not may_end(constraint)
    assert walk(constraint, good)
    assert may_end(constraint)
    constraint = COMPILER.start(structure)
    assert not walk(constraint, bad) or not may_end(constraint)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.text(st.characters(codec="ascii"), min_size=1, max_size=12), min_size=1, max_size=4))
def test_a_choice_is_taken_letter_by_letter(choices: list[str]) -> None:
    structure = Structure.choice(choices)
    for choice in choices:
        constraint = COMPILER.start(structure)
        assert walk(constraint, choice)
        assert may_end(constraint)


def test_a_mask_and_single_tokens_agree() -> None:
    constraint = COMPILER.start(SCHEMA)
    for text in ("", '{"na', 'me": "a'):
        assert walk(constraint, text)
        mask = constraint.mask()
        assert mask.shape == (VOCAB,)
        assert mask.tolist() == [constraint.allows(token) for token in range(VOCAB)]
        assert constraint.mask() is mask
    assert not constraint.allows(VOCAB)
    assert not constraint.allows(-1)


def test_a_grammar_is_compiled_once_and_texts_do_not_disturb_each_other() -> None:
    compiler = StructureCompiler(TOKENIZER, MANIFEST)
    one, other = compiler.start(regex("abc")), compiler.start(regex("abc"))
    assert compiler._compiled.cache_info().misses == 1
    assert walk(one, "ab")
    assert not walk(other, "b")
    assert walk(one, "c")
    assert one.is_complete
    assert not other.is_complete


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("json", "{}", r"structure: the kind must be one of choice, grammar, items, json_object, json_schema, regex"),
        ("regex", "", r"structure \(regex\): the text must not be empty"),
        ("regex", 7, r"structure \(regex\): the text must be a string, not 7"),
        ("json_object", "{}", r"structure \(json_object\): the text must be empty"),
        ("regex", "a" * 9000, r"structure \(regex\): the text has 9000 characters, at most 8192 are allowed"),
        ("json_schema", " " * 70_000, r"structure \(json_schema\): the text has 70000 characters, at most 65536 are"),
        ("json_schema", "{", r"structure \(json_schema\): the text is no JSON: Expecting property name"),
        ("json_schema", "[" * 60_000, r"structure \(json_schema\): the text is no JSON: it is nested too deeply"),
        ("json_schema", '{"minimum": NaN}', r"structure \(json_schema\): the text is no JSON: NaN is no JSON number"),
        ("json_schema", "true", r"structure \(json_schema\): a schema is a JSON object, not true"),
        ("json_schema", "[]", r"structure \(json_schema\): a schema is a JSON object, not \[\]"),
        ("choice", '["a", ""]', r"structure \(choice\): the choices are a JSON array of strings, none of them empty"),
        ("items", "{}", r"structure \(items\): it must have begin, items, join and end, not {}"),
        ("items", '{"begin": "", "items": [[1]], "join": "", "end": ""}', r"structure \(items\): it must have"),
        ("choice", "[]", r"structure \(choice\): the choices are"),
    ],
)
def test_what_is_no_structure(kind: Any, text: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Structure(kind=kind, text=text)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (regex("(a"), r"structure \(regex\): .*unclosed group"),
        (regex("(?=a)b"), r"structure \(regex\): .*look-around"),
        (Structure(kind=StructureKind.GRAMMAR, text="begin: 'a'"), r"structure \(grammar\): "),
        (Structure.json_schema({"type": "banana"}), r"structure \(json_schema\): Invalid type: banana"),
        (Structure.json_schema({"not": {}}), r"Unimplemented keys: \[\"not\"\]"),
        (Structure.json_schema({"type": "integer", "minimum": 5, "maximum": 3}), "Unsatisfiable schema: minimum"),
        (Structure.json_schema({"type": "array", "items": False, "minItems": 1}), "Unsatisfiable schema"),
        (Structure.json_schema({"$ref": "http://localhost/x.json"}), "is not present in a registry"),
        (Structure.json_schema({"$ref": "file:///etc/passwd"}), "is not present in a registry"),
        (
            Structure.json_schema(
                {"allOf": [{"anyOf": [{"properties": {f"{i} {j}": {}}} for j in "abcdef"]} for i in "abcdefghij"]}
            ),
            r"structure \(json_schema\): schema too large",
        ),
    ],
)
def test_impossible_structures_are_refused_before_they_run(structure: Structure, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_engine().prepare("one", SamplingParams(structure=structure))


HOSTILE = [
    regex("(a|b)*a(a|b){2000}"),
    regex("(.*a){200}(.*b){200}"),
    regex("|".join(f"{number}.*z" for number in range(800))),
    regex("(\\w*x)*" * 1000),
    Structure(kind=StructureKind.GRAMMAR, text='start: e\ne: e e | "a" | "b" | e "c" e'),
    Structure(kind=StructureKind.GRAMMAR, text="start: " + "|".join(f'"x{number}"' for number in range(1000))),
    Structure.json_schema({"anyOf": [{"properties": {f"p{number}": {"type": "string"}}} for number in range(1000)]}),
    Structure.json_schema({"type": "string", "maxLength": 10_000_000}),
]


@pytest.mark.parametrize("structure", HOSTILE, ids=range(len(HOSTILE)))
def test_work_is_bounded(structure: Structure) -> None:
    rng = np.random.default_rng(0)
    began_s = time.perf_counter()
    try:
        constraint = COMPILER.start(structure)
        for _ in range(40):
            allowed = np.flatnonzero(constraint.mask())
            constraint.accept(int(rng.choice(allowed)))
            if constraint.is_complete:
                break
    except UsageError as error:
        assert str(error).startswith("structure")  # noqa: PT017 - either end is right
    assert time.perf_counter() - began_s < 5


PARAMS = [
    {},
    {"temperature": 1.0, "seed": 5},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 50, "min_p": 0.01, "seed": 6},
    {"repetition_penalty": 1.3, "presence_penalty": 0.5, "logit_bias": {5: -100.0}},
    {"min_tokens": 4},
    {"logprobs": 2},
    {"n": 3, "temperature": 1.0, "seed": 7},
    {"ignore_eos": True},
]


@pytest.mark.parametrize("options", PARAMS, ids=str)
def test_an_engine_keeps_to_a_schema(options: dict[str, Any]) -> None:
    results = run(SamplingParams(structure=SCHEMA, max_tokens=200, **options), ["one", "two", "three"])
    for result in results:
        assert result.finish_reason in (FinishReason.STOP, FinishReason.EOS)
        value = json.loads(result.text)
        assert list(value) == ["name", "age"]
        assert len(value["name"]) <= 6
        assert 0 <= value["age"] <= 99


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 5}], ids=str)
def test_pre_emption_changes_nothing(options: dict[str, Any]) -> None:
    params = SamplingParams(structure=SCHEMA, max_tokens=100, **options)
    prompts = [f"{number} and {number}" for number in range(6)]
    engine = make_engine(num_pages=35)
    results = fakes.run_all(engine, [TOKENIZER.encode(prompt).ids for prompt in prompts], params)
    assert engine.stats().num_preemptions > 0
    for prompt, result in zip(prompts, results, strict=True):
        assert result.text == run(params, [prompt])[0].text
        json.loads(result.text)


def test_a_text_ends_when_the_grammar_allows_it_and_not_before() -> None:
    for seed in range(20):
        (result,) = run(SamplingParams(structure=regex("a{3,6}"), temperature=1.0, seed=seed, max_tokens=20))
        assert re.fullmatch("a{3,6}", result.text)
        assert result.finish_reason is (FinishReason.EOS if result.token_ids[-1] == EOS else FinishReason.STOP)


@pytest.mark.parametrize("options", [{"min_tokens": 4}, {"ignore_eos": True}], ids=str)
def test_an_end_waits_while_something_else_may_come(options: dict[str, Any]) -> None:
    for seed in range(10):
        params = SamplingParams(structure=regex("(ab){1,9}"), temperature=1.0, seed=seed, max_tokens=30, **options)
        (result,) = run(params)
        assert re.fullmatch("(ab){1,9}", result.text)
        assert len(result.token_ids) >= 4


def test_a_complete_structure_ends_the_text_in_spite_of_min_tokens() -> None:
    (result,) = run(SamplingParams(structure=Structure.choice(["yes"]), min_tokens=50, max_tokens=60))
    assert (result.text, result.finish_reason) == ("yes", FinishReason.STOP)


def test_stop_strings_and_limits_cut_a_structure() -> None:
    (result,) = run(SamplingParams(structure=regex("xyz+"), stop="yz", max_tokens=60))
    assert (result.text, result.finish_reason) == ("x", FinishReason.STOP)
    (result,) = run(SamplingParams(structure=regex("x{50,}"), max_tokens=5))
    assert (set(result.text), result.finish_reason) == ({"x"}, FinishReason.LENGTH)


def test_greedy_rows_are_read_only_when_the_device_chose_a_forbidden_token() -> None:
    program = fakes.PagedProgram()
    engine = Engine(program, MANIFEST, "cpu", TOKENIZER, 400, EngineConfig())
    params = SamplingParams(structure=Structure(kind=StructureKind.REGEX, text="(?s:.*)"), max_tokens=30)
    (result,) = fakes.run_all(engine, [[5, 6, 7]], params)
    text = [5, 6, 7, *result.token_ids]
    choices = [int(fakes.logits_of(text[:end], VOCAB).argmax()) for end in range(3, len(text))]
    num_refused = sum(chosen != taken for chosen, taken in zip(choices, result.token_ids, strict=True))
    assert program.num_rows_read == num_refused < len(choices)


def test_logprobs_are_those_of_the_model_itself() -> None:
    (result,) = run(SamplingParams(structure=Structure.choice(["yes"]), logprobs=1))
    assert result.logprobs is not None
    text = TOKENIZER.encode("one").ids
    for item in result.logprobs:
        logits = fakes.logits_of(text, VOCAB).astype(np.float64)
        assert item.top[0][0] == int(logits.argmax())
        assert item.logprob == pytest.approx(logits[item.token_id] - np.log(np.exp(logits).sum()))
        text.append(item.token_id)


def test_a_vocabulary_that_cannot_go_on_ends_its_request_alone() -> None:
    manifest = fakes.make_manifest(prefill=(16, 64), context=256, vocab=40)  # the logits of letters are missing
    engine = Engine(fakes.PagedProgram(), manifest, "cpu", TOKENIZER, 400, EngineConfig())
    engine.start(engine.prepare([1, 2], SamplingParams(structure=regex("xyz")), "bad"))
    engine.start(engine.prepare([1, 2], SamplingParams(max_tokens=3, ignore_eos=True), "good"))
    last = fakes.finish(engine)
    with pytest.raises(UsageError, match="structure: no token of this vocabulary can go on"):
        raise last["bad", 0].error or AssertionError
    assert last["good", 0].result is not None
    assert engine.health.is_ok


def test_a_text_that_the_grammar_gives_up_on_ends_its_request_alone() -> None:
    constraint = COMPILER.start(regex("abc"))
    with pytest.raises(UsageError, match="structure: the text cannot go on: "):
        constraint.accept(TOKENIZER.token_to_id("z"))
    assert not constraint.is_complete


def test_without_llguidance_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    message = r"needs llguidance, which is not installed; install it with: pip install 'amdnfs\[serve\]'"
    with pytest.raises(UsageError, match=message):
        StructureCompiler(TOKENIZER, MANIFEST).start(regex("a"))


def test_a_tokenizer_of_another_kind_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    words.decoder = decoders.Fuse()
    with pytest.raises(UsageError, match="structure: the tokenizer of this bundle cannot be constrained: "):
        StructureCompiler(words, fakes.make_manifest(vocab=2)).start(regex("a"))


def test_an_engine_without_a_tokenizer_cannot_constrain() -> None:
    with pytest.raises(UsageError, match="no tokenizer: it cannot constrain a text"):
        fakes.make_engine().prepare([1], SamplingParams(structure=regex("a")))


def test_sampling_params_take_structures_only() -> None:
    with pytest.raises(UsageError, match="structure must be a Structure, not 'a'"):
        SamplingParams(structure="a")  # type: ignore[arg-type]
