"""Element by element arithmetic on polynomials, conditions and choices.

A number below `HIDDEN` that is added to a score takes its key out of the softmax, whatever else is added: masks written
as a sum and masks written as a choice become the same choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from amdnfs_passes.fuse.index_terms import TRUE, AtLeast, Condition, Element, Poly, Select, Tanh

HIDDEN = -1000.0
"""Scores this low have no weight: exp(-1000) is 0 in f32, and scores of one row differ by far less."""

_ONE = Poly.constant(1)


@dataclass(frozen=True, slots=True)
class Rule:
    """How an operation combines the elements of its operands."""

    num_operands: int
    """How many of the operation's operands are combined."""
    combine: Callable[[Sequence[Element]], Element | None]
    """The result; None if it has no form."""
    is_comparison: bool = False
    """Whether it compares numbers, which is exact for integers only."""


def combine(operation: Callable[[Poly, Poly], Poly | None], a: Element, b: Element) -> Element | None:
    """`operation` on two numbers, each of which may be a choice."""
    if isinstance(a, Poly) and isinstance(b, Poly):
        return operation(a, b)
    if isinstance(a, Condition) or isinstance(b, Condition):
        return None
    if isinstance(a, Poly):
        assert isinstance(b, Select)
        return _choice(b.condition, operation(a, b.then), operation(a, b.other))
    if isinstance(b, Poly):
        return _choice(a.condition, operation(a.then, b), operation(a.other, b))
    if a.condition == b.condition:
        return _choice(a.condition, operation(a.then, b.then), operation(a.other, b.other))
    both = a.condition.joined(b.condition)
    if both is None or not (is_hidden(a.other) and is_hidden(b.other)):
        return None
    return _choice(both, operation(a.then, b.then), Poly.constant(HIDDEN))


def add(a: Element, b: Element) -> Element | None:
    """The sum."""
    return combine(lambda x, y: x + y, a, b)


def select(condition: Condition, then: Element, other: Element) -> Element | None:
    """`then` where `condition` holds, else `other`; the hidden one comes last, and choices are joined."""
    if condition == TRUE:
        return then
    if isinstance(then, Poly) and is_hidden(then) and not (isinstance(other, Poly) and is_hidden(other)):
        condition, then, other = condition.negated(), other, then
    if isinstance(other, Poly) and isinstance(then, Poly):
        return Select(condition, then, other)
    if not isinstance(then, Select) or not isinstance(other, Poly):
        return None
    both = condition.joined(then.condition)
    if both is None or not (is_hidden(then.other) and is_hidden(other)):
        return None
    return Select(both, then.then, other)


def is_hidden(number: Poly) -> bool:
    """Whether it is a constant that hides a key."""
    constant = number.as_constant()
    return constant is not None and constant <= HIDDEN


def is_nonzero(element: Element) -> Condition | None:
    """The condition that a number is not 0, where it is one of two constants."""
    return _decide(element, lambda value: value != 0)


def _choice(condition: Condition, then: Poly | None, other: Poly | None) -> Select | None:
    if then is None or other is None:
        return None
    constant = next((value for monomial, value in other.terms if not monomial), 0.0)
    return Select(condition, then, Poly.constant(constant) if constant <= HIDDEN else other)


def _decide(element: Element, test: Callable[[float], bool]) -> Condition | None:
    """The condition that a number passes `test`, where it is one of at most two constants."""
    if isinstance(element, Condition):
        return None
    parts = (element.then, element.other) if isinstance(element, Select) else (element, element)
    values = [part.as_constant() for part in parts]
    passes = [test(value) for value in values if value is not None]
    if len(passes) != len(values):
        return None
    if passes[0] == passes[1]:
        return TRUE if passes[0] else TRUE.negated()
    assert isinstance(element, Select)
    return element.condition if passes[0] else element.condition.negated()


def _binary(operation: Callable[[Poly, Poly], Poly | None]) -> Rule:
    return Rule(2, lambda operands: combine(operation, operands[0], operands[1]))


def _quotient(a: Poly, b: Poly) -> Poly | None:
    divisor = b.as_constant()
    return a.scaled(1 / divisor) if divisor else None


def _difference(a: Poly, b: Poly) -> Poly:
    return a + b.scaled(-1)


def _tanh(operands: Sequence[Element]) -> Element | None:
    (argument,) = operands
    return Poly.symbol(Tanh(argument)) if isinstance(argument, Poly) else None


def _of_constants(num_operands: int, function: Callable[..., float]) -> Rule:
    """A function of constants only: exporters leave the square root of a head dim in the program."""

    def compute(operands: Sequence[Element]) -> Element | None:
        values = [item.as_constant() if isinstance(item, Poly) else None for item in operands]
        known = [value for value in values if value is not None]
        if len(known) < len(values) or known[0] <= 0:
            return None
        try:
            return Poly.constant(function(*known))
        except OverflowError:
            return None

    return Rule(num_operands, compute)


def _largest(operands: Sequence[Element]) -> Element | None:
    """The greater of two numbers, where one is so low that the other may be taken: scores kept above the lowest."""
    for number, bound in (operands, reversed(operands)):
        if isinstance(bound, Poly) and is_hidden(bound):
            return number
    return None


def _not(operands: Sequence[Element]) -> Element | None:
    (condition,) = operands
    return condition.negated() if isinstance(condition, Condition) else None


def _and(operands: Sequence[Element]) -> Element | None:
    a, b = operands
    return a.joined(b) if isinstance(a, Condition) and isinstance(b, Condition) else None


def _at_least(order: int, strict: int) -> Rule:
    """`a >= b` (order 1) or `a <= b` (order -1) of integers, or strictly so."""

    def compare(operands: Sequence[Element]) -> Element | None:
        a, b = operands
        if not isinstance(a, Poly) or not isinstance(b, Poly):
            return None
        difference = _difference(a, b).scaled(order) + Poly.constant(-strict)
        constant = difference.as_constant()
        if constant is not None:
            return TRUE if constant >= 0 else TRUE.negated()
        return Condition(frozenset([AtLeast(difference)]))

    return Rule(2, compare, is_comparison=True)


def _compare_float(test: Callable[[float, float], bool]) -> Rule:
    """A comparison with a number, of a choice between two numbers: `mask < -1`."""

    def compare(operands: Sequence[Element]) -> Element | None:
        a, b = operands
        limit = b.as_constant() if isinstance(b, Poly) else None
        return None if limit is None else _decide(a, lambda value: test(value, limit))

    return Rule(2, compare)


_GE, _GT, _LE, _LT = _at_least(1, 0), _at_least(1, 1), _at_least(-1, 0), _at_least(-1, 1)

FLOAT_COMPARISON = {
    _GE: _compare_float(lambda a, b: a >= b),
    _GT: _compare_float(lambda a, b: a > b),
    _LE: _compare_float(lambda a, b: a <= b),
    _LT: _compare_float(lambda a, b: a < b),
}
"""What a comparison is on floats."""

CONSTANT_FUNCTIONS: dict[str, Rule] = {
    "sqrt": _of_constants(1, math.sqrt),
    "rsqrt": _of_constants(1, lambda value: 1 / math.sqrt(value)),
    "reciprocal": _of_constants(1, lambda value: 1 / value),
    **dict.fromkeys(("pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor"), _of_constants(2, math.pow)),
}
"""Functions that are computed of constants only, by name of the operation."""

ELEMENTWISE: dict[str, Rule] = {
    **dict.fromkeys(("add.Tensor", "add.Scalar"), _binary(lambda a, b: a + b)),
    **dict.fromkeys(("sub.Tensor", "sub.Scalar"), _binary(_difference)),
    "rsub.Scalar": _binary(lambda a, b: _difference(b, a)),
    **dict.fromkeys(("mul.Tensor", "mul.Scalar"), _binary(lambda a, b: a * b)),
    **dict.fromkeys(("div.Tensor", "div.Scalar"), _binary(_quotient)),
    "neg": Rule(1, lambda operands: combine(lambda a, b: a * b, operands[0], _ONE.scaled(-1))),
    "tanh": Rule(1, _tanh),
    **CONSTANT_FUNCTIONS,
    **dict.fromkeys(("maximum", "max.other"), Rule(2, _largest)),
    **dict.fromkeys(("ge.Tensor", "ge.Scalar"), _GE),
    **dict.fromkeys(("gt.Tensor", "gt.Scalar"), _GT),
    **dict.fromkeys(("le.Tensor", "le.Scalar"), _LE),
    **dict.fromkeys(("lt.Tensor", "lt.Scalar"), _LT),
    **dict.fromkeys(("logical_and", "bitwise_and.Tensor", "__and__.Tensor"), Rule(2, _and)),
    **dict.fromkeys(("logical_not", "bitwise_not"), Rule(1, _not)),
}
"""By name of the operation."""

SCALARS: dict[str, Callable[[Poly, Poly], Poly]] = {
    "torch.aten.add.int": lambda a, b: a + b,
    "torch.aten.sub.int": _difference,
    "torch.aten.mul.int": lambda a, b: a * b,
}
"""Arithmetic on integers that are no tensors."""
