"""A paged attention and the vectors that compute it: sizes, and the types of what a workgroup holds."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.attention.paged_attention import PagedAttention
from amdnfs_passes.mlir_text import ELEMENT_BYTES, tensor
from amdnfs_passes.vectors.product import Vectors

UNROLL = 4
"""Numbers of the head dim that a step of the result takes."""
_MOST_STACK_BYTES = 24 * 1024
"""Scratch of a workgroup; IREE 3.13.0 refuses 32 KiB."""

_LANES = (16, 8, 4)
"""Sizes of vectors: registers, halves and quarters of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorAttention:
    """An attention, and the vectors that compute it."""

    facts: PagedAttention
    """The attention."""
    heads: int
    """Query heads of a workgroup, all of one KV head."""
    tokens: int
    """Tokens of a workgroup."""
    lanes: int
    """Rows of a workgroup: token t of head h is row h * tokens + t. What is left over is zero."""
    keys: int
    """Keys at a time."""
    has_pairs: bool
    """Whether pairs of bf16 are multiplied."""

    @property
    def scores(self) -> str:
        """The type of a number of each row."""
        return f"vector<{self.lanes}xf32>"

    @property
    def pairs(self) -> str:
        """The type of a pair of numbers of each row."""
        return f"vector<{2 * self.lanes}xbf16>"

    @property
    def pool_type(self) -> str:
        """The type of the pool."""
        a = self.facts
        return f"tensor<?x2x{a.page_tokens}x{a.kv_heads}x{a.head_dim}x{a.element}>"

    @property
    def query_scratch(self) -> str:
        """The type of the queries with rows as lanes."""
        if self.has_pairs:
            return tensor((self.facts.head_dim // 2, 2 * self.lanes), "bf16")
        return tensor((self.facts.head_dim, self.lanes), "f32")

    @property
    def value_scratch(self) -> str:
        """The type of interleaved values."""
        return tensor((self.keys // 2, 2 * self.facts.head_dim), "bf16")

    @property
    def result_scratch(self) -> str:
        """The type of the result with rows as lanes."""
        return tensor((self.facts.head_dim, self.lanes), "f32")

    @property
    def stack_bytes(self) -> int:
        """Bytes of all scratch, and of the workgroup's part of the result."""
        size = ELEMENT_BYTES[self.facts.element]
        lane_bytes = (2 if self.has_pairs else 4) + 4 + size
        return self.facts.head_dim * (self.lanes * lane_bytes + (2 * self.keys if self.has_pairs else 0))


def match_vectors(a: PagedAttention, vectors: Vectors) -> VectorAttention | str:
    """How a processor computes `a` in vectors; why not, if it cannot.

    Only half or a quarter of a register is used where rows do not fill more, or the scratch would be too large.
    """
    keys = min(16 if vectors.registers >= 32 else 8, a.page_tokens)
    has_pairs = a.element == "bf16" and vectors.has_bf16_pairs and keys % 2 == 0
    if a.has_bytes:
        return "not in vectors: the cache holds fp8"
    if a.page_tokens % keys or a.head_dim % UNROLL:
        return f"not in vectors: pages of {a.page_tokens} tokens or heads of {a.head_dim} do not fill steps"
    for lanes in (size for size in _LANES if size <= vectors.lanes):
        heads, tokens = _tile(a, lanes)
        if lanes > _LANES[-1] and 2 * heads * tokens <= lanes:
            continue
        found = VectorAttention(facts=a, heads=heads, tokens=tokens, lanes=lanes, keys=keys, has_pairs=has_pairs)
        if found.stack_bytes <= _MOST_STACK_BYTES:
            return found
    return f"not in vectors: heads of {a.head_dim} need more than {_MOST_STACK_BYTES} bytes of scratch"


def _tile(a: PagedAttention, lanes: int) -> tuple[int, int]:
    """Heads and tokens of a workgroup: tokens of one head if they fill the lanes, else first all heads of a KV head."""
    if a.tokens % lanes == 0:
        return 1, lanes
    heads = _largest_divisor(a.heads // a.kv_heads, lanes)
    return heads, _largest_divisor(a.tokens, lanes // heads)


def _largest_divisor(number: int, most: int) -> int:
    return next(size for size in range(most, 0, -1) if number % size == 0)
