"""Triton source: `y = epilogue(prologue(x) . w^T)` for up to three weights that share `x`.

    x        [rows, depth]          weights   [columns_i, depth], as they lie in a checkpoint
    x_largest [rows] or None
    gain     [depth] or None      biases    [columns_i] or None
    residual [rows, columns_0] or None
    out_i    [rows, columns_i]

Quantised weights (`BITS` below 16) are read at their stored width and widened in registers. A step of the contraction
inside one group applies its scale to the f32 sum, exactly; a step over several groups rounds each scaled weight to the
type of x, and reads more of a row at once. Their layout is `QuantizedLayout`'s:

    weights  [columns_i, depth * BITS / 8]      of two int4 in a byte the lower one comes first
    scales   [columns_i, groups], or [1, 1]     zeros the same in int8, or None

With `LARGEST`, rows of x are rounded to the type of the weights, with a scale of their own that makes their largest
element this number, and the matrix units multiply the two as they are: int8 in whole numbers, fp8 with sums in f32.
Every program finds the largest element of its own rows first. Nothing leaves the range of fp8: what is rounded up
above `LARGEST` before the conversion is cut off. With `x_largest` the rows are rounded already (`round_rows`).

One program is one tile of `ROWS` rows and `COLUMNS` columns of one weight; sums are in f32.

prologue   with a gain, RMS normalisation: x * (gain + GAIN_OFFSET) / sqrt(mean(x^2) + EPS). Every program sums the
           squares of its own rows first: for the few rows of a decode step that costs less than a dispatch.
epilogue   `GATE`: act(x . w0^T) * (x . w1^T), one output; bias; residual added last.

Source: Zhang and Sennrich 2019 (arXiv 1910.07467) for RMS normalisation; Shazeer 2020 (arXiv 2002.05202) for the gate.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def activate(value, GATE: tl.constexpr):
    """The activation of a gate in f32: `silu`, `gelu_tanh`, `relu` or `gelu`."""
    LOG2E: tl.constexpr = 1.4426950408889634
    if GATE == "silu":
        return value / (1.0 + tl.exp2(-value * LOG2E))
    if GATE == "gelu_tanh":
        inner = 0.7978845608028654 * (value + 0.044715 * value * value * value)
        # 0.5 * (1 + tanh(z)) = 1 / (1 + exp(-2 z)), which keeps its digits where it is small.
        return value / (1.0 + tl.exp2(inner * (-2.0 * LOG2E)))
    if GATE == "relu":
        return tl.maximum(value, 0.0)
    return 0.5 * value * (1.0 + tl.erf(value * 0.7071067811865476))


@triton.jit
def widen(data, element: tl.constexpr, BITS: tl.constexpr):
    """A tile of stored weights `[columns, depths * BITS / 8]` as `element`, `[columns, depths]`; exact."""
    if BITS == 4:
        low = (data << 4) >> 4
        high = data >> 4
        data = tl.join(low, high).reshape(data.shape[0], data.shape[1] * 2)
    return data.to(element)


@triton.jit
def linear(
    x,
    x_largest,
    weight0,
    weight1,
    weight2,
    scales0,
    scales1,
    scales2,
    zeros0,
    zeros1,
    zeros2,
    gain,
    bias0,
    bias1,
    bias2,
    residual,
    out0,
    out1,
    out2,
    num_rows,
    COLUMNS0: tl.constexpr,
    COLUMNS1: tl.constexpr,
    COLUMNS2: tl.constexpr,
    DEPTH: tl.constexpr,
    GATE: tl.constexpr,
    EPS: tl.constexpr,
    GAIN_OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTHS: tl.constexpr,
    BAND: tl.constexpr,
    BITS: tl.constexpr,
    GROUPS: tl.constexpr,
    IS_TENSOR_SCALE: tl.constexpr,
    LARGEST: tl.constexpr,
):
    """One tile; program 0 counts tiles over rows and all weights' columns, in bands of `BAND` row tiles."""
    TILES0: tl.constexpr = (COLUMNS0 + COLUMNS - 1) // COLUMNS
    TILES1: tl.constexpr = 0 if GATE != "" else (COLUMNS1 + COLUMNS - 1) // COLUMNS
    TILES2: tl.constexpr = (COLUMNS2 + COLUMNS - 1) // COLUMNS
    TILES: tl.constexpr = TILES0 + TILES1 + TILES2
    # Row tiles of a band run side by side, so that a tile of the weight is read once for them from the cache.
    num_row_tiles = tl.cdiv(num_rows, ROWS)
    program = tl.program_id(0)
    band = program // (BAND * TILES)
    band_rows = tl.minimum(num_row_tiles - band * BAND, BAND)
    within = program % (BAND * TILES)
    row_tile = band * BAND + within % band_rows
    tile = within // band_rows

    weight = weight0
    out = out0
    bias = bias0
    scales = scales0
    zeros = zeros0
    columns = COLUMNS0
    column_tile = tile
    if TILES1 > 0:
        if tile >= TILES0:
            weight = weight1
            out = out1
            bias = bias1
            scales = scales1
            zeros = zeros1
            columns = COLUMNS1
            column_tile = tile - TILES0
    if TILES2 > 0:
        if tile >= TILES0 + TILES1:
            weight = weight2
            out = out2
            bias = bias2
            scales = scales2
            zeros = zeros2
            columns = COLUMNS2
            column_tile = tile - TILES0 - TILES1

    row = row_tile * ROWS + tl.arange(0, ROWS)
    column = column_tile * COLUMNS + tl.arange(0, COLUMNS)
    is_row = row < num_rows
    is_column = column < columns
    depth = tl.arange(0, DEPTHS)
    x_tile = x + row[:, None] * DEPTH + depth[None, :]
    # Bytes of a row of stored weights: two elements share one below 8 bits.
    ROW: tl.constexpr = DEPTH // 2 if BITS == 4 else DEPTH
    STEP: tl.constexpr = DEPTHS // 2 if BITS == 4 else DEPTHS
    place_in_row = tl.arange(0, STEP)
    w_tile = weight + column[:, None] * ROW + place_in_row[None, :]
    IS_ROUNDED: tl.constexpr = x_largest is not None
    ROUNDS: tl.constexpr = LARGEST != 0 and not IS_ROUNDED
    IS_FP8: tl.constexpr = LARGEST != 0 and weight0.dtype.element_ty.is_fp8()
    SUM: tl.constexpr = tl.int32 if LARGEST != 0 and not IS_FP8 else tl.float32
    if GATE != "":
        u_tile = weight1 + column[:, None] * ROW + place_in_row[None, :]
        total1 = tl.zeros([ROWS, COLUMNS], SUM)
    total = tl.zeros([ROWS, COLUMNS], SUM)
    if gain is not None:
        squares = tl.zeros([ROWS], tl.float32)
        for k in range(0, DEPTH, DEPTHS):
            mask = is_row[:, None] & (depth < DEPTH - k)[None, :]
            wide = tl.load(x_tile + k, mask=mask, other=0.0).to(tl.float32)
            squares += tl.sum(wide * wide, 1)
        factor = tl.rsqrt(squares / DEPTH + EPS)[:, None]
    if ROUNDS:
        largest = tl.zeros([ROWS], tl.float32)
        for k in range(0, DEPTH, DEPTHS):
            is_depth = depth < DEPTH - k
            wide = tl.load(x_tile + k, mask=is_row[:, None] & is_depth[None, :], other=0.0).to(tl.float32)
            if gain is not None:
                g = tl.load(gain + k + depth, mask=is_depth, other=0.0).to(tl.float32) + GAIN_OFFSET
                wide = (wide * factor * g[None, :]).to(x.dtype.element_ty).to(tl.float32)
            largest = tl.maximum(largest, tl.max(tl.abs(wide), 1))
        steps = tl.div_rn(LARGEST, tl.maximum(largest, 1.0e-30))
    SCALES_ROW: tl.constexpr = 0 if IS_TENSOR_SCALE else GROUPS
    GROUP_SIZE: tl.constexpr = DEPTH // GROUPS if GROUPS > 1 else 1 << 30
    GROUPS_HERE: tl.constexpr = DEPTHS // GROUP_SIZE
    for step in range(0, (DEPTH + DEPTHS - 1) // DEPTHS):
        k = step * DEPTHS
        x_mask = is_row[:, None]
        w_mask = is_column[:, None]
        if DEPTH % DEPTHS != 0:
            x_mask = x_mask & (depth < DEPTH - k)[None, :]
            w_mask = w_mask & (place_in_row < ROW - step * STEP)[None, :]
        a = tl.load(x_tile + k, mask=x_mask, other=0.0)
        if gain is not None:
            if DEPTH % DEPTHS != 0:
                g = tl.load(gain + k + depth, mask=depth < DEPTH - k, other=0.0).to(tl.float32) + GAIN_OFFSET
            else:
                g = tl.load(gain + k + depth).to(tl.float32) + GAIN_OFFSET
            a = (a.to(tl.float32) * factor * g[None, :]).to(a.dtype)
        if ROUNDS:
            a = a.to(tl.float32) * steps[:, None]
            if IS_FP8:
                a = tl.clamp(a, -LARGEST, LARGEST, propagate_nan=tl.PropagateNan.ALL).to(weight0.dtype.element_ty)
            else:
                # The sum has no room for digits behind the point: it is rounded to the nearest, ties to even.
                a = ((a + 12582912.0) - 12582912.0).to(tl.int8)
        b = tl.load(w_tile + step * STEP, mask=w_mask, other=0.0)
        if GATE != "":
            u = tl.load(u_tile + step * STEP, mask=w_mask, other=0.0)
        if BITS == 16:
            total = tl.dot(a, tl.trans(b), total)
            if GATE != "":
                total1 = tl.dot(a, tl.trans(u), total1)
        elif DEPTHS > GROUP_SIZE:
            group = step * GROUPS_HERE + tl.arange(0, GROUPS_HERE)
            spot = column[:, None] * SCALES_ROW + group[None, :]
            is_group = is_column[:, None] & (group < GROUPS)[None, :]
            b = widen(b, a.dtype, BITS).reshape(COLUMNS, GROUPS_HERE, GROUP_SIZE)
            if zeros0 is not None:
                b = b - tl.load(zeros + spot, mask=is_group, other=0).to(a.dtype)[:, :, None]
            scale = tl.load(scales + spot, mask=is_group, other=0.0).to(a.dtype)
            b = (b * scale[:, :, None]).reshape(COLUMNS, DEPTHS)
            total = tl.dot(a, tl.trans(b), total)
            if GATE != "":
                u = widen(u, a.dtype, BITS).reshape(COLUMNS, GROUPS_HERE, GROUP_SIZE)
                if zeros0 is not None:
                    u = u - tl.load(zeros1 + spot, mask=is_group, other=0).to(a.dtype)[:, :, None]
                scale1 = tl.load(scales1 + spot, mask=is_group, other=0.0).to(a.dtype)
                u = (u * scale1[:, :, None]).reshape(COLUMNS, DEPTHS)
                total1 = tl.dot(a, tl.trans(u), total1)
        else:
            group = column * SCALES_ROW + k // GROUP_SIZE
            b = widen(b, a.dtype, BITS)
            if zeros0 is not None:
                b = b - tl.load(zeros + group, mask=is_column, other=0).to(a.dtype)[:, None]
            if GROUPS > 1:
                scale = tl.load(scales + group, mask=is_column, other=0.0).to(tl.float32)
                total += tl.dot(a, tl.trans(b)) * scale[None, :]
            elif IS_FP8:
                # NVIDIA's sm_90 sums products of fp8 in fewer bits than f32 has, so a step is added in f32. Elsewhere
                # Triton makes the line below of this.
                total += tl.dot(a, tl.trans(b))
            else:
                total = tl.dot(a, tl.trans(b), total, out_dtype=SUM)
            if GATE != "":
                u = widen(u, a.dtype, BITS)
                if zeros0 is not None:
                    u = u - tl.load(zeros1 + group, mask=is_column, other=0).to(a.dtype)[:, None]
                if GROUPS > 1:
                    scale1 = tl.load(scales1 + group, mask=is_column, other=0.0).to(tl.float32)
                    total1 += tl.dot(a, tl.trans(u)) * scale1[None, :]
                elif IS_FP8:
                    total1 += tl.dot(a, tl.trans(u))
                else:
                    total1 = tl.dot(a, tl.trans(u), total1, out_dtype=SUM)
    if IS_ROUNDED:
        largest = tl.load(x_largest + row, mask=is_row, other=0.0)
    if LARGEST != 0:
        total = total.to(tl.float32) * (largest / LARGEST)[:, None]
        if GATE != "":
            total1 = total1.to(tl.float32) * (largest / LARGEST)[:, None]
    if BITS != 16:
        if GROUPS == 1:
            total = total * tl.load(scales + column * SCALES_ROW, mask=is_column, other=0.0).to(tl.float32)[None, :]
            if GATE != "":
                scale1 = tl.load(scales1 + column * SCALES_ROW, mask=is_column, other=0.0).to(tl.float32)
                total1 = total1 * scale1[None, :]
    if bias0 is not None:
        total += tl.load(bias + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
        if GATE != "":
            total1 += tl.load(bias1 + column, mask=is_column, other=0.0).to(tl.float32)[None, :]
    if GATE != "":
        total = activate(total, GATE) * total1
    place = row[:, None] * columns + column[None, :]
    mask = is_row[:, None] & is_column[None, :]
    if residual is not None:
        total += tl.load(residual + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + place, total.to(out0.dtype.element_ty), mask=mask)
