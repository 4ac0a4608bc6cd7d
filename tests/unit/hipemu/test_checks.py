"""What stops a program: accesses out of range, planted races, missing waits, unwritten reads, barriers, and what hangs."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest

from tests.unit.hipemu.machine import TARGETS, HipError, Machine, assemble, kernel_text, random_bits

pytest.importorskip("triton")

DATA = random_bits(np.random.default_rng(1), 64)
TWO_WAVES = random_bits(np.random.default_rng(2), 128)
ONE_OF_EACH = ("gfx90a", "gfx1030", "gfx1100", "gfx1200")
NEW = ("gfx1100", "gfx1150", "gfx1200")
LOAD_TO_LDS = {
    "gfx90a": (
        "s_mov_b32 s24, s4\ns_mov_b32 s25, s5\ns_mov_b32 s26, -1\ns_mov_b32 s27, 0x27000\n"
        "buffer_load_dword v1, s[24:27], 0 offen lds"
    ),
    "gfx942": "global_load_lds_dword v1, s[4:5]",
    "gfx950": "global_load_lds_dword v1, s[4:5]",
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With all checks on."""
    return Machine(tmp_path_factory.mktemp("emulator"), {"CHECKS": "all", "BUDGET": "100000"})


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="module")
def racing(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """With the check of races alone: of two waves, the first reads what nobody has written yet."""
    return Machine(tmp_path_factory.mktemp("emulator"), {"CHECKS": "races"})


def load(target: str) -> str:
    return "global_load_b32" if target in NEW else "global_load_dword"


def store(target: str) -> str:
    return "global_store_b32" if target in NEW else "global_store_dword"


def barrier(target: str) -> str:
    return "s_barrier_signal -1\ns_barrier_wait -1" if target == "gfx1200" else "s_barrier"


def lds_wait(target: str) -> str:
    return "s_wait_dscnt 0x0" if target == "gfx1200" else "s_waitcnt lgkmcnt(0)"


def lds_names(target: str) -> tuple[str, str]:
    return ("ds_store_b32", "ds_load_b32") if target in NEW else ("ds_write_b32", "ds_read_b32")


def first_writes_second_reads(target: str, wait: str) -> str:
    """Wave 0 writes to the LDS, then `wait` and what is filled in (a barrier), then the other waves read."""
    write, read = lds_names(target)
    return (
        "s_mov_b32 m0, -1\nv_lshlrev_b32_e32 v2, 2, v0\nv_and_b32_e32 v2, 0x7f, v2\nv_readfirstlane_b32 s24, v0\n"
        f"s_cmp_eq_u32 s24, 0\ns_cbranch_scc0 0f\n{write} v2, v4\n{wait}\n0:\n%s\n"
        f"s_cmp_eq_u32 s24, 0\ns_cbranch_scc1 1f\n{read} v12, v2\n{lds_wait(target)}\n1:"
    )


def load_wait(target: str, count: int = 0) -> str:
    return f"s_wait_loadcnt {count:#x}" if target == "gfx1200" else f"s_waitcnt vmcnt({count})"


@pytest.mark.parametrize("target", TARGETS)
def test_loads_and_stores_outside_allocations(unchecked: Machine, target: str) -> None:
    for what in (f"{load(target)} v12, v2, s[4:5]", f"{store(target)} v2, v4, s[4:5]"):
        kind = "load" if "load" in what else "store"
        with pytest.raises(
            HipError, match=rf"memory-range in kernel k at pc 0x\w+ .*{kind} of 4 bytes at 0x\w+ \(lane"
        ):
            unchecked.run_text(target, f"v_mov_b32_e32 v2, 0x1000000\n{what}", DATA)


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_lds_out_of_range(unchecked: Machine, target: str) -> None:
    write = "ds_store_b32" if target in NEW else "ds_write_b32"
    body = f"v_mov_b32_e32 v2, 254\ns_mov_b32 m0, -1\n{write} v2, v4"
    with pytest.raises(HipError, match=r"lds-range .*4 bytes at 254 of 256 bytes of LDS"):
        unchecked.run_text(target, body, DATA, lds_bytes=256)


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_scratch_out_of_range(unchecked: Machine, target: str) -> None:
    name = "scratch_store_b32" if target in NEW else "scratch_store_dword"
    with pytest.raises(HipError, match=r"scratch-range .*4 bytes at 16 of 16 bytes of private memory"):
        unchecked.run_text(target, f"v_mov_b32_e32 v2, 16\n{name} v2, v4, off", DATA, scratch_bytes=16)


def test_unknown_instructions_stop_with_name_and_place(unchecked: Machine) -> None:
    with pytest.raises(HipError, match=r"unknown-instruction in kernel k at pc 0x\w+ \(s_rfe_b64\).*gfx942.*0xbe80"):
        unchecked.run_text("gfx942", "s_rfe_b64 s[4:5]", DATA)


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_endless_loops_meet_the_budget(machine: Machine, target: str) -> None:
    with pytest.raises(HipError, match=r"budget .*100000 instructions were not enough; AMDNFS_EMULATE_BUDGET"):
        machine.run_text(target, "0:\ns_branch 0b", DATA)


@pytest.mark.parametrize("target", TARGETS)
def test_a_register_is_used_before_its_load_is_waited_for(machine: Machine, target: str) -> None:
    body = f"{load(target)} v2, v1, s[4:5]\n%s\nv_mov_b32_e32 v12, v2\n{load_wait(target)}"
    with pytest.raises(HipError, match=r"missing-wait .*v2 is used, but the load .* \((vmcnt|loadcnt)\)"):
        machine.run_text(target, body % "", DATA)
    with pytest.raises(HipError, match=r"missing-wait"):
        machine.run_text(target, body % load_wait(target, 1), DATA)
    np.testing.assert_array_equal(machine.run_text(target, body % load_wait(target), DATA)[:, 0], DATA[:, 0])


@pytest.mark.parametrize("target", TARGETS)
def test_loads_return_in_order(machine: Machine, target: str) -> None:
    loads = f"{load(target)} v2, v1, s[4:5]\n{load(target)} v3, v1, s[4:5] offset:4\n"
    body = loads + f"{load_wait(target, 1)}\nv_mov_b32_e32 v12, %s\n{load_wait(target)}"
    np.testing.assert_array_equal(machine.run_text(target, body % "v2", DATA)[:, 0], DATA[:, 0])
    with pytest.raises(HipError, match=r"missing-wait .*v3 is used"):
        machine.run_text(target, body % "v3", DATA)


@pytest.mark.parametrize("target", TARGETS)
def test_scalar_loads_need_a_wait_too(machine: Machine, target: str) -> None:
    name, wait = ("s_load_b32" if target in NEW else "s_load_dword"), lds_wait(target).replace("dscnt", "kmcnt")
    body = f"{name} s24, s[4:5], 0x8\n%s\nv_mov_b32_e32 v12, s24\n{wait}"
    with pytest.raises(HipError, match=r"missing-wait .*s24 is used, but the load .* \((lgkmcnt|kmcnt)\)"):
        machine.run_text(target, body % "", DATA)
    assert set(machine.run_text(target, body % wait, DATA)[:, 0]) == {DATA[0, 2]}


@pytest.mark.parametrize("target", TARGETS)
def test_waves_that_share_lds_without_a_barrier(machine: Machine, racing: Machine, target: str) -> None:
    """Each lane writes its dword and reads that of the lane 64 further on, of another wave."""
    write, read = lds_names(target)
    body = (
        f"s_mov_b32 m0, -1\nv_lshlrev_b32_e32 v2, 2, v0\nv_xor_b32_e32 v3, 0x100, v2\n{write} v2, v4\n"
        f"{lds_wait(target)}\n%s\n{read} v12, v3\n{lds_wait(target)}"
    )
    with pytest.raises(HipError, match=r"lds-race .*wave \d reads it and wave \d writes it, with no barrier"):
        racing.run_text(target, body % "", TWO_WAVES, lds_bytes=512)
    with pytest.raises(HipError, match=r"unwritten .*byte 256 of the LDS is read, and no wave .* has written it"):
        machine.run_text(target, body % "", TWO_WAVES, lds_bytes=512)
    got = machine.run_text(target, body % barrier(target), TWO_WAVES, lds_bytes=512)[:, 0]
    np.testing.assert_array_equal(got, np.roll(TWO_WAVES[:, 0], 64))


@pytest.mark.parametrize("target", TARGETS)
def test_a_wave_reads_what_another_wrote_without_a_barrier(machine: Machine, target: str) -> None:
    """The first wave writes, and only the second one reads."""
    body = first_writes_second_reads(target, lds_wait(target))
    with pytest.raises(HipError, match=r"lds-race .*wave \d writes it and wave \d reads it, with no barrier"):
        machine.run_text(target, body % "", TWO_WAVES, lds_bytes=512)
    machine.run_text(target, body % barrier(target), TWO_WAVES, lds_bytes=512)


@pytest.mark.parametrize("target", TARGETS)
def test_a_write_to_the_lds_is_not_waited_for_before_the_barrier(machine: Machine, target: str) -> None:
    body = first_writes_second_reads(target, "") % barrier(target)
    with pytest.raises(HipError, match=r"missing-wait .*byte 0 of .* wave 0, .* at pc 0x\w+, .* \((lgkmcnt|dscnt)\)"):
        machine.run_text(target, body, TWO_WAVES, lds_bytes=512)


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx950"])
def test_a_load_into_the_lds_needs_a_wait(machine: Machine, target: str) -> None:
    """Lane l's dword goes to M0 + 4 * l."""
    wait = lds_wait(target)
    body = f"s_mov_b32 m0, 0\n{LOAD_TO_LDS[target]}\n%s\nv_lshlrev_b32_e32 v2, 2, v0\nds_read_b32 v12, v2\n{wait}"
    with pytest.raises(HipError, match=r"missing-wait .*byte 0 of the LDS is read, .* did not wait for that \(vmcnt\)"):
        machine.run_text(target, body % "", DATA, lds_bytes=512)
    got = machine.run_text(target, body % load_wait(target), DATA, lds_bytes=512)[:, 0]
    np.testing.assert_array_equal(got, DATA[:, 0])


@pytest.mark.parametrize("target", [name for name in TARGETS if name != "gfx1200"])
def test_lds_and_scalar_loads_share_a_counter(machine: Machine, target: str) -> None:
    """One outstanding operation may be the older one of the LDS or the scalar load, which returns when it likes."""
    write, read = lds_names(target)
    scalar = "s_load_b32" if target in NEW else "s_load_dword"
    body = (
        f"s_mov_b32 m0, -1\nv_lshlrev_b32_e32 v2, 2, v0\n{write} v2, v4\n{read} v3, v2\n%s\n"
        f"s_waitcnt lgkmcnt(1)\nv_mov_b32_e32 v12, v3\n{lds_wait(target)}"
    )
    with pytest.raises(HipError, match=r"missing-wait .*v3 is used, but the load .* \(lgkmcnt\)"):
        machine.run_text(target, body % f"{scalar} s24, s[4:5], 0x8", DATA, lds_bytes=512)
    got = machine.run_text(target, body % f"{read} v5, v2", DATA, lds_bytes=512)[:, 0]
    np.testing.assert_array_equal(got, DATA[:, 0])


@pytest.mark.parametrize("target", TARGETS)
def test_flat_loads_count_twice(machine: Machine, target: str) -> None:
    """They may go to memory or to the LDS, so both counters must be waited for."""
    name = load(target).replace("global", "flat")
    address = "v_mov_b32_e32 v2, s4\nv_mov_b32_e32 v3, s5\n"
    body = f"{address}{name} v20, v[2:3]\n%s\nv_mov_b32_e32 v12, v20\n{load_wait(target)}\n{lds_wait(target)}"
    for wait, counter in ((load_wait(target), "lgkmcnt|dscnt"), (lds_wait(target), "vmcnt|loadcnt")):
        with pytest.raises(HipError, match=rf"missing-wait .*v20 is used, but the load .* \(({counter})\)"):
            machine.run_text(target, body % wait, DATA)
    both = machine.run_text(target, body % f"{load_wait(target)}\n{lds_wait(target)}", DATA)
    assert set(both[:, 0]) == {DATA[0, 0]}


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_unwritten_lds(machine: Machine, unchecked: Machine, target: str) -> None:
    write, read = lds_names(target)
    body = (
        f"s_mov_b32 m0, -1\nv_lshlrev_b32_e32 v2, 2, v0\n{write} v2, v4\n{read} v12, v2 offset:%d\n{lds_wait(target)}"
    )
    byte = 256 if target == "gfx90a" else 128
    with pytest.raises(HipError, match=rf"unwritten .*byte {byte} of the LDS is read, and no wave .* has written it"):
        machine.run_text(target, body % 4, DATA, lds_bytes=512)
    np.testing.assert_array_equal(machine.run_text(target, body % 0, DATA, lds_bytes=512)[:, 0], DATA[:, 0])
    assert unchecked.run_text(target, body % 4, DATA, lds_bytes=512)[63, 0] == 0xCDCDCDCD


@pytest.mark.parametrize("target", ONE_OF_EACH)
def test_unwritten_memory(machine: Machine, unchecked: Machine, target: str) -> None:
    """The output buffer is read before anything wrote it."""
    body = f"{load(target)} v12, v1, s[6:7]\n{load_wait(target)}"
    with pytest.raises(HipError, match=r"unwritten .*load of 4 bytes at byte 0 of allocation"):
        machine.run_text(target, body, DATA)
    assert set(unchecked.run_text(target, body, DATA)[:, 0]) == {0xFFFFFFFF}  # poisoned


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_waves_that_miss_a_barrier(machine: Machine, target: str) -> None:
    body = "v_readfirstlane_b32 s24, v0\ns_cmp_eq_u32 s24, 0\ns_cbranch_scc1 0f\ns_barrier\n0:"
    with pytest.raises(
        HipError, match=r"divergent-barrier .*\(s_barrier\).* wave 0: it has ended while wave 1 waits at this barrier"
    ):
        machine.run_text(target, body, TWO_WAVES)


@pytest.mark.parametrize("target", ["gfx942", "gfx1100"])
def test_waves_at_different_barriers(machine: Machine, target: str) -> None:
    body = (
        "v_readfirstlane_b32 s24, v0\ns_cmp_eq_u32 s24, 0\ns_cbranch_scc1 0f\ns_barrier\ns_branch 1f\n0:\ns_barrier\n1:"
    )
    with pytest.raises(HipError, match=r"divergent-barrier .*\(s_barrier\).* this barrier, wave 0 at the one at pc 0x"):
        machine.run_text(target, body, TWO_WAVES)


def test_a_wait_without_a_signal(machine: Machine) -> None:
    with pytest.raises(HipError, match=r"divergent-barrier .*has not signalled"):
        machine.run_text("gfx1200", "s_barrier_wait -1", DATA)


def test_more_private_memory_than_there_is(unchecked: Machine) -> None:
    """16 waves of 64 lanes with a MiB each."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    code = assemble("gfx942", kernel_text("gfx942", "", wave=64, scratch_bytes=1 << 20))
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 29), limits[1]))
    try:
        with pytest.raises(HipError, match="no-memory in kernel k: there is none for the 16 waves of a workgroup"):
            unchecked.run_object(code, random_bits(np.random.default_rng(3), 1024))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CHECKS", "races,speed", "AMDNFS_EMULATE_CHECKS: unknown check 'speed'; known are all, barriers, order"),
        ("TARGET", "gfx941", "AMDNFS_EMULATE_TARGET=gfx941 is no chip that the emulator knows"),
        ("BUDGET", "many", "AMDNFS_EMULATE_BUDGET=many is no number"),
        ("BUDGET", "0", "AMDNFS_EMULATE_BUDGET=0 is no number of instructions \\(1 to "),
        ("THREADS", "0", "AMDNFS_EMULATE_THREADS=0 is no number of threads \\(1 to 256\\)"),
        ("THREADS", "-4", "AMDNFS_EMULATE_THREADS=-4 is no number of threads"),
        ("POISON", "999", "AMDNFS_EMULATE_POISON=999 is no number of a byte \\(0 to 255\\)"),
        ("POISON", "abc", "AMDNFS_EMULATE_POISON=abc is no number of a byte"),
        ("LOG", "/nope/x", "AMDNFS_EMULATE_LOG=/nope/x cannot be written"),
        ("COUNTERS", "/nope/x", "AMDNFS_EMULATE_COUNTERS=/nope/x cannot be written"),
    ],
)
def test_settings_that_cannot_be_read(tmp_path: Path, name: str, value: str, message: str) -> None:
    with pytest.raises(HipError, match=message):
        Machine(tmp_path, {name: value})


def test_code_for_another_chip(tmp_path: Path) -> None:
    with pytest.raises(HipError, match=r"the code object is for gfx942, the emulated device is a gfx950"):
        Machine(tmp_path, {"TARGET": "gfx950"}).run_text("gfx942", "", DATA)


def test_damaged_code_objects(unchecked: Machine) -> None:
    with pytest.raises(HipError, match=r"damaged code object: it is no ELF file for AMD GPUs"):
        unchecked.run_object(bytes(4096), DATA)
