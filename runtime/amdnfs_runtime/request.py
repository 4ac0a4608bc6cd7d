"""What a request asks for and what it gets back: plain data, checked when it is built.

How tokens are drawn is in `sampling`; when a request runs is the engine's job.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from amdnfs_runtime.checks import check_bool, check_int, checked_float
from amdnfs_runtime.errors import AmdnfsError, UsageError
from amdnfs_runtime.structure import Structure

MOST_LOGPROBS = 20
"""Most alternatives a token that are told; OpenAI's limit."""
MOST_SAMPLES = 128
"""Most samples of one prompt."""

_SEED_END = 2**64
_PENALTY_LEAST = 1e-3
_PENALTY_MOST = 1e3


class FinishReason(StrEnum):
    """Why a request ended."""

    LENGTH = "length"
    """`max_tokens` tokens were generated."""

    STOP = "stop"
    """A stop string or a stop token id came up, or the structure that was asked for is complete."""

    EOS = "eos"
    """The model ended the text with one of its end tokens."""

    CONTEXT = "context"
    """Prompt and generated tokens fill the context that the bundle was compiled for."""

    CANCELLED = "cancelled"
    """Whoever asked wanted no more."""


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

    presence_penalty: float = 0.0
    """Taken from the logit of every token that was generated before; -2 to 2, where 0 changes nothing."""

    frequency_penalty: float = 0.0
    """Taken from the logit of a token for each time it was generated before; -2 to 2, where 0 changes nothing."""

    logit_bias: Mapping[int, float] | Sequence[tuple[int, float]] = ()
    """Added to the logits of tokens, id -> -100 to 100; kept as pairs in the order of the ids. Penalties come first."""

    logprobs: int | None = None
    """Tell the logarithm of each token's probability, and those of the `logprobs` most likely tokens; 0 to 20. They are
    the model's own: before penalties, bias, temperature and the limits. None, the default, tells none."""

    n: int = 1
    """Samples of the prompt, which is computed once; 1 to 128. Each has random numbers of its own, also with a seed."""

    structure: Structure | None = None
    """What the text must look like: a JSON schema, a regular expression, a grammar. None, the default, is any text.

    End tokens come up when the structure allows them; before `min_tokens`, and with `ignore_eos`, only when it allows
    nothing else. A text that is cut by a limit or a stop string is a beginning of what was asked for."""

    def __post_init__(self) -> None:
        """Check every field, and store whole numbers given for float fields as floats."""
        check_int("max_tokens", self.max_tokens, least=1)
        check_int("min_tokens", self.min_tokens, least=0)
        if self.min_tokens > self.max_tokens:
            raise UsageError(f"min_tokens must be <= max_tokens ({self.max_tokens}), not {self.min_tokens}")
        check_int("top_k", self.top_k, least=0)
        if self.seed is not None:
            check_int("seed", self.seed, least=0, end=_SEED_END)
        for name, least, most in (
            ("temperature", 0.0, math.inf),
            ("top_p", 0.0, 1.0),
            ("min_p", 0.0, 1.0),
            ("repetition_penalty", _PENALTY_LEAST, _PENALTY_MOST),
        ):
            value = checked_float(name, getattr(self, name), least=least, most=most, open_below=name == "top_p")
            object.__setattr__(self, name, value)
        for name in ("presence_penalty", "frequency_penalty"):
            object.__setattr__(self, name, checked_float(name, getattr(self, name), least=-2.0, most=2.0))
        object.__setattr__(self, "stop", _checked_stops(self.stop))
        if not isinstance(self.stop_token_ids, tuple):
            raise UsageError(f"stop_token_ids must be a tuple of integers, not {self.stop_token_ids!r}")
        for token_id in self.stop_token_ids:
            check_int("stop_token_ids", token_id, least=0)
        check_bool("ignore_eos", self.ignore_eos)
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        if self.logprobs is not None:
            check_int("logprobs", self.logprobs, least=0, end=MOST_LOGPROBS + 1)
        check_int("n", self.n, least=1, end=MOST_SAMPLES + 1)
        if self.structure is not None and not isinstance(self.structure, Structure):
            raise UsageError(f"structure must be a Structure, not {self.structure!r:.80}")

    @property
    def bias(self) -> tuple[tuple[int, float], ...]:
        """`logit_bias` as it is kept."""
        return tuple(self.logit_bias)  # type: ignore[arg-type]

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

    num_cached_tokens: int = 0
    """Tokens of the prompt that were in the prefix cache and were not computed again."""

    queue_s: float = 0.0
    """Seconds that the request waited before its prefill."""

    @property
    def prefill_tokens_per_s(self) -> float | None:
        """Computed tokens of the prompt per second of prefill; None when nothing was timed."""
        return _rate(self.num_prompt_tokens - self.num_cached_tokens, self.prefill_s)

    @property
    def decode_tokens_per_s(self) -> float | None:
        """Tokens after the first per second of decode; None when there is none or nothing was timed."""
        return _rate(self.num_generated_tokens - 1, self.decode_s)


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLogprob:
    """How likely the model found a token."""

    token_id: int
    """The token that was chosen."""

    logprob: float
    """Natural logarithm of its probability; <= 0."""

    top: tuple[tuple[int, float], ...]
    """The most likely tokens and the logarithms of their probabilities, the likeliest first."""


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

    index: int = 0
    """Which of the `n` samples of its prompt it is."""

    logprobs: tuple[TokenLogprob, ...] | None = None
    """One entry a generated token, if they were asked for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Output:
    """What one step added to one sample of a request."""

    request_id: str
    """The request."""

    index: int
    """The sample."""

    text: str
    """Text that became certain; often empty, never half a character or part of a stop string."""

    token_ids: tuple[int, ...]
    """Tokens generated."""

    logprobs: tuple[TokenLogprob, ...] = ()
    """One entry a token of `token_ids`, if they were asked for."""

    result: GenerationResult | None = None
    """The whole sample, with its last output; None before, and if it failed."""

    error: AmdnfsError | None = None
    """Why the sample failed; its last output."""

    @property
    def is_last(self) -> bool:
        """Whether the sample ends with this output."""
        return self.result is not None or self.error is not None


def _rate(num_tokens: int, seconds: float) -> float | None:
    return num_tokens / seconds if num_tokens > 0 and seconds > 0 else None


def _checked_stops(given: object) -> tuple[str, ...]:
    stops = (given,) if isinstance(given, str) else given
    if not isinstance(stops, (list, tuple)) or not all(isinstance(stop, str) and stop for stop in stops):
        raise UsageError(f"stop must be a string or a list of strings, none of them empty, not {given!r}")
    return tuple(stops)


def _checked_bias(given: object) -> tuple[tuple[int, float], ...]:
    try:
        pairs = dict(given)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise UsageError(f"logit_bias must be a mapping of token ids to numbers, not {given!r}") from error
    for token_id in pairs:
        check_int("logit_bias", token_id, least=0)
    name = "logit_bias[{}]".format
    return tuple((key, checked_float(name(key), pairs[key], least=-100.0, most=100.0)) for key in sorted(pairs))
