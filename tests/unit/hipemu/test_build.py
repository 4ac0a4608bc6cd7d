"""Building the library: the cache, and what happens without compiler or tables."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from amdnfs_hipemu import EmulatorError, build, instruction_tables, library_folder


def test_a_built_library_is_taken_from_the_cache() -> None:
    folder = library_folder()
    built_ns = (folder / build.LIBRARY).stat().st_mtime_ns
    assert library_folder() == folder
    assert (folder / build.LIBRARY).stat().st_mtime_ns == built_ns


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.COMPILER_VARIABLE, "no-such-cc")
    with pytest.raises(EmulatorError, match=r"needs a C compiler, and there is no 'no-such-cc' on PATH; install gcc"):
        library_folder()


def test_other_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "version", lambda _: "0.99")
    with pytest.raises(
        EmulatorError, match=r"tinygrad 0\.14\.0, but 0\.99 is installed; pip install 'amdnfs\[emulate\]'"
    ):
        library_folder()


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(EmulatorError, match=r"cannot build the emulator in .*AMDNFS_EMULATE_CACHE"):
        library_folder()


def test_a_compiler_that_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'x.c:1: error: not C' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv(build.COMPILER_VARIABLE, str(compiler))
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    with pytest.raises(EmulatorError, match=r"cannot build the emulator: x\.c:1: error: not C; set AMDNFS_EMULATE_CC"):
        library_folder()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["lock"]


def test_old_builds_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text('#!/bin/sh\nfor word; do last=$word; done\ntouch "$last"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv(build.COMPILER_VARIABLE, str(compiler))
    monkeypatch.setenv(build.CACHE_VARIABLE, str(tmp_path / "cache"))
    killed = tmp_path / "cache" / "amdnfs-hipemu-building-killed"
    killed.mkdir(parents=True)
    mine = [tmp_path / "cache" / name for name in ("build-release", "lib")]  # of whoever named the folder
    for folder in mine:
        folder.mkdir()
        (folder / build.LIBRARY).write_text("")
        os.utime(folder, (1e9 - 1, 1e9 - 1))
    names = [f"{number:032x}" for number in range(10)]
    for number, name in enumerate(names):
        folder = tmp_path / "cache" / name
        folder.mkdir()
        (folder / build.LIBRARY).write_text("")
        os.utime(folder, (1e9 + number, 1e9 + number))
    made = library_folder()
    kept = sorted(path.name for path in (tmp_path / "cache").iterdir())
    assert kept == sorted([*names[3:], made.name, "lock", *(folder.name for folder in mine)])
    assert all((folder / build.LIBRARY).exists() for folder in mine)


def test_the_tables(tmp_path: Path) -> None:
    instruction_tables.write_tables(tmp_path / "tables.inc")
    text = (tmp_path / "tables.inc").read_text(encoding="utf-8")
    for line in (
        '[0][11][84] = "v_mfma_f32_16x16x32_f16",',  # CDNA3 and 4
        '[1][11][84] = "v_mfma_i32_32x32x8_i8",',  # CDNA2 uses the opcode otherwise
        '[2][6][1] = "v_mov_b32",',
        '[4][4][20] = "s_barrier_wait",',
    ):
        assert line in text
