"""The engine's own share of a step: scheduling, sampling and detokenising beside the device call.

    python benchmarks/serving.py [BUNDLE | 1.1b]

Without a bundle: 32 requests of the demo model's tokenizer on a device that answers at once, with 32000 tokens of
vocabulary, so that what is measured is the host alone. Shares are against the time of a decode step of a 1.1B model,
batch 32: the floor of products (weights in f16, read once at peak bandwidth: no device is so fast).
With a bundle: the same requests on its best program here, host and device side by side. `1.1b` compiles the 1.1B shape
(f32, random weights) for this CPU first.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amdnfs_runtime.bundle import EntryPoint, LayerCacheEntry, Manifest, ModelEntry, TargetEntry
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.llm import load_engine
from amdnfs_runtime.news import News
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.top_logits import PackedTop
from amdnfs_targets.products import get_product
from tokenizers import Tokenizer

TOKENIZER = Path(__file__).parents[1] / "examples" / "demo_model" / "tokenizer.json"
RUNNING, VOCAB, STEPS = 32, 32_000, 200
COUNT = 64
"""Logits of a row that a GPU's program finds."""
WEIGHT_BYTES = 1.1e9 * 2
CASES = {
    "greedy": SamplingParams(max_tokens=STEPS, ignore_eos=True),
    "greedy, a stop string": SamplingParams(max_tokens=STEPS, ignore_eos=True, stop="\0\0"),
    "temperature, top-k 40": SamplingParams(max_tokens=STEPS, ignore_eos=True, temperature=0.8, top_k=40, seed=1),
    "temperature, top-p 0.95": SamplingParams(max_tokens=STEPS, ignore_eos=True, temperature=0.8, top_p=0.95, seed=1),
    "greedy, 5 logprobs": SamplingParams(max_tokens=STEPS, ignore_eos=True, logprobs=5),
}


class Instant:
    """A GPU that answers at once, with the same logits each time, and finds the largest as our programs do."""

    is_queued = True

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.logits = rng.normal(scale=3, size=(RUNNING, VOCAB)).astype(np.float32)
        self.logits[:, 512:] -= 20  # what the demo model's tokenizer knows
        order = np.argsort(-self.logits, axis=-1, kind="stable")[:, :COUNT]
        mass = np.log(np.exp(self.logits).sum(-1, keepdims=True))
        floats = np.concatenate([np.take_along_axis(self.logits, order, -1), mass], -1)
        self.top = np.concatenate([order.astype(np.int32), floats.view(np.int32)], -1)

    def wait(self) -> None:
        """Nothing is queued."""

    def make_pools(self, manifest: Manifest, num_pages: int) -> list[Any]:
        """Nothing."""
        return []

    def call(
        self, name: str, tokens: Any, start: Any, num_valid: Any, table: Any, pools: list[Any]
    ) -> tuple[Any, Any, list[Any]]:
        """The largest logits of each row, and all of them."""
        return PackedTop(self.top, COUNT, VOCAB), self.logits, pools

    def read(self, array: Any) -> Any:
        """The array."""
        return array

    def read_rows(self, array: Any, rows: Sequence[int]) -> Any:
        """Copies rows, as the real thing does."""
        return array[list(rows)]


def fake_manifest() -> Manifest:
    """What an engine must know of a 1.1B model."""
    points = (
        EntryPoint(name="prefill_64", kind="prefill", batch=1, tokens=64),
        EntryPoint(name="decode_32", kind="decode", batch=RUNNING, tokens=1),
    )
    target = TargetEntry(kind="cpu", gfx=None, program="", facts="", entry_points=points, cpu_features=())
    model = ModelEntry(
        name="", architecture="", model_type="", dtype="f16", vocab_size=VOCAB, context_tokens=2048, digest=""
    )
    layer = LayerCacheEntry(kind="paged", kv_heads=4, head_dim=64, window=0)
    return Manifest(
        model=model,
        page_tokens=16,
        cache_dtype="f16",
        layers=(layer,) * 22,
        bos_token_id=None,
        eos_token_ids=(2,),
        weights=(),
        targets={"cpu": target},
    )


@dataclass
class Step:
    """Seconds of a decode step of 32 requests, mean."""

    between: float
    """The host's, while the device has nothing to do."""
    beside: float
    """The host's, while the device computes: making text and outputs of the step before."""
    device: float
    """From the call to its tokens; what is done beside it included."""


def measure(engine: Engine, params: SamplingParams, num_prompt: int, num_steps: int = 100) -> Step:
    """Runs the engine as `AsyncEngine` does."""
    rng = np.random.default_rng(1)
    for _ in range(RUNNING):
        engine.start(engine.prepare(rng.integers(3, 500, num_prompt).tolist(), params))
    while engine.stats().num_waiting or engine.stats().totals.num_decode_calls == 0:
        engine.step()
    news: list[News] = []
    beside = 0.0

    def tell() -> None:
        nonlocal beside
        began_s = time.perf_counter()
        tell(news)
        beside += time.perf_counter() - began_s

    before = engine.stats().totals
    began_s = time.perf_counter()
    for _ in range(num_steps):
        news = engine.advance(tell)
    wall = time.perf_counter() - began_s
    device = engine.stats().totals.device_s - before.device_s
    for request_id in engine.request_ids:
        engine.cancel(request_id)
    return Step(between=(wall - device) / num_steps, beside=beside / num_steps, device=device / num_steps)


def without_bundle() -> None:
    """Prints what the host takes, and its share of steps of a 1.1B model."""
    products = ("mi300x", "rx7900xtx", "strix-halo")
    floors = {name: WEIGHT_BYTES / get_product(name).memory_bytes_per_s for name in products}
    shares = " | ".join(f"share of {name}'s floor" for name in products)
    print(f"| 32 requests | host between calls, ms a step | beside them, ms | choosing, ms | {shares} |")
    print("|---|---|---|---|" + "---|" * len(products))
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    for name, params in CASES.items():
        engine = Engine(Instant(), fake_manifest(), "cpu", tokenizer, 4000, EngineConfig())
        step = measure(engine, params, 200)
        choosing = step.device - step.beside
        host = step.between + choosing
        shares = " | ".join(f"{host / (host + floor):.0%} of {floor * 1e3:.2f} ms" for floor in floors.values())
        print(
            f"| {name} | {step.between * 1e3:.2f} | {step.beside * 1e3:.2f} | {choosing * 1e3:.2f} | {shares} |",
            flush=True,
        )


def compiled(name: str, folder: Path) -> Path:
    """Compiles a shape with random weights for this CPU."""
    from shapes import SHAPES, make_model

    from amdnfs_compile import CompileOptions, compile_model

    options = CompileOptions(prefill_chunks=(16,), decode_batches=(RUNNING,))
    return compile_model(make_model(folder / "model", SHAPES[name], "F32"), ["cpu"], folder / "out", options)


def with_bundle(path: Path, num_steps: int = 100) -> None:
    """Prints host and device side by side."""
    print("| 32 requests | host between calls, ms a step | beside them, ms | device, ms a step | host's share |")
    print("|---|---|---|---|---|")
    engine = load_engine(path, config=EngineConfig(max_running=RUNNING, kv_pages=400))
    for name, params in CASES.items():
        step = measure(engine, params, 16, num_steps)
        share = step.between / (step.between + step.device)
        print(
            f"| {name} | {step.between * 1e3:.2f} | {step.beside * 1e3:.2f} | {step.device * 1e3:.2f} | {share:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["1.1b"]:
        with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as temporary:
            with_bundle(compiled("1.1b", Path(temporary)), num_steps=4)
    elif sys.argv[1:]:
        with_bundle(Path(sys.argv[1]))
    else:
        without_bundle()
