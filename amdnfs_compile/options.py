"""What a user can choose about a compile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from amdnfs_runtime.errors import UsageError

from amdnfs_compile.quantize.scheme import GroupSize, Quantize, Scheme

MOST_GUESSES = 15
"""Most tokens that a step can check beside the one that is certain; more are hardly ever right."""


class Dtype(StrEnum):
    """Storage type of weights, activations and cache."""

    AUTO = "auto"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


class KvCacheDtype(StrEnum):
    """Storage type of keys and values."""

    AUTO = "auto"
    FP8 = "fp8"


@dataclass(frozen=True, kw_only=True, slots=True)
class CompileOptions:
    """Options of a compile; the command line takes its defaults from here."""

    dtype: Dtype = Dtype.AUTO
    """Storage type; `auto` takes the configuration's, else that of most weights."""
    quantize: Quantize = Quantize.NONE
    """How the weights of the decoder layers are stored; see `amdnfs_compile.quantize.scheme`."""
    group_size: GroupSize = GroupSize.AUTO
    """Which elements of a quantised weight share a scale; `auto` takes the default of `quantize`."""
    zero_points: bool = False
    """Whether quantised weights have zero points."""
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.AUTO
    """Storage type of keys and values: that of the activations, or e4m3 in the target's flavour, with scales of 1."""
    page_tokens: int = 16
    """Tokens of a KV page: 16, 32 or 64."""
    prefill_chunks: tuple[int, ...] = (16, 128)
    """Chunk sizes of prefill programs, in tokens. A prompt is cut into them; the rest is padded to the smallest that
    holds it."""
    decode_batches: tuple[int, ...] = (1, 8)
    """Batch sizes of decode programs. A smaller batch is padded to the smallest that holds it."""
    speculate: int = 0
    """Most guessed tokens that a step checks for each request; 0 to 15. Each decode program then has a larger twin that
    takes them, which makes the bundle larger. 0, the default, makes none."""
    context_tokens: int | None = None
    """Longest prompt plus text; by default the model's own limit."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    offline: bool = False
    """Never ask the hub; use its local cache only."""
    jobs: int = 1
    """Targets to compile at the same time."""

    def __post_init__(self) -> None:
        """Validates ranges.

        Raises:
            UsageError: Naming the option as one types it, its value and what is allowed.
        """
        if self.quantize is Quantize.NONE and (self.group_size is not GroupSize.AUTO or self.zero_points):
            name = "--zero-points" if self.zero_points else f"--group-size {self.group_size}"
            raise UsageError(f"{name}: there is nothing to quantise; add e.g. --quantize int4")
        _ = self.scheme
        if self.page_tokens not in (16, 32, 64):
            raise UsageError(f"--page-tokens {self.page_tokens}: allowed are 16, 32 and 64")
        for name, sizes, least, most in (
            ("--prefill-chunks", self.prefill_chunks, 2, 8192),
            ("--decode-batches", self.decode_batches, 1, 1024),
        ):
            if not sizes or list(sizes) != sorted(set(sizes)) or not all(least <= size <= most for size in sizes):
                raise UsageError(f"{name} {','.join(map(str, sizes))}: give growing sizes from {least} to {most}")
        if not 0 <= self.speculate <= MOST_GUESSES:
            raise UsageError(f"--speculate {self.speculate}: must be from 0 to {MOST_GUESSES}")
        if self.context_tokens is not None and self.context_tokens < 1:
            raise UsageError(f"--context {self.context_tokens}: must be at least 1")
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs}: must be at least 1")

    @property
    def scheme(self) -> Scheme | None:
        """How weights are quantised; None if they are not.

        Raises:
            UsageError: If the options do not go together.
        """
        if self.quantize is Quantize.NONE:
            return None
        return Scheme(quantize=self.quantize, group_size=self.group_size, zero_points=self.zero_points)
