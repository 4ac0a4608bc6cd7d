"""Locks between processes: who writes to an output now, and whether the owner of a folder is still alive.

All of them are `flock` locks. The kernel gives them back when their process ends, however it ends, so that there are no
left-over locks to clear away.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from amdnfs_runtime.errors import UsageError

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems without `flock` answer, such as Lustre with its default options."""


class LockUnavailableError(Exception):
    """The file system of a lock file knows no locks."""


@contextmanager
def locked_output(final: Path) -> Iterator[None]:
    """Keeps other compiles on this machine from writing to `final`, under whatever name they know it.

    The lock file is in the folder for temporary files, named after a digest of the resolved path; nothing appears
    beside the output.

    Raises:
        UsageError: At once, if another compile writes to `final`, or if no lock can be taken.
    """
    digest = hashlib.sha256(os.fsencode(final.resolve())).hexdigest()
    path = Path(tempfile.gettempdir()) / f"amdnfs-{digest[:32]}.lock"
    try:
        lock = take_lock(path)
    except (OSError, LockUnavailableError) as error:
        raise UsageError(f"cannot lock {path}: {error}; set TMPDIR to a folder of a local disk") from error
    if lock is None:
        raise busy_output(final)
    try:
        yield
    finally:
        with suppress(OSError):  # the file is another user's: it stays, unlocked
            path.unlink()
        os.close(lock)


def busy_output(final: Path) -> UsageError:
    """The error of a compile whose output another one is writing."""
    return UsageError(
        f"{final} is being written by another compile; wait until that has ended, or choose another place with -o"
    )


def take_lock(path: Path) -> int | None:
    """Locks the file at `path`, which is made if need be.

    Returns:
        A file descriptor, whose closing gives the lock back; None if another process has the lock.

    Raises:
        LockUnavailableError: If the file system knows no locks.
        OSError: If the file can be neither made nor opened.
    """
    while True:
        descriptor = _open(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(descriptor, path):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            os.close(descriptor)
            if error.errno in _NO_LOCKS:
                raise LockUnavailableError(f"its file system has no flock ({error.strerror})") from error
            raise
        os.close(descriptor)  # the one who had the lock has removed the file meanwhile


def _open(path: Path) -> int:
    """Opens or makes a lock file that other users can lock, too; never through a symbolic link."""
    while True:
        with suppress(FileNotFoundError):
            return _open_existing(path)
        # O_EXCL: Linux may forbid O_CREAT alone on another user's file in a folder like /tmp (fs.protected_regular).
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
            os.fchmod(descriptor, 0o644)  # whatever the umask: who cannot read the file cannot see that it is locked
            return descriptor


def _open_existing(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
