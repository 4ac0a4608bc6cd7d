"""One generation without a device: its pages, its text, and every way to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.bundle import LayerCacheEntry, Manifest, ModelEntry
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.generation import Generation
from amdnfs_runtime.request import FinishReason, SamplingParams
from tokenizers import Tokenizer, decoders, models

EOS = 0
WORDS = ["</s>", "a", "b", "c", "d", "e", "STOP", "ST", "OP", "\u00e9"]
TOKENIZER = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="</s>"))
TOKENIZER.decoder = decoders.Fuse()
MANIFEST = Manifest(
    model=ModelEntry(
        name="m",
        architecture="M",
        model_type="m",
        dtype="f32",
        vocab_size=len(WORDS),
        context_tokens=12,
        digest="",
    ),
    page_tokens=4,
    cache_dtype="f32",
    layers=(LayerCacheEntry(kind="paged", kv_heads=1, head_dim=2, window=0),),
    bos_token_id=None,
    eos_token_ids=(EOS,),
    weights=(),
    targets={},
)


def begin(prompt: Sequence[int] = (1, 2, 3), **params: Any) -> Generation:
    return Generation(prompt, SamplingParams(**params), MANIFEST, TOKENIZER)


def feed(generation: Generation, tokens: Sequence[int]) -> str:
    """Gives greedy tokens until the generation ends; returns what a stream would have shown."""
    shown = ""
    for token in tokens:
        assert generation.finish_reason is None, f"ended before token {token}"
        generation.accept(token, None)
        shown += generation.take_text()
    return shown


@pytest.mark.parametrize(
    ("params", "tokens", "text", "reason"),
    [
        ({"max_tokens": 3}, [1, 2, 3], "abc", FinishReason.LENGTH),
        ({}, [1, 2, EOS], "ab", FinishReason.EOS),
        ({}, [EOS], "", FinishReason.EOS),
        ({"stop_token_ids": (3,)}, [1, 2, 3], "ab", FinishReason.STOP),
        ({"stop": ("STOP",)}, [1, 7, 8], "a", FinishReason.STOP),
        ({"stop": ("bc",)}, [1, 2, 3], "a", FinishReason.STOP),
        ({"stop": ("x", "ce", "bce")}, [1, 2, 3, 5], "a", FinishReason.STOP),
        ({"stop": ("STOP",), "max_tokens": 2}, [1, 7], "aST", FinishReason.LENGTH),
        ({"stop": ("STOP",)}, [7, EOS], "ST", FinishReason.EOS),
        ({}, [1, 2, 3, 4, 5, 1, 2, 3, 4], "abcdeabcd", FinishReason.CONTEXT),
        ({"ignore_eos": True, "max_tokens": 2}, [EOS, 1], "</s>a", FinishReason.LENGTH),
    ],
)
def test_ends(params: dict[str, Any], tokens: list[int], text: str, reason: FinishReason) -> None:
    generation = begin(**params)
    shown = feed(generation, tokens)
    result = generation.result()
    assert (result.text, result.finish_reason) == (text, reason)
    assert shown == text
    assert result.token_ids == tuple(tokens)
    assert result.prompt_token_ids == (1, 2, 3)
    assert result.timings.num_generated_tokens == len(tokens)


def test_the_limit_of_tokens_goes_before_that_of_the_context() -> None:
    generation = begin(max_tokens=9)
    feed(generation, [1] * 9)
    assert generation.finish_reason is FinishReason.LENGTH


def test_ends_are_impossible_before_min_tokens() -> None:
    generation = begin(min_tokens=2, stop_token_ids=(1,), max_tokens=4)
    logits = np.array([9.0, 8.0, 1.0, 2.0, 0, 0, 0, 0, 0, 0], np.float32)
    for expected in (3, 3):
        assert generation.needs_logits(EOS)
        assert not generation.needs_logits(3)
        generation.accept(EOS, logits)
        assert generation.last_token == expected
    assert not generation.needs_logits(EOS)
    generation.accept(1, None)
    assert generation.finish_reason is FinishReason.STOP
    assert logits[0] == 9.0


@pytest.mark.parametrize(
    ("params", "tokens", "text", "reason"),
    [
        # A stop that the first min_tokens tokens complete is text like any other.
        ({"stop": "b", "min_tokens": 2, "max_tokens": 4}, [1, 2, 3, 4], "abcd", FinishReason.LENGTH),
        ({"stop": "b", "min_tokens": 1}, [1, 2], "a", FinishReason.STOP),
        ({"stop": "b", "min_tokens": 3}, [2, 2, 2, 1, 2], "bbba", FinishReason.STOP),
        ({"stop": ["STOP", "c"], "min_tokens": 3}, [7, 8, 1, 2, 3], "STOPab", FinishReason.STOP),
        # One that begins in them and ends later cuts the text.
        ({"stop": ["STOP"], "min_tokens": 2}, [1, 7, 8], "a", FinishReason.STOP),
        ({"stop": ["bb"], "min_tokens": 2}, [2, 2, 2], "b", FinishReason.STOP),
        # At the end of a request nothing is lost.
        ({"stop": ["STOP"], "min_tokens": 2, "max_tokens": 2}, [7, 8], "STOP", FinishReason.LENGTH),
        ({"stop": ["STOPS"], "min_tokens": 2, "max_tokens": 3}, [7, 8, 1], "STOPa", FinishReason.LENGTH),
    ],
)
def test_stop_strings_count_after_min_tokens(
    params: dict[str, Any], tokens: list[int], text: str, reason: FinishReason
) -> None:
    generation = begin(ignore_eos=True, **params)
    shown = feed(generation, tokens)
    assert (generation.result().text, generation.finish_reason) == (text, reason)
    assert shown == text
    assert generation.result().token_ids == tuple(tokens)


def test_without_any_end_min_tokens_needs_no_logits() -> None:
    assert not begin(min_tokens=2, ignore_eos=True).needs_logits(EOS)


def test_half_a_stop_string_is_never_shown() -> None:
    generation = begin(stop=("STOP",))
    generation.accept(7, None)
    assert generation.take_text() == ""
    generation.accept(1, None)
    assert generation.take_text() == "STa"


@pytest.mark.parametrize("token", [-1, len(WORDS), 2**31])
def test_a_token_outside_the_vocabulary_means_a_broken_program(token: int) -> None:
    with pytest.raises(ArtifactError) as error:
        begin().accept(token, None)
    assert str(error.value) == (
        f"the program gave token {token}, but the vocabulary has {len(WORDS)}: its logits are not finite; "
        "check the bundle with: amdnfs verify BUNDLE"
    )


def test_logits_that_are_not_numbers_mean_a_broken_program() -> None:
    with pytest.raises(ArtifactError, match="logits are not finite: 10 of 10 are NaN"):
        begin(temperature=1.0, seed=1).accept(1, np.full(len(WORDS), np.nan, np.float32))


@pytest.mark.parametrize(
    ("num_prompt", "max_tokens", "positions"),
    [(1, 1, 1), (3, 1, 3), (3, 2, 4), (3, 9, 11), (3, 100, 11), (11, 100, 11)],
)
def test_positions_that_a_request_can_come_to_need(num_prompt: int, max_tokens: int, positions: int) -> None:
    assert begin([1] * num_prompt, max_tokens=max_tokens).max_positions == positions


def test_outputs_add_up_to_the_result() -> None:
    generation = begin(stop=("STOP",), max_tokens=4, logprobs=1)
    logits = np.zeros(len(WORDS), np.float32)
    outputs = []
    for token in (1, 7, 9, 2):
        generation.accept(token, logits * 0 + np.eye(len(WORDS), dtype=np.float32)[token])
        outputs.append(generation.take_output())
    assert [output.text for output in outputs] == ["a", "", "ST\u00e9", "b"]
    assert [output.token_ids for output in outputs] == [(1,), (7,), (9,), (2,)]
    assert [output.is_last for output in outputs] == [False, False, False, True]
    assert outputs[-1].result == generation.result()
    assert generation.result().logprobs == tuple(item for output in outputs for item in output.logprobs)


def test_a_cancelled_generation_keeps_what_it_has() -> None:
    generation = begin()
    generation.accept(1, None)
    generation.cancel()
    assert (generation.result().text, generation.finish_reason) == ("a", FinishReason.CANCELLED)


def test_without_a_tokenizer_there_are_tokens_only() -> None:
    generation = Generation([1], SamplingParams(max_tokens=2), MANIFEST, None)
    generation.accept(1, None)
    generation.accept(2, None)
    assert (generation.result().token_ids, generation.result().text) == ((1, 2), "")
