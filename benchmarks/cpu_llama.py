"""Prefill and decode of bundles on the CPU beside llama.cpp's `llama-bench`, in turns.

    python benchmarks/cpu_llama.py --llama-bench PATH bf16.amdnfs=bf16.gguf int8.amdnfs=q8_0.gguf

Both sides of a pair are one model, stored alike; the bundle has entry points `prefill_512` and `decode_1`. Decode is 64
tokens that follow 128. The two take turns, so that a change of the machine's speed hits both. Figures are the fastest
of the rounds: other work slows llama.cpp down more, as its threads wait for each other at every operation.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import Program

PROMPT, BEFORE, STEPS = 512, 128, 64


class Bundle:
    """A bundle's CPU program with a pool for one request."""

    def __init__(self, folder: Path) -> None:
        self._manifest = read_manifest(folder)
        self._program = Program(folder, self._manifest, "cpu")
        self._width = -(-PROMPT // self._manifest.page_tokens)
        self._pools = self._program.make_pools(self._manifest, 1 + self._width)

    def prefill(self) -> float:
        """Tokens a second."""
        began_s = time.perf_counter()
        self._call(f"prefill_{PROMPT}", PROMPT, 0)
        return PROMPT / (time.perf_counter() - began_s)

    def decode(self) -> float:
        """Tokens a second."""
        self._call("decode_1", 1, BEFORE - 1)
        began_s = time.perf_counter()
        for index in range(STEPS):
            self._call("decode_1", 1, BEFORE + index)
        return STEPS / (time.perf_counter() - began_s)

    def _call(self, name: str, count: int, position: int) -> None:
        tokens = np.arange(count, dtype=np.int64)[None] % 1000
        start, valid = np.array([position], np.int64), np.array([count], np.int64)
        table = np.arange(1, 1 + self._width, dtype=np.int32)[None]
        greedy, _, self._pools = self._program.call(name, tokens, start, valid, table, self._pools)
        self._program.read(greedy)


def llama_bench(program: Path, model: Path, threads: int, *options: str) -> float:
    """Tokens a second of one test, as llama-bench tells them; it warms up first."""
    command = [str(program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    (result,) = json.loads(done.stdout)
    return float(result["avg_ts"])


def compare(folder: Path, model: Path, options: argparse.Namespace) -> None:
    """Prints two rows."""
    bundle = Bundle(folder)
    bundle.prefill(), bundle.decode()
    cases = (
        (f"prefill {PROMPT}", bundle.prefill, ("-p", str(PROMPT), "-n", "0")),
        ("decode", bundle.decode, ("-p", "0", "-n", str(STEPS), "-d", str(BEFORE))),
    )
    for name, run, test in cases:
        pairs = [
            (run(), llama_bench(options.llama_bench, model, options.threads, *test)) for _ in range(options.rounds)
        ]
        ours, theirs = (max(side) for side in zip(*pairs, strict=True))
        print(
            f"| {folder.stem} / {model.stem} | {name} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |", flush=True
        )
        print(
            f"{folder.stem}, {name}, all rounds: {[[round(side, 1) for side in pair] for pair in pairs]}",
            file=sys.stderr,
        )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", nargs="+", metavar="BUNDLE=GGUF")
    parser.add_argument("--llama-bench", type=Path, default=Path("llama-bench"), help="the program")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| weights, ours / llama.cpp | case | ours, tokens/s | llama.cpp, tokens/s | ratio |\n|---|---|---|---|---|")
    for pair in options.pairs:
        folder, _, model = pair.partition("=")
        compare(Path(folder), Path(model), options)


if __name__ == "__main__":
    main()
