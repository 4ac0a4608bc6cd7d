"""What an engine tells about itself: whether it works, and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from amdnfs_runtime.scheduler import Call, PrefillCall
from amdnfs_runtime.speculation import GuessCounts


@dataclass(kw_only=True, slots=True)
class Health:
    """Whether the device works, as far as the calls tell. Written by the engine's thread, read by any."""

    is_ok: bool = True
    """Whether the last device call worked; True before the first."""
    reason: str = ""
    """What the last failure said; stays when the device works again."""
    num_failures: int = 0
    """Failed calls."""
    call_began_s: float | None = None
    """When the call that runs now began, by the engine's clock; None between calls."""

    def call_worked(self) -> None:
        """Notes a success."""
        self.is_ok = True

    def call_failed(self, reason: str) -> None:
        """Notes a failure."""
        self.is_ok = False
        self.reason = reason
        self.num_failures += 1


@dataclass(kw_only=True, slots=True)
class Counters:
    """Sums since the start."""

    num_finished: int = 0
    """Samples that came to their end."""
    num_failed: int = 0
    """Samples that ended with an error."""
    num_cancelled: int = 0
    """Requests that were cancelled."""
    num_prompt_tokens: int = 0
    """Tokens of prompts that have their first token."""
    num_cached_tokens: int = 0
    """Those of them that were in the prefix cache."""
    num_prefill_tokens: int = 0
    """Tokens that prefill calls computed, without padding, with those computed again after a pre-emption."""
    num_rows_read: int = 0
    """Rows of logits that the host read whole."""
    num_generated_tokens: int = 0
    """Tokens generated."""
    num_steps: int = 0
    """Steps."""
    num_prefill_calls: int = 0
    """Prefill calls."""
    num_decode_calls: int = 0
    """Decode calls."""
    num_decode_rows: int = 0
    """Requests in decode calls, without padding; over the calls it is the mean batch."""
    num_guessed_tokens: int = 0
    """Guessed tokens that calls checked."""
    num_right_tokens: int = 0
    """Those of them that were right."""
    num_draft_calls: int = 0
    """Calls of the draft."""
    step_s: float = 0.0
    """Seconds in steps."""
    device_s: float = 0.0
    """Those of them in device calls and in reading their results; the rest is the host's share."""

    def count_call(self, call: Call, seconds: float) -> None:
        """Adds a device call."""
        self.device_s += seconds
        if isinstance(call, PrefillCall):
            self.num_prefill_calls += 1
            self.num_prefill_tokens += call.count
        else:
            self.num_decode_calls += 1
            self.num_decode_rows += len(call.jobs)

    def count_draft_call(self, seconds: float) -> None:
        """Adds a device call of the draft."""
        self.device_s += seconds
        self.num_draft_calls += 1


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineStats:
    """Numbers at one moment."""

    num_waiting: int
    """Samples without pages."""
    num_running: int
    """Samples with pages."""
    num_preemptions: int
    """How often a running sample had to give its pages back."""
    num_pages: int
    """Pages that can be handed out."""
    num_used_pages: int
    """Pages that running samples hold."""
    num_cached_pages: int
    """Pages that later prompts can use, held by a running sample or not."""
    guesses: Mapping[str, GuessCounts]
    """Sums since the start by who guessed: `speculation.NGRAM`, `speculation.DRAFT`; those that are asked."""
    totals: Counters
    """Sums since the start."""
