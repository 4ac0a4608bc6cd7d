"""Prefill and decode on the CPU beside transformers, in one run; and the time of a step by the size of the pool.

    python benchmarks/cpu_speed.py speed 160m 1.1b
    python benchmarks/cpu_speed.py speed 1.1b --dtype bf16 --quantize none int8 int4
    python benchmarks/cpu_speed.py pool
    python benchmarks/cpu_speed.py model 1.1b --dtype bf16 --to MODEL
    python benchmarks/cpu_speed.py alone BUNDLE

`alone` is our column of the cases of `openvino_speed.py`: all entry points of a bundle, prefill from position 0 and
decode at position 192, the middle of 128 tokens after 128. `model` writes a model that both can compile.

Random weights; transformers has them unquantised, in the same type. The two engines take turns, call by call, so that a
change of the machine's speed hits both; the ratio is what to quote.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import Program
from shapes import SHAPES, make_model
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.quantize.scheme import Quantize

PROMPT, STEPS = 512, 12


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turns(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float, float]:
    """Median time of both, in seconds, and the median ratio second / first, pair by pair, after one warm-up each."""
    first(), second()
    pairs = [(seconds(first), seconds(second)) for _ in range(repeats)]
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


class Ours:
    """A bundle's CPU program with a pool."""

    def __init__(self, bundle: Path, num_pages: int) -> None:
        self.manifest = read_manifest(bundle)
        self.program = Program(bundle, self.manifest, "cpu")
        self.pools = self.program.make_pools(self.manifest, num_pages)

    def step(self, name: str, tokens: np.ndarray, position: int) -> np.ndarray:
        """One call; all rows hold `position` tokens."""
        rows, count = tokens.shape
        width = -(-(position + count) // self.manifest.page_tokens)
        table = np.tile(1 + np.arange(width, dtype=np.int32), (rows, 1))
        start, valid = np.full(rows, position, np.int64), np.full(rows, count, np.int64)
        greedy, _, self.pools = self.program.call(name, tokens, start, valid, table, self.pools)
        return self.program.read(greedy)


def speed(name: str, dtype: str, modes: list[str], batches: tuple[int, ...]) -> None:
    """Prints one row a case."""
    with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as folder:
        model = make_model(Path(folder) / "model", SHAPES[name], dtype.upper())
        kind = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
        reference = AutoModelForCausalLM.from_pretrained(model, dtype=kind, attn_implementation="sdpa").eval()
        for mode in modes:
            options = CompileOptions(prefill_chunks=(PROMPT,), decode_batches=batches, quantize=Quantize(mode))
            bundle = compile_model(model, ["cpu"], Path(folder) / mode, options)
            with torch.no_grad():
                compare(f"{name} {dtype if mode == 'none' else mode}", bundle, reference, batches)


def compare(label: str, bundle: Path, reference: PreTrainedModel, batches: tuple[int, ...]) -> None:
    """Prints prefill and decode of one bundle beside transformers."""
    rng = np.random.default_rng(0)
    ours = Ours(bundle, 2 + (PROMPT + STEPS * 2) // 16)
    prompt = rng.integers(0, 1000, (1, PROMPT))
    ids = torch.from_numpy(prompt)
    mine, theirs, ratio = in_turns(
        lambda: ours.step(f"prefill_{PROMPT}", prompt, 0),
        lambda: reference(input_ids=ids, use_cache=False, logits_to_keep=1),
        3,
    )
    print(f"| {label} | prefill {PROMPT} | {PROMPT / mine:.0f} | {PROMPT / theirs:.0f} | {ratio:.2f} |", flush=True)
    for batch in batches:
        tokens = rng.integers(0, 1000, (batch, 1))
        cache = DynamicCache()
        reference(input_ids=ids[:, :128].expand(batch, -1), past_key_values=cache, use_cache=True)
        given = torch.from_numpy(tokens)
        mine, theirs, ratio = in_turns(
            lambda: ours.step(f"decode_{batch}", tokens, 128),  # noqa: B023 - called in this round only
            lambda: reference(input_ids=given, past_key_values=cache, use_cache=True),  # noqa: B023
            STEPS,
        )
        print(
            f"| {label} | decode, batch {batch} | {batch / mine:.1f} | {batch / theirs:.1f} | {ratio:.2f} |", flush=True
        )


def alone(bundle: Path) -> None:
    """Prints medians of a bundle's entry points, one row a case."""
    rng, ours = np.random.default_rng(0), Ours(bundle, 66)
    for point in ours.manifest.targets["cpu"].entry_points:
        tokens = rng.integers(0, 1000, (point.batch, point.tokens))
        position = 192 if point.tokens == 1 else 0
        rate = tokens.size / median_seconds(ours, point.name, tokens, position, STEPS if point.tokens == 1 else 3)
        print(f"| {point.name} | {rate:.1f} |", flush=True)


def median_seconds(ours: Ours, entry: str, tokens: np.ndarray, position: int, repeats: int) -> float:
    """Median wall time of a call, after one that does not count."""
    ours.step(entry, tokens, position)
    return statistics.median(seconds(lambda: ours.step(entry, tokens, position)) for _ in range(repeats))


def pool() -> None:
    """Prints the time of a decode step with 64 and with 4096 pages."""
    with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as folder:
        model = make_model(Path(folder) / "model", SHAPES["160m"], "F32")
        options = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
        bundle = compile_model(model, ["cpu"], Path(folder) / "out", options)
        small, large = Ours(bundle, 64), Ours(bundle, 4096)
        tokens = np.array([[7]])
        few, many, ratio = in_turns(
            lambda: small.step("decode_1", tokens, 128), lambda: large.step("decode_1", tokens, 128), 20
        )
        size = small.manifest.page_bytes / 1e6
        print(f"| 64 pages ({64 * size:.0f} MB) | {few * 1e3:.1f} ms | 1 |")
        print(f"| 4096 pages ({4096 * size:.0f} MB) | {many * 1e3:.1f} ms | {ratio:.2f} |")


def main() -> None:
    """Runs what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "alone", "model", "pool"])
    parser.add_argument("shapes", nargs="*", metavar="SHAPE", help=f"{', '.join(SHAPES)}; for `alone`, bundles")
    parser.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--quantize", nargs="+", default=["none"], choices=["none", "int8", "int4", "w8a8"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--to", type=Path, help="where `model` writes")
    given = parser.parse_args()
    if given.what != "alone" and (unknown := set(given.shapes) - set(SHAPES)):
        parser.error(f"no shape {', '.join(sorted(unknown))}; there are {', '.join(SHAPES)}")
    if given.what == "pool":
        print("| pool | decode step, 160m f32, batch 1 | ratio |\n|---|---|---|")
        pool()
        return
    if given.what == "model":
        if given.to is None or len(given.shapes) != 1:
            parser.error("model takes one shape and --to FOLDER")
        make_model(given.to, SHAPES[given.shapes[0]], given.dtype.upper())
        return
    if given.what == "alone":
        print("| entry point | ours, tokens/s |\n|---|---|")
        for bundle in given.shapes:
            alone(Path(bundle))
        return
    print("| model | case | ours, tokens/s | transformers, tokens/s | ours / transformers |\n|---|---|---|---|---|")
    for name in given.shapes or ["160m"]:
        speed(name, given.dtype, given.quantize, tuple(given.batches))


if __name__ == "__main__":
    main()
