from __future__ import annotations

from pathlib import Path

import pytest
from amdnfs_targets.detect import (
    X86_64_V3_FEATURES,
    cpu_features,
    cpu_supports_x86_64_v3,
    decode_gfx_target_version,
    detect_amd_gfx,
    has_nvidia_gpu,
)


def add_node(root: Path, index: int, simd_count: int, version: int) -> None:
    node = root / str(index)
    node.mkdir(parents=True)
    text = f"cpu_cores_count 0\nsimd_count {simd_count}\nmem_banks_count 1\ngfx_target_version {version}\n"
    (node / "properties").write_text(text)


@pytest.mark.parametrize(
    ("version", "gfx"),
    [
        *((90402, "gfx942"), (90010, "gfx90a"), (90500, "gfx950"), (90008, "gfx908"), (100300, "gfx1030")),
        *((110000, "gfx1100"), (110501, "gfx1151"), (120001, "gfx1201"), (0, None)),
    ],
)
def test_decode_gfx_target_version(version: int, gfx: str | None) -> None:
    assert decode_gfx_target_version(version) == gfx


def test_gpus_are_listed_in_the_order_of_the_driver(tmp_path: Path) -> None:
    add_node(tmp_path, 0, simd_count=0, version=0)
    add_node(tmp_path, 10, simd_count=80, version=110501)
    add_node(tmp_path, 2, simd_count=1216, version=90402)
    add_node(tmp_path, 3, simd_count=1216, version=90402)
    assert detect_amd_gfx(tmp_path) == ("gfx942", "gfx942", "gfx1151")


def test_nodes_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    add_node(tmp_path, 2, simd_count=0, version=90402)
    add_node(tmp_path, 3, simd_count=80, version=0)
    (tmp_path / "generation_id").write_text("1\n")
    assert detect_amd_gfx(tmp_path) == ()


def test_no_driver_means_no_gpu(tmp_path: Path) -> None:
    assert detect_amd_gfx(tmp_path / "absent") == ()
    assert not has_nvidia_gpu(tmp_path / "absent", tmp_path / "nvidia0")
    assert cpu_features(tmp_path / "absent") == frozenset()
    assert not cpu_supports_x86_64_v3(tmp_path / "absent")


def test_nvidia_gpu_is_seen_through_either_file(tmp_path: Path) -> None:
    gpus, device = tmp_path / "gpus", tmp_path / "nvidia0"
    gpus.mkdir()
    assert not has_nvidia_gpu(gpus, device)
    (gpus / "0000:01:00.0").mkdir()
    assert has_nvidia_gpu(gpus, device)
    device.touch()
    assert has_nvidia_gpu(tmp_path / "absent", device)


def test_features_are_those_of_every_core(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu avx avx2\n\nprocessor\t: 1\nflags\t\t: fpu avx\nbugs\t\t: x\n")
    assert cpu_features(cpuinfo) == {"fpu", "avx"}


def test_x86_64_v3_needs_all_of_its_features(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : {' '.join(sorted(X86_64_V3_FEATURES | {'avx512f'}))}\n")
    assert cpu_supports_x86_64_v3(cpuinfo)
    cpuinfo.write_text(f"flags : {' '.join(sorted(X86_64_V3_FEATURES - {'fma'}))}\n")
    assert not cpu_supports_x86_64_v3(cpuinfo)
