"""Triton source: rotary embedding of queries and keys, and the write of keys and values into the pages of a pool.

    query, key, value   vectors of heads as they lie: element d of head h of row n at BEGIN + n * ROW + h * HEAD + d
    cos, sin            the same with one head, or None without a rotary embedding
    query_gain, key_gain [head_dim] or None       RMS normalisation of each vector, done first
    table [batch, pages] i32     start, num_valid [batch] i64
    pool  [num_pages, 2, page_tokens, kv_heads, head_dim]        0 = K, 1 = V; in place; with a bias, fp8 bytes
    out   [batch, heads, tokens, head_dim]                       the rotated queries, or None

Rows count tokens of all requests, request * tokens + token. One program takes `ROWS` vectors of queries, of keys or of
values; vectors of one token are neighbours. What a table of pages has no place for (padding of a chunk, unused rows of
a batch) is not written. Everything is computed in f32 and rounded once.

    halves        y[i]  = x[i] * cos[i] - x[i + n/2] * sin[i]     y[i + n/2] = x[i + n/2] * cos[..] + x[i] * sin[..]
    interleaved   y[2i] = x[2i] * cos - x[2i + 1] * sin           y[2i + 1]  = x[2i + 1] * cos + x[2i] * sin

Source: Su et al. 2021 (arXiv 2104.09864) section 3.4; Zhang and Sennrich 2019 (arXiv 1910.07467) for RMS normalisation.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def stored(value, kind: tl.constexpr, BIAS: tl.constexpr, LARGEST: tl.constexpr):
    """f32 as `kind`; with a `BIAS`, as the byte of an fp8 number, see `kvcache/fp8_bits.py`."""
    if BIAS == 0:
        result = value.to(kind)
    else:
        bits = value.to(tl.uint32, bitcast=True)
        size = tl.minimum(bits & 0x7FFFFFFF, LARGEST)
        normal = ((size + 0x7FFFF + ((size >> 20) & 1)) >> 20) - ((127 - BIAS) << 3)
        small = (size.to(tl.float32, bitcast=True) + (1 << (21 - BIAS))).to(tl.uint32, bitcast=True) & 0xFF
        code = tl.where(size < ((128 - BIAS) << 23), small, normal)
        result = tl.where(code == 0, 0, code | ((bits >> 24) & 0x80)).to(tl.int8)
    return result


@triton.jit
def move_vectors(
    source,
    places,
    is_read,
    gain,
    cos,
    sin,
    cos_places,
    sin_places,
    target,
    target_places,
    is_written,
    HEAD_DIM: tl.constexpr,
    ROTATED: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    IS_INTERLEAVED: tl.constexpr,
    IS_PAIRED: tl.constexpr,
    EPS: tl.constexpr,
    GAIN_OFFSET: tl.constexpr,
    BIAS: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """Vectors at `places` of `source` to `target_places` of `target`, normalised and rotated on the way.

    `ROTATED` elements are rotated (0 is none); `HALF` is half of them and `REST` the others, both padded to a power of
    two.
    """
    rest_dim = ROTATED + tl.arange(0, REST)
    is_rest = (rest_dim < HEAD_DIM)[None, :]
    if ROTATED < HEAD_DIM:
        rest = tl.load(source + places[:, None] + rest_dim[None, :], mask=is_read[:, None] & is_rest, other=0.0)
        rest = rest.to(tl.float32)
    if ROTATED > 0:
        pair = tl.arange(0, HALF)
        is_pair = (pair < ROTATED // 2)[None, :]
        if IS_INTERLEAVED:
            both_dim = tl.arange(0, 2 * HALF)
            is_both = (both_dim < ROTATED)[None, :]
            both = tl.load(source + places[:, None] + both_dim[None, :], mask=is_read[:, None] & is_both, other=0.0)
            first, second = tl.split(both.to(tl.float32).reshape(both.shape[0], HALF, 2))
            first_dim = 2 * pair
            second_dim = 2 * pair + 1
        else:
            first_dim = pair
            second_dim = ROTATED // 2 + pair
            mask = is_read[:, None] & is_pair
            first = tl.load(source + places[:, None] + first_dim[None, :], mask=mask, other=0.0).to(tl.float32)
            second = tl.load(source + places[:, None] + second_dim[None, :], mask=mask, other=0.0).to(tl.float32)
    if gain is not None:
        squares = tl.zeros([places.shape[0]], tl.float32)
        if ROTATED < HEAD_DIM:
            squares += tl.sum(rest * rest, 1)
        if ROTATED > 0:
            squares += tl.sum(first * first + second * second, 1)
        factor = tl.rsqrt(squares / HEAD_DIM + EPS)[:, None]
        if ROTATED < HEAD_DIM:
            own = tl.load(gain + rest_dim, mask=rest_dim < HEAD_DIM, other=0.0).to(tl.float32) + GAIN_OFFSET
            rest = rest * factor * own[None, :]
        if ROTATED > 0:
            is_own = pair < ROTATED // 2
            own = tl.load(gain + first_dim, mask=is_own, other=0.0).to(tl.float32) + GAIN_OFFSET
            first = first * factor * own[None, :]
            own = tl.load(gain + second_dim, mask=is_own, other=0.0).to(tl.float32) + GAIN_OFFSET
            second = second * factor * own[None, :]
    kind = target.dtype.element_ty
    if ROTATED < HEAD_DIM:
        mask = is_written[:, None] & is_rest
        tl.store(target + target_places[:, None] + rest_dim[None, :], stored(rest, kind, BIAS, LARGEST), mask=mask)
    if ROTATED > 0:
        mask = is_read[:, None] & is_pair
        if IS_INTERLEAVED and not IS_PAIRED:
            mask = is_read[:, None] & is_both
            cos_both = tl.load(cos + cos_places[:, None] + both_dim[None, :], mask=mask, other=0.0).to(tl.float32)
            sin_both = tl.load(sin + sin_places[:, None] + both_dim[None, :], mask=mask, other=0.0).to(tl.float32)
            cos_first, cos_second = tl.split(cos_both.reshape(both.shape[0], HALF, 2))
            sin_first, sin_second = tl.split(sin_both.reshape(both.shape[0], HALF, 2))
        else:
            cos_first = tl.load(cos + cos_places[:, None] + pair[None, :], mask=mask, other=0.0).to(tl.float32)
            sin_first = tl.load(sin + sin_places[:, None] + pair[None, :], mask=mask, other=0.0).to(tl.float32)
            if IS_PAIRED:
                cos_second = cos_first
                sin_second = sin_first
            else:
                cos_second = tl.load(cos + cos_places[:, None] + second_dim[None, :], mask=mask, other=0.0)
                sin_second = tl.load(sin + sin_places[:, None] + second_dim[None, :], mask=mask, other=0.0)
                cos_second = cos_second.to(tl.float32)
                sin_second = sin_second.to(tl.float32)
        turned_first = stored(first * cos_first - second * sin_first, kind, BIAS, LARGEST)
        turned_second = stored(second * cos_second + first * sin_second, kind, BIAS, LARGEST)
        if IS_INTERLEAVED:
            turned = tl.join(turned_first, turned_second).reshape(both.shape[0], 2 * HALF)
            mask = is_written[:, None] & is_both
            tl.store(target + target_places[:, None] + both_dim[None, :], turned, mask=mask)
        else:
            mask = is_written[:, None] & is_pair
            tl.store(target + target_places[:, None] + first_dim[None, :], turned_first, mask=mask)
            tl.store(target + target_places[:, None] + second_dim[None, :], turned_second, mask=mask)


@triton.jit
def write_heads(
    query,
    key,
    value,
    cos,
    sin,
    query_gain,
    key_gain,
    table,
    start,
    num_valid,
    pool,
    out,
    num_rows,
    tokens,
    num_columns,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PAGE_TOKENS: tl.constexpr,
    QUERY_BEGIN: tl.constexpr,
    QUERY_ROW: tl.constexpr,
    QUERY_HEAD: tl.constexpr,
    KEY_BEGIN: tl.constexpr,
    KEY_ROW: tl.constexpr,
    KEY_HEAD: tl.constexpr,
    VALUE_BEGIN: tl.constexpr,
    VALUE_ROW: tl.constexpr,
    VALUE_HEAD: tl.constexpr,
    COS_BEGIN: tl.constexpr,
    COS_ROW: tl.constexpr,
    SIN_BEGIN: tl.constexpr,
    SIN_ROW: tl.constexpr,
    ROTATED: tl.constexpr,
    HALF: tl.constexpr,
    REST: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    IS_INTERLEAVED: tl.constexpr,
    IS_PAIRED: tl.constexpr,
    QUERY_EPS: tl.constexpr,
    QUERY_OFFSET: tl.constexpr,
    KEY_EPS: tl.constexpr,
    KEY_OFFSET: tl.constexpr,
    FP8_BIAS: tl.constexpr,
    FP8_LARGEST: tl.constexpr,
    ROWS: tl.constexpr,
):
    """`ROWS` vectors; programs come in the order queries, keys, values."""
    program = tl.program_id(0)
    query_tiles = 0
    if query is not None:
        query_tiles = tl.cdiv(num_rows * HEADS, ROWS)
        if program < query_tiles:
            place = program * ROWS + tl.arange(0, ROWS)
            row = place // HEADS
            head = place % HEADS
            is_row = row < num_rows
            request = row // tokens
            target = ((request * HEADS + head) * tokens + row % tokens) * HEAD_DIM
            move_vectors(
                query,
                QUERY_BEGIN + row * QUERY_ROW + head * QUERY_HEAD,
                is_row,
                query_gain,
                cos,
                sin,
                COS_BEGIN + row * COS_ROW,
                SIN_BEGIN + row * SIN_ROW,
                out,
                target,
                is_row,
                HEAD_DIM,
                ROTATED,
                HALF,
                REST,
                IS_INTERLEAVED,
                IS_PAIRED,
                QUERY_EPS,
                QUERY_OFFSET,
                0,
                0,
            )
    if program >= query_tiles:
        key_tiles = tl.cdiv(num_rows * KV_HEADS, ROWS)
        tile = program - query_tiles
        is_value = tile >= key_tiles
        place = tl.where(is_value, tile - key_tiles, tile) * ROWS + tl.arange(0, ROWS)
        row = place // KV_HEADS
        head = place % KV_HEADS
        is_row = row < num_rows
        request = row // tokens
        token = row % tokens
        is_live = is_row & (token < tl.load(num_valid + request, mask=is_row, other=0).to(tl.int32))
        position = tl.load(start + request, mask=is_live, other=0).to(tl.int32) + token
        page = tl.load(table + request * num_columns + position // PAGE_TOKENS, mask=is_live, other=0).to(tl.int64)
        slot = (2 * page + is_value.to(tl.int64)) * PAGE_TOKENS + position % PAGE_TOKENS
        target = (slot * KV_HEADS + head) * HEAD_DIM
        if is_value:
            move_vectors(
                value,
                VALUE_BEGIN + row * VALUE_ROW + head * VALUE_HEAD,
                is_live,
                None,
                None,
                None,
                row,
                row,
                pool,
                target,
                is_live,
                HEAD_DIM,
                0,
                1,
                PADDED_DIM,
                False,
                False,
                0.0,
                0.0,
                FP8_BIAS,
                FP8_LARGEST,
            )
        else:
            move_vectors(
                key,
                KEY_BEGIN + row * KEY_ROW + head * KEY_HEAD,
                is_live,
                key_gain,
                cos,
                sin,
                COS_BEGIN + row * COS_ROW,
                SIN_BEGIN + row * SIN_ROW,
                pool,
                target,
                is_live,
                HEAD_DIM,
                ROTATED,
                HALF,
                REST,
                IS_INTERLEAVED,
                IS_PAIRED,
                KEY_EPS,
                KEY_OFFSET,
                FP8_BIAS,
                FP8_LARGEST,
            )
