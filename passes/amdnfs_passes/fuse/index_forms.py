"""Reads the algebra of `index_terms` off torch operations: what moves elements, and what computes with them.

An operation that is not known, or not in the form given, is no error: its result is a tensor that is not looked into.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from amdnfs_passes.fuse import index_arithmetic as arithmetic
from amdnfs_passes.fuse import index_layout as layout
from amdnfs_passes.fuse.index_terms import TRUE, Condition, Form, Load, Poly, Select, Size, load_form
from amdnfs_passes.ir import Operation, Value, constant_bool, constant_float, constant_int, defining_op, splat_number
from amdnfs_passes.templates import TensorType, tensor_type

PRODUCTS = ("torch.aten.matmul", "torch.aten.bmm", "torch.aten.baddbmm")
"""Operations whose result is a product of matrices."""

SOFTMAX = ("torch.aten.softmax.int", "torch.aten._softmax")
"""Operations that are a softmax."""

_COPIES = ("clone", "contiguous", "detach", "alias", "lift_fresh_copy", "_to_copy", "to.dtype", "type_as")
_WIDTH = {"bf16": 1, "f16": 1, "f32": 2, "f64": 3}
_MAX_TERMS = 12
_VIEWS = ("view", "_unsafe_view", "reshape", "flatten.using_ints", "unflatten.int")


@dataclass(slots=True)
class FormReader:
    """Reads forms, each value once."""

    only_layout: bool = False
    """Look through operations that move or scale elements only."""
    _known: dict[Value, Form] = field(default_factory=dict)

    def read(self, value: Value) -> Form:
        """What `value`, a tensor of known rank, holds."""
        if value not in self._known:
            kind = tensor_type(value)
            assert kind is not None
            form = self._compute(value, kind)
            if form is None or len(form.axes) != len(kind.shape) or _num_terms(form) > _MAX_TERMS:
                form = load_form(value, kind.shape, kind.element == "i1")
            self._known[value] = form
        return self._known[value].renamed()

    def number(self, value: Value) -> Poly | None:
        """What `value`, a number or a tensor without axes, is; None if it is not known."""
        for constant in (constant_float(value), constant_int(value), constant_bool(value)):
            if constant is not None:
                return Poly.constant(constant)
        if tensor_type(value) is not None:
            form = self.read(value)
            return form.element if isinstance(form.element, Poly) and not any(form.axes) else None
        op = defining_op(value)
        operation = arithmetic.SCALARS.get(op.name) if op is not None else None
        if op is None:
            return None
        if operation is None:
            return Poly.symbol(Size(value)) if op.name == "torch.aten.size.int" else None
        left, right = self.number(op.operands[0]), self.number(op.operands[1])
        return None if left is None or right is None else operation(left, right)

    def _compute(self, value: Value, kind: TensorType) -> Form | None:
        op = defining_op(value)
        if op is None or not op.name.startswith(("torch.aten.", "torch.vtensor.literal")):
            return None
        name = op.name.removeprefix("torch.aten.")
        if name in _COPIES:
            return self._cast(op, kind)
        if name == "dropout":
            return self.read(op.operands[0]) if constant_bool(op.operands[2]) is False else None
        if name in _VIEWS:
            return layout.regroup(self.read(op.operands[0]), kind.shape)
        if name in ("unsqueeze", "squeeze.dim"):
            return layout.drop_or_insert(self.read(op.operands[0]), kind.shape)
        if name in ("expand", "broadcast_to"):
            return layout.expand(self.read(op.operands[0]), kind.shape)
        if name in layout.MOVES:
            return layout.MOVES[name](self.read(op.operands[0]), op)
        if name == "slice.Tensor":
            return layout.cut(self.read(op.operands[0]), op, self.number(op.operands[2]), kind.shape)
        reader: Callable[[FormReader, Operation, TensorType], Form | None] | None = _READERS.get(name)
        if reader is None and not self.only_layout:
            reader = arithmetic_reader(name)
        return reader(self, op, kind) if reader is not None else None

    def _cast(self, op: Operation, kind: TensorType) -> Form | None:
        source = tensor_type(op.operands[0])
        if source is None:
            return None
        form = self.read(op.operands[0])
        if isinstance(form.element, Condition):
            if kind.element == "i1":
                return form
            return Form(form.axes, Select(form.element, Poly.constant(1), Poly.constant(0)))
        if kind.element == "i1":
            condition = arithmetic.is_nonzero(form.element)
            return None if condition is None else Form(form.axes, condition)
        is_narrower = _WIDTH.get(kind.element, 0) < _WIDTH.get(source.element, 0)
        single = form.element.as_single() if isinstance(form.element, Poly) else None
        is_stored = single is not None and isinstance(single[0], Load) and not _is_computed(single[0].value)
        return None if is_narrower and is_stored else form  # a stored number, such as a slope, keeps its rounding


def is_product(value: Value) -> bool:
    """Whether `value` is a product of matrices."""
    op = defining_op(value)
    return op is not None and op.name in PRODUCTS


def _is_computed(value: Value) -> bool:
    op = defining_op(value)
    return op is not None and op.name in (*PRODUCTS, *SOFTMAX)


def arithmetic_reader(name: str) -> Callable[[FormReader, Operation, TensorType], Form | None] | None:
    """The function that reads `torch.aten.<name>`, if it computes element by element."""
    if name in arithmetic.ELEMENTWISE:
        return _read_elementwise
    return {
        "cumsum": _read_cumsum,
        "baddbmm": _read_baddbmm,
        "where.self": _read_where,
        "where.Scalar": _read_where,
        "where.ScalarSelf": _read_where,
        "where.ScalarOther": _read_where,
        "masked_fill.Scalar": _read_masked_fill,
        "masked_fill.Tensor": _read_masked_fill,
    }.get(name)


def _num_terms(form: Form) -> int:
    element = form.element
    if isinstance(element, Condition):
        return len(element.literals)
    return max(
        len(part.terms) for part in ((element.then, element.other) if isinstance(element, Select) else (element,))
    )


def _operand(reader: FormReader, value: Value) -> Form | None:
    """A tensor or a number as a form."""
    if tensor_type(value) is not None:
        return reader.read(value)
    number = reader.number(value)
    return None if number is None else Form((), number)


def _read_elementwise(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    rule = arithmetic.ELEMENTWISE[op.name.removeprefix("torch.aten.")]
    forms = [_operand(reader, value) for value in list(op.operands)[: rule.num_operands]]
    if any(value is not None and constant_int(value) != 1 for value in list(op.operands)[rule.num_operands :]):
        return None  # add and sub scale their second operand
    kinds = [tensor_type(value) for value in list(op.operands)[: rule.num_operands]]
    if rule.is_comparison and any(item is not None and item.element.startswith(("f", "bf")) for item in kinds):
        rule = arithmetic.FLOAT_COMPARISON[rule]
    known = [form for form in forms if form is not None]
    aligned = layout.align(known) if len(known) == len(forms) else None
    element = None if aligned is None else rule.combine([form.element for form in aligned])
    return None if aligned is None or element is None else Form(aligned[0].axes, element)


def _read_where(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    return _choose(reader, op.operands[0], op.operands[1], op.operands[2])


def _read_masked_fill(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    return _choose(reader, op.operands[1], op.operands[2], op.operands[0])


def _choose(reader: FormReader, condition: Value, then: Value, other: Value) -> Form | None:
    forms = [_operand(reader, value) for value in (condition, then, other)]
    known = [form for form in forms if form is not None]
    aligned = layout.align(known) if len(known) == len(forms) else None
    if aligned is None or not isinstance(aligned[0].element, Condition):
        return None
    element = arithmetic.select(aligned[0].element, aligned[1].element, aligned[2].element)
    return None if element is None else Form(aligned[0].axes, element)


def _read_cumsum(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    """The running sum of one number: that number times the count so far."""
    form, axis = reader.read(op.operands[0]), constant_int(op.operands[1])
    if axis is None or not isinstance(form.element, Poly) or form.element.as_constant() is None:
        return None
    if len(form.axes[axis]) > 1:
        return None
    count = Poly.constant(1)
    for atom in form.axes[axis]:
        count = count + Poly.symbol(atom)
    return Form(form.axes, form.element * count)


def _read_baddbmm(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    """`beta * x + alpha * product`, where the operation itself stands for the product."""
    beta, alpha = reader.number(op.operands[3]), reader.number(op.operands[4])
    aligned = layout.align([load_form(op.result, kind.shape, False), reader.read(op.operands[0])])
    if beta is None or alpha is None or aligned is None:
        return None
    product, bias = (form.element for form in aligned)
    scaled = arithmetic.combine(lambda a, b: a * b, bias, beta)
    total = None if scaled is None or not isinstance(product, Poly) else arithmetic.add(product * alpha, scaled)
    return None if total is None else Form(aligned[0].axes, total)


def _read_arange(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    has_begin = op.name != "torch.aten.arange"
    begin = reader.number(op.operands[0]) if has_begin else Poly.constant(0)
    step = reader.number(op.operands[2]) if op.name == "torch.aten.arange.start_step" else Poly.constant(1)
    if begin is None or step is None:
        return None
    (axis,) = load_form(op.result, kind.shape, False).axes
    index = Poly.constant(0)
    for atom in axis:
        index = index + Poly.symbol(atom)
    return Form((axis,), begin + index * step)


def _read_filled(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    name = op.name.removeprefix("torch.aten.").removeprefix("new_").partition("_")[0]
    at = {"full": 2 if op.name.endswith("new_full") else 1, "scalar": 0}.get(name)
    value = Poly.constant({"zeros": 0, "ones": 1}.get(name, 0)) if at is None else reader.number(op.operands[at])
    return None if value is None else _filled(op.result, kind, value)


def _read_literal(reader: FormReader, op: Operation, kind: TensorType) -> Form | None:
    value = splat_number(op)
    return None if value is None else _filled(op.result, kind, Poly.constant(value))


def _filled(value: Value, kind: TensorType, number: Poly) -> Form | None:
    axes = load_form(value, kind.shape, False).axes
    if kind.element != "i1":
        return Form(axes, number)
    constant = number.as_constant()
    return None if constant is None else Form(axes, TRUE if constant else TRUE.negated())


_READERS: dict[str, Callable[[FormReader, Operation, TensorType], Form | None]] = {
    **dict.fromkeys(("arange", "arange.start", "arange.start_step"), _read_arange),
    **dict.fromkeys(("full", "full_like", "new_full", "scalar_tensor"), _read_filled),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "ones", "ones_like", "new_ones"), _read_filled),
    "torch.vtensor.literal": _read_literal,
    **dict.fromkeys(("mul.Tensor", "mul.Scalar", "div.Tensor", "div.Scalar"), _read_elementwise),
    **dict.fromkeys(arithmetic.CONSTANT_FUNCTIONS, _read_elementwise),
}
