"""Finds attention around a softmax: which tensors are queries, keys and values, and what is added and hidden.

What the operations between are is left to `index_forms`: here, a product of matrices whose rows meet a softmax whose
rows meet a second product is laid over the axes `[batch, heads, tokens, keys]`, and every other tensor is placed on
these axes by the indices it is read at.

This decides nothing about masks and biases by position: see `attention_scores`.
"""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.fuse.index_arithmetic import is_hidden
from amdnfs_passes.fuse.index_forms import PRODUCTS, FormReader, is_product
from amdnfs_passes.fuse.index_terms import (
    TRUE,
    Atom,
    Axes,
    Axis,
    Condition,
    Form,
    Load,
    Poly,
    Select,
    Tanh,
    load_form,
    refine,
)
from amdnfs_passes.ir import Operation, Value, constant_int, defining_op
from amdnfs_passes.templates import tensor_type

_PASSING = ("view", "_unsafe_view", "reshape", "clone", "contiguous", "detach", "alias", "_to_copy", "to.dtype")
_PASSING_NAMES = {f"torch.aten.{name}" for name in (*_PASSING, "dropout", "expand", "flatten.using_ints")}
_IGNORED = "torch.aten._assert_tensor_metadata"


class NoMatchError(Exception):
    """A softmax between two products that is no attention of ours; the message is the precondition that failed."""


@dataclass(frozen=True, slots=True)
class Matched:
    """One attention, over the axes batch, heads, tokens and keys."""

    result: Operation
    """The second product."""
    query: Value
    """Left side of the first product."""
    key: Load
    """The tensor that the keys are read from, and where."""
    value: Load
    """The tensor that the values are read from, and where."""
    batch: Axis
    """Indices of the request."""
    heads: Axis
    """Indices of the query head; those of the key head come first."""
    tokens: Axis
    """Indices of the query."""
    keys: Axis
    """Indices of the key."""
    key_dim: Axis
    """Indices within a key."""
    value_dim: Axis
    """Indices within a value."""
    scale: float
    """Factor of the products."""
    softcap: float
    """Bound of the scores; 0 is none."""
    bias: Poly
    """What is added to the scores."""
    condition: Condition
    """Which keys are seen."""

    @property
    def kv_heads(self) -> Axis:
        """Indices of the key head."""
        return tuple(atom for atom in self.heads if atom in self.key.atoms)


def find_product(softmax: Operation) -> Operation | None:
    """The product of matrices whose left side is this softmax; None if there is none.

    Raises:
        NoMatchError: If there is one, but the weights are needed elsewhere, too.
    """
    found, others = [], 0
    values = [softmax.result]
    while values:
        for use in list(values.pop().uses):
            user = use.owner.operation
            if user.name in PRODUCTS and use.operand_number == (1 if user.name.endswith("baddbmm") else 0):
                found.append(user)
            elif user.name in _PASSING_NAMES and use.operand_number == 0:
                values.append(user.result)
            elif user.name != _IGNORED:
                others += 1
    if found and (others or len(found) > 1):
        raise NoMatchError("the attention weights are read by another operation, too")
    return found[0] if found else None


def match_attention(softmax: Operation, result: Operation) -> Matched:
    """Lays everything between the operands of the first product and `result`, the second, over four axes.

    Raises:
        NoMatchError: With the precondition that failed.
    """
    kind = tensor_type(softmax.result)
    axis = constant_int(softmax.operands[1])
    if kind is None or axis is None or axis % len(kind.shape) != len(kind.shape) - 1:
        raise NoMatchError("the softmax is not over the last axis")
    scores = FormReader().read(softmax.operands[0])
    condition, total = _scores(scores)
    product, scale, softcap, bias = _take_product(total)
    first = product.value.owner
    left, right = (1, 2) if first.name.endswith("baddbmm") else (0, 1)
    reader = FormReader(only_layout=True)
    weights = reader.read(result.operands[0])
    seen = weights.element.as_single() if isinstance(weights.element, Poly) else None
    if seen is None or not isinstance(seen[0], Load) or seen[0].value != softmax.result or seen[1] != 1:
        raise NoMatchError("the attention weights are changed before they meet the values")
    key, key_scale = _source(reader, first.operands[right])
    value, value_scale = _source(reader, result.operands[1])
    if value_scale != 1:
        raise NoMatchError("the values are scaled")
    joint = _Joint(
        [
            Form(scores.axes, bias),
            Form(scores.axes, condition),
            Form(product.axes, Poly.constant(0)),
            weights,
            Form(seen[0].axes, Poly.constant(0)),
            key,
            value,
        ]
    )
    return _lay_out(joint, result, first.operands[left], scale * key_scale, softcap)


def _scores(scores: Form) -> tuple[Condition, Poly]:
    if isinstance(scores.element, Poly):
        return TRUE, scores.element
    if isinstance(scores.element, Select) and is_hidden(scores.element.other):
        return scores.element.condition, scores.element.then
    raise NoMatchError("the scores are a choice between numbers, none of which hides a key")


def _take_product(total: Poly) -> tuple[Load, float, float, Poly]:
    """The product in the scores, its factor, the bound of a softcap, and the rest."""
    found = []
    for monomial, coefficient in total.terms:
        single = Poly.of([(monomial, 1.0)]).as_single()
        symbol = None if single is None else single[0]
        if isinstance(symbol, Load) and is_product(symbol.value):
            found.append((symbol, coefficient, 0.0, monomial))
        inner = symbol.argument.as_single() if isinstance(symbol, Tanh) else None
        if inner is not None and isinstance(inner[0], Load) and is_product(inner[0].value):
            found.append((inner[0], inner[1] * coefficient, coefficient, monomial))
    if len(found) != 1:
        raise NoMatchError(f"the scores hold {len(found) or 'no'} products of queries and keys{_origin(total)}")
    product, scale, softcap, monomial = found[0]
    return product, scale, softcap, Poly(frozenset(item for item in total.terms if item[0] != monomial))


def _origin(total: Poly) -> str:
    """Where the scores come from instead, as far as it can be said."""
    loads = [symbol for monomial, _ in total.terms for symbol, _ in monomial if isinstance(symbol, Load)]
    makers = [defining_op(load.value) for load in loads]
    names = sorted({op.name for op in makers if op is not None})
    return f"; they come from {', '.join(names)}" if names else ""


def _source(reader: FormReader, operand: Value) -> tuple[Form, float]:
    """The tensor that an operand of a product is read from; the operand itself if it is more than moved and scaled."""
    form = reader.read(operand)
    single = form.element.as_single() if isinstance(form.element, Poly) else None
    if single is not None and isinstance(single[0], Load):
        return Form(form.axes, Poly.symbol(single[0])), single[1]
    kind = tensor_type(operand)
    assert kind is not None
    return load_form(operand, kind.shape, False), 1.0


_BIAS, _CONDITION, _PRODUCT, _WEIGHTS, _SOFTMAX, _KEY, _VALUE = range(7)


@dataclass(slots=True)
class _Joint:
    """Forms over common atoms."""

    forms: list[Form]

    def equate(self, first: int, first_axes: slice, second: int, second_axes: slice) -> None:
        """Makes axes of two forms equal; an axis of size 1 agrees with all."""
        a, b = self.forms[first].axes[first_axes], self.forms[second].axes[second_axes]
        for index in range(1, min(len(a), len(b)) + 1):
            left, right = self.forms[first].axes[first_axes][-index], self.forms[second].axes[second_axes][-index]
            parts = refine(left, right) if left and right else {}
            if parts is None:
                raise NoMatchError("the axes of the products cannot be laid over each other")
            self.forms = [form.split(parts) for form in self.forms]

    def axes(self, index: int) -> Axes:
        return self.forms[index].axes

    def load(self, index: int) -> Load:
        element = self.forms[index].element
        single = element.as_single() if isinstance(element, Poly) else None
        assert single is not None
        assert isinstance(single[0], Load)
        return single[0]


def _lay_out(joint: _Joint, result: Operation, query: Value, scale: float, softcap: float) -> Matched:
    everything = slice(None)
    joint.equate(_PRODUCT, slice(-1, None), _KEY, slice(-1, None))
    joint.equate(_PRODUCT, slice(None, -2), _KEY, slice(None, -2))
    joint.equate(_BIAS, everything, _SOFTMAX, everything)
    joint.equate(_WEIGHTS, slice(-1, None), _VALUE, slice(-2, -1))
    joint.equate(_WEIGHTS, slice(None, -2), _VALUE, slice(None, -2))
    product = joint.axes(_PRODUCT)
    order = [_flatten(joint.axes(index)) for index in (_PRODUCT, _BIAS, _WEIGHTS)]
    if order[0] != order[1] or order[0] != order[2]:
        raise NoMatchError("scores or weights are transposed between the products")
    batch, heads = _split_batch(joint)
    bias, condition = joint.forms[_BIAS].element, joint.forms[_CONDITION].element
    assert isinstance(bias, Poly)
    assert isinstance(condition, Condition)
    matched = Matched(
        result=result,
        query=query,
        key=joint.load(_KEY),
        value=joint.load(_VALUE),
        batch=batch,
        heads=heads,
        tokens=product[-2],
        keys=product[-1],
        key_dim=joint.axes(_KEY)[-2],
        value_dim=joint.axes(_VALUE)[-1],
        scale=scale,
        softcap=softcap,
        bias=bias,
        condition=condition,
    )
    _check_heads(matched)
    return matched


def _split_batch(joint: _Joint) -> tuple[Axis, Axis]:
    """Which leading indices count requests, and which count heads: as the scores, a product or the keys tell them."""
    for index in (_PRODUCT, _BIAS, _WEIGHTS):
        axes = joint.axes(index)
        if len(axes) == 4:
            return axes[0], axes[1]
    lead, key = _flatten(joint.axes(_PRODUCT)[:-2]), joint.load(_KEY).axes
    num_batch = len(key[0]) if len(key) == 4 and lead[: len(key[0])] == key[0] else 0
    return lead[:num_batch], lead[num_batch:]


def _check_heads(matched: Matched) -> None:
    known = {*matched.batch, *matched.heads, *matched.keys}
    for load, dim in ((matched.key, matched.key_dim), (matched.value, matched.value_dim)):
        if not load.atoms <= known | {*dim} or not {*matched.batch, *matched.keys, *dim} <= load.atoms:
            raise NoMatchError("keys or values are read at indices that are not request, head, position and dimension")
    heads = [atom for atom in matched.heads if atom in matched.key.atoms]
    if heads != [atom for atom in matched.heads if atom in matched.value.atoms]:
        raise NoMatchError("keys and values are shared by different heads")
    if tuple(heads) != matched.heads[: len(heads)]:
        raise NoMatchError("heads that share keys and values do not stand next to each other")


def _flatten(axes: Axes) -> tuple[Atom, ...]:
    return tuple(atom for axis in axes for atom in axis)
