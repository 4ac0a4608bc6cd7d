"""What masks and biases say: causal, window, slope by position, or a tensor of their own."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.fuse.attention_match import Matched, NoMatchError
from amdnfs_passes.fuse.index_arithmetic import is_hidden
from amdnfs_passes.fuse.index_forms import FormReader
from amdnfs_passes.fuse.index_terms import AtLeast, Atom, Axis, Flag, Form, Load, Poly, Select, Size, Symbol
from amdnfs_passes.ir import Operation, Value, defining_op


@dataclass(frozen=True, slots=True)
class Slopes:
    """A bias that falls with the distance, by head."""

    load: Load
    """One number a head."""
    factor: float
    """What it is multiplied with."""


@dataclass(frozen=True, slots=True)
class Scores:
    """What happens to scores."""

    is_causal: bool
    """Whether a query sees no later key."""
    window: int
    """Number of latest keys seen; 0 is no limit."""
    slopes: Slopes | None
    """Bias by position."""
    mask: Flag | None
    """A boolean tensor that must have a value."""
    bias: tuple[Load, float] | None
    """A tensor that is added, and its factor."""


def read_scores(matched: Matched, start: Value | None) -> Scores:
    """Reads mask and bias; `start` is the tensor `[batch]` of the first query's position, 0 for all if not given.

    Raises:
        NoMatchError: With what is not understood.
    """
    position = _row_major(matched.tokens)
    if start is not None:
        position = position + Poly.symbol(Load(start, (matched.batch,)))
    distance = position + _row_major(matched.keys).scaled(-1)
    is_causal, window, mask = False, 0, None
    if matched.condition.is_negated:
        raise NoMatchError("a key is seen where not all of several conditions hold")
    for literal in matched.condition.literals:
        if isinstance(literal, Flag):
            if mask is not None:
                raise NoMatchError("more than one boolean tensor hides keys")
            mask = literal
            continue
        limit = (literal.poly + distance).as_constant()
        if literal.poly == distance:
            is_causal = True
        elif limit is not None and limit >= 0 and not window:
            window = int(limit) + 1
        else:
            raise NoMatchError(f"the mask by position is neither causal nor a window: {_describe(literal, matched)}")
    if window and not is_causal:
        raise NoMatchError("the mask is a window that is not causal")
    slopes, bias = _read_bias(matched)
    return Scores(is_causal, window, slopes, mask, bias)


def hides_later_keys(softmax: Operation, start: Value) -> bool:
    """Whether no key after its query has a weight: key `s` is hidden unless s <= start + t.

    Args:
        softmax: A softmax over keys; what is around it does not matter.
        start: `[batch]`, the position of the first query of each request.
    """
    scores = FormReader().read(softmax.operands[0])
    element = scores.element
    if not isinstance(element, Select) or not is_hidden(element.other) or element.condition.is_negated:
        return False
    return any(
        isinstance(item, AtLeast) and _is_causal(item.poly, scores, start) for item in element.condition.literals
    )


def _is_causal(poly: Poly, scores: Form, start: Value) -> bool:
    """Whether `poly` is start + t - s, where s is the last index of the scores and t another."""
    coefficients = {}
    for monomial, coefficient in poly.terms:
        if len(monomial) != 1:
            return False
        ((symbol, power),) = monomial
        if power != 1:
            return False
        coefficients[symbol] = coefficient
    keys, tokens = scores.axes[-1], scores.axes[-2] if len(scores.axes) > 1 else ()
    known: dict[Symbol, float] = {**dict.fromkeys(keys, -1.0), **dict.fromkeys(tokens, 1.0)}
    rest = [(symbol, value) for symbol, value in coefficients.items() if known.get(symbol) != value]
    starts = [symbol for symbol, value in rest if isinstance(symbol, Load) and symbol.value == start and value == 1]
    return len(keys) == 1 and keys[0] in coefficients and len(rest) == len(starts) == 1


def _read_bias(matched: Matched) -> tuple[Slopes | None, tuple[Load, float] | None]:
    """What is added by key; what is the same for all keys of a query cancels in the softmax."""
    slopes: Slopes | None = None
    bias: tuple[Load, float] | None = None
    keys = set(matched.keys)
    for monomial, coefficient in matched.bias.terms:
        symbols = dict(monomial)
        if not keys & {atom for symbol in symbols for atom in _atoms(symbol)}:
            continue
        loads = [symbol for symbol in symbols if isinstance(symbol, Load)]
        others = [symbol for symbol in symbols if not isinstance(symbol, Load)]
        if len(loads) == 1 and not others and symbols[loads[0]] == 1 and bias is None:
            bias = (loads[0], coefficient)
        elif len(loads) == 1 and others == list(matched.keys) and set(symbols.values()) == {1} and slopes is None:
            slopes = Slopes(loads[0], coefficient)
        else:
            raise NoMatchError("the bias is neither one tensor nor one slope a head times the position of the key")
    if slopes is not None and tuple(atom for axis in slopes.load.axes for atom in axis) != matched.heads:
        raise NoMatchError("the slopes are not one number a head")
    return slopes, bias


def _row_major(axis: Axis) -> Poly:
    if len(axis) > 1:
        raise NoMatchError("the axis of tokens or keys is made of several")
    return Poly.symbol(axis[0]) if axis else Poly.constant(0)


def _atoms(symbol: Symbol) -> set[Atom]:
    if isinstance(symbol, Atom):
        return {symbol}
    return symbol.atoms if isinstance(symbol, Load) else set()


def _describe(literal: AtLeast, matched: Matched) -> str:
    """A condition in words, e.g. `token - key + 3 >= 0`."""
    names = {**dict.fromkeys(matched.tokens, "token"), **dict.fromkeys(matched.keys, "key")}
    parts = []
    for monomial, coefficient in literal.poly.terms:
        words = [_name(symbol, names) for symbol, _ in monomial]
        number = [] if words and abs(coefficient) == 1 else [f"{abs(coefficient):g}"]
        parts.append((not words, coefficient < 0, "*".join([*number, *words])))
    text = "".join((" - " if is_negative else " + ") + word for _, is_negative, word in sorted(parts))
    return f"{text.removeprefix(' + ').strip()} >= 0"


def _name(symbol: Symbol, names: dict[Atom, str]) -> str:
    if isinstance(symbol, Atom):
        return names.get(symbol, "index")
    if isinstance(symbol, Size):
        return "size"
    owner = defining_op(symbol.value) if isinstance(symbol, Load) else None
    return owner.name.removeprefix("torch.aten.") if owner is not None else "argument"
