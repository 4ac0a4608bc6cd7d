"""Programs whose output nobody reads, or cannot be written: what they do, and the code they end with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pytest

from amdnfs_compile import compiler
from amdnfs_compile.cli import main, verify
from amdnfs_compile.verify import Check
from tests.report_bundle import make_bundle

Run = Callable[..., int]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a program with other streams; its exit code."""

    def run_with(program: Callable[[], None], *arguments: object, **streams: TextIO) -> int:
        monkeypatch.setattr(sys, "argv", ["amdnfs", *map(str, arguments)])
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as stopped:
            program()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code

    return run_with


@pytest.fixture
def unread() -> Iterator[TextIO]:
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        yield stream


@pytest.fixture
def full() -> Iterator[TextIO]:
    """A full disk."""
    with open("/dev/full", "w", encoding="utf-8") as stream:
        yield stream


def _budget(path: Path, dispatches: int) -> Path:
    limits = {"gfx942": {"prefill_16": {"dispatches": dispatches}}}
    path.write_text(json.dumps({"format": "amdnfs-budget", "version": 1, "context_tokens": 64, "targets": limits}))
    return path


@pytest.mark.parametrize("streams", [("stderr",), ("stdout",), ("stdout", "stderr")])
def test_a_compile_goes_on_when_nobody_reads(
    run: Run, unread: TextIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streams: tuple[str, ...]
) -> None:
    def compile_slowly(
        _model: str, _targets: object, _output: object, _options: object, progress: Any, _: object
    ) -> Path:
        for number in range(3):
            progress("lower", f"target {number}")
        (tmp_path / "made").touch()
        return tmp_path

    monkeypatch.setattr(compiler, "compile_model", compile_slowly)
    code = run(main.compile_main, "model", "--target", "cpu", **dict.fromkeys(streams, unread))
    assert (code, (tmp_path / "made").exists()) == (0, True)


def test_an_error_that_nobody_reads_keeps_its_code(run: Run, unread: TextIO, full: TextIO, tmp_path: Path) -> None:
    for stream in (unread, full):
        assert run(main.main, "inspect", tmp_path / "none", stderr=stream) == 6
        assert run(main.main, "inspect", stderr=stream) == 2


@pytest.mark.parametrize(("dispatches", "code"), [(5, 0), (4, 7)])
def test_a_report_that_nobody_reads_is_checked_and_written(
    run: Run, unread: TextIO, tmp_path: Path, dispatches: int, code: int
) -> None:
    bundle, page = make_bundle(tmp_path / "b"), tmp_path / "page.html"
    budget = _budget(tmp_path / "budget.json", dispatches)
    assert run(main.main, "report", bundle, "--budget", budget, "--html", page, stdout=unread) == code
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_a_full_disk_does_not_hide_that_a_budget_is_exceeded(run: Run, full: TextIO, tmp_path: Path) -> None:
    budget = _budget(tmp_path / "budget.json", 4)
    assert run(main.main, "report", make_bundle(tmp_path / "b"), "--budget", budget, stdout=full) == 7


@pytest.mark.parametrize("arguments", [("report",), ("report", "--json"), ("inspect",), ("inspect", "--json")])
def test_a_full_disk_is_told_in_one_line(
    run: Run, full: TextIO, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(main.main, arguments[0], make_bundle(tmp_path / "b"), *arguments[1:], stdout=full) == 2
    assert capsys.readouterr().err == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("broken", ["unread", "full"])
def test_wrong_logits_are_told_though_nobody_reads_the_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, broken: str
) -> None:
    wrong = Check(name="prefill", against="transformers", error=9.0, tolerance=0.1, same_argmax=0.0)
    monkeypatch.setattr(verify, "_compare", lambda *_: ([wrong], "cpu"))
    assert run(main.main, "verify", make_bundle(tmp_path / "b"), stdout=request.getfixturevalue(broken)) == 6


def test_an_exit_keeps_its_code(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def leave(*_: object) -> None:
        raise SystemExit(3)

    monkeypatch.setattr(compiler, "compile_model", leave)
    assert run(main.compile_main, "model", "--target", "cpu") == 3


def test_a_broken_pipe_elsewhere_is_no_success(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leave(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(compiler, "compile_model", leave)
    assert run(main.compile_main, "model", "--target", "cpu") == 1
    assert capsys.readouterr().err == "error: ended early with code 1; was a pipe to another program closed?\n"
