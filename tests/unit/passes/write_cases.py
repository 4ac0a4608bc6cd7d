"""Writes of keys and values for `test_kernel_writes.py`: their programs, their inputs, and what they must give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.unit.passes.amd_programs import DTYPES, ROUND, TINY, EmulatedModule, uniform
from tests.unit.passes.attention_cases import Attention, Step, attend
from tests.unit.passes.cpu_programs import SUM, Array, assert_within, function, vt

CODES = {"f16": 5, "bf16": 15, "f32": 6}
EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class Write:
    name: str
    targets: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]
    """Of each request: tokens in the cache before the step, and tokens of the step."""
    tokens: int = 1
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    page: int = 16
    element: str = "f16"
    rotated: int = 0
    """Elements that are rotated; 0: no rotary embedding."""
    interleaved: bool = False
    is_paired: bool = False
    """Whether the program repeats each number of the tables for a pair."""
    table_element: str = "f16"
    has_norm: bool = False
    is_shared: bool = False
    """Whether one projection made queries, keys and values; else each has its own."""

    @property
    def attention(self) -> Attention:
        return Attention(
            name=self.name,
            targets=self.targets,
            spans=self.spans,
            tokens=self.tokens,
            kv_heads=self.kv_heads,
            group=self.heads // self.kv_heads,
            head_dim=self.head_dim,
            page=self.page,
            element=self.element,
        )

    @property
    def argument_shapes(self) -> list[tuple[tuple[int | str, ...], str]]:
        """Of the projections, the tables, the gains, the pool and what tells its use."""
        batch, tokens, dim = len(self.spans), self.tokens, self.head_dim
        widths = [self.heads * dim, self.kv_heads * dim, self.kv_heads * dim]
        shapes: list[tuple[tuple[int | str, ...], str]] = [
            ((batch, tokens, width), self.element) for width in ([sum(widths)] if self.is_shared else widths)
        ]
        if self.rotated:
            shapes += [((batch, tokens, self.rotated // (2 if self.is_paired else 1)), self.table_element)] * 2
        shapes += [((dim,), self.element)] * 2 if self.has_norm else []
        shapes += [(("n", 2, self.page, self.kv_heads, dim), self.element), ((batch, "n"), "si32")]
        return shapes + [((batch,), "si64")] * 2

    def text(self) -> str:
        return _Text(self).function()


class _Text:
    """Writes the program of a case as models write it."""

    def __init__(self, case: Write) -> None:
        self.case = case
        self.lines = ["%none = torch.constant.none", "%false = torch.constant.bool false"]
        self.count = 0
        self.numbers: dict[int, str] = {}

    def function(self) -> str:
        case = self.case
        kinds = [vt(["?" if size == "n" else size for size in shape], kind) for shape, kind in case.argument_shapes]
        batch, tokens, dim = len(case.spans), case.tokens, case.head_dim
        names = [f"%{i}" for i in range(len(kinds))]
        pool, table, start, valid = names[-4:]
        sources = self._split(names.pop(0)) if case.is_shared else [names.pop(0) for _ in range(3)]
        tables = [self._table(names.pop(0)) for _ in range(2)] if case.rotated else []
        gains = [names.pop(0), names.pop(0)] if case.has_norm else []
        heads = (case.heads, case.kv_heads, case.kv_heads)
        q, k, v = (
            self._heads(source, count, tables if place < 2 else [], gains[place] if gains and place < 2 else "")
            for place, (source, count) in enumerate(zip(sources, heads, strict=True))
        )
        kv, qk = (
            vt((batch, case.kv_heads, tokens, dim), case.element),
            vt((batch, case.heads, tokens, dim), case.element),
        )
        y = vt((batch, tokens, case.heads, dim), case.element)
        p, t, s, n = kinds[-4:]
        self.lines += [
            f'%y1 = torch.operator "torch.amdnfs.kv_write"({pool}, {k}, {v}, {table}, {start}, {valid}) : '
            f"({p}, {kv}, {kv}, {t}, {s}, {n}) -> {p}",
            f"%scale = torch.constant.float {case.attention.scale}",
            "%cap = torch.constant.float 0.0",
            f'%y0 = torch.operator "torch.amdnfs.paged_attention"({q}, %y1, {table}, {start}, {valid}, %none, %none, '
            f"%scale, {self._int(0)}, %cap) : ({qk}, {p}, {t}, {s}, {n}, !torch.none, !torch.none, !torch.float, "
            f"!torch.int, !torch.float) -> {y}",
        ]
        return function(case.name, kinds, [y, p], "\n".join(self.lines))

    def _int(self, number: int) -> str:
        if number not in self.numbers:
            self.numbers[number] = f"%int{len(self.numbers)}"
            self.lines.insert(0, f"{self.numbers[number]} = torch.constant.int {number}")
        return self.numbers[number]

    def _new(self) -> str:
        self.count += 1
        return f"%v{self.count}"

    def _op(self, text: str, shape: tuple[int, ...], element: str) -> str:
        """An operation; `text` ends where the result type begins."""
        name = self._new()
        self.lines.append(f"{name} = {text} -> {vt(shape, element)}")
        return name

    def _split(self, name: str) -> list[str]:
        case = self.case
        batch, tokens, dim = len(case.spans), case.tokens, case.head_dim
        widths = [case.heads * dim, case.kv_heads * dim, case.kv_heads * dim]
        whole = vt((batch, tokens, sum(widths)), case.element)
        found, begin = [], 0
        for width in widths:
            bounds = [self._int(number) for number in (2, begin, begin + width, 1)]
            found.append(
                self._op(
                    f"torch.aten.slice.Tensor {name}, {', '.join(bounds)} : {whole}" + ", !torch.int" * 4,
                    (batch, tokens, width),
                    case.element,
                )
            )
            begin += width
        return found

    def _table(self, name: str) -> str:
        case = self.case
        batch, tokens = len(case.spans), case.tokens
        size = case.rotated // (2 if case.is_paired else 1)
        shape = (batch, 1, tokens, size)
        text = (
            f"torch.aten.unsqueeze {name}, {self._int(1)} : {vt((batch, tokens, size), case.table_element)}, !torch.int"
        )
        name = self._op(text, shape, case.table_element)
        if case.is_paired:
            text = (
                f"torch.aten.repeat_interleave.self_int {name}, {self._int(2)}, {self._int(-1)}, %none : "
                f"{vt(shape, case.table_element)}, !torch.int, !torch.int, !torch.none"
            )
            name = self._op(text, (*shape[:3], case.rotated), case.table_element)
        return name

    def _heads(self, name: str, count: int, tables: list[str], gain: str) -> str:
        case = self.case
        batch, tokens, dim, kind = len(case.spans), case.tokens, case.head_dim, case.element
        flat, split, turned = (batch, tokens, count * dim), (batch, tokens, count, dim), (batch, count, tokens, dim)
        sizes = self._new()
        numbers = [self._int(number) for number in split]
        kinds = ", ".join(["!torch.int"] * 4)
        self.lines.append(f"{sizes} = torch.prim.ListConstruct {', '.join(numbers)} : ({kinds}) -> !torch.list<int>")
        name = self._op(f"torch.aten.view {name}, {sizes} : {vt(flat, kind)}, !torch.list<int>", split, kind)
        if gain:
            name = self._norm(name, gain, split)
        axes = f"{self._int(1)}, {self._int(2)}"
        name = self._op(
            f"torch.aten.transpose.int {name}, {axes} : {vt(split, kind)}, !torch.int, !torch.int", turned, kind
        )
        if not tables:
            return name
        if case.table_element == "f32":
            return self._copy(self._rotate(name, tables, turned, "f32"), turned, "f32", kind)
        if case.rotated == dim:
            return self._rotate(name, tables, turned, kind)
        first = self._slice(name, turned, 0, case.rotated)
        rest = self._slice(name, turned, case.rotated, dim)
        shapes = [(*turned[:3], size) for size in (case.rotated, dim - case.rotated)]
        first = self._rotate(first, tables, shapes[0], kind)
        both = self._new()
        kinds = ", ".join(vt(shape, kind) for shape in shapes)
        self.lines.append(f"{both} = torch.prim.ListConstruct {first}, {rest} : ({kinds}) -> !torch.list<vtensor>")
        return self._op(f"torch.aten.cat {both}, {self._int(-1)} : !torch.list<vtensor>, !torch.int", turned, kind)

    def _slice(self, name: str, shape: tuple[int, ...], begin: int, end: int) -> str:
        bounds = ", ".join(self._int(number) for number in (3, begin, end, 1))
        text = f"torch.aten.slice.Tensor {name}, {bounds} : {vt(shape, self.case.element)}" + ", !torch.int" * 4
        return self._op(text, (*shape[:3], end - begin), self.case.element)

    def _rotate(self, name: str, tables: list[str], shape: tuple[int, ...], result: str) -> str:
        case = self.case
        flag = self._new()
        self.lines.append(f"{flag} = torch.constant.bool {str(case.interleaved).lower()}")
        table = vt((len(case.spans), 1, case.tokens, case.rotated), case.table_element)
        text = (
            f'torch.operator "torch.amdnfs.rotary"({name}, {", ".join(tables)}, {flag}) : '
            f"({vt(shape, case.element)}, {table}, {table}, !torch.bool)"
        )
        return self._op(text, shape, result)

    def _copy(self, name: str, shape: tuple[int, ...], old: str, new: str) -> str:
        text = (
            f"torch.aten._to_copy {name}, {self._int(CODES[new])}, %none, %none, %none, %false, %none : "
            f"{vt(shape, old)}, !torch.int, !torch.none, !torch.none, !torch.none, !torch.bool, !torch.none"
        )
        return self._op(text, shape, new)

    def _norm(self, name: str, gain: str, shape: tuple[int, ...]) -> str:
        wide, one, kind = vt(shape, "f32"), (*shape[:-1], 1), self.case.element
        x = self._copy(name, shape, kind, "f32")
        square = self._op(f"torch.aten.pow.Tensor_Scalar {x}, {self._int(2)} : {wide}, !torch.int", shape, "f32")
        axes, keep, eps = self._new(), self._new(), self._new()
        self.lines += [
            f"{axes} = torch.prim.ListConstruct {self._int(-1)} : (!torch.int) -> !torch.list<int>",
            f"{keep} = torch.constant.bool true",
            f"{eps} = torch.constant.float {EPS:.9e}",
        ]
        text = (
            f"torch.aten.mean.dim {square}, {axes}, {keep}, %none : {wide}, !torch.list<int>, !torch.bool, !torch.none"
        )
        mean = self._op(text, one, "f32")
        text = f"torch.aten.add.Scalar {mean}, {eps}, {self._int(1)} : {vt(one, 'f32')}, !torch.float, !torch.int"
        root = self._op(f"torch.aten.rsqrt {self._op(text, one, 'f32')} : {vt(one, 'f32')}", one, "f32")
        scaled = self._op(f"torch.aten.mul.Tensor {x}, {root} : {wide}, {vt(one, 'f32')}", shape, "f32")
        narrow = self._copy(scaled, shape, "f32", kind)
        text = f"torch.aten.mul.Tensor {gain}, {narrow} : {vt(shape[-1:], kind)}, {vt(shape, kind)}"
        return self._op(text, shape, kind)


# 0 tokens of 0: a row of the batch that is not used. Chunks end with padding.
WRITES = [
    Write(
        name="halves_shared",
        targets=("gfx90a", "gfx1201"),
        spans=((70, 1), (0, 1), (0, 0), (15, 1)),
        rotated=64,
        is_shared=True,
    ),
    Write(
        name="interleaved_part_paired",
        targets=("gfx942", "gfx1151"),
        spans=((37, 17),),
        tokens=24,
        head_dim=80,
        page=32,
        element="bf16",
        table_element="bf16",
        rotated=24,
        interleaved=True,
        is_paired=True,
    ),
    Write(
        name="halves_normalised_wide_tables",
        targets=("gfx90a", "gfx1201"),
        spans=((0, 19),),
        tokens=20,
        head_dim=128,
        rotated=128,
        has_norm=True,
        table_element="f32",
    ),
    Write(
        name="part_normalised",
        targets=("gfx942", "gfx1201"),
        spans=((63, 1), (16, 1)),
        heads=8,
        kv_heads=1,
        head_dim=96,
        page=64,
        rotated=40,
        has_norm=True,
    ),
    Write(
        name="interleaved",
        targets=("gfx942", "gfx1151"),
        spans=((5, 6),),
        tokens=7,
        rotated=64,
        interleaved=True,
        is_shared=True,
    ),
    Write(name="plain_shared", targets=("gfx90a", "gfx1151"), spans=((5, 9),), tokens=12, kv_heads=4, is_shared=True),
]


def prepare(case: Write, x: Array, tables: list[Array], gain: Array | None) -> tuple[Array, Array]:
    """Vectors `[batch, tokens, heads, dim]` normalised and rotated in float64, and how large the terms are."""
    y = x.astype(np.float64)
    if gain is not None:
        y = y / np.sqrt((y * y).mean(-1, keepdims=True) + EPS) * gain.astype(np.float64)
    if not case.rotated:
        return y, np.abs(y)
    cos, sin = (item.astype(np.float64)[:, :, None] for item in tables)
    if case.is_paired:
        cos, sin = cos.repeat(2, -1), sin.repeat(2, -1)
    part = y[..., : case.rotated]
    pairs = (
        (slice(0, None, 2), slice(1, None, 2))
        if case.interleaved
        else (slice(0, case.rotated // 2), slice(case.rotated // 2, None))
    )
    turned = np.empty_like(part)
    turned[..., pairs[0]], turned[..., pairs[1]] = -part[..., pairs[1]], part[..., pairs[0]]
    result, sizes = y.copy(), np.abs(y)
    result[..., : case.rotated] = part * cos + turned * sin
    sizes[..., : case.rotated] = np.abs(part * cos) + np.abs(turned * sin)
    return result, sizes


def check_write(program: EmulatedModule, rng: np.random.Generator, case: Write) -> None:
    batch, page, dim, kind = len(case.spans), case.page, case.head_dim, case.element
    columns = case.attention.columns
    table = rng.permutation(np.arange(1, 1 + batch * columns)).reshape(batch, columns).astype(np.int32)
    pool = uniform(rng, (1 + batch * columns, 2, page, case.kv_heads, dim), kind)
    start, valid = np.array(case.spans, np.int64).T.copy()
    shapes = [(shape, element) for shape, element in case.argument_shapes[:-4]]
    inputs = [
        rng.uniform(-2, 2, [int(size) for size in shape]).astype(np.float32 if element == "f32" else DTYPES[element])
        for shape, element in shapes
    ]
    pool_result = pool.copy()
    got, written = program.call(case.name, *inputs, pool_result, table, start, valid)
    widths = np.cumsum([case.heads * dim, case.kv_heads * dim])
    sources = np.split(inputs[0], widths, axis=-1) if case.is_shared else inputs[:3]
    rest = inputs[1 if case.is_shared else 3 :]
    tables, gains = (rest[:2], rest[2:]) if case.rotated else ([], rest)
    heads = (case.heads, case.kv_heads, case.kv_heads)
    vectors = [item.reshape(batch, case.tokens, count, dim) for item, count in zip(sources, heads, strict=True)]
    query, query_sizes = prepare(case, vectors[0], tables, gains[0] if gains else None)
    key, key_sizes = prepare(case, vectors[1], tables, gains[1] if gains else None)
    wanted, bound = pool.astype(np.float64), np.zeros(pool.shape)
    for request, (begin, count) in enumerate(case.spans):
        for token in range(count):
            slot = (table[request, (begin + token) // page], slice(None), (begin + token) % page)
            wanted[slot] = np.stack([key[request, token], vectors[2][request, token].astype(np.float64)])
            # A vector's sum of squares, root, gain and two products in f32; then stored once.
            error = (dim + 8) * SUM * key_sizes[request, token] + ROUND[kind] * np.abs(key[request, token]) + TINY[kind]
            bound[slot] = np.stack([error * 1.001, np.zeros_like(error)])
    # All that is not written, page 0 and the padding of chunks among it, stays as it was.
    assert_within(written, wanted, bound)
    step = Step(
        query=query.transpose(0, 2, 1, 3),
        pool=written,
        table=table,
        start=start,
        valid=valid,
        sinks=np.zeros(0),
        slopes=np.zeros(0),
    )
    for request, (_, count) in enumerate(case.spans):
        for token in range(count):
            mixed, error = attend(case.attention, step, request, token)
            # The queries are rounded once: that moves a score by as much, relative to the sizes of its terms.
            largest = float(np.abs(written.astype(np.float64)).max())
            moved = case.attention.scale * dim * largest * float(query_sizes[request, token].max()) * 2 * ROUND[kind]
            assert_within(got[request, token], mixed, error + 2 * moved * 4)
