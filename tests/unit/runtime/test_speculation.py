"""Guesses: what is guessed, and that texts, pages and limits are those without guesses."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.calls import ProgramNames
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.limits import limits_of
from amdnfs_runtime.llm import load
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.speculation import PromptLookup
from amdnfs_runtime.structure import Structure, StructureKind

from tests.unit.runtime import fakes
from tests.unit.runtime.fakes import PagedProgram, alone, finish, make_engine, make_manifest, run_all
from tests.unit.runtime.test_tools import TOKENIZER


def test_what_followed_the_same_tokens_is_guessed() -> None:
    tokens = [1, 2, 3, 4, 5, 1, 2]
    lookup = PromptLookup(tokens)
    assert lookup.guess(3) == [3, 4, 5]
    assert lookup.guess(1) == [3]
    assert lookup.guess(0) == []
    tokens.append(9)
    assert lookup.guess(3) == []
    tokens += [2, 3, 4]
    assert lookup.guess(2) == [5, 1]


def test_longer_and_later_matches_go_first() -> None:
    assert PromptLookup([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3]).guess(1) == [7]
    assert PromptLookup([2, 3, 7, 2, 3, 8, 2, 3]).guess(1) == [8]


def test_a_text_that_repeats_itself_goes_on() -> None:
    assert PromptLookup([5, 6, 5, 6, 5, 6]).guess(5) == [5, 6, 5, 6, 5]
    assert PromptLookup([4, 4, 4]).guess(3) == [4, 4, 4]


@pytest.mark.parametrize("tokens", [[], [1], [1, 2], [1, 2, 3, 4]])
def test_without_a_match_there_is_no_guess(tokens: list[int]) -> None:
    assert PromptLookup(tokens).guess(4) == []


def test_after_wrong_guesses_the_next_ones_wait_ever_longer() -> None:
    lookup = PromptLookup([4] * 6)
    waits = []
    for _ in range(8):
        lookup.told(0)
        waits.append(next(number for number in range(99) if lookup.guess(1)))
    assert waits == [1, 3, 7, 15, 31, 32, 32, 32]
    lookup.told(1)
    assert lookup.guess(1) == [4]


@pytest.fixture(autouse=True)
def texts_that_repeat_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes next depends on the last two tokens alone, and mostly on one of them."""

    def logits_of(context: Sequence[int], vocab: int = fakes.VOCAB) -> np.ndarray:
        last = [int(token) for token in context[-2:]]
        rng = np.random.default_rng([vocab, *last])
        return (rng.normal(scale=1, size=vocab) + 4 * np.eye(vocab)[(3 * last[-1] + 1) % vocab]).astype(np.float32)

    monkeypatch.setattr(fakes, "logits_of", logits_of)


MANIFEST = make_manifest(verify_tokens=5)
PROMPTS = [[1, 2, 3, 1, 2], [5, 6, 7, 8, 5, 6, 7], [9], [2] * 9, [3, 4], [10, 1, 7, 10]]
PARAMS = [
    {},
    {"temperature": 1.0, "seed": 3},
    {"temperature": 0.7, "top_p": 0.9, "seed": 4, "n": 3},
    {"repetition_penalty": 1.2, "frequency_penalty": 0.5},
    {"min_tokens": 20},
    {"logprobs": 2},
    {"logit_bias": {5: 3.0}, "temperature": 0.5, "seed": 1},
    {"stop_token_ids": (4,)},
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
@pytest.mark.parametrize("num_pages", [60, 24], ids=["roomy", "tight"])
def test_texts_are_those_without_guesses(params: dict[str, Any], num_pages: int) -> None:
    program = PagedProgram()
    engine = make_engine(num_pages, program, MANIFEST)
    sampling = SamplingParams(max_tokens=50, **params)
    results = run_all(engine, PROMPTS, sampling)
    expected = [alone(prompt, sampling, index, MANIFEST) for prompt in PROMPTS for index in range(sampling.n)]
    assert [list(result.token_ids) for result in results] == expected
    totals = engine.stats().totals
    assert totals.num_generated_tokens == sum(map(len, expected))
    assert 0 < totals.num_right_tokens <= totals.num_guessed_tokens
    assert any(name.startswith("verify") for name in program.names)


def test_right_guesses_save_calls() -> None:
    def num_calls(**config: Any) -> int:
        program = PagedProgram()
        run_all(
            make_engine(60, program, MANIFEST, **config), [[1, 2, 3]], SamplingParams(max_tokens=50, ignore_eos=True)
        )
        return program.num_calls

    assert num_calls() < 0.5 * num_calls(speculate=False)


@pytest.mark.parametrize(("kind", "sizes"), [("cpu", {"1", "4"}), ("hip", {"1", "4", "8"})])
def test_a_processor_checks_no_more_than_is_worth_it(kind: str, sizes: set[str]) -> None:
    manifest = make_manifest(decode=(1, 4, 8), verify_tokens=5)
    target = dataclasses.replace(manifest.targets["cpu"], kind=kind)
    manifest = dataclasses.replace(manifest, targets={"cpu": target})
    program = PagedProgram()
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    for number in (1, 4, 8):
        prompts = [[1, 2, 1, 2, index] for index in range(number)]
        results = run_all(make_engine(90, program, manifest), prompts, params)
        assert [list(result.token_ids) for result in results] == [alone(prompt, params) for prompt in prompts]
    found = {name.partition("_")[2].partition("x")[0] for name in program.names if name.startswith("verify")}
    assert found == sizes
    assert "decode_8" in program.names


def test_a_processor_with_large_programs_only_checks_with_the_smallest() -> None:
    names = ProgramNames(make_manifest(decode=(8, 16), verify_tokens=5).targets["cpu"], "cpu")
    assert limits_of(names, EngineConfig(), "cpu").verify_sizes == (8,)
    assert limits_of(names, EngineConfig(), "cuda").verify_sizes == (8, 16)
    assert limits_of(names, EngineConfig(speculate=False), "cpu").verify_sizes == ()


def test_greedy_guesses_need_no_logits() -> None:
    program = PagedProgram()
    run_all(make_engine(60, program, MANIFEST), PROMPTS, SamplingParams(max_tokens=40))
    assert program.num_rows_read == 0


def test_the_context_and_the_limit_are_kept_to_the_token() -> None:
    for max_tokens in range(1, 12):
        params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        (result,) = run_all(make_engine(60, manifest=MANIFEST), [[1, 2, 1, 2, 1]], params)
        assert len(result.token_ids) == max_tokens
    params = SamplingParams(max_tokens=999, ignore_eos=True)
    (result,) = run_all(make_engine(60, manifest=MANIFEST), [[2] * 40], params)
    assert len(result.token_ids) == MANIFEST.model.context_tokens - 40


def test_pages_of_right_guesses_are_found_by_later_prompts() -> None:
    engine = make_engine(60, manifest=MANIFEST)
    (first,) = run_all(engine, [[1, 2, 3]], SamplingParams(max_tokens=50, ignore_eos=True))
    assert engine.stats().totals.num_right_tokens > 20
    text = [1, 2, 3, *first.token_ids]
    (second,) = run_all(engine, [text[:45]], SamplingParams(max_tokens=5, ignore_eos=True))
    assert second.timings.num_cached_tokens == 44
    assert list(second.token_ids) == text[45:50]


def test_each_token_of_an_output_is_told_once() -> None:
    engine = make_engine(60, manifest=MANIFEST)
    engine.start(engine.prepare([1, 2, 3], SamplingParams(max_tokens=50, ignore_eos=True, logprobs=1)))
    outputs = []
    while engine.has_work:
        outputs += engine.step()
    assert max(len(output.token_ids) for output in outputs) == 5
    assert all(len(output.logprobs) == len(output.token_ids) for output in outputs)
    assert outputs[-1].result is not None
    assert outputs[-1].result.token_ids == tuple(token for output in outputs for token in output.token_ids)


def test_a_failing_device_ends_the_requests_of_the_call_alone() -> None:
    program = PagedProgram(fail_at=lambda number: number == 9)
    engine = make_engine(60, program, MANIFEST)
    for prompt in PROMPTS:
        engine.start(engine.prepare(prompt, SamplingParams(max_tokens=30, ignore_eos=True)))
    last = finish(engine)
    assert len(last) == len(PROMPTS)
    failed = [output.error for output in last.values() if output.error is not None]
    assert 0 < len(failed) < len(PROMPTS)
    assert all(isinstance(error, ArtifactError) for error in failed)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 3}], ids=str)
def test_a_compiled_program_checks_guesses(guessing_bundle: Path, options: dict[str, Any]) -> None:
    prompts = ["One day, a small bird met", "3 + 4 = 7\n5 + 6 =", "The cat"]
    params = SamplingParams(max_tokens=60, ignore_eos=True, **options)
    texts = []
    for speculate in (False, True):
        llm = load(guessing_bundle, config=EngineConfig(speculate=speculate, kv_pages=100), check=False)
        texts.append([result.token_ids for prompt in prompts for result in llm.generate(prompt, params)])
        totals = llm.engine.stats().totals
        assert bool(totals.num_guessed_tokens) is speculate
        assert bool(totals.num_right_tokens) is (speculate and params.is_greedy) or not params.is_greedy
    assert texts[0] == texts[1]


def points(*shapes: tuple[int, int]) -> Iterator[Any]:
    for batch, tokens in shapes:
        yield fakes.EntryPoint(name=f"verify_{batch}x{tokens}", kind="verify", batch=batch, tokens=tokens)


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [(((1, 5), (4, 5)), 5), (((1, 5), (8, 5)), 5), ((), 0), (((1, 5),), 0), (((1, 5), (4, 3)), 0)],
)
def test_programs_that_do_not_go_together_check_no_guesses(shapes: Any, expected: int) -> None:
    entry = make_manifest().targets["cpu"]
    entry = fakes.TargetEntry(
        kind="cpu",
        gfx=None,
        program="p",
        facts="f",
        entry_points=(*entry.entry_points, *points(*shapes)),
        cpu_features=(),
    )
    names = ProgramNames(entry, "cpu")
    assert names.verify_tokens == expected
    assert bool(names.verify_sizes) is bool(expected)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 2}], ids=str)
def test_structures_are_kept_to_with_guesses(options: dict[str, Any]) -> None:
    def text_of(verify_tokens: int) -> tuple[str, int]:
        manifest = make_manifest(prefill=(16, 64), context=256, vocab=512, verify_tokens=verify_tokens)
        engine = Engine(PagedProgram(), manifest, "cpu", TOKENIZER, 400, EngineConfig())
        structure = Structure(kind=StructureKind.REGEX, text="(abc?){20,30}")
        (result,) = run_all(engine, [[5, 6, 7]], SamplingParams(structure=structure, max_tokens=99, **options))
        assert re.fullmatch(structure.text, result.text)
        return result.text, engine.stats().totals.num_right_tokens

    text, _ = text_of(0)
    again, num_right = text_of(5)
    assert again == text
    assert num_right > 0
