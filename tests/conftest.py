"""Shared fixtures: a tiny model, its bundle, the command line in this process, and golden files."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

_EMULATOR = pytest.StashKey[str]()
GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the files in tests/golden anew")


def pytest_configure(config: pytest.Config) -> None:
    """Lets the tests of AMD programs use our own emulator, built once, unless another library is named.

    It happens before tests are collected: they are skipped if there is none.
    """
    from amdnfs_hipemu import EmulatorError, library_folder
    from amdnfs_runtime.device import HIP_DYLIB_VARIABLE

    try:
        named = os.environ.setdefault(HIP_DYLIB_VARIABLE, "") or str(library_folder())
    except EmulatorError as error:
        named = ""
        config.stash[_EMULATOR] = f"none: {error}"
    else:
        config.stash[_EMULATOR] = named
    os.environ[HIP_DYLIB_VARIABLE] = named


def pytest_report_header(config: pytest.Config) -> str:
    """Says which library executes AMD programs."""
    return f"emulator: {config.stash[_EMULATOR]}"


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compares a text with a file in tests/golden, or writes the file."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text, f"{name} differs; if it should, run pytest --update-golden"

    return check


@pytest.fixture(scope="session")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny llama with random weights as a Hugging Face folder; not to be changed."""
    from tests.twins import make_twin

    return make_twin("llama", tmp_path_factory.mktemp("models") / "twin")


@pytest.fixture(scope="session")
def bundle(twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The twin compiled for this CPU; not to be changed."""
    from amdnfs_compile import CompileOptions, compile_model

    output = tmp_path_factory.mktemp("bundles") / "twin.amdnfs"
    return compile_model(twin, ["cpu"], output, CompileOptions(prefill_chunks=(16,), decode_batches=(1, 4)))


@pytest.fixture
def fresh_twin(twin: Path, tmp_path: Path) -> Path:
    """A copy of the twin that a test may damage."""
    return Path(shutil.copytree(twin, tmp_path / "twin"))


@pytest.fixture
def fresh_bundle(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage; it shares no file with the original."""
    return Path(shutil.copytree(bundle, tmp_path / "twin.amdnfs"))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str


RunCli = Callable[..., Outcome]


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunCli:
    """Runs `amdnfs`, `amdnfs-compile` or `amdnfs-opt` in this process, through its entry point."""
    from amdnfs_compile.cli import main

    programs = {"amdnfs": main.main, "amdnfs-compile": main.compile_main, "amdnfs-opt": main.opt_main}

    def run(program: str, *arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # else help shows the name of pytest
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            programs[program]()
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Outcome(code=stopped.value.code, out=captured.out, err=captured.err)

    return run
