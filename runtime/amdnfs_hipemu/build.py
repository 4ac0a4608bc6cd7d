"""Builds the emulator's library with the system's C compiler, once for each version of the sources and compiler.

The result lies in a cache folder named by a digest of the sources, the instruction tables, the compiler and the
processor's features (the code is compiled for this processor). Builds are atomic: a folder that exists is complete. A
build that adds one removes all but the few used last.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARY = "libamdhip64.so"
CACHE_VARIABLE = "AMDNFS_EMULATE_CACHE"
"""Folder for built libraries; default `$XDG_CACHE_HOME/amdnfs/hipemu`, else `~/.cache/amdnfs/hipemu`."""
COMPILER_VARIABLE = "AMDNFS_EMULATE_CC"
"""C compiler; default the first of `gcc`, `cc`, `clang` on PATH."""

TABLES_PACKAGE = "tinygrad"
TABLES_VERSION = "0.14.0"
"""The instruction tables are read from this package, whose layout is its own affair: other versions are refused."""

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = (
    "-std=gnu11",
    "-O3",
    "-march=native",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-frounding-math",
    "-Wall",
    "-Wextra",
)
_LINK_FLAGS = ("-shared", "-lm", "-lpthread")
_COMPILE_TIMEOUT_S = 300
_KEPT_BUILDS = 8
_BUILDING = "amdnfs-hipemu-building-"
_BUILT = re.compile(r"[0-9a-f]{32}")


class EmulatorError(RuntimeError):
    """The emulator cannot be built: no compiler, no instruction tables, or the compiler refused the sources."""

    exit_code: int = 6
    """Process exit code of a command that ends with this error."""


def library_folder() -> Path:
    """The folder that holds `libamdhip64.so`; builds it if this version is not in the cache.

    Raises:
        EmulatorError: If there is no C compiler, the instruction tables are missing or of another version, the cache
            folder cannot be written, or the compilation fails.
    """
    compiler = _find_compiler()
    _check_tables()
    folder = _cache_root() / _digest(compiler)
    if (folder / LIBRARY).is_file():
        with suppress(OSError):  # a cache that cannot be written serves as well
            os.utime(folder)
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / LIBRARY).is_file():
                _forget_old(folder.parent)
                _build(compiler, folder)
    except OSError as error:
        raise EmulatorError(
            f"cannot build the emulator in {folder.parent}: {error}; "
            f"name a folder that can be written in {CACHE_VARIABLE}"
        ) from error
    return folder


def why_not() -> str | None:
    """Why the emulator cannot be built here; None if there is a compiler and the instruction tables. Builds nothing."""
    try:
        _find_compiler()
        _check_tables()
    except EmulatorError as error:
        return str(error)
    return None


def _find_compiler() -> str:
    wanted = os.environ.get(COMPILER_VARIABLE)
    found = next(
        (path for name in ([wanted] if wanted else ["gcc", "cc", "clang"]) if (path := shutil.which(name))), None
    )
    if found is None:
        names = repr(wanted) if wanted else "gcc, cc or clang"
        raise EmulatorError(
            f"the emulator needs a C compiler, and there is no {names} on PATH; "
            f"install gcc or name a compiler in {COMPILER_VARIABLE}"
        )
    return found


def _check_tables() -> None:
    try:
        found = version(TABLES_PACKAGE)
    except PackageNotFoundError as error:
        raise EmulatorError(
            f"the emulator reads its instruction tables from the package {TABLES_PACKAGE}, which is not installed; "
            "pip install 'amdnfs[emulate]'"
        ) from error
    if found != TABLES_VERSION:
        raise EmulatorError(
            f"the emulator reads its instruction tables from {TABLES_PACKAGE} {TABLES_VERSION}, but {found} is "
            "installed; pip install 'amdnfs[emulate]'"
        )


def _cache_root() -> Path:
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "amdnfs" / "hipemu"


def _processor_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def _digest(compiler: str) -> str:
    """Names a build: whatever can change the library is in it."""
    digest = hashlib.sha256()
    for path in sorted(
        [*_SOURCES.iterdir(), *Path(__file__).parent.glob("*.py"), *Path(__file__).parent.glob("*.txt")]
    ):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    try:
        banner = subprocess.run([compiler, "--version"], capture_output=True, check=False, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmulatorError(
            f"the C compiler {compiler} cannot be run: {error}; name another one in {COMPILER_VARIABLE}"
        ) from error
    digest.update(banner + " ".join(_FLAGS).encode() + _processor_features().encode() + TABLES_VERSION.encode())
    return digest.hexdigest()[:32]


def _forget_old(root: Path) -> None:
    """Removes builds that were used before the last few, and what builds left that were killed. The lock is held.

    The folder may hold other things, too: only what has the names that are given here is touched.
    """
    for left in root.glob(f"{_BUILDING}*"):
        shutil.rmtree(left, ignore_errors=True)
    folders = [folder for folder in root.iterdir() if _BUILT.fullmatch(folder.name) and (folder / LIBRARY).is_file()]
    for folder in sorted(folders, key=lambda folder: folder.stat().st_mtime, reverse=True)[_KEPT_BUILDS - 1 :]:
        (folder / LIBRARY).unlink(missing_ok=True)
        with suppress(OSError):  # it holds something else
            folder.rmdir()


def _build(compiler: str, folder: Path) -> None:
    """Compiles in a folder beside the final one, which it then becomes."""
    from amdnfs_hipemu.instruction_tables import write_tables

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_BUILDING) as scratch:
        work = Path(scratch)
        write_tables(work / "opcode_tables.inc")
        result = work / "result"
        result.mkdir()
        sources = sorted(_SOURCES.glob("*.c"))
        objects = [work / f"{source.stem}.o" for source in sources]
        with ThreadPoolExecutor(max_workers=len(os.sched_getaffinity(0))) as pool:
            jobs = [
                pool.submit(_compile, [compiler, *_FLAGS, f"-I{work}", "-c", str(source), "-o", str(built)])
                for source, built in zip(sources, objects, strict=True)
            ]
            for job in jobs:
                job.result()
        _compile([compiler, *map(str, objects), *_LINK_FLAGS, "-o", str(result / LIBRARY)])
        result.rename(folder)


def _compile(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_COMPILE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise EmulatorError(f"{command[0]} took more than {_COMPILE_TIMEOUT_S} s for {command[-3]}") from error
    if done.returncode != 0:
        first = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:300])
        reason = first or f"it ended with code {done.returncode} and no message"
        raise EmulatorError(f"{command[0]} cannot build the emulator: {reason}; set {COMPILER_VARIABLE} to a newer gcc")
