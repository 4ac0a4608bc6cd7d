"""Memory, LDS, lanes and matrix instructions against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.hipemu.machine import TARGETS, HipError, Machine, assemble, kernel_text, random_bits

pytest.importorskip("triton")

NEW = ("gfx1100", "gfx1150", "gfx1200")
LANE = np.arange(64)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"), {"CHECKS": "waits"})


@pytest.fixture
def data() -> np.ndarray:
    return random_bits(np.random.default_rng(3), 64)


def wait_all(target: str) -> str:
    if target == "gfx1200":
        return "s_wait_loadcnt 0x0\ns_wait_dscnt 0x0\ns_wait_kmcnt 0x0"
    return "s_waitcnt vmcnt(0) lgkmcnt(0)"


def spell(target: str, text: str) -> str:
    """Names of RDNA3 for RDNA3 and 4, the older ones elsewhere."""
    if target in NEW:
        return text
    for new, old in {
        "global_load_u8": "global_load_ubyte",
        "global_load_i16": "global_load_sshort",
        "global_load_d16_hi_b16": "global_load_short_d16_hi",
        "global_load_d16_b16": "global_load_short_d16",
        "global_load_b96": "global_load_dwordx3",
        "buffer_load_b64": "buffer_load_dwordx2",
        "buffer_load_b32": "buffer_load_dword",
        "scratch_store_b64": "scratch_store_dwordx2",
        "scratch_load_b32": "scratch_load_dword",
        "ds_store_b64": "ds_write_b64",
        "ds_store_b32": "ds_write_b32",
        "ds_load_b32": "ds_read_b32",
        "ds_load_2addr_b32": "ds_read2_b32",
        "ds_load_u16_d16_hi": "ds_read_u16_d16_hi",
        "global_atomic_add_u32": "global_atomic_add",
    }.items():
        text = text.replace(new, old)
    return text


@pytest.mark.parametrize("target", TARGETS)
def test_small_loads(machine: Machine, target: str, data: np.ndarray) -> None:
    body = """v_mov_b32_e32 v15, 0
    global_load_u8 v12, v1, s[4:5] offset:1
    global_load_i16 v13, v1, s[4:5] offset:2
    global_load_d16_b16 v15, v1, s[4:5] offset:4
    global_load_d16_hi_b16 v15, v1, s[4:5] offset:10
    global_load_b96 v[16:18], v1, s[4:5] offset:12
    """
    out = machine.run_text(target, spell(target, body) + wait_all(target), data)
    np.testing.assert_array_equal(out[:, 0], data[:, 0] >> 8 & 255)
    np.testing.assert_array_equal(out[:, 1].view(np.int32), data[:, 0].view(np.int32) >> 16)
    np.testing.assert_array_equal(out[:, 3], data[:, 1] & 0xFFFF | data[:, 2] & 0xFFFF0000)
    np.testing.assert_array_equal(out[:, 4:7], data[:, 3:6])


@pytest.mark.parametrize("target", TARGETS)
def test_buffer_range_checks(machine: Machine, target: str, data: np.ndarray) -> None:
    """ "Range checking": loads beyond NUM_RECORDS give 0, dword by dword; offsets are unsigned and do not wrap."""
    flags = "0x31004000" if target.startswith("gfx1") else "0x27000"
    body = f"""s_mov_b32 s24, s4
    s_mov_b32 s25, s5
    s_mov_b32 s26, 0x104
    s_mov_b32 s27, {flags}
    v_add_u32_e32 v3, -4, v1
    buffer_load_b64 v[12:13], v1, s[24:27], 0 offen
    buffer_load_b32 v14, v3, s[24:27], 0 offen offset:4
    """
    if not target.startswith("gfx9"):
        body = body.replace("v_add_u32_e32", "v_add_nc_u32_e32")
    body = body.replace(", 0 offen", ", null offen") if target == "gfx1200" else body
    out = machine.run_text(target, spell(target, body) + wait_all(target), data)
    at = 32 * LANE
    np.testing.assert_array_equal(out[:, 0], np.where(at + 4 <= 0x104, data[:, 0], 0))
    np.testing.assert_array_equal(out[:, 1], np.where(at + 8 <= 0x104, data[:, 1], 0))
    # Lane 0's vector offset is -4: out of range, though the sum is 0.
    np.testing.assert_array_equal(out[:, 2], np.where((LANE > 0) & (at + 4 <= 0x104), data[:, 0], 0))


@pytest.mark.parametrize("target", TARGETS)
def test_scratch_is_private(machine: Machine, target: str, data: np.ndarray) -> None:
    body = f"""v_mov_b32_e32 v2, 8
    scratch_store_b64 v2, v[4:5], off
    {wait_all(target)}
    {"s_wait_storecnt 0x0" if target == "gfx1200" else "s_nop 0"}
    scratch_load_b32 v12, v2, off offset:4
    """
    out = machine.run_text(target, spell(target, body) + wait_all(target), data, scratch_bytes=16)
    np.testing.assert_array_equal(out[:, 0], data[:, 1])


@pytest.mark.parametrize("target", ["gfx90a", "gfx1030"])
def test_negative_offsets_of_private_memory(machine: Machine, target: str, data: np.ndarray) -> None:
    """Their sum wraps: LLVM adds 16 to a vector offset of -12 (AMDGPUISelDAGToDAG.cpp, SelectMUBUFScratchOffen)."""
    wave = 64 if target == "gfx90a" else 32
    body = """v_mov_b32_e32 v2, -12
    v_mov_b32_e32 v3, 0
    buffer_store_dword v4, v2, s[0:3], 0 offen offset:16
    buffer_store_dword v5, off, s[0:3], 0 offset:8
    s_waitcnt vmcnt(0)
    buffer_load_dword v12, v3, s[0:3], 0 offen offset:4
    buffer_load_dword v13, v2, s[0:3], 0 offen offset:20
    s_waitcnt vmcnt(0)
    """

    def run(text: str) -> np.ndarray:
        made = kernel_text(target, text, wave=wave, scratch_bytes=16)
        made = made.replace("s_load_dwordx4 s[4:7], s[0:1], 0x0", "s_load_dwordx4 s[4:7], s[4:5], 0x0")
        first = ".amdhsa_kernel k\n"
        code = assemble(target, made.replace(first, f"{first}  .amdhsa_user_sgpr_private_segment_buffer 1\n"))
        return machine.run_object(code, data)

    np.testing.assert_array_equal(run(body)[:, :2], data[:, :2])
    with pytest.raises(HipError, match=r"scratch-range .*4 bytes at 4294967292 of 16 bytes of private memory"):
        run(body.replace("offset:20", "offset:8"))


@pytest.mark.parametrize("target", TARGETS)
def test_lds(machine: Machine, target: str, data: np.ndarray) -> None:
    body = f"""s_mov_b32 m0, -1
    v_lshlrev_b32_e32 v2, 3, v0
    v_xor_b32_e32 v3, 0x18, v2
    v_mov_b32_e32 v14, 0
    ds_store_b64 v2, v[4:5]
    {wait_all(target)}
    ds_load_2addr_b32 v[12:13], v3 offset0:1 offset1:0
    ds_load_u16_d16_hi v14, v2 offset:2
    """
    wave = {"wave": 64} if target.startswith("gfx9") else {}
    out = machine.run_text(target, spell(target, body) + wait_all(target), data, lds_bytes=512, **wave)
    np.testing.assert_array_equal(out[:, :2], data[LANE ^ 3, 1::-1])
    np.testing.assert_array_equal(out[:, 2], data[:, 0] & 0xFFFF0000)


@pytest.mark.parametrize("target", TARGETS)
def test_lanes(machine: Machine, target: str, data: np.ndarray) -> None:
    lanes = 64 if target.startswith("gfx9") else 32
    body = """v_lshlrev_b32_e32 v2, 2, v0
    v_xor_b32_e32 v2, 0x14, v2
    ds_bpermute_b32 v12, v2, v4
    ds_swizzle_b32 v13, v4 offset:swizzle(SWAP,8)
    v_mov_b32_dpp v14, v4 quad_perm:[3,2,1,0] row_mask:0xf bank_mask:0xf
    v_mov_b32_e32 v15, 7
    v_mov_b32_dpp v15, v4 row_shr:1 row_mask:0xf bank_mask:0xf
    v_readlane_b32 s24, v4, 9
    v_mov_b32_e32 v16, s24
    v_mbcnt_lo_u32_b32 v17, -1, 0
    """
    out = machine.run_text(target, body + wait_all(target), data)
    np.testing.assert_array_equal(out[:, 0], data[LANE ^ 5, 0])
    np.testing.assert_array_equal(out[:, 1], data[LANE ^ 8, 0])
    np.testing.assert_array_equal(out[:, 2], data[LANE ^ 3, 0])
    np.testing.assert_array_equal(out[:, 3], np.where(LANE % 16 == 0, 7, np.roll(data[:, 0], 1)))
    np.testing.assert_array_equal(out[:, 4], data[LANE // lanes * lanes + 9, 0])
    np.testing.assert_array_equal(out[:, 5], np.minimum(LANE % lanes, 32))


@pytest.mark.parametrize("target", ["gfx1030", *NEW])
def test_dpp8_and_permlane(machine: Machine, target: str, data: np.ndarray) -> None:
    body = """v_mov_b32_dpp v12, v4 dpp8:[7,6,5,4,3,2,1,0]
    s_mov_b32 s24, 0x76543210
    s_mov_b32 s25, 0xfedcba98
    v_permlanex16_b32 v13, v4, s24, s25
    v_permlane16_b32 v14, v4, s25, s24
    """
    out = machine.run_text(target, body, data)
    np.testing.assert_array_equal(out[:, 0], data[LANE ^ 7, 0])
    np.testing.assert_array_equal(out[:, 1], data[LANE ^ 16, 0])
    np.testing.assert_array_equal(out[:, 2], data[LANE ^ 8, 0])


@pytest.mark.parametrize("target", TARGETS)
def test_atomics(machine: Machine, target: str, data: np.ndarray) -> None:
    """All lanes add to one dword; each gets a value of its own back."""
    data[0, 7] = 100
    returning = "th:TH_ATOMIC_RETURN" if target == "gfx1200" else "sc0" if target in ("gfx942", "gfx950") else "glc"
    body = f"""v_mov_b32_e32 v2, 28
    v_mov_b32_e32 v3, 2
    global_atomic_add_u32 v12, v2, v3, s[4:5] {returning}
    """
    out = machine.run_text(target, spell(target, body) + wait_all(target), data)
    np.testing.assert_array_equal(np.sort(out[:, 0]), 100 + 2 * LANE)


def halves(data: np.ndarray, columns: slice) -> np.ndarray:
    return data[:, columns].copy().view(np.float16).astype(np.float32)


@pytest.mark.parametrize("target", ["gfx90a", "gfx942", "gfx950"])
def test_mfma(machine: Machine, target: str) -> None:
    """ "v_mfma_f32_32x32x8_f16": lane l has row l % 32, depths 4 * (l / 32) on; results 16 a lane in groups of four."""
    values = np.random.default_rng(4).normal(0, 1, (64, 16)).astype(np.float16)
    data = values.view(np.uint32)
    name = "v_mfma_f32_32x32x8f16" if target == "gfx90a" else "v_mfma_f32_32x32x8_f16"
    out = machine.run_text(target, f"{name} v[20:35], v[4:5], v[6:7], 0\ns_nop 15\n" + moves(20), data)
    a = values[:, 0:4].astype(np.float32).reshape(2, 32, 4).transpose(1, 0, 2).reshape(32, 8)
    b = values[:, 4:8].astype(np.float32).reshape(2, 32, 4).transpose(1, 0, 2).reshape(32, 8)
    wanted = (a @ b.T).reshape(4, 2, 4, 32)  # [group, lane / 32, register, column]
    got = out.view(np.float32).reshape(2, 32, 2, 4).transpose(2, 0, 3, 1)
    np.testing.assert_allclose(got, wanted[:2], rtol=1e-5, atol=1e-5)


def moves(first: int) -> str:
    return "\n".join(f"v_mov_b32_e32 v{12 + i}, v{first + i}" for i in range(8))


def test_mfma_of_bytes(machine: Machine) -> None:
    data = random_bits(np.random.default_rng(5), 64)
    out = machine.run_text("gfx942", "v_mfma_i32_16x16x32_i8 v[12:15], v[4:5], v[6:7], 0", data)
    a, b = (
        data[:, i : i + 2].copy().view(np.int8).astype(int).reshape(4, 16, 8).transpose(1, 0, 2).reshape(16, 32)
        for i in (0, 2)
    )
    np.testing.assert_array_equal(
        out[:, :4].view(np.int32).reshape(4, 16, 4).transpose(0, 2, 1).reshape(16, 16), a @ b.T
    )


def test_wmma_of_rdna3(machine: Machine) -> None:
    """ "WMMA": lanes 0-15 hold rows of A and columns of B, lanes 16-31 the same again; register r is row 2r + l / 16."""
    values = np.random.default_rng(6).normal(0, 1, (64, 16)).astype(np.float16)
    values[16:32] = values[:16]
    body = "v_mov_b32_e32 v20, v4\n" + "\n".join(f"v_mov_b32_e32 v{20 + i}, v{4 + i}" for i in range(8))
    body += "\nv_wmma_f32_16x16x16_f16 v[12:19], v[4:11], v[20:27], v[28:35]"
    zero = "\n".join(f"v_mov_b32_e32 v{28 + i}, 0" for i in range(8)) + "\n"
    out = machine.run_text("gfx1100", zero + body, values.view(np.uint32))[:32].view(np.float32)
    a = values[:16].astype(np.float32)
    np.testing.assert_allclose(out.reshape(2, 16, 8).transpose(2, 0, 1).reshape(16, 16), a @ a.T, rtol=1e-5, atol=1e-5)


def test_wmma_of_rdna4(machine: Machine) -> None:
    """RDNA4: lane group g holds depths 8g on; its results are rows 8g on."""
    values = np.random.default_rng(7).normal(0, 1, (64, 16)).astype(np.float16)
    zero = "\n".join(f"v_mov_b32_e32 v{28 + i}, 0" for i in range(8)) + "\n"
    body = "v_wmma_f32_16x16x16_f16 v[12:19], v[4:7], v[8:11], v[28:35]"
    out = machine.run_text("gfx1200", zero + body, values.view(np.uint32))[:32].view(np.float32)
    a, b = (
        values[:32, i : i + 8].astype(np.float32).reshape(2, 16, 8).transpose(1, 0, 2).reshape(16, 16) for i in (0, 8)
    )
    np.testing.assert_allclose(out.reshape(2, 16, 8).transpose(0, 2, 1).reshape(16, 16), a @ b.T, rtol=1e-5, atol=1e-5)


def test_the_wave_number_of_rdna4(machine: Machine) -> None:
    """TTMP8 bits 29:25 hold the wave's number in its workgroup: programs read it there."""
    out = machine.run_text(
        "gfx1200", "s_bfe_u32 s24, ttmp8, 0x50019\nv_mov_b32_e32 v12, s24", random_bits(np.random.default_rng(8), 96)
    )
    np.testing.assert_array_equal(out[:, 0], np.arange(96) // 32)


def test_workgroups_on_threads(tmp_path: Path, data: np.ndarray) -> None:
    """Many workgroups add to one counter."""
    data[0, 7] = 0
    body = "v_mov_b32_e32 v2, 28\nv_mov_b32_e32 v3, 1\nglobal_atomic_add v12, v2, v3, s[4:5] sc0\ns_waitcnt vmcnt(0)"
    out = Machine(tmp_path, {"THREADS": "3"}).run_text("gfx942", body, data, groups=200)
    assert out[:, 0].max() < 200 * 64


@pytest.mark.parametrize(("target", "fnuz"), [("gfx942", True), ("gfx950", False), ("gfx1200", False)])
def test_fp8(machine: Machine, target: str, fnuz: bool) -> None:
    """ "V_CVT_F32_FP8", "V_CVT_PK_FP8_F32": OCP formats but for CDNA3, whose bias is one greater."""
    import ml_dtypes

    kinds = (
        (ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz)
        if fnuz
        else (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
    )
    data = random_bits(np.random.default_rng(9), 64)
    data[:, 1:3] = np.random.default_rng(10).normal(0, 20, (64, 2)).astype(np.float32).view(np.uint32)
    for kind, dtype in zip(("fp8", "bf8"), kinds, strict=True):
        body = f"v_cvt_f32_{kind}_e32 v12, v4\nv_mov_b32_e32 v13, 0\nv_cvt_pk_{kind}_f32 v13, v5, v6"
        body += f"\nv_cvt_pk_{kind}_f32 v13, v6, v5 op_sel:[0,0,1]"
        out = machine.run_text(target, body, data)
        wanted = data[:, 0].astype(np.uint8).view(dtype).astype(np.float32)
        np.testing.assert_array_equal(out[:, 0].view(np.float32), wanted)
        floats = data[:, 1:3].copy().view(np.float32)[:, [0, 1, 1, 0]]
        np.testing.assert_array_equal(out[:, 1:2].copy().view(np.uint8), floats.astype(dtype).view(np.uint8))
