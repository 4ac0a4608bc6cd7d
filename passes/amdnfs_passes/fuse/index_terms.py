"""What the elements of a tensor are, as functions of its indices: the algebra in which masks and biases are compared.

A mask is not told apart by how it was written, but by what it says. Each axis of a tensor is a row-major product of
*atoms* (independent indices; an axis of size 1 has none), and an element is a polynomial over atoms, sizes and elements
of other tensors, a condition, or a choice by a condition. `arange(n)` is the polynomial `i` over the one atom `i`;
`keys[None] <= positions[:, None]` is the condition `p - k >= 0`.

    view, flatten    regroup atoms, or split one: i = i0 * size(i1) + i1
    transpose        permutes axes; atoms stay
    expand, repeat   add an atom that the element does not depend on
    slice            i becomes i + begin

Rounding is not modelled: integers and floats are the same numbers here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from amdnfs_passes.ir import Value


@dataclass(frozen=True, eq=False, slots=True)
class Atom:
    """An index of its own: it equals no other, whatever its size."""

    size: int | None
    """Number of values; None where dynamic."""


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """An element of a tensor that is not looked into."""

    value: Value
    """The tensor."""
    axes: Axes
    """Where each of its axes is read."""

    @property
    def atoms(self) -> set[Atom]:
        """The indices it depends on."""
        return {atom for axis in self.axes for atom in axis}


@dataclass(frozen=True, slots=True)
class Size:
    """A dynamic size."""

    value: Value
    """The integer that holds it."""


@dataclass(frozen=True, slots=True)
class Tanh:
    """The hyperbolic tangent of a polynomial."""

    argument: Poly
    """Its argument."""


Symbol = Atom | Load | Size | Tanh
Monomial = frozenset[tuple[Symbol, int]]
_ONE: Monomial = frozenset()


@dataclass(frozen=True, slots=True)
class Poly:
    """A sum of products of symbols."""

    terms: frozenset[tuple[Monomial, float]]
    """Products (symbol to power) with their coefficients, none of them 0."""

    @staticmethod
    def of(terms: Iterable[tuple[Monomial, float]]) -> Poly:
        """The sum of `terms`."""
        total: dict[Monomial, float] = {}
        for monomial, coefficient in terms:
            total[monomial] = total.get(monomial, 0.0) + coefficient
        return Poly(frozenset((monomial, value) for monomial, value in total.items() if value != 0))

    @staticmethod
    def constant(value: float) -> Poly:
        """A number."""
        return Poly.of([(_ONE, float(value))])

    @staticmethod
    def symbol(symbol: Symbol) -> Poly:
        """One symbol."""
        return Poly.of([(frozenset([(symbol, 1)]), 1.0)])

    def __add__(self, other: Poly) -> Poly:
        return Poly.of([*self.terms, *other.terms])

    def __mul__(self, other: Poly) -> Poly:
        return Poly.of([(_join(a, b), x * y) for a, x in self.terms for b, y in other.terms])

    def scaled(self, factor: float) -> Poly:
        """This times a number."""
        return Poly.of([(monomial, value * factor) for monomial, value in self.terms])

    def as_constant(self) -> float | None:
        """The number it is; None if it depends on something."""
        if not self.terms:
            return 0.0
        items = list(self.terms)
        return items[0][1] if len(items) == 1 and items[0][0] == _ONE else None

    def as_single(self) -> tuple[Symbol, float] | None:
        """Symbol and coefficient if it is one symbol times a number."""
        items = list(self.terms)
        if len(items) != 1 or len(items[0][0]) != 1:
            return None
        ((symbol, power),) = items[0][0]
        return (symbol, items[0][1]) if power == 1 else None

    def split(self, parts: Mapping[Atom, Axis]) -> Poly:
        """The same with atoms replaced by the atoms they are made of."""
        return self.replaced({atom: _row_major(axis) for atom, axis in parts.items()}, parts)

    def replaced(self, values: Mapping[Atom, Poly], parts: Mapping[Atom, Axis]) -> Poly:
        """The same with atoms replaced: by `values` in products, by `parts` where a tensor is read."""
        total = Poly.constant(0)
        for monomial, coefficient in self.terms:
            product = Poly.constant(coefficient)
            for symbol, power in monomial:
                if isinstance(symbol, Atom):
                    factor = values.get(symbol, Poly.symbol(symbol))
                elif isinstance(symbol, Load):
                    factor = Poly.symbol(Load(symbol.value, split_axes(symbol.axes, parts)))
                elif isinstance(symbol, Tanh):
                    factor = Poly.symbol(Tanh(symbol.argument.replaced(values, parts)))
                else:
                    factor = Poly.symbol(symbol)
                for _ in range(power):
                    product = product * factor
            total = total + product
        return total


@dataclass(frozen=True, slots=True)
class AtLeast:
    """The condition that a polynomial over integers is not negative."""

    poly: Poly
    """The polynomial."""


@dataclass(frozen=True, slots=True)
class Flag:
    """The condition that an element of a boolean tensor has a value."""

    load: Load
    """The element."""
    expected: bool
    """The value."""


@dataclass(frozen=True, slots=True)
class Condition:
    """That all of some conditions hold; or, negated, that not all of them do."""

    literals: frozenset[AtLeast | Flag]
    """The conditions."""
    is_negated: bool = False
    """Whether it is negated."""

    def negated(self) -> Condition:
        """The opposite; one literal is turned round, so that it can be joined with others."""
        if len(self.literals) == 1 and not self.is_negated:
            (literal,) = self.literals
            if isinstance(literal, Flag):
                return Condition(frozenset([Flag(literal.load, not literal.expected)]))
            return Condition(frozenset([AtLeast(literal.poly.scaled(-1) + Poly.constant(-1))]))
        return Condition(self.literals, not self.is_negated)

    def joined(self, other: Condition) -> Condition | None:
        """Both; None where that is no conjunction."""
        if other == TRUE:
            return self
        if self == TRUE:
            return other
        if self.is_negated or other.is_negated:
            return self if self == other else None
        return Condition(self.literals | other.literals)

    def split(self, parts: Mapping[Atom, Axis]) -> Condition:
        """The same with atoms replaced by the atoms they are made of."""
        literals: set[AtLeast | Flag] = set()
        for item in self.literals:
            if isinstance(item, Flag):
                literals.add(Flag(Load(item.load.value, split_axes(item.load.axes, parts)), item.expected))
            else:
                literals.add(AtLeast(item.poly.split(parts)))
        return Condition(frozenset(literals), self.is_negated)


TRUE = Condition(frozenset())
"""What always holds."""


@dataclass(frozen=True, slots=True)
class Select:
    """One of two numbers."""

    condition: Condition
    """Decides."""
    then: Poly
    """Where the condition holds."""
    other: Poly
    """Where it does not."""

    def split(self, parts: Mapping[Atom, Axis]) -> Select:
        """The same with atoms replaced by the atoms they are made of."""
        return Select(self.condition.split(parts), self.then.split(parts), self.other.split(parts))


Element = Poly | Condition | Select


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor: its axes and what an element is."""

    axes: Axes
    """One entry an axis."""
    element: Element
    """The element at these indices."""

    def split(self, parts: Mapping[Atom, Axis]) -> Form:
        """The same with atoms replaced by the atoms they are made of."""
        return Form(split_axes(self.axes, parts), self.element.split(parts))

    def renamed(self) -> Form:
        """The same with new atoms: two reads of one tensor have indices of their own."""
        atoms = {atom for axis in self.axes for atom in axis}
        return self.split({atom: (Atom(atom.size),) for atom in atoms})


def load_form(value: Value, shape: Sequence[int | None], is_boolean: bool) -> Form:
    """A tensor that is not looked into."""
    axes = tuple(() if size == 1 else (Atom(size),) for size in shape)
    load = Load(value, axes)
    return Form(axes, Condition(frozenset([Flag(load, True)])) if is_boolean else Poly.symbol(load))


def split_axes(axes: Axes, parts: Mapping[Atom, Axis]) -> Axes:
    """The axes with atoms replaced by the atoms they are made of."""
    return tuple(tuple(new for atom in axis for new in parts.get(atom, (atom,))) for axis in axes)


def refine(left: Sequence[Atom], right: Sequence[Atom]) -> dict[Atom, Axis] | None:
    """How to split the atoms of two row-major products of the same size so that they become one and the same.

    None if they have no common refinement: `[2, 3]` and `[3, 2]`.
    """
    parts: dict[Atom, Axis] = {}
    lefts, rights = list(reversed(left)), list(reversed(right))
    while lefts and rights:
        a, b = lefts.pop(), rights.pop()
        if a is b:
            continue
        if a.size == b.size:
            _split(parts, b, (a,))
            continue
        if a.size is None or b.size is None:
            return None
        big, small, rest = (a, b, lefts) if a.size > b.size else (b, a, rights)
        assert big.size is not None
        assert small.size is not None
        if big.size % small.size:
            return None
        low = Atom(big.size // small.size)
        _split(parts, big, (small, low))
        rest.append(low)
    return None if lefts or rights else parts


def _split(parts: dict[Atom, Axis], atom: Atom, axis: Axis) -> None:
    """Records that `atom` is made of `axis`, also inside what was recorded before."""
    for known, made_of in list(parts.items()):
        parts[known] = tuple(new for item in made_of for new in (axis if item is atom else (item,)))
    parts[atom] = axis


def _row_major(axis: Axis) -> Poly:
    total = Poly.constant(0)
    for position, atom in enumerate(axis):
        sizes = [item.size for item in axis[position + 1 :]]
        stride = math.prod(size for size in sizes if size is not None)
        assert None not in sizes
        total = total + Poly.symbol(atom).scaled(stride)
    return total


def _join(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for symbol, power in b:
        powers[symbol] = powers.get(symbol, 0) + power
    return frozenset(powers.items())
