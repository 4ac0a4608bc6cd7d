"""What is told of wrong values: no names of a library's insides, no endless numbers; and JSON that is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from amdnfs_runtime import strict_json
from amdnfs_runtime.checks import check_int, checked_float
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.engine import Engine
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.request import SamplingParams
from amdnfs_runtime.structure import Structure, StructureCompiler, StructureKind

from tests.unit.runtime import fakes
from tests.unit.runtime.test_tools import TOKENIZER

COMPILER = StructureCompiler(TOKENIZER, fakes.make_manifest(context=64, vocab=512))
ENDLESS = 10**5000


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("grammar", "start: start", "structure (grammar): it allows no text at all, or none that this vocabulary can"),
        ("grammar", "start: b\nb: zorg", 'structure (grammar): line 2, column 4: unknown name: "zorg"'),
        ("grammar", 'start: %json {"type": "zorg"}', "structure (grammar): line 1, column 8: Invalid type: zorg"),
        ("regex", "(?=a)b", 'structure (regex): invalid regex "(?=a)b" (in regex): regex parse error: (?=a)b error: '),
        ("json_schema", '{"type": "string", "pattern": "^a$", "format": "date"}', "schema: Regex is empty"),
        ("json_schema", '{"type": "integer", "minimum": 1e300}', "integer range: min=9223372036854775807, max=None"),
        (
            "json_schema",
            '{"oneOf": [{"type": "string"}, {"minLength": 1}]}',
            'Set "x-guidance": {"coerce_one_of": true}',
        ),
    ],
)
def test_grammars_that_are_refused(kind: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        COMPILER.start(Structure(kind=StructureKind(kind), text=text))
    told = str(error.value)
    assert message in told
    insides = ("NoExtension", "Some(", "SearchRegex", "no_forcing", "non-verbose", " | %")
    assert [word for word in insides if word in told] == []


def test_forced_calls_do_not_tell_of_our_own_grammar() -> None:
    items = Structure.items([["x: ", {"not": {}}]], begin="[", join=None, end="]")
    with pytest.raises(UsageError) as error:
        COMPILER.start(items)
    assert str(error.value) == 'structure (items): Unimplemented keys: ["not"]'


@pytest.mark.parametrize("text", ["NaN", "-Infinity", '{"a": [1e999]}', "-1e400", "1" * 5000])
def test_numbers_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no JSON number|is too large|a number has more than 4300 digits") as error:
        strict_json.loads(text)
    assert len(str(error.value)) < 60
    with pytest.raises(UsageError, match=r"structure \(json_schema\): the text is no JSON: "):
        Structure(kind=StructureKind.JSON_SCHEMA, text=text)


def test_endless_numbers_are_not_shown() -> None:
    calls: list[Any] = [
        lambda: check_int("a", ENDLESS, least=0, end=9),
        lambda: checked_float("a", ENDLESS, least=0.0, most=9.0),
        lambda: SamplingParams(seed=ENDLESS),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="not a number of thousands of digits"):
            call()
    with pytest.raises(UsageError, match=r"a must be a finite number >= 0, not 10{79}\.\.\.$"):
        checked_float("a", 10**400, least=0.0, most=math.inf)
    with pytest.raises(UsageError, match=r"a must be an integer >= 0 and < 9, not 10{79}\.\.\.$"):
        check_int("a", 10**100, least=0, end=9)


def test_stop_tokens_that_no_vocabulary_has() -> None:
    engine = Engine(fakes.PagedProgram(), fakes.make_manifest(vocab=40), "cpu", None, 9, EngineConfig())
    with pytest.raises(UsageError, match=r"stop_token_ids names token 40, but the vocabulary has 40 tokens"):
        engine.prepare([1], SamplingParams(stop_token_ids=(3, 40)))
