"""How addresses are formed, and atomics of floats and of the LDS."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.hipemu.machine import TARGETS, Machine, random_bits, random_floats

pytest.importorskip("triton")

NEW = ("gfx1100", "gfx1150", "gfx1200")
CDNA = ("gfx90a", "gfx942", "gfx950")
LANE = np.arange(64)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"))


def wait_all(target: str) -> str:
    if target == "gfx1200":
        return "\ns_wait_loadcnt 0x0\ns_wait_dscnt 0x0\ns_wait_kmcnt 0x0\ns_wait_storecnt 0x0"
    return "\ns_waitcnt vmcnt(0) lgkmcnt(0)"


def carry(target: str) -> str:
    """v[2:3] = s[4:5] + v1."""
    if target in CDNA:
        return "v_mov_b32_e32 v3, s5\nv_add_co_u32_e32 v2, vcc, s4, v1\nv_addc_co_u32_e32 v3, vcc, 0, v3, vcc\n"
    return "v_add_co_u32 v2, vcc_lo, s4, v1\nv_mov_b32_e32 v3, s5\nv_add_co_ci_u32_e32 v3, vcc_lo, 0, v3, vcc_lo\n"


@pytest.mark.parametrize("target", TARGETS)
def test_vector_addresses(machine: Machine, target: str) -> None:
    data = random_bits(np.random.default_rng(20), 64)
    name = "load_b32" if target in NEW else "load_dword"
    body = f"global_{name} v12, v[2:3], off offset:8\nglobal_{name} v13, v1, s[4:5] offset:12\nflat_{name} v14, v[2:3]"
    out = machine.run_text(target, carry(target) + body + wait_all(target), data)
    np.testing.assert_array_equal(out[:, :3], data[:, [2, 3, 0]])


@pytest.mark.parametrize("target", TARGETS)
def test_negative_offsets_of_global_memory(machine: Machine, target: str) -> None:
    data = random_bits(np.random.default_rng(21), 64)
    name = "load_b32" if target in NEW else "load_dword"
    add = "v_add_u32_e32" if target in CDNA else "v_add_nc_u32_e32"
    body = f"{add} v2, 16, v1\nglobal_{name} v12, v2, s[4:5] offset:-12"
    np.testing.assert_array_equal(machine.run_text(target, body + wait_all(target), data)[:, 0], data[:, 1])


@pytest.mark.parametrize("target", TARGETS)
def test_indexed_buffers(machine: Machine, target: str) -> None:
    """ "Structured buffers": address = base + index * stride + offset; beyond NUM_RECORDS elements they read 0."""
    data = random_bits(np.random.default_rng(22), 64)
    name, zero = (
        ("load_b32", "null") if target == "gfx1200" else ("load_b32", "0") if target in NEW else ("load_dword", "0")
    )
    # CDNA without swizzling counts bytes; RDNA with OOB_SELECT 1 counts elements.
    records, flags = ("40 * 32", "0x27000") if target in CDNA else ("40", "0x11014000")
    body = f"""s_mov_b32 s24, s4
    s_or_b32 s25, s5, 32 << 16
    s_mov_b32 s26, {records}
    s_mov_b32 s27, {flags}
    buffer_{name} v12, v0, s[24:27], {zero} idxen offset:20
    """
    out = machine.run_text(target, body + wait_all(target), data)
    np.testing.assert_array_equal(out[:, 0], np.where(LANE < 40, data[:, 5], 0))


@pytest.mark.parametrize("target", TARGETS)
def test_lds_atomics(machine: Machine, target: str) -> None:
    data = random_bits(np.random.default_rng(23), 64)
    write = "ds_store_b32" if target in NEW else "ds_write_b32"
    body = f"""s_mov_b32 m0, -1
    v_mov_b32_e32 v2, 4
    v_mov_b32_e32 v3, 0
    {write} v2, v3
    ds_add_rtn_u32 v12, v2, v4
    ds_max_rtn_u32 v13, v2, v5
    """
    out = machine.run_text(target, body + wait_all(target), data, lds_bytes=64)
    lanes = 64 if target in CDNA else 32
    first = data[:lanes]
    np.testing.assert_array_equal(out[:lanes, 0], np.cumsum(np.r_[0, first[:-1, 0]], dtype=np.uint32))
    total = first[:, 0].sum(dtype=np.uint32)
    np.testing.assert_array_equal(out[:lanes, 1], np.maximum.accumulate(np.r_[total, first[:-1, 1]]))


def test_float_atomics(machine: Machine) -> None:
    """Lanes add in order here; on hardware in any."""
    data = random_floats(np.random.default_rng(24), 64)
    data[0, 6:8] = 0
    body = "v_mov_b32_e32 v2, 24\nglobal_atomic_add_f32 v12, v2, v4, s[4:5] sc0"
    out = machine.run_text("gfx942", body + wait_all("gfx942"), data)
    sums = np.cumsum(np.r_[np.float32(0), data[:-1, 0].view(np.float32)], dtype=np.float32)
    np.testing.assert_allclose(out[:, 0].view(np.float32), sums, rtol=1e-5, atol=1e-5)


def test_double_atomics(machine: Machine) -> None:
    data = random_bits(np.random.default_rng(25), 64)
    data[0, 6:8] = 0
    body = """v_mov_b32_e32 v2, 24
    v_cvt_f64_i32_e32 v[8:9], v0
    global_atomic_add_f64 v[12:13], v2, v[8:9], s[4:5] sc0
    """
    out = machine.run_text("gfx942", body + wait_all("gfx942"), data)
    np.testing.assert_array_equal(out[:, :2].copy().view(np.float64)[:, 0], np.cumsum(np.r_[0, LANE[:-1]]))


@pytest.mark.parametrize("target", CDNA)
def test_accumulation_registers(machine: Machine, target: str) -> None:
    data = random_bits(np.random.default_rng(26), 64)
    body = "v_accvgpr_write_b32 a5, v4\ns_nop 4\nv_accvgpr_read_b32 v12, a5\nglobal_load_dwordx2 a[6:7], v1, s[4:5] offset:8"
    body += wait_all(target) + "\nv_accvgpr_read_b32 v13, a7"
    out = machine.run_text(target, body, data)
    np.testing.assert_array_equal(out[:, :2], data[:, [0, 3]])


@pytest.mark.parametrize("target", CDNA)
def test_sdwa(machine: Machine, target: str) -> None:
    """ "SDWA": selects of source and destination bytes and words; CDNA has it on all chips."""
    data = random_bits(np.random.default_rng(27), 64)
    body = """v_mov_b32_e32 v12, v6
    v_add_u32_sdwa v12, v4, v5 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_2 src1_sel:WORD_1
    v_mov_b32_sdwa v13, sext(v4) dst_sel:DWORD dst_unused:UNUSED_PAD src0_sel:BYTE_1
    """
    out = machine.run_text(target, body, data)
    total = (data[:, 0] >> 16 & 255) + (data[:, 1] >> 16) & 0xFFFF
    np.testing.assert_array_equal(out[:, 0], total << 16 | data[:, 2] & 0xFFFF)
    np.testing.assert_array_equal(out[:, 1].view(np.int32), (data[:, 0] >> 8).astype(np.int8))
