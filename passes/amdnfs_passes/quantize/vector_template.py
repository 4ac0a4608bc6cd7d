"""The CPU's form of a quantised linear layer: one dispatch, written in vectors.

A workgroup makes all rows of some columns of the result. Its inner loop holds sums for `m` rows and `n` columns in
registers. It loads a vector of each of the `n` rows of the weight, widens it once, and multiplies it with `m` rows of
`x`. A sum is a vector along the depth; its elements are added up at the end.

    for rows, 32 at a time                     they stay in the cache while the columns go by
      for columns, n at a time
        for rows, m at a time
          for groups
            for the depth of a group, a step at a time

The last `m` rows and `n` columns may overlap those before: they are computed twice, to the same values.

Why not linalg: IREE 3.13.0 keeps the widened weight of more than one row in memory on the CPU, which is slower than
f32 weights by a factor of ten; benchmarks/README.md has the times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from amdnfs_targets.quantized_layout import ElementType, Grouping

from amdnfs_passes.quantize.generic_text import (
    LARGEST_I8,
    Operand,
    convert,
    flatten,
    round_rows,
    signature,
    tensor,
    unflatten,
)
from amdnfs_passes.quantize.linalg_template import FP8_FACTOR
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_body import Tiles, accumulate, is_integer, sum_type, zero_column

_ROW_BLOCK = 32
_DISPATCH = "!iree_tensor_ext.dispatch.tensor"


def vector_function(name: str, linear: QuantizedLinear, lanes: int, registers: int) -> str:
    """A private function that computes `linear`.

    Args:
        name: Its name.
        linear: What it computes.
        lanes: How many f32 a vector register holds.
        registers: How many vector registers there are.
    """
    tiles = Tiles.choose(linear, lanes, registers)
    flat, rows = flatten(linear)
    text = signature(name, linear) + flat + (round_rows(rows, linear) if is_integer(linear) else "")
    inputs = _inputs(linear, "%rounded" if is_integer(linear) else rows)
    result = tensor((linear.rows, linear.columns), linear.element)
    types = ", ".join(item.type for item in inputs)
    references = [f"%{item.dims}.ref: {_DISPATCH}<readonly:{item.type}>" for item in inputs]
    references.append(f"%y.ref: {_DISPATCH}<writeonly:{result}>")
    lines = [
        f"%result = flow.dispatch.workgroups({', '.join(item.value for item in inputs)}) : ({types}) -> {result} =",
        f"({', '.join(references)}) {{",
        *_constants(linear, tiles),
        *_loads(inputs, tiles),
        *_loops(linear, tiles),
        _store(linear, tiles),
        "flow.return",
        "} count() -> (index, index, index) {",
        f"%parts = arith.constant {linear.columns // tiles.columns} : index",
        "%one = arith.constant 1 : index",
        "flow.return %parts, %one, %one : index, index, index",
        "}",
    ]
    return text + "\n".join(lines) + "\n" + unflatten("%result", linear)


def _inputs(linear: QuantizedLinear, rows: str) -> list[Operand]:
    """What the dispatch reads; `dims` is the name within."""
    layout, n = linear.layout, linear.columns
    scales = layout.scales_shape(n, linear.depth)
    element = "i8" if is_integer(linear) else linear.element
    found = [
        Operand(value=rows, shape=(linear.rows, linear.depth), element=element, dims="x"),
        Operand(value="%data", shape=layout.data_shape(n, linear.depth), element="i8", dims="data"),
        Operand(value="%scales", shape=scales, element=layout.scale, dims="scales"),
    ]
    if linear.zeros is not None:
        found.append(Operand(value="%zeros", shape=scales, element="i8", dims="zeros"))
    if linear.bias is not None:
        found.append(Operand(value="%bias", shape=(n,), element=linear.element, dims="bias"))
    if is_integer(linear):
        found.append(Operand(value="%largest", shape=(linear.rows,), element="f32", dims="largest"))
    return found


def _constants(linear: QuantizedLinear, tiles: Tiles) -> Iterator[str]:
    group = linear.depth // linear.groups
    sizes = {"zero": 0, "one": 1, "two": 2, "groups": linear.groups, "group": group}
    sizes |= {
        "step": tiles.lanes * tiles.unroll,
        "num_rows": linear.rows,
        "block": _ROW_BLOCK,
        "columns": tiles.columns,
    }
    sizes |= {"m_step": tiles.m, "n_step": tiles.n, "m_last": linear.rows - tiles.m, "n_last": tiles.columns - tiles.n}
    sizes |= {f"c{index}": index for index in range(max(tiles.m, tiles.n))}
    for name, size in sizes.items():
        yield f"%{name} = arith.constant {size} : index"
    kind = sum_type(linear, tiles)
    yield f"%nothing = arith.constant dense<{'0' if is_integer(linear) else '0.0'}> : {kind}"
    yield "%no_byte = arith.constant 0 : i8"
    yield f"%no_x = arith.constant 0.0 : {linear.element}"
    if linear.layout.element is ElementType.I4:
        count = tiles.lanes if tiles.unroll > 1 else tiles.lanes // 2
        yield f"%four = arith.constant dense<4> : vector<{count}xi8>"
    if linear.layout.is_float:
        yield f"%seven = arith.constant dense<7> : vector<{tiles.lanes}xi16>"
        yield f"%no_top_exponent = arith.constant dense<-16385> : vector<{tiles.lanes}xi16>"


def _loads(inputs: Sequence[Operand], tiles: Tiles) -> Iterator[str]:
    """The workgroup's part of what the dispatch reads: all rows of `x`, and its columns of everything else."""
    yield "%id = flow.dispatch.workgroup.id[0] : index"
    yield "%first = arith.muli %id, %columns : index"
    for item in inputs:
        is_whole = item.dims in ("x", "largest") or item.shape == (1, 1)
        begins = ["0" if is_whole or index else "%first" for index in range(len(item.shape))]
        sizes = item.shape if is_whole else (tiles.columns, *item.shape[1:])
        steps = ", ".join("1" for _ in sizes)
        yield (
            f"%{item.dims}.t = iree_tensor_ext.dispatch.tensor.load %{item.dims}.ref, offsets = [{', '.join(begins)}], "
            f"sizes = [{', '.join(str(size) for size in sizes)}], strides = [{steps}] : "
            f"{_DISPATCH}<readonly:{item.type}> -> {tensor(sizes, item.element)}"
        )


def _loops(linear: QuantizedLinear, tiles: Tiles) -> Iterator[str]:
    """Makes `%done`, `[rows, columns of a workgroup]`."""
    kind = tensor((linear.rows, tiles.columns), linear.element)
    yield f"%empty = tensor.empty() : {kind}"
    yield f"%done = scf.for %r = %zero to %num_rows step %block iter_args(%y.r = %empty) -> {kind} {{"
    yield "%r.next = arith.addi %r, %block : index"
    yield "%r.end = arith.minui %r.next, %num_rows : index"
    yield f"%y.block = scf.for %n = %zero to %columns step %n_step iter_args(%y.n = %y.r) -> {kind} {{"
    yield "%n.first = arith.minui %n, %n_last : index"
    for n in range(tiles.n):
        yield f"%n.{n} = arith.addi %n.first, %c{n} : index"
        if linear.zeros is not None and linear.layout.grouping is not Grouping.GROUP:
            yield from zero_column(n, "%zero", (tiles.columns, 1), f"vector<{tiles.lanes}xi32>")
    yield f"%y.columns = scf.for %m = %r to %r.end step %m_step iter_args(%y.m = %y.n) -> {kind} {{"
    yield "%m.first = arith.minui %m, %m_last : index"
    for m in range(tiles.m):
        yield f"%m.{m} = arith.addi %m.first, %c{m} : index"
    yield from accumulate(linear, tiles)
    target = "%y.m"
    for index, (m, n) in enumerate(tiles.sums):
        yield from _finish(linear, tiles, index, m, n)
        yield f"%y.{index} = tensor.insert %rounded.{index} into {target}[%m.{m}, %n.{n}] : {kind}"
        target = f"%y.{index}"
    for value in (target, "%y.columns", "%y.block"):
        yield f"scf.yield {value} : {kind}\n}}"


def _finish(linear: QuantizedLinear, tiles: Tiles, index: int, m: int, n: int) -> Iterator[str]:
    """Defines `%rounded.<index>`, a sum in the type of the result: times its scales, plus its bias."""
    layout, kind, value = linear.layout, sum_type(linear, tiles), f"%added.{index}"
    yield f"{value} = vector.reduction <add>, %total#{index} : {kind} into {'i32' if is_integer(linear) else 'f32'}"
    if is_integer(linear):
        yield f"%float.{index} = arith.sitofp {value} : i32 to f32"
        yield f"%row.{index} = tensor.extract %largest.t[%m.{m}] : {tensor((linear.rows,), 'f32')}"
        yield f"%most.{index} = arith.constant {LARGEST_I8} : f32"
        yield f"%unit.{index} = arith.divf %row.{index}, %most.{index} : f32"
        value = f"%stepped.{index}"
        yield f"{value} = arith.mulf %float.{index}, %unit.{index} : f32"
    if layout.grouping is not Grouping.GROUP:
        is_shared = layout.grouping is Grouping.TENSOR
        shape = (1, 1) if is_shared else (tiles.columns, 1)
        place = "%zero, %zero" if is_shared else f"%n.{n}, %zero"
        yield f"%own.{index} = tensor.extract %scales.t[{place}] : {tensor(shape, layout.scale)}"
        yield convert(f"%wide_own.{index}", f"%own.{index}", layout.scale, "f32")
        yield f"%scaled.{index} = arith.mulf {value}, %wide_own.{index} : f32"
        value = f"%scaled.{index}"
    if layout.is_float:
        yield f"%factor.{index} = arith.constant {FP8_FACTOR[layout.element]} : f32"
        yield f"%true.{index} = arith.mulf {value}, %factor.{index} : f32"
        value = f"%true.{index}"
    if linear.bias is not None:
        yield f"%shift.{index} = tensor.extract %bias.t[%n.{n}] : {tensor((tiles.columns,), linear.element)}"
        yield convert(f"%wide_shift.{index}", f"%shift.{index}", linear.element, "f32")
        yield f"%shifted.{index} = arith.addf {value}, %wide_shift.{index} : f32"
        value = f"%shifted.{index}"
    yield convert(f"%rounded.{index}", value, "f32", linear.element)


def _store(linear: QuantizedLinear, tiles: Tiles) -> str:
    part, whole = (tensor((linear.rows, size), linear.element) for size in (tiles.columns, linear.columns))
    return (
        f"iree_tensor_ext.dispatch.tensor.store %done, %y.ref, offsets = [0, %first], "
        f"sizes = [{linear.rows}, {tiles.columns}], strides = [1, 1] : {part} -> {_DISPATCH}<writeonly:{whole}>"
    )
