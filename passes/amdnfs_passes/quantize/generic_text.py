"""Text of `linalg.generic`, and of the parts that both forms of a quantised linear layer have."""

from __future__ import annotations

from collections.abc import Sequence

from amdnfs_targets.target import Fp8Format

from amdnfs_passes.kvcache.fp8_bits import decode_text, encode_text
from amdnfs_passes.mlir_text import Operand, convert, tensor
from amdnfs_passes.quantize.operands import QuantizedLinear

LARGEST_I8 = 127.0
"""What the element of largest size in a row of activations becomes in int8."""
_TINY = "1.0e-30"
"""Stands for the largest size of a row of zeros, so that nothing is divided by zero."""


def generic(result: str, loops: str, inputs: Sequence[Operand], output: Operand, body: str) -> str:
    """A generic that makes `result` from `inputs`.

    Args:
        result: Name of the result.
        loops: Names of the loops; those that the output lacks are sums.
        inputs: What it reads; element i is `%i0`, `%i1`, ... in the body.
        output: What it starts from; its element is `%o` in the body.
        body: Lines that define `%y`, the new element.
    """
    names = loops.split(", ")
    kinds = ", ".join('"parallel"' if name in output.dims.split(", ") else '"reduction"' for name in names)
    operands = [*inputs, output]
    maps = ", ".join(f"affine_map<({loops}) -> ({item.dims})>" for item in operands)
    arguments = [f"%i{index}: {item.element}" for index, item in enumerate(inputs)] + [f"%o: {output.element}"]
    return f"""  {result} = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}
    ins({", ".join(item.value for item in inputs)} : {", ".join(item.type for item in inputs)})
    outs({output.value} : {output.type}) {{
  ^bb0({", ".join(arguments)}):
{body}    linalg.yield %y : {output.element}
  }} -> {output.type}
"""


def empty(name: str, shape: Sequence[int], element: str, dims: str, start: str | None = None) -> tuple[str, Operand]:
    """An output called `name`: unset, or filled with the constant `start`."""
    kind = tensor(shape, element)
    text = f"  {name} = tensor.empty() : {kind}\n"
    if start is not None:
        text = f"""  {name}.start = arith.constant {start} : {element}
  {name}.empty = tensor.empty() : {kind}
  {name} = linalg.fill ins({name}.start : {element}) outs({name}.empty : {kind}) -> {kind}
"""
    return text, Operand(value=name, shape=tuple(shape), element=element, dims=dims)


def signature(name: str, linear: QuantizedLinear) -> str:
    """The head of the function: arguments `%x`, `%data`, `%scales`, and `%zeros` and `%bias` if there are any."""
    layout, shape = linear.layout, linear.layout.scales_shape(linear.columns, linear.depth)
    arguments = [
        f"%x: {linear.x_type.builtin}",
        f"%data: {data_type(linear)}",
        f"%scales: {tensor(shape, layout.scale)}",
    ]
    arguments += [f"%zeros: {tensor(shape, 'i8')}"] if linear.zeros is not None else []
    arguments += [f"%bias: {tensor((linear.columns,), linear.element)}"] if linear.bias is not None else []
    return f'func.func private @"{name}"({", ".join(arguments)}) -> {tensor(linear.result_sizes, linear.element)} {{\n'


def data_type(linear: QuantizedLinear) -> str:
    """Type of the stored elements, as bytes."""
    return tensor(linear.layout.data_shape(linear.columns, linear.depth), "i8")


def round_rows(rows: str, linear: QuantizedLinear, *, split: bool = False, decode: str = "") -> str:
    """Makes `%rounded`, rows of int8 or of bytes of fp8, and `%largest`, the largest size in each row, in f32.

    Args:
        rows: Name of the rows.
        linear: The layer.
        split: Put a barrier between the two, so that they become dispatches of their own. In one dispatch IREE 3.13.0
            makes for gfx942 a loop that counts up to 0 and stores at a negative vector offset plus an immediate one,
            which the hardware checks as out of range: with rows of 96 elements, the first row is not written.
        decode: Float type that `%rounded` shall have instead of bytes of fp8; each is a number of it.
    """
    m, k = linear.rows, linear.depth
    source = Operand(value=rows, shape=(m, k), element=linear.element, dims="m, k")
    start, largest = empty("%largest0", (m,), "f32", "m", "0.0")
    wide = convert("%wide", "%i0", linear.element, "f32")
    text = start + generic(
        "%largest",
        "m, k",
        [source],
        largest,
        wide + "    %size = math.absf %wide : f32\n    %y = arith.maximumf %size, %o : f32\n",
    )
    start, target = empty("%rounded0", (m, k), decode or "i8", "m, k")
    name = "%largest_apart" if split else "%largest"
    barrier = f"  {name} = util.optimization_barrier %largest : {largest.type}\n" if split else ""
    found = Operand(value=name, shape=(m,), element="f32", dims="m")
    body = f"""    %most = arith.constant {linear.layout.largest_activation} : f32
    %tiny = arith.constant {_TINY} : f32
    %divisor = arith.maximumf %i1, %tiny : f32
    %factor = arith.divf %most, %divisor : f32
    %scaled = arith.mulf %wide, %factor : f32
"""
    body = wide + body + _rounded(linear, decode)
    return text + barrier + start + generic("%rounded", "m, k", [source, found], target, body)


def _rounded(linear: QuantizedLinear, decode: str) -> str:
    """Makes `%y` of `%scaled`: the nearest number of the layout's type, ties to even."""
    if not linear.layout.is_float:
        return "    %whole = math.roundeven %scaled : f32\n    %y = arith.fptosi %whole : f32 to i8\n"
    fp8 = Fp8Format(linear.layout.element)
    if not decode:
        return encode_text("%scaled", "f32", "%y", fp8)
    return encode_text("%scaled", "f32", "%byte", fp8) + decode_text("%byte", decode, "%y", fp8)
