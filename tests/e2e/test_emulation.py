"""`amdnfs verify --emulate` and what stands behind it: AMD machine code, executed in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.execution import EmulatedSteps, Emulation, LocalSteps
from amdnfs_runtime.report.code_objects import find_code_objects

from amdnfs_compile import CompileOptions, bisect, compile_model
from amdnfs_compile.bisect_text import LISTING
from amdnfs_compile.traced import TracedProgram
from tests.conftest import RunCli
from tests.twins import make_twin

needs_emulator = pytest.mark.skipif(
    not os.environ.get(HIP_DYLIB_VARIABLE),
    reason=f"{HIP_DYLIB_VARIABLE} does not name a folder with a stand-in libamdhip64.so",
)
pytestmark = [needs_emulator, pytest.mark.emulator]

PK_MUL_F32, PK_ADD_F32, UNKNOWN = 0xD3B1, 0xD3B2, 0xD3BF
"""First half of the encodings of v_pk_mul_f32, v_pk_add_f32, and of none of CDNA3 (MI300 ISA, VOP3P)."""
CHECKS = [
    "prefill whole",
    "prefill in chunks",
    "decode over page borders",
    "reuse of a prefix's pages",
    "batch of different lengths",
]


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    """The emulator that the tests use."""
    return Emulation(library=Path(os.environ[HIP_DYLIB_VARIABLE]))


@pytest.fixture(scope="module")
def half_twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny llama in f16, for which kernels of ours are taken."""
    return make_twin("llama", tmp_path_factory.mktemp("half") / "twin", torch.float16)


@pytest.fixture(scope="module")
def amd_bundle(half_twin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It, compiled for CDNA3 and the CPU; not to be changed."""
    options = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
    return compile_model(half_twin, ["gfx942", "cpu"], tmp_path_factory.mktemp("amd") / "twin.amdnfs", options)


def one_chunk() -> Arguments:
    table = np.array([[1]], np.int32)
    return np.arange(16, dtype=np.int64)[None], np.array([0], np.int64), np.array([16], np.int64), table


def change_instructions(path: Path, kernel: str, old: int, new: int) -> None:
    """Lets instructions of a program whose first dword begins with `old` begin with `new`.

    Args:
        path: The program.
        kernel: Part of the names of the kernels that change.
        old: Upper half of a dword.
        new: Upper half of a dword.
    """
    program = np.fromfile(path, np.uint8)
    num_changed = 0
    for item in find_code_objects(program.tobytes()):
        for name, (begin, end) in item.functions.items():
            if kernel in name:
                words = program[item.offset + begin : item.offset + end].view(np.uint32)
                is_old = words >> 16 == old
                num_changed += is_old.sum()
                words[is_old] = words[is_old] & 0xFFFF | new << 16
    assert num_changed
    path.write_bytes(program.tobytes())


def with_other_instructions(bundle: Path, folder: Path, old: int, new: int) -> Path:
    """A copy of `bundle` with another gfx942 program."""
    copy = Path(shutil.copytree(bundle, folder / "damaged.amdnfs"))
    change_instructions(copy / read_manifest(copy).targets["gfx942"].program, "", old, new)
    return copy


def altered(bundle: Path, folder: Path, change: Callable[[bytearray, int], None]) -> Path:
    """A copy of `bundle` whose first gfx942 code object is changed by `change(program, offset of the object)`."""
    copy = Path(shutil.copytree(bundle, folder / "altered.amdnfs"))
    path = copy / read_manifest(copy).targets["gfx942"].program
    program = bytearray(path.read_bytes())
    change(program, find_code_objects(bytes(program))[0].offset)
    path.write_bytes(bytes(program))
    return copy


def for_an_unknown_chip(program: bytearray, at: int) -> None:
    program[at + 48] = 0xFE  # EF_AMDGPU_MACH in e_flags (LLVM AMDGPUUsage, "Header")


def for_another_machine(program: bytearray, at: int) -> None:
    program[at + 18] = 62  # e_machine: x86-64


def with_a_table_outside(program: bytearray, at: int) -> None:
    program[at + 46] = 1  # e_shoff grows by 2^48


def test_verify_beside_the_cpu_program(run_cli: RunCli, amd_bundle: Path) -> None:
    done = run_cli("amdnfs", "verify", amd_bundle, "--target", "mi300x", "--emulate", "--json")
    assert (done.code, done.err) == (0, "")
    values = json.loads(done.out)
    assert (values["target"], values["emulated"]) == ("gfx942", True)
    assert [(row["name"], row["against"]) for row in values["checks"]] == [(name, "cpu") for name in CHECKS]
    assert all(row["right"] and 0 < row["error"] < 2e-2 for row in values["checks"]), "0 would be the same program"


def test_verify_beside_transformers_too(run_cli: RunCli, amd_bundle: Path, half_twin: Path) -> None:
    done = run_cli("amdnfs", "verify", amd_bundle, "--target", "gfx942", "--emulate", "--against", half_twin)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[1].startswith("gfx942, executed on the emulator  against")
    assert sum("transformers" in line and line.endswith("right") for line in lines) == len(CHECKS)
    assert sum(" cpu " in line and line.rstrip().endswith("right") for line in lines) == len(CHECKS)


def test_verify_finds_a_wrong_instruction(
    run_cli: RunCli, amd_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sums where products should be: exit code 6, and the checks are named."""
    monkeypatch.setattr("amdnfs_compile.cli.verify.verify_files", lambda *_: None)
    bundle = with_other_instructions(amd_bundle, tmp_path, PK_MUL_F32, PK_ADD_F32)
    done = run_cli("amdnfs", "verify", bundle, "--target", "gfx942", "--emulate")
    assert done.code == 6
    assert done.out.count("WRONG") == len(CHECKS)
    assert done.err == f"error: {bundle}: the logits differ from cpu's in: {', '.join(CHECKS)}\n"


def test_digests_find_it_before(run_cli: RunCli, amd_bundle: Path, tmp_path: Path) -> None:
    bundle = with_other_instructions(amd_bundle, tmp_path, PK_MUL_F32, PK_ADD_F32)
    done = run_cli("amdnfs", "verify", bundle, "--target", "gfx942", "--emulate")
    assert done.code == 6
    assert "artifacts/gfx942/program.vmfb" in done.err


def test_bisect_names_the_dispatch(
    run_cli: RunCli, amd_bundle: Path, half_twin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault in the kernel that joins the splits of attention; the next target has right numbers."""
    monkeypatch.setattr("amdnfs_compile.cli.verify.verify_files", lambda *_: None)
    monkeypatch.setattr(bisect, "OTHERS", ("gfx942", "gfx90a"))
    plain = bisect.compile_traced

    def compile_with_a_fault(model: Path, manifest: Manifest, target: str, folder: Path) -> TracedProgram:
        found = plain(model, manifest, target, folder)
        if target == "gfx942":
            change_instructions(found.program, "combine_splits", PK_MUL_F32, PK_ADD_F32)
        return found

    monkeypatch.setattr(bisect, "compile_traced", compile_with_a_fault)
    bundle = with_other_instructions(amd_bundle, tmp_path, PK_MUL_F32, PK_ADD_F32)
    folder = tmp_path / "found"
    arguments = ("--target", "gfx942", "--emulate", "--against", half_twin, "--bisect", folder, "--json")
    done = run_cli("amdnfs", "verify", bundle, *arguments)
    assert done.code == 6
    bisection = json.loads(done.out)["bisection"]
    assert bisection["notes"] == ["compiled again, the program is that of the bundle, byte for byte"]
    finding = bisection["finding"]
    assert (finding["op"], finding["layer"], finding["entry_point"]) == ("attention", 0, "prefill_16")
    assert (finding["beside"], finding["kernel"].split("::")[1]) == ("gfx90a", "combine_splits")
    assert [item["num_different"] for item in finding["operands"]] == [0, 0]
    assert finding["results"][0]["num_different"] > 0
    assert "v_pk_add_f32" in (folder / LISTING).read_text()
    got, wanted = (np.load(folder / f"result-0-{side}.npy") for side in ("got", "wanted"))
    assert np.abs(got - wanted).max() > 0.1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--emulate", "--bisect", "x"], 2, "error: --bisect runs programs on the emulator and compiles the model aga"),
        (["--emulate", "--target", "cpu"], 2, "error: --emulate runs hip programs; name one of the bundle's gfx targ"),
        (["--emulate", "--target", "gfx90a"], 6, "error: the bundle has no target gfx90a; it holds "),
    ],
)
def test_verify_refuses(run_cli: RunCli, amd_bundle: Path, arguments: list[str], code: int, message: str) -> None:
    done = run_cli("amdnfs", "verify", amd_bundle, *arguments)
    assert done.code == code
    assert done.err.startswith(message)


def test_generate_on_the_emulator(run_cli: RunCli, amd_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HIP_DYLIB_VARIABLE, os.environ[HIP_DYLIB_VARIABLE])  # the command sets it
    arguments = ("--prompt", "Hi", "--max-tokens", 4, "--ignore-eos", "--json")
    emulated = json.loads(run_cli("amdnfs", "generate", amd_bundle, "--target", "gfx942", "--emulate", *arguments).out)
    beside = json.loads(run_cli("amdnfs", "generate", amd_bundle, "--target", "cpu", *arguments).out)
    assert (emulated["target"], beside["target"]) == ("gfx942", "cpu")
    assert emulated["results"][0]["token_ids"] == beside["results"][0]["token_ids"]


def test_steps_there_and_here(amd_bundle: Path, emulation: Emulation) -> None:
    local = LocalSteps(amd_bundle, read_manifest(amd_bundle), "cpu", 2)
    with EmulatedSteps(amd_bundle, "gfx942", 2, emulation) as steps:
        for _ in range(2):
            (greedy, logits), (wanted_greedy, wanted) = (
                item.step("prefill_16", one_chunk()) for item in (steps, local)
            )
            assert greedy.tolist() == wanted_greedy.tolist()
            np.testing.assert_allclose(logits, wanted, atol=0.02)


def test_a_process_that_dies_is_told(amd_bundle: Path, emulation: Emulation) -> None:
    with EmulatedSteps(amd_bundle, "gfx942", 2, emulation) as steps:
        os.kill(steps._process.pid, signal.SIGKILL)
        message = "the program for gfx942 on the emulator: its process was killed by signal 9 while prefill_16"
        with pytest.raises(ArtifactError, match=message):
            steps.step("prefill_16", one_chunk())


def test_a_call_that_takes_too_long_is_stopped(amd_bundle: Path, emulation: Emulation) -> None:
    with EmulatedSteps(amd_bundle, "gfx942", 2, dataclasses.replace(emulation, timeout_s=60.0)) as steps:
        steps._timeout_s = 0.5
        os.kill(steps._process.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        with pytest.raises(ArtifactError, match=r"prefill_16 took more than 0.5 s, and was stopped$"):
            steps.step("prefill_16", one_chunk())
        assert time.monotonic() - began_s < 10
        assert steps._process.poll() == -signal.SIGKILL


def test_a_folder_without_the_library(amd_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r": that folder has no libamdhip64.so$"):
        EmulatedSteps(amd_bundle, "gfx942", 2, Emulation(library=tmp_path))


def test_an_unknown_entry_point_leaves_the_process_usable(amd_bundle: Path, emulation: Emulation) -> None:
    with EmulatedSteps(amd_bundle, "gfx942", 2, emulation) as steps:
        with pytest.raises(ArtifactError, match="the program for gfx942 has no entry point prefill_17"):
            steps.step("prefill_17", one_chunk())
        steps.step("prefill_16", one_chunk())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (for_an_unknown_chip, r"on the emulator: loading: code object for an unknown chip: EF_AMDGPU_MACH is 0xfe"),
        (for_another_machine, r"on the emulator: loading: damaged code object: it is no ELF file for AMD GPUs"),
        (with_a_table_outside, r"on the emulator: (loading: damaged code object|its process was killed by signal)"),
    ],
)
def test_damaged_code_objects_are_refused(
    amd_bundle: Path, tmp_path: Path, emulation: Emulation, change: Callable[[bytearray, int], None], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        EmulatedSteps(altered(amd_bundle, tmp_path, change), "gfx942", 2, emulation)


def test_an_unsupported_instruction_is_named(amd_bundle: Path, tmp_path: Path, emulation: Emulation) -> None:
    bundle = with_other_instructions(amd_bundle, tmp_path, PK_MUL_F32, UNKNOWN)
    message = r"prefill_16: unknown-instruction in kernel \S+ at pc 0x[0-9a-f]+ .* its first dword is 0xd3bf"
    with EmulatedSteps(bundle, "gfx942", 2, emulation) as steps, pytest.raises(ArtifactError, match=message):
        steps.step("prefill_16", one_chunk())


def test_code_without_an_end_is_stopped(amd_bundle: Path, tmp_path: Path, emulation: Emulation) -> None:
    """s_nop instead of s_endpgm: the wave would run on into whatever comes next."""
    bundle = with_other_instructions(amd_bundle, tmp_path, 0xBF81, 0xBF80)
    with EmulatedSteps(bundle, "gfx942", 2, emulation) as steps, pytest.raises(ArtifactError, match="jump in kernel"):
        steps.step("prefill_16", one_chunk())


def test_a_program_that_goes_on_for_ever_is_stopped(amd_bundle: Path, emulation: Emulation) -> None:
    few = dataclasses.replace(emulation, settings={"AMDNFS_EMULATE_BUDGET": "50"})
    message = "50 instructions were not enough; AMDNFS_EMULATE_BUDGET sets the limit"
    with EmulatedSteps(amd_bundle, "gfx942", 2, few) as steps, pytest.raises(ArtifactError, match=message):
        steps.step("prefill_16", one_chunk())


def test_a_page_outside_the_pool_is_an_access_outside(amd_bundle: Path, emulation: Emulation) -> None:
    tokens, start, valid, _ = one_chunk()
    with EmulatedSteps(amd_bundle, "gfx942", 2, emulation) as steps, pytest.raises(ArtifactError) as refused:
        steps.step("prefill_16", (tokens, start, valid, np.array([[5000]], np.int32)))
    assert re.search(
        r"prefill_16: memory-range in kernel \S+ at pc .* lies outside every allocation$", str(refused.value)
    )


def test_all_checks_find_nothing_in_a_right_program(amd_bundle: Path, emulation: Emulation) -> None:
    strict = dataclasses.replace(emulation, settings={"AMDNFS_EMULATE_CHECKS": "all"})
    with EmulatedSteps(amd_bundle, "gfx942", 2, strict) as steps:
        steps.step("prefill_16", one_chunk())


def test_a_missing_compiler_is_told(
    run_cli: RunCli, amd_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(HIP_DYLIB_VARIABLE, "")
    monkeypatch.setenv("AMDNFS_EMULATE_CC", "no-such-compiler")
    monkeypatch.setenv("AMDNFS_EMULATE_CACHE", str(tmp_path))
    for arguments in (("verify", amd_bundle, "--target", "gfx942", "--emulate"), ("report", amd_bundle, "--execute")):
        done = run_cli("amdnfs", *arguments)
        assert done.code == 6
        assert done.err.startswith(
            "error: the emulator needs a C compiler, and there is no 'no-such-compiler' on PATH; "
        )
    assert "the emulator needs a C compiler" in run_cli("amdnfs", "doctor").out


def test_report_counts_what_was_executed(run_cli: RunCli, amd_bundle: Path, tmp_path: Path) -> None:
    """Linear layers move the bytes that the report reckons, and use matrix units for all their FLOPs."""
    budget = tmp_path / "budget.json"
    done = run_cli(
        "amdnfs", "report", amd_bundle, "--target", "gfx942", "--execute", "--json", "--write-budget", budget
    )
    assert done.code == 0
    assert done.err.splitlines()[:2] == ["executing gfx942 prefill_16", "executing gfx942 decode_4"]
    for entry in json.loads(done.out)["targets"][0]["entries"]:
        assert entry["context_tokens"] == 64
        assert entry["executed"]["num_dispatches"] == entry["num_dispatches"]
        assert 1 < entry["executed"]["moved_bytes"] / entry["least_bytes"] < 20
        for group in entry["groups"]:
            if group["kind"] == "matmul" and group["part"] == "layer":
                assert group["executed"]["matrix_flops"] >= group["flops"] * group["count"]
                assert 0.9 < group["executed"]["moved_bytes"] / (group["num_bytes"] * group["count"]) < 1.3
    again = run_cli("amdnfs", "report", amd_bundle, "--target", "gfx942", "--execute", "--budget", budget)
    assert again.code == 0, "an execution counts the same every time"
