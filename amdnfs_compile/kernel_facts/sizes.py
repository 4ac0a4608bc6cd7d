"""Sizes that are known up to the number of pages: linear forms, and how index arithmetic makes them.

A program has two sizes that are not known before it runs: the columns of the page table (pages of context of a
request) and the pages of a pool. Work depends on the first one only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from amdnfs_passes.ir import Operation, Value, defining_op


class UnknownSizeError(Exception):
    """A size that is no linear form of the page counts; the message says where it comes from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """`constant + per_page * pages of context + per_token * tokens of context + per_pool_page * pages of a pool`."""

    constant: Fraction = Fraction(0)
    """Part that is always the same."""
    per_page: Fraction = Fraction(0)
    """Part for each column of the page table."""
    per_token: Fraction = Fraction(0)
    """Part for each token of context; only kernels of ours are described so."""
    per_pool_page: Fraction = Fraction(0)
    """Part for each page of a pool; no cost may have one."""

    @property
    def is_constant(self) -> bool:
        """Whether it depends on no page count."""
        return not (self.per_page or self.per_token or self.per_pool_page)

    @property
    def grows_with_context(self) -> bool:
        """Whether it depends on the length of the context."""
        return bool(self.per_page or self.per_token)

    def __add__(self, other: Size) -> Size:
        return Size(
            constant=self.constant + other.constant,
            per_page=self.per_page + other.per_page,
            per_token=self.per_token + other.per_token,
            per_pool_page=self.per_pool_page + other.per_pool_page,
        )

    def times(self, factor: Fraction | int) -> Size:
        """The form multiplied by a number."""
        return Size(
            constant=self.constant * factor,
            per_page=self.per_page * factor,
            per_token=self.per_token * factor,
            per_pool_page=self.per_pool_page * factor,
        )

    def __mul__(self, other: Size) -> Size:
        """The product.

        Raises:
            UnknownSizeError: If both depend on page counts.
        """
        if other.is_constant:
            return self.times(other.constant)
        if self.is_constant:
            return other.times(self.constant)
        raise UnknownSizeError("a product of two sizes that both depend on the context")

    def as_json(self) -> dict[str, int | float]:
        """The parts that are not 0, and always the constant.

        Raises:
            UnknownSizeError: If it depends on the pages of a pool.
        """
        if self.per_pool_page:
            raise UnknownSizeError("it depends on the number of pages of a pool")
        parts = {"constant": self.constant, "per_page": self.per_page, "per_context_token": self.per_token}
        return {name: _number(value) for name, value in parts.items() if value or name == "constant"}

    def describe(self) -> str:
        """For people: `32`, `16*pages`."""
        named = (
            (self.constant, ""),
            (self.per_page, "*pages"),
            (self.per_token, "*context"),
            (self.per_pool_page, "*pool pages"),
        )
        return "+".join(f"{_number(value)}{name}" for value, name in named if value) or "0"


PAGE = Size(per_page=Fraction(1))
"""The columns of the page table."""
POOL_PAGE = Size(per_pool_page=Fraction(1))
"""The pages of a pool."""


def number(value: Fraction | float) -> Size:
    """A size that is always the same."""
    return Size(constant=Fraction(value))


def product(sizes: Iterable[Size]) -> Size:
    """All of them multiplied; 1 if there are none.

    Raises:
        UnknownSizeError: If more than one depends on page counts.
    """
    result = number(1)
    for size in sizes:
        result = result * size
    return result


def total(sizes: Iterable[Size]) -> Size:
    """All of them added up."""
    result = Size()
    for size in sizes:
        result = result + size
    return result


def smaller(first: Size, second: Size) -> Size:
    """The one that is smaller for long contexts and large pools."""
    return min(first, second, key=lambda size: (size.per_pool_page, size.per_page + size.per_token, size.constant))


def _number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


_SAME = {
    "arith.index_cast",
    "arith.index_castui",
    "arith.extui",
    "arith.extsi",
    "arith.trunci",
    "util.optimization_barrier",
    "iree_tensor_ext.dispatch.workload.ordinal",
}
_DIVISIONS = {"arith.divui", "arith.divsi", "arith.ceildivui", "arith.ceildivsi", "arith.floordivsi"}


def evaluate(value: Value, leaf: Callable[[Value], Size | None]) -> Size:
    """The size that an index value holds.

    A division is taken as exact: page counts are multiples of what they are cut into, or rounded up by less than that.

    Args:
        value: An index or integer.
        leaf: Knows some values; asked first.

    Raises:
        UnknownSizeError: If it is not a linear form.
    """
    known = leaf(value)
    if known is not None:
        return known
    op = defining_op(value)
    if op is None:
        raise UnknownSizeError(f"an argument of type {value.type}")
    if op.name == "arith.constant":
        return number(int(str(op.attributes["value"]).split(":")[0]))
    if op.name in _SAME or op.name == "util.assume.int":
        index = 0 if op.name != "util.assume.int" else list(op.results).index(value)
        return evaluate(op.operands[index], leaf)
    if op.name in ("arith.addi", "arith.subi", "arith.muli", "affine.apply"):
        return _arithmetic(op, leaf)
    if op.name in _DIVISIONS:
        numerator, divisor = (evaluate(operand, leaf) for operand in op.operands)
        if divisor.is_constant and divisor.constant:
            return numerator.times(1 / divisor.constant)
    raise UnknownSizeError(f"the result of {op.name}")


def _arithmetic(op: Operation, leaf: Callable[[Value], Size | None]) -> Size:
    operands = [evaluate(operand, leaf) for operand in op.operands]
    if op.name == "affine.apply":
        affine_map = op.attributes["map"].value
        return _affine(affine_map.results[0], operands[: affine_map.n_dims], operands[affine_map.n_dims :])
    first, second = operands
    if op.name == "arith.muli":
        return first * second
    return first + (second if op.name == "arith.addi" else second.times(-1))


def _affine(expression: Any, dims: list[Size], symbols: list[Size]) -> Size:
    """Value of an affine expression, by its class: the bindings have one class for each kind."""
    kind = type(expression).__name__
    if kind == "AffineConstantExpr":
        return number(expression.value)
    if kind in ("AffineDimExpr", "AffineSymbolExpr"):
        values = dims if kind == "AffineDimExpr" else symbols
        return values[int(expression.position)]
    if kind not in ("AffineAddExpr", "AffineMulExpr", "AffineFloorDivExpr", "AffineCeilDivExpr"):
        raise UnknownSizeError(f"the expression {expression}")
    first, second = (_affine(part, dims, symbols) for part in (expression.lhs, expression.rhs))
    if kind == "AffineAddExpr":
        return first + second
    if kind == "AffineMulExpr":
        return first * second
    if second.is_constant and second.constant:
        return first.times(1 / second.constant)
    raise UnknownSizeError(f"the expression {expression}")
