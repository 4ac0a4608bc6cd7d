"""One compile an output at a time: who comes second is told at once, and nobody clears away what is still in use."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from amdnfs_runtime.errors import UsageError

from amdnfs_compile.locks import locked_output, take_lock


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def try_in_another_process(path: Path) -> bool:
    """Whether a process of its own gets the lock at `path`."""
    code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    return (
        subprocess.run([sys.executable, "-c", code, str(path)], stderr=subprocess.DEVNULL, check=False).returncode == 0
    )


def test_the_second_is_told_at_once_what_to_do(tmp_path: Path, own_temporary_folder: Path) -> None:
    final = tmp_path / "out" / "m.amdnfs"
    with locked_output(final):
        with pytest.raises(UsageError) as error, locked_output(final):
            pytest.fail("must not begin")
        assert [try_in_another_process(path) for path in own_temporary_folder.iterdir()] == [False]
    assert str(error.value) == (
        f"{final} is being written by another compile; wait until that has ended, or choose another place with -o"
    )
    assert error.value.exit_code == 2
    with locked_output(final):
        pass


def test_an_output_is_the_same_under_another_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with locked_output(tmp_path / "m.amdnfs"):
        with pytest.raises(UsageError), locked_output(tmp_path / "link" / "m.amdnfs"):
            pytest.fail("must not begin")
        with locked_output(tmp_path / "other.amdnfs"):
            pass


def test_nothing_is_left_behind(tmp_path: Path, own_temporary_folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked_output(tmp_path / "m.amdnfs"):
        assert len(list(own_temporary_folder.iterdir())) == 1
        raise ZeroDivisionError
    assert list(own_temporary_folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [own_temporary_folder]


def test_a_lock_that_nobody_can_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(UsageError) as error, locked_output(tmp_path / "m.amdnfs"):
        pytest.fail("must not begin")
    assert str(error.value).startswith(f"cannot lock {tempfile.tempdir}/amdnfs-")
    assert str(error.value).endswith(
        ".lock: its file system has no flock (No locks available); set TMPDIR to a folder of a local disk"
    )


def test_a_lock_file_that_was_removed_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    path, real, removed = tmp_path / "a.lock", fcntl.flock, []

    def remove_first(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(path.unlink())
        real(descriptor, operation)

    monkeypatch.setattr("fcntl.flock", remove_first)
    lock = take_lock(path)
    assert lock is not None
    assert not try_in_another_process(path)
    os.close(lock)
    assert try_in_another_process(path)


def test_a_lock_file_can_be_read_by_other_users(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        lock = take_lock(tmp_path / "a.lock")
    finally:
        os.umask(before)
    assert lock is not None
    os.close(lock)
    assert (tmp_path / "a.lock").stat().st_mode & 0o777 == 0o644


def test_a_symbolic_link_is_no_lock_file(tmp_path: Path) -> None:
    (tmp_path / "a.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        take_lock(tmp_path / "a.lock")
    assert not (tmp_path / "precious").exists()
