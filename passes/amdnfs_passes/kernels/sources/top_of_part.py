"""Triton source: the largest logits of a part of a row, and what a softmax over the row needs of the part.

    logits [rows, VOCAB] f32
    keys   [rows, NUM_PARTS, COUNT] i64     descending
    state  [rows, NUM_PARTS, 2] f32         maximum, sum of exp(logit - maximum)

A key orders tokens by logit and, of equal logits, by id: the upper half is the logit as an integer that compares like
it, the lower half counts down from the largest i32. NaN counts as the largest of all. Places beyond the vocabulary have
the least key of all.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def top_of_part(
    logits,
    keys,
    state,
    VOCAB: tl.constexpr,
    PART: tl.constexpr,
    COUNT: tl.constexpr,
    NUM_PARTS: tl.constexpr,
):
    """One part of one row."""
    part = tl.program_id(0)
    row = tl.program_id(1)
    token = part * PART + tl.arange(0, PART)
    is_token = token < VOCAB
    logit = tl.load(logits + row.to(tl.int64) * VOCAB + token, mask=is_token, other=float("-inf"))
    # Both zeros are equal.
    bits = tl.where(logit == 0.0, 0.0, logit).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    ordered = tl.where(logit != logit, 0x7FFFFFFF, ordered)
    key = (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - token).to(tl.int64)
    key = tl.where(is_token, key, -0x7FFFFFFFFFFFFFFF)
    place = row * NUM_PARTS + part
    tl.store(keys + place * COUNT + tl.arange(0, COUNT), tl.topk(key, COUNT))
    # A part of -inf alone has a sum of zero, whatever its maximum.
    largest = tl.maximum(tl.max(logit, 0), -3.0e38)
    tl.store(state + place * 2, largest)
    tl.store(state + place * 2 + 1, tl.sum(tl.exp(logit - largest), 0))
