"""The shipped model under load: every request gets the text that it gets alone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import amdnfs_runtime
import numpy as np
import pytest
from amdnfs_runtime import LLM, SamplingParams
from amdnfs_runtime.async_engine import AsyncEngine
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.llm import load_engine

NAMES = ("Ruby", "Max", "Anna", "Leo")
PROMPTS = [
    *(f"{first} + {second} =" for first, second in ((17, 25), (8, 9), (31, 44), (60, 12), (5, 77))),
    *(f"{first} - {second} =" for first, second in ((83, 47), (20, 9), (99, 1))),
    "Once upon a time",
    *(f"{name} was a clever {animal}." for name, animal in zip(NAMES, ("fox", "cat", "owl", "duck"), strict=True)),
    "Once upon a time there was a small rabbit named Max. He lived in the forest. One warm day Max found a golden",
]
GREEDY = SamplingParams(max_tokens=60)
SEEDED = SamplingParams(max_tokens=60, temperature=0.9, top_p=0.95, seed=11, frequency_penalty=0.2)


@pytest.fixture(scope="module")
def alone(demo_bundle: Path) -> dict[tuple[str, bool], str]:
    """Each text by itself, nothing shared."""
    llm = amdnfs_runtime.load(demo_bundle, target="cpu", config=EngineConfig(prefix_cache=False))
    return {
        (prompt, params is SEEDED): llm.generate(prompt, params)[0].text
        for prompt in PROMPTS
        for params in (GREEDY, SEEDED)
    }


def test_the_model_is_worth_the_test(alone: dict[tuple[str, bool], str]) -> None:
    assert alone["17 + 25 =", False] == " 42."
    assert len(set(alone.values())) > len(PROMPTS)


@pytest.mark.parametrize("num_pages", [None, 1 + 24], ids=["roomy", "tight"])
def test_output_under_load_equals_output_alone(
    demo_bundle: Path, alone: dict[tuple[str, bool], str], num_pages: int | None
) -> None:
    engine = load_engine(demo_bundle, target="cpu", num_pages=num_pages)
    rng = np.random.default_rng(3)

    async def one(serving: AsyncEngine, prompt: str, is_seeded: bool) -> None:
        await asyncio.sleep(rng.random() * 0.5)
        text = ""
        async for output in serving.submit(prompt, SEEDED if is_seeded else GREEDY):
            text += output.text
        assert text == alone[prompt, is_seeded]

    async def main() -> None:
        async with AsyncEngine(engine) as serving:
            await asyncio.gather(*(one(serving, *case) for case in alone for _ in range(2)))

    asyncio.run(main())
    engine.check_integrity()
    stats = engine.stats()
    assert stats.num_used_pages == 0
    assert stats.totals.num_finished == 2 * len(alone)
    assert stats.totals.num_cached_tokens > 0
    if num_pages is not None:
        assert stats.num_preemptions > 0


def test_a_chat_of_20_turns_computes_a_tenth_of_what_is_sent(demo_bundle: Path) -> None:
    llm = amdnfs_runtime.load(demo_bundle, target="cpu")
    rng = np.random.default_rng(4)
    chat = rng.integers(10, 500, 200).tolist()
    for _ in range(20):
        chat += rng.integers(10, 500, 8).tolist()
        result = llm.generate([chat], max_tokens=5, ignore_eos=True)[0]
        chat += result.token_ids
    totals = llm.engine.stats().totals
    assert totals.num_prompt_tokens > 6000
    assert totals.num_prefill_tokens <= 0.1 * totals.num_prompt_tokens


def test_texts_from_the_cache_are_those_without_it(demo_bundle: Path, alone: dict[tuple[str, bool], str]) -> None:
    llm: LLM = amdnfs_runtime.load(demo_bundle, target="cpu")
    for _ in range(2):
        results = llm.generate(PROMPTS, GREEDY)
        assert [result.text for result in results] == [alone[prompt, False] for prompt in PROMPTS]
    assert results[-1].timings.num_cached_tokens >= 16
