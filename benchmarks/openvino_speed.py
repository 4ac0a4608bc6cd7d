"""Prefill and decode of an OpenVINO GenAI folder: the cases of `cpu_speed.py alone`, for the other column.

    python benchmarks/openvino_speed.py FOLDER [--hint bf16] [--batches 1 8]

Runs in an environment of its own, with openvino-genai only: it imports nothing of this project. FOLDER is what
`optimum-cli export openvino --model MODEL --weight-format int8 FOLDER` wrote; `cpu_speed.py model` writes such a MODEL.
Prompts are random and new each time, because OpenVINO GenAI keeps what it has computed of a prompt.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import openvino
import openvino_genai

PROMPT, CONTEXT, STEPS = 512, 128, 64


class Theirs:
    """A folder's model on two threads."""

    def __init__(self, folder: str, hint: str) -> None:
        facts = {"INFERENCE_NUM_THREADS": 2, "INFERENCE_PRECISION_HINT": hint}
        self.pipeline = openvino_genai.LLMPipeline(folder, "CPU", **facts)
        self.rng = np.random.default_rng(0)

    def seconds(self, batch: int, prompt: int, tokens: int) -> float:
        """Wall time of `tokens` greedy tokens after `prompt`, for `batch` requests at once."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos, config.do_sample, config.apply_chat_template = True, False, False
        ids = self.rng.integers(300, 31000, (batch, prompt))
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        begin = time.perf_counter()
        result = self.pipeline.generate(inputs, config)
        spent = time.perf_counter() - begin
        lengths = {len(row) for row in result.tokens}
        if lengths != {tokens}:
            raise SystemExit(f"asked for {tokens} tokens, got {sorted(lengths)}")
        return spent

    def decode_rate(self, batch: int) -> float:
        """Tokens a second of all requests, without the prompt's share."""
        return batch * STEPS / (self.seconds(batch, CONTEXT, STEPS + 1) - self.seconds(batch, CONTEXT, 1))


def main() -> None:
    """Prints one row a case: the median of three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--hint", default="bf16", help="INFERENCE_PRECISION_HINT (default: bf16)")
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    given = parser.parse_args()
    theirs = Theirs(given.folder, given.hint)
    theirs.seconds(1, PROMPT, 1)
    print("| case | OpenVINO, tokens/s |\n|---|---|")
    prefill = statistics.median(PROMPT / theirs.seconds(1, PROMPT, 1) for _ in range(3))
    print(f"| prefill {PROMPT} | {prefill:.0f} |", flush=True)
    for batch in given.batches:
        rate = statistics.median(theirs.decode_rate(batch) for _ in range(3))
        print(f"| decode, batch {batch} | {rate:.1f} |", flush=True)


if __name__ == "__main__":
    main()
