"""Facts that were altered, or are of another version: the field is named, and nothing ends in a traceback."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.bundle import file_entry, read_manifest
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.report.build import make_report
from amdnfs_runtime.report.facts import read_facts
from amdnfs_runtime.report.html import report_page
from amdnfs_runtime.report.text import report_text
from rich.console import Console

from tests.report_bundle import GROUPS, make_bundle

NUMBERS = [-1, 0, 1.5, float("nan"), float("inf"), 10**30, 10**5000]
STRANGE: list[Any] = [None, True, *NUMBERS, "", "x", "\ud800", "\u00b2", [], {}, [1], {"x": 1}]
"""What takes the place of a value."""
FACTS = "artifacts/gfx942/facts.json"


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each value within a value of JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(values: Any, path: tuple[Any, ...], new: Any, *, remove: bool) -> Any:
    """A copy in which one value is another one, or gone."""
    result = [copy.deepcopy(values)]
    home: Any = result
    for key in (0, *path)[:-1]:
        home = home[key]
    last = (0, *path)[-1]
    if remove and path:
        del home[last]
    else:
        home[last] = new
    return result[0]


def write_facts(bundle: Path, text: str) -> None:
    """Writes facts.json with its digest."""
    (bundle / FACTS).write_text(text)
    manifest = read_manifest(bundle)
    files = {**manifest.files, FACTS: file_entry(bundle / FACTS)}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())


def look_at(bundle: Path) -> None:
    """Makes a report in every form."""
    report = make_report(bundle)
    json.dumps(report.to_json())
    report_page(report).encode()
    Console(file=io.StringIO(), width=200).print(report_text(report, with_dispatches=True))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with every kind of field."""
    first = {**GROUPS[0], "habits": ["upcast f16 to f32"], "unknown": ["something"], "quantized": True}
    refusals = [{"pass": "dispatch-linear", "operation": "%0 = x", "reason": "too wide"}]
    counts = {"linear": {"made_by": "triton", "tiling": "M=16", "assembly_differs_in": ["vgprs"]}}
    return make_bundle(tmp_path / "b", groups=[first, *GROUPS[1:]], refusals=refusals, counts=counts)


def test_no_altered_field_ends_in_a_traceback(bundle: Path) -> None:
    values = json.loads((bundle / FACTS).read_text())
    cases = [(path, new, False) for path in places(values) for new in STRANGE]
    cases += [(path, None, True) for path in places(values)]
    refused: list[str] = []
    read: list[str] = []
    for path, new, remove in cases:
        try:
            text = json.dumps(changed(values, path, new, remove=remove))
        except ValueError:
            text = '{"passes": ' + "9" * 5000 + "}"  # a number that Python does not print
        (bundle / FACTS).write_text(text)
        try:
            read_facts(bundle / FACTS)
            read.append(text)
        except ArtifactError as error:
            refused.append(str(error))
    assert len(refused) > 2 * len(read)
    assert not [text for text in refused if "compile the target again" not in text and "compile it again" not in text]
    for text in random.Random(0).sample(read, 40):  # all of them take a minute, and pass too
        write_facts(bundle, text)
        with suppress(ArtifactError):
            look_at(bundle)


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("dispatches", "prefill_16", "groups", 1, "count"), 0,
         r"groups\[1\], count is 0; allowed is a whole number from 1 to 1e\+06"),
        (("dispatches", "prefill_16", "groups", 0, "op"), 7, r"prefill_16, groups\[0\], op is 7; allowed is text"),
        (("dispatches", "prefill_16", "groups", 0, "part"), "foot", "part is \"foot\"; allowed is 'head' or 'layer'"),
        (("dispatches", "prefill_16", "weight_bytes", "constant"), float("nan"),
         r"weight_bytes, constant is NaN; allowed is a number from 0 to 1e\+18"),
        (("kernels", "linear", "loads"), [1], r"kernels, linear, loads is \[1\]; allowed is an object"),
        (("kernels", "linear", "vgprs"), "40", 'kernels, linear, vgprs is "40"; allowed is a whole number from 0'),
        (("passes", 0, "name"), None, r"passes\[0\], name is null; allowed is text"),
        (("code_objects",), {}, r"code_objects is \{\}; allowed is a list"),
        (("dispatches", "prefill_16", "groups", 0, "quantized"), 1, "quantized is 1; allowed is true or false"),
        ((), [], r"the file is \[\]; allowed is an object"),
    ],
)  # fmt: skip
def test_the_field_its_value_and_what_is_allowed_are_named(
    bundle: Path, path: tuple[Any, ...], new: Any, message: str
) -> None:
    write_facts(bundle, json.dumps(changed(json.loads((bundle / FACTS).read_text()), path, new, remove=False)))
    with pytest.raises(ArtifactError, match=message) as error:
        make_report(bundle)
    assert str(error.value).startswith(f"{bundle / FACTS}: ")
    assert "altered, or is of another version of amdnfs: compile the target again" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"{", "cannot be read as JSON"), (b"\xff", "cannot be read as JSON"), (b"[" * 100_000, "nested too deep")],
)
def test_what_is_no_json(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "facts.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        read_facts(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is no program of IREE"), (b"\x7fELF and more", r"program\.vmfb: is no program of IREE \(no zip archive\)")],
)
def test_a_program_that_is_none_is_refused(bundle: Path, content: bytes, message: str) -> None:
    program = "artifacts/gfx942/program.vmfb"
    (bundle / program).write_bytes(content)
    with pytest.raises(ArtifactError, match=r"program\.vmfb"):  # by its digest
        make_report(bundle)
    manifest = read_manifest(bundle)
    files = {**manifest.files, program: file_entry(bundle / program)}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    with pytest.raises(ArtifactError, match=message):
        make_report(bundle)
