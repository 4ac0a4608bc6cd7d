"""fp8 numbers of a KV cache as bytes: what a pool of `si8` holds, and MLIR text that makes and reads them by integers.

    f8E4M3FN     1 sign, 4 exponent (bias 7), 3 mantissa bits     largest 448     the OCP format
    f8E4M3FNUZ   the same with a bias of 8                        largest 240     CDNA3; its byte of -0 means NaN

Scales are 1. What is larger than the largest number becomes the largest, NaN among it; other numbers are rounded to the
nearest, ties to even. Zero has no sign. So every byte is a number, in both formats.

Source: OCP 8-bit Floating Point Specification (OFP8) revision 1.0, table 1; AMD CDNA3 ISA guide, section 6.6.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from amdnfs_targets.target import Fp8Format

POOL_ELEMENT = "si8"
"""Element type of a pool of fp8 numbers in the torch dialect."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp8Numbers:
    """What the conversions need to know of a format."""

    bias: int
    """Of the exponent."""
    largest: float
    """The largest number."""

    @property
    def largest_bits(self) -> int:
        """The largest number as bits of an f32."""
        bits: int = struct.unpack("<i", struct.pack("<f", self.largest))[0]
        return bits

    @property
    def least_normal_bits(self) -> int:
        """The least number with a full mantissa as bits of an f32."""
        return (128 - self.bias) << 23

    @property
    def exponent_shift(self) -> int:
        """Difference of the biases, above three bits of mantissa."""
        return (127 - self.bias) << 3

    @property
    def rounder(self) -> float:
        """Added to a smaller number in f32, it leaves the byte in the lowest bits."""
        return float(1 << (21 - self.bias))

    @property
    def half_factor(self) -> float:
        """How much larger a number is than the f16 number with its bits."""
        return float(1 << (15 - self.bias))


NUMBERS = {
    Fp8Format.E4M3FN: Fp8Numbers(bias=7, largest=448.0),
    Fp8Format.E4M3FNUZ: Fp8Numbers(bias=8, largest=240.0),
}
"""By format."""


def encode_text(source: str, element: str, result: str, fp8: Fp8Format) -> str:
    """Lines that make the byte `result` of `source`, of type `element`; names begin with `result`."""
    numbers, r = NUMBERS[fp8], result
    wide = source if element == "f32" else f"{r}_wide"
    widen = "" if element == "f32" else f"    {wide} = arith.extf {source} : {element} to f32\n"
    constants = {
        "c24": 24,
        "c20": 20,
        "c80": 0x80,
        "one": 1,
        "zero": 0,
        "size": 0x7FFFFFFF,
        "half": 0x7FFFF,
        "byte": 0xFF,
        "largest": numbers.largest_bits,
        "least": numbers.least_normal_bits,
        "shift": numbers.exponent_shift,
    }
    text = "".join(f"    {r}_{name} = arith.constant {value} : i32\n" for name, value in constants.items())
    return f"""{widen}{text}    {r}_rounder = arith.constant {numbers.rounder} : f32
    {r}_bits = arith.bitcast {wide} : f32 to i32
    {r}_high = arith.shrui {r}_bits, {r}_c24 : i32
    {r}_sign = arith.andi {r}_high, {r}_c80 : i32
    {r}_whole = arith.andi {r}_bits, {r}_size : i32
    {r}_cut = arith.minui {r}_whole, {r}_largest : i32
    {r}_kept = arith.shrui {r}_cut, {r}_c20 : i32
    {r}_odd = arith.andi {r}_kept, {r}_one : i32
    {r}_above = arith.addi {r}_cut, {r}_half : i32
    {r}_even = arith.addi {r}_above, {r}_odd : i32
    {r}_top = arith.shrui {r}_even, {r}_c20 : i32
    {r}_normal = arith.subi {r}_top, {r}_shift : i32
    {r}_float = arith.bitcast {r}_cut : i32 to f32
    {r}_sum = arith.addf {r}_float, {r}_rounder : f32
    {r}_sum_bits = arith.bitcast {r}_sum : f32 to i32
    {r}_small = arith.andi {r}_sum_bits, {r}_byte : i32
    {r}_is_small = arith.cmpi ult, {r}_cut, {r}_least : i32
    {r}_code = arith.select {r}_is_small, {r}_small, {r}_normal : i32
    {r}_signed = arith.ori {r}_code, {r}_sign : i32
    {r}_is_zero = arith.cmpi eq, {r}_code, {r}_zero : i32
    {r}_stored = arith.select {r}_is_zero, {r}_zero, {r}_signed : i32
    {result} = arith.trunci {r}_stored : i32 to i8
"""


def decode_text(source: str, element: str, result: str, fp8: Fp8Format) -> str:
    """Lines that make the number `result`, of type `element`, of the byte `source`; names begin with `result`."""
    r = result
    narrow = f"    {result} = arith.truncf {r}_exact : f32 to {element}\n"
    product = result if element == "f32" else f"{r}_exact"
    return f"""    {r}_seven = arith.constant 7 : i16
    {r}_no_top_exponent = arith.constant -16385 : i16
    {r}_factor = arith.constant {NUMBERS[fp8].half_factor} : f32
    {r}_short = arith.extsi {source} : i8 to i16
    {r}_moved = arith.shli {r}_short, {r}_seven : i16
    {r}_bits = arith.andi {r}_moved, {r}_no_top_exponent : i16
    {r}_half = arith.bitcast {r}_bits : i16 to f16
    {r}_wide = arith.extf {r}_half : f16 to f32
    {product} = arith.mulf {r}_wide, {r}_factor : f32
{"" if element == "f32" else narrow}"""
