"""Triton source: attention of a tile of query rows over the pages of one request, with a running softmax.

One program is one (request, KV head), one tile of query rows and one split of the keys. Query heads that share a KV
head are rows of one tile, so K and V are read once for all of them and never expanded.

    query  [batch, kv_heads * group, tokens, head_dim]      row m of a tile: token m // group, head m % group
    pool   [num_pages, 2, page_tokens, kv_heads, head_dim]  0 = K, 1 = V; as the queries, or fp8 with a scale of 1
    table  [batch, pages] i32     start, num_valid [batch] i64     sinks [heads] or None
    slopes [heads] f32 or None: how much a score falls with each token of distance (ALiBi)

The keys that a request sees, [0, start + num_valid), are cut into `NUM_SPLITS` equal runs of whole key tiles. With one
split the result `[batch, tokens, heads, head_dim]` is written at once; with more, each program writes its unnormalised
sum, its maximum and its sum of weights in f32, which `combine_splits` joins:

    partial [batch, kv_heads, rows, NUM_SPLITS, head_dim]    state [batch, kv_heads, rows, NUM_SPLITS, 2]

Scores are kept in base 2 (`scale` holds log2(e)). V past the live keys is read as zero and its weight is zero, so that
a stale NaN in a reused page cannot reach the result.

Source: Dao et al. 2022 (arXiv 2205.14135) algorithm 1 for the running softmax; Dao et al. 2023, "Flash-Decoding for
long-context inference", for the split; Press et al. 2021 (arXiv 2108.12409) section 3 for slopes.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def paged_attention(
    query,
    pool,
    table,
    start,
    num_valid,
    sinks,
    slopes,
    out,
    state,
    num_columns,
    tokens,
    SCALE: tl.constexpr,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    PARTS: tl.constexpr = 1,
):
    """One tile of `ROWS` query rows against one split of the keys, `KEYS` at a time.

    With `PARTS` above 1 the product of queries and keys goes over the head dim in that many parts, so that fewer keys
    are in registers at a time: RDNA3 holds both operands of a product twice, and wide heads do not fit otherwise.
    """
    LOG2E: tl.constexpr = 1.4426950408889634
    # A score that is not seen is so far below the first maximum that its weight is zero.
    LOWEST: tl.constexpr = -1.0e30
    FIRST_TOP: tl.constexpr = -5.0e29
    HEADS: tl.constexpr = KV_HEADS * GROUP
    num_rows = tokens * GROUP
    # Tiles of late tokens see the most keys: they come first, so that they do not run alone at the end.
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    request = tl.program_id(1) // KV_HEADS
    kv_head = tl.program_id(1) % KV_HEADS
    split = tl.program_id(2)

    row = tile * ROWS + tl.arange(0, ROWS)
    token = row // GROUP
    head = kv_head * GROUP + row % GROUP
    is_row = row < num_rows
    dim = tl.arange(0, PADDED_DIM)
    is_dim = dim < HEAD_DIM
    q_rows = query + ((request * HEADS + head) * tokens + token)[:, None] * HEAD_DIM
    if PARTS == 1:
        q = tl.load(q_rows + dim[None, :], mask=is_row[:, None] & is_dim[None, :], other=0.0)

    first = tl.load(start + request).to(tl.int32)
    end = first + tl.load(num_valid + request).to(tl.int32)
    # A row sees the keys (last - WINDOW, last]; what a row behind the last token sees is of no matter.
    last = tl.minimum(first + token, end - 1)
    if slopes is not None:
        slope = tl.load(slopes + head, mask=is_row, other=0.0) * LOG2E
    # Keys that some row of this tile sees: [begin, stop).
    stop = tl.minimum(end, first + (tile * ROWS + ROWS - 1) // GROUP + 1)
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(0, first + tile * ROWS // GROUP - WINDOW + 1) // KEYS * KEYS
    if NUM_SPLITS > 1:
        run = tl.cdiv(tl.cdiv(tl.maximum(stop - begin, 0), KEYS), NUM_SPLITS) * KEYS
        begin += split * run
        stop = tl.minimum(stop, begin + run)

    top = tl.full([ROWS], FIRST_TOP, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, PADDED_DIM], tl.float32)
    STEP: tl.constexpr = KV_HEADS * HEAD_DIM
    for base in range(begin, stop, KEYS):
        key = base + tl.arange(0, KEYS)
        is_live = key < end
        page = tl.load(table + request * num_columns + key // PAGE_TOKENS, mask=is_live, other=0).to(tl.int64)
        offset = page * (2 * PAGE_TOKENS * STEP) + ((key % PAGE_TOKENS) * STEP + kv_head * HEAD_DIM)
        is_read = is_live[:, None] & is_dim[None, :]
        if PARTS == 1:
            k = tl.load(pool + offset[:, None] + dim[None, :], mask=is_read, other=0.0).to(q.dtype)
        v = tl.load(pool + (offset + PAGE_TOKENS * STEP)[:, None] + dim[None, :], mask=is_read, other=0.0)
        v = v.to(query.dtype.element_ty)
        if PARTS == 1:
            score = tl.dot(q, tl.trans(k)) * SCALE
        else:
            score = tl.zeros([ROWS, KEYS], tl.float32)
            for i in tl.static_range(PARTS):
                part = i * (PADDED_DIM // PARTS) + tl.arange(0, PADDED_DIM // PARTS)
                is_part = part < HEAD_DIM
                q = tl.load(q_rows + part[None, :], mask=is_row[:, None] & is_part[None, :], other=0.0)
                k = tl.load(pool + offset[:, None] + part[None, :], mask=is_live[:, None] & is_part[None, :], other=0.0)
                k = k.to(q.dtype)
                score = tl.dot(q, tl.trans(k), score)
            score *= SCALE
        if SOFTCAP > 0.0:
            # cap * tanh(x / cap) in base 2, with x in base e: tanh(z) = 1 - 2 / (exp(2 z) + 1)
            growth = tl.exp2(score * (2.0 * LOG2E / SOFTCAP))
            score = SOFTCAP * LOG2E - (2.0 * SOFTCAP * LOG2E) / (growth + 1.0)
        if slopes is not None:
            score -= slope[:, None] * (last[:, None] - key[None, :]).to(tl.float32)
        # One comparison an element: masks are scalar registers on AMD, and they are what runs out first.
        if WINDOW > 0:
            is_seen = (last[:, None] - key[None, :]).to(tl.uint32, bitcast=True) < WINDOW
        else:
            is_seen = key[None, :] <= last[:, None]
        score = tl.where(is_seen, score, LOWEST)
        higher = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp2(score - higher[:, None])
        shrink = tl.exp2(top - higher)
        total = total * shrink + tl.sum(weight, 1)
        mixed = tl.dot(weight.to(v.dtype), v, mixed * shrink[:, None])
        top = higher

    if NUM_SPLITS > 1:
        slot = ((request * KV_HEADS + kv_head) * num_rows + row) * NUM_SPLITS + split
        tl.store(out + slot[:, None] * HEAD_DIM + dim[None, :], mixed, mask=is_row[:, None] & is_dim[None, :])
        tl.store(state + slot * 2, top, mask=is_row)
        tl.store(state + slot * 2 + 1, total, mask=is_row)
    else:
        if sinks is not None:
            sink = tl.load(sinks + head, mask=is_row, other=0.0).to(tl.float32) * LOG2E
            higher = tl.maximum(top, sink)
            shrink = tl.exp2(top - higher)
            total = total * shrink + tl.exp2(sink - higher)
            mixed = mixed * shrink[:, None]
        result = mixed / tl.where(total > 0.0, total, 1.0)[:, None]
        place = ((request * tokens + token) * HEADS + head)[:, None] * HEAD_DIM + dim[None, :]
        tl.store(out + place, result.to(query.dtype.element_ty), mask=is_row[:, None] & is_dim[None, :])
