"""The CPU's form of a linear layer in fp8: rows are rounded to fp8 and multiplied as the f32 numbers that they mean.

No processor multiplies fp8. The numbers are those that the matrix units of a GPU read, so results differ by the order
of sums only. A row's own scale and the bias are applied to the sums in f32, after the columns' scales.
"""

from __future__ import annotations

from dataclasses import replace

from amdnfs_targets.quantized_layout import Activations

from amdnfs_passes.mlir_text import Operand, convert, flatten_rows, unflatten_rows
from amdnfs_passes.quantize.generic_text import empty, generic, round_rows, signature
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_form import QuantizedForm
from amdnfs_passes.templates import TensorType
from amdnfs_passes.vectors.product import Vectors, dispatch_text


def decoded_function(name: str, linear: QuantizedLinear, vectors: Vectors) -> str:
    """A private function that computes `linear`, whose rows are rounded to fp8.

    Args:
        name: Its name.
        linear: What it computes.
        vectors: What the processor computes in.
    """
    flat, rows = flatten_rows(linear.x_type.sizes, linear.element)
    product = replace(
        linear,
        layout=replace(linear.layout, activations=Activations.FLOAT),
        x_type=TensorType(shape=(linear.rows, linear.depth), element="f32"),
        bias=None,
    )
    return (
        signature(name, linear)
        + flat
        + round_rows(rows, linear, decode="f32")
        + dispatch_text(QuantizedForm(product, vectors), "%rounded", None)
        + _finish(linear)
        + unflatten_rows("%finished", linear.result_sizes, linear.element)
    )


def _finish(linear: QuantizedLinear) -> str:
    """Makes `%finished` of `%result`: times the row's scale, plus the bias, rounded once."""
    m, shape = linear.rows, (linear.rows, linear.columns)
    inputs = [
        Operand(value="%result", shape=shape, element="f32", dims="m, n"),
        Operand(value="%largest", shape=(m,), element="f32", dims="m"),
    ]
    body = f"""    %most = arith.constant {linear.layout.largest_activation} : f32
    %step = arith.divf %i1, %most : f32
    %stepped = arith.mulf %i0, %step : f32
"""
    value = "%stepped"
    if linear.bias is not None:
        inputs.append(Operand(value="%bias", shape=(linear.columns,), element=linear.element, dims="n"))
        body += convert("%wide_bias", "%i2", linear.element, "f32")
        body += f"    %shifted = arith.addf {value}, %wide_bias : f32\n"
        value = "%shifted"
    start, output = empty("%finished0", shape, linear.element, "m, n")
    return start + generic("%finished", "m, n", inputs, output, body + convert("%y", value, "f32", linear.element))
