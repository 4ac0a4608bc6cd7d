"""What guessed tokens save: a bundle without guesses, with those of the text itself, and with those of drafts.

    amdnfs-compile MODEL --target cpu --speculate 4
    python benchmarks/guesses.py BUNDLE --draft DRAFT_BUNDLE

The ways take turns; times are medians of the rounds after the first. Texts must be those without guesses. Prompts are
such as the model in `examples/demo_model` knows; they are sent one after the other, or together.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.llm import LLM, load
from amdnfs_runtime.request import SamplingParams

PROMPTS = (
    "Once upon a time there was a small bird named Ruby.",
    "Tom was a brave fox. He lived by the sea.",
    "There once was a shy duck called Nora. She lived on a farm.",
    "Max was a clever dog. He lived in the town. One windy day Max found a",
    "17 + 25 = 42.\n83 - 47 = 36.\n",
)
CASES = {"greedy": {"temperature": 0.0}, "temperature 0.8": {"temperature": 0.8, "seed": 1}}


def run(llm: LLM, params: SamplingParams, together: bool) -> list[tuple[int, ...]]:
    """The tokens of all texts."""
    groups = [list(PROMPTS)] if together else [[prompt] for prompt in PROMPTS]
    return [result.token_ids for group in groups for result in llm.generate(group, params)]


def calls_and_guesses(llm: LLM) -> tuple[int, ...]:
    """Steps of texts, calls of the draft, its guesses that were checked, and those that were right, so far."""
    stats = llm.engine.stats()
    guesses = stats.guesses.get("draft")
    counts = (0, 0) if guesses is None else (guesses.num_guessed, guesses.num_right)
    return stats.totals.num_decode_calls, stats.totals.num_draft_calls, *counts


def compare(llms: dict[str, LLM], case: str, together: bool, rounds: int, max_tokens: int) -> None:
    """Prints one row a way."""
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True, **CASES[case])
    times: dict[str, list[float]] = {name: [] for name in llms}
    counts, expected = {}, None
    for _ in range(1 + rounds):
        for name, llm in llms.items():
            before, began_s = calls_and_guesses(llm), time.perf_counter()
            texts = run(llm, params, together)
            times[name].append(time.perf_counter() - began_s)
            counts[name] = [new - old for new, old in zip(calls_and_guesses(llm), before, strict=True)]
            expected = expected or texts
            if texts != expected:
                raise SystemExit(f"{name} changes a text")
    for name in llms:
        num_calls, num_draft_calls, num_guessed, num_right = counts[name]
        share = f"{num_right} of {num_guessed}" if num_guessed else "-"
        per_call = max_tokens * len(PROMPTS) / num_calls
        how = "together" if together else "one by one"
        print(
            f"| {case}, {how} | {name} | {statistics.median(times[name][1:]):.2f} | {num_calls} | {num_draft_calls} "
            f"| {per_call:.2f} | {share} |",
            flush=True,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("bundle", type=Path, help="compiled with --speculate")
    add("--draft", type=Path, action="append", default=[], help="a bundle that guesses; repeatable")
    add("--rounds", type=int, default=5)
    add("--max-tokens", type=int, default=120)
    options = parser.parse_args()
    llms = {
        "no guesses": load(options.bundle, config=EngineConfig(speculate=False)),
        "the text itself": load(options.bundle),
    }
    llms |= {f"and {path.stem} as draft": load(options.bundle, draft=path) for path in options.draft}
    print("| case | guesses | s | calls | of the draft | tokens a call | right |\n|---|---|---|---|---|---|---|")
    for case in CASES:
        for together in (False, True):
            compare(llms, case, together, options.rounds, options.max_tokens)


if __name__ == "__main__":
    main()
