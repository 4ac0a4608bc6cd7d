"""Structured output: which tokens may come next, so that a text follows a JSON schema, an expression or a grammar.

    Structure (what is asked) -> StructureCompiler, once a grammar -> Constraint, one a text -> mask [vocab] a token

The work is that of llguidance, which is loaded when the first structure is asked for. Its limits bound the time and the
memory of a grammar: one that needs more is refused when it is compiled, or ends its own request, never others.
"""

from __future__ import annotations

import functools
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from amdnfs_runtime import strict_json
from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.structure_errors import told

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLParserLimits, LLTokenizer

MOST_STRUCTURE_CHARS = 65_536
"""Longest text of a schema or of choices; schemas of real programs are a tenth of it."""
MOST_EXPRESSION_CHARS = 8_192
"""Longest regular expression or grammar. The time that llguidance takes to refuse one of many large character classes
grows with the square of its length: 0.8 s at this limit, 20 s at four times as much (version 1.9.1, tests' machine)."""
_CACHED_GRAMMARS = 64

_WHITESPACE = r"[\x20\x0A\x0D\x09]{1,16}"
"""Whitespace between JSON tokens. Bounded, because small models can go on with it for ever; 16 indents deep enough."""

_ALL_TOKENS = '%llguidance {"no_forcing": true}\n'
"""Allow every token that can go on with a text, not only the usual first one of a text that must come: what may come
next is then the same whether it is asked of one token or of all."""


class StructureKind(StrEnum):
    """How the text of a structure is meant."""

    JSON_SCHEMA = "json_schema"
    """A JSON schema; the output is JSON that is valid by it."""
    JSON_OBJECT = "json_object"
    """The output is any JSON object; the text is empty."""
    REGEX = "regex"
    """A regular expression, which the whole output matches. Rust's syntax, without look-around and references back."""
    GRAMMAR = "grammar"
    """A context-free grammar in Lark's syntax; it begins with the rule `start`."""
    CHOICE = "choice"
    """A JSON array of strings; the output is one of them."""
    ITEMS = "items"
    """Fixed text with JSON in it: `{"begin": "[", "items": [["x: ", {schema}], ...], "join": ", ", "end": "]"}`. Each
    item is a list of strings and schemas. The output is the begin, one item and the end; with a join, several items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Structure:
    """What the output of a request must look like.

    Raises:
        UsageError: The text is no JSON where it must be, too long, or empty where it must not be.

    >>> Structure.choice(["yes", "no"]).text
    '["yes", "no"]'
    """

    kind: StructureKind
    """How `text` is meant; also as a string."""

    text: str = ""
    """The schema, expression, grammar or array; empty for `json_object` only. A schema or choices have at most 65536
    characters, an expression or grammar 8192."""

    def __post_init__(self) -> None:
        """Check both fields."""
        try:
            object.__setattr__(self, "kind", StructureKind(self.kind))
        except ValueError as error:
            known = ", ".join(sorted(StructureKind))
            raise UsageError(f"structure: the kind must be one of {known}, not {self.kind!r}") from error
        if not isinstance(self.text, str):
            raise UsageError(f"structure ({self.kind}): the text must be a string, not {self.text!r:.80}")
        is_expression = self.kind in (StructureKind.REGEX, StructureKind.GRAMMAR)
        most = MOST_EXPRESSION_CHARS if is_expression else MOST_STRUCTURE_CHARS
        if len(self.text) > most:
            raise UsageError(
                f"structure ({self.kind}): the text has {len(self.text)} characters, at most {most} are allowed"
            )
        if bool(self.text) is (self.kind is StructureKind.JSON_OBJECT):
            needed = "must be empty" if self.text else "must not be empty"
            raise UsageError(f"structure ({self.kind}): the text {needed}")
        if self.kind is StructureKind.JSON_SCHEMA and not isinstance(self._parsed(), dict):
            raise UsageError(f"structure (json_schema): a schema is a JSON object, not {self.text:.80}")
        if self.kind is StructureKind.ITEMS:
            _check_items(self._parsed())
        if self.kind is StructureKind.CHOICE:
            choices = self._parsed()
            if not isinstance(choices, list) or not choices or not all(isinstance(x, str) and x for x in choices):
                raise UsageError(
                    f"structure (choice): the choices are a JSON array of strings, none of them empty, not "
                    f"{self.text:.80}"
                )

    @staticmethod
    def json_schema(schema: Mapping[str, Any]) -> Structure:
        """JSON that is valid by a schema."""
        return Structure(kind=StructureKind.JSON_SCHEMA, text=_dumped(schema, StructureKind.JSON_SCHEMA))

    @staticmethod
    def choice(choices: Sequence[str]) -> Structure:
        """One of some strings."""
        return Structure(kind=StructureKind.CHOICE, text=_dumped(list(choices), StructureKind.CHOICE))

    @staticmethod
    def items(
        items: Sequence[Sequence[str | Mapping[str, Any]]], *, begin: str, join: str | None, end: str
    ) -> Structure:
        """Fixed text with JSON in it; see `StructureKind.ITEMS`."""
        value = {"begin": begin, "items": [list(item) for item in items], "join": join, "end": end}
        return Structure(kind=StructureKind.ITEMS, text=_dumped(value, StructureKind.ITEMS))

    def _parsed(self) -> Any:
        """The text as JSON."""
        try:
            return strict_json.loads(self.text)
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise UsageError(f"structure ({self.kind}): the text is no JSON: {reason}") from error

    def grammar(self) -> str:
        """The same in the form that llguidance reads; refused grammars are found when it is compiled."""
        from llguidance import LLMatcher

        match self.kind:
            case StructureKind.GRAMMAR:
                return str(LLMatcher.grammar_from_lark(_ALL_TOKENS + self.text))
            case StructureKind.ITEMS:
                return str(LLMatcher.grammar_from_lark(_ALL_TOKENS + _items_lark(**self._parsed())))
            case StructureKind.REGEX | StructureKind.CHOICE:
                is_regex = self.kind is StructureKind.REGEX
                regex = self.text if is_regex else "|".join(re.escape(choice) for choice in self._parsed())
                grammar = json.loads(LLMatcher.grammar_from_regex(regex))
                grammar["grammars"][0]["lark_grammar"] = _ALL_TOKENS + grammar["grammars"][0]["lark_grammar"]
            case StructureKind.JSON_SCHEMA | StructureKind.JSON_OBJECT:
                schema = self._parsed() if self.text else {"type": "object"}
                first = {"lark_grammar": f"{_ALL_TOKENS}start: @json"}
                grammar = {"grammars": [first, {"name": "json", "json_schema": _bounded(schema)}]}
        return json.dumps(grammar)


class Constraint:
    """What may follow in one text. Belongs to one generation, like its sampler."""

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        """Called by `StructureCompiler.start`; the matcher is its own."""
        self._matcher = matcher
        self._vocab = vocab_size
        self._mask: npt.NDArray[np.bool_] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether the text is whole and nothing but its end can follow."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def allows(self, token_id: int) -> bool:
        """Whether a token may come next; far cheaper than `mask`. End tokens may when the text is whole."""
        return 0 <= token_id < self._vocab and bool(self._matcher.validate_tokens([token_id]) == 1)

    def mask(self) -> npt.NDArray[np.bool_]:
        """Which tokens may come next, `[vocab]`; not to be changed. The same array until the next `accept`.

        Raises:
            UsageError: If the grammar reached a limit, or this vocabulary cannot go on with it.
        """
        if self._mask is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._check()
            self._mask = np.unpackbits(bits, count=self._vocab, bitorder="little").view(np.bool_)
            if not self._mask.any():
                raise UsageError("structure: no token of this vocabulary can go on with the text; simplify the grammar")
        return self._mask

    def accept(self, token_id: int) -> None:
        """Appends a token to the text.

        Raises:
            UsageError: If it may not come next, or the grammar reached a limit.
        """
        self._mask = None
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError(f"structure: the text cannot go on: {told(self._matcher.get_error())}")


class StructureCompiler:
    """Makes constraints for the vocabulary of one model. Safe from any thread; keeps the last 64 grammars."""

    def __init__(self, tokenizer: Tokenizer, manifest: Manifest) -> None:
        """Does nothing yet: the tables of a large vocabulary take a second, and few requests need them."""
        self._tokenizer = tokenizer
        self._manifest = manifest
        self._lock = threading.Lock()
        self._tables: LLTokenizer | None = None
        self._compiled = functools.lru_cache(maxsize=_CACHED_GRAMMARS)(self._compile)

    def start(self, structure: Structure) -> Constraint:
        """A constraint for a new text.

        Raises:
            UsageError: If llguidance is not installed, the tokenizer is of a kind that it does not know, or the
                structure is malformed, impossible, or needs more work than is allowed.
        """
        return Constraint(self._compiled(structure).deep_copy(), self._manifest.model.vocab_size)

    def _compile(self, structure: Structure) -> LLMatcher:
        with self._lock:
            if self._tables is None:
                self._tables = _tables_of(self._tokenizer, self._manifest)
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tables, structure.grammar(), log_level=0, limits=_limits())
        if not matcher.is_error():
            matcher.compute_bitmask()  # some limits show with the first token only
        if matcher.is_error():
            is_own = structure.kind is StructureKind.GRAMMAR
            reason = told(matcher.get_error(), _ALL_TOKENS.count("\n") if is_own else None)
            raise UsageError(f"structure ({structure.kind}): {reason}")
        return matcher


def _limits() -> LLParserLimits:
    """Bounds of the work for a grammar; real schemas stay far below.

    By the rates that llguidance documents at `LLParserLimits`: a second to compile it, 20 ms a token at worst, and
    40 MB a text.
    """
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_items_in_row=2_000,
        max_grammar_size=100_000,
        max_lexer_states=20_000,
        verbose_errors=False,
    )


def _tables_of(tokenizer: Tokenizer, manifest: Manifest) -> LLTokenizer:
    try:
        from llguidance import LLTokenizer
    except ImportError as error:
        raise UsageError(
            "structure: structured output needs llguidance, which is not installed; "
            "install it with: pip install 'amdnfs[serve]'"
        ) from error
    vocab = max(manifest.model.vocab_size, 1 + max(tokenizer.get_vocab().values(), default=0))
    try:
        return LLTokenizer(tokenizer.to_str(), n_vocab=vocab, eos_token=list(manifest.eos_token_ids) or None)
    except ValueError as error:
        raise UsageError(
            "structure: the tokenizer of this bundle cannot be constrained: llguidance does not know its kind; ask for "
            "no structure"
        ) from error


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema whose JSON has no endless whitespace, unless it says otherwise itself."""
    return {"x-guidance": {"whitespace_pattern": _WHITESPACE}, **schema}


def _check_items(value: Any) -> None:
    if (
        not isinstance(value, dict)
        or set(value) != {"begin", "items", "join", "end"}
        or not isinstance(value["items"], list)
        or not value["items"]
        or not all(isinstance(item, list) and item for item in value["items"])
        or not all(isinstance(part, (str, dict)) for item in value["items"] for part in item)
        or not all(isinstance(value[name], str) for name in ("begin", "end"))
        or not isinstance(value["join"], (str, NoneType))
    ):
        raise UsageError(f"structure (items): it must have begin, items, join and end, not {json.dumps(value):.80}")


def _items_lark(begin: str, items: list[list[Any]], join: str | None, end: str) -> str:
    """The grammar of `StructureKind.ITEMS`."""

    def literal(text: str) -> str:
        return json.dumps(text, ensure_ascii=False) if text else ""

    repeats = "" if join is None else f"({literal(join)} item)*"
    lines = [f"start: {literal(begin)} item {repeats} {literal(end)}"]
    lines.append("item: " + " | ".join(f"item_{number}" for number in range(len(items))))
    for number, item in enumerate(items):
        parts = [literal(part) if isinstance(part, str) else f"%json {json.dumps(_bounded(part))}" for part in item]
        lines.append(f"item_{number}: {' '.join(parts)}")
    return "\n".join(lines)


def _dumped(value: Any, kind: StructureKind) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"structure ({kind}): it cannot be written as JSON: {error}") from error
