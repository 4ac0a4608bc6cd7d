"""Scalar operations, EXEC and branches against Python, and the MODE register."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.hipemu.machine import TARGETS, Machine, random_bits

pytest.importorskip("triton")

NEW = ("gfx1100", "gfx1150", "gfx1200")
M32, M64 = 2**32 - 1, 2**64 - 1
DATA = random_bits(np.random.default_rng(11), 64)
A, B, C, D = (int(value) for value in DATA[0, :4])
WIDE_A, WIDE_B = A | B << 32, C | D << 32


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"))


def signed(value: int, bits: int = 32) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


# Instruction on s16-s19 with results in s24 (and s25), and what it gives: low, high, SCC.
NARROW = [
    ("s_add_u32 s24, s16, s17", (A + B) & M32, (A + B) >> 32),
    ("s_sub_u32 s24, s16, s17", (A - B) & M32, int(B > A)),
    ("s_add_i32 s24, s16, s17", (A + B) & M32, int(not -(2**31) <= signed(A) + signed(B) < 2**31)),
    ("s_and_b32 s24, s16, s17", A & B, int(A & B != 0)),
    ("s_lshl_b32 s24, s16, 7", A << 7 & M32, 1),
    ("s_ashr_i32 s24, s16, 7", signed(A) >> 7 & M32, 1),
    ("s_bfe_u32 s24, s16, 0x90007", A >> 7 & 511, int(A >> 7 & 511 != 0)),
    ("s_bfe_i32 s24, s16, 0x90007", signed(A >> 7 & 511, 9) & M32, int(A >> 7 & 511 != 0)),
    ("s_min_i32 s24, s16, s17", min(signed(A), signed(B)) & M32, int(signed(A) < signed(B))),
    ("s_max_u32 s24, s16, s17", max(A, B), int(A > B)),
    ("s_abs_i32 s24, s16", abs(signed(A)), 1),
    ("s_bcnt1_i32_b32 s24, s16", A.bit_count(), 1),
    ("s_absdiff_i32 s24, s16, s17", abs(signed(A) - signed(B)) & M32, 1),
]
KEEPS_SCC = [
    ("s_mul_i32 s24, s16, s17", A * B & M32),
    ("s_mul_hi_u32 s24, s16, s17", A * B >> 32),
    ("s_brev_b32 s24, s16", int(f"{A:032b}"[::-1], 2)),
    ("s_sext_i32_i8 s24, s16", signed(A & 255, 8) & M32),
    ("s_pack_ll_b32_b16 s24, s16, s17", A & 0xFFFF | (B & 0xFFFF) << 16),
    ("s_pack_hh_b32_b16 s24, s16, s17", A >> 16 | B & 0xFFFF0000),
    ("s_movk_i32 s24, 0x8001", 0xFFFF8001),
    ("s_mov_b32 s24, -5", M32 - 4),
    ("s_cselect_b32 s24, s16, s17", A),
]
WIDE = [
    ("s_and_b64 s[24:25], s[16:17], s[18:19]", WIDE_A & WIDE_B),
    ("s_xor_b64 s[24:25], s[16:17], s[18:19]", WIDE_A ^ WIDE_B),
    ("s_lshr_b64 s[24:25], s[16:17], 11", WIDE_A >> 11),
    ("s_lshl_b64 s[24:25], s[16:17], 11", WIDE_A << 11 & M64),
    ("s_ashr_i64 s[24:25], s[16:17], 11", signed(WIDE_A, 64) >> 11 & M64),
    ("s_not_b64 s[24:25], s[16:17]", ~WIDE_A & M64),
    ("s_bfm_b64 s[24:25], 9, 30", 511 << 30),
    ("s_bfe_u64 s[24:25], s[16:17], 0x210007", WIDE_A >> 7 & (2**33 - 1)),
]
SHOW = "\nv_mov_b32_e32 v12, s24\nv_mov_b32_e32 v13, s25\ns_cselect_b32 s26, 1, 0\nv_mov_b32_e32 v14, s26"


@pytest.mark.parametrize("target", TARGETS)
def test_narrow(machine: Machine, target: str) -> None:
    for text, wanted, scc in NARROW:
        out = machine.run_text(target, f"s_cmp_eq_u32 s16, {(1 - scc and 's17') or 's16'}\n{text}{SHOW}", DATA)
        assert (int(out[0, 0]), int(out[0, 2])) == (wanted, scc), text


@pytest.mark.parametrize("target", TARGETS)
def test_what_keeps_scc(machine: Machine, target: str) -> None:
    for text, wanted in KEEPS_SCC:
        out = machine.run_text(target, f"s_cmp_eq_u32 s16, s16\n{text}{SHOW}", DATA)
        assert (int(out[0, 0]), int(out[0, 2])) == (wanted, 1), text


@pytest.mark.parametrize("target", TARGETS)
def test_wide(machine: Machine, target: str) -> None:
    for text, wanted in WIDE:
        out = machine.run_text(target, text + SHOW, DATA)
        assert int(out[0, 0]) | int(out[0, 1]) << 32 == wanted, text


@pytest.mark.parametrize("target", TARGETS)
def test_exec_and_loops(machine: Machine, target: str) -> None:
    """Each lane counts to its number mod 16; lanes leave the loop one after the other."""
    wide = target.startswith("gfx9")
    size, vcc, execute = ("b64", "vcc", "exec") if wide else ("b32", "vcc_lo", "exec_lo")
    saved, not1 = ("s[24:25]" if wide else "s24"), ("and_not1" if target in NEW else "andn2")
    add = "v_add_u32_e32" if wide else "v_add_nc_u32_e32"
    body = f"""v_mov_b32_e32 v12, 0
    v_and_b32_e32 v2, 15, v0
    s_mov_{size} {saved}, {execute}
    0:
    v_cmp_lt_u32_e32 {vcc}, v12, v2
    s_and_{size} {execute}, {execute}, {vcc}
    s_cbranch_execz 1f
    {add} v12, 1, v12
    s_branch 0b
    1:
    s_mov_{size} {execute}, {saved}
    v_cmp_gt_u32_e32 {vcc}, 8, v2
    s_and_saveexec_{size} {saved}, {vcc}
    v_mov_b32_e32 v13, 1
    s_{not1}_saveexec_{size} {saved}, {saved}
    v_mov_b32_e32 v13, 2
    s_or_{size} {execute}, {execute}, {saved}
    """
    out = machine.run_text(
        target,
        body.replace(f"s_{not1}_saveexec_{size} {saved}, {saved}", f"s_{not1}_saveexec_{size} {saved}, {saved}"),
        DATA,
    )
    number = np.arange(64) % 16
    np.testing.assert_array_equal(out[:, 0][number < 8], number[number < 8])


MODE = [
    # "FP_ROUND: 0 nearest even, 1 towards +infinity, 2 towards -infinity, 3 towards zero".
    (0xF0, [0x3F800000, 0x33000000], 0x3F800000),
    (0xF1, [0x3F800000, 0x33000000], 0x3F800001),
    (0xF2, [0xBF800000, 0xB3000000], 0xBF800001),
    (0xF3, [0x3F7FFFFF, 0x32800000], 0x3F7FFFFF),
    # "FP_DENORM: 0 flush in and out, 1 allow in, flush out, 2 flush in, allow out, 3 allow both".
    (0xF0, [0x00000001, 0x00000001], 0x00000002),
    (0xC0, [0x00000001, 0x00000001], 0x00000000),
    (0xD0, [0x00000001, 0x00000001], 0x00000000),
    (0xE0, [0x00000001, 0x00000001], 0x00000000),
    (0xD0, [0x007FFFFF, 0x00000001], 0x00800000),
    (0xE0, [0x00800001, 0x80800000], 0x00000001),
]


@pytest.mark.parametrize(("mode", "operands", "wanted"), MODE)
@pytest.mark.parametrize("target", TARGETS)
def test_mode(machine: Machine, target: str, mode: int, operands: list[int], wanted: int) -> None:
    """ "Mode register": bits 3:0 round, 7:4 denormals; f32 in the lower two of each."""
    data = DATA.copy()
    data[:, :2] = operands
    body = f"s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 8), {mode:#x}\nv_add_f32_e32 v12, v4, v5"
    assert f"{machine.run_text(target, body, data)[0, 0]:#x}" == f"{wanted:#x}"
