"""`LLM`: a loaded bundle that turns prompts into text, in the thread that asks. Its engine runs while it is asked."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest, read_manifest, verify_files
from amdnfs_runtime.calls import ProgramNames
from amdnfs_runtime.checks import from_options
from amdnfs_runtime.config import EngineConfig, check_num_pages
from amdnfs_runtime.device import Program, choose_target, inspect_host
from amdnfs_runtime.draft_bundle import DraftBundle, check_can_guess, check_draft, open_draft
from amdnfs_runtime.drafts import Draft
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.limits import limits_of
from amdnfs_runtime.memory import device_memory, draft_pool_pages, pool_pages
from amdnfs_runtime.news import Request
from amdnfs_runtime.pages import PagePool
from amdnfs_runtime.prefix import OnRemoved, OnStored
from amdnfs_runtime.prompts import encode, load_tokenizer
from amdnfs_runtime.request import GenerationResult, Output, SamplingParams


def load(
    path: str | Path,
    *,
    target: str | None = None,
    num_pages: int | None = None,
    check: bool = True,
    draft: str | Path | None = None,
    config: EngineConfig | None = None,
) -> LLM:
    """Loads a bundle on the best device of this machine.

    Args:
        path: The bundle.
        target: Name of one of its targets; by default the best one that runs here.
        num_pages: Pages of the KV pool, the null page included; the same as `kv_pages` of `config`.
        check: Compare every file with the manifest's digest first; costs one read of the weights.
        draft: Another bundle, of a smaller model with the same tokens, that guesses next tokens for this one to
            check (`amdnfs-compile --speculate K`); texts do not change.
        config: How the engine runs.

    Raises:
        ArtifactError: If a bundle is damaged, none of its programs runs here, or the bundle checks no guesses and a
            draft is given.
        CapacityError: If `num_pages` cannot hold a single token, or the memory does not hold the pools.
        UsageError: If `num_pages` is not a whole number, or given twice, or the draft has other tokens.
    """
    return LLM(load_engine(path, target=target, num_pages=num_pages, check=check, draft=draft, config=config))


def load_engine(
    path: str | Path,
    *,
    target: str | None = None,
    num_pages: int | None = None,
    check: bool = True,
    draft: str | Path | None = None,
    config: EngineConfig | None = None,
    on_stored: OnStored | None = None,
    on_removed: OnRemoved | None = None,
) -> Engine:
    """Loads a bundle as an engine; see `load` for arguments and errors, `prefix` for the hooks."""
    config = config or EngineConfig()
    if num_pages is not None:
        check_num_pages(num_pages)
        if config.kv_pages is not None:
            raise UsageError("give either num_pages or kv_pages of config, not both")
        config = dataclasses.replace(config, kv_pages=num_pages)
    folder = Path(path)
    manifest = read_manifest(folder)
    name = choose_target(manifest, inspect_host(), target)
    if check:
        others = [item for other, item in manifest.targets.items() if other != name]
        skipped = {item.program for item in others} | {item.facts for item in others}
        verify_files(folder, manifest, [item for item in manifest.files if item not in skipped])
    tokenizer = load_tokenizer(folder)
    names = ProgramNames(manifest.targets[name], f"{folder}: {name}")
    guessing = None
    if draft is not None:
        check_can_guess(names, config, folder, name)
        guessing = open_draft(Path(draft), name)
        check_draft(guessing, manifest, tokenizer, check_files=check)
    pages, draft_pages = pool_sizes(manifest, manifest.targets[name].kind, names, config, guessing)
    program = Program(folder, manifest, name)
    loaded: Draft | None = None if guessing is None else guessing.load(draft_pages)
    return Engine(
        program, manifest, name, tokenizer, pages, config, draft=loaded, on_stored=on_stored, on_removed=on_removed
    )


def pool_sizes(
    manifest: Manifest, kind: str, names: ProgramNames, config: EngineConfig, draft: DraftBundle | None
) -> tuple[int, int]:
    """Pages of the pool and of the draft's, before anything is loaded.

    Args:
        manifest: The model.
        kind: Kind of its target.
        names: Its programs.
        config: What the user wants.
        draft: The draft; on a device of another kind its memory is asked for apart.

    Returns:
        The null pages included; 0 for no draft.

    Raises:
        CapacityError: If a device does not hold its pools.
        UsageError: If a share is wanted of a memory that is not known.
    """
    num_running = limits_of(names, config, kind).max_running
    if draft is None:
        return pool_pages(manifest, kind, config, num_running, device_memory(kind)), 0
    if draft.kind == kind:
        pages = pool_pages(manifest, kind, config, num_running, device_memory(kind), draft.manifest)
        return pages, draft_pool_pages(draft.manifest, manifest, pages, num_running)
    pages = pool_pages(manifest, kind, config, num_running, device_memory(kind))
    return pages, pool_pages(draft.manifest, draft.kind, EngineConfig(), num_running, device_memory(draft.kind))


class LLM:
    """A bundle on a device. Not for use from several threads at once; for many users there is `AsyncEngine`."""

    def __init__(self, engine: Engine) -> None:
        """See `load`."""
        self.engine = engine
        self._inboxes: dict[str, deque[Output]] = {}

    @property
    def manifest(self) -> Manifest:
        """What the bundle holds."""
        return self.engine.manifest

    @property
    def target_name(self) -> str:
        """The target that runs."""
        return self.engine.target_name

    @property
    def pool(self) -> PagePool:
        """The page pool."""
        return self.engine.pool

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        tokenizer = self.engine.tokenizer
        assert tokenizer is not None
        return tokenizer

    def encode(self, prompt: str) -> list[int]:
        """Token ids of `prompt`, with the begin token if the tokenizer adds one.

        Raises:
            UsageError: If the prompt gives no token at all and the model has no begin token, or is not Unicode.
        """
        return encode(self.tokenizer, self.manifest, prompt)

    def generate(
        self,
        prompts: str | Sequence[str] | Sequence[Sequence[int]],
        params: SamplingParams | None = None,
        **options: Any,
    ) -> list[GenerationResult]:
        """Generates for all prompts, as many at a time as fit.

        Args:
            prompts: One text, texts, or lists of token ids.
            params: Sampling.
            **options: The fields of `params` instead, e.g. `max_tokens=64`.

        Returns:
            The samples of the first prompt, those of the second, and so on; `n` each.

        Raises:
            ArtifactError: If the device fails.
            CapacityError: If a prompt does not fit the context or the pool.
            UsageError: For options that make no sense.
        """
        sampling = _params(params, options)
        texts: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
        requests = [self.engine.prepare(prompt, sampling) for prompt in texts]
        results: dict[tuple[str, int], GenerationResult] = {}
        try:
            for request in requests:
                self._start(request)
            for request in requests:
                for output in self._outputs(request):
                    if output.result is not None:
                        results[request.request_id, output.index] = output.result
        finally:
            for request in requests:
                self._end(request)
        return [results[request.request_id, index] for request in requests for index in range(sampling.n)]

    def stream(
        self, prompt: str | Sequence[int], params: SamplingParams | None = None, **options: Any
    ) -> Iterator[str]:
        """Yields the text of one generation piece by piece; never half a character, never part of a stop string.

        Raises:
            ArtifactError: If the device fails.
            CapacityError: If the prompt does not fit the context or the pool.
            UsageError: For options that make no sense.
        """
        sampling = _params(params, options)
        if sampling.n != 1:
            raise UsageError(f"a stream has one sample, but n is {sampling.n}; use generate")
        return self._stream(self.engine.prepare(prompt, sampling))

    def _stream(self, request: Request) -> Iterator[str]:
        try:
            self._start(request)
            for output in self._outputs(request):
                if output.text:
                    yield output.text
        finally:
            self._end(request)

    def _start(self, request: Request) -> None:
        self._inboxes[request.request_id] = deque()
        self.engine.start(request)

    def _outputs(self, request: Request) -> Iterator[Output]:
        """Runs the engine until a request has ended; what others get meanwhile is kept for them."""
        inbox = self._inboxes[request.request_id]
        num_open = len(request.generations)
        while num_open:
            while not inbox:
                for output in self.engine.step():
                    self._inboxes[output.request_id].append(output)
            output = inbox.popleft()
            if output.error is not None:
                raise output.error
            num_open -= output.is_last
            yield output

    def _end(self, request: Request) -> None:
        """Frees the pages of a request, whether it has ended or not."""
        self.engine.cancel(request.request_id)
        self._inboxes.pop(request.request_id, None)


def _params(params: SamplingParams | None, options: dict[str, Any]) -> SamplingParams:
    if params is not None and options:
        raise UsageError(f"give either params or its fields, not both; got {', '.join(sorted(options))}")
    return params or from_options(SamplingParams, options, "sampling option")
