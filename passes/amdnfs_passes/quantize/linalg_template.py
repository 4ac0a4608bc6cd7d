"""The GPUs' form of a quantised linear layer: a generic that widens the weight, and a contraction that takes it in.

IREE puts both into one dispatch, so the weight is read once, at its stored width. A group is a dimension of the sum of
its own; a scale that all of a row shares is left out of the sum and applied to it, in f32. Sums are in f32, or in i32
where both operands are int8.
"""

from __future__ import annotations

from amdnfs_targets.quantized_layout import Activations, ElementType, Grouping

from amdnfs_passes.mlir_text import Operand, convert, flatten_rows, tensor, unflatten_rows
from amdnfs_passes.quantize.generic_text import data_type, empty, generic, round_rows, signature
from amdnfs_passes.quantize.operands import QuantizedLinear

FP8_FACTOR = {ElementType.E4M3FN: 256.0, ElementType.E4M3FNUZ: 128.0}
"""How much larger an fp8 number is than the f16 number with its bits, whose exponent has another bias."""


def linalg_function(name: str, linear: QuantizedLinear, padded_rows: int, *, shift_fp8: bool = False) -> str:
    """A private function that computes `linear`.

    Args:
        name: Its name.
        linear: What it computes.
        padded_rows: Rows that a contraction of floats is to have; at least those of the layer.
        shift_fp8: Make f16 of fp8 by moving its bits: for a compiler that cannot convert it. Where rows are rounded
            to fp8, too, the sum is one of floats of their own type.
    """
    flat, rows = flatten_rows(linear.x_type.sizes, linear.element)
    end = unflatten_rows("%result", linear.result_sizes, linear.element)
    if linear.layout.activations is Activations.ROW_I8:
        return signature(name, linear) + flat + _integer_sums(rows, linear) + end
    if linear.layout.activations is Activations.ROW_F8:
        return signature(name, linear) + flat + _fp8_sums(rows, linear, shift_fp8) + end
    m, k, padded = linear.rows, linear.depth, padded_rows
    text = signature(name, linear) + flat
    if padded > m:
        text += f"""  %nothing = arith.constant 0.0 : {linear.element}
  %padded = tensor.pad {rows} low[0, 0] high[{padded - m}, 0] {{
  ^bb0(%i: index, %j: index):
    tensor.yield %nothing : {linear.element}
  }} : {tensor((m, k), linear.element)} to {tensor((padded, k), linear.element)}
"""
        rows = "%padded"
    text += _widened(linear, shift_fp8) + _sums(rows, linear, padded) + _finish(padded, linear, "f32", [])
    if padded == m:
        return text + end
    wide, narrow = tensor((padded, linear.columns), linear.element), tensor((m, linear.columns), linear.element)
    # Without the barrier IREE 3.13.0 folds the padding away; see Target.skinny_matmul_defect.
    return (
        text
        + f"""  %kept = util.optimization_barrier %result : {wide}
  %cut = tensor.extract_slice %kept[0, 0] [{m}, {linear.columns}] [1, 1] : {wide} to {narrow}
"""
        + unflatten_rows("%cut", linear.result_sizes, linear.element)
    )


def _widened(linear: QuantizedLinear, shift_fp8: bool) -> str:
    """Makes `%weight`, `[columns, groups, elements]` in the type of the rows; scaled, if a row has several scales."""
    layout, n, element, loops = linear.layout, linear.columns, linear.element, "n, g, k"
    shape, groups = (n, linear.groups, linear.depth // linear.groups), (n, linear.groups)
    is_shifted = shift_fp8 and layout.is_float
    stored = "i8" if is_shifted else str(layout.element)
    inputs = [Operand(value="%stored", shape=shape, element=stored, dims=loops)]
    # Without the barrier IREE 3.13.0 hoists the cast of a layer that is called once, and keeps a copy of the weight.
    text = f"""  %bytes = util.optimization_barrier %data : {data_type(linear)}
  %stored = flow.tensor.bitcast %bytes : {data_type(linear)} -> {inputs[0].type}
"""
    if stored == "i8":
        text = f"""  %stored = tensor.expand_shape %data [[0], [1, 2]] output_shape [{n}, {shape[1]}, {shape[2]}]
    : {data_type(linear)} into {inputs[0].type}
"""
    body = "" if layout.is_float else f"    %element = arith.extsi %i0 : {layout.element} to i32\n"
    whole = "%element"
    if linear.zeros is not None:
        inputs.append(Operand(value="%zeros", shape=groups, element="i8", dims="n, g"))
        body += "    %zero = arith.extsi %i1 : i8 to i32\n    %whole = arith.subi %element, %zero : i32\n"
        whole = "%whole"
    is_scaled = layout.grouping is Grouping.GROUP
    product = "f32" if is_scaled and layout.scale != element else element
    if is_shifted:
        body += _shifted(layout.element, product)
    elif layout.is_float:
        body += convert("%float", "%i0", layout.element, product)
    else:
        body += f"    %float = arith.sitofp {whole} : i32 to {product}\n"
    scaled = "%float"
    if is_scaled:
        inputs.append(Operand(value="%scales", shape=groups, element=layout.scale, dims="n, g"))
        body += convert("%scale", f"%i{len(inputs) - 1}", layout.scale, product)
        body += f"    %scaled = arith.mulf %float, %scale : {product}\n"
        scaled = "%scaled"
    start, output = empty("%weight0", shape, element, loops)
    return text + start + generic("%weight", loops, inputs, output, body + convert("%y", scaled, product, element))


def _shifted(element: ElementType, product: str) -> str:
    """Makes `%float` from the bits of an fp8 number: its exponent and mantissa are also those of an f16 number."""
    return f"""    %short = arith.extsi %i0 : i8 to i16
    %seven = arith.constant 7 : i16
    %moved = arith.shli %short, %seven : i16
    %no_top_exponent = arith.constant -16385 : i16
    %bits = arith.andi %moved, %no_top_exponent : i16
    %half = arith.bitcast %bits : i16 to f16
    %wide_half = arith.extf %half : f16 to f32
    %factor = arith.constant {FP8_FACTOR[element]} : f32
    %exact = arith.mulf %wide_half, %factor : f32
""" + convert("%float", "%exact", "f32", product)


def _sums(rows: str, linear: QuantizedLinear, num_rows: int) -> str:
    """Makes `%sums`, `[num_rows, columns]` in f32."""
    element, inner = linear.element, (linear.groups, linear.depth // linear.groups)
    shape = (num_rows, *inner)
    sizes = ", ".join(str(size) for size in shape)
    text = f"""  %grouped = tensor.expand_shape {rows} [[0], [1, 2]] output_shape [{sizes}]
    : {tensor((num_rows, linear.depth), element)} into {tensor(shape, element)}
"""
    start, output = empty("%sums0", (num_rows, linear.columns), "f32", "m, n", "0.0")
    inputs = [
        Operand(value="%grouped", shape=shape, element=element, dims="m, g, k"),
        Operand(value="%weight", shape=(linear.columns, *inner), element=element, dims="n, g, k"),
    ]
    body = convert("%a", "%i0", element, "f32") + convert("%b", "%i1", element, "f32")
    body += "    %product = arith.mulf %a, %b : f32\n    %y = arith.addf %o, %product : f32\n"
    return text + start + generic("%sums", "m, n, g, k", inputs, output, body)


def _integer_sums(rows: str, linear: QuantizedLinear) -> str:
    """Rounds the rows, sums in i32, and makes `%result`."""
    m, n, k = linear.rows, linear.columns, linear.depth
    start, output = empty("%sums0", (m, n), "i32", "m, n", "0")
    inputs = [
        Operand(value="%rounded", shape=(m, k), element="i8", dims="m, k"),
        Operand(value="%data", shape=(n, k), element="i8", dims="n, k"),
    ]
    body = """    %a = arith.extsi %i0 : i8 to i32
    %b = arith.extsi %i1 : i8 to i32
    %product = arith.muli %a, %b : i32
    %y = arith.addi %o, %product : i32
"""
    sums = start + generic("%sums", "m, n, k", inputs, output, body)
    largest = Operand(value="%largest", shape=(m,), element="f32", dims="m")
    return round_rows(rows, linear, split=True) + sums + _finish(m, linear, "i32", [largest])


def _fp8_sums(rows: str, linear: QuantizedLinear, shift_fp8: bool) -> str:
    """Rounds the rows, sums in f32, and makes `%result`."""
    m, n, k = linear.rows, linear.columns, linear.depth
    finish = _finish(m, linear, "f32", [Operand(value="%largest", shape=(m,), element="f32", dims="m")])
    if shift_fp8:
        rounded = round_rows(rows, linear, split=True, decode=linear.element)
        return rounded + _widened(linear, shift_fp8) + _sums("%rounded", linear, m) + finish
    element = str(linear.layout.element)
    inputs = [
        Operand(value="%row_numbers", shape=(m, k), element=element, dims="m, k"),
        Operand(value="%numbers", shape=(n, k), element=element, dims="n, k"),
    ]
    casts = f"""  %row_numbers = flow.tensor.bitcast %rounded : {tensor((m, k), "i8")} -> {inputs[0].type}
  %bytes = util.optimization_barrier %data : {data_type(linear)}
  %numbers = flow.tensor.bitcast %bytes : {data_type(linear)} -> {inputs[1].type}
"""
    start, output = empty("%sums0", (m, n), "f32", "m, n", "0.0")
    body = convert("%a", "%i0", element, "f32") + convert("%b", "%i1", element, "f32")
    body += "    %product = arith.mulf %a, %b : f32\n    %y = arith.addf %o, %product : f32\n"
    sums = casts + start + generic("%sums", "m, n, k", inputs, output, body)
    return round_rows(rows, linear, split=True) + sums + finish


def _finish(rows: int, linear: QuantizedLinear, sums: str, row_scales: list[Operand]) -> str:
    """Makes `%result`: sums times what their row and their column have in common, plus the bias, rounded once."""
    layout, shape = linear.layout, (rows, linear.columns)
    inputs = [Operand(value="%sums", shape=shape, element=sums, dims="m, n"), *row_scales]
    body = "    %float = arith.sitofp %i0 : i32 to f32\n" if sums == "i32" else convert("%float", "%i0", "f32", "f32")
    value, text = "%float", ""
    if row_scales:
        body += f"""    %most = arith.constant {layout.largest_activation} : f32
    %step = arith.divf %i1, %most : f32
    %stepped = arith.mulf {value}, %step : f32
"""
        value = "%stepped"
    if layout.grouping is not Grouping.GROUP:
        is_shared = layout.grouping is Grouping.TENSOR
        scales = (1,) if is_shared else (linear.columns,)
        whole = tensor(layout.scales_shape(linear.columns, linear.depth), layout.scale)
        text = f"  %scale_row = tensor.collapse_shape %scales [[0, 1]] : {whole} into {tensor(scales, layout.scale)}\n"
        inputs.append(Operand(value="%scale_row", shape=scales, element=layout.scale, dims="0" if is_shared else "n"))
        body += convert("%scale", f"%i{len(inputs) - 1}", layout.scale, "f32")
        body += f"    %scaled = arith.mulf {value}, %scale : f32\n"
        value = "%scaled"
    if linear.bias is not None:
        inputs.append(Operand(value="%bias", shape=(linear.columns,), element=linear.element, dims="n"))
        body += convert("%wide_bias", f"%i{len(inputs) - 1}", linear.element, "f32")
        body += f"    %shifted = arith.addf {value}, %wide_bias : f32\n"
        value = "%shifted"
    start, output = empty("%result0", shape, linear.element, "m, n")
    return text + start + generic("%result", "m, n", inputs, output, body + convert("%y", value, "f32", linear.element))
