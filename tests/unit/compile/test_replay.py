"""A replay with guessed tokens, on a program that is made of arithmetic: its cache holds tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from amdnfs_runtime.bundle import EntryPoint, Manifest, read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.errors import UsageError

from amdnfs_compile.replay import Observation, default_tokens, make_texts, num_checked_tokens, num_pages, replay
from amdnfs_compile.verify import verify_bundle
from tests.report_bundle import make_bundle

SHAPES = {"prefill_16": (1, 16), "decode_1": (1, 1), "decode_4": (4, 1), "verify_1x4": (1, 4), "verify_4x4": (4, 4)}
PAGE = 16
Logits = npt.NDArray[np.float32]


def logits_of(context: list[int]) -> Logits:
    """What the program computes for the last of some tokens."""
    return np.random.default_rng(context).random(8, np.float32)


class Program:
    """Keeps the tokens of each page; `fault` is what its programs for guesses do wrong."""

    def __init__(self, pages: int, fault: str = "") -> None:
        self._cache = np.zeros((pages, PAGE), np.int64)
        self._fault = fault

    def step(self, name: str, arguments: Arguments) -> tuple[Logits, Logits]:
        """Writes the new tokens, and answers for the last of each row, or for all of them."""
        is_check = name.startswith("verify")
        rows = [self._row(is_check, *row) for row in zip(*arguments, strict=True)]
        found = np.stack([row if is_check else row[-1] for row in rows])
        return found, found

    def _row(self, is_check: bool, tokens: npt.NDArray[np.int64], start: int, valid: int, pages: Logits) -> Logits:
        found = np.zeros((len(tokens), 8), np.float32)
        slots = [(int(pages[at // PAGE]), at % PAGE) for at in range(start + valid)]
        kept = 1 if is_check and self._fault == "guesses are not kept" else valid
        new = {slot: int(token) for slot, token in zip(slots[start:], tokens, strict=False)}
        context = [new.get(slot, int(self._cache[slot])) for slot in slots]
        for slot in slots[start : start + kept]:
            self._cache[slot] = new[slot]
        for index in range(valid):
            seen = start + index + (is_check and self._fault == "a guess sees itself" and index + 1 < valid)
            found[index] = logits_of(context[: seen + 1])
        if not is_check and valid:
            found[-1] = found[valid - 1]
        return found


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A bundle whose one target has programs for three guesses."""
    manifest = read_manifest(make_bundle(tmp_path / "b"))
    points = tuple(
        EntryPoint(name=name, kind=name.split("_")[0], batch=batch, tokens=tokens)
        for name, (batch, tokens) in SHAPES.items()
    )
    target = dataclasses.replace(manifest.targets["gfx942"], entry_points=points)
    return dataclasses.replace(manifest, targets={"gfx942": target})


def played(manifest: Manifest, fault: str = "", one_by_one: int | None = None) -> dict[str, tuple[Observation, bool]]:
    """What each way of using a program gave, and whether it is what the whole text gives."""
    texts = make_texts(manifest, default_tokens(manifest), seed=0)
    program = Program(num_pages(manifest, texts.shape[1]), fault)
    found = {}
    for item in replay(program, manifest, "gfx942", texts, one_by_one=one_by_one):
        wanted = np.stack([logits_of(texts[text, : at + 1].tolist()) for text, at in item.rows])
        found[item.name] = (item, bool(np.array_equal(item.logits, wanted)))
    return found


CHECKS = {"guessed tokens, verify_1x4", "guessed tokens, verify_4x4"}


def test_programs_for_guesses_are_played_too(manifest: Manifest) -> None:
    found = played(manifest)
    assert set(found) > CHECKS
    assert all(is_right for _, is_right in found.values())
    spans = found["guessed tokens, verify_4x4"][0].rows
    assert len(spans) == (4 + 1) + (3 + 1) + (4 + 1)
    assert {at // PAGE for text, at in spans if text == 0} == {0, 1}
    assert num_checked_tokens(manifest, "gfx942") == 4


@pytest.mark.parametrize("fault", ["guesses are not kept", "a guess sees itself"])
def test_a_wrong_program_for_guesses_is_found_and_nothing_else_is(manifest: Manifest, fault: str) -> None:
    found = played(manifest, fault)
    assert {name for name, (_, is_right) in found.items() if not is_right} == CHECKS


def test_another_program_decodes_the_same_tokens_one_by_one(manifest: Manifest) -> None:
    found = played(manifest, "guesses are not kept", one_by_one=4)
    item, is_right = found["guessed tokens, one by one"]
    assert is_right
    assert item.rows == played(manifest)["guessed tokens, verify_1x4"][0].rows
    assert not CHECKS & set(found)
    assert "guessed tokens, one by one" not in played(manifest, one_by_one=0)


def test_texts_that_are_too_short_for_the_guesses(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "b" / "manifest.json").write_text(manifest.to_json())
    with pytest.raises(UsageError, match=r"^5 tokens are too few to check 3 guesses: 6 are the least$"):
        verify_bundle(tmp_path / "b", None, "gfx942", num_tokens=5, emulation=object(), with_cpu=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", ["", "guesses are not kept"])
def test_guesses_are_compared_with_tokens_that_the_cpu_program_decodes(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The CPU program need not have programs for guesses."""
    hip = manifest.targets["gfx942"]
    plain = tuple(point for point in hip.entry_points if point.kind != "verify")
    cpu = dataclasses.replace(hip, kind="cpu", gfx=None, entry_points=plain)
    both = dataclasses.replace(manifest, targets={"cpu": cpu, "gfx942": hip})
    (tmp_path / "b" / "manifest.json").write_text(both.to_json())

    @contextmanager
    def open_steps(
        _bundle: Path, _manifest: Manifest, target: str, pages: int, _emulation: object
    ) -> Iterator[Program]:
        yield Program(pages, fault if target == "gfx942" else "")

    monkeypatch.setattr("amdnfs_compile.verify.open_steps", open_steps)
    checks = verify_bundle(tmp_path / "b", None, "gfx942", emulation=object(), with_cpu=True)  # type: ignore[arg-type]
    assert {check.name for check in checks} > CHECKS
    assert {check.name for check in checks if not check.is_right} == (CHECKS if fault else set())
