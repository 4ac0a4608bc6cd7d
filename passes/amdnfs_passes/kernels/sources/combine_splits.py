"""Triton source: joins what `paged_attention` wrote for the splits of one row.

    partial [batch, kv_heads, rows, NUM_SPLITS, head_dim] f32     rows = tokens * group, token-major
    state   [batch, kv_heads, rows, NUM_SPLITS, 2] f32            maximum in base 2, sum of weights
    out     [batch, tokens, heads, head_dim]

A split without a key has a sum of zero; whatever it wrote otherwise takes no part.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def combine_splits(
    partial,
    state,
    sinks,
    out,
    tokens,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
):
    """One row: one query head of one token of one request."""
    LOG2E: tl.constexpr = 1.4426950408889634
    row = tl.program_id(0)
    pair = tl.program_id(1)
    request = pair // KV_HEADS
    kv_head = pair % KV_HEADS
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    split = tl.arange(0, NUM_SPLITS)
    slot = (pair * tokens * GROUP + row) * NUM_SPLITS + split
    top = tl.load(state + slot * 2)
    total = tl.load(state + slot * 2 + 1)
    is_used = total > 0.0
    highest = tl.max(tl.where(is_used, top, -1.0e30), 0)
    if sinks is not None:
        sink = tl.load(sinks + head).to(tl.float32) * LOG2E
        highest = tl.maximum(highest, sink)
    share = tl.where(is_used, tl.exp2(top - highest), 0.0)
    weight = tl.sum(share * total, 0)
    if sinks is not None:
        weight += tl.exp2(sink - highest)
    dim = tl.arange(0, PADDED_DIM)
    is_dim = dim < HEAD_DIM
    mask = is_used[:, None] & is_dim[None, :]
    mixed = tl.load(partial + slot[:, None] * HEAD_DIM + dim[None, :], mask=mask, other=0.0)
    result = tl.sum(mixed * share[:, None], 0) / tl.where(weight > 0.0, weight, 1.0)
    place = ((request * tokens + token) * (KV_HEADS * GROUP) + head) * HEAD_DIM + dim
    tl.store(out + place, result.to(out.dtype.element_ty), mask=is_dim)
