"""The CPU's form of a quantised linear layer as a function: `vector_product.py` with the weight's own part."""

from __future__ import annotations

from amdnfs_passes.lower.vector_product import Vectors, dispatch_text
from amdnfs_passes.quantize.generic_text import flatten, round_rows, signature, unflatten
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_form import QuantizedForm
from amdnfs_passes.quantize.vector_table import TableForm, takes_table


def vector_function(name: str, linear: QuantizedLinear, vectors: Vectors) -> str:
    """A private function that computes `linear`.

    Args:
        name: Its name.
        linear: What it computes.
        vectors: What the processor computes in.
    """
    form = (TableForm if takes_table(linear, vectors) else QuantizedForm)(linear, vectors)
    flat, rows = flatten(linear)
    text = signature(name, linear) + flat
    if form.is_integer:
        text += round_rows(rows, linear)
        rows = "%rounded"
    bias = None if linear.bias is None else "%bias"
    return text + dispatch_text(form, rows, bias) + unflatten("%result", linear)
