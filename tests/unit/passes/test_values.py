"""What lowered programs compute on the CPU, against references in float64, on fresh random inputs.

Each pass gets one module that holds all its cases, so that the compiler starts once a pass. Bounds follow from where
the lowered form rounds: a sum of n products in f32 is off by at most n * 2^-24 of the sum of their sizes (Higham,
Accuracy and Stability of Numerical Algorithms, section 3.1), and a stored value by half a unit in its last place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.passes.cpu_programs import (
    DTYPES,
    ROUND,
    SUM,
    Array,
    assert_within,
    build,
    call,
    function,
    rounding,
    uniform,
    vt,
)

# ---- lower-linear


@dataclass(frozen=True, kw_only=True)
class Linear:
    op: str
    rows: tuple[int, ...]
    depth: int
    columns: int
    element: str
    bias: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        bias = "" if self.bias is None else f"_bias{len(self.bias)}"
        return f"{self.op}_{'x'.join(str(size) for size in self.rows)}_{self.element}{bias}"

    @property
    def weight_shape(self) -> tuple[int, int]:
        return (self.columns, self.depth) if self.op == "linear" else (self.depth, self.columns)

    def text(self) -> str:
        x, w = vt((*self.rows, self.depth), self.element), vt(self.weight_shape, self.element)
        y = vt((*self.rows, self.columns), self.element)
        bias, b = ("%2", vt(self.bias, self.element)) if self.bias is not None else ("%none", "!torch.none")
        body = {
            "linear": f"%y0 = torch.aten.linear %0, %1, {bias} : {x}, {w}, {b} -> {y}",
            "mm": f"%y0 = torch.aten.mm %0, %1 : {x}, {w} -> {y}",
            "addmm": f"%y0 = torch.aten.addmm {bias}, %0, %1, %i, %i : {b}, {x}, {w}, !torch.int, !torch.int -> {y}",
        }[self.op]
        constants = "%none = torch.constant.none\n%i = torch.constant.int 1\n"
        return function(self.name, [x, w] if self.bias is None else [x, w, b], [y], constants + body)


LINEARS = [
    Linear(op="linear", rows=(1, 5), depth=48, columns=24, element="f32"),
    Linear(op="linear", rows=(1, 5), depth=48, columns=24, element="f16"),
    Linear(op="linear", rows=(2, 1, 3), depth=33, columns=7, element="f32", bias=(7,)),
    Linear(op="linear", rows=(4,), depth=300, columns=16, element="f16", bias=(16,)),
    Linear(op="mm", rows=(3,), depth=40, columns=12, element="f32"),
    Linear(op="mm", rows=(3,), depth=40, columns=12, element="f16"),
    Linear(op="addmm", rows=(6,), depth=20, columns=9, element="f32", bias=(9,)),
    Linear(op="addmm", rows=(6,), depth=20, columns=9, element="f16", bias=(6, 9)),
]


@pytest.fixture(scope="module")
def linear_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build(tmp_path_factory.mktemp("linear"), "".join(case.text() for case in LINEARS), "lower-linear")


@pytest.mark.parametrize("case", LINEARS, ids=lambda case: case.name)
def test_linear(linear_module: Any, rng: np.random.Generator, case: Linear) -> None:
    x, w = uniform(rng, (*case.rows, case.depth), case.element), uniform(rng, case.weight_shape, case.element)
    bias = [] if case.bias is None else [uniform(rng, case.bias, case.element)]
    got = call(linear_module, case.name, x, w, *bias)
    x64, w64, b64 = (value.astype(np.float64) for value in (x, w, bias[0] if bias else np.zeros(1)))
    w64 = w64.T if case.op == "linear" else w64
    wanted, sizes = x64 @ w64 + b64, np.abs(x64) @ np.abs(w64) + np.abs(b64)
    assert got.dtype == DTYPES[case.element]
    # depth products and the bias are summed in f32, then the sum is rounded once.
    assert_within(got, wanted, (case.depth + 1) * SUM * sizes + rounding(case.element, wanted))


# ---- lower-rotary


@dataclass(frozen=True, kw_only=True)
class Rotary:
    interleaved: bool
    shape: tuple[int, ...]
    table: tuple[int, ...]
    element: str
    table_element: str

    @property
    def name(self) -> str:
        form = "interleaved" if self.interleaved else "halves"
        return f"{form}_{len(self.shape)}d_{self.element}_{self.table_element}"

    @property
    def result_element(self) -> str:
        return "f32" if "f32" in (self.element, self.table_element) else "f16"

    def text(self) -> str:
        x, table = vt(self.shape, self.element), vt(self.table, self.table_element)
        y = vt(self.shape, self.result_element)
        body = f"""%flag = torch.constant.bool {str(self.interleaved).lower()}
  %y0 = torch.operator "torch.amdnfs.rotary"(%0, %1, %2, %flag) : ({x}, {table}, {table}, !torch.bool) -> {y}"""
        return function(self.name, [x, table, table], [y], body)


ROTARIES = [
    Rotary(interleaved=False, shape=(2, 3, 5, 16), table=(1, 1, 5, 16), element="f32", table_element="f32"),
    Rotary(interleaved=False, shape=(2, 3, 5, 16), table=(2, 1, 5, 16), element="f16", table_element="f16"),
    Rotary(interleaved=False, shape=(4, 1, 6), table=(4, 1, 6), element="f16", table_element="f32"),
    Rotary(interleaved=True, shape=(2, 3, 5, 16), table=(1, 1, 5, 16), element="f32", table_element="f32"),
    Rotary(interleaved=True, shape=(2, 3, 5, 16), table=(2, 1, 5, 16), element="f16", table_element="f16"),
]


@pytest.fixture(scope="module")
def rotary_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build(tmp_path_factory.mktemp("rotary"), "".join(case.text() for case in ROTARIES), "lower-rotary")


@pytest.mark.parametrize("case", ROTARIES, ids=lambda case: case.name)
def test_rotary(rotary_module: Any, rng: np.random.Generator, case: Rotary) -> None:
    x = uniform(rng, case.shape, case.element)
    cos, sin = (uniform(rng, case.table, case.table_element) for _ in range(2))
    got = call(rotary_module, case.name, x, cos, sin)
    x64, cos64, sin64 = (torch.from_numpy(value).double() for value in (x, cos, sin))
    if case.interleaved:
        turned = torch.stack((-x64[..., 1::2], x64[..., 0::2]), -1).flatten(-2)
    else:
        turned = torch.cat((-x64[..., x64.shape[-1] // 2 :], x64[..., : x64.shape[-1] // 2]), -1)
    wanted = (x64 * cos64 + turned * sin64).numpy()
    sizes = ((x64 * cos64).abs() + (turned * sin64).abs()).numpy()
    assert got.dtype == DTYPES[case.result_element]
    # Two products and their sum in f32, then one rounding.
    assert_within(got, wanted, 2 * SUM * sizes + rounding(case.result_element, wanted))


# ---- lower-argmax

ARGMAX_SHAPES = [(1, 37), (4, 1000), (3, 8)]


@pytest.fixture(scope="module")
def argmax_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    texts = []
    for rows, columns in ARGMAX_SHAPES:
        x, y = vt((rows, columns), "f32"), vt((rows,), "si64")
        body = f"""%axis = torch.constant.int -1
  %keep = torch.constant.bool false
  %y0 = torch.aten.argmax %0, %axis, %keep : {x}, !torch.int, !torch.bool -> {y}"""
        texts.append(function(f"argmax_{rows}x{columns}", [x], [y], body))
    return build(tmp_path_factory.mktemp("argmax"), "".join(texts), "lower-argmax")


@pytest.mark.parametrize("shape", ARGMAX_SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["distinct", "ties", "constant", "lowest", "nan"])
def test_argmax(argmax_module: Any, rng: np.random.Generator, shape: tuple[int, int], kind: str) -> None:
    rows, columns = shape
    x = {
        "distinct": rng.permuted(np.tile(np.arange(columns), (rows, 1)), axis=1) - columns / 2,
        "ties": rng.integers(0, 3, shape),
        "constant": np.full(shape, rng.normal()),
        "lowest": np.full(shape, -np.inf),
        "nan": np.where(np.arange(columns) == rng.integers(columns), np.nan, rng.normal(size=shape)),
    }[kind].astype(np.float32)
    got = call(argmax_module, f"argmax_{rows}x{columns}", x)
    # A row with NaN gives the number of columns, which is no index; else ties go to the lowest index, as in numpy.
    wanted = np.full(rows, columns) if kind == "nan" else x.argmax(-1)
    np.testing.assert_array_equal(got, wanted)
    assert got.dtype == np.int64


# ---- lower-kv-write and lower-paged-attention

PAGE, KV_HEADS, DIM, NUM_PAGES, COLUMNS, BATCH, SCALE = 4, 2, 8, 9, 3, 4, 0.75


@dataclass(frozen=True, kw_only=True)
class Attention:
    name: str
    tokens: int
    element: str = "f32"
    heads: int = 4
    window: int = 0
    softcap: float = 0.0
    has_sinks: bool = False
    has_slopes: bool = False

    @property
    def arguments(self) -> list[str]:
        """Which members of a `Step` the function takes, in order."""
        names = ["pool", "query", "key", "value", "table", "start", "valid"]
        return [*names, *(["sinks"] if self.has_sinks else []), *(["slopes"] if self.has_slopes else [])]

    def text(self) -> str:
        """Writes keys and values, then attends to them; results are the pool and the mix."""
        e, t, h = self.element, self.tokens, self.heads
        p, kv = vt(("?", 2, PAGE, KV_HEADS, DIM), e), vt((BATCH, KV_HEADS, t, DIM), e)
        q, y = vt((BATCH, h, t, DIM), e), vt((BATCH, t, h, DIM), e)
        table, n, sinks, slopes = vt((BATCH, "?"), "si32"), vt((BATCH,), "si64"), vt((h,), e), vt((h,), "f32")
        kinds = {"pool": p, "query": q, "key": kv, "value": kv, "table": table, "start": n, "valid": n}
        kinds |= {"sinks": sinks, "slopes": slopes}
        sink, sink_kind = ("%7", sinks) if self.has_sinks else ("%none", "!torch.none")
        slope, slope_kind = (
            (f"%{self.arguments.index('slopes')}", slopes) if self.has_slopes else ("%none", "!torch.none")
        )
        body = f"""%none = torch.constant.none
  %scale = torch.constant.float {SCALE}
  %window = torch.constant.int {self.window}
  %cap = torch.constant.float {self.softcap}
  %y0 = torch.operator "torch.amdnfs.kv_write"(%0, %2, %3, %4, %5, %6) : ({p}, {kv}, {kv}, {table}, {n}, {n}) -> {p}
  %y1 = torch.operator "torch.amdnfs.paged_attention"(%1, %y0, %4, %5, %6, {sink}, {slope}, %scale, %window, %cap)
    : ({q}, {p}, {table}, {n}, {n}, {sink_kind}, {slope_kind}, !torch.float, !torch.int, !torch.float) -> {y}"""
        return function(self.name, [kinds[name] for name in self.arguments], [p, y], body)


ATTENTIONS = [
    Attention(name="plain_f32", tokens=3),
    Attention(name="plain_f16", tokens=3, element="f16"),
    Attention(name="one_head_each", tokens=3, heads=2),
    Attention(name="decode_f32", tokens=1),
    Attention(name="decode_f16", tokens=1, element="f16"),
    Attention(name="window", tokens=3, window=4),
    Attention(name="softcap", tokens=3, softcap=1.5),
    Attention(name="sinks_f32", tokens=3, heads=6, has_sinks=True),
    Attention(name="slopes_f32", tokens=3, has_slopes=True),
    Attention(name="slopes_decode_f16", tokens=1, element="f16", heads=6, has_slopes=True),
    Attention(name="all_f16", tokens=3, element="f16", window=6, softcap=2.5, has_sinks=True, has_slopes=True),
]
VECTOR_ATTENTIONS = [
    Attention(name="v_plain_f32", tokens=4),
    Attention(name="v_one_head_each_f16", tokens=4, element="f16", heads=2),
    Attention(name="v_window", tokens=4, window=4),
    Attention(name="v_softcap_slopes", tokens=4, softcap=1.5, has_slopes=True),
    Attention(name="v_sinks_f32", tokens=4, heads=6, has_sinks=True),
    Attention(name="v_all_f16", tokens=4, element="f16", window=3, softcap=2.5, has_sinks=True, has_slopes=True),
]
SPLIT_ATTENTIONS = [case for case in ATTENTIONS if case.name in ("plain_f32", "all_f16")]


@pytest.fixture(scope="module")
def fused_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = "".join(case.text() for case in ATTENTIONS)
    return build(tmp_path_factory.mktemp("fused"), text, "lower-kv-write,lower-paged-attention")


@pytest.fixture(scope="module")
def split_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = "".join(case.text() for case in SPLIT_ATTENTIONS)
    return build(tmp_path_factory.mktemp("split"), text, "lower-kv-write,lower-paged-attention{split-softmax=true}")


@pytest.fixture(scope="module")
def vector_module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = "".join(case.text() for case in VECTOR_ATTENTIONS)
    passes = "lower-kv-write,lower-paged-attention{vector-lanes=4 vector-registers=16}"
    return build(tmp_path_factory.mktemp("vectors"), text, passes)


@dataclass(frozen=True, kw_only=True)
class Step:
    """The state in front of one step; slots of the pool that hold no live token are NaN."""

    pool: Array
    query: Array
    key: Array
    value: Array
    table: Array
    start: Array
    valid: Array
    sinks: Array
    slopes: Array


def make_step(rng: np.random.Generator, case: Attention) -> Step:
    """Four requests: a chunk across two pages, one with padding, one of padding only, one that ends with the table."""
    tokens, element = case.tokens, case.element
    start = np.array([PAGE + 1, 1, 0, COLUMNS * PAGE - 1])
    valid = np.array([tokens, max(tokens - 1, 1), 0, 1])
    pages, table = iter(rng.permutation(np.arange(1, NUM_PAGES))), np.zeros((BATCH, COLUMNS), np.int32)
    pool = np.full((NUM_PAGES, 2, PAGE, KV_HEADS, DIM), np.nan, DTYPES[element])
    for request in range(BATCH):
        for position in range(start[request] + valid[request]):
            if position % PAGE == 0:
                table[request, position // PAGE] = next(pages)
            if position < start[request]:
                pool[table[request, position // PAGE], :, position % PAGE] = uniform(rng, (2, KV_HEADS, DIM), element)
    query = uniform(rng, (BATCH, case.heads, tokens, DIM), element)
    key, value = (uniform(rng, (BATCH, KV_HEADS, tokens, DIM), element) for _ in range(2))
    sinks = uniform(rng, (case.heads,), element)
    sinks[0] -= 60  # far below every score
    slopes = (2.0 ** -np.arange(case.heads)).astype(np.float32)
    return Step(
        pool=pool, query=query, key=key, value=value, table=table, start=start, valid=valid, sinks=sinks, slopes=slopes
    )


def check_pool(got: Array, step: Step) -> Array:
    """Checks every slot of the pool after the write; gives the pool that was wanted."""
    wanted, padding = step.pool.copy(), {}
    for request, token in np.ndindex(BATCH, step.key.shape[2]):
        position = step.start[request] + token
        rows = np.stack((step.key[request, :, token], step.value[request, :, token]))
        if token < step.valid[request]:
            wanted[step.table[request, position // PAGE], :, position % PAGE] = rows
        else:
            padding.setdefault(position % PAGE, []).append(rows)
    np.testing.assert_array_equal(got[1:], wanted[1:])
    for slot in range(PAGE):  # of page 0, the null page: any one of the padding tokens that fall on the slot
        choices = padding.get(slot, [step.pool[0, :, slot]])
        assert any(np.array_equal(got[0, :, slot], rows, equal_nan=True) for rows in choices), f"slot {slot} of page 0"
    return wanted


def reference(case: Attention, step: Step, pool: Array, request: int, token: int) -> tuple[Array, float, float]:
    """One token's mix in float64, the largest sum of |q| |k| in a score, and the largest |v|."""
    position = int(step.start[request]) + token
    seen = np.arange(max(0, position - case.window + 1) if case.window else 0, position + 1)
    keys, values = (pool[step.table[request, seen // PAGE], half, seen % PAGE].astype(np.float64) for half in (0, 1))
    mix, largest = np.zeros((case.heads, DIM)), 0.0
    for head in range(case.heads):
        query, group = step.query[request, head, token].astype(np.float64), head // (case.heads // KV_HEADS)
        scores = SCALE * keys[:, group] @ query
        largest = max(largest, float((np.abs(keys[:, group]) @ np.abs(query)).max()))
        if case.softcap:
            scores = case.softcap * np.tanh(scores / case.softcap)
        if case.has_slopes:  # by the key's position alone, as models write it; only next to a sink it matters
            scores = scores + step.slopes[head].astype(np.float64) * (seen - (position if case.has_sinks else 0))
        sink = np.exp(np.float64(step.sinks[head])) if case.has_sinks else 0.0
        mix[head] = np.exp(scores) @ values[:, group] / (np.exp(scores).sum() + sink)
    return mix, largest, float(np.abs(values).max())


def check_step(module: Any, rng: np.random.Generator, case: Attention) -> None:
    step = make_step(rng, case)
    new_pool, got = call(module, case.name, *(getattr(step, name) for name in case.arguments))
    assert new_pool.dtype == got.dtype == DTYPES[case.element]
    pool = check_pool(new_pool, step)
    for request in range(BATCH):
        for token in range(step.valid[request]):
            wanted, score_size, value_size = reference(case, step, pool, request, token)
            # A weight is off by the error of its score (DIM products in f32, the scale, a few 2^-24 for the CPU's
            # polynomials for exp and tanh); numerator and denominator are sums of at most COLUMNS * PAGE weights.
            weight_error = (DIM + 2) * SUM * SCALE * score_size + (16 + COLUMNS * PAGE) * SUM
            # Weights and result are each rounded to the storage type once.
            bound = (2 * weight_error + 2 * ROUND[case.element]) * value_size
            assert_within(got[request, token], wanted, np.full_like(wanted, bound))


@pytest.mark.parametrize("case", ATTENTIONS, ids=lambda case: case.name)
def test_kv_write_and_paged_attention(fused_module: Any, rng: np.random.Generator, case: Attention) -> None:
    check_step(fused_module, rng, case)


@pytest.mark.parametrize("case", SPLIT_ATTENTIONS, ids=lambda case: case.name)
def test_split_softmax(split_module: Any, rng: np.random.Generator, case: Attention) -> None:
    check_step(split_module, rng, case)


@pytest.mark.parametrize("case", VECTOR_ATTENTIONS, ids=lambda case: case.name)
def test_attention_in_vectors(vector_module: Any, rng: np.random.Generator, case: Attention) -> None:
    check_step(vector_module, rng, case)
