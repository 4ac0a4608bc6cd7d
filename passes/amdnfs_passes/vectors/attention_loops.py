"""The loops of `attention.py`: pages, keys, and what is done with a tile of keys.

Names in the text: `%q` the queries with rows as lanes, `%pool.t`, `%table.t`, ... the operands, `%first` the position
of the first token, `%end` the first position that holds nothing, `%kv` the KV head.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_passes.attention.paged_attention import hex_f32
from amdnfs_passes.mlir_text import convert, tensor
from amdnfs_passes.vectors.attention_form import UNROLL, VectorAttention
from amdnfs_passes.vectors.bf16_pairs import dot_pairs, join_pairs


def page_loops(v: VectorAttention) -> Iterator[str]:
    """Makes `%sum` and `%o`: the sum of a token's weights, and its result times that."""
    a, kind = v.facts, v.result_scratch
    yield f"%o.empty = tensor.empty() : {kind}"
    yield f"%o.none = scf.for %d = %zero to %dim step %one iter_args(%o.clear = %o.empty) -> {kind} {{"
    clear = "vector.transfer_write %nothing, %o.clear[%d, %zero] {in_bounds = [true]}"
    yield f"%o.cleared = {clear} : {v.scores}, {kind}"
    yield f"scf.yield %o.cleared : {kind}\n}}"
    top, total = "%lowest", "%nothing"
    if a.has_sinks:
        yield from _each_head(v, "sink", "%sinks.t", a.element)
        top, total = "%sink.all", "%ones"
    if a.has_slopes:
        yield from _each_head(v, "slope", "%slopes.t", "f32")
    yield "%last = arith.addi %first, %last_token : index"
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


def _each_head(v: VectorAttention, name: str, source: str, element: str) -> Iterator[str]:
    """Defines `%<name>.all`: a row's number of `source`, which has one a head."""
    pad = "%padding" if element == v.facts.element else "%no_float"
    read = f"vector.transfer_read {source}[%head], {pad} {{in_bounds = [true]}}"
    yield f"%{name}.heads = {read} : {tensor((v.facts.heads,), element)}, vector<{v.heads}x{element}>"
    yield convert(f"%{name}.wide", f"%{name}.heads", element, "f32", f"vector<{v.heads}x{{}}>")
    places = ", ".join(str(min(lane // v.tokens, v.heads - 1)) for lane in range(v.lanes))
    kind = f"vector<{v.heads}xf32>"
    yield f"%{name}.all = vector.shuffle %{name}.wide, %{name}.wide [{places}] : {kind}, {kind}"


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
    yield f"%scale0 = arith.constant dense<{'0x' + hex_f32(a.scale)}> : {v.scores}"
    if a.softcap:
        yield f"%cap = arith.constant dense<{'0x' + hex_f32(a.softcap)}> : {v.scores}"
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
    for u in range(UNROLL):
        yield f"%u{u} = arith.constant {u} : index"
        yield f"%d.{u} = arith.addi %d, %u{u} : index"
        read = f"vector.transfer_read %o.d[%d.{u}, %zero], %no_float {{in_bounds = [true]}}"
        yield f"%o.read.{u} = {read} : {kind}, {v.scores}"
        yield f"%mix.{u}.0 = arith.mulf %o.read.{u}, %shrink : {v.scores}"
        if v.has_pairs:
            yield f"%d2.{u} = arith.muli %d.{u}, %two : index"
    for k in range(v.keys // 2 if v.has_pairs else v.keys):
        for u in range(UNROLL):
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
    for u in range(UNROLL):
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
        yield join_pairs(f"%narrow.{k}", f"%weight.{low}", f"%weight.{high}", 2 * v.lanes)
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
