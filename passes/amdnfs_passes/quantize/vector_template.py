"""The CPU's form of a quantised linear layer as a function: `vectors/product.py` with the weight's own part."""

from __future__ import annotations

from amdnfs_passes.mlir_text import flatten_rows, unflatten_rows
from amdnfs_passes.quantize.generic_text import round_rows, signature
from amdnfs_passes.quantize.operands import QuantizedLinear
from amdnfs_passes.quantize.vector_form import QuantizedForm
from amdnfs_passes.quantize.vector_round import word_rows
from amdnfs_passes.quantize.vector_table import TableForm, split_rows, takes_table
from amdnfs_passes.quantize.vector_words import WordForm, takes_words, word_group
from amdnfs_passes.vectors.product import VectorForm, Vectors, dispatch_text


def vector_function(name: str, linear: QuantizedLinear, vectors: Vectors) -> str:
    """A private function that computes `linear`.

    Args:
        name: Its name.
        linear: What it computes.
        vectors: What the processor computes in.
    """
    flat, rows = flatten_rows(linear.x_type.sizes, linear.element)
    text = signature(name, linear) + flat
    shape = (linear.rows, linear.depth)
    form: VectorForm
    if takes_table(linear, vectors):
        form = TableForm(linear, vectors)
        if linear.rows > 1:
            text += split_rows(rows, shape)
            rows = "%split"
    elif takes_words(linear, vectors):
        form = WordForm(linear, vectors)
        text += word_rows(rows, shape, word_group(linear), vectors.lanes, split_pairs=form.is_int4)
        rows = "%words"
    else:
        form = QuantizedForm(linear, vectors)
        if form.is_integer:
            text += round_rows(rows, linear)
            rows = "%rounded"
    bias = None if linear.bias is None else "%bias"
    return text + dispatch_text(form, rows, bias) + unflatten_rows("%result", linear.result_sizes, linear.element)
