"""A draft: what it guesses and when, that texts stay what they are, and that its pages always come back."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.async_engine import AsyncEngine
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.drafts import Draft
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.server.metrics import Metrics
from amdnfs_runtime.speculation import Ask, Guesser, NgramSource, Patience

from tests.unit.runtime.fakes import PagedProgram, alone, finish, logits_of, make_manifest, run_all

MANIFEST = make_manifest(verify_tokens=5)
PROMPTS = [[1, 2, 3], [5, 6, 7, 8, 5], [9], [2] * 9, [3, 4], [10, 1, 7, 10, *range(11)]]
OTHER_WEIGHTS = (7,)


def make_drafted(
    num_pages: int = 60,
    draft_pages: int = 60,
    draft_program: PagedProgram | None = None,
    draft_manifest: Manifest | None = None,
    program: PagedProgram | None = None,
) -> Engine:
    draft = Draft(
        program=draft_program or PagedProgram(),
        manifest=draft_manifest or make_manifest(),
        target_name="cpu",
        num_pages=draft_pages,
    )
    return Engine(program or PagedProgram(), MANIFEST, "cpu", None, num_pages, EngineConfig(), draft=draft)


def num_held(engine: Engine) -> int:
    """Pages that the draft holds."""
    assert engine.draft is not None
    return engine.draft.pool.num_used


@pytest.mark.parametrize(
    "params",
    [
        {"ignore_eos": True},
        {"temperature": 1.0, "seed": 3},
        {"temperature": 0.7, "top_p": 0.9, "seed": 4, "n": 3},
        {"logprobs": 1, "stop_token_ids": (4,)},
    ],
    ids=str,
)
@pytest.mark.parametrize("salt", [(), OTHER_WEIGHTS], ids=["same weights", "other weights"])
@pytest.mark.parametrize(
    ("num_pages", "draft_pages"), [(60, 60), (24, 60), (60, 12), (24, 6)], ids=["roomy", "tight", "draft full", "both"]
)
def test_texts_are_those_without_guesses(
    params: dict[str, Any], salt: Sequence[int], num_pages: int, draft_pages: int
) -> None:
    engine = make_drafted(num_pages, draft_pages, PagedProgram(salt=salt))
    sampling = SamplingParams(max_tokens=40, **params)
    results = run_all(engine, PROMPTS, sampling)
    expected = [alone(prompt, sampling, index, MANIFEST) for prompt in PROMPTS for index in range(sampling.n)]
    assert [list(result.token_ids) for result in results] == expected
    assert num_held(engine) == 0
    counts = engine.stats().guesses["draft"]
    assert counts.num_guessed > 0
    if sampling.ignore_eos:  # guesses beyond the end of a text are not right
        share = counts.num_right / counts.num_guessed
        assert (share < 0.3) if salt else (share > 0.9)
    totals = engine.stats().totals
    assert totals.num_guessed_tokens == sum(item.num_guessed for item in engine.stats().guesses.values())
    assert totals.num_right_tokens == sum(item.num_right for item in engine.stats().guesses.values())


def test_texts_are_those_without_guesses_when_requests_wait_again() -> None:
    engine = make_drafted(num_pages=20)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    results = run_all(engine, PROMPTS, params)
    assert [list(result.token_ids) for result in results] == [alone(prompt, params, 0, MANIFEST) for prompt in PROMPTS]
    assert engine.stats().num_preemptions > 0
    assert engine.stats().guesses["draft"].num_right > 50
    assert num_held(engine) == 0


@pytest.mark.parametrize("verify_tokens", [0, 2, 5, 7])
@pytest.mark.parametrize("page_tokens", [3, 4, 16])
def test_drafts_of_any_geometry(verify_tokens: int, page_tokens: int) -> None:
    manifest = make_manifest(prefill=(3, 8), decode=(1, 2), verify_tokens=verify_tokens)
    manifest = dataclasses.replace(manifest, page_tokens=page_tokens)
    program = PagedProgram()
    engine = make_drafted(draft_pages=80, draft_program=program, draft_manifest=manifest)
    params = SamplingParams(max_tokens=40, ignore_eos=True)
    results = run_all(engine, PROMPTS, params)
    assert [list(result.token_ids) for result in results] == [alone(prompt, params, 0, MANIFEST) for prompt in PROMPTS]
    counts = engine.stats().guesses["draft"]
    assert counts.num_right > 0.9 * counts.num_guessed > 50
    assert any(name.startswith("verify") for name in program.names) is bool(verify_tokens)
    assert engine.stats().totals.num_draft_calls == program.num_calls


@pytest.mark.parametrize("verify_tokens", [0, 5])
def test_guesses_are_what_the_draft_would_write_whatever_was_refused_before(
    verify_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_drafted(num_pages=22, draft_pages=30, draft_manifest=make_manifest(verify_tokens=verify_tokens))
    draft, lengths = engine.draft, []
    assert draft is not None
    guess = draft.guess

    def checked(asks: Sequence[Ask]) -> list[list[int]]:
        guesses = guess(asks)
        for ask, tokens in zip(asks, guesses, strict=True):
            lengths.append(len(tokens))
            text = list(ask.tokens)
            for token in tokens:
                assert token == logits_of(text).argmax()
                text.append(token)
        return guesses

    monkeypatch.setattr(draft, "guess", checked)
    run_all(engine, PROMPTS, SamplingParams(max_tokens=40, temperature=1.0, seed=1, ignore_eos=True))
    counts = engine.stats().guesses["draft"]
    assert 0.1 < counts.num_right / counts.num_guessed < 0.9, "some are refused"
    assert engine.stats().num_preemptions > 0
    assert max(lengths) == 4
    assert 0 in lengths


def test_right_guesses_save_calls_and_running_requests_share_those_of_the_draft() -> None:
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    program, draft_program = PagedProgram(), PagedProgram()
    engine = make_drafted(program=program, draft_program=draft_program)
    run_all(engine, [[1, 2, 3], [4, 5], [6], [7, 8]], params)
    plain = PagedProgram()
    run_all(
        Engine(plain, MANIFEST, "cpu", None, 60, EngineConfig(speculate=False)),
        [[1, 2, 3], [4, 5], [6], [7, 8]],
        params,
    )
    assert program.num_calls < 0.5 * plain.num_calls
    num_decodes = sum(name.startswith("decode") for name in draft_program.names)
    assert num_decodes <= 5 * engine.stats().totals.num_steps, "four guesses, and one step to catch up"
    assert draft_program.names.count("decode_4") > num_decodes / 2


def test_a_long_text_is_caught_up_with_in_pieces() -> None:
    manifest = make_manifest(prefill=(4,))
    program = PagedProgram()
    engine = make_drafted(draft_program=program, draft_manifest=manifest)
    engine.start(engine.prepare(list(range(1, 10)) * 3, SamplingParams(max_tokens=20, ignore_eos=True)))
    engine.step()
    most = 0
    while engine.has_work:
        before = program.num_calls
        engine.step()
        most = max(most, sum(name.startswith("prefill") for name in program.names[before:]))
    assert most == 2
    assert program.names.count("prefill_4") >= 7
    assert engine.stats().guesses["draft"].num_right > 0


def test_without_room_for_the_draft_there_are_no_guesses() -> None:
    engine = make_drafted(draft_pages=2)
    params = SamplingParams(max_tokens=20, ignore_eos=True)
    (result,) = run_all(engine, [[3, 1, 4, 1, 5, 9, 2, 6]], params)
    assert list(result.token_ids) == alone([3, 1, 4, 1, 5, 9, 2, 6], params, 0, MANIFEST)
    assert engine.stats().guesses["draft"].num_guessed == 0
    assert engine.stats().totals.num_draft_calls == 0


def test_a_request_without_room_guesses_when_another_has_ended() -> None:
    program = PagedProgram()
    engine = make_drafted(draft_pages=1 + 8, draft_program=program)
    for name, prompt, max_tokens in (("first", [1] * 20, 9), ("second", [2] * 20, 40)):
        engine.start(engine.prepare(prompt, SamplingParams(max_tokens=max_tokens, ignore_eos=True), name))
    while "first" in engine.request_ids:
        engine.step()
        engine.check_integrity()
    num_before = engine.stats().guesses["draft"].num_right
    finish(engine)
    assert 0 < num_before < engine.stats().guesses["draft"].num_right


def test_guesses_end_with_the_context_of_the_draft() -> None:
    class Bounded(PagedProgram):
        def call(self, name: str, tokens: Any, start: Any, num_valid: Any, table: Any, pools: Any) -> Any:
            assert (start + num_valid).max() <= 20
            return super().call(name, tokens, start, num_valid, table, pools)

    engine = make_drafted(draft_program=Bounded(), draft_manifest=make_manifest(context=20))
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    request = engine.prepare([1, 2, 3], params)
    engine.start(request)
    while len(request.generations[0].token_ids) < 25:
        engine.step()
        engine.check_integrity()
    assert num_held(engine) == 0
    num_guessed = engine.stats().guesses["draft"].num_guessed
    assert 10 < num_guessed < 20
    finish(engine)
    assert engine.stats().guesses["draft"].num_guessed == num_guessed
    assert request.generations[0].token_ids == alone([1, 2, 3], params, 0, MANIFEST)


def test_cancelled_requests_give_their_pages_back() -> None:
    engine = make_drafted()
    for name in "abc":
        engine.start(engine.prepare([1, 2, ord(name) % 7], SamplingParams(max_tokens=50, ignore_eos=True), name))
    for _ in range(4):
        engine.step()
    held = [num_held(engine)]
    for name in "abc":
        engine.cancel(name)
        engine.check_integrity()
        held.append(num_held(engine))
    assert held[0] > held[1] > held[2] > held[3] == 0


def test_prompt_lookup_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def logits_of(context: Sequence[int], vocab: int = 11) -> np.ndarray:
        last = int(context[-1])
        return np.eye(vocab, dtype=np.float32)[(last + 1) % vocab]

    monkeypatch.setattr("tests.unit.runtime.fakes.logits_of", logits_of)
    engine = make_drafted()
    run_all(engine, [[1, 2, 3]], SamplingParams(max_tokens=50, ignore_eos=True))
    guesses = engine.stats().guesses
    assert 0 < guesses["draft"].num_guessed <= 12, "until the text begins anew"
    assert guesses["ngram"].num_right > 20


@pytest.mark.parametrize("number", [0, 5, 20])
def test_a_draft_that_fails_is_not_asked_again(number: int) -> None:
    program = PagedProgram(fail_at=lambda call: call == number)
    engine = make_drafted(draft_program=program)
    params = SamplingParams(max_tokens=30)
    results = run_all(engine, PROMPTS, params)
    assert [list(result.token_ids) for result in results] == [alone(prompt, params, 0, MANIFEST) for prompt in PROMPTS]
    assert program.num_calls == number + 1
    assert engine.health.num_failures == 1
    assert engine.health.reason == (
        f"the draft failed and guesses no more until a restart: device lost in call {number}"
    )
    assert engine.health.is_ok, "the model's own calls work"


@pytest.mark.parametrize("token", [-1, 11])
def test_a_draft_whose_numbers_are_not_finite(token: int) -> None:
    class Broken(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            greedy, logits, pools = super().call(*arguments)
            return np.full_like(greedy, token), logits, pools

    engine = make_drafted(draft_program=Broken())
    params = SamplingParams(max_tokens=30)
    (result,) = run_all(engine, [[1, 2, 3]], params)
    assert list(result.token_ids) == alone([1, 2, 3], params, 0, MANIFEST)
    assert f"it gave token {token}, but the vocabulary has 11: its logits are not finite" in engine.health.reason


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "seed": 5, "n": 2}], ids=str)
@pytest.mark.parametrize("vocab", [16, 7])
def test_embeddings_of_other_lengths(vocab: int, params: dict[str, Any]) -> None:
    class Strict(PagedProgram):
        def call(self, name: str, tokens: Any, *rest: Any) -> Any:
            assert tokens.max() < self.manifest.model.vocab_size
            return super().call(name, tokens, *rest)

    draft_program = Strict()
    draft_manifest = make_manifest(vocab=vocab, verify_tokens=5)
    engine = make_drafted(program=Strict(), draft_program=draft_program, draft_manifest=draft_manifest)
    sampling = SamplingParams(max_tokens=40, ignore_eos=True, **params)
    results = run_all(engine, PROMPTS, sampling)
    expected = [alone(prompt, sampling, index, MANIFEST) for prompt in PROMPTS for index in range(sampling.n)]
    assert [list(result.token_ids) for result in results] == expected
    assert (num_held(engine), engine.health.num_failures) == (0, 0)
    counts = engine.stats().guesses["draft"]
    assert counts.num_right > 0, "also where rows are missing, until the first token without one"
    if vocab == 16 and sampling.is_greedy:
        assert counts.num_right == counts.num_guessed > 100, "guesses that end early are right"
    num_calls = draft_program.num_calls
    run_all(engine, [[3, 8, 1]], sampling)
    assert (draft_program.num_calls > num_calls) is (vocab == 16), (
        "texts with a token that a draft lacks have no guesses"
    )


def test_a_draft_that_writes_what_the_model_lacks_is_asked_less_often() -> None:
    class Foreign(PagedProgram):
        def call(self, *arguments: Any) -> Any:
            greedy, logits, pools = super().call(*arguments)
            return np.full_like(greedy, 13), logits, pools

    program = Foreign()
    engine = make_drafted(draft_program=program, draft_manifest=make_manifest(vocab=16))
    params = SamplingParams(max_tokens=50, ignore_eos=True)
    (result,) = run_all(engine, [[1, 2, 3]], params)
    assert list(result.token_ids) == alone([1, 2, 3], params, 0, MANIFEST)
    assert 3 <= program.num_calls < 25
    assert (engine.stats().guesses["draft"].num_guessed, engine.health.num_failures) == (0, 0)


def test_a_draft_that_is_always_wrong_is_asked_less_often() -> None:
    patience = Patience(most_wrong=3)
    waits = []
    for _ in range(6):
        patience.told(0)
        waits.append(next(number for number in range(99) if not patience.is_pausing()))
    assert waits == [0, 0, 1, 3, 7, 15]
    patience.told(1)
    assert not patience.is_pausing()


def test_sources_are_asked_in_their_order_and_told_what_was_right() -> None:
    guesser = Guesser([NgramSource()])
    assert guesser.guess([Ask(1, [1, 2, 3, 1, 2], 2), Ask(2, [1, 2], 2)]) == {1: [3, 1]}
    guesser.told(1, 2, 1)
    assert guesser.counts["ngram"].num_guessed == 2
    assert guesser.counts["ngram"].num_right == 1
    assert Guesser([]).guess([Ask(1, [1, 1, 1], 2)]) == {}


def test_metrics_count_guesses_by_source() -> None:
    engine = make_drafted()
    run_all(engine, PROMPTS, SamplingParams(max_tokens=40))
    text = Metrics(AsyncEngine(engine)).text().decode()
    for source, counts in engine.stats().guesses.items():
        assert f'amdnfs_guessed_tokens_total{{source="{source}"}} {counts.num_guessed:.1f}' in text
        assert f'amdnfs_accepted_guesses_total{{source="{source}"}} {counts.num_right:.1f}' in text
    assert engine.stats().guesses["draft"].num_right > 0
