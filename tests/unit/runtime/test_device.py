"""Choosing a program for a machine, and what a device that fails says."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amdnfs_runtime
import numpy as np
import pytest
from amdnfs_runtime.bundle import Manifest, TargetEntry, read_manifest
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE, Host, Program, choose_target, inspect_host
from amdnfs_runtime.errors import AmdnfsError, ArtifactError, CapacityError

BARE = Host(amd_gfx=(), has_nvidia=False, has_vulkan=False, features=frozenset({"avx2"}), hip_stand_in=None)
BARE_TEXT = "AMD GPUs: none; NVIDIA GPU: no; Vulkan device: no"


def target(kind: str, gfx: str | None = None, features: tuple[str, ...] = ()) -> TargetEntry:
    return TargetEntry(kind=kind, gfx=gfx, program="p", facts="f", entry_points=(), cpu_features=features)


@pytest.fixture
def with_targets(bundle: Path) -> Callable[..., Manifest]:
    """The manifest of the bundle with other targets."""
    return lambda **targets: dataclasses.replace(read_manifest(bundle), targets=targets)


def refusal(call: Callable[[], object], kind: type[AmdnfsError] = ArtifactError) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def test_the_best_target_that_runs_is_chosen(with_targets: Callable[..., Manifest]) -> None:
    manifest = with_targets(
        cpu=target("cpu"),
        sm_80=target("cuda"),
        gfx1100=target("hip", "gfx1100"),
        gfx942=target("hip", "gfx942"),
        vulkan=target("vulkan"),
    )
    hosts = {
        "cpu": BARE,
        "vulkan": dataclasses.replace(BARE, has_vulkan=True),
        "sm_80": dataclasses.replace(BARE, has_vulkan=True, has_nvidia=True),
        "gfx942": dataclasses.replace(BARE, has_vulkan=True, has_nvidia=True, amd_gfx=("gfx942",)),
        "gfx1100": dataclasses.replace(BARE, amd_gfx=("gfx942", "gfx1100")),
    }
    assert {name: choose_target(manifest, host) for name, host in hosts.items()} == {name: name for name in hosts}


def test_no_program_that_runs_here(with_targets: Callable[..., Manifest]) -> None:
    manifest = with_targets(gfx942=target("hip", "gfx942"), vulkan=target("vulkan"), sm_80=target("cuda"))
    host = dataclasses.replace(BARE, amd_gfx=("gfx1100", "gfx1100"))
    assert refusal(lambda: choose_target(manifest, host)) == (
        "no program of the bundle runs here; this machine has AMD GPUs: gfx1100, gfx1100; NVIDIA GPU: no; "
        "Vulkan device: no\n"
        "  the bundle holds gfx942, vulkan, sm_80: gfx942 needs an AMD GPU of architecture gfx942; "
        "sm_80 needs an NVIDIA GPU; vulkan needs a Vulkan driver\n"
        "  add a target, e.g.: amdnfs-compile MODEL --target cpu -o BUNDLE"
    )


def test_a_bundle_without_programs(with_targets: Callable[..., Manifest]) -> None:
    assert "\n  the bundle holds no program at all\n" in refusal(lambda: choose_target(with_targets(), BARE))


def test_a_target_of_a_kind_from_the_future(with_targets: Callable[..., Manifest]) -> None:
    manifest = with_targets(npu=target("npu"))
    assert "the bundle holds npu: npu is of the unknown kind 'npu'" in refusal(lambda: choose_target(manifest, BARE))
    assert choose_target(with_targets(npu=target("npu"), cpu=target("cpu")), BARE) == "cpu"


def test_a_wanted_target_that_the_bundle_does_not_hold(with_targets: Callable[..., Manifest]) -> None:
    manifest = with_targets(cpu=target("cpu"), vulkan=target("vulkan"))
    assert refusal(lambda: choose_target(manifest, BARE, "gfx942")) == (
        "the bundle has no target gfx942; it holds cpu, vulkan"
    )


def test_a_wanted_target_that_does_not_run_here(with_targets: Callable[..., Manifest]) -> None:
    manifest = with_targets(cpu=target("cpu"), gfx942=target("hip", "gfx942"))
    assert refusal(lambda: choose_target(manifest, BARE, "gfx942")) == (
        f"cannot run gfx942 here: gfx942 needs an AMD GPU of architecture gfx942; this machine has {BARE_TEXT}"
    )
    assert choose_target(manifest, BARE, "cpu") == "cpu"


def test_a_processor_without_the_features_of_the_program(with_targets: Callable[..., Manifest]) -> None:
    features = ("avx2", "avx512f", "avx512vl", "vaes", "gfni", "fma")
    manifest = with_targets(cpu=target("cpu", features=features))
    message = refusal(lambda: choose_target(manifest, BARE))
    assert "the bundle holds cpu: cpu was compiled for a CPU with avx512f, avx512vl, fma, gfni\n" in message
    host = dataclasses.replace(BARE, features=frozenset(features))
    assert choose_target(manifest, host) == "cpu"


def test_the_bundle_of_this_machine_runs_on_it(bundle: Path) -> None:
    assert choose_target(read_manifest(bundle), inspect_host(), "cpu") == "cpu"


def hip_only(bundle: Path) -> None:
    """Makes the cpu program pass for one of gfx942."""
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    entry = values["targets"].pop("cpu")
    values["targets"]["gfx942"] = {**entry, "kind": "hip", "gfx": "gfx942", "cpu_features": []}
    path.write_text(json.dumps(values))


def test_a_bundle_for_another_machine_is_not_loaded(fresh_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hip_only(fresh_bundle)
    monkeypatch.setattr("amdnfs_runtime.llm.inspect_host", lambda: BARE)
    message = refusal(lambda: amdnfs_runtime.load(fresh_bundle))
    assert message.startswith(f"no program of the bundle runs here; this machine has {BARE_TEXT}\n")
    assert "the bundle holds gfx942: gfx942 needs an AMD GPU of architecture gfx942" in message


def test_a_stand_in_folder_without_the_library(
    fresh_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hip_only(fresh_bundle)
    monkeypatch.setenv(HIP_DYLIB_VARIABLE, str(tmp_path))
    assert inspect_host().hip_stand_in == str(tmp_path)
    assert f"stand-in HIP library: {tmp_path}" in inspect_host().describe()
    assert refusal(lambda: amdnfs_runtime.load(fresh_bundle)) == (
        f"AMDNFS_HIP_DYLIB={tmp_path}: that folder has no libamdhip64.so"
    )


def test_an_empty_stand_in_variable_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HIP_DYLIB_VARIABLE, "")
    assert inspect_host().hip_stand_in is None


def test_a_device_that_cannot_be_opened(fresh_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hip_only(fresh_bundle)
    monkeypatch.delenv(HIP_DYLIB_VARIABLE, raising=False)
    host = dataclasses.replace(BARE, amd_gfx=("gfx942",))
    monkeypatch.setattr("amdnfs_runtime.llm.inspect_host", lambda: host)

    def refuse(_name: str) -> None:
        raise RuntimeError("no HIP library\nmore of it")

    monkeypatch.setattr("iree.runtime.get_device", refuse)
    assert refusal(lambda: amdnfs_runtime.load(fresh_bundle)) == ("the hip device cannot be opened: no HIP library")


def test_an_entry_point_that_the_program_does_not_have(fresh_bundle: Path) -> None:
    path = fresh_bundle / "manifest.json"
    path.write_text(path.read_text().replace('"decode_4"', '"decode_5"'))
    assert refusal(lambda: amdnfs_runtime.load(fresh_bundle)) == (
        f"{fresh_bundle}: the device refuses the program for cpu: it has no function decode_5; compile the bundle again"
    )


def call_decode(program: Program, pools: list[Any]) -> Any:
    zeros = np.zeros(1, np.int64)
    return program.call("decode_1", zeros[None], zeros, zeros, np.zeros((1, 1), np.int32), pools)


def test_a_call_with_other_arguments_than_the_program_takes(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    program = Program(bundle, manifest, "cpu")
    greedy, logits, _ = call_decode(program, program.make_pools(manifest, 2))
    assert (greedy.to_host().shape, logits.to_host().shape) == ((1,), (1, 128))
    layer = dataclasses.replace(manifest.layers[0], kv_heads=3)
    wrong = program.make_pools(dataclasses.replace(manifest, layers=(layer, layer)), 2)
    assert refusal(lambda: call_decode(program, wrong)).startswith("the program for cpu failed in decode_1: ")


@pytest.mark.parametrize("kind", [RuntimeError, ValueError])
def test_errors_that_come_when_results_are_read(bundle: Path, kind: type[Exception]) -> None:
    """A driver's invalid argument is a ValueError to the bindings."""

    class Lost:
        def to_host(self) -> Any:
            raise kind("INVALID_ARGUMENT; planted")

    program = Program(bundle, read_manifest(bundle), "cpu")
    assert refusal(lambda: program.read(Lost())) == "the device of cpu failed: INVALID_ARGUMENT; planted"


def test_a_pool_larger_than_any_memory(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    message = refusal(lambda: Program(bundle, manifest, "cpu").make_pools(manifest, 2**50), CapacityError)
    assert message.startswith(
        f"the KV pool of {2**50} pages (8589934592.0 GiB) does not fit the memory of cpu; load with"
    )


def test_no_file_of_a_bundle_is_opened_for_writing(bundle: Path) -> None:
    opened: dict[str, bool] = {}

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and watching and str(arguments[0]).startswith(str(bundle)):
            opened[Path(arguments[0]).name] = bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))

    watching = True
    sys.addaudithook(watch)  # stays for the life of the process
    assert amdnfs_runtime.load(bundle, check=False).generate("abc", max_tokens=2)
    watching = False
    assert opened == {"manifest.json": False, "program.vmfb": False}
