"""Triton source: the largest logits of a row, from those of its parts; see `top_of_part`.

    keys  [rows, num_parts, COUNT] i64
    state [rows, num_parts, 2] f32
    top   [rows, 2 * COUNT + 1] i32     ids, logits as bits, logarithm of the sum of exp(logit) as bits

NUM_PARTS is a power of two, not less than num_parts.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def top_of_row(
    keys,
    state,
    top,
    num_parts,
    NUM_PARTS: tl.constexpr,
    COUNT: tl.constexpr,
):
    """One row."""
    row = tl.program_id(0)
    place = tl.arange(0, NUM_PARTS * COUNT)
    is_part = place < num_parts * COUNT
    key = tl.load(keys + row * num_parts * COUNT + place, mask=is_part, other=-0x7FFFFFFFFFFFFFFF)
    key = tl.topk(key, COUNT)
    token = 0x7FFFFFFF - key.to(tl.int32)
    ordered = (key >> 32).to(tl.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    out = top + row * (2 * COUNT + 1)
    item = tl.arange(0, COUNT)
    tl.store(out + item, token)
    tl.store(out + COUNT + item, bits)
    part = tl.arange(0, NUM_PARTS)
    is_part = part < num_parts
    slot = (row * num_parts + part) * 2
    largest = tl.load(state + slot, mask=is_part, other=-3.0e38)
    total = tl.load(state + slot + 1, mask=is_part, other=0.0)
    highest = tl.max(largest, 0)
    mass = highest + tl.log(tl.sum(total * tl.exp(largest - highest), 0))
    tl.store(out + 2 * COUNT, mass.to(tl.int32, bitcast=True))
