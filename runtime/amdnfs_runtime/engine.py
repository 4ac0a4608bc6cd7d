"""The engine: takes requests, runs one step after the other on a device, and says what each step added.

    prepare -> start -> [ plan -> call the programs -> sample -> outputs ] ... -> pages are free again

One thread at a time. `prepare` alone may be called from any thread. `async_engine` gives it a thread of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Container, Sequence
from typing import Any

from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.calls import DeviceProgram, ProgramNames, TopOfRow, arguments_of, read_choices
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.drafts import Draft, DraftSource
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, CapacityError, UsageError
from amdnfs_runtime.generation import Generation
from amdnfs_runtime.health import Counters, EngineStats, Health
from amdnfs_runtime.limits import limits_of
from amdnfs_runtime.news import News, Request, tell
from amdnfs_runtime.pages import PagePool
from amdnfs_runtime.prefix import OnRemoved, OnStored, PrefixCache
from amdnfs_runtime.prompts import check_prompt, check_vocabulary, encode
from amdnfs_runtime.request import Output, SamplingParams
from amdnfs_runtime.scheduler import Call, Job, JobState, PrefillCall, Scheduler, VerifyCall
from amdnfs_runtime.speculation import Guesser, GuessSource, NgramSource
from amdnfs_runtime.structure import Constraint, Structure, StructureCompiler


class Engine:
    """Runs requests on a program."""

    def __init__(
        self,
        program: DeviceProgram,
        manifest: Manifest,
        target_name: str,
        tokenizer: Tokenizer | None,
        num_pages: int,
        config: EngineConfig,
        *,
        draft: Draft | None = None,
        clock: Callable[[], float] = time.perf_counter,
        on_stored: OnStored | None = None,
        on_removed: OnRemoved | None = None,
    ) -> None:
        """Makes the pools on the device.

        Args:
            program: The device.
            manifest: What the program expects.
            target_name: Which target of the manifest the program is for.
            tokenizer: Makes tokens of prompts and text of tokens; None for token ids only.
            num_pages: Pages of the pool, the null page included.
            config: Limits.
            draft: A small model that guesses next tokens; only for a program that checks guesses.
            clock: Seconds.
            on_stored: Told of pages that later prompts can use; see `prefix`.
            on_removed: Told of pages that are gone.

        Raises:
            ArtifactError: If the target has no prefill or no decode entry point.
            CapacityError: If the device does not hold the pools.
        """
        self.manifest = manifest
        self.target_name = target_name
        self.tokenizer = tokenizer
        self.config = config
        self.health = Health()
        self.counters = Counters()
        self._structures = None if tokenizer is None else StructureCompiler(tokenizer, manifest)
        self._names = ProgramNames(manifest.targets[target_name], target_name)
        self._clock = clock
        self._ids = itertools.count()
        self._pool = PagePool(num_pages, manifest.page_tokens)
        self._cache: PrefixCache | None = None
        if config.prefix_cache:
            self._cache = PrefixCache(self._pool, on_stored=on_stored, on_removed=on_removed)
        self._guesses = config.speculate and self._names.verify_tokens > 1
        assert draft is None or self._guesses, "see draft_bundle.check_can_guess"
        vocab = manifest.model.vocab_size
        self.draft = None if draft is None else DraftSource(draft, vocab, self.health, self.counters, clock)
        sources: list[GuessSource] = [NgramSource()] if self._guesses else []
        self._guesser = Guesser(sources if self.draft is None else [*sources, self.draft])
        limits = limits_of(self._names, config, manifest.targets[target_name].kind)
        self._scheduler = Scheduler(self._pool, limits, self._cache, self._guesser)
        self._program = program
        self._pools = program.make_pools(manifest, num_pages)
        self._requests: dict[str, Request] = {}
        self._generations: dict[Job, Generation] = {}
        self._meanwhile: Callable[[], None] | None = None

    @property
    def pool(self) -> PagePool:
        """The page pool."""
        return self._pool

    @property
    def has_work(self) -> bool:
        """Whether a request is waiting or running."""
        return bool(self._requests)

    @property
    def num_running(self) -> int:
        """Samples that hold pages."""
        return self._scheduler.num_running

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Requests that are waiting or running, in the order in which they came."""
        return tuple(self._requests)

    def prepare(self, prompt: str | Sequence[int], params: SamplingParams, request_id: str | None = None) -> Request:
        """Checks a request and makes it ready; takes nothing. Safe from any thread.

        Compiles the structure that is asked for, which takes up to a second for the first and some ms for others.

        Args:
            prompt: A text or token ids.
            params: How to choose tokens, and when to end.
            request_id: Name of the request; by default a new number.

        Raises:
            CapacityError: If the request can never fit the context or the pool; with numbers.
            UsageError: If the prompt is no prompt, an option names a token that the model does not have, or the
                structure is impossible.
        """
        if isinstance(prompt, str):
            if self.tokenizer is None:
                raise UsageError("this engine has no tokenizer: give token ids instead of text")
            prompt = encode(self.tokenizer, self.manifest, prompt)
        ids = check_prompt(prompt, self.manifest)
        if params.stop and self.tokenizer is None:
            raise UsageError("this engine has no tokenizer: it cannot look for stop strings")
        check_vocabulary([token for token, _ in params.bias], "logit_bias", self.manifest)
        check_vocabulary(params.stop_token_ids, "stop_token_ids", self.manifest)
        name = f"request-{next(self._ids)}" if request_id is None else request_id
        generations = [
            Generation(
                ids,
                params,
                self.manifest,
                self.tokenizer,
                request_id=name,
                index=index,
                constraint=None if params.structure is None else self._constraint(params.structure),
            )
            for index in range(params.n)
        ]
        self._check_fits(len(ids), generations[0].max_positions)
        return Request(name, params, generations)

    def start(self, request: Request) -> None:
        """Puts a request behind all others.

        Raises:
            UsageError: If a request of the same name is waiting or running.
        """
        self.check_name(request.request_id, self._requests)
        now, leader = self._clock(), None
        jobs = []
        for generation in request.generations:
            generation.arrived_s = now
            job = Job(
                generation.prompt_token_ids,
                self._pool,
                leader if self._cache is not None else None,
                most_tokens=generation.max_positions + 1 if self._guesses else None,
            )
            leader = leader or job
            jobs.append(job)
            self._generations[job] = generation
            self._scheduler.add(job)
        request.jobs = tuple(jobs)
        self._requests[request.request_id] = request

    @staticmethod
    def check_name(request_id: str, taken: Container[str]) -> None:
        """Checks that a request has a name of its own.

        Raises:
            UsageError: It has not.
        """
        if request_id in taken:
            raise UsageError(f"request {request_id!r} exists: wait until it has ended, or choose another name")

    def cancel(self, request_id: str) -> list[Output]:
        """Ends a request and frees its pages at once; the last outputs of its samples, none if it has ended."""
        request = self._requests.get(request_id)
        if request is None:
            return []
        outputs = []
        for job, generation in zip(request.jobs, request.generations, strict=True):
            if job.state is not JobState.DONE:
                generation.cancel()
                self._remove(job)
                outputs.append(generation.take_output())
        self.counters.num_cancelled += 1
        return outputs

    def step(self) -> list[Output]:
        """Runs one step.

        Returns:
            What is new, request by request; nothing if there is no work. A request whose device call failed ends with
            an output that has the error. All others go on.
        """
        return tell(self.advance())

    def advance(self, meanwhile: Callable[[], None] | None = None) -> list[News]:
        """Runs one step without making text.

        Args:
            meanwhile: Called once in the step: while the device is at work, if its program is queued, else before.

        Returns:
            What `tell` makes outputs of. That must be done before the samples go on: in the next step's `meanwhile` at
            the latest, and before a `cancel`.
        """
        began_s = self._clock()
        self._meanwhile = meanwhile
        news: list[News] = []
        for call in self._scheduler.plan():
            if call.jobs[0].state is JobState.DONE:  # an earlier piece of this prompt failed
                continue
            try:
                results = self._call(call)
            except AmdnfsError as error:
                self._do_meanwhile()
                news += self._device_failed(call, error)
                continue
            self.health.call_worked()
            self._scheduler.complete(call)
            if results is not None:
                news += self._take(call, *results)
        self._do_meanwhile()
        self.counters.num_steps += 1
        self.counters.step_s += self._clock() - began_s
        return news

    def _do_meanwhile(self) -> None:
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()

    def fail_all(self, error: AmdnfsError) -> list[Output]:
        """Ends all requests with an error and frees their pages; for whoever runs the engine and caught a bug."""
        self.health.call_failed(str(error))
        return [output for job in list(self._generations) for output in self._fail(job, error)]

    def now_s(self) -> float:
        """The engine's time, in seconds."""
        return self._clock()

    def stats(self) -> EngineStats:
        """Numbers for gauges and counters."""
        return EngineStats(
            num_waiting=self._scheduler.num_waiting,
            num_running=self._scheduler.num_running,
            num_preemptions=self._scheduler.num_preemptions,
            num_pages=self._pool.num_pages - 1,
            num_used_pages=self._pool.num_used,
            num_cached_pages=0 if self._cache is None else self._cache.num_pages,
            guesses=self._guesser.counts,
            totals=dataclasses.replace(self.counters),
        )

    def check_integrity(self) -> None:
        """Checks pages, prefix cache, scheduler and draft; for tests.

        Raises:
            InternalError: If something does not fit.
        """
        self._scheduler.check_integrity()
        if self.draft is not None:
            self.draft.check_integrity()

    def _call(self, call: Call) -> tuple[Any, Any] | None:
        """Makes one device call: greedy tokens and logits where wanted; None for a piece inside a prompt."""
        began_s = self._clock()
        for job in call.jobs:
            generation = self._generations[job]
            if generation.started_s is None:
                generation.started_s = began_s
        arguments = arguments_of(call, self.manifest.page_tokens)
        began_s = self._clock()
        self.health.call_began_s = began_s
        try:
            if not self._program.is_queued:
                self._do_meanwhile()
            greedy, logits, self._pools = self._program.call(self._names.name(call), *arguments, self._pools)
            self._do_meanwhile()
            if isinstance(call, PrefillCall) and not call.is_last:
                self._program.wait()
                return None
            choosing = [(row, self._generations[job]) for row, job in enumerate(call.jobs)]
            choosing = [(row, generation) for row, generation in choosing if not generation.takes_greedy]
            for _, generation in choosing:
                generation.look_ahead()
            greedy, top = read_choices(self._program, greedy)
            wanted = [
                row for row, generation in choosing if self._wants_logits(generation, greedy[row].tolist(), row, top)
            ]
            self.counters.num_rows_read += len(wanted)
            rows = dict(zip(wanted, self._program.read_rows(logits, wanted), strict=True)) if wanted else {}
            return greedy, rows
        finally:
            self.health.call_began_s = None
            self.counters.count_call(call, self._clock() - began_s)

    @staticmethod
    def _wants_logits(generation: Generation, choice: int | list[int], row: int, top: TopOfRow | None) -> bool:
        """Whether the logits of a row must be read; with guesses, any of the row's choices may need them."""
        if not isinstance(choice, int):
            return True
        return generation.needs_logits(choice) and (top is None or not generation.choose_from_top(top(row)))

    def _take(self, call: Call, greedy: Any, rows: dict[int, Any]) -> list[News]:
        """Gives each request of a call its next token, or several if guesses were right."""
        now = self._clock()
        news: list[News] = []
        choices = greedy.reshape(len(greedy), -1).tolist()
        for row, job in enumerate(call.jobs):
            generation = self._generations[job]
            guess = call.guesses[row] if isinstance(call, VerifyCall) else ()
            logits = rows[row].reshape(len(choices[row]), -1) if row in rows else None
            try:
                num_taken = generation.accept_run(choices[row], logits, guess, now)
            except AmdnfsError as error:
                if isinstance(error, ArtifactError):  # others are the request's own fault
                    self.health.call_failed(str(error))
                news += self._fail(job, error)
                continue
            job.tokens.extend(generation.token_ids[-num_taken:])
            if len(generation.token_ids) == num_taken:
                generation.num_cached_tokens = job.num_cached
                self.counters.num_prompt_tokens += job.num_prompt
                self.counters.num_cached_tokens += job.num_cached
            self.counters.num_generated_tokens += num_taken
            if guess:
                self._guesser.told(job.order, len(guess), num_taken - 1)
                self.counters.num_guessed_tokens += len(guess)
                self.counters.num_right_tokens += num_taken - 1
            if generation.finish_reason is not None:
                self._remove(job)
                self.counters.num_finished += 1
            elif num_taken > 1:
                self._scheduler.advance(job, num_taken - 1)
            news.append(generation)
        return news

    def _device_failed(self, call: Call, error: AmdnfsError) -> list[Output]:
        """Ends the requests of a call; what the device holds is not trusted any more."""
        self.health.call_failed(str(error))
        if self._cache is not None:
            self._cache.clear()
        return [output for job in call.jobs for output in self._fail(job, error)]

    def _fail(self, job: Job, error: AmdnfsError) -> list[Output]:
        generation = self._generations[job]
        self._remove(job)
        generation.cancel()
        self.counters.num_failed += 1
        return [Output(request_id=generation.request_id, index=generation.index, text="", token_ids=(), error=error)]

    def _remove(self, job: Job) -> None:
        """Frees the pages of a sample; with the last one its request is gone."""
        self._scheduler.remove(job)
        generation = self._generations.pop(job, None)
        request = None if generation is None else self._requests.get(generation.request_id)
        if request is not None and all(other.state is JobState.DONE for other in request.jobs):
            del self._requests[request.request_id]

    def _constraint(self, structure: Structure) -> Constraint:
        if self._structures is None:
            raise UsageError("this engine has no tokenizer: it cannot constrain a text")
        return self._structures.start(structure)

    def _check_fits(self, num_prompt: int, max_positions: int) -> None:
        needed, usable = self._pool.pages_for(max_positions), self._pool.num_pages - 1
        if needed > usable:
            raise CapacityError(
                f"the request needs {needed} pages of {self._pool.page_tokens} tokens ({num_prompt} of prompt, up to "
                f"{max_positions - num_prompt} generated), but the pool has {usable}; "
                "ask for fewer tokens, or load with more pages"
            )
