"""What the prefix cache saves in chats: prompt tokens that are computed, of those that clients send.

    python benchmarks/chat_cache.py

Every turn sends the whole chat again: a system prompt of 1000 tokens that all chats share, and what was said so far.
The scheduler, the cache and the pages are the real ones; the device answers at once, as only tokens are counted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.request import SamplingParams
from serving import TOKENIZER, Instant, fake_manifest
from tokenizers import Tokenizer

SYSTEM, TURNS, QUESTION, ANSWER = 1000, 20, 40, 60


def chat(num_chats: int, *, prefix_cache: bool) -> tuple[int, int]:
    """Prompt tokens that were sent and that were computed, with `num_chats` chats side by side."""
    manifest = fake_manifest()
    manifest = replace(manifest, model=replace(manifest.model, context_tokens=4096))
    config = EngineConfig(prefix_cache=prefix_cache)
    engine = Engine(Instant(), manifest, "cpu", Tokenizer.from_file(str(TOKENIZER)), num_chats * 250 + 100, config)
    rng = np.random.default_rng(0)
    system = rng.integers(3, 500, SYSTEM).tolist()
    texts = [list(system) for _ in range(num_chats)]
    params = SamplingParams(max_tokens=ANSWER, ignore_eos=True)
    for _ in range(TURNS):
        asked = {}
        for index, text in enumerate(texts):
            text += rng.integers(3, 500, QUESTION).tolist()
            request = engine.prepare(list(text), params)
            asked[request.request_id] = index
            engine.start(request)
        while engine.request_ids:
            for output in engine.step():
                texts[asked[output.request_id]] += output.token_ids
    engine.check_integrity()
    totals = engine.stats().totals
    return totals.num_prompt_tokens, totals.num_prompt_tokens - totals.num_cached_tokens


def main() -> None:
    """Prints a row for each number of chats."""
    print("| chats side by side | prompt tokens sent | computed | share | without the cache |\n|---|---|---|---|---|")
    for num_chats in (1, 8, 32):
        sent, computed = chat(num_chats, prefix_cache=True)
        _, everything = chat(num_chats, prefix_cache=False)
        print(f"| {num_chats} | {sent} | {computed} | {computed / sent:.1%} | {everything / sent:.0%} |", flush=True)


if __name__ == "__main__":
    main()
