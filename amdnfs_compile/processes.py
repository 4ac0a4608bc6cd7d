"""The compiler processes of one compile, so that all of them can be stopped at once."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class CompileStopped(Exception):  # noqa: N818 - it is no error: another one, or the user, has ended the compile
    """Ends the work on a target whose compile was given up; the reason for that is what users see."""


class CompilerProcesses:
    """Runs processes from several threads, until somebody stops them all.

    A thread that waits for a process cannot be interrupted, but the process can be killed: `stop` is how the thread
    that was interrupted, or that saw one target fail, ends the work of the others. Each process leads a group of its
    own, because killing it alone is not enough: `iree-compile` of the Python package is a script that starts the
    compiler, and that starts a linker.
    """

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()
        self._is_stopped = False

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Runs `command` in `folder` to its end and returns its status and what it printed.

        Raises:
            CompileStopped: If `stop` was called, before or meanwhile.
        """
        with self._lock:  # so that no process starts unseen while the others are stopped
            if self._is_stopped:
                raise CompileStopped
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                process_group=0,
            )
            self._running.add(process)
        try:
            out, err = _finish(process)
        finally:
            with self._lock:
                self._running.discard(process)
        if self._is_stopped:
            raise CompileStopped
        return subprocess.CompletedProcess(list(command), process.returncode, out, err)

    def stop(self) -> None:
        """Kills every process and lets none start again; does not wait for them."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                _kill_group(process)


def _finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Waits for a process and returns what it printed; kills it if the wait is interrupted."""
    with process:
        try:
            return process.communicate()
        except BaseException:
            _kill_group(process)
            raise


def _kill_group(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
