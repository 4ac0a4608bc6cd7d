"""Paged attentions for `test_kernel_values.py`: their programs, their inputs, and what they must give."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tests.unit.passes.amd_programs import DTYPES, ROUND, EmulatedModule, uniform
from tests.unit.passes.cpu_programs import SUM, Array, assert_within, function, vt


@dataclass(frozen=True, kw_only=True)
class Attention:
    name: str
    targets: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Of each request: tokens in the cache before the step, and tokens of the step."""
    tokens: int = 1
    kv_heads: int = 1
    group: int = 1
    head_dim: int = 64
    page: int = 16
    element: str = "f16"
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False
    has_slopes: bool = False

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group

    @property
    def scale(self) -> float:
        return 2 / math.sqrt(self.head_dim)

    @property
    def columns(self) -> int:
        """Pages of the longest request, and one more."""
        return max(-(-(start + valid) // self.page) for start, valid in self.spans) + 1

    def text(self) -> str:
        b, h, t, d, e = len(self.spans), self.heads, self.tokens, self.head_dim, self.element
        q, y = vt((b, h, t, d), e), vt((b, t, h, d), e)
        p, n = vt(("?", 2, self.page, self.kv_heads, d), e), vt((b,), "si64")
        table, sinks = vt((b, "?"), "si32"), vt((h,), e) if self.has_sinks else "!torch.none"
        slopes = vt((h,), "f32") if self.has_slopes else "!torch.none"
        extra = [sinks] if self.has_sinks else []
        names = ["%5" if self.has_sinks else "%none", f"%{5 + len(extra)}" if self.has_slopes else "%none"]
        extra += [slopes] if self.has_slopes else []
        body = f"""%none = torch.constant.none
  %scale = torch.constant.float {self.scale}
  %window = torch.constant.int {self.window}
  %cap = torch.constant.float {self.softcap}
  %y0 = torch.operator "torch.amdnfs.paged_attention"(%0, %1, %2, %3, %4, {", ".join(names)},
    %scale, %window, %cap) : ({q}, {p}, {table}, {n}, {n}, {sinks}, {slopes}, !torch.float, !torch.int, !torch.float)
    -> {y}"""
        return function(self.name, [q, p, table, n, n, *extra], [y], body)


# 0 tokens of 0: a row of the batch that is not used. A window of 9 ends inside a page, and in a tile of keys.
UNEVEN = ((70, 1), (0, 1), (0, 0), (33, 1))
ATTENTIONS = [
    Attention(name="decode_64", targets=("gfx90a", "gfx1100"), spans=UNEVEN[:3], kv_heads=1, group=4),
    Attention(
        name="decode_80_window",
        targets=("gfx942", "gfx1151"),
        spans=((70, 1),),
        group=7,
        head_dim=80,
        page=32,
        element="bf16",
        window=9,
    ),
    Attention(
        name="decode_96_sinks",
        targets=("gfx950", "gfx1201"),
        spans=((17, 1), (0, 1)),
        kv_heads=2,
        head_dim=96,
        has_sinks=True,
    ),
    Attention(
        name="decode_128_softcap",
        targets=("gfx90a", "gfx1201"),
        spans=((127, 1), (3, 1)),
        group=4,
        head_dim=128,
        page=64,
        element="bf16",
        softcap=5.0,
    ),
    Attention(
        name="decode_256_everything",
        targets=("gfx942", "gfx1100"),
        spans=((64, 1), (31, 1)),
        group=4,
        head_dim=256,
        page=32,
        window=40,
        softcap=5.0,
        has_sinks=True,
    ),
    Attention(
        name="decode_64_one_split",
        targets=("gfx950", "gfx1151"),
        spans=UNEVEN * 2,
        group=7,
        page=64,
        element="bf16",
        has_sinks=True,
    ),
    Attention(
        name="decode_64_slopes",
        targets=("gfx90a", "gfx1201"),
        spans=((70, 1), (3, 1)),
        kv_heads=4,
        has_slopes=True,
    ),
    Attention(
        name="chunk_80_slopes_softcap",
        targets=("gfx942", "gfx1151"),
        spans=((37, 17), (0, 3)),
        tokens=18,
        kv_heads=2,
        group=2,
        head_dim=80,
        element="bf16",
        softcap=5.0,
        has_sinks=True,
        has_slopes=True,
    ),
    Attention(name="prefill_64", targets=("gfx90a", "gfx1151"), spans=((0, 40),), tokens=40, kv_heads=4, group=4),
    Attention(
        name="chunk_128_window",
        targets=("gfx942", "gfx1201"),
        spans=((37, 17),),
        tokens=24,
        kv_heads=2,
        head_dim=128,
        page=32,
        element="bf16",
        window=20,
    ),
    Attention(
        name="chunk_80_sinks",
        targets=("gfx950", "gfx1100"),
        spans=((50, 19), (0, 0)),
        tokens=19,
        group=7,
        head_dim=80,
        page=64,
        has_sinks=True,
    ),
    Attention(
        name="chunk_96_softcap",
        targets=("gfx90a", "gfx1100"),
        spans=((16, 33),),
        tokens=33,
        kv_heads=2,
        group=4,
        head_dim=96,
        element="bf16",
        window=9,
        softcap=5.0,
    ),
    Attention(
        name="chunk_256",
        targets=("gfx942", "gfx1151"),
        spans=((5, 20),),
        tokens=20,
        group=4,
        head_dim=256,
        page=64,
        softcap=5.0,
    ),
    Attention(
        name="chunk_64_everything",
        targets=("gfx950", "gfx1201"),
        spans=((100, 30),),
        tokens=32,
        kv_heads=8,
        group=4,
        page=32,
        window=64,
        softcap=5.0,
        has_sinks=True,
        element="bf16",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one attention reads; slots of the pool that hold no token it may see are NaN, as is all of page 0."""

    query: Array
    pool: Array
    table: Array
    start: Array
    valid: Array
    sinks: Array
    slopes: Array


def make_step(rng: np.random.Generator, case: Attention) -> Step:
    batch, page = len(case.spans), case.page
    pages = iter(rng.permutation(np.arange(1, 1 + batch * case.columns)))
    table = np.zeros((batch, case.columns), np.int32)
    pool = np.full((1 + batch * case.columns, 2, page, case.kv_heads, case.head_dim), np.nan, DTYPES[case.element])
    for request, (start, valid) in enumerate(case.spans):
        for position in range(start + valid):
            if position % page == 0:
                table[request, position // page] = next(pages)
            slot = (2, case.kv_heads, case.head_dim)
            pool[table[request, position // page], :, position % page] = uniform(rng, slot, case.element)
    sinks = uniform(rng, (case.heads,), case.element)
    sinks[0] -= 60  # far below every score
    query = uniform(rng, (batch, case.heads, case.tokens, case.head_dim), case.element)
    start, valid = np.array(case.spans, np.int64).T.copy()
    slopes = rng.uniform(0, 0.5, case.heads).astype(np.float32)
    return Step(query=query, pool=pool, table=table, start=start, valid=valid, sinks=sinks, slopes=slopes)


def attend(case: Attention, step: Step, request: int, token: int) -> tuple[Array, Array]:
    """One token's mix `[heads, head_dim]` in float64, and its bound."""
    position = int(step.start[request]) + token
    seen = np.arange(max(0, position - case.window + 1) if case.window else 0, position + 1)
    pages, slots = step.table[request, seen // case.page], seen % case.page
    keys, values = (step.pool[pages, half, slots].astype(np.float64).repeat(case.group, 1) for half in (0, 1))
    query = step.query[request, :, token].astype(np.float64)
    scores = case.scale * np.einsum("shd,hd->sh", keys, query)
    sizes = case.scale * np.einsum("shd,hd->sh", np.abs(keys), np.abs(query)).max()
    if case.softcap:
        scores = case.softcap * np.tanh(scores / case.softcap)
    if case.has_slopes:
        drops = step.slopes.astype(np.float64) * (position - seen)[:, None]
        scores, sizes = scores - drops, sizes + drops.max()
    weights = np.exp(scores - scores.max(0))
    total = weights.sum(0) + (np.exp(step.sinks.astype(np.float64) - scores.max(0)) if case.has_sinks else 0.0)
    # A weight is off by the error of its score: head_dim products, the scale, the cap; then by that of exp2. Numerator
    # and denominator are sums of at most len(seen) weights. Weights and the result are each rounded to the type once.
    error = (case.head_dim + 4) * SUM * sizes + (16 * case.softcap + 16 + len(seen)) * SUM
    bound = (2 * error + 2 * ROUND[case.element]) * np.abs(values).max((0, 2))
    return np.einsum("sh,shd->hd", weights / total, values), np.broadcast_to(
        bound[:, None], (case.heads, case.head_dim)
    )


def check_attention(program: EmulatedModule, rng: np.random.Generator, case: Attention) -> None:
    step = make_step(rng, case)
    inputs = [step.query, step.pool, step.table, step.start, step.valid, *([step.sinks] if case.has_sinks else [])]
    inputs += [step.slopes] if case.has_slopes else []
    (got,) = program.call(case.name, *inputs)
    assert got.dtype == DTYPES[case.element]
    for request, (start, valid) in enumerate(case.spans):
        if start + valid == 0:
            # A row that is not used sees no key; what it gives must not be NaN.
            np.testing.assert_array_equal(got[request], 0)
        for token in range(valid):
            assert_within(got[request, token], *attend(case, step, request, token))
