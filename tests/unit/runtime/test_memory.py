"""The size of the pool, and what is refused with which numbers."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime import memory
from amdnfs_runtime.bundle import FileEntry, Manifest
from amdnfs_runtime.checks import from_options
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.errors import CapacityError, UsageError
from amdnfs_runtime.memory import (
    DeviceMemory,
    amd_memory,
    device_memory,
    draft_pool_pages,
    host_memory,
    nvidia_memory,
    pool_pages,
)

from tests.unit.runtime.fakes import make_manifest

MIB = 1 << 20


@pytest.fixture
def manifest() -> Manifest:
    """Pages of 1 MiB, contexts of 16 pages, 10 MiB of weights."""
    base = make_manifest()
    layer = dataclasses.replace(base.layers[0], kv_heads=64, head_dim=512)
    return dataclasses.replace(base, layers=(layer,), weights=("w",), files={"w": FileEntry(size=10 * MIB, sha256="")})


def free(mib: int, share: float = 0.5) -> DeviceMemory:
    return DeviceMemory(free_bytes=mib * MIB, share=share, source="a test")


@pytest.mark.parametrize(
    ("config", "available", "num_running", "num_pages"),
    [
        ({}, None, 8, 1 + 8 * 16),
        ({}, None, 1000, 1 + 1024),
        ({}, free(2010), 8, 1 + 8 * 16),
        ({}, free(110), 8, 50),
        ({"memory_fraction": 0.9}, free(110), 8, 90),
        ({"kv_pages": 7}, None, 8, 7),
        ({"kv_pages": 7}, free(110), 8, 7),
    ],
)
def test_pages(manifest: Manifest, config: Any, available: Any, num_running: int, num_pages: int) -> None:
    assert pool_pages(manifest, "hip", EngineConfig(**config), num_running, available) == num_pages


@pytest.mark.parametrize(
    ("config", "available", "kind", "message"),
    [
        (
            {},
            free(40),
            CapacityError,
            "one full context of 64 tokens takes 17 MiB of KV pages beside 10 MiB of weights, but 40 MiB are free "
            "(a test), of which 50% may be used; give fewer pages (--kv-pages, num_pages), or compile with a shorter "
            "--context",
        ),
        (
            {"memory_fraction": 0.1},
            free(110),
            CapacityError,
            "memory_fraction=0.1 of 110 MiB free (a test), less 10 MiB of weights, is 10 KV pages of 1024 KiB; one "
            "full context of 64 tokens needs 17; give a larger memory_fraction, set kv_pages, or compile with a "
            "shorter --context",
        ),
        (
            {"memory_fraction": 0.1},
            None,
            UsageError,
            "memory_fraction: nobody tells how much memory this device has free; give kv_pages instead",
        ),
        (
            {"kv_pages": 111},
            free(110),
            CapacityError,
            "a pool of 111 pages takes 111 MiB, but there are 110 MiB; give fewer pages (--kv-pages, num_pages), or "
            "compile with a shorter --context",
        ),
    ],
)
def test_refusals(manifest: Manifest, config: Any, available: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as error:
        pool_pages(manifest, "hip", EngineConfig(**config), 8, available)
    assert str(error.value) == message


def test_memory_of_the_machine_and_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       1000 kB\nMemAvailable:    500 kB\nHugePages_Total:       0\n")
    found = host_memory(meminfo, tmp_path)
    assert found is not None
    assert (found.free_bytes, found.source) == (500 * 1024, "available memory of the machine")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert host_memory(meminfo, tmp_path) == found
    (tmp_path / "memory.max").write_text("5000\n")
    limited = host_memory(meminfo, tmp_path)
    assert limited is not None
    assert (limited.free_bytes, limited.source) == (4000, "memory limit of the cgroup")
    assert host_memory(tmp_path / "none", tmp_path) is None


def card(folder: Path, **sizes: int) -> None:
    device = folder / "card1" / "device"
    device.mkdir(parents=True)
    for name, size in sizes.items():
        (device / f"mem_info_{name}").write_text(f"{size}\n")


def test_memory_of_an_amd_gpu(tmp_path: Path) -> None:
    assert amd_memory(tmp_path) is None
    card(tmp_path / "own", vram_total=1000, vram_used=100, gtt_total=500, gtt_used=0)
    found = amd_memory(tmp_path / "own")
    assert found == DeviceMemory(free_bytes=900, share=0.9, source="memory of card1")
    card(tmp_path / "apu", vram_total=100, vram_used=100, gtt_total=5000, gtt_used=1000)
    found = amd_memory(tmp_path / "apu")
    assert found == DeviceMemory(free_bytes=4000, share=0.6, source="memory shared with the machine, card1")


def test_memory_of_an_nvidia_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.shutil, "which", lambda name: None)
    assert nvidia_memory() is None
    monkeypatch.setattr(memory.shutil, "which", lambda name: f"/bin/{name}")

    def answers(text: str) -> Any:
        return lambda *arguments, **options: subprocess.CompletedProcess(arguments, 0, text, "")

    monkeypatch.setattr(memory.subprocess, "run", answers("70000\n80000\n"))
    found = nvidia_memory()
    assert found is not None
    assert found.free_bytes == 70000 * MIB
    monkeypatch.setattr(memory.subprocess, "run", answers("No devices were found\n"))
    assert nvidia_memory() is None


def test_a_kind_whose_memory_nobody_tells() -> None:
    assert device_memory("vulkan") is None
    assert device_memory("cpu") is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kv_pages": 1}, "kv_pages must be an integer >= 2, not 1"),
        ({"memory_fraction": 0}, "memory_fraction must be a finite number > 0 and <= 1, not 0"),
        ({"memory_fraction": 1.5}, "memory_fraction must be a finite number > 0 and <= 1, not 1.5"),
        ({"kv_pages": 5, "memory_fraction": 0.5}, "give either kv_pages or memory_fraction, not both: each sets the"),
        ({"max_running": 0}, "max_running must be an integer >= 1, not 0"),
        ({"max_step_tokens": "8"}, "max_step_tokens must be an integer >= 1, not '8'"),
        ({"prefix_cache": 1}, "prefix_cache must be True or False, not 1"),
        ({"call_timeout_s": 0}, "call_timeout_s must be a finite number > 0"),
        ({"pages": 1}, "unknown engine option 'pages'; known are call_timeout_s, kv_pages, "),
    ],
)
def test_configurations_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        from_options(EngineConfig, values, "engine option")
    assert str(error.value).startswith(message)


def test_a_draft_is_counted_with_the_model(manifest: Manifest) -> None:
    assert pool_pages(manifest, "hip", EngineConfig(), 8, None, manifest) == 1 + 8 * 16
    assert pool_pages(manifest, "hip", EngineConfig(), 8, free(110), manifest) == (110 - 20) // 2 // 2
    assert pool_pages(manifest, "hip", EngineConfig(memory_fraction=0.9), 8, free(110), manifest) == 81 // 2
    assert pool_pages(manifest, "hip", EngineConfig(kv_pages=50), 8, free(110), manifest) == 50
    with pytest.raises(CapacityError, match="a pool of 51 pages, with the draft's pool and weights, takes 112 MiB"):
        pool_pages(manifest, "hip", EngineConfig(kv_pages=51), 8, free(110), manifest)
    with pytest.raises(CapacityError, match=r"takes 34 MiB of KV pages beside 20 MiB of weights \(the draft's counted"):
        pool_pages(manifest, "hip", EngineConfig(), 8, free(70), manifest)
    with pytest.raises(CapacityError, match=r"less 20 MiB of weights \(the draft's counted with them\), is 9 KV pages"):
        pool_pages(manifest, "hip", EngineConfig(memory_fraction=0.2), 8, free(110), manifest)


def test_a_draft_has_room_for_as_many_tokens(manifest: Manifest) -> None:
    small = dataclasses.replace(manifest, page_tokens=3)
    assert draft_pool_pages(manifest, manifest, 50, 8) == 50
    assert draft_pool_pages(small, manifest, 50, 8) == 1 + 66
    assert draft_pool_pages(manifest, manifest, 5000, 8) == 1 + 8 * 16
    short = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, context_tokens=30))
    assert draft_pool_pages(short, manifest, 5000, 8) == 1 + 8 * 8
