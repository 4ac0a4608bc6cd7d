"""Conversions of CDNA4 between f32, f16, bf16 and fp8, bf8, fp6, bf6, fp4 with scales, against numpy.

The elements are listed here from their definition (OCP 8-bit floating point specification 1.0, OCP Microscaling formats
1.0), and rounding looks for the nearest of them. The rules in quotes are of AMD's CDNA4 ISA document.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.hipemu.machine import U32, Machine, random_bits

pytest.importorskip("triton")

F64 = NDArray[np.float64]
LANES = 64
WIDE = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Format:
    """A small float."""

    exponent_bits: int
    fraction_bits: int
    bias: int
    last: int
    """Bits of the largest finite value."""

    @property
    def bits(self) -> int:
        return 1 + self.exponent_bits + self.fraction_bits

    def values(self) -> F64:
        """By bits without the sign, up to the largest."""
        bits = np.arange(self.last + 1)
        exponent, fraction = bits >> self.fraction_bits, bits % (1 << self.fraction_bits) / (1 << self.fraction_bits)
        values: F64 = np.where(
            exponent, (1 + fraction) * 2.0 ** (exponent - self.bias), fraction * 2.0 ** (1 - self.bias)
        )
        return values

    def pack(self, x: F64) -> U32:
        """Nearest, ties to even bits, saturated."""
        far = np.abs(np.abs(x)[..., None] - self.values())
        ties = far == far.min(-1, keepdims=True)
        even = np.arange(self.last + 1) % 2 == 0
        nearest = np.where((ties & even).any(-1), (ties & even).argmax(-1), ties.argmax(-1))
        return np.asarray(nearest | np.signbit(x) << (self.bits - 1), np.uint32)

    def pack_random(self, x: F64, random: U32) -> U32:
        """Down, or up if the random bits and what lies below the last place carry into it."""
        exponent = np.maximum(np.frexp(np.abs(x))[1] - 1, 1 - self.bias)
        place = np.exp2(exponent - self.fraction_bits)
        below = 23 - self.fraction_bits + np.maximum(exponent - (np.frexp(np.abs(x))[1] - 1), 0)
        added = np.floor(random / np.exp2(32 - below)) / np.exp2(below)
        size = np.minimum(np.floor(np.abs(x) / place + added) * place, self.values()[-1])
        return np.asarray(np.searchsorted(self.values(), size) | np.signbit(x) << (self.bits - 1), np.uint32)

    def unpack(self, bits: U32) -> F64:
        size = self.values()[bits & (2 ** (self.bits - 1) - 1)]
        return np.asarray(np.where(bits >> (self.bits - 1) & 1, -size, size), np.float64)


FORMATS = {
    "fp8": Format(4, 3, 7, 0x7E),
    "bf8": Format(5, 2, 15, 0x7B),
    "fp6": Format(2, 3, 1, 31),
    "bf6": Format(3, 2, 3, 31),
    "fp4": Format(2, 1, 1, 7),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return Machine(tmp_path_factory.mktemp("emulator"), {"CHECKS": "all"})


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def run(machine: Machine, text: str, data: U32, first: int, count: int) -> U32:
    """Registers `first` to `first + count` after the instruction, eight at a time: [lanes, count]."""
    parts = []
    for begin in range(first, first + count, 8):
        moves = "\n".join(f"v_mov_b32_e32 v{12 + i}, v{begin + i}" for i in range(min(8, first + count - begin)))
        parts.append(machine.run_text("gfx950", f"{text}\n{moves}", data)[:, : min(8, first + count - begin)])
    return np.concatenate(parts, 1)


def widened(words: U32, wide: str) -> F64:
    """[lanes, n] registers as values [lanes, n or 2 * n]."""
    if wide == "f32":
        return words.view(np.float32).astype(np.float64)
    halves = np.ascontiguousarray(words).view(np.uint16)
    if wide == "f16":
        return halves.view(np.float16).astype(np.float64)
    return (halves.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def narrowed(values: F64, wide: str) -> U32:
    """Bits of each value, rounded to the nearest."""
    if wide == "f16":
        with np.errstate(over="ignore"):  # infinity
            return values.astype(np.float16).view(np.uint16).astype(np.uint32)
    bits = values.astype(np.float32).view(np.uint32)
    return bits if wide == "f32" else bits >> np.uint32(16)


def inputs(rng: np.random.Generator, wide: str, columns: int) -> U32:
    """Values of either sign around 1, some of them zero or beyond the small formats."""
    values = rng.normal(0, 2, (LANES, columns * (1 if wide == "f32" else 2))) * 2.0 ** rng.integers(-3, 4)
    values[rng.random(values.shape) < 0.05] = 0.0
    if wide == "f32":
        return values.astype(np.float32).view(np.uint32)
    if wide == "f16":
        with np.errstate(over="ignore"):  # infinity
            return values.astype(np.float16).view(np.uint32)
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(np.uint32)


def scales(rng: np.random.Generator) -> tuple[U32, F64]:
    """The bits of f32 scales whose fractions do not count, and 2^(exponent - 127): [lanes, 1]."""
    exponents = rng.integers(124, 131, (LANES, 1)).astype(np.uint32)
    fractions = random_bits(rng, LANES)[:, :1] >> np.uint32(9)
    return exponents << np.uint32(23) | fractions, np.asarray(np.exp2(exponents.astype(np.float64) - 127), np.float64)


def bits_of_lane(words: U32, first: int, width: int, count: int) -> U32:
    """Fields of `width` bits from bit `first` on: [lanes, count]."""
    row = np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=1, bitorder="little")
    fields = row[:, first : first + width * count].reshape(LANES, count, width).astype(np.uint32)
    return np.asarray((fields << np.arange(width, dtype=np.uint32)).sum(-1), np.uint32)


def prng(x: U32) -> U32:
    """ "D0.u32 = ((in << 1U) ^ (in[31] ? 197U : 0U))"."""
    return (x << np.uint32(1)) ^ np.where(x >> 31, 197, 0).astype(np.uint32)


def test_prng(machine: Machine, rng: np.random.Generator) -> None:
    data = random_bits(rng, LANES)
    np.testing.assert_array_equal(run(machine, "v_prng_b32 v20, v4", data, 20, 1)[:, 0], prng(data[:, 0]))


@pytest.mark.parametrize("wide", WIDE)
@pytest.mark.parametrize("name", ["fp8", "bf8", "fp4"])
def test_pairs_are_unpacked(machine: Machine, rng: np.random.Generator, name: str, wide: str) -> None:
    """ "srcword = OPSEL[0].i32 * 16" of 8 bits, "srcbyte = OPSEL[1 : 0].i32 * 8" of fp4."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, 0] &= 0x77777777 if name == "fp4" else 0xBBBBBBBB & 0x7B7B7B7B  # no NaN, no infinity
    data[:, 1:2], factor = scales(rng)
    for place, op_sel in enumerate(
        ["", "op_sel:[1,0,0]"] if form.bits == 8 else ["", "op_sel:[1,0,0]", "op_sel:[0,1,0]"]
    ):
        text = f"v_cvt_scalef32_pk_{wide}_{name} v[20:21], v4, v5 {op_sel}"
        if wide != "f32":
            text = text.replace("v[20:21]", "v20")
        got = widened(run(machine, text, data, 20, 2 if wide == "f32" else 1), wide)
        first = place * (16 if form.bits == 8 else 8)
        np.testing.assert_array_equal(got, form.unpack(bits_of_lane(data[:, :1], first, form.bits, 2)) * factor)


@pytest.mark.parametrize("wide", ["f32", "f16"])
@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_one_is_unpacked(machine: Machine, rng: np.random.Generator, name: str, wide: str) -> None:
    """ "srcbyte = OPSEL[1 : 0].i32 * 8"; "OPSEL[3] controls destination hi/lo"."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, 0] &= 0x7B7B7B7B
    data[:, 1:2], factor = scales(rng)
    text = f"v_mov_b32_e32 v20, v6\nv_cvt_scalef32_{wide}_{name} v20, v4, v5 op_sel:[0,1,{{high}}]"
    want = form.unpack(bits_of_lane(data[:, :1], 16, 8, 1)) * factor
    if wide == "f32":
        np.testing.assert_array_equal(widened(run(machine, text.replace(",{high}", ",0"), data, 20, 1), wide), want)
        return
    for high in range(2):
        got = np.ascontiguousarray(run(machine, text.format(high=high), data, 20, 1)).view(np.uint16)
        np.testing.assert_array_equal(got[:, high], narrowed(want, "f16")[:, 0])
        np.testing.assert_array_equal(got[:, 1 - high], np.ascontiguousarray(data[:, 2:3]).view(np.uint16)[:, 1 - high])


@pytest.mark.parametrize("wide", WIDE)
@pytest.mark.parametrize("name", ["fp8", "bf8", "fp4"])
def test_pairs_are_packed(machine: Machine, rng: np.random.Generator, name: str, wide: str) -> None:
    """ "dstword = OPSEL[3].i32 * 16" of 8 bits, "dstbyte = OPSEL[3 : 2].i32 * 8" of fp4; "Other destination bits are
    preserved"."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, :2] = inputs(rng, wide, 2)
    data[:, 2:3], factor = scales(rng)
    sources = "v4, v5, v6" if wide == "f32" else "v4, v6"
    select = "0,0,1" if name != "fp4" and wide != "f32" else "0,0,0,1"  # without a third source its bit is left out
    text = f"v_mov_b32_e32 v20, v7\nv_cvt_scalef32_pk_{name}_{wide} v20, {sources} op_sel:[{select}]"
    got = run(machine, text, data, 20, 1)
    values = widened(data[:, : 2 if wide == "f32" else 1], wide) / factor
    np.testing.assert_array_equal(bits_of_lane(got, 16, form.bits, 2), form.pack(values))
    np.testing.assert_array_equal(got & 0xFFFF, data[:, 3:4] & 0xFFFF)


@pytest.mark.parametrize("wide", WIDE)
@pytest.mark.parametrize("name", ["fp8", "bf8"])
def test_one_is_packed_with_random_bits(machine: Machine, rng: np.random.Generator, name: str, wide: str) -> None:
    """ "dstbyte = OPSEL[3 : 2].i32 * 8", "Other destination bits are preserved"."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, :1] = inputs(rng, wide, 1)
    data[:, 2:3], factor = scales(rng)
    text = f"v_mov_b32_e32 v20, v7\nv_cvt_scalef32_sr_{name}_{wide} v20, v4, v5, v6 op_sel:[0,0,0,1]"
    got = run(machine, text, data, 20, 1)
    values = widened(data[:, :1], wide)[:, :1] / factor
    np.testing.assert_array_equal(bits_of_lane(got, 16, 8, 1), form.pack_random(values, data[:, 1:2]))
    np.testing.assert_array_equal(got & 0xFF00FFFF, data[:, 3:4] & 0xFF00FFFF)


@pytest.mark.parametrize("wide", WIDE)
def test_pairs_of_fp4_are_packed_with_random_bits(machine: Machine, rng: np.random.Generator, wide: str) -> None:
    """ "randomVal = 32'U(v_prng_b32(randomVal.b32))" after the first."""
    form, data = FORMATS["fp4"], random_bits(rng, LANES)
    data[:, :2] = inputs(rng, wide, 2)
    data[:, 3:4], factor = scales(rng)
    source = "v[4:5]" if wide == "f32" else "v4"
    got = run(machine, f"v_mov_b32_e32 v20, 0\nv_cvt_scalef32_sr_pk_fp4_{wide} v20, {source}, v6, v7", data, 20, 1)
    values = widened(data[:, : 2 if wide == "f32" else 1], wide) / factor
    random = np.concatenate([data[:, 2:3], prng(data[:, 2:3])], 1)
    np.testing.assert_array_equal(bits_of_lane(got, 0, 4, 2), form.pack_random(values, random))


@pytest.mark.parametrize("wide", WIDE)
@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_thirty_two_are_unpacked(machine: Machine, rng: np.random.Generator, name: str, wide: str) -> None:
    """ "sOffset = pass * 6"."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, 6:7], factor = scales(rng)
    count = 32 if wide == "f32" else 16
    text = f"v_cvt_scalef32_pk32_{wide}_{name} v[20:{19 + count}], v[4:9], v10"
    got = widened(run(machine, text, data, 20, count), wide)
    np.testing.assert_array_equal(got, form.unpack(bits_of_lane(data[:, :6], 0, 6, 32)) * factor)


def spread(data: U32, count: int) -> tuple[str, U32]:
    """Instructions that fill v20 and on with the first four registers, turned by as many bits, and what is there."""
    words = [np.bitwise_xor(data[:, i % 4], np.uint32(i // 4 * 0x00110011)) for i in range(count)]
    text = [f"v_xor_b32_e32 v{20 + i}, {i // 4 * 0x00110011:#x}, v{4 + i % 4}" for i in range(count)]
    return "\n".join(text), np.stack(words, 1).astype(np.uint32)


@pytest.mark.parametrize("is_random", [False, True])
@pytest.mark.parametrize("wide", WIDE)
@pytest.mark.parametrize("name", ["fp6", "bf6"])
def test_thirty_two_are_packed(
    machine: Machine, rng: np.random.Generator, name: str, wide: str, is_random: bool
) -> None:
    """ "dOffset = pass * 6"; 2XPK16: "S0 and S1 inputs are interleaved in the packed result"."""
    form, data = FORMATS[name], random_bits(rng, LANES)
    data[:, :4] = inputs(rng, wide, 4)
    data[:, 6:7], factor = scales(rng)
    count = 32 if wide == "f32" else 16
    fill, words = spread(data, count)
    values = widened(words, wide) / factor
    if is_random:
        text = f"v_cvt_scalef32_sr_pk32_{name}_{wide} v[52:57], v[20:{19 + count}], v9, v10"
        random = [data[:, 5]]
        while len(random) < 32:
            random.append(prng(random[-1]))
        want = form.pack_random(values, np.stack(random, 1))
    elif wide == "f32":
        text = f"v_cvt_scalef32_2xpk16_{name}_f32 v[52:57], v[20:35], v[36:51], v10"
        want = form.pack(np.stack([values[:, :16], values[:, 16:]], 2).reshape(LANES, 32))
    else:
        text = f"v_cvt_scalef32_pk32_{name}_{wide} v[52:57], v[20:35], v10"
        want = form.pack(values)
    np.testing.assert_array_equal(bits_of_lane(run(machine, f"{fill}\n{text}", data, 52, 6), 0, 6, 32), want)
