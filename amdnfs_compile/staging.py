"""Writes a bundle so that it is there whole or not at all.

Everything is made in a hidden folder beside the final place and swapped in with one system call; a bundle that was
there before stays usable until then. Folders left by a process that was killed are removed by the next one.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from amdnfs_runtime.bundle import MANIFEST, FileEntry, Manifest, file_entry
from amdnfs_runtime.errors import UsageError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Gives an empty folder that becomes `final` when the block ends well, and vanishes when it does not.

    Raises:
        UsageError: If `final` exists and is not a bundle, or its parent cannot be written to.
    """
    if final.exists() and not (final / MANIFEST).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise UsageError(f"{final} exists and is not a bundle; choose another place with -o")
    staging = final.parent / f".{final.name}.partial-{os.getpid()}"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(final)
        staging.mkdir()
    except OSError as error:
        raise UsageError(f"cannot write to {final.parent}: {error.strerror}; choose another place with -o") from error
    try:
        yield staging
        _swap(staging, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def link_tree(source: Path, target: Path, names: list[str]) -> None:
    """Hard-links (else copies) the files `names` of one bundle into another."""
    for name in names:
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / name, place)
        except OSError:
            shutil.copyfile(source / name, place)


def list_files(folder: Path, known: dict[str, FileEntry]) -> dict[str, FileEntry]:
    """Size and digest of every file below `folder` but the manifest; `known` ones are not read again."""
    names = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST
    )
    return {name: known.get(name) or file_entry(folder / name) for name in names}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes the manifest last: without it the folder is no bundle."""
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")


def _remove_abandoned(final: Path) -> None:
    for path in final.parent.glob(f".{final.name}.partial-*"):
        pid = path.name.rsplit("-", maxsplit=1)[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(path, ignore_errors=True)


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
    staging.rename(final)
    shutil.rmtree(old, ignore_errors=True)
