"""Runs the sources of our kernels on an NVIDIA GPU: values against torch in f64 on random inputs, and times.

    python benchmarks/kernels_gpu.py [attention] [linear]

Needs torch with CUDA and Triton, nothing else of this project: the sources are compiled by the Triton that is there.
Times are medians of replayed CUDA graphs; weights and caches rotate, so that they come from memory.
"""

from __future__ import annotations

import importlib.util
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SOURCES = Path(__file__).parents[1] / "passes/amdnfs_passes/kernels/sources"
LOG2E = 1.4426950408889634
LARGEST = {"int8": 127.0, "fp8": 448.0}
"""What the largest element of a rounded row becomes."""
MOST_ROUNDED_IN_TILES = 64
"""More rows are rounded by a kernel of their own; its time is in the row."""
FRESH_BYTES = 300_000_000
"""Weights or caches to rotate through: several times the L2 of an H200."""


def load(name: str) -> Any:
    """The kernel `name`, without importing the package around it."""
    spec = importlib.util.spec_from_file_location(name, SOURCES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def median_us(run: Callable[[int], object], num_sets: int) -> float:
    """Median time of one `run`, in us; `run` gets the number of the set of inputs to use."""
    for i in range(num_sets):
        run(i)
    torch.cuda.synchronize()
    repeats = max(num_sets, 12)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream), torch.cuda.graph(graph, stream=stream):
        for i in range(repeats):
            run(i % num_sets)
    times = []
    for _ in range(7):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3 / repeats)
    return statistics.median(times)


def error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted|| / ||wanted||; NaN stays."""
    return float((found.double() - wanted).norm() / wanted.norm())


def reference_attention(
    q: torch.Tensor, pool: torch.Tensor, table: torch.Tensor, starts: list[int], valid: list[int]
) -> torch.Tensor:
    """`[batch, tokens, heads, head_dim]` in f64, request by request."""
    batch, heads, tokens, head_dim = q.shape
    kv_heads = pool.shape[3]
    result = torch.zeros(batch, tokens, heads, head_dim, dtype=torch.float64, device=q.device)
    for b in range(batch):
        end = starts[b] + valid[b]
        pages = pool[table[b].long()].double()  # [pages, 2, page_tokens, kv_heads, head_dim]
        k, v = (pages[:, i].reshape(-1, kv_heads, head_dim)[:end] for i in (0, 1))
        for h in range(heads):
            kv = h // (heads // kv_heads)
            scores = q[b, h].double() @ k[:, kv].T * head_dim**-0.5
            seen = (
                torch.arange(end, device=q.device)[None] <= starts[b] + torch.arange(tokens, device=q.device)[:, None]
            )
            weights = scores.masked_fill(~seen, float("-inf")).softmax(-1)
            result[b, :, h] = weights @ v[:, kv]
    return result


def attention_case(batch: int, tokens: int, context: int, kv_heads: int, group: int, dim: int, page: int) -> str:
    """One row of the table: values and time of attention, pages in random order."""
    kernel, combine = load("paged_attention"), load("combine_splits")
    heads, columns = kv_heads * group, -(-context // page)
    num_pages = 1 + batch * columns
    pool_bytes = num_pages * 2 * page * kv_heads * dim * 2
    num_sets = max(1, min(8, FRESH_BYTES // pool_bytes))
    pools = [torch.randn(num_pages, 2, page, kv_heads, dim, device="cuda").half() for _ in range(num_sets)]
    for pool in pools:
        pool[0] = float("nan")  # the null page: nothing may read a result from it
    order = torch.randperm(num_pages - 1, device="cuda")[: batch * columns] + 1
    table = order.reshape(batch, columns).int()
    starts = [max(0, context - tokens - 7 * b) for b in range(batch)]
    valid = [tokens] * batch
    q = torch.randn(batch, heads, tokens, dim, device="cuda").half()
    start, num_valid = (torch.tensor(x, device="cuda") for x in (starts, valid))
    out = torch.full((batch, tokens, heads, dim), float("nan"), device="cuda", dtype=torch.half)
    num_rows = tokens * group
    rows, keys, waves, stages = (16, 64, 4, 3) if num_rows <= 16 else (128, 64, 4, 3)
    pairs = batch * kv_heads
    splits = 1 if num_rows > 64 else max(1, min(64, 1 << ((2 * 132 // pairs).bit_length() - 1))) if pairs < 132 else 1
    partial = torch.empty(pairs * num_rows * splits, dim, device="cuda")
    state = torch.empty(pairs * num_rows * splits, 2, device="cuda")
    common = {"KV_HEADS": kv_heads, "GROUP": group, "HEAD_DIM": dim, "PADDED_DIM": 1 << (dim - 1).bit_length()}

    def run(i: int) -> None:
        target, kept = (out, None) if splits == 1 else (partial, state)
        kernel[(-(-num_rows // rows), pairs, splits)](
            q,
            pools[i],
            table,
            start,
            num_valid,
            None,
            None,
            target,
            kept,
            columns,
            tokens,
            SCALE=dim**-0.5 * LOG2E,
            SOFTCAP=0.0,
            WINDOW=0,
            PAGE_TOKENS=page,
            ROWS=rows,
            KEYS=keys,
            PARTS=1,
            NUM_SPLITS=splits,
            num_warps=waves,
            num_stages=stages,
            **common,
        )
        if splits > 1:
            combine[(num_rows, pairs)](partial, state, None, out, tokens, NUM_SPLITS=splits, num_warps=4, **common)

    run(0)
    found = error(out, reference_attention(q, pools[0], table, starts, valid))
    us = median_us(run, num_sets)
    live = sum(s + v for s, v in zip(starts, valid, strict=True))
    flops = 4 * heads * dim * sum(sum(s + t + 1 for t in range(tokens)) for s in starts)
    shape = f"{batch} x {tokens} at {context}, {heads}/{kv_heads} heads of {dim}, page {page}"
    rate = f"{2 * live * kv_heads * dim * 2 / us / 1e3:.0f} GB/s" if tokens == 1 else f"{flops / us / 1e6:.0f} TFLOP/s"
    return f"| {shape} | {splits} | {found:.1e} | {us:.1f} | {rate} |"


def quantize(weight: torch.Tensor, bits: int, group: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Stored data, scales `[columns, groups]` in f16 and the weight that they mean, in f64."""
    columns, depth = weight.shape
    grouped = weight.double().reshape(columns, -1, group)
    largest = (1 << (bits - 1)) - 1
    scales = (grouped.abs().amax(-1) / largest).half()
    whole = (grouped / scales.double()[..., None]).round().clamp(-largest - 1, largest)
    meant = (whole * scales.double()[..., None]).reshape(columns, depth)
    data = whole.reshape(columns, depth).to(torch.int8)
    if bits == 4:
        data = (data[:, 0::2] & 15) | (data[:, 1::2] << 4)
    return data.contiguous(), scales, meant


def quantize_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The same in e4m3, with one scale a column."""
    scales = (weight.abs().amax(-1, keepdim=True) / LARGEST["fp8"]).half()
    data = (weight / scales.float()).to(torch.float8_e4m3fn)
    return data, scales, data.double() * scales.double()


def round_rows(x: torch.Tensor, kind: str) -> torch.Tensor:
    """What the kernel multiplies, in f64."""
    largest = x.float().abs().amax(-1, keepdim=True)
    steps = x.float() * (LARGEST[kind] / largest)
    whole = steps.to(torch.float8_e4m3fn) if kind == "fp8" else steps.round()
    return whole.double() * largest.double() / LARGEST[kind]


def linear_case(
    rows: int, columns: tuple[int, ...], depth: int, gate: str, norm: bool, bits: int, group: int, rounds: str = ""
) -> str:
    """One row of the table: values and time of a linear kernel; `rounds` is what rows are rounded to, if anything."""
    kernel, rounding = load("linear"), load("round_rows") if rounds and rows > MOST_ROUNDED_IN_TILES else None
    tiles = {16: (64, 128, 8, 4) if gate or sum(columns) > 9000 else (32, 128, 8, 4), 128: (128, 64, 8, 3)}
    tile_rows = 16 if rows <= 16 else 128
    tile_columns, depths, waves, stages = tiles[tile_rows]
    depths = min(depths, group) if group else depths
    depths = 2 * depths if rounding is not None else depths
    stored = sum(columns) * depth * bits // 8
    num_sets = max(1, min(24, FRESH_BYTES // stored))
    x = torch.randn(rows, depth, device="cuda").half()
    gain = (1 + torch.randn(depth, device="cuda") / 8).half() if norm else None
    sets, meant = [], []
    for i in range(num_sets):
        weights = [torch.randn(n, depth, device="cuda") * depth**-0.5 for n in columns]
        if bits == 16:
            made = [(w.half(), None, w.half().double()) for w in weights]
        else:
            made = [quantize_fp8(w) if rounds == "fp8" else quantize(w, bits, group or depth) for w in weights]
        sets.append([[item[j] for item in made] + [None] * (3 - len(columns)) for j in (0, 1)])
        meant = [item[2] for item in made] if i == 0 else meant
    outputs = columns[:1] if gate else columns
    outs = [torch.full((rows, n), float("nan"), device="cuda", dtype=torch.half) for n in outputs]
    grid = (sum(-(-n // tile_columns) for n in outputs) * -(-rows // tile_rows),)
    sizes = (*columns, 0, 0)[:3]
    norm_facts = {"DEPTH": depth, "EPS": 1e-6, "GAIN_OFFSET": 0.0, "LARGEST": LARGEST.get(rounds, 0.0)}
    rounded = torch.empty(rows, depth, device="cuda", dtype=torch.float8_e4m3fn if rounds == "fp8" else torch.int8)
    largest = torch.full((rows,), float("nan"), device="cuda")

    def run(i: int) -> None:
        weights, scales = sets[i]
        if rounding is not None:
            width = 1 << (depth - 1).bit_length()
            rounding[(rows,)](x, gain, rounded, largest, **norm_facts, WIDTH=width, num_warps=8)
        kernel[grid](
            x if rounding is None else rounded,
            None if rounding is None else largest,
            *weights,
            *scales,
            *(None,) * 3,
            gain if rounding is None else None,
            *(None,) * 4,
            *(outs + [None] * (3 - len(outs))),
            rows,
            COLUMNS0=sizes[0],
            COLUMNS1=sizes[1],
            COLUMNS2=sizes[2],
            **norm_facts,
            GATE=gate,
            BITS=bits,
            GROUPS=depth // group if group else 1,
            IS_TENSOR_SCALE=False,
            ROWS=tile_rows,
            COLUMNS=tile_columns,
            DEPTHS=depths,
            BAND=8 if tile_rows == 128 else 1,
            num_warps=waves,
            num_stages=stages,
        )

    run(0)
    wide = x.double()
    if gain is not None:
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6) * gain.double()
    if rounds:
        # A normalised row is rounded to its type first.
        wide = round_rows(wide.half(), rounds)
    wanted = [wide @ w.T for w in meant]
    wanted = [torch.nn.functional.silu(wanted[0]) * wanted[1]] if gate else wanted
    worst = max(error(out, want) for out, want in zip(outs, wanted, strict=True))
    us = median_us(run, num_sets)
    kind = f"{rounds} x {rounds}" if rounds else f"{bits} bits" + (f", groups of {group}" if group else "")
    name = f"{rows} x {depth} -> {'+'.join(map(str, columns))}{' ' + gate if gate else ''}{', norm' if norm else ''}"
    rate = f"{stored / us / 1e3:.0f} GB/s, {2 * rows * sum(columns) * depth / us / 1e6:.0f} TFLOP/s"
    return f"| {name} | {kind} | {worst:.1e} | {us:.1f} | {rate} |"


def main() -> None:
    """Prints Markdown tables."""
    torch.manual_seed(0)
    wanted = sys.argv[1:] or ["attention", "linear"]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    if "attention" in wanted:
        print("| attention | splits | error | us | rate |\n|---|---|---|---|---|")
        for page in (16, 32, 64):
            print(attention_case(64, 1, 4096, 4, 8, 64, page), flush=True)
        for dim in (80, 96, 128, 256):
            print(attention_case(16, 1, 4096, 4, 4, dim, 16), flush=True)
        print(attention_case(1, 1, 32768, 8, 4, 128, 16), flush=True)
        for kv_heads, group, dim in ((4, 8, 64), (8, 4, 128), (2, 7, 128)):
            print(attention_case(1, 2048, 2048, kv_heads, group, dim, 16), flush=True)
        print(attention_case(1, 512, 8192, 8, 4, 128, 32), flush=True)
    if "linear" in wanted:
        print("| linear | weights | error | us | rate |\n|---|---|---|---|---|")
        kinds = [(16, 0, ""), (8, 0, ""), (8, 128, ""), (4, 128, ""), (4, 32, ""), (8, 0, "int8"), (8, 0, "fp8")]
        for kind in kinds:
            print(linear_case(8, (2048, 256, 256), 2048, "", True, *kind), flush=True)
            print(linear_case(8, (5632, 5632), 2048, "silu", True, *kind), flush=True)
            print(linear_case(1, (4096,), 14336, "", False, *kind), flush=True)
            print(linear_case(2048, (2048,), 5632, "", False, *kind), flush=True)


if __name__ == "__main__":
    main()
