"""The CPU's form of paged attention over many tokens: one dispatch, written in vectors.

A workgroup makes one head of as many tokens as a vector has lanes. It goes through the pages that its tokens can see,
some keys at a time, and keeps the maximum, the sum and the result of each token as it goes (Dao et al. 2022, arXiv
2205.14135, algorithm 1; Milakov and Gimelshein 2018, arXiv 1805.02867). Tokens are lanes, so that nothing is added up
across a vector: a key or a value is one number for all lanes.

    for pages, from the first that the window shows to the last that the tokens have reached
      for keys, `keys` at a time
        scores      for the head dim: query of all lanes times one number of each key
        softmax     in registers
        result      for the head dim: weights of all lanes times one number of each value

Where pairs of bf16 can be multiplied, two numbers of the head dim are one step of the scores, and two keys are one
step of the result: rows of values are interleaved for that.

Why not linalg: the scores of 512 tokens, 32 heads and 512 keys are 32 MiB a layer, written and read five times.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amdnfs_passes.attention.paged_attention import PagedAttention, hex_f32
from amdnfs_passes.kernels.embed import COST_ATTRIBUTE
from amdnfs_passes.lower.vector_linear import dot_pairs
from amdnfs_passes.lower.vector_product import Vectors
from amdnfs_passes.quantize.generic_text import convert, tensor
from amdnfs_passes.quantize.vector_form import narrow_pairs

_DISPATCH = "!iree_tensor_ext.dispatch.tensor"
_MOST_STACK_BYTES = 24 * 1024
"""Scratch of a workgroup; IREE 3.13.0 refuses 32 KiB."""
_LOWEST = "0xFF7FFFFF"
_UNROLL = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorAttention:
    """An attention, and the vectors that compute it."""

    facts: PagedAttention
    """The attention."""
    lanes: int
    """Tokens of a workgroup."""
    keys: int
    """Keys at a time."""
    has_pairs: bool
    """Whether pairs of bf16 are multiplied."""

    @property
    def scores(self) -> str:
        """The type of a number of each token."""
        return f"vector<{self.lanes}xf32>"

    @property
    def pairs(self) -> str:
        """The type of a pair of numbers of each token."""
        return f"vector<{2 * self.lanes}xbf16>"

    @property
    def pool_type(self) -> str:
        """The type of the pool."""
        a = self.facts
        return f"tensor<?x2x{a.page_tokens}x{a.kv_heads}x{a.head_dim}x{a.element}>"

    @property
    def query_scratch(self) -> str:
        """The type of the queries with tokens as lanes."""
        if self.has_pairs:
            return tensor((self.facts.head_dim // 2, 2 * self.lanes), "bf16")
        return tensor((self.facts.head_dim, self.lanes), "f32")

    @property
    def value_scratch(self) -> str:
        """The type of interleaved values."""
        return tensor((self.keys // 2, 2 * self.facts.head_dim), "bf16")

    @property
    def result_scratch(self) -> str:
        """The type of the result with tokens as lanes."""
        return tensor((self.facts.head_dim, self.lanes), "f32")


def match_vectors(a: PagedAttention, vectors: Vectors) -> VectorAttention | None:
    """How a processor computes `a` in vectors; None if it has too few tokens, or heads too wide, for that."""
    keys = min(16 if vectors.registers >= 32 else 8, a.page_tokens)
    has_pairs = a.element == "bf16" and vectors.has_bf16_pairs
    num_bytes = a.head_dim * (vectors.lanes * (8 if not has_pairs else 6) + (2 * keys if has_pairs else 0))
    fits = num_bytes + a.head_dim * vectors.lanes * 4 <= _MOST_STACK_BYTES
    if a.has_bytes or a.tokens % vectors.lanes or a.page_tokens % keys or a.head_dim % _UNROLL or not fits:
        return None
    return VectorAttention(facts=a, lanes=vectors.lanes, keys=keys, has_pairs=has_pairs)


def vector_attention(name: str, v: VectorAttention) -> str:
    """A private function with the operands of `amdnfs.paged_attention`, sinks and slopes only if there are any.

    Args:
        name: Its name.
        v: What it computes.
    """
    a = v.facts
    query = tensor((a.batch, a.heads, a.tokens, a.head_dim), a.element)
    result = tensor((a.batch, a.tokens, a.heads, a.head_dim), a.element)
    table, per_request = f"tensor<{a.batch}x?xi32>", tensor((a.batch,), "i64")
    operands = [("query", query, ""), ("pool", v.pool_type, "{%num_pages}"), ("table", table, "{%pages}")]
    operands += [("start", per_request, ""), ("valid", per_request, "")]
    operands += [("sinks", tensor((a.heads,), a.element), "")] * a.has_sinks
    operands += [("slopes", tensor((a.heads,), "f32"), "")] * a.has_slopes
    given = ", ".join(f"%{item}: {kind}" for item, kind, _ in operands)
    names = ", ".join(f"%{item}" for item, _, _ in operands)
    kinds = ", ".join(f"{kind}{size}" for _, kind, size in operands)
    inner = ", ".join(f"%{item}.ref: {_DISPATCH}<readonly:{kind}>" for item, kind, _ in operands)
    lines = [
        f'func.func private @"{name}"({given}) -> {result} {{',
        "%c0 = arith.constant 0 : index",
        "%c1 = arith.constant 1 : index",
        f"%num_pages = tensor.dim %pool, %c0 : {v.pool_type}",
        f"%pages = tensor.dim %table, %c1 : {table}",
        f"%result = flow.dispatch.workgroups[%num_pages, %pages]({names}, %num_pages, %pages)",
        f": ({kinds}, index, index) -> {result} attributes {{{COST_ATTRIBUTE} = {_cost(a)}}} =",
        f"({inner}, %num_pages.arg: index, %pages.arg: index, %y.ref: {_DISPATCH}<writeonly:{result}>) {{",
        *_loads(v, query, table),
        *_query(v),
        *_pages(v),
        *_store(v, result),
        "flow.return",
        "} count(%ignored: index, %also: index) -> (index, index, index) {",
        f"%tiles = arith.constant {a.tokens // v.lanes} : index",
        f"%heads = arith.constant {a.heads} : index",
        f"%batch = arith.constant {a.batch} : index",
        "flow.return %tiles, %heads, %batch : index, index, index",
        "}",
        f"return %result : {result}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _cost(a: PagedAttention) -> str:
    """Work for the report, which cannot count loops whose length is data: `[constant, per token of context]`."""
    rows, size = a.batch * a.heads * a.tokens, 4 if a.element == "f32" else 2
    flops, cached = 4 * rows * a.head_dim, 2 * a.batch * a.kv_heads * a.head_dim * size
    return (
        f'{{op = "paged_attention", type = "{a.element}", flops = [0, {flops}], '
        f"bytes = [{2 * rows * a.head_dim * size}, {cached}]}}"
    )


def _loads(v: VectorAttention, query: str, table: str) -> Iterator[str]:
    """Constants, the operands' tensors, and where the workgroup is."""
    a = v.facts
    sizes = {"zero": 0, "one": 1, "two": 2, "lanes": v.lanes, "group": a.heads // a.kv_heads, "dim": a.head_dim}
    sizes |= {"page_tokens": a.page_tokens, "keys": v.keys, "unroll": _UNROLL, "before_window": a.window - 1}
    sizes |= {"half_dim": a.head_dim // 2, "last_lane": v.lanes - 1, "one_less": v.lanes - 1}
    for name, size in sizes.items():
        yield f"%{name} = arith.constant {max(size, 0)} : index"
    yield f"%nothing = arith.constant dense<0.0> : {v.scores}"
    yield f"%ones = arith.constant dense<1.0> : {v.scores}"
    yield f"%lowest = arith.constant dense<{_LOWEST}> : {v.scores}"
    yield f"%padding = arith.constant 0.0 : {a.element}"
    yield "%no_float = arith.constant 0.0 : f32"
    yield f"%no_row = arith.constant dense<0.0> : vector<{a.head_dim}x{a.element}>"
    yield "%tile = flow.dispatch.workgroup.id[0] : index"
    yield "%head = flow.dispatch.workgroup.id[1] : index"
    yield "%b = flow.dispatch.workgroup.id[2] : index"
    yield "%t0 = arith.muli %tile, %lanes : index"
    yield "%kv = arith.divui %head, %group : index"
    load = "iree_tensor_ext.dispatch.tensor.load"
    own = tensor((1, 1, v.lanes, a.head_dim), a.element)
    yield (
        f"%q.t = {load} %query.ref, offsets = [%b, %head, %t0, 0], sizes = [1, 1, {v.lanes}, {a.head_dim}], "
        f"strides = [1, 1, 1, 1] : {_DISPATCH}<readonly:{query}> -> {own}"
    )
    yield "%n = iree_tensor_ext.dispatch.workload.ordinal %num_pages.arg, 0 : index"
    yield "%p = iree_tensor_ext.dispatch.workload.ordinal %pages.arg, 1 : index"
    yield (
        f"%pool.t = {load} %pool.ref, offsets = [0, 0, 0, 0, 0], "
        f"sizes = [%n, 2, {a.page_tokens}, {a.kv_heads}, {a.head_dim}], strides = [1, 1, 1, 1, 1] : "
        f"{_DISPATCH}<readonly:{v.pool_type}>{{%n}} -> {v.pool_type}"
    )
    yield (
        f"%table.t = {load} %table.ref, offsets = [0, 0], sizes = [{a.batch}, %p], strides = [1, 1] : "
        f"{_DISPATCH}<readonly:{table}>{{%p}} -> {table}"
    )
    rows = [("start", a.batch, "i64"), ("valid", a.batch, "i64")]
    rows += [("sinks", a.heads, a.element)] * a.has_sinks + [("slopes", a.heads, "f32")] * a.has_slopes
    for name, size, element in rows:
        kind = tensor((size,), element)
        yield (
            f"%{name}.t = {load} %{name}.ref, offsets = [0], sizes = [{size}], strides = [1] : "
            f"{_DISPATCH}<readonly:{kind}> -> {kind}"
        )
    yield f"%start64 = tensor.extract %start.t[%b] : {tensor((a.batch,), 'i64')}"
    yield f"%valid64 = tensor.extract %valid.t[%b] : {tensor((a.batch,), 'i64')}"
    yield "%begin = arith.index_cast %start64 : i64 to index"
    yield "%count = arith.index_cast %valid64 : i64 to index"
    yield "%end = arith.addi %begin, %count : index"
    yield "%first = arith.addi %begin, %t0 : index"
    yield "%first32 = arith.index_cast %first : index to i32"
    yield f"%firsts = vector.broadcast %first32 : i32 to vector<{v.lanes}xi32>"
    yield f"%steps = arith.constant dense<[{', '.join(str(lane) for lane in range(v.lanes))}]> : vector<{v.lanes}xi32>"
    yield f"%positions = arith.addi %firsts, %steps : vector<{v.lanes}xi32>"


def _query(v: VectorAttention) -> Iterator[str]:
    """Makes `%q`, the queries with tokens as lanes."""
    a, kind = v.facts, v.query_scratch
    own = tensor((1, 1, v.lanes, a.head_dim), a.element)
    yield f"%q.empty = tensor.empty() : {kind}"
    yield f"%q = scf.for %t = %zero to %lanes step %one iter_args(%q.outer = %q.empty) -> {kind} {{"
    yield f"%q.row = scf.for %d = %zero to %dim step %one iter_args(%q.inner = %q.outer) -> {kind} {{"
    yield f"%q.one = tensor.extract %q.t[%zero, %zero, %t, %d] : {own}"
    if v.has_pairs:
        yield "%q.pair = arith.divui %d, %two : index"
        yield "%q.place = arith.remui %d, %two : index"
        yield "%q.twice = arith.muli %t, %two : index"
        yield "%q.column = arith.addi %q.twice, %q.place : index"
        yield f"%q.new = tensor.insert %q.one into %q.inner[%q.pair, %q.column] : {kind}"
    else:
        yield convert("%q.wide", "%q.one", a.element, "f32")
        yield f"%q.new = tensor.insert %q.wide into %q.inner[%d, %t] : {kind}"
    yield f"scf.yield %q.new : {kind}\n}}\nscf.yield %q.row : {kind}\n}}"


def _pages(v: VectorAttention) -> Iterator[str]:
    """Makes `%sum` and `%o`: the sum of a token's weights, and its result times that."""
    a, kind = v.facts, v.result_scratch
    yield f"%o.empty = tensor.empty() : {kind}"
    yield f"%o.none = scf.for %d = %zero to %dim step %one iter_args(%o.clear = %o.empty) -> {kind} {{"
    clear = "vector.transfer_write %nothing, %o.clear[%d, %zero] {in_bounds = [true]}"
    yield f"%o.cleared = {clear} : {v.scores}, {kind}"
    yield f"scf.yield %o.cleared : {kind}\n}}"
    top, total = "%lowest", "%nothing"
    if a.has_sinks:
        yield f"%sink = tensor.extract %sinks.t[%head] : {tensor((a.heads,), a.element)}"
        yield convert("%sink32", "%sink", a.element, "f32")
        yield f"%sink.all = vector.broadcast %sink32 : f32 to {v.scores}"
        top, total = "%sink.all", "%ones"
    if a.has_slopes:
        yield f"%slope = tensor.extract %slopes.t[%head] : {tensor((a.heads,), 'f32')}"
        yield f"%slope.all = vector.broadcast %slope : f32 to {v.scores}"
    yield "%last = arith.addi %first, %last_lane : index"
    yield "%last_page = arith.divui %last, %page_tokens : index"
    yield "%reached = arith.addi %last_page, %one : index"
    yield "%pages_end = arith.minui %reached, %p : index"
    first_page = "%zero"
    if a.window:
        yield "%seen = arith.subi %first, %before_window : index"
        yield "%seen_from = arith.maxsi %seen, %zero : index"
        yield "%first_page = arith.divui %seen_from, %page_tokens : index"
        first_page = "%first_page"
    state = f"({v.scores}, {v.scores}, {kind})"
    arguments = f"%top.page = {top}, %sum.page = {total}, %o.page = %o.none"
    yield f"%top, %sum, %o = scf.for %j = {first_page} to %pages_end step %one iter_args({arguments}) -> {state} {{"
    yield f"%page32 = tensor.extract %table.t[%b, %j] : tensor<{a.batch}x?xi32>"
    yield "%page = arith.index_cast %page32 : i32 to index"
    yield "%page_begin = arith.muli %j, %page_tokens : index"
    arguments = "%top.old = %top.page, %sum.old = %sum.page, %o.old = %o.page"
    yield (
        f"%top.tile, %sum.tile, %o.tile = scf.for %key = %zero to %page_tokens step %keys "
        f"iter_args({arguments}) -> {state} {{"
    )
    yield from _scores(v)
    yield from _softmax(v)
    yield from _results(v)
    kinds = f"{v.scores}, {v.scores}, {kind}"
    yield f"scf.yield %top.new, %sum.new, %o.new : {kinds}\n}}"
    yield f"scf.yield %top.tile, %sum.tile, %o.tile : {kinds}\n}}"


def _scores(v: VectorAttention) -> Iterator[str]:
    """Defines `%score.<k>`, masked."""
    a, count = v.facts, v.keys
    for k in range(count):
        yield f"%k{k} = arith.constant {k} : index"
        yield f"%key.{k} = arith.addi %key, %k{k} : index"
    kinds = ", ".join([v.scores] * count)
    arguments = ", ".join(f"%dot.{k} = %nothing" for k in range(count))
    stop = "%half_dim" if v.has_pairs else "%dim"
    yield f"%dots:{count} = scf.for %d = %zero to {stop} step %one iter_args({arguments}) -> ({kinds}) {{"
    kind = v.pairs if v.has_pairs else v.scores
    pad = "%padding" if v.has_pairs else "%no_float"
    yield f"%qv = vector.transfer_read %q[%d, %zero], {pad} {{in_bounds = [true]}} : {v.query_scratch}, {kind}"
    if v.has_pairs:
        yield "%d2 = arith.muli %d, %two : index"
    for k in range(count):
        if v.has_pairs:
            place = f"%pool.t[%page, %zero, %key.{k}, %kv, %d2]"
            yield from _spread_pair(v, f"%kv.{k}", place, v.pool_type)
            yield dot_pairs(f"%more.{k}", "%qv", f"%kv.{k}", f"%dot.{k}", 2 * v.lanes)
        else:
            yield from _spread(v, f"%kv.{k}", f"%pool.t[%page, %zero, %key.{k}, %kv, %d]")
            yield f"%more.{k} = vector.fma %qv, %kv.{k}, %dot.{k} : {v.scores}"
    yield f"scf.yield {', '.join(f'%more.{k}' for k in range(count))} : {kinds}\n}}"
    yield f"%scale0 = arith.constant dense<{_hex(a.scale)}> : {v.scores}"
    if a.softcap:
        yield f"%cap = arith.constant dense<{_hex(a.softcap)}> : {v.scores}"
    integers = f"vector<{v.lanes}xi32>"
    if a.window:
        yield f"%window = arith.constant dense<{a.window}> : {integers}"
    yield "%tile_begin = arith.addi %page_begin, %key : index"
    for k in range(count):
        yield from _mask(v, k, integers)


def _mask(v: VectorAttention, k: int, integers: str) -> Iterator[str]:
    """Defines `%score.<k>`: scaled, bent, sloped, and the lowest number where it is not seen."""
    a, value = v.facts, f"%scaled.{k}"
    yield f"{value} = arith.mulf %dots#{k}, %scale0 : {v.scores}"
    if a.softcap:
        yield f"%ratio.{k} = arith.divf {value}, %cap : {v.scores}"
        yield f"%bent.{k} = math.tanh %ratio.{k} : {v.scores}"
        yield f"%capped.{k} = arith.mulf %bent.{k}, %cap : {v.scores}"
        value = f"%capped.{k}"
    yield f"%at.{k} = arith.addi %tile_begin, %k{k} : index"
    yield f"%at32.{k} = arith.index_cast %at.{k} : index to i32"
    yield f"%at.all.{k} = vector.broadcast %at32.{k} : i32 to {integers}"
    yield f"%away.{k} = arith.subi %positions, %at.all.{k} : {integers}"
    if a.has_slopes:
        yield f"%far.{k} = arith.sitofp %away.{k} : {integers} to {v.scores}"
        yield f"%drop.{k} = arith.mulf %slope.all, %far.{k} : {v.scores}"
        yield f"%sloped.{k} = arith.subf {value}, %drop.{k} : {v.scores}"
        value = f"%sloped.{k}"
    yield f"%none.{k} = arith.constant dense<0> : {integers}"
    yield f"%is_past.{k} = arith.cmpi sge, %away.{k}, %none.{k} : {integers}"
    seen = f"%is_past.{k}"
    if a.window:
        yield f"%is_near.{k} = arith.cmpi slt, %away.{k}, %window : {integers}"
        yield f"%is_seen.{k} = arith.andi %is_past.{k}, %is_near.{k} : vector<{v.lanes}xi1>"
        seen = f"%is_seen.{k}"
    yield f"%score.{k} = arith.select {seen}, {value}, %lowest : vector<{v.lanes}xi1>, {v.scores}"


def _softmax(v: VectorAttention) -> Iterator[str]:
    """Defines `%top.new`, `%shrink`, `%weight.<k>` and `%sum.new`."""
    top = "%top.old"
    for k in range(v.keys):
        name = f"%top.{k}" if k + 1 < v.keys else "%top.new"
        yield f"{name} = arith.maximumf {top}, %score.{k} : {v.scores}"
        top = name
    yield f"%fallen = arith.subf %top.old, %top.new : {v.scores}"
    yield f"%shrink = math.exp %fallen : {v.scores}"
    total = "%sum.0"
    yield f"{total} = arith.mulf %sum.old, %shrink : {v.scores}"
    for k in range(v.keys):
        yield f"%below.{k} = arith.subf %score.{k}, %top.new : {v.scores}"
        yield f"%weight.{k} = math.exp %below.{k} : {v.scores}"
        name = f"%sum.{k + 1}" if k + 1 < v.keys else "%sum.new"
        yield f"{name} = arith.addf {total}, %weight.{k} : {v.scores}"
        total = name


def _results(v: VectorAttention) -> Iterator[str]:
    """Defines `%o.new`. Values past the live context count as zero: a page may hold what another request left."""
    a, kind = v.facts, v.result_scratch
    if v.has_pairs:
        yield from _interleave_values(v)
    else:
        for k in range(v.keys):
            yield f"%is_live.{k} = arith.cmpi ult, %at.{k}, %end : index"
    yield f"%o.new = scf.for %d = %zero to %dim step %unroll iter_args(%o.d = %o.old) -> {kind} {{"
    target = "%o.d"
    for u in range(_UNROLL):
        yield f"%u{u} = arith.constant {u} : index"
        yield f"%d.{u} = arith.addi %d, %u{u} : index"
        read = f"vector.transfer_read %o.d[%d.{u}, %zero], %no_float {{in_bounds = [true]}}"
        yield f"%o.read.{u} = {read} : {kind}, {v.scores}"
        yield f"%mix.{u}.0 = arith.mulf %o.read.{u}, %shrink : {v.scores}"
        if v.has_pairs:
            yield f"%d2.{u} = arith.muli %d.{u}, %two : index"
    for k in range(v.keys // 2 if v.has_pairs else v.keys):
        for u in range(_UNROLL):
            old, new = f"%mix.{u}.{k}", f"%mix.{u}.{k + 1}"
            if v.has_pairs:
                yield from _spread_pair(v, f"%v.{u}.{k}", f"%values[%k{k}, %d2.{u}]", v.value_scratch)
                yield dot_pairs(new, f"%pair.{k}", f"%v.{u}.{k}", old, 2 * v.lanes)
            else:
                place = f"%pool.t[%page, %one, %key.{k}, %kv, %d.{u}]"
                yield f"%raw.{u}.{k} = tensor.extract {place} : {v.pool_type}"
                yield f"%kept.{u}.{k} = arith.select %is_live.{k}, %raw.{u}.{k}, %padding : {a.element}"
                yield convert(f"%wide.{u}.{k}", f"%kept.{u}.{k}", a.element, "f32")
                yield f"%v.{u}.{k} = vector.broadcast %wide.{u}.{k} : f32 to {v.scores}"
                yield f"{new} = vector.fma %weight.{k}, %v.{u}.{k}, {old} : {v.scores}"
    last = v.keys // 2 if v.has_pairs else v.keys
    for u in range(_UNROLL):
        write = f"vector.transfer_write %mix.{u}.{last}, {target}[%d.{u}, %zero] {{in_bounds = [true]}}"
        yield f"%o.write.{u} = {write} : {v.scores}, {kind}"
        target = f"%o.write.{u}"
    yield f"scf.yield {target} : {kind}\n}}"


def _interleave_values(v: VectorAttention) -> Iterator[str]:
    """Defines `%values`, rows of pairs, and `%pair.<k>`, the weights of two keys as pairs."""
    a, target = v.facts, "%values.empty"
    row, both = f"vector<{a.head_dim}xbf16>", f"vector<{2 * a.head_dim}xbf16>"
    yield f"%values.empty = tensor.empty() : {v.value_scratch}"
    for k in range(v.keys):
        place = f"%pool.t[%page, %one, %key.{k}, %kv, %zero]"
        yield f"%row.{k} = vector.transfer_read {place}, %padding {{in_bounds = [true]}} : {v.pool_type}, {row}"
        yield f"%is_live.{k} = arith.cmpi ult, %at.{k}, %end : index"
        yield f"%live.{k} = arith.select %is_live.{k}, %row.{k}, %no_row : {row}"
    half = f"vector<{v.lanes}xbf16>"
    for k in range(v.keys // 2):
        low, high = 2 * k, 2 * k + 1
        yield f"%both.{k} = vector.interleave %live.{low}, %live.{high} : {row} -> {both}"
        name = f"%values.{k}" if k + 1 < v.keys // 2 else "%values"
        write = f"vector.transfer_write %both.{k}, {target}[%k{k}, %zero] {{in_bounds = [true]}}"
        yield f"{name} = {write} : {both}, {v.value_scratch}"
        target = name
        whole = ", ".join(str(index) for index in range(2 * v.lanes))
        yield f"%joined.{k} = vector.shuffle %weight.{low}, %weight.{high} [{whole}] : {v.scores}, {v.scores}"
        yield from narrow_pairs(f"%narrow.{k}", f"%joined.{k}", 2 * v.lanes)
        for name, offset in (("even", 0), ("odd", v.lanes)):
            cut = f"offsets = [{offset}], sizes = [{v.lanes}], strides = [1]"
            yield f"%{name}.{k} = vector.extract_strided_slice %narrow.{k} {cut} : {v.pairs} to {half}"
        yield f"%pair.{k} = vector.interleave %even.{k}, %odd.{k} : {half} -> {v.pairs}"


def _spread(v: VectorAttention, name: str, place: str) -> Iterator[str]:
    """Defines `name`: one number of the pool in all lanes, in f32."""
    yield f"{name}.one = tensor.extract {place} : {v.pool_type}"
    yield convert(f"{name}.wide", f"{name}.one", v.facts.element, "f32")
    yield f"{name} = vector.broadcast {name}.wide : f32 to {v.scores}"


def _spread_pair(v: VectorAttention, name: str, place: str, source: str) -> Iterator[str]:
    """Defines `name`: two neighbours in all lanes."""
    yield f"{name}.two = vector.transfer_read {place}, %padding {{in_bounds = [true]}} : {source}, vector<2xbf16>"
    yield f"{name}.bits = vector.bitcast {name}.two : vector<2xbf16> to vector<1xi32>"
    yield f"{name}.word = vector.extract {name}.bits[0] : i32 from vector<1xi32>"
    yield f"{name}.words = vector.broadcast {name}.word : i32 to vector<{v.lanes}xi32>"
    yield f"{name} = vector.bitcast {name}.words : vector<{v.lanes}xi32> to {v.pairs}"


def _store(v: VectorAttention, result: str) -> Iterator[str]:
    """Divides by the sums, and writes the workgroup's part of the result."""
    a, kind = v.facts, v.result_scratch
    own = tensor((1, v.lanes, 1, a.head_dim), a.element)
    yield f"%divided = scf.for %d = %zero to %dim step %one iter_args(%o.d = %o) -> {kind} {{"
    yield f"%whole = vector.transfer_read %o.d[%d, %zero], %no_float {{in_bounds = [true]}} : {kind}, {v.scores}"
    yield f"%part = arith.divf %whole, %sum : {v.scores}"
    yield f"%o.write = vector.transfer_write %part, %o.d[%d, %zero] {{in_bounds = [true]}} : {v.scores}, {kind}"
    yield f"scf.yield %o.write : {kind}\n}}"
    yield f"%y.empty = tensor.empty() : {own}"
    yield f"%y = scf.for %t = %zero to %lanes step %one iter_args(%y.outer = %y.empty) -> {own} {{"
    yield f"%y.row = scf.for %d = %zero to %dim step %one iter_args(%y.inner = %y.outer) -> {own} {{"
    yield f"%y.one = tensor.extract %divided[%d, %t] : {kind}"
    yield convert("%y.narrow", "%y.one", "f32", a.element)
    yield f"%y.new = tensor.insert %y.narrow into %y.inner[%zero, %t, %zero, %d] : {own}"
    yield f"scf.yield %y.new : {own}\n}}\nscf.yield %y.row : {own}\n}}"
    yield (
        f"iree_tensor_ext.dispatch.tensor.store %y, %y.ref, offsets = [%b, %t0, %head, 0], "
        f"sizes = [1, {v.lanes}, 1, {a.head_dim}], strides = [1, 1, 1, 1] : {own} -> {_DISPATCH}<writeonly:{result}>"
    )


def _hex(value: float) -> str:
    return f"0x{hex_f32(value)}"
