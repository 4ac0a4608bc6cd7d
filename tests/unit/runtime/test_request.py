"""What request parameters accept and refuse, and the rates of a result."""

from __future__ import annotations

import dataclasses
import math

import pytest
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.request import FinishReason, GenerationResult, SamplingParams, Timings

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("max_tokens", [0, -1, True, 1.0, "1", None, NAN], "must be an integer >= 1"),
        ("min_tokens", [-1, True, 0.5], "must be an integer >= 0"),
        ("temperature", [-0.1, NAN, INF, -INF, True, "1", None], "must be a finite number >= 0"),
        ("top_k", [-1, False, 2.0, INF], "must be an integer >= 0"),
        ("top_p", [0, 0.0, -0.5, 1.01, NAN, INF, True], "must be a finite number > 0 and <= 1"),
        ("min_p", [-0.1, 1.5, NAN, True], "must be a finite number >= 0 and <= 1"),
        ("repetition_penalty", [0, -1.0, 1e4, NAN, INF, True], "must be a finite number >= 0.001 and <= 1000"),
        ("seed", [-1, 2**64, True, 1.0, "7"], f"must be an integer >= 0 and < {2**64}"),
        ("stop", ["", [""], ("",), (1,), {"END"}, b"END", None], "must be a string or a list of strings, none of them"),
        ("stop_token_ids", [[1], 1, None], "must be a tuple of integers"),
        ("stop_token_ids", [(-1,), (True,), (1.0,), (1, "2")], "must be an integer >= 0"),
        ("ignore_eos", [0, 1, None, "no"], "must be True or False"),
        ("presence_penalty", [-2.1, 2.5, NAN, True, None], "must be a finite number >= -2 and <= 2"),
        ("frequency_penalty", [-2.1, 2.5, NAN, True, None], "must be a finite number >= -2 and <= 2"),
        ("logit_bias", [1, None, "ab", [1, 2]], "must be a mapping of token ids to numbers"),
        ("logprobs", [-1, 21, True, 1.0], "must be an integer >= 0 and < 21"),
        ("n", [0, 129, True, None], "must be an integer >= 1 and < 129"),
    ],
)
def test_out_of_range_names_field_range_and_value(name, values, allowed):
    for value in values:
        with pytest.raises(UsageError) as error:
            SamplingParams(**{name: value})
        assert str(error.value).startswith(f"{name} {allowed}")
        shown = value[-1] if isinstance(value, tuple) and allowed.startswith("must be an integer") else value
        assert str(error.value).endswith(f"not {shown!r}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_tokens", [1, 10**6]),
        ("temperature", [0, 0.0, 1e-300, 2, 1e300]),
        ("top_k", [0, 1, 10**9]),
        ("top_p", [1e-9, 1, 1.0]),
        ("min_p", [0, 0.5, 1]),
        ("repetition_penalty", [0.001, 1, 1000]),
        ("seed", [None, 0, 2**64 - 1]),
        ("stop", [(), ("a", "\n")]),
        ("stop_token_ids", [(), (0, 5)]),
        ("ignore_eos", [True, False]),
        ("presence_penalty", [-2, 0, 2.0]),
        ("frequency_penalty", [-2, 0, 2.0]),
        ("logprobs", [None, 0, 20]),
        ("n", [1, 128]),
    ],
)
def test_in_range_is_kept(name, values):
    for value in values:
        assert getattr(SamplingParams(**{name: value}), name) == value


@pytest.mark.parametrize("given", ["END", ["END"], ("END",)])
def test_one_stop_string_in_all_its_forms(given):
    assert SamplingParams(stop=given).stop == ("END",)
    assert hash(SamplingParams(stop=given)) == hash(SamplingParams(stop=("END",)))


def test_defaults_are_greedy_and_documented_values():
    params = SamplingParams()
    assert params.is_greedy
    assert dataclasses.astuple(params) == (
        *(128, 0, 0.0, 0, 1.0, 0.0, 1.0, None, (), (), False),
        *(0.0, 0.0, (), None, 1, None),
    )
    assert not SamplingParams(temperature=0.1).is_greedy


@pytest.mark.parametrize("given", [{7: 1, 3: -2.5}, ((7, 1.0), (3, -2.5)), [(7, 1), (3, -2.5)]])
def test_a_bias_in_all_its_forms(given):
    assert SamplingParams(logit_bias=given).logit_bias == ((3, -2.5), (7, 1.0))
    assert hash(SamplingParams(logit_bias=given)) == hash(SamplingParams(logit_bias={3: -2.5, 7: 1}))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({-1: 1.0}, "logit_bias must be an integer >= 0, not -1"),
        ({"a": 1.0}, "logit_bias must be an integer >= 0, not 'a'"),
        ({5: 101}, r"logit_bias\[5\] must be a finite number >= -100 and <= 100, not 101"),
    ],
)
def test_a_bias_out_of_range(given, message):
    with pytest.raises(UsageError, match=message):
        SamplingParams(logit_bias=given)


def test_min_tokens_above_max_tokens_is_refused():
    assert SamplingParams(min_tokens=3, max_tokens=3).min_tokens == 3
    with pytest.raises(UsageError, match=r"min_tokens must be <= max_tokens \(3\), not 4"):
        SamplingParams(min_tokens=4, max_tokens=3)


def test_whole_numbers_become_floats():
    params = SamplingParams(temperature=1, top_p=1, min_p=0, repetition_penalty=2)
    for value in (params.temperature, params.top_p, params.min_p, params.repetition_penalty):
        assert type(value) is float


def test_params_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SamplingParams().top_k = 3
    with pytest.raises(TypeError):
        SamplingParams(128)


def test_finish_reasons_are_their_json_values():
    assert [str(reason) for reason in FinishReason] == ["length", "stop", "eos", "context", "cancelled"]


def test_rates_count_the_first_token_to_the_prefill():
    timings = Timings(prefill_s=0.5, decode_s=2.0, num_prompt_tokens=100, num_generated_tokens=11)
    result = GenerationResult(
        prompt_token_ids=(1,), token_ids=(2,), text="a", finish_reason=FinishReason.EOS, timings=timings
    )
    assert result.timings.prefill_tokens_per_s == 200.0
    assert result.timings.decode_tokens_per_s == 5.0


@pytest.mark.parametrize("num_generated_tokens", [0, 1])
def test_rates_are_none_when_nothing_was_timed(num_generated_tokens):
    timings = Timings(prefill_s=0.0, decode_s=1.0, num_prompt_tokens=3, num_generated_tokens=num_generated_tokens)
    assert timings.prefill_tokens_per_s is None
    assert timings.decode_tokens_per_s is None
    several = dataclasses.replace(timings, num_generated_tokens=5, decode_s=0.0)
    assert several.decode_tokens_per_s is None
