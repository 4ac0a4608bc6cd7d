"""Times a bundle's cuda program on an NVIDIA GPU beside transformers on the same card, and compares their logits.

    python benchmarks/gpu.py BUNDLE MODEL

BUNDLE must hold a cuda target with the entry points prefill_2048, decode_1 and decode_8; MODEL is the folder it was
made from. If the weights of MODEL are a hole (see shapes.py), they are filled with random numbers first. Needs torch
with CUDA, transformers and the runtime, not the compiler.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import Program
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, StaticCache

PROMPT, CONTEXT, BATCH = 2048, 256, 8


def fill_with_random(path: Path) -> None:
    """Replaces a safetensors file by one of the same header with random values."""
    with safe_open(path, framework="pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 - not a dict
    torch.manual_seed(0)
    tensors = {}
    for name, sizes in shapes.items():
        scale = 1.0 if "embed" in name else sizes[-1] ** -0.5
        values = torch.ones(sizes) if len(sizes) == 1 else torch.randn(sizes, device="cuda") * scale
        tensors[name] = values.half().cpu()
    save_file(tensors, path)


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call that waits for its result, in ms, after three calls to warm up."""
    for _ in range(3):
        call()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1e3)
    return statistics.median(times)


def waited(call: Callable[[], Any]) -> Callable[[], Any]:
    """`call`, followed by a wait for the GPU."""

    def run() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return run


class Ours:
    """The bundle's program and its pools."""

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)
        self.target = next(name for name, item in self.manifest.targets.items() if item.kind == "cuda")
        self.program = Program(bundle, self.manifest, self.target)
        self.pages = (PROMPT // self.manifest.page_tokens) + 2
        self.pools = self.program.make_pools(self.manifest, 1 + BATCH * self.pages)

    def table(self, rows: int, positions: int) -> np.ndarray:
        """Page tables of `rows` requests that hold `positions` tokens."""
        width = -(-positions // self.manifest.page_tokens)
        return (1 + np.arange(width)[None] + self.pages * np.arange(rows)[:, None]).astype(np.int32)

    def prefill(self, tokens: np.ndarray) -> np.ndarray:
        """Greedy token and logits after a prompt of exactly one chunk."""
        count = tokens.shape[1]
        args = (np.zeros(1, np.int64), np.array([count], np.int64), self.table(1, count))
        return self._call(f"prefill_{count}", tokens, *args)

    def decode(self, tokens: np.ndarray, position: int) -> np.ndarray:
        """One step for all rows of `tokens`."""
        rows = len(tokens)
        args = (np.full(rows, position, np.int64), np.ones(rows, np.int64), self.table(rows, position + 1))
        return self._call(f"decode_{rows}", tokens, *args)

    def _call(self, name: str, *args: np.ndarray) -> np.ndarray:
        greedy, logits, self.pools = self.program.call(name, *args, self.pools)
        self.program.read(greedy)
        self.last_logits = logits
        return logits


def main() -> None:
    """Runs everything and prints one JSON object."""
    bundle, folder = Path(sys.argv[1]), Path(sys.argv[2])
    weights = folder / "model.safetensors"
    with safe_open(weights, framework="pt") as file:
        is_hole = not bool(file.get_tensor("lm_head.weight").any())
    if is_hole:
        fill_with_random(weights)
    for name in read_manifest(bundle).weights:
        place = bundle / name
        if not place.exists() or place.stat().st_ino != weights.stat().st_ino:
            place.parent.mkdir(exist_ok=True)
            place.unlink(missing_ok=True)
            place.hardlink_to(weights)
    values: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__}
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16, attn_implementation="sdpa").cuda().eval()
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, model.config.vocab_size, (1, PROMPT))
    steps = rng.integers(0, model.config.vocab_size, (BATCH, 1))
    ours = Ours(bundle)
    values["target"] = ours.target
    with torch.no_grad():
        ids = torch.from_numpy(prompt).cuda()
        reference = model.float()(input_ids=ids, use_cache=False).logits[0, -1].cpu().numpy()
        model.half()
        half = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float().cpu().numpy()
        mine = ours.program.read(ours.prefill(prompt))[0]
        scale = float(np.abs(reference).max())
        values["prefill_error"] = float(np.abs(mine - reference).max()) / scale
        values["prefill_error_of_torch_f16"] = float(np.abs(half - reference).max()) / scale
        longer = torch.cat([ids, torch.from_numpy(steps[:1]).cuda()], 1)
        reference = model.float()(input_ids=longer, use_cache=False).logits[0, -1].cpu().numpy()
        model.half()
        mine = ours.program.read(ours.decode(steps[:1], PROMPT))[0]
        values["decode_error"] = float(np.abs(mine - reference).max()) / float(np.abs(reference).max())
        values["ours_prefill_2048_ms"] = median_ms(lambda: ours.prefill(prompt), 5)
        values["ours_decode_1_ms"] = median_ms(lambda: ours.decode(steps[:1], CONTEXT), 20)
        values["ours_decode_8_ms"] = median_ms(lambda: ours.decode(steps, CONTEXT), 20)
        eager = waited(lambda: model(input_ids=ids, use_cache=False, logits_to_keep=1))
        values["transformers_prefill_2048_ms"] = median_ms(eager, 10)
        cache = StaticCache(config=model.config, max_cache_len=512)
        model(torch.randint(0, 1000, (BATCH, CONTEXT), device="cuda"), past_key_values=cache, use_cache=True)
        tokens, position = torch.from_numpy(steps).cuda(), torch.full((BATCH, 1), CONTEXT, device="cuda")
        step = waited(lambda: model(tokens, position_ids=position, past_key_values=cache, use_cache=True).logits)
        values["transformers_decode_8_ms"] = median_ms(step, 20)
        print(json.dumps(values, indent=1))
        compiled = torch.compile(model, mode="reduce-overhead")
        fast = waited(lambda: compiled(tokens, position_ids=position, past_key_values=cache, use_cache=True).logits)
        values["transformers_compiled_decode_8_ms"] = median_ms(fast, 20)
        values["transformers_compiled_prefill_2048_ms"] = median_ms(
            waited(lambda: torch.compile(model)(input_ids=ids, use_cache=False, logits_to_keep=1)), 5
        )
    print(json.dumps(values, indent=1))


if __name__ == "__main__":
    main()
