"""`LLM`: a loaded bundle that turns prompts into text. One thread, one batch; no scheduler."""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest, read_manifest, verify_files
from amdnfs_runtime.device import Program, choose_target, inspect_host
from amdnfs_runtime.errors import ArtifactError, CapacityError, UsageError
from amdnfs_runtime.generation import Generation
from amdnfs_runtime.pages import PagePool
from amdnfs_runtime.request import GenerationResult, SamplingParams

_LARGEST_POOL_BYTES = 1 << 40
DEFAULT_POOL_BYTES = 1 << 30
"""Upper bound of the default pool, in bytes; one full context is always allowed."""

_LEAST_PAGES = 2


def load(path: str | Path, *, target: str | None = None, num_pages: int | None = None, check: bool = True) -> LLM:
    """Loads a bundle on the best device of this machine.

    Args:
        path: The bundle.
        target: Name of one of its targets; by default the best one that runs here.
        num_pages: Pages of the KV pool, the null page included; by default full contexts for the largest decode
            batch, but no more than 1 GiB.
        check: Compare every file with the manifest's digest first; costs one read of the weights.

    Raises:
        ArtifactError: If the bundle is damaged or none of its programs runs here.
        CapacityError: If `num_pages` cannot hold a single token, or the memory does not hold the pool.
        UsageError: If `num_pages` is not a whole number.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    name = choose_target(manifest, inspect_host(), target)
    if check:
        others = [item for other, item in manifest.targets.items() if other != name]
        skipped = {item.program for item in others} | {item.facts for item in others}
        verify_files(folder, manifest, [item for item in manifest.files if item not in skipped])
    return LLM(folder, manifest, name, num_pages)


class LLM:
    """A bundle on a device. Not for use from several threads at once."""

    def __init__(self, folder: Path, manifest: Manifest, target_name: str, num_pages: int | None) -> None:
        """See `load`."""
        self.manifest = manifest
        self.target_name = target_name
        if num_pages is not None and (not isinstance(num_pages, int) or isinstance(num_pages, bool)):
            raise UsageError(f"num_pages must be a whole number, not {num_pages!r}")
        if num_pages is not None and num_pages < _LEAST_PAGES:
            raise CapacityError(
                f"num_pages={num_pages}: the pool needs at least {_LEAST_PAGES} pages, one of which is never handed out"
            )
        points = manifest.targets[target_name].entry_points
        self._chunks = sorted((p.tokens, p.name) for p in points if p.kind == "prefill")
        self._batches = sorted((p.batch, p.name) for p in points if p.kind == "decode")
        if not self._chunks or not self._batches:
            raise ArtifactError(f"{folder}: {target_name} has no prefill or no decode entry point")
        pages = self._default_pages() if num_pages is None else num_pages
        _check_memory(pages, manifest, manifest.targets[target_name].kind)
        self._pool = PagePool(pages, manifest.page_tokens)
        self.tokenizer = _load_tokenizer(folder)
        self._program = Program(folder, manifest, target_name)
        self._pools = self._program.make_pools(manifest, self._pool.num_pages)

    @property
    def pool(self) -> PagePool:
        """The page pool."""
        return self._pool

    def encode(self, prompt: str) -> list[int]:
        """Token ids of `prompt`, with the begin token if the tokenizer adds one.

        Raises:
            UsageError: If the prompt gives no token at all and the model has no begin token, or is not Unicode.
        """
        try:
            ids: list[int] = self.tokenizer.encode(prompt).ids
        except TypeError as error:  # what the library makes of lone surrogates
            raise UsageError(f"the prompt is not valid Unicode text: {prompt[:40]!a}") from error
        if not ids and self.manifest.bos_token_id is not None:
            return [self.manifest.bos_token_id]
        if not ids:
            raise UsageError("the prompt is empty and the model has no begin token; give at least one character")
        return ids

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> list[GenerationResult]:
        """Generates for all prompts, several at a time.

        Args:
            prompts: One text, texts, or lists of token ids.
            params: Sampling.
            **options: The fields of `params` instead, e.g. `max_tokens=64`.

        Raises:
            CapacityError: If a prompt does not fit the context or the pool.
            UsageError: For options that make no sense.
        """
        sampling = _params(params, options)
        texts: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
        generations = [self._begin(prompt, sampling) for prompt in texts]
        waiting, running = list(generations), list[Generation]()
        try:
            while waiting or running:
                while waiting and len(running) < self._batches[-1][0] and self._admit(waiting[0]):
                    generation = waiting.pop(0)
                    running.append(generation)
                    self._prefill(generation)
                if not running:
                    waiting[0].reserve()  # raises: the pages are held by a stream that is still open
                running = [item for item in running if not item.release_if_finished()]
                if running:
                    self._decode(running)
                    running = [item for item in running if not item.release_if_finished()]
        finally:
            for generation in generations:
                generation.release()
        return [generation.result() for generation in generations]

    def stream(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None, **options: Any
    ) -> Iterator[str]:
        """Yields the text of one generation piece by piece; never half a character, never part of a stop string.

        Raises:
            CapacityError: If the prompt does not fit the context or the pool.
            UsageError: For options that make no sense.
        """
        generation = self._begin(prompt, _params(params, options))
        return self._stream(generation)

    def _stream(self, generation: Generation) -> Iterator[str]:
        try:
            generation.reserve()
            self._prefill(generation)
            while True:
                piece = generation.take_text()
                if piece:
                    yield piece
                if generation.finish_reason is not None:
                    return
                self._decode([generation])
        finally:
            generation.release()

    def _begin(self, prompt: str | Sequence[int], params: SamplingParams) -> Generation:
        ids = self.encode(prompt) if isinstance(prompt, str) else _token_ids(prompt)
        vocab = self.manifest.model.vocab_size
        bad = [token for token in ids if not 0 <= token < vocab]
        if bad or not ids:
            raise UsageError(
                f"prompt token ids must be from 0 to {vocab - 1}, and at least one; got {bad[:3] or 'none'}"
            )
        context = self.manifest.model.context_tokens
        if len(ids) >= context:
            raise CapacityError(
                f"the prompt has {len(ids)} tokens, but the context is {context} tokens and one must be left to "
                "generate; shorten the prompt, or compile with a longer --context if the model allows it"
            )
        generation = Generation(ids, params, self.manifest, self.tokenizer, self._pool)
        needed, usable = self._pool.pages_for(generation.max_positions), self._pool.num_pages - 1
        if needed > usable:
            raise CapacityError(
                f"the request needs {needed} pages of {self.manifest.page_tokens} tokens ({len(ids)} of prompt, up to "
                f"{generation.max_positions - len(ids)} generated), but the pool has {usable}; "
                "ask for fewer tokens, or load with more pages"
            )
        return generation

    def _admit(self, generation: Generation) -> bool:
        """Takes all pages a request can ever need, or none: a running request is never short of pages."""
        if self._pool.pages_for(generation.max_positions) > self._pool.num_free:
            return False
        generation.reserve()
        return True

    def _prefill(self, generation: Generation) -> None:
        begin = time.perf_counter()
        ids = generation.prompt_token_ids
        position = 0
        greedy: Any = None
        logits: Any = None
        while position < len(ids):
            size, name = self._chunk_for(len(ids) - position)
            count = min(size, len(ids) - position)
            tokens = np.zeros((1, size), np.int64)
            tokens[0, :count] = ids[position : position + count]
            greedy, logits, self._pools = self._program.call(
                name,
                tokens,
                np.array([position], np.int64),
                np.array([count], np.int64),
                generation.table(position + count)[None],
                self._pools,
            )
            position += count
        self._take([generation], greedy, logits)
        generation.prefill_s = time.perf_counter() - begin

    def _chunk_for(self, remaining: int) -> tuple[int, str]:
        """The smallest chunk that holds what remains, else the largest."""
        return next((item for item in self._chunks if item[0] >= remaining), self._chunks[-1])

    def _decode(self, running: Sequence[Generation]) -> None:
        begin = time.perf_counter()
        batch, name = next(item for item in self._batches if item[0] >= len(running))
        tokens, start = np.zeros((batch, 1), np.int64), np.zeros(batch, np.int64)
        num_valid = np.zeros(batch, np.int64)
        width = max(self._pool.pages_for(item.num_positions + 1) for item in running)
        table = np.zeros((batch, width), np.int32)
        for row, item in enumerate(running):
            tokens[row, 0], start[row], num_valid[row] = item.last_token, item.num_positions, 1
            own = item.table(item.num_positions + 1)
            table[row, : len(own)] = own
        greedy, logits, self._pools = self._program.call(name, tokens, start, num_valid, table, self._pools)
        for item in running:
            item.num_positions += 1
        self._take(running, greedy, logits)
        elapsed = time.perf_counter() - begin
        for item in running:
            item.decode_s += elapsed

    def _take(self, running: Sequence[Generation], greedy: Any, logits: Any) -> None:
        """Gives each request its next token; logits leave the device only if somebody samples from them."""
        rows = self._program.read(logits) if any(item.needs_logits for item in running) else None
        chosen = self._program.read(greedy)
        for row, item in enumerate(running):
            item.accept(int(chosen[row]), None if rows is None else rows[row])

    def _default_pages(self) -> int:
        one = -(-self.manifest.model.context_tokens // self.manifest.page_tokens)
        wanted = one * self._batches[-1][0]
        affordable = DEFAULT_POOL_BYTES // max(1, self.manifest.page_bytes)
        return 1 + max(one, min(wanted, affordable))


def _token_ids(prompt: Any) -> list[int]:
    try:
        return [operator.index(token) for token in prompt]
    except TypeError as error:
        raise UsageError(f"a prompt must be a text or a list of token ids, not {prompt!r:.80}") from error


def _params(params: SamplingParams | None, options: dict[str, Any]) -> SamplingParams:
    if params is not None and options:
        raise UsageError(f"give either params or its fields, not both; got {', '.join(sorted(options))}")
    known = set(SamplingParams.__dataclass_fields__)
    unknown = sorted(set(options) - known)
    if unknown:
        raise UsageError(f"unknown sampling option {unknown[0]!r}; known are {', '.join(sorted(known))}")
    return params or SamplingParams(**options)


def _check_memory(num_pages: int, manifest: Manifest, kind: str) -> None:
    """Refuses a pool that the host cannot hold (cpu) or even name (a device with memory of its own).

    Raises:
        CapacityError: With the size of the pool and what there is.
    """
    needed = num_pages * manifest.page_bytes
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if kind == "cpu" else _LARGEST_POOL_BYTES
    if needed > available:
        raise CapacityError(
            f"a pool of {num_pages} pages takes {needed >> 20} MiB, but there are {available >> 20} MiB; "
            "give fewer pages (--kv-pages, num_pages), or compile with a shorter --context"
        )


def _load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer" / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ArtifactError(f"{path}: the tokenizer cannot be read: {error}") from error
    # Some files carry the settings of a training run: a prompt must be neither cut nor filled up in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
