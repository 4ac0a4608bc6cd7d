"""Compiler processes end at once when a compile is given up, whatever the reason."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from amdnfs_runtime.errors import LoweringError
from amdnfs_targets import get_target

from amdnfs_compile.lower import lower_module
from amdnfs_compile.processes import CompilerProcesses, CompileStopped

SLEEP = ["sleep", "90"]
LIMIT_S = 30.0
"""How long something may take that should be at once, on a machine that is very busy."""


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def is_alive(pid: str) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(processes: CompilerProcesses, folder: Path, command: list[str]) -> tuple[threading.Thread, list[object]]:
    """Runs a command in a thread; what came of it is in the list."""
    outcome: list[object] = []

    def work() -> None:
        try:
            outcome.append(processes.run(command, folder, dict(os.environ)))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, outcome


def test_a_process_that_ends_by_itself(tmp_path: Path) -> None:
    code = "import os, sys; print(os.getcwd()); print('why', file=sys.stderr); sys.exit(3)"
    done = CompilerProcesses().run([sys.executable, "-c", code], tmp_path, {})
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path}\n", "why\n")


def test_stopping_kills_all_and_lets_none_start(tmp_path: Path) -> None:
    processes = CompilerProcesses()
    begin = time.monotonic()
    # As the script iree-compile does: a process that starts another one and waits for it.
    command = ["sh", "-c", "sleep 90 & echo $$ $! > new-$$; mv new-$$ pids-$$; wait"]
    started = [start(processes, tmp_path, command) for _ in range(2)]
    wait_for(lambda: len(list(tmp_path.glob("pids-*"))) == 2)
    processes.stop()
    for thread, outcome in started:
        thread.join(LIMIT_S)
        assert isinstance(outcome[0], CompileStopped)
    pids = [pid for path in tmp_path.iterdir() for pid in path.read_text().split()]
    assert len(pids) == 4
    wait_for(lambda: not any(is_alive(pid) for pid in pids))
    with pytest.raises(CompileStopped):
        processes.run(SLEEP, tmp_path, dict(os.environ))
    assert time.monotonic() - begin < 80


def test_an_interrupt_while_waiting_kills_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupt(self: subprocess.Popen[str], *_: object) -> None:
        started.append(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        CompilerProcesses().run(SLEEP, tmp_path, dict(os.environ))
    assert started[0].returncode == -signal.SIGKILL


def fake_compiler(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a shell script in the place of iree-compile."""
    folder.mkdir()
    (folder / "iree-compile").write_text(f"#!/bin/sh\nfor output; do :; done\n{script}\n")
    (folder / "iree-compile").chmod(0o755)
    monkeypatch.setattr("sysconfig.get_path", lambda _name: str(folder))


def test_half_a_program_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", 'echo half > "$output"; echo "error: no luck" >&2; exit 1', monkeypatch)
    work = tmp_path / "work"
    with pytest.raises(LoweringError, match="no luck"):
        lower_module(b"", get_target("gfx942"), work)
    assert [path.name for path in work.iterdir()] == ["0-linalg.mlirbc"]


@pytest.mark.parametrize("end", ["kill -SEGV $$", "exit 245"])
def test_a_crash_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    fake_compiler(tmp_path / "bin", end, monkeypatch)
    with pytest.raises(
        LoweringError, match=r"iree-compile was killed by signal 11 \(it crashed or ran out of memory\)"
    ):
        lower_module(b"", get_target("gfx942"), tmp_path / "work")


def test_a_stopped_lowering_tries_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_compiler(tmp_path / "bin", "echo run >> runs; exec sleep 90", monkeypatch)
    target = get_target("gfx90a")
    assert target.fallback_flags, "else there is nothing to try"
    processes, work, outcome = CompilerProcesses(), tmp_path / "work", list[BaseException]()

    def lower() -> None:
        try:
            lower_module(b"", target, work, processes)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=lower)
    thread.start()
    wait_for(lambda: (work / "runs").is_file() and bool((work / "runs").read_text()))
    processes.stop()
    thread.join(LIMIT_S)
    assert isinstance(outcome[0], CompileStopped)
    assert (work / "runs").read_text() == "run\n"
