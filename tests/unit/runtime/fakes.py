"""A device that computes next to nothing, but reads what it needs through the page table, as a real one does.

The logits of a text depend on every token of it, and the tokens are read from the pool: a page that was taken away too
early, handed out twice or found for another text shows at once as other tokens than `alone` gives.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from amdnfs_runtime.bundle import EntryPoint, LayerCacheEntry, Manifest, ModelEntry, TargetEntry
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.generation import Generation
from amdnfs_runtime.request import GenerationResult, Output, SamplingParams
from amdnfs_runtime.top_logits import PackedTop

VOCAB = 11
PAGE_TOKENS = 4
EOS = 0


def make_manifest(
    prefill: Sequence[int] = (4, 16),
    decode: Sequence[int] = (1, 4),
    context: int = 64,
    vocab: int = VOCAB,
    verify_tokens: int = 0,
) -> Manifest:
    points = [EntryPoint(name=f"prefill_{size}", kind="prefill", batch=1, tokens=size) for size in prefill]
    points += [EntryPoint(name=f"decode_{size}", kind="decode", batch=size, tokens=1) for size in decode]
    if verify_tokens:
        points += [
            EntryPoint(name=f"verify_{size}x{verify_tokens}", kind="verify", batch=size, tokens=verify_tokens)
            for size in decode
        ]
    target = TargetEntry(kind="cpu", gfx=None, program="p", facts="f", entry_points=tuple(points), cpu_features=())
    return Manifest(
        model=ModelEntry(
            name="m", architecture="M", model_type="m", dtype="f32", vocab_size=vocab, context_tokens=context, digest=""
        ),
        page_tokens=PAGE_TOKENS,
        cache_dtype="f32",
        layers=(LayerCacheEntry(kind="paged", kv_heads=1, head_dim=2, window=0),),
        bos_token_id=None,
        eos_token_ids=(EOS,),
        weights=(),
        targets={"cpu": target},
    )


def logits_of(context: Sequence[int], vocab: int = VOCAB) -> np.ndarray:
    seed = zlib.crc32(np.asarray(context, np.int64).tobytes())
    return np.random.default_rng(seed).normal(scale=2, size=vocab).astype(np.float32)


def pack_top(logits: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(-logits, axis=-1, kind="stable")[:, :count]
    mass = np.log(np.exp(logits).sum(-1, keepdims=True))
    floats = np.concatenate([np.take_along_axis(logits, order, -1), mass], -1).astype(np.float32)
    return np.concatenate([order.astype(np.int32), floats.view(np.int32)], -1)


class PagedProgram:
    """The device.

    `fail_at` says of each call by its number, from 0, whether it fails; `salt` is for other weights; with `num_top` it
    gives the largest logits of each row as programs for GPUs do.
    """

    is_queued = False

    def __init__(
        self, fail_at: Callable[[int], bool] = lambda number: False, salt: Sequence[int] = (), num_top: int = 0
    ) -> None:
        self.num_top = num_top
        self.fail_at = fail_at
        self.salt = salt
        self.num_calls = 0
        self.num_tokens = 0
        self.num_rows_read = 0
        self.names: list[str] = []

    def wait(self) -> None:
        pass

    def make_pools(self, manifest: Manifest, num_pages: int) -> list[Any]:
        self.manifest = manifest
        return [np.full((num_pages, manifest.page_tokens), -1, np.int64)]

    def call(
        self, name: str, tokens: np.ndarray, start: np.ndarray, num_valid: np.ndarray, table: np.ndarray, pools: Any
    ) -> tuple[Any, Any, list[Any]]:
        number, self.num_calls = self.num_calls, self.num_calls + 1
        self.names.append(name)
        if self.fail_at(number):
            raise ArtifactError(f"device lost in call {number}")
        point = next(item for item in self.manifest.targets["cpu"].entry_points if item.name == name)
        assert tokens.shape == (point.batch, point.tokens)
        assert (tokens.dtype, start.dtype, num_valid.dtype, table.dtype) == (np.int64, np.int64, np.int64, np.int32)
        (pool,) = pools
        size = self.manifest.page_tokens
        num_told = point.tokens if point.kind == "verify" else 1
        logits = np.zeros((point.batch, num_told, self.manifest.model.vocab_size), np.float32)
        written: list[tuple[int, int]] = []
        for row in range(point.batch):
            begin, count = int(start[row]), int(num_valid[row])
            self.num_tokens += count
            for index in range(count):
                page, offset = int(table[row, (begin + index) // size]), (begin + index) % size
                assert page != 0
                written.append((page, offset))
                pool[page, offset] = tokens[row, index]
            if count == 0:
                assert not table[row].any()
                continue
            context = [pool[table[row, position // size], position % size] for position in range(begin + count)]
            assert min(context) >= 0, "a position that nobody wrote is read"
            if point.kind == "verify":
                for index in range(count):
                    logits[row, index] = logits_of([*self.salt, *context[: begin + index + 1]], logits.shape[2])
            else:
                logits[row] = logits_of([*self.salt, *context], logits.shape[2])
        if point.kind != "verify":
            logits = logits[:, 0]
        assert len(set(written)) == len(written), "two requests write to one place"
        if self.num_top and point.kind != "verify":
            return PackedTop(pack_top(logits, self.num_top), self.num_top, logits.shape[1]), logits, [pool]
        return logits.argmax(axis=-1), logits, [pool]

    def read(self, array: Any) -> np.ndarray:
        assert array.dtype in (np.int64, np.int32), "the host reads all logits"
        return np.asarray(array)

    def read_rows(self, array: Any, rows: Sequence[int]) -> np.ndarray:
        self.num_rows_read += len(rows)
        return np.asarray(array)[list(rows)]


def make_engine(
    num_pages: int = 40, program: PagedProgram | None = None, manifest: Manifest | None = None, **config: Any
) -> Engine:
    program, manifest = program or PagedProgram(), manifest or make_manifest()
    return Engine(program, manifest, "cpu", None, num_pages, EngineConfig(**config))


def alone(prompt: Sequence[int], params: SamplingParams, index: int = 0, manifest: Manifest | None = None) -> list[int]:
    """The tokens of one sample, from the text itself: no engine, no pages."""
    manifest = manifest or make_manifest()
    generation = Generation(prompt, params, manifest, None, index=index)
    while generation.finish_reason is None:
        logits = logits_of([*prompt, *generation.token_ids], manifest.model.vocab_size)
        generation.accept(int(logits.argmax()), logits)
    return generation.token_ids


def finish(engine: Engine, *, most_steps: int = 100_000) -> dict[tuple[str, int], Output]:
    """Runs an engine until it has nothing to do, checking it after each step; the last output of each sample."""
    last: dict[tuple[str, int], Output] = {}
    for _ in range(most_steps):
        if not engine.has_work:
            break
        for output in engine.step():
            assert (output.request_id, output.index) not in last, "an output after the last"
            if output.is_last:
                last[output.request_id, output.index] = output
        engine.check_integrity()
    assert not engine.has_work
    assert engine.pool.num_used == 0
    return last


def run_all(engine: Engine, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[GenerationResult]:
    """Starts all prompts at once and returns the results, sample by sample."""
    requests = [engine.prepare(prompt, params) for prompt in prompts]
    for request in requests:
        engine.start(request)
    last = finish(engine)
    results = [last[request.request_id, index].result for request in requests for index in range(params.n)]
    assert None not in results
    return [result for result in results if result is not None]
