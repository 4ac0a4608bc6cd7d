"""The CPU's form of paged attention: one dispatch, written in vectors.

A workgroup makes as many rows as a vector has lanes. In a chunk of many tokens these are tokens of one head; of few
tokens, or one, they are all tokens of all heads that share a KV head, so that each key and value is read once. The
workgroup goes through the pages that its rows can see, some keys at a time, and keeps the maximum, the sum and the
result of each row as it goes (Dao et al. 2022, arXiv 2205.14135, algorithm 1; Milakov and Gimelshein 2018, arXiv
1805.02867). Rows are lanes, so that nothing is added up across a vector: a key or a value is one number for all lanes.

    for pages, from the first that the window shows to the last that the tokens have reached
      for keys, `keys` at a time
        scores      for the head dim: query of all lanes times one number of each key
        softmax     in registers
        result      for the head dim: weights of all lanes times one number of each value

Where pairs of bf16 can be multiplied, two numbers of the head dim are one step of the scores, and two keys are one
step of the result: rows of values are interleaved for that.

Why not linalg: the scores of 512 tokens, 32 heads and 512 keys are 32 MiB a layer, which are written and read again;
and for one token keys and values are first gathered from their pages, then read again.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_passes.attention.paged_attention import PagedAttention
from amdnfs_passes.kernels.embed import COST_ATTRIBUTE
from amdnfs_passes.mlir_text import ELEMENT_BYTES, convert, tensor
from amdnfs_passes.vectors.attention_form import UNROLL, VectorAttention
from amdnfs_passes.vectors.attention_loops import page_loops

_DISPATCH = "!iree_tensor_ext.dispatch.tensor"
_LOWEST = "0xFF7FFFFF"


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
        *page_loops(v),
        *_store(v, result),
        "flow.return",
        "} count(%ignored: index, %also: index) -> (index, index, index) {",
        f"%tiles = arith.constant {a.tokens // v.tokens} : index",
        f"%heads = arith.constant {a.heads // v.heads} : index",
        f"%batch = arith.constant {a.batch} : index",
        "flow.return %tiles, %heads, %batch : index, index, index",
        "}",
        f"return %result : {result}",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _cost(a: PagedAttention) -> str:
    """Work for the report, which cannot count loops whose length is data: `[constant, per token of context]`."""
    rows, size = a.batch * a.heads * a.tokens, ELEMENT_BYTES[a.element]
    flops, cached = 4 * rows * a.head_dim, 2 * a.batch * a.kv_heads * a.head_dim * size
    return (
        f'{{op = "paged_attention", type = "{a.element}", flops = [0, {flops}], '
        f"bytes = [{2 * rows * a.head_dim * size}, {cached}]}}"
    )


def _loads(v: VectorAttention, query: str, table: str) -> Iterator[str]:
    """Constants, the operands' tensors, and where the workgroup is."""
    a = v.facts
    sizes = {"zero": 0, "one": 1, "two": 2, "group": a.heads // a.kv_heads, "dim": a.head_dim}
    sizes |= {"page_tokens": a.page_tokens, "keys": v.keys, "unroll": UNROLL, "before_window": a.window - 1}
    sizes |= {"half_dim": a.head_dim // 2, "tile_heads": v.heads, "tile_tokens": v.tokens, "last_token": v.tokens - 1}
    for name, size in sizes.items():
        yield f"%{name} = arith.constant {max(size, 0)} : index"
    yield f"%nothing = arith.constant dense<0.0> : {v.scores}"
    yield f"%ones = arith.constant dense<1.0> : {v.scores}"
    yield f"%lowest = arith.constant dense<{_LOWEST}> : {v.scores}"
    yield f"%padding = arith.constant 0.0 : {a.element}"
    yield "%no_float = arith.constant 0.0 : f32"
    yield f"%no_row = arith.constant dense<0.0> : vector<{a.head_dim}x{a.element}>"
    yield "%tile = flow.dispatch.workgroup.id[0] : index"
    yield "%heads = flow.dispatch.workgroup.id[1] : index"
    yield "%b = flow.dispatch.workgroup.id[2] : index"
    yield "%t0 = arith.muli %tile, %tile_tokens : index"
    yield "%head = arith.muli %heads, %tile_heads : index"
    yield "%kv = arith.divui %head, %group : index"
    load = "iree_tensor_ext.dispatch.tensor.load"
    own = tensor((1, v.heads, v.tokens, a.head_dim), a.element)
    yield (
        f"%q.in = {load} %query.ref, offsets = [%b, %head, %t0, 0], sizes = [1, {v.heads}, {v.tokens}, {a.head_dim}], "
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
    steps = ", ".join(str(lane % v.tokens) for lane in range(v.lanes))
    yield f"%steps = arith.constant dense<[{steps}]> : vector<{v.lanes}xi32>"
    yield f"%positions = arith.addi %firsts, %steps : vector<{v.lanes}xi32>"


def _query(v: VectorAttention) -> Iterator[str]:
    """Makes `%q`, the queries with rows as lanes."""
    a, kind = v.facts, v.query_scratch
    own = tensor((1, v.heads, v.tokens, a.head_dim), a.element)
    yield f"%q.empty = tensor.empty() : {kind}"
    start = "%q.empty"
    if v.heads * v.tokens < v.lanes:
        start = "%q.clear"
        none, stop = ("%no_pairs", "half_dim") if v.has_pairs else ("%nothing", "dim")
        row = v.pairs if v.has_pairs else v.scores
        yield f"%no_pairs = arith.constant dense<0.0> : {v.pairs}"
        yield f"%q.clear = scf.for %d = %zero to %{stop} step %one iter_args(%q.dirty = %q.empty) -> {kind} {{"
        clear = f"vector.transfer_write {none}, %q.dirty[%d, %zero] {{in_bounds = [true]}}"
        yield f"%q.cleared = {clear} : {row}, {kind}"
        yield f"scf.yield %q.cleared : {kind}\n}}"
    yield from _for("h", "tile_heads", "q", start, kind)
    yield from _for("t", "tile_tokens", "q", "%q.h", kind)
    yield from _for("d", "dim", "q", "%q.t", kind)
    yield from _lane()
    yield f"%q.one = tensor.extract %q.in[%zero, %h, %t, %d] : {own}"
    if v.has_pairs:
        yield "%q.pair = arith.divui %d, %two : index"
        yield "%q.place = arith.remui %d, %two : index"
        yield "%q.twice = arith.muli %lane, %two : index"
        yield "%q.column = arith.addi %q.twice, %q.place : index"
        yield f"%q.new = tensor.insert %q.one into %q.d[%q.pair, %q.column] : {kind}"
    else:
        yield convert("%q.wide", "%q.one", a.element, "f32")
        yield f"%q.new = tensor.insert %q.wide into %q.d[%d, %lane] : {kind}"
    yield from _end("q", "%q.new", kind)


def _for(index: str, stop: str, name: str, start: str, kind: str) -> Iterator[str]:
    """Opens a loop that defines `%<name>.<index>.made` from `start`, which is `%<name>.<index>` within."""
    result = f"%{name}" if index == "h" else f"%{name}.{index}.made"
    loop = f"scf.for %{index} = %zero to %{stop} step %one iter_args(%{name}.{index} = {start})"
    yield f"{result} = {loop} -> {kind} {{"


def _lane() -> Iterator[str]:
    """Defines `%lane`, that of `%h` and `%t`."""
    yield "%before = arith.muli %h, %tile_tokens : index"
    yield "%lane = arith.addi %before, %t : index"


def _end(name: str, value: str, kind: str) -> Iterator[str]:
    """Closes the three loops that `_for` opened."""
    for result in (value, f"%{name}.d.made", f"%{name}.t.made"):
        yield f"scf.yield {result} : {kind}\n}}"


def _store(v: VectorAttention, result: str) -> Iterator[str]:
    """Divides by the sums, and writes the workgroup's part of the result."""
    a, kind = v.facts, v.result_scratch
    own = tensor((1, v.tokens, v.heads, a.head_dim), a.element)
    yield f"%divided = scf.for %d = %zero to %dim step %one iter_args(%o.d = %o) -> {kind} {{"
    yield f"%whole = vector.transfer_read %o.d[%d, %zero], %no_float {{in_bounds = [true]}} : {kind}, {v.scores}"
    yield f"%part = arith.divf %whole, %sum : {v.scores}"
    yield f"%o.write = vector.transfer_write %part, %o.d[%d, %zero] {{in_bounds = [true]}} : {v.scores}, {kind}"
    yield f"scf.yield %o.write : {kind}\n}}"
    yield f"%y.empty = tensor.empty() : {own}"
    yield from _for("h", "tile_heads", "y", "%y.empty", own)
    yield from _for("t", "tile_tokens", "y", "%y.h", own)
    yield from _for("d", "dim", "y", "%y.t", own)
    yield from _lane()
    yield f"%y.one = tensor.extract %divided[%d, %lane] : {kind}"
    yield convert("%y.narrow", "%y.one", "f32", a.element)
    yield f"%y.new = tensor.insert %y.narrow into %y.d[%zero, %t, %h, %d] : {own}"
    yield from _end("y", "%y.new", own)
    yield (
        f"iree_tensor_ext.dispatch.tensor.store %y, %y.ref, offsets = [%b, %t0, %head, 0], "
        f"sizes = [1, {v.tokens}, {v.heads}, {a.head_dim}], strides = [1, 1, 1, 1] : "
        f"{own} -> {_DISPATCH}<writeonly:{result}>"
    )
