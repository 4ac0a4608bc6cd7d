"""How an engine runs: plain data, checked when it is built. How one request runs is in `request`."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_runtime.checks import check_bool, check_int, checked_float
from amdnfs_runtime.errors import CapacityError, UsageError

LEAST_PAGES = 2
"""A pool has the null page and at least one to hand out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """Limits of an engine.

    Raises:
        UsageError: A field has a wrong type or is out of range; the message names the field and what is allowed.

    >>> EngineConfig(kv_pages=64, max_running=8).prefix_cache
    True
    """

    kv_pages: int | None = None
    """Pages of the KV pool, the null page included; >= 2. None, the default, sizes it by the memory."""

    memory_fraction: float | None = None
    """Share of the device's free memory, less the weights, that the KV pool takes; > 0 and <= 1. None, the default,
    takes what full contexts for `max_running` requests need, within the limits of `memory.pool_pages`."""

    max_running: int | None = None
    """Most requests that decode at once; >= 1. More than the largest decode program holds takes several calls a step.
    None, the default, is as many as it holds."""

    max_step_tokens: int | None = None
    """Tokens that the calls of a step compute, decode and padding included; >= 1. More makes prompts faster and running
    texts less even. A step always holds all running requests and one piece of a prompt, however small this is.
    None, the default, is twice the largest prefill program plus `max_running`: in simulations, once was too little for
    the prompts that came, and more made the time between tokens less even."""

    prefix_cache: bool = True
    """Keep computed pages, and use them for later prompts with the same beginning."""

    speculate: bool = True
    """Guess the next tokens of texts that repeat themselves, if the bundle has programs that check guesses
    (`amdnfs-compile --speculate K`)."""

    call_timeout_s: float = 120.0
    """After this time a device call counts as stuck, and the requests that wait for it fail; seconds, > 0. The default
    is far above any call on a GPU; an emulator needs more."""

    def __post_init__(self) -> None:
        """Check every field."""
        if self.kv_pages is not None:
            check_int("kv_pages", self.kv_pages, least=LEAST_PAGES)
        if self.memory_fraction is not None:
            fraction = checked_float("memory_fraction", self.memory_fraction, least=0.0, most=1.0, open_below=True)
            object.__setattr__(self, "memory_fraction", fraction)
        if self.kv_pages is not None and self.memory_fraction is not None:
            raise UsageError("give either kv_pages or memory_fraction, not both: each sets the size of the pool")
        for name in ("max_running", "max_step_tokens"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), least=1)
        check_bool("prefix_cache", self.prefix_cache)
        check_bool("speculate", self.speculate)
        timeout = checked_float("call_timeout_s", self.call_timeout_s, least=0.0, most=1e9, open_below=True)
        object.__setattr__(self, "call_timeout_s", timeout)


def check_num_pages(num_pages: object) -> None:
    """Checks the number of pages that a user gave.

    Raises:
        CapacityError: The pool would have no page to hand out.
        UsageError: It is no whole number.
    """
    if not isinstance(num_pages, int) or isinstance(num_pages, bool):
        raise UsageError(f"num_pages must be a whole number, not {num_pages!r}")
    if num_pages < LEAST_PAGES:
        raise CapacityError(
            f"num_pages={num_pages}: the pool needs at least {LEAST_PAGES} pages, one of which is never handed out"
        )
