"""What operations that move elements do to a form: regroup, permute, repeat and cut axes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from amdnfs_passes.fuse.index_terms import Atom, Axes, Axis, Condition, Flag, Form, Load, Poly, Select, refine
from amdnfs_passes.ir import Operation, constant_int, is_open_end, list_elements

Shape = Sequence[int | None]


def regroup(form: Form, shape: Shape) -> Form | None:
    """The same elements in row-major order under another shape (view, flatten, unsqueeze, squeeze).

    None if it has several dynamic sizes: a view could have exchanged them.
    """
    atoms = [atom for axis in form.axes for atom in axis]
    if sum(atom.size is None for atom in atoms) > 1:
        return None
    wanted = [Atom(size) for size in shape if size != 1]
    parts = refine(wanted, atoms)
    if parts is None:
        return None
    remaining = iter(wanted)
    axes = tuple(() if size == 1 else parts.get(atom := next(remaining), (atom,)) for size in shape)
    return Form(axes, form.split(parts).element)


def drop_or_insert(form: Form, shape: Shape) -> Form | None:
    """The same elements with axes of size 1 left out or put in (unsqueeze, squeeze)."""
    kept = [axis for axis in form.axes if axis]
    if len(kept) != sum(size != 1 for size in shape):
        return None
    remaining = iter(kept)
    return Form(tuple(() if size == 1 else next(remaining) for size in shape), form.element)


def expand(form: Form, shape: Shape) -> Form:
    """Axes of size 1 repeated, and new axes in front."""
    lead = len(shape) - len(form.axes)
    axes: list[Axis] = [() if size == 1 else (Atom(size),) for size in shape[:lead]]
    for axis, size in zip(form.axes, shape[lead:], strict=True):
        axes.append((Atom(size),) if not axis and size != 1 else axis)
    return Form(tuple(axes), form.element)


def cut(form: Form, op: Operation, begin: Poly | None, shape: Shape) -> Form | None:
    """`x[begin:end]` along one axis, with a step of 1."""
    axis = constant_int(op.operands[1])
    if axis is None or begin is None or constant_int(op.operands[4]) != 1:
        return None
    axis %= len(form.axes)
    old, size = form.axes[axis], shape[axis]
    length, first = _size(old), begin.as_constant()
    if first == 0 and (is_open_end(op.operands[3]) or (length is not None and length == size)):
        return form
    if first is not None and first < 0:
        if length is None:
            return None
        begin = Poly.constant(first + length)
    if len(old) != 1 or _reads(form, old[0]):
        return None
    new: Axis = () if size == 1 else (Atom(size),)
    moved = begin
    for atom in new:
        moved = moved + Poly.symbol(atom)
    element = _moved(form, old[0], moved)
    return None if element is None else Form((*form.axes[:axis], new, *form.axes[axis + 1 :]), element)


def align(forms: Sequence[Form]) -> list[Form] | None:
    """Forms under one shape, as broadcasting makes it, with the same atoms; None if their axes cannot be related."""
    rank = max(len(form.axes) for form in forms)
    aligned = [Form(((),) * (rank - len(form.axes)) + form.axes, form.element) for form in forms]
    for position in range(rank):
        for index in range(1, len(aligned)):
            known = next((form.axes[position] for form in aligned[:index] if form.axes[position]), ())
            if not known or not aligned[index].axes[position]:
                continue
            parts = refine(known, aligned[index].axes[position])
            if parts is None:
                return None
            aligned = [form.split(parts) for form in aligned]
    axes: Axes = tuple(
        next((form.axes[position] for form in aligned if form.axes[position]), ()) for position in range(rank)
    )
    return [Form(axes, form.element) for form in aligned]


def _transpose(form: Form, op: Operation) -> Form | None:
    first, second = constant_int(op.operands[1]), constant_int(op.operands[2])
    if first is None or second is None:
        return None
    axes = list(form.axes)
    axes[first], axes[second] = axes[second], axes[first]
    return Form(tuple(axes), form.element)


def _turn(form: Form, op: Operation) -> Form | None:
    return Form(tuple(reversed(form.axes)), form.element)


def _permute(form: Form, op: Operation) -> Form | None:
    order = [constant_int(item) for item in list_elements(op.operands[1]) or []]
    if len(order) != len(form.axes):
        return None
    return Form(tuple(form.axes[item] for item in order if item is not None), form.element)


def _repeat(form: Form, op: Operation) -> Form | None:
    counts = [constant_int(item) for item in list_elements(op.operands[1]) or []]
    if None in counts or len(counts) < len(form.axes):
        return None
    padded = ((),) * (len(counts) - len(form.axes)) + form.axes
    axes = tuple(axis if count == 1 else (Atom(count), *axis) for count, axis in zip(counts, padded, strict=True))
    return Form(axes, form.element)


def _repeat_each(form: Form, op: Operation) -> Form | None:
    count, axis = constant_int(op.operands[1]), constant_int(op.operands[2])
    if count is None or axis is None:
        return None
    axes = list(form.axes)
    axes[axis] = axes[axis] if count == 1 else (*axes[axis], Atom(count))
    return Form(tuple(axes), form.element)


MOVES: dict[str, Callable[[Form, Operation], Form | None]] = {
    "transpose.int": _transpose,
    "t": _turn,
    "numpy_T": _turn,
    "permute": _permute,
    "repeat": _repeat,
    "repeat_interleave.self_int": _repeat_each,
}
"""By name of the operation."""


def _size(axis: Axis) -> int | None:
    sizes = [atom.size for atom in axis]
    return None if None in sizes else math.prod(size for size in sizes if size is not None)


def _reads(form: Form, atom: Atom) -> bool:
    """Whether a tensor is read at `atom`: it cannot be moved then."""
    element = form.element
    if isinstance(element, Condition):
        loads = [item.load for item in element.literals if isinstance(item, Flag)]
        return any(atom in load.atoms for load in loads) or not all(isinstance(i, Flag) for i in element.literals)
    parts = (element.then, element.other) if isinstance(element, Select) else (element,)
    symbols = [symbol for part in parts for monomial, _ in part.terms for symbol, _ in monomial]
    return isinstance(element, Select) or any(
        (isinstance(symbol, Load) and atom in symbol.atoms) or not isinstance(symbol, (Atom, Load))
        for symbol in symbols
    )


def _moved(form: Form, atom: Atom, value: Poly) -> Poly | Condition | None:
    if isinstance(form.element, Poly):
        return form.element.replaced({atom: value}, {})
    return form.element if isinstance(form.element, Condition) else None
