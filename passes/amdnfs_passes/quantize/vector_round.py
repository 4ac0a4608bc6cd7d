"""Rows of bf16 as words of 16 bits for `vector_words.py`: integers times a power of two for each group of a row.

    power    2^e, the largest that is no larger than the largest |x| of the group; 2^-100 at least
    unit     2^(e - 14)
    word     x / unit, rounded to even; |word| < 2^15

A bf16 has 8 bits, so words of elements from 1/128 of the power on are exact. The others are wrong by half a unit at
most: 2^-15 of the power. A group with a NaN or an infinity has an infinite unit, and what is made of it is NaN.

One workgroup makes a row. All layers that read the same rows in the same groups share the dispatch: it is the same text
for them.
"""

from __future__ import annotations

from collections.abc import Iterator

from amdnfs_passes.mlir_text import convert, tensor

_DISPATCH = "!iree_tensor_ext.dispatch.tensor"
_EXPONENT, _LEAST_POWER = 0x7F800000, 27 << 23
"""Bits of the exponent of an f32, and those of 2^-100."""


def word_rows(rows: str, shape: tuple[int, int], group: int, lanes: int, *, split_pairs: bool) -> str:
    """Lines that define `%words`, `[rows, depth]` of i16, and `%units`, `[rows, groups]` of f32.

    Args:
        rows: Name of the rows, of bf16.
        shape: Their sizes.
        group: Elements that share a unit; `lanes` divides it.
        lanes: How many f32 a register holds.
        split_pairs: Whether, of each four registers' elements, the even ones come first, then the odd ones.
    """
    source, words = tensor(shape, "bf16"), tensor(shape, "i16")
    units = tensor((shape[0], shape[1] // group), "f32")
    lines = [
        f"%words, %units = flow.dispatch.workgroups({rows}) : ({source}) -> ({words}, {units}) =",
        f"(%x.ref: {_DISPATCH}<readonly:{source}>, %words.ref: {_DISPATCH}<writeonly:{words}>, "
        f"%units.ref: {_DISPATCH}<writeonly:{units}>) {{",
        *_body(shape, group, lanes, 4 * lanes if split_pairs else lanes, split_pairs=split_pairs),
        "flow.return",
        "} count() -> (index, index, index) {",
        f"%num_rows = arith.constant {shape[0]} : index",
        "%one = arith.constant 1 : index",
        "flow.return %num_rows, %one, %one : index, index, index",
        "}",
    ]
    return "\n".join(lines) + "\n"


def _body(shape: tuple[int, int], group: int, lanes: int, step: int, *, split_pairs: bool) -> Iterator[str]:
    own, found = (tensor((1, shape[1]), kind) for kind in ("bf16", "i16"))
    unit = tensor((1, shape[1] // group), "f32")
    for name, size in {"zero": 0, "one": 1, "depth": shape[1], "group": group, "step": step, "lanes": lanes}.items():
        yield f"%{name} = arith.constant {size} : index"
    yield "%no_x = arith.constant 0.0 : bf16"
    yield f"%nothing = arith.constant dense<0.0> : vector<{lanes}xf32>"
    yield f"%exponent = arith.constant {_EXPONENT} : i32"
    yield f"%least = arith.constant {_LEAST_POWER} : i32"
    yield "%part = arith.constant 0x38800000 : f32"
    yield "%whole = arith.constant 1.0 : f32"
    yield "%m = flow.dispatch.workgroup.id[0] : index"
    yield (
        f"%x = iree_tensor_ext.dispatch.tensor.load %x.ref, offsets = [%m, 0], sizes = [1, {shape[1]}], "
        f"strides = [1, 1] : {_DISPATCH}<readonly:{tensor(shape, 'bf16')}> -> {own}"
    )
    yield f"%words.empty = tensor.empty() : {found}"
    yield f"%units.empty = tensor.empty() : {unit}"
    arguments = "%words.g = %words.empty, %units.g = %units.empty"
    yield f"%done:2 = scf.for %g = %zero to %depth step %group iter_args({arguments}) -> ({found}, {unit}) {{"
    yield "%end = arith.addi %g, %group : index"
    yield from _unit(own, lanes)
    yield "%at = arith.divui %g, %group : index"
    yield f"%units.new = tensor.insert %unit into %units.g[%zero, %at] : {unit}"
    yield f"%words.new = scf.for %k = %g to %end step %step iter_args(%words.k = %words.g) -> {found} {{"
    yield from _words(own, found, step, split_pairs=split_pairs)
    yield f"scf.yield %words.next : {found}\n}}"
    yield f"scf.yield %words.new, %units.new : {found}, {unit}\n}}"
    for index, (name, kind) in enumerate((("words", found), ("units", unit))):
        width = shape[1] if name == "words" else shape[1] // group
        whole = tensor((shape[0], width), "i16" if name == "words" else "f32")
        yield (
            f"iree_tensor_ext.dispatch.tensor.store %done#{index}, %{name}.ref, offsets = [%m, 0], "
            f"sizes = [1, {width}], strides = [1, 1] : {kind} -> {_DISPATCH}<writeonly:{whole}>"
        )


def _unit(own: str, lanes: int) -> Iterator[str]:
    """Defines `%unit` and `%factor`, one by the other."""
    kind = f"vector<{lanes}xf32>"
    yield f"%sizes = scf.for %k = %g to %end step %lanes iter_args(%old = %nothing) -> {kind} {{"
    read = "vector.transfer_read %x[%zero, %k], %no_x {in_bounds = [true]}"
    yield f"%raw = {read} : {own}, vector<{lanes}xbf16>"
    yield f"%wide = arith.extf %raw : vector<{lanes}xbf16> to {kind}"
    yield f"%size = math.absf %wide : {kind}"
    yield f"%new = arith.maximumf %size, %old : {kind}"
    yield f"scf.yield %new : {kind}\n}}"
    yield f"%largest = vector.reduction <maximumf>, %sizes : {kind} into f32"
    yield "%bits = arith.bitcast %largest : f32 to i32"
    yield "%cut = arith.andi %bits, %exponent : i32"
    yield "%power.bits = arith.maxsi %cut, %least : i32"
    yield "%power = arith.bitcast %power.bits : i32 to f32"
    yield "%unit = arith.mulf %power, %part : f32"
    yield "%factor = arith.divf %whole, %unit : f32"


def _words(own: str, found: str, step: int, *, split_pairs: bool) -> Iterator[str]:
    """Defines `%words.next`: the words of `step` elements."""
    kind = f"vector<{step}x{{}}>"
    words = kind.format("i16")
    yield f"%raw = vector.transfer_read %x[%zero, %k], %no_x {{in_bounds = [true]}} : {own}, {kind.format('bf16')}"
    yield convert("%wide", "%raw", "bf16", "f32", kind)
    yield f"%factors = vector.broadcast %factor : f32 to {kind.format('f32')}"
    yield f"%scaled = arith.mulf %wide, %factors : {kind.format('f32')}"
    yield f"%even = math.roundeven %scaled : {kind.format('f32')}"
    yield f"%long = arith.fptosi %even : {kind.format('f32')} to {kind.format('i32')}"
    yield f"%short = arith.trunci %long : {kind.format('i32')} to {words}"
    parts, target = [("%short", "%k", words)], "%words.k"
    if split_pairs:
        half = f"vector<{step // 2}xi16>"
        yield f"%first, %second = vector.deinterleave %short : {words} -> {half}"
        yield f"%half = arith.constant {step // 2} : index"
        yield "%k.second = arith.addi %k, %half : index"
        parts = [("%first", "%k", half), ("%second", "%k.second", half)]
    for index, (value, place, part) in enumerate(parts):
        name = "%words.next" if index + 1 == len(parts) else "%words.both"
        write = f"vector.transfer_write {value}, {target}[%zero, {place}] {{in_bounds = [true]}}"
        yield f"{name} = {write} : {part}, {found}"
        target = name
