"""A compile in a process of its own that is stopped, or met by a second one, while IREE's compiler runs."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 120.0
SLEEP = '#!/bin/sh\nsleep 600 &\necho $$ $! > "$PIDS/$$.new" && mv "$PIDS/$$.new" "$PIDS/$$.pid"\nwait\n'
"""Stands in for iree-compile: starts another process, says so, and does not end by itself."""


@pytest.fixture
def compile_process(twin: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A compile for two targets at once to `out/m.amdnfs`, when both of its compilers run."""
    for name in ("bin", "pids", "temporary", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "bin" / "iree-compile").write_text(SLEEP.replace("$PIDS", str(tmp_path / "pids")))
    (tmp_path / "bin" / "iree-compile").chmod(0o755)
    code = (
        f"import sys, sysconfig, tempfile; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
        f"tempfile.tempdir = {str(tmp_path / 'temporary')!r}\n"
        "from amdnfs_compile.cli.main import compile_main\n"
        f"sysconfig.get_path = lambda name: {str(tmp_path / 'bin')!r}\n"
        "compile_main()"
    )
    arguments = [str(twin), "--target", "cpu", "--target", "cpu-x86-64-v3", "--jobs", "2"]
    arguments += ["--prefill-chunks", "16", "--decode-batches", "1", "-o", str(tmp_path / "out" / "m.amdnfs")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + LIMIT_S
    while len(list((tmp_path / "pids").glob("*.pid"))) < 2 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    yield process
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT_S)


def is_alive(process: Path) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_compilers_die_with_the_compile(
    compile_process: subprocess.Popen[str], tmp_path: Path, number: signal.Signals
) -> None:
    pids = [pid for path in (tmp_path / "pids").glob("*.pid") for pid in path.read_text().split()]
    compilers = [Path("/proc") / pid for pid in pids]
    assert len(compilers) == 4
    assert all(path.exists() for path in compilers)
    compile_process.send_signal(number)
    out, err = compile_process.communicate(timeout=LIMIT_S)
    assert (compile_process.returncode, out) == (130, "")
    assert err.endswith("interrupted; no bundle was changed\n")
    assert not any(is_alive(path) for path in compilers)
    assert list((tmp_path / "out").iterdir()) == []
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_second_compile_to_the_same_output(
    compile_process: subprocess.Popen[str],
    run_cli: Callable[..., Any],
    twin: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "out" / "m.amdnfs"
    # The second one has the same folder for temporary files; then another, as on another machine.
    for folder in ("temporary", "pids"):
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / folder))
        done = run_cli("amdnfs-compile", twin, "--target", "cpu", "-o", output)
        assert (done.code, done.out) == (2, "")
        assert done.err.splitlines()[-1] == (
            f"error: {output} is being written by another compile; wait until that has ended, or choose another place "
            "with -o"
        )
    assert compile_process.poll() is None
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len(names) == 2
    assert all(name.startswith(".m.amdnfs.partial-") for name in names)


def test_a_command_under_nohup_outlives_its_terminal(run_cli: Callable[..., Any]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_cli("amdnfs", "--version").code == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
