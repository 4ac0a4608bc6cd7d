"""Vector arithmetic against numpy, on one chip of each generation; meanings as the ISA documents give them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.hipemu.machine import TARGETS, U32, Machine, random_bits, random_floats

pytest.importorskip("triton")

RDNA = ("gfx1030", "gfx1100", "gfx1150", "gfx1200")
CDNA = ("gfx90a", "gfx942", "gfx950")
NEW = ("gfx1100", "gfx1150", "gfx1200")
Reference = Callable[[U32], object]


def f(x: U32, i: int) -> NDArray[np.float32]:
    return x[:, i].view(np.float32)


def u(x: U32, i: int) -> U32:
    return x[:, i]


def s(x: U32, i: int) -> NDArray[np.int64]:
    return x[:, i].view(np.int32).astype(np.int64)


def w(x: U32, i: int) -> NDArray[np.uint64]:
    return x[:, i].astype(np.uint64)


def h(x: U32, i: int, half: int = 0) -> NDArray[np.float32]:
    return x[:, i].copy().view(np.float16).reshape(-1, 2)[:, half].astype(np.float32)


def f16(values: object) -> U32:
    return np.asarray(values).astype(np.float16).view(np.uint16).astype(np.uint32)


def pair(low: object, high: object) -> U32:
    return np.asarray(low, np.uint32) & 0xFFFF | (np.asarray(high, np.uint32) & 0xFFFF) << 16


# Instruction, reference over the eight input dwords (v4-v11), chips.
INTEGERS: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("v_mov_b32_e32 v12, v4", lambda x: u(x, 0), TARGETS),
    ("v_and_b32_e32 v12, v4, v5", lambda x: u(x, 0) & u(x, 1), TARGETS),
    ("v_or_b32_e32 v12, 0x12345, v5", lambda x: 0x12345 | u(x, 1), TARGETS),
    ("v_xnor_b32_e32 v12, v4, v5", lambda x: ~(u(x, 0) ^ u(x, 1)), TARGETS),
    ("v_lshlrev_b32_e32 v12, v4, v5", lambda x: u(x, 1) << (u(x, 0) & 31), TARGETS),
    ("v_ashrrev_i32_e32 v12, 5, v5", lambda x: s(x, 1) >> 5, TARGETS),
    ("v_bfrev_b32_e32 v12, v4", lambda x: [int(f"{v:032b}"[::-1], 2) for v in x[:, 0]], TARGETS),
    ("v_mul_lo_u32 v12, v4, v5", lambda x: u(x, 0) * u(x, 1), TARGETS),
    ("v_mul_hi_u32 v12, v4, v5", lambda x: w(x, 0) * w(x, 1) >> np.uint64(32), TARGETS),
    ("v_mul_hi_i32 v12, v4, v5", lambda x: s(x, 0) * s(x, 1) >> 32, TARGETS),
    ("v_mul_u32_u24_e32 v12, v4, v5", lambda x: (u(x, 0) & 0xFFFFFF) * (u(x, 1) & 0xFFFFFF), TARGETS),
    ("v_mad_u32_u24 v12, v4, v5, v6", lambda x: (u(x, 0) & 0xFFFFFF) * (u(x, 1) & 0xFFFFFF) + u(x, 2), TARGETS),
    ("v_max_i32_e32 v12, v4, v5", lambda x: np.maximum(s(x, 0), s(x, 1)), TARGETS),
    ("v_min_u32_e32 v12, v4, v5", lambda x: np.minimum(u(x, 0), u(x, 1)), TARGETS),
    ("v_med3_i32 v12, v4, v5, v6", lambda x: np.median(np.stack([s(x, i) for i in range(3)]), 0), TARGETS),
    ("v_max3_u32 v12, v4, v5, v6", lambda x: x[:, :3].max(1), TARGETS),
    ("v_lshl_add_u32 v12, v4, 3, v5", lambda x: (u(x, 0) << 3) + u(x, 1), TARGETS),
    ("v_add_lshl_u32 v12, v4, v5, 3", lambda x: (u(x, 0) + u(x, 1)) << 3, TARGETS),
    ("v_and_or_b32 v12, v4, v5, v6", lambda x: u(x, 0) & u(x, 1) | u(x, 2), TARGETS),
    ("v_add3_u32 v12, v4, v5, v6", lambda x: u(x, 0) + u(x, 1) + u(x, 2), TARGETS),
    ("v_bfe_u32 v12, v4, 7, 9", lambda x: u(x, 0) >> 7 & 511, TARGETS),
    ("v_bfe_i32 v12, v4, 7, 9", lambda x: ((s(x, 0) >> 7 & 511) ^ 256) - 256, TARGETS),
    ("v_bfi_b32 v12, v4, v5, v6", lambda x: u(x, 0) & u(x, 1) | ~u(x, 0) & u(x, 2), TARGETS),
    ("v_alignbit_b32 v12, v4, v5, 11", lambda x: (w(x, 0) << np.uint64(32) | w(x, 1)) >> np.uint64(11), TARGETS),
    ("v_alignbyte_b32 v12, v4, v5, 3", lambda x: (w(x, 0) << np.uint64(32) | w(x, 1)) >> np.uint64(24), TARGETS),
    ("v_perm_b32 v12, v4, v5, 0x7020c01".replace("0x7020c01", "s16"), lambda x: perm(x, int(x[0, 0])), TARGETS),
    ("v_bcnt_u32_b32 v12, v4, v5", lambda x: [bin(a).count("1") + int(b) for a, b in x[:, :2]], TARGETS),
    ("v_sad_u8 v12, v4, v5, v6", lambda x: sad(x), TARGETS),
    ("v_cvt_f32_ubyte2_e32 v12, v4", lambda x: (u(x, 0) >> 16 & 255).astype(np.float32).view(np.uint32), TARGETS),
    ("v_add_u32_e64 v12, v4, v5 clamp", lambda x: np.minimum(w(x, 0) + w(x, 1), np.uint64(0xFFFFFFFF)), CDNA),
    ("v_add_nc_u32_e64 v12, v4, v5 clamp", lambda x: np.minimum(w(x, 0) + w(x, 1), np.uint64(0xFFFFFFFF)), RDNA),
    ("v_sub_i32 v12, v4, v5 clamp", lambda x: np.clip(s(x, 0) - s(x, 1), -(2**31), 2**31 - 1), CDNA),
    ("v_cmp_lt_i32_e32 vcc, v4, v5\nv_cndmask_b32_e32 v12, v6, v7, vcc", lambda x: select(x), CDNA),
    ("v_cmp_lt_i32_e32 vcc_lo, v4, v5\nv_cndmask_b32_e32 v12, v6, v7, vcc_lo", lambda x: select(x), RDNA),
    ("v_lshrrev_b64 v[12:13], 7, v[4:5]", lambda x: (w(x, 1) << np.uint64(32) | w(x, 0)) >> np.uint64(7), TARGETS),
    ("v_xad_u32 v12, v4, v5, v6", lambda x: (u(x, 0) ^ u(x, 1)) + u(x, 2), TARGETS),
    ("v_pk_add_u16 v12, v4, v5", lambda x: pair(u(x, 0) + u(x, 1), (u(x, 0) >> 16) + (u(x, 1) >> 16)), TARGETS),
    ("v_pk_lshlrev_b16 v12, 3, v4 op_sel_hi:[0,1]", lambda x: pair(u(x, 0) << 3, u(x, 0) >> 16 << 3), TARGETS),
    ("v_dot4_i32_i8 v12, v4, v5, v6", lambda x: dot4(x), CDNA),
    ("v_dot4_i32_iu8 v12, v4, v5, v6 neg_lo:[1,1,0]", lambda x: dot4(x), NEW),
    ("v_bitop3_b32 v12, v4, v5, v6 bitop3:0x6c", lambda x: u(x, 0) & u(x, 2) ^ u(x, 1), ("gfx950",)),
    ("v_bitop3_b16 v12, v4, v5, v6 bitop3:0x6c", lambda x: (u(x, 0) & u(x, 2) ^ u(x, 1)) & 0xFFFF, ("gfx950",)),
    ("v_mad_u32_u16 v12, v4, v5, v6", lambda x: (u(x, 0) & 0xFFFF) * (u(x, 1) & 0xFFFF) + u(x, 2), TARGETS),
]


def perm(x: U32, selector: int) -> U32:
    both = np.concatenate([x[:, 0:1], x[:, 1:2]], 1)[:, ::-1].copy().view(np.uint8)
    out = np.zeros(len(x), np.uint32)
    signs = [x[:, 1] >> 15, x[:, 1] >> 31, x[:, 0] >> 15, x[:, 0] >> 31]
    for i in range(4):
        k = selector >> 8 * i & 255
        if k < 8:
            byte = both[:, k].astype(np.uint32)
        elif k < 12:
            byte = (signs[k - 8] & 1) * np.uint32(255)
        else:
            byte = np.full(len(x), 0 if k == 12 else 255, np.uint32)
        out |= byte << np.uint32(8 * i)
    return out


def sad(x: U32) -> object:
    a, b = (x[:, i : i + 1].copy().view(np.uint8).astype(int) for i in (0, 1))
    return np.abs(a - b).sum(1) + x[:, 2]


def select(x: U32) -> object:
    return np.where(s(x, 0) < s(x, 1), u(x, 3), u(x, 2))


def dot4(x: U32) -> object:
    a, b = (x[:, i : i + 1].copy().view(np.int8).astype(int) for i in (0, 1))
    return (a * b).sum(1) + s(x, 2)


FLOATS: list[tuple[str, Reference, tuple[str, ...], float]] = [
    ("v_add_f32_e32 v12, v4, v5", lambda x: f(x, 0) + f(x, 1), TARGETS, 0),
    ("v_sub_f32_e64 v12, -v4, |v5|", lambda x: -f(x, 0) - abs(f(x, 1)), TARGETS, 0),
    ("v_mul_f32_e64 v12, v4, v5 mul:2", lambda x: f(x, 0) * f(x, 1) * 2, TARGETS, 0),
    ("v_mul_f32_e64 v12, v4, v5 clamp", lambda x: np.clip(f(x, 0) * f(x, 1), 0, 1), TARGETS, 0),
    ("v_fma_f32 v12, v4, -v5, v6", lambda x: f(x, 2) - f(x, 0).astype(float) * f(x, 1), TARGETS, 1e-6),
    ("v_fmac_f32_e32 v6, v4, v5\nv_mov_b32 v12, v6", lambda x: f(x, 2) + f(x, 0).astype(float) * f(x, 1), TARGETS, 1e-6),
    ("v_max_f32_e32 v12, v4, v5", lambda x: np.maximum(f(x, 0), f(x, 1)), (*CDNA, *RDNA[:3]), 0),
    ("v_min_num_f32_e32 v12, v4, v5", lambda x: np.minimum(f(x, 0), f(x, 1)), RDNA[3:], 0),
    ("v_exp_f32_e32 v12, v4", lambda x: np.exp2(f(x, 0).astype(float)), TARGETS, 1.2e-7),
    ("v_log_f32_e64 v12, |v4|", lambda x: np.log2(abs(f(x, 0)).astype(float)), TARGETS, 1.2e-7),
    ("v_rsq_f32_e64 v12, |v4|", lambda x: 1 / np.sqrt(abs(f(x, 0)).astype(float)), TARGETS, 1.2e-7),
    ("v_floor_f32_e32 v12, v4", lambda x: np.floor(f(x, 0)), TARGETS, 0),
    ("v_fract_f32_e32 v12, v4", lambda x: f(x, 0) - np.floor(f(x, 0)), TARGETS, 1e-6),
    ("v_ldexp_f32 v12, v4, 3", lambda x: f(x, 0) * 8, TARGETS, 0),
    ("v_cvt_i32_f32_e32 v12, v4\nv_cvt_f32_i32_e32 v12, v12", lambda x: np.trunc(f(x, 0)), TARGETS, 0),
    ("v_cvt_f16_f32_e32 v12, v4\nv_cvt_f32_f16_e32 v12, v12", lambda x: f(x, 0).astype(np.float16), (*CDNA, "gfx1030"), 0),
    ("v_pk_fma_f32 v[12:13], v[4:5], v[6:7], v[8:9]", lambda x: f(x, 4) + f(x, 0).astype(float) * f(x, 2), CDNA, 1e-6),
    ("v_pk_mul_f32 v[12:13], v[4:5], v[6:7] op_sel:[1,0] op_sel_hi:[0,1]", lambda x: f(x, 1) * f(x, 2), CDNA, 0),
    ("v_fma_mix_f32 v12, v4, v5, v6", lambda x: f(x, 2) + f(x, 0).astype(float) * f(x, 1), TARGETS, 1e-6),
    ("v_cvt_f64_f32_e32 v[12:13], v4\nv_mul_f64 v[12:13], v[12:13], 0.5\nv_cvt_f32_f64_e32 v12, v[12:13]", lambda x: f(x, 0) / 2, TARGETS, 0),
    ("v_div_scale_f32 v12, vcc, v5, v5, v4\nv_div_scale_f32 v13, vcc, v4, v5, v4\nv_rcp_f32 v14, v12\n"
     "v_fma_f32 v15, -v12, v14, 1.0\nv_fma_f32 v14, v15, v14, v14\nv_mul_f32 v15, v13, v14\nv_fma_f32 v16, -v12, v15, v13\n"
     "v_fma_f32 v15, v16, v14, v15\nv_fma_f32 v16, -v12, v15, v13\nv_div_fmas_f32 v16, v16, v14, v15\n"
     "v_div_fixup_f32 v12, v16, v5, v4", lambda x: f(x, 0) / f(x, 1), CDNA, 0),
]  # fmt: skip

HALVES: list[tuple[str, Reference, tuple[str, ...]]] = [
    ("v_pk_add_f16 v12, v4, v5", lambda x: pair(f16(h(x, 0) + h(x, 1)), f16(h(x, 0, 1) + h(x, 1, 1))), TARGETS),
    ("v_pk_mul_f16 v12, v4, v5 op_sel:[1,0]", lambda x: pair(f16(h(x, 0, 1) * h(x, 1)), f16(h(x, 0, 1) * h(x, 1, 1))), TARGETS),
    ("v_pk_fma_f16 v12, v4, v5, v6 neg_lo:[1,0,0]", lambda x: pair(fma16(x, 0, -1), fma16(x, 1, 1)), TARGETS),
    ("v_cvt_pkrtz_f16_f32 v12, v4, v5", lambda x: pair(to_zero(f(x, 0)), to_zero(f(x, 1))), (*CDNA, "gfx1030")),
    ("v_cvt_pk_rtz_f16_f32 v12, v4, v5", lambda x: pair(to_zero(f(x, 0)), to_zero(f(x, 1))), NEW),
    ("v_fma_mixlo_f16 v12, v4, v5, v6\nv_fma_mixhi_f16 v12, v4, v5, v6", lambda x: pair(*[f16(f(x, 0).astype(float) * f(x, 1) + f(x, 2))] * 2), TARGETS),
    ("v_pack_b32_f16 v12, v4, v5 op_sel:[1,0,0]", lambda x: pair(u(x, 0) >> 16, u(x, 1)), TARGETS),
]  # fmt: skip


def fma16(x: U32, half: int, sign: int) -> U32:
    return f16(sign * h(x, 0, half).astype(float) * h(x, 1, half) + h(x, 2, half))


def to_zero(values: NDArray[np.float32]) -> U32:
    near = values.astype(np.float16)
    away = np.abs(near.astype(np.float32)) > np.abs(values)
    return near.view(np.uint16).astype(np.uint32) - away.astype(np.uint32)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"))


def first_result(machine: Machine, target: str, body: str, data: U32) -> U32:
    return machine.run_text(target, body, data)[:, 0]


def cases(table: list[tuple[str, Reference, tuple[str, ...]]]) -> list[object]:
    return [pytest.param(t, b, r, id=f"{t}-{b.split()[0]}") for b, r, targets in table for t in targets]


@pytest.mark.parametrize(("target", "body", "reference"), cases(INTEGERS))
def test_integers(machine: Machine, target: str, body: str, reference: Reference) -> None:
    data = random_bits(np.random.default_rng(7), 64)
    wanted = np.asarray(reference(data)).astype(np.int64).astype(np.uint32)
    got = first_result(machine, target, body, data)
    np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("target", "body", "reference", "tolerance"),
    [pytest.param(t, b, r, e, id=f"{t}-{b.split()[0]}-{i}") for i, (b, r, ts, e) in enumerate(FLOATS) for t in ts],
)
def test_floats(machine: Machine, target: str, body: str, reference: Reference, tolerance: float) -> None:
    data = random_floats(np.random.default_rng(8), 64)
    got = first_result(machine, target, body, data).view(np.float32)
    np.testing.assert_allclose(got, np.asarray(reference(data)).astype(np.float32), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("target", "body", "reference"), cases(HALVES))
def test_halves(machine: Machine, target: str, body: str, reference: Reference) -> None:
    rng = np.random.default_rng(9)
    is_single = "cvt_pk" in body or "mix" in body
    data = random_floats(rng, 64) if is_single else rng.normal(0, 3, (64, 16)).astype(np.float16).view(np.uint32)
    np.testing.assert_array_equal(first_result(machine, target, body, data), np.asarray(reference(data)))
