"""Generating with a bundle on this CPU: text, batches, limits, sampling, and pages that always come back."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amdnfs_runtime
import pytest
from amdnfs_runtime import LLM, FinishReason, GenerationResult, SamplingParams
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, CapacityError, UsageError

PROMPTS = ["a", "Hello, world", "x" * 16, "y" * 17, "The quick brown fox jumps over the lazy dog.", "~" * 33]


@pytest.fixture(scope="module")
def loaded(bundle: Path) -> LLM:
    return amdnfs_runtime.load(bundle, target="cpu")


@pytest.fixture
def llm(loaded: LLM) -> Iterator[LLM]:
    """The loaded bundle; after the test all its pages must be free again."""
    yield loaded
    loaded.pool.check_integrity()
    assert loaded.pool.num_free == loaded.pool.num_pages - 1


def greedy(llm: LLM, prompt: str, num_tokens: int = 12) -> GenerationResult:
    return llm.generate(prompt, max_tokens=num_tokens, ignore_eos=True)[0]


def refusal(kind: type[AmdnfsError], call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(kind) as error:
        call(*arguments, **options)
    return str(error.value)


def test_one_prompt_gives_one_result(llm: LLM) -> None:
    result = greedy(llm, "Hello", 10)
    assert result.prompt_token_ids == tuple(b"Hello")
    assert len(result.token_ids) == 10
    assert result.finish_reason is FinishReason.LENGTH
    assert result.text == llm.tokenizer.decode(list(result.token_ids), skip_special_tokens=True)
    assert result.timings.prefill_s > 0
    assert result.timings.decode_s > 0


def test_greedy_is_repeatable_and_takes_ids_as_well_as_text(llm: LLM) -> None:
    first = greedy(llm, "Hello")
    assert greedy(llm, "Hello").token_ids == first.token_ids
    assert llm.generate([list(b"Hello")], max_tokens=12, ignore_eos=True)[0].token_ids == first.token_ids


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_stream_is_the_text(llm: LLM, prompt: str) -> None:
    pieces = list(llm.stream(prompt, max_tokens=12, ignore_eos=True))
    assert len(pieces) > 1
    assert "".join(pieces) == greedy(llm, prompt).text


def test_a_batch_equals_each_alone(llm: LLM) -> None:
    prompts = [*PROMPTS, *(f"{prompt}!" for prompt in PROMPTS[:5])]
    alone = [greedy(llm, prompt).token_ids for prompt in prompts]
    assert len(prompts) > 4, "more than the largest decode batch holds"
    together = llm.generate(prompts, max_tokens=12, ignore_eos=True)
    assert [result.token_ids for result in together] == alone
    assert len({result.token_ids for result in together}) > len(prompts) // 2


def test_a_batch_in_which_requests_end_at_different_times(llm: LLM) -> None:
    alone = [greedy(llm, prompt, 20) for prompt in PROMPTS]
    stops = tuple(result.token_ids[3 * index % 7] for index, result in enumerate(alone))
    params = SamplingParams(max_tokens=20, ignore_eos=True, stop_token_ids=stops)
    together = llm.generate(PROMPTS, params)
    assert [llm.generate(prompt, params)[0].token_ids for prompt in PROMPTS] == [item.token_ids for item in together]
    assert len({len(result.token_ids) for result in together}) > 1


def test_no_prompts_give_no_results(llm: LLM) -> None:
    assert llm.generate([]) == []


def test_a_small_pool_makes_requests_wait_for_each_other(bundle: Path, llm: LLM) -> None:
    small = amdnfs_runtime.load(bundle, target="cpu", num_pages=1 + 4)
    expected = [greedy(llm, prompt).token_ids for prompt in PROMPTS]
    together = small.generate(PROMPTS, max_tokens=12, ignore_eos=True)
    assert [result.token_ids for result in together] == expected
    small.pool.check_integrity()
    assert small.pool.num_free == 4


def test_an_end_token_of_the_model(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    free = greedy(llm, "Hello").token_ids
    manifest = dataclasses.replace(llm.manifest, eos_token_ids=(free[4],))
    monkeypatch.setattr(llm.engine, "manifest", manifest)
    result = llm.generate("Hello", max_tokens=12)[0]
    assert (result.token_ids, result.finish_reason) == (free[: free.index(free[4]) + 1], FinishReason.EOS)
    more = llm.generate("Hello", max_tokens=12, min_tokens=8)[0]
    assert len(more.token_ids) >= 8
    assert free[4] not in more.token_ids[:8]


def test_a_stop_token(llm: LLM) -> None:
    free = greedy(llm, "Hello").token_ids
    result = llm.generate("Hello", max_tokens=12, ignore_eos=True, stop_token_ids=(free[5],))[0]
    assert (result.token_ids, result.finish_reason) == (free[: free.index(free[5]) + 1], FinishReason.STOP)


def test_a_stop_string(llm: LLM) -> None:
    free = greedy(llm, "Hello", 30).text
    stop = free[9:12]
    params = SamplingParams(max_tokens=30, ignore_eos=True, stop=(stop, "not in the text"))
    result = llm.generate("Hello", params)[0]
    assert result.text == free[: free.index(stop)]
    assert result.finish_reason is FinishReason.STOP
    assert "".join(llm.stream("Hello", params)) == result.text


@pytest.mark.parametrize("num_prompt", [100, 112, 113, 127])
def test_the_context_ends_a_text(llm: LLM, num_prompt: int) -> None:
    result = greedy(llm, "z" * num_prompt, 1000)
    assert len(result.token_ids) == 128 - num_prompt
    assert result.finish_reason is FinishReason.CONTEXT


def test_a_prompt_as_long_as_the_context(llm: LLM) -> None:
    assert refusal(CapacityError, llm.generate, "z" * 128) == (
        "the prompt has 128 tokens, but the context is 128 tokens and one must be left to generate; "
        "shorten the prompt, or compile with a longer --context if the model allows it"
    )


def test_a_stream_refuses_when_it_is_asked_for_not_when_it_is_read(llm: LLM) -> None:
    assert "the context is 128 tokens" in refusal(CapacityError, llm.stream, "z" * 200)


def test_a_request_that_the_pool_can_never_hold(bundle: Path) -> None:
    small = amdnfs_runtime.load(bundle, target="cpu", num_pages=3)
    assert refusal(CapacityError, small.generate, "z" * 20, max_tokens=30) == (
        "the request needs 4 pages of 16 tokens (20 of prompt, up to 29 generated), but the pool has 2; "
        "ask for fewer tokens, or load with more pages"
    )
    assert len(greedy(small, "z" * 20, 13).token_ids) == 13
    assert small.pool.num_free == 2


@pytest.mark.parametrize("num_pages", [1, 0, -3])
def test_a_pool_without_a_page_to_hand_out(bundle: Path, num_pages: int) -> None:
    assert refusal(CapacityError, amdnfs_runtime.load, bundle, num_pages=num_pages) == (
        f"num_pages={num_pages}: the pool needs at least 2 pages, one of which is never handed out"
    )


@pytest.mark.parametrize("num_pages", ["8", 8.0, True])
def test_a_number_of_pages_that_is_none(bundle: Path, num_pages: Any) -> None:
    message = refusal(UsageError, amdnfs_runtime.load, bundle, num_pages=num_pages)
    assert message == f"num_pages must be a whole number, not {num_pages!r}"


def test_an_empty_prompt_is_the_begin_token_or_refused(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    assert llm.generate("", max_tokens=2)[0].prompt_token_ids == (1,)
    monkeypatch.setattr(llm.engine, "manifest", dataclasses.replace(llm.manifest, bos_token_id=None))
    assert refusal(UsageError, llm.generate, "") == (
        "the prompt is empty and the model has no begin token; give at least one character"
    )


@pytest.mark.parametrize(("prompt", "got"), [([128], "[128]"), ([1, -1, 300], "[-1, 300]"), ([], "none"), ((), "none")])
def test_token_ids_out_of_range(llm: LLM, prompt: Any, got: str) -> None:
    assert refusal(UsageError, llm.generate, [prompt]) == (
        f"prompt token ids must be from 0 to 127, and at least one; got {got}"
    )


@pytest.mark.parametrize("prompts", [[1, 2, 3], [None], [["a"]], [[1.5]]])
def test_prompts_of_other_types(llm: LLM, prompts: Any) -> None:
    message = refusal(UsageError, llm.generate, prompts)
    assert message == f"a prompt must be a text or a list of token ids, not {prompts[0]!r}"


def test_a_prompt_that_is_not_unicode(llm: LLM) -> None:
    message = refusal(UsageError, llm.generate, "ab\udcff")
    assert message == "the prompt is not valid Unicode text: 'ab\\udcff'"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be an integer >= 1, not 0"),
        ({"temperature": -1}, "temperature must be a finite number >= 0, not -1"),
        ({"top_p": 0.0}, "top_p must be a finite number > 0 and <= 1, not 0.0"),
        ({"stop": ["END", 1]}, "stop must be a string or a list of strings, none of them empty, not ['END', 1]"),
        ({"stop_token_ids": (-1,)}, "stop_token_ids must be an integer >= 0, not -1"),
        (
            {"max_token": 3},
            "unknown sampling option 'max_token'; known are frequency_penalty, ignore_eos, logit_bias, ",
        ),
    ],
)
def test_bad_options(llm: LLM, options: dict[str, Any], message: str) -> None:
    assert refusal(UsageError, llm.generate, "a", **options).startswith(message)
    assert refusal(UsageError, llm.stream, "a", **options).startswith(message)


def test_params_and_options_together(llm: LLM) -> None:
    assert refusal(UsageError, llm.generate, "a", SamplingParams(), max_tokens=3, seed=1) == (
        "give either params or its fields, not both; got max_tokens, seed"
    )


def test_a_seed_makes_sampling_repeatable_whatever_else_runs(llm: LLM) -> None:
    params = SamplingParams(temperature=0.9, top_k=50, seed=7, max_tokens=12, ignore_eos=True)
    alone = [llm.generate(prompt, params)[0].token_ids for prompt in PROMPTS]
    assert [llm.generate(prompt, params)[0].token_ids for prompt in PROMPTS] == alone
    assert [result.token_ids for result in llm.generate(PROMPTS, params)] == alone
    assert "".join(llm.stream(PROMPTS[1], params)) == llm.generate(PROMPTS[1], params)[0].text
    other = dataclasses.replace(params, seed=8)
    assert [llm.generate(prompt, other)[0].token_ids for prompt in PROMPTS] != alone
    assert alone != [greedy(llm, prompt).token_ids for prompt in PROMPTS]


def test_a_stream_that_is_left_early_gives_its_pages_back(llm: LLM) -> None:
    stream = llm.stream("Hello", max_tokens=50, ignore_eos=True)
    assert llm.pool.num_used == 0
    next(stream)
    assert llm.pool.num_used == 1
    list(zip(range(20), stream, strict=False))
    assert llm.pool.num_used == 2
    stream.close()
    assert llm.pool.num_used == 0


def test_two_open_streams_do_not_disturb_each_other(llm: LLM) -> None:
    expected = [greedy(llm, prompt).text for prompt in PROMPTS[:2]]
    streams = [llm.stream(prompt, max_tokens=12, ignore_eos=True) for prompt in PROMPTS[:2]]
    texts = ["", ""]
    for _ in range(40):
        for index, stream in enumerate(streams):
            texts[index] += next(stream, "")
    assert texts == expected


def test_an_open_stream_goes_on_while_others_generate(bundle: Path, llm: LLM) -> None:
    small = amdnfs_runtime.load(bundle, target="cpu", num_pages=3)
    expected = [greedy(llm, prompt, 20) for prompt in ("Hello", "World")]
    stream = small.stream("Hello", max_tokens=20, ignore_eos=True)
    begin = next(stream)
    assert greedy(small, "World", 20).token_ids == expected[1].token_ids
    assert begin + "".join(stream) == expected[0].text
    small.engine.check_integrity()
    assert small.pool.num_used == 0


def test_samples_of_a_prompt(llm: LLM) -> None:
    params = SamplingParams(temperature=0.9, seed=7, max_tokens=12, ignore_eos=True, n=3)
    results = llm.generate(["x" * 40, "Hello"], params)
    assert [result.index for result in results] == [0, 1, 2, 0, 1, 2]
    assert [result.prompt_token_ids for result in results] == [tuple(b"x" * 40)] * 3 + [tuple(b"Hello")] * 3
    assert [result.timings.num_cached_tokens for result in results[1:3]] == [32, 32]
    assert len({result.token_ids for result in results}) == 6
    one = dataclasses.replace(params, n=1)
    assert llm.generate("x" * 40, one)[0].token_ids == results[0].token_ids
    assert [item.token_ids for item in llm.generate("Hello", params)] == [item.token_ids for item in results[3:]]


def test_a_stream_has_one_sample(llm: LLM) -> None:
    message = refusal(UsageError, llm.stream, "a", n=2)
    assert message == "a stream has one sample, but n is 2; use generate"


def test_logprobs_are_of_the_model_and_greedy_takes_the_first(llm: LLM) -> None:
    result = llm.generate("Hello", max_tokens=6, ignore_eos=True, logprobs=3)[0]
    assert result.token_ids == greedy(llm, "Hello", 6).token_ids
    assert result.logprobs is not None
    for token_id, item in zip(result.token_ids, result.logprobs, strict=True):
        assert (token_id, item.logprob) == (item.token_id, item.top[0][1]) == (item.top[0][0], item.logprob)
        assert item.top[0][1] >= item.top[1][1] >= item.top[2][1]
    assert llm.generate("Hello", max_tokens=2)[0].logprobs is None


def test_a_bias_towards_a_token(llm: LLM) -> None:
    assert set(llm.generate("Hello", max_tokens=5, ignore_eos=True, logit_bias={65: 100})[0].token_ids) == {65}
    assert refusal(UsageError, llm.generate, "a", logit_bias={128: 1}) == (
        "logit_bias names token 128, but the vocabulary has 128 tokens (0 to 127)"
    )


def test_the_number_of_pages_is_given_once(bundle: Path) -> None:
    message = refusal(UsageError, amdnfs_runtime.load, bundle, num_pages=8, config=EngineConfig(kv_pages=8))
    assert message == "give either num_pages or kv_pages of config, not both"


@pytest.mark.parametrize("num_calls", [0, 1, 5])
@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_a_failure_in_the_middle_gives_all_pages_back(
    llm: LLM, monkeypatch: pytest.MonkeyPatch, num_calls: int, kind: type[BaseException]
) -> None:
    left = num_calls
    names = {"prefill_16": "_x", "decode_1": "_x", "decode_4": "_x"}
    functions = dict(llm.engine._program._invokers)

    def limited(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal left
            if left == 0:
                raise kind("device lost")
            left -= 1
            return functions[name](*arguments)

        return call

    monkeypatch.setattr(llm.engine._program, "_invokers", {name: limited(name) for name in names})
    expected = ArtifactError if kind is RuntimeError else KeyboardInterrupt
    with pytest.raises(expected):
        llm.generate(PROMPTS, max_tokens=12, ignore_eos=True)
    assert llm.pool.num_used == 0
    left = num_calls
    with pytest.raises(expected):
        list(llm.stream("Hello", max_tokens=12, ignore_eos=True))


def test_it_works_again_after_a_failure(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = greedy(llm, "Hello").token_ids
    with monkeypatch.context() as patch:
        patch.setattr(llm.engine._program, "_invokers", {})
        with pytest.raises(KeyError):
            greedy(llm, "Hello")
    assert greedy(llm, "Hello").token_ids == expected


SERVING_HOST = """
import sys

BLOCKED = ("torch", "transformers", "safetensors", "huggingface_hub", "iree.compiler", "amdnfs_passes")

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(BLOCKED):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Finder())
"""


def on_a_serving_host(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs Python where neither torch nor the compiler can be imported."""
    path = f"sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    command = [sys.executable, "-c", f"{SERVING_HOST}{path}{code}", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_serving_host_needs_neither_torch_nor_the_compiler(bundle: Path, llm: LLM) -> None:
    code = (
        "import amdnfs_runtime\n"
        "result = amdnfs_runtime.load(sys.argv[1], target='cpu').generate('Hello', max_tokens=12, ignore_eos=True)[0]\n"
        "print(list(result.token_ids))\n"
        "assert not [name for name in sys.modules if name.startswith(BLOCKED)]\n"
    )
    done = on_a_serving_host(code, bundle)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == str(list(greedy(llm, "Hello").token_ids))


def test_the_commands_of_a_serving_host(bundle: Path) -> None:
    code = "from amdnfs_compile.cli.main import main\nmain()\n"
    done = on_a_serving_host(code, "generate", bundle, "--prompt", "Hello", "--max-tokens", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Hello")


def test_compiling_on_a_serving_host_says_what_to_install(twin: Path) -> None:
    done = on_a_serving_host(
        "from amdnfs_compile.cli.main import compile_main\ncompile_main()\n", twin, "--target", "cpu"
    )
    assert done.returncode == 2
    wanted = r"error: this command needs \w+; install it with: pip install 'amdnfs\[compile\]'\n"
    assert re.fullmatch(wanted, done.stderr)
