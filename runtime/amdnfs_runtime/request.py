"""What a request asks for and what it gets back: plain data, checked when it is built.

How tokens are drawn is in `sampling`; when a request runs is the engine's job.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from amdnfs_runtime.errors import UsageError

_SEED_END = 2**64
_PENALTY_LEAST = 1e-3
_PENALTY_MOST = 1e3


class FinishReason(StrEnum):
    """Why a request ended."""

    LENGTH = "length"
    """`max_tokens` tokens were generated."""

    STOP = "stop"
    """A stop string or a stop token id came up."""

    EOS = "eos"
    """The model ended the text with one of its end tokens."""

    CONTEXT = "context"
    """Prompt and generated tokens fill the context that the bundle was compiled for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingParams:
    """How the tokens of one request are chosen, and when it ends.

    Raises:
        UsageError: A field has a wrong type or is out of range; the message names the field and what is allowed.

    >>> SamplingParams(temperature=0.8, top_p=0.95, seed=7).is_greedy
    False
    """

    max_tokens: int = 128
    """Most tokens to generate; >= 1. Enough for a paragraph, so that a forgotten limit does no harm."""

    min_tokens: int = 0
    """Tokens to generate before anything but a limit may end the request; 0 <= min_tokens <= max_tokens.

    No end token and no stop token comes up among them, and a stop string that they complete is plain text. One that
    begins in them and is complete only later ends the text as ever.
    """

    temperature: float = 0.0
    """Divides the logits; finite and >= 0. 0, the default, takes the most likely token: repeatable without a seed."""

    top_k: int = 0
    """Keep the `top_k` most likely tokens; >= 0, where 0 keeps all."""

    top_p: float = 1.0
    """Keep the most likely tokens until their probability reaches `top_p`; 0 < top_p <= 1, where 1 keeps all."""

    min_p: float = 0.0
    """Keep tokens at least `min_p` times as likely as the most likely one; 0 <= min_p <= 1, where 0 keeps all."""

    repetition_penalty: float = 1.0
    """Makes tokens of the prompt and of the text so far less likely when > 1; 0.001 to 1000, where 1 changes nothing.

    The range is wider than any use; it keeps penalised float32 logits within float64.
    """

    seed: int | None = None
    """Seed of the request's own random numbers; 0 <= seed < 2**64. None draws one from the operating system."""

    stop: Sequence[str] = ()
    """Strings that end the text, none of them empty: one string, or a list or tuple; kept as a tuple. The text is cut
    before the first that comes up."""

    stop_token_ids: tuple[int, ...] = ()
    """Token ids that end the text, besides the model's own end tokens; each >= 0."""

    ignore_eos: bool = False
    """Go on after the model's end tokens; for measurements that need a fixed number of tokens."""

    def __post_init__(self) -> None:
        """Check every field, and store whole numbers given for float fields as floats."""
        _check_int("max_tokens", self.max_tokens, least=1)
        _check_int("min_tokens", self.min_tokens, least=0)
        if self.min_tokens > self.max_tokens:
            raise UsageError(f"min_tokens must be <= max_tokens ({self.max_tokens}), not {self.min_tokens}")
        _check_int("top_k", self.top_k, least=0)
        if self.seed is not None:
            _check_int("seed", self.seed, least=0, end=_SEED_END)
        for name, least, most in (
            ("temperature", 0.0, math.inf),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", _PENALTY_LEAST, _PENALTY_MOST),
        ):
            value = _checked_float(name, getattr(self, name), least=least, most=most, open_below=name == "top_p")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "stop", _checked_stops(self.stop))
        if not isinstance(self.stop_token_ids, tuple):
            raise UsageError(f"stop_token_ids must be a tuple of integers, not {self.stop_token_ids!r}")
        for token_id in self.stop_token_ids:
            _check_int("stop_token_ids", token_id, least=0)
        if not isinstance(self.ignore_eos, bool):
            raise UsageError(f"ignore_eos must be True or False, not {self.ignore_eos!r}")

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken, so that no random number is drawn."""
        return self.temperature == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Where the time of one request went. The first generated token comes from the prefill, the others from decode."""

    prefill_s: float
    """Seconds from the start of the prefill to the first token."""

    decode_s: float
    """Seconds from the first token to the last."""

    num_prompt_tokens: int
    """Tokens of the prompt."""

    num_generated_tokens: int
    """Tokens generated, the one of the prefill included."""

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Prompt tokens per second of prefill; None when nothing was timed."""
        return _rate(self.num_prompt_tokens, self.prefill_s)

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first per second of decode; None when there is none or nothing was timed."""
        return _rate(self.num_generated_tokens - 1, self.decode_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerationResult:
    """A finished request."""

    prompt_token_ids: tuple[int, ...]
    """The prompt as the model saw it."""

    token_ids: tuple[int, ...]
    """The generated tokens, in order."""

    text: str
    """The generated text, without special tokens and cut before a stop string."""

    finish_reason: FinishReason
    """Why generation ended."""

    timings: Timings
    """How long it took."""


def _rate(num_tokens: int, seconds: float) -> float | None:
    return num_tokens / seconds if num_tokens > 0 and seconds > 0 else None


def _check_int(name: str, value: object, *, least: int, end: int | None = None) -> None:
    allowed = f">= {least}" if end is None else f">= {least} and < {end}"
    is_int = isinstance(value, int) and not isinstance(value, bool)
    if not is_int or value < least or (end is not None and value >= end):  # type: ignore[operator]
        raise UsageError(f"{name} must be an integer {allowed}, not {value!r}")


def _checked_float(name: str, value: object, *, least: float, most: float, open_below: bool) -> float:
    allowed = f"{'>' if open_below else '>='} {least:g}" + ("" if math.isinf(most) else f" and <= {most:g}")
    message = f"{name} must be a finite number {allowed}, not {value!r}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UsageError(message)
    try:
        number = float(value)
    except OverflowError as error:
        raise UsageError(message) from error
    if not math.isfinite(number) or not least <= number <= most or (open_below and number == least):
        raise UsageError(message)
    return number


def _checked_stops(given: object) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) and stop for stop in stops):
        raise UsageError(f"stop must be a string or a list of strings, none of them empty, not {given!r}")
    return tuple(stops)
