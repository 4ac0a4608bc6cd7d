"""Runs entry points step by step with given arguments: here, or in a process of its own on a stand-in HIP library.

What executes AMD machine code on the CPU reads its settings once a process, and IREE chooses its HIP library once a
process, too. So each emulation has a process: it gets its settings as environment, cannot bring the caller down, and
is killed when a call takes too long. Text generation is not done here; see `engine.py`.

    EmulatedSteps  --pickled requests over a pipe-->  python -m amdnfs_runtime.execution FD  -->  LocalSteps
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy.typing as npt

from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE, Program
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, CapacityError, UsageError
from amdnfs_runtime.tracing import Tensors, TracedSteps

LIBRARY = "libamdhip64.so"
VARIABLES = "AMDNFS_EMULATE_"
"""Prefix of the environment variables that the emulator reads."""
DEVICE_VARIABLE = f"{VARIABLES}TARGET"
"""Names the chip that it stands for: it takes no other code, as a chip does not."""
_END_TIMEOUT_S = 5
_DRIVER_ERROR = re.compile(
    r"HIP driver error '\w+' \(\d+\): (.*?)(?:; (?:mismatched target chip|while ).*)?$", re.DOTALL
)
"""What the emulator said, among what IREE adds to it."""
_LAST_BYTES = 4000
_PR_SET_PDEATHSIG = 1


class Steps(Protocol):
    """A loaded program with its pools."""

    def step(self, name: str, arguments: Arguments) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Runs one entry point: greedy tokens `[batch]` int64 and logits `[batch, vocab]` f32, on the host.

        Raises:
            ArtifactError: If the device fails.
        """


class LocalSteps:
    """Runs a program in this process."""

    def __init__(self, bundle: Path, manifest: Manifest, target: str, num_pages: int) -> None:
        """Loads the program and makes zeroed pools of `num_pages` pages.

        Raises:
            ArtifactError: If the device refuses the program.
            CapacityError: If the memory does not hold the pools.
        """
        self._program = Program(bundle, manifest, target)
        self._names = {point.name for point in manifest.targets[target].entry_points}
        self._pools: list[Any] = self._program.make_pools(manifest, num_pages)

    def step(self, name: str, arguments: Arguments) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """See `Steps.step`."""
        if name not in self._names:
            raise ArtifactError(f"the program for {self._program.target_name} has no entry point {name}")
        greedy, logits, self._pools = self._program.call(name, *arguments, self._pools)
        return self._program.read(greedy).copy(), self._program.read(logits).copy()


@dataclass(frozen=True, kw_only=True, slots=True)
class Emulation:
    """Which stand-in library, and how it runs."""

    library: Path
    """Folder that holds `libamdhip64.so`."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Environment of the process, e.g. `AMDNFS_EMULATE_COUNTERS`; beside that of this process."""
    timeout_s: float = 3600.0
    """Longest time of one call, in seconds; the process is killed after it."""


class EmulatedSteps:
    """Runs a hip program in a process of its own. Use it in a `with` statement, which ends the process."""

    def __init__(
        self, bundle: Path, target: str, num_pages: int, emulation: Emulation, traced: Path | None = None
    ) -> None:
        """Starts the process and loads the program there.

        Args:
            bundle: The bundle.
            target: Its target.
            num_pages: Pages of the pools.
            emulation: How to emulate.
            traced: A program with traces to run instead of the target's own; see `tracing.py`.

        Raises:
            ArtifactError: If the library is missing, or it refuses the program: a damaged code object, an unknown gfx.
            CapacityError: If the memory does not hold the pools.
        """
        if not (emulation.library / LIBRARY).is_file():
            raise ArtifactError(f"{emulation.library}: that folder has no {LIBRARY}")
        self._target, self._timeout_s = target, emulation.timeout_s
        entry = read_manifest(bundle).targets.get(target)
        self.tensors: Tensors = {}
        """What the last step traced."""
        self._process, self._connection, self._log = _start(emulation, None if entry is None else entry.gfx)
        try:
            self._ask("loading", "load", str(bundle), target, num_pages, None if traced is None else str(traced))
        except BaseException:
            self.close()
            raise

    def step(self, name: str, arguments: Arguments) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """See `Steps.step`; the message of a fault names kernel, instruction and address."""
        greedy, logits, self.tensors = self._ask(name, "step", name, arguments)
        return greedy, logits

    def _ask(self, what: str, *request: Any) -> Any:
        where = f"the program for {self._target} on the emulator"
        try:
            self._connection.send(request)
            if not self._connection.poll(self._timeout_s):
                self.close()
                raise ArtifactError(f"{where}: {what} took more than {self._timeout_s:g} s, and was stopped")
            error, value = self._connection.recv()
        except (EOFError, OSError) as lost:
            status = self._process.wait(_END_TIMEOUT_S)
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise ArtifactError(f"{where}: its process {how} while {what}{self._last_words()}") from lost
        if error is not None:
            stopped = _DRIVER_ERROR.search(value)
            raise _ERRORS[error](f"{where}: {what}: {stopped[1]}" if stopped else value)
        return value

    def _last_words(self) -> str:
        """The last line that the process printed, if it printed any."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LAST_BYTES))
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def close(self) -> None:
        """Ends the process, whatever it does."""
        self._connection.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(_END_TIMEOUT_S)
        self._log.close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process."""
        self.close()


_ERRORS: Mapping[str, type[AmdnfsError]] = {kind.__name__: kind for kind in (ArtifactError, CapacityError, UsageError)}


def _start(emulation: Emulation, gfx: str | None) -> tuple[subprocess.Popen[bytes], Connection, Any]:
    """The process, our end of its pipe, and the file that takes what it prints; it takes code for `gfx` only."""
    ours, theirs = multiprocessing.Pipe()
    log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
    environment = {
        **({DEVICE_VARIABLE: gfx} if gfx else {}),
        **os.environ,
        **emulation.settings,
        HIP_DYLIB_VARIABLE: str(emulation.library),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "amdnfs_runtime.execution", str(theirs.fileno())],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return process, ours, log


def _serve(connection: Connection) -> None:
    """Answers requests `(what, arguments...)` with `(class of the error or None, value or message)` until the end."""
    steps: list[Steps] = []

    def load(bundle: str, target: str, num_pages: int, traced: str | None) -> None:
        manifest = read_manifest(Path(bundle))
        if traced is None:
            steps[:] = [LocalSteps(Path(bundle), manifest, target, num_pages)]
        else:
            steps[:] = [TracedSteps(Path(bundle), manifest, target, Path(traced), num_pages)]

    def step(name: str, arguments: Arguments) -> Any:
        greedy, logits = steps[0].step(name, arguments)
        return greedy, logits, getattr(steps[0], "tensors", {})

    known: Mapping[str, Callable[..., Any]] = {"load": load, "step": step}
    while True:
        try:
            what, *values = connection.recv()
        except EOFError:
            return
        try:
            connection.send((None, known[what](*values)))
        except AmdnfsError as error:
            connection.send((type(error).__name__, str(error)))


def _main() -> None:
    # Ctrl-C is the caller's to answer, who then ends this process; and nothing is left if the caller is killed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _serve(Connection(int(sys.argv[1])))
    os._exit(0)  # the device may still have threads that wait


if __name__ == "__main__":
    _main()
