"""Which requests run next, with which pages. Pure Python: knows neither device, text nor clock.

A step is a list of calls, in this order:

    1. every running request whose last token only is not computed yet decodes: one call, or several if they are many
    2. requests whose prompt is begun get further pieces of it
    3. waiting requests are let in, first come first served, while a slot, pages and tokens of the step are left

Nobody starves: a step always holds all that decode and one piece of a prompt, and nobody waiting is passed by a later
one (but a sample waits until the first sample of its prompt has computed the pages that they share).

Pages are taken as they are needed: for the whole prompt when a request is let in, then one by one. When none is left,
the request that came last gives its pages back and waits again; it is computed anew when there is room, mostly from the
prefix cache, and goes on with the same text.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from operator import attrgetter

from amdnfs_runtime.pages import InternalError, PagePool, RequestPages
from amdnfs_runtime.prefix import PageHashes, PrefixCache
from amdnfs_runtime.speculation import Ask, Guesser

_ORDER = attrgetter("order")


class JobState(Enum):
    """Where a job is."""

    WAITING = auto()
    """Holds no pages."""
    RUNNING = auto()
    """Holds pages for all its tokens but perhaps the last."""
    DONE = auto()
    """Removed."""


class Job:
    """One generation as the scheduler sees it."""

    __slots__ = (
        "hashes",
        "leader",
        "most_tokens",
        "num_cached",
        "num_computed",
        "num_prompt",
        "num_stored",
        "order",
        "pages",
        "state",
        "tokens",
    )

    def __init__(
        self, prompt: Sequence[int], pool: PagePool, leader: Job | None = None, *, most_tokens: int | None = None
    ) -> None:
        """Prepares a job; takes no pages.

        Args:
            prompt: Its tokens; at least one.
            pool: Where its pages come from.
            leader: Another job with the same prompt, which computes it for both.
            most_tokens: Most tokens that prompt and text can have; without it nothing is guessed for this job.
        """
        self.order = -1
        self.tokens = list(prompt)
        self.num_prompt = len(self.tokens)
        self.num_computed = 0
        self.num_cached = 0
        self.num_stored = 0
        self.pages = RequestPages(pool)
        self.hashes = PageHashes(self.tokens, pool.page_tokens)
        self.leader = leader
        self.most_tokens = most_tokens or 0
        self.state = JobState.WAITING

    @property
    def num_left(self) -> int:
        """Tokens whose keys and values are not in the pool yet; at least 1 before a token is generated."""
        return len(self.tokens) - self.num_computed

    @property
    def is_ready(self) -> bool:
        """Whether nobody is about to compute the same prompt."""
        leader = self.leader
        return leader is None or leader.state is JobState.DONE or leader.num_computed >= leader.num_prompt


@dataclass(frozen=True, slots=True)
class PrefillCall:
    """A piece of one request's tokens."""

    job: Job
    """Whose."""
    begin: int
    """First token."""
    count: int
    """Tokens."""
    size: int
    """Tokens that the program takes; >= count."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """The requests in the call."""
        return (self.job,)

    @property
    def is_last(self) -> bool:
        """Whether the next token of the request comes out of this call."""
        return self.begin + self.count == len(self.job.tokens)


@dataclass(frozen=True, slots=True)
class DecodeCall:
    """The last token of several requests."""

    jobs: tuple[Job, ...]
    """Whose; at least one."""
    size: int
    """Requests that the program takes; >= the number of jobs."""


@dataclass(frozen=True, slots=True)
class VerifyCall:
    """The last token of several requests, and guesses of what follows."""

    jobs: tuple[Job, ...]
    """Whose; at least one."""
    guesses: tuple[tuple[int, ...], ...]
    """Guessed tokens of each; perhaps none."""
    size: int
    """Requests that the program takes; >= the number of jobs."""
    tokens: int
    """Tokens of each request that the program takes; more than the longest guess."""


Call = PrefillCall | DecodeCall | VerifyCall


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a step can hold."""

    prefill_sizes: tuple[int, ...]
    """Tokens of the prefill programs, ascending."""
    decode_sizes: tuple[int, ...]
    """Requests of the decode programs, ascending."""
    verify_sizes: tuple[int, ...] = ()
    """Requests of the verify programs, ascending. If they hold fewer than the decode programs, steps with more requests
    have no guesses."""
    verify_tokens: int = 0
    """Tokens of each request that the verify programs take; 0 if there are none."""
    max_running: int
    """Most requests that hold pages."""
    max_step_tokens: int
    """Tokens of a step, padding included."""


class Scheduler:
    """Decides what the next step computes."""

    def __init__(
        self, pool: PagePool, limits: Limits, cache: PrefixCache | None, guesser: Guesser | None = None
    ) -> None:
        """Starts without requests.

        Args:
            pool: The pages.
            limits: What a step can hold.
            cache: Where computed pages are found again; None for nowhere.
            guesser: Who guesses next tokens, if the limits have programs that check guesses.
        """
        self._pool = pool
        self._limits = limits
        self._cache = cache
        self._guesser = guesser if limits.verify_tokens else None
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._num_jobs = 0
        self.num_preemptions = 0
        """How often a running request had to give its pages back."""

    @property
    def num_waiting(self) -> int:
        """Requests without pages."""
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Requests with pages."""
        return len(self._running)

    def add(self, job: Job) -> None:
        """Puts a new job behind all others. It must fit into the pool when it is alone."""
        self._num_jobs += 1
        job.order = self._num_jobs
        self._waiting.append(job)

    def remove(self, job: Job) -> None:
        """Ends a job, wherever it is: its pages are free at once. A second call does nothing."""
        if job.state is not JobState.DONE:
            self._take_out(job)
            job.pages.release()
            job.state = JobState.DONE
            if self._guesser is not None:
                self._guesser.forget(job.order)

    def plan(self) -> list[Call]:
        """The calls of the next step; empty only if there is no job.

        Takes pages, and takes them away from others if it must. Calls of the plan are made in order; `complete` is told
        of each that worked. A job that was removed in between is left out by whoever makes the calls.
        """
        self._grow_running()
        budget = self._limits.max_step_tokens - sum(job.num_left == 1 for job in self._running)
        prefills: list[PrefillCall] = []
        for job in self._running:
            budget = self._add_prefills(job, budget, prefills)
        while budget >= self._limits.prefill_sizes[0] or not prefills:
            admitted = self._admit_next()
            if admitted is None:
                break
            budget = self._add_prefills(admitted, budget, prefills)
        return [*self._decodes(), *prefills]

    def complete(self, call: Call) -> None:
        """Notes that a call worked: the keys and values of its tokens are in the pool. Guesses count with `advance`."""
        count = call.count if isinstance(call, PrefillCall) else 1
        for job in call.jobs:
            self.advance(job, count)

    def advance(self, job: Job, count: int) -> None:
        """Notes that the keys and values of `count` more tokens of a running job are in the pool."""
        job.num_computed += count
        num_full = job.num_computed // self._pool.page_tokens
        if self._cache is not None and num_full > job.num_stored:
            self._cache.store(job.hashes, job.pages.pages, job.num_stored, num_full)
            job.num_stored = num_full

    def check_integrity(self) -> None:
        """Checks what must hold between steps; for tests, as it is O(jobs and pages).

        Raises:
            InternalError: A page is not exactly where it should be, or a job is in a wrong list.
        """
        self._pool.check_integrity()
        if self._cache is not None:
            self._cache.check_integrity()
        references: dict[int, int] = {}
        for job in self._running:
            for page in job.pages.pages:
                references[page] = references.get(page, 0) + 1
            if job.state is not JobState.RUNNING or not 0 <= job.num_computed < len(job.tokens):
                raise InternalError(f"job {job.order} runs, but is {job.state} with {job.num_left} tokens left")
            if job.pages.token_capacity < job.num_computed:
                raise InternalError(f"job {job.order}: {job.num_computed} tokens in {len(job.pages.pages)} pages")
        for page, count in references.items():
            if self._pool.refcount(page) != count:
                raise InternalError(f"page {page}: {self._pool.refcount(page)} references, {count} requests hold it")
        if len(references) != self._pool.num_used:
            raise InternalError(f"{self._pool.num_used} pages are used, but requests hold {len(references)}")
        if any(job.state is not JobState.WAITING or job.pages.pages or job.num_computed for job in self._waiting):
            raise InternalError("a waiting job is in a wrong state or holds pages")
        for jobs in (self._running, self._waiting):
            if [job.order for job in jobs] != sorted({job.order for job in jobs}):
                raise InternalError("jobs are not in the order in which they came")

    def _grow_running(self) -> None:
        """Gives every running request room for its tokens, at the cost of those that came last."""
        index = 0
        while index < len(self._running):
            job = self._running[index]
            index += 1
            if len(job.tokens) <= job.pages.token_capacity:
                continue
            while self._pool.pages_for(len(job.tokens)) - len(job.pages.pages) > self._pool.num_free:
                self._preempt(self._running[-1])
                if job.state is JobState.WAITING:
                    return
            job.pages.ensure(len(job.tokens))

    def _preempt(self, job: Job) -> None:
        self._take_out(job)
        job.pages.release()
        job.num_computed = job.num_stored = 0
        job.state = JobState.WAITING
        if self._guesser is not None:
            self._guesser.release(job.order)
        bisect.insort(self._waiting, job, key=_ORDER)
        self.num_preemptions += 1

    def _admit_next(self) -> Job | None:
        """Lets the next waiting request in, if there is a slot and room for all its tokens."""
        if len(self._running) >= self._limits.max_running:
            return None
        index = next((index for index, job in enumerate(self._waiting) if job.is_ready), None)
        if index is None:
            return None
        job = self._waiting[index]
        # One page for each running request is left, or what was let in might be thrown out by the next step.
        num_spare = self._pool.num_free - len(self._running)
        if num_spare < 1:
            return None
        found = (
            []
            if self._cache is None
            else self._cache.match(job.hashes, (len(job.tokens) - 1) // self._pool.page_tokens)
        )
        num_missing = self._pool.pages_for(len(job.tokens)) - len(found)
        num_idle = sum(self._pool.refcount(page) == 0 for page in found)
        if num_missing + num_idle > num_spare:
            return None
        job.pages.adopt(found)
        job.pages.ensure(len(job.tokens))
        job.num_stored = len(found)
        job.num_computed = len(found) * self._pool.page_tokens
        job.num_cached = min(job.num_computed, job.num_prompt)
        job.state = JobState.RUNNING
        del self._waiting[index]
        bisect.insort(self._running, job, key=_ORDER)
        return job

    def _add_prefills(self, job: Job, budget: int, prefills: list[PrefillCall]) -> int:
        """Adds pieces of a request while tokens of the step are left; returns what is left of them."""
        begin = job.num_computed
        while (num_left := len(job.tokens) - begin) > 1:
            size = self._prefill_size(num_left, budget)
            if size is None and prefills:
                break
            size = self._limits.prefill_sizes[0] if size is None else size
            call = PrefillCall(job, begin, min(size, num_left), size)
            prefills.append(call)
            begin += call.count
            budget -= size
        return budget

    def _prefill_size(self, num_left: int, budget: int) -> int | None:
        """The smallest program that holds what is left, else the largest; of those that fit the step."""
        fitting = [size for size in self._limits.prefill_sizes if size <= budget]
        return next((size for size in fitting if size >= num_left), fitting[-1] if fitting else None)

    def _decodes(self) -> list[DecodeCall | VerifyCall]:
        """All running requests of which the last token is left, in as few calls as the programs allow."""
        jobs = [job for job in self._running if job.num_left == 1]
        sizes, tokens = self._limits.decode_sizes, self._limits.verify_tokens
        found = self._guesses(jobs)
        calls: list[DecodeCall | VerifyCall] = []
        for begin in range(0, len(jobs), sizes[-1]):
            part = tuple(jobs[begin : begin + sizes[-1]])
            guesses = tuple(tuple(found.get(job.order, ())) for job in part)
            if any(guesses):
                size = next(size for size in self._limits.verify_sizes if size >= len(part))
                calls.append(VerifyCall(part, guesses, size, tokens))
            else:
                calls.append(DecodeCall(part, next(size for size in sizes if size >= len(part))))
        return calls

    def _guesses(self, jobs: Sequence[Job]) -> dict[int, list[int]]:
        """Guessed tokens of jobs by their order, and pages for them.

        No job gets more than it can still generate, and than there is room for without pressing.
        """
        if self._guesser is None:
            return {}
        most_jobs = self._limits.verify_sizes[-1]
        if len(jobs) > most_jobs < self._limits.decode_sizes[-1]:
            return {}
        asks = []
        num_spare = max(0, self._pool.num_free - len(self._running))
        for job in jobs:
            num_tokens = len(job.tokens)
            most = min(self._limits.verify_tokens, job.most_tokens - num_tokens) - 1
            most = min(most, job.pages.token_capacity + num_spare * self._pool.page_tokens - num_tokens)
            if most > 0:
                num_spare -= max(0, self._pool.pages_for(num_tokens + most) - job.pages.num_pages)
                asks.append(Ask(job.order, job.tokens, most))
        guesses = self._guesser.guess(asks)
        for job in jobs:
            job.pages.ensure(len(job.tokens) + len(guesses.get(job.order, ())))
        return guesses

    def _take_out(self, job: Job) -> None:
        jobs = self._running if job.state is JobState.RUNNING else self._waiting
        index = bisect.bisect_left(jobs, job.order, key=_ORDER)
        if index == len(jobs) or jobs[index] is not job:
            raise InternalError(f"job {job.order} is {job.state}, but not in its list")
        del jobs[index]
