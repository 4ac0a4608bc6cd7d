// 16-bit and 8-bit floats as arrays of f32, and back.
#pragma once
#include "base.h"

// Rounding of results to 16 bits: the MODE register's codes ("Round to nearest even, +infinity, -infinity, zero").
typedef enum { ROUND_NEAREST, ROUND_UP, ROUND_DOWN, ROUND_ZERO } Rounding;

void halves_to_floats(f32 *out, const u32 *in, int count);               // low 16 bits of each u32
void floats_to_halves(u32 *out, const f32 *in, int count, Rounding rounding);
f32 half_to_float(u16 bits);
u16 float_to_half(f32 value, Rounding rounding);

static inline f32 bf16_to_float(u32 bits) { return f32_of(bits << 16); }
// Round to nearest even; NaNs stay NaNs.
static inline u32 float_to_bf16(f32 value) {
  u32 bits = bits_of(value);
  u32 rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  return (bits & 0x7fffffff) > 0x7f800000 ? bits >> 16 | 0x40 : rounded;
}

// Element formats of fp8 and smaller: OCP E4M3/E5M2, the FNUZ forms of CDNA3, and the MX formats of CDNA4.
typedef enum { FP8_E4M3, FP8_E5M2, FP8_E4M3_FNUZ, FP8_E5M2_FNUZ, FP6_E2M3, FP6_E3M2, FP4_E2M1, NUM_SMALL_FLOATS } SmallFloat;
f32 small_to_float(SmallFloat format, u32 bits);
// `random`: 32 bits of stochastic rounding, or -1 for nearest even. Saturates if `saturate`, else overflows as the
// format says (infinity or NaN).
u32 float_to_small(SmallFloat format, f32 value, i64 random, bool saturate);
