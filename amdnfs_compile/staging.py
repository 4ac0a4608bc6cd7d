"""Writes a bundle so that it is there whole or not at all.

Everything is made in a hidden folder beside the final place and swapped in with one system call; a bundle that was
there before stays usable until then. A lock file beside the hidden folder is locked as long as the process lives:

    .m.amdnfs.partial-0123456789abcdef         becomes the bundle
    .m.amdnfs.partial-0123456789abcdef.lock    locked: somebody is at work; free: that process was killed

What a killed process left is removed by the next one. Where the file system knows no locks, it stays.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amdnfs_runtime.bundle import MANIFEST, FileEntry, Manifest, file_entry, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError

from amdnfs_compile.locks import LockUnavailableError, busy_output, take_lock

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_entries: dict[tuple[int, int, int, int], FileEntry] = {}
_PLACE_ERRORS = (errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC, errno.EPERM, errno.EROFS)


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Gives an empty folder that becomes `final` when the block ends well, and vanishes when it does not.

    Raises:
        UsageError: If `final` exists and is not a bundle, it cannot be written, or somebody else is writing it.
    """
    require_bundle_place(final)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        staging, lock = _make_staging(final)
    except OSError as error:
        reason = "it is a file" if final.parent.is_file() else error.strerror
        raise UsageError(f"cannot write to {final.parent}: {reason}; choose another place with -o") from error
    try:
        _remove_abandoned(final, staging)
        yield staging
        _swap(staging, final)
    except OSError as error:
        if error.errno not in _PLACE_ERRORS:
            raise
        raise UsageError(f"cannot write {final}: {error}; choose another place with -o") from error
    finally:
        _remove_staging(staging, lock)


def require_bundle_place(final: Path) -> None:
    """Checks that nothing but a bundle, or an empty folder, is at `final`.

    Raises:
        UsageError: If something else is there.
    """
    if final.resolve() == Path.cwd() or final.is_mount():
        raise UsageError(
            f"{final} is the current folder or a mount point, which cannot be replaced; name a folder in it"
        )
    if final.exists() and not (final / MANIFEST).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise UsageError(f"{final} exists and is not a bundle; choose another place with -o")


def damaged_files(bundle: Path, manifest: Manifest, source: Path) -> set[str]:
    """Names of files that are missing or altered; weights that are the very files of the model at `source` are not."""
    damaged = set()
    for name in manifest.files:
        original, placed = source / Path(name).name, bundle / name
        if name.startswith("weights/") and original.is_file() and placed.is_file() and original.samefile(placed):
            continue
        try:
            verify_files(bundle, manifest, [name])
        except ArtifactError:
            damaged.add(name)
    return damaged


def link_tree(source: Path, target: Path, names: list[str]) -> None:
    """Hard-links (else copies) the files `names` of one bundle into another."""
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, place)
        except OSError:
            shutil.copyfile(source / name, place)


def cached_entry(path: Path) -> FileEntry:
    """Size and digest of a file, read once a process: a shard and the hard link to it in a bundle are one file."""
    state = path.stat()
    key = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _entries:
        _entries[key] = file_entry(path)
    return _entries[key]


def list_files(folder: Path, known: dict[str, FileEntry]) -> dict[str, FileEntry]:
    """Size and digest of every file below `folder` but the manifest; `known` ones are not read again."""
    names = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST
    )
    return {name: known.get(name) or cached_entry(folder / name) for name in names}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest last: without it the folder is no bundle."""
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _make_staging(final: Path) -> tuple[Path, int | None]:
    """A new hidden folder and the descriptor of its lock, None where there are no locks.

    The lock comes first, so that nobody can take the folder for an abandoned one.
    """
    while True:
        staging = final.parent / f".{final.name}.partial-{secrets.token_hex(8)}"
        lock = None
        with suppress(LockUnavailableError):
            lock = take_lock(_lock_of(staging))
            if lock is None:  # somebody who clears away was faster
                continue
        try:
            staging.mkdir()
        except BaseException:
            _remove_staging(staging, lock)
            raise
        return staging, lock


def _remove_staging(staging: Path, lock: int | None) -> None:
    shutil.rmtree(staging, ignore_errors=True)
    with suppress(OSError):
        _lock_of(staging).unlink()
    if lock is not None:
        os.close(lock)


def _lock_of(staging: Path) -> Path:
    return staging.with_name(f"{staging.name}.lock")


def _remove_abandoned(final: Path, own: Path) -> None:
    """Removes the folders of dead processes.

    Raises:
        UsageError: If another one is alive: on another machine, or with another folder for temporary files.
    """
    pattern = re.compile(re.escape(f".{final.name}.partial-") + r"[0-9a-f]{16}")
    found = {path.name.removesuffix(".lock") for path in final.parent.iterdir()}
    for name in sorted(found - {own.name}):
        if not pattern.fullmatch(name):
            continue
        with suppress(LockUnavailableError, PermissionError):  # who cannot be asked, for instance another user's, stays
            lock = take_lock(_lock_of(final.parent / name))
            if lock is None:
                raise busy_output(final)
            _remove_staging(final.parent / name, lock)


def _swap(staging: Path, final: Path) -> None:
    """Puts `staging` at `final`; what was there ends up at `staging`."""
    if not final.exists():
        staging.rename(final)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        code = libc.renameat2(_AT_FDCWD, bytes(staging), _AT_FDCWD, bytes(final), _RENAME_EXCHANGE)
        if code == 0:
            return
    # File systems without an exchange: two renames, with the old bundle kept until the new one is in place.
    old = staging.with_name(staging.name + ".old")
    final.rename(old)
    try:
        staging.rename(final)
    except BaseException:
        old.rename(final)
        raise
    shutil.rmtree(old, ignore_errors=True)
