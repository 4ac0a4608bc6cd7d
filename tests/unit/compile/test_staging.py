"""A bundle is there whole or not at all, whatever ends the compile."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.errors import UsageError

from amdnfs_compile.locks import LockUnavailableError, take_lock
from amdnfs_compile.staging import damaged_files, link_tree, require_bundle_place, staged_folder


def make_bundle(path: Path, content: str) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(content)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_bundle_appears_at_the_end(tmp_path: Path) -> None:
    final = tmp_path / "new" / "folders" / "m.amdnfs"
    with staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
        assert not final.exists()
    assert names(final.parent) == ["m.amdnfs"]
    assert (final / "manifest.json").read_text() == "new"


def test_an_old_bundle_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    final = make_bundle(tmp_path / "m.amdnfs", "old")
    with staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
        assert (final / "manifest.json").read_text() == "old"
    assert (final / "manifest.json").read_text() == "new"
    assert names(tmp_path) == ["m.amdnfs"]


def test_without_an_exchange_of_folders_two_renames_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    final = make_bundle(tmp_path / "m.amdnfs", "old")
    with staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
    assert (final / "manifest.json").read_text() == "new"
    assert names(tmp_path) == ["m.amdnfs"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a bug"), SystemExit(1)])
def test_nothing_is_left_after_a_failure(tmp_path: Path, error: BaseException) -> None:
    final = make_bundle(tmp_path / "m.amdnfs", "old")

    def fail() -> None:
        with staged_folder(final) as folder:
            (folder / "manifest.json").write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert names(tmp_path) == ["m.amdnfs"]
    assert (final / "manifest.json").read_text() == "old"


def test_folders_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    final = tmp_path / "m[1].amdnfs"
    dead = make_bundle(tmp_path / ".m[1].amdnfs.partial-0123456789abcdef", "half")
    (tmp_path / f"{dead.name}.lock").touch()
    without_lock = make_bundle(tmp_path / ".m[1].amdnfs.partial-aaaaaaaaaaaaaaaa", "half")
    (tmp_path / ".m[1].amdnfs.partial-bbbbbbbbbbbbbbbb.lock").touch()
    kept = [".m1.amdnfs.partial-0123456789abcdef", ".m[1].amdnfs.partial-mine", ".m[1].amdnfs.old"]
    for name in kept:
        make_bundle(tmp_path / name, "not of this output")
    with staged_folder(final) as folder:
        assert not dead.exists()
        assert not without_lock.exists()
        assert names(tmp_path) == sorted([*kept, folder.name, f"{folder.name}.lock"])
    assert names(tmp_path) == sorted([*kept, final.name])


def test_a_folder_of_a_living_process_is_left_alone_and_means_to_wait(tmp_path: Path) -> None:
    final = make_bundle(tmp_path / "m.amdnfs", "old")
    with staged_folder(final) as first:
        (first / "manifest.json").write_text("new")
        with pytest.raises(UsageError) as error, staged_folder(final):
            pytest.fail("must not begin")
        assert names(tmp_path) == sorted([first.name, f"{first.name}.lock", "m.amdnfs"])
    assert str(error.value) == (
        f"{final} is being written by another compile; wait until that has ended, or choose another place with -o"
    )
    assert (final / "manifest.json").read_text() == "new"


def test_folders_of_two_processes_have_different_names(tmp_path: Path) -> None:
    found = set()
    for _ in range(3):
        with staged_folder(tmp_path / "m.amdnfs") as folder:
            found.add(folder.name)
    assert len(found) == 3


def test_where_there_are_no_locks_nothing_is_taken_for_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    other = make_bundle(tmp_path / ".m.amdnfs.partial-0123456789abcdef", "perhaps alive")
    (tmp_path / f"{other.name}.lock").touch()
    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.raises(LockUnavailableError, match=r"its file system has no flock \(Function not implemented\)"):
        take_lock(tmp_path / f"{other.name}.lock")
    with staged_folder(tmp_path / "m.amdnfs") as folder:
        (folder / "manifest.json").write_text("new")
    assert names(tmp_path) == sorted([other.name, f"{other.name}.lock", "m.amdnfs"])


def test_an_exchange_by_renames_that_fails_brings_the_old_bundle_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    final = make_bundle(tmp_path / "m.amdnfs", "old")
    rename = Path.rename

    def fail_once(self: Path, target: Path) -> Path:
        if target == final and "partial" in self.name and not self.name.endswith(".old"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(KeyboardInterrupt), staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
    assert names(tmp_path) == ["m.amdnfs"]
    assert (final / "manifest.json").read_text() == "old"


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_something_else_at_the_output_is_never_replaced(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "thesis"
    if kind == "file":
        final.write_text("precious")
    else:
        final.mkdir()
        (final / "chapter").write_text("precious")
    with pytest.raises(UsageError) as error:
        require_bundle_place(final)
    assert str(error.value) == f"{final} exists and is not a bundle; choose another place with -o"
    with pytest.raises(UsageError), staged_folder(final):
        pytest.fail("must not begin")
    assert names(tmp_path) == ["thesis"]


def test_an_empty_folder_at_the_output_is_filled(tmp_path: Path) -> None:
    final = tmp_path / "m.amdnfs"
    final.mkdir()
    with staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
    assert names(final) == ["manifest.json"]


def test_a_file_where_a_folder_of_the_output_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError) as error, staged_folder(tmp_path / "file" / "m.amdnfs"):
        pytest.fail("must not begin")
    assert str(error.value) == f"cannot write to {tmp_path / 'file'}: it is a file; choose another place with -o"


def test_an_output_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError) as error, staged_folder(tmp_path / "m.amdnfs"):
        pytest.fail("must not begin")
    assert str(error.value) == f"cannot write to {tmp_path}: Permission denied; choose another place with -o"


def test_a_disk_that_fills_up_on_the_way(tmp_path: Path) -> None:
    final = make_bundle(tmp_path / "m.amdnfs", "old")

    def fail() -> None:
        with staged_folder(final) as folder:
            (folder / "program").write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "program"))

    with pytest.raises(UsageError) as error:
        fail()
    assert str(error.value).startswith(f"cannot write {final}: [Errno 28] No space left on device: ")
    assert str(error.value).endswith("; choose another place with -o")
    assert names(tmp_path) == ["m.amdnfs"]


def test_other_errors_of_the_system_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "m.amdnfs"):
        (tmp_path / "absent").read_text()


def test_link_tree_shares_files_or_copies_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "weights").mkdir(parents=True)
    (tmp_path / "a" / "weights" / "w").write_text("1")
    link_tree(tmp_path / "a", tmp_path / "b", ["weights/w"])
    assert (tmp_path / "b" / "weights" / "w").samefile(tmp_path / "a" / "weights" / "w")

    def refuse(*_: object) -> None:
        raise OSError("another file system")

    monkeypatch.setattr("os.link", refuse)
    link_tree(tmp_path / "a", tmp_path / "c", ["weights/w"])
    assert not (tmp_path / "c" / "weights" / "w").samefile(tmp_path / "a" / "weights" / "w")
    assert (tmp_path / "c" / "weights" / "w").read_text() == "1"


def test_damaged_files_are_found(fresh_bundle: Path, twin: Path) -> None:
    manifest = read_manifest(fresh_bundle)
    assert damaged_files(fresh_bundle, manifest, twin) == set()
    (fresh_bundle / "weights" / "model.safetensors").write_bytes(b"short")
    (fresh_bundle / "artifacts" / "cpu" / "facts.json").unlink()
    assert damaged_files(fresh_bundle, manifest, twin) == {"weights/model.safetensors", "artifacts/cpu/facts.json"}


def test_weights_that_are_the_models_own_file_are_not_read_again(
    bundle: Path, twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(
        "amdnfs_compile.staging.verify_files", lambda _folder, _manifest, names: looked_at.extend(names)
    )
    manifest = read_manifest(bundle)
    damaged_files(bundle, manifest, twin)
    assert sorted(looked_at) == sorted(set(manifest.files) - {"weights/model.safetensors"})
