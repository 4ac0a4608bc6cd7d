// Conversions of small float formats.
#include "half.h"

#if defined(__AVX512F__) || defined(__F16C__)
#include <immintrin.h>
#endif

f32 half_to_float(u16 bits) {
  u32 sign = (u32)(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
  if (exponent == 31) return f32_of(sign | 0x7f800000 | fraction << 13);
  if (exponent) return f32_of(sign | (exponent + 112) << 23 | fraction << 13);
  f32 value = (f32)fraction * 0x1p-24f;
  return sign ? -value : value;
}

// `direction` of rounding away from zero for a value with this sign and these bits below the result's last one.
static u32 rounds_up(Rounding rounding, bool is_negative, u32 rest, u32 half, u32 odd) {
  switch (rounding) {
    case ROUND_UP: return !is_negative && rest;
    case ROUND_DOWN: return is_negative && rest;
    case ROUND_ZERO: return 0;
    default: return rest > half || (rest == half && odd);
  }
}

u16 float_to_half(f32 value, Rounding rounding) {
  u32 bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return (u16)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
  if (magnitude == 0x7f800000) return (u16)(sign | 0x7c00);
  u32 shift = 13, result;
  if (magnitude < 0x38800000) {  // denormal half
    u32 exponent = magnitude >> 23;
    shift = exponent < 1 ? 126 : 126 - exponent;
    u32 fraction = (magnitude & 0x7fffff) | (exponent ? 0x800000 : 0);
    if (shift > 25) shift = 25;
    u32 rest = fraction & ((1u << shift) - 1);
    result = fraction >> shift;
    return (u16)(sign | (result + rounds_up(rounding, sign, rest, 1u << (shift - 1), result & 1)));
  }
  result = (magnitude - 0x38000000) >> 13;
  result += rounds_up(rounding, sign, magnitude & 0x1fff, 0x1000, result & 1);
  if (result >= 0x7c00) {
    bool to_infinity = rounding == ROUND_NEAREST || rounding == (sign ? ROUND_DOWN : ROUND_UP);
    result = to_infinity ? 0x7c00 : 0x7bff;
  }
  return (u16)(sign | result);
}

void halves_to_floats(f32 *out, const u32 *in, int count) {
#ifdef __AVX512F__
  for (int l = 0; l < count; l += 16)
    _mm512_storeu_ps(out + l, _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_loadu_si512(in + l))));
#else
  for (int l = 0; l < count; l++) out[l] = half_to_float((u16)in[l]);
#endif
}

void floats_to_halves(u32 *out, const f32 *in, int count, Rounding rounding) {
#ifdef __AVX512F__
  if (rounding == ROUND_NEAREST) {
    for (int l = 0; l < count; l += 16) {
      __m256i halves = _mm512_cvtps_ph(_mm512_loadu_ps(in + l), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      _mm512_storeu_si512(out + l, _mm512_cvtepu16_epi32(halves));
    }
    return;
  }
#endif
  for (int l = 0; l < count; l++) out[l] = float_to_half(in[l], rounding);
}

typedef struct {
  int exponent_bits, fraction_bits, bias;
  bool has_infinity;   // E5M2: the largest exponent is infinity and NaN
  bool is_fnuz;        // no infinity, no minus zero; 0x80 is the NaN
  bool has_nan;        // E4M3: all ones is NaN
} SmallFormat;

// Sources: OCP 8-bit floating point specification 1.0; OCP Microscaling formats 1.0; CDNA3 ISA, "FP8 and BF8 formats".
static const SmallFormat formats[NUM_SMALL_FLOATS] = {
    [FP8_E4M3] = {4, 3, 7, false, false, true},       [FP8_E5M2] = {5, 2, 15, true, false, true},
    [FP8_E4M3_FNUZ] = {4, 3, 8, false, true, true},   [FP8_E5M2_FNUZ] = {5, 2, 16, false, true, true},
    [FP6_E2M3] = {2, 3, 1, false, false, false},      [FP6_E3M2] = {3, 2, 3, false, false, false},
    [FP4_E2M1] = {2, 1, 1, false, false, false},
};

f32 small_to_float(SmallFloat format, u32 bits) {
  const SmallFormat *f = &formats[format];
  int width = 1 + f->exponent_bits + f->fraction_bits;
  u32 sign = bits >> (width - 1) & 1, fraction = field(bits, 0, f->fraction_bits);
  int exponent = (int)field(bits, f->fraction_bits, f->exponent_bits), last = (1 << f->exponent_bits) - 1;
  if (f->is_fnuz && (bits & 0xff) == 0x80) return NAN;
  if (f->has_infinity && exponent == last) return fraction ? NAN : sign ? -INFINITY : INFINITY;
  if (format == FP8_E4M3 && exponent == last && fraction == 7) return NAN;
  f32 value = exponent ? ldexpf((f32)(fraction | 1u << f->fraction_bits), exponent - f->bias - f->fraction_bits)
                       : ldexpf((f32)fraction, 1 - f->bias - f->fraction_bits);
  return sign ? -value : value;
}

// The largest finite magnitude as bits.
static u32 largest(SmallFloat format) {
  const SmallFormat *f = &formats[format];
  u32 all = (1u << (f->exponent_bits + f->fraction_bits)) - 1;
  if (f->has_infinity) return all - (1u << f->fraction_bits);
  return format == FP8_E4M3 ? all - 1 : all;
}

static u32 overflow_of(SmallFloat format, u32 sign, bool is_nan, bool saturate) {
  const SmallFormat *f = &formats[format];
  u32 sign_bit = sign << (f->exponent_bits + f->fraction_bits);
  if (f->is_fnuz && (is_nan || !saturate)) return 0x80;
  if (is_nan && f->has_nan) return sign_bit | 0x7f;
  if (saturate || !f->has_nan) return sign_bit | largest(format);
  return f->has_infinity ? sign_bit | 0x7c : sign_bit | 0x7f;
}

u32 float_to_small(SmallFloat format, f32 value, i64 random, bool saturate) {
  const SmallFormat *f = &formats[format];
  u32 bits = bits_of(value), sign = bits >> 31, magnitude = bits & 0x7fffffff;
  u32 sign_bit = sign << (f->exponent_bits + f->fraction_bits);
  if (magnitude >= 0x7f800000) return overflow_of(format, sign, magnitude > 0x7f800000, saturate && magnitude == 0x7f800000);
  if (magnitude < 0x00800000) return f->is_fnuz ? 0 : sign_bit;
  int exponent = (int)(magnitude >> 23) - 127 + f->bias;
  int shift = 23 - f->fraction_bits + (exponent < 1 ? 1 - exponent : 0);
  u64 fraction = (magnitude & 0x7fffff) | 0x800000;
  if (shift > 40) shift = 40;
  u64 rest = fraction & ((1ull << shift) - 1), kept = fraction >> shift, half = 1ull << (shift - 1);
  // "Stochastic rounding": the random bits are added below the last place.
  if (random >= 0) kept += (rest + (((u64)random << 8) >> (40 - shift))) >> shift ? 1 : 0;
  else kept += rest > half || (rest == half && (kept & 1));
  u64 result = exponent < 1 ? kept : kept + ((u64)(exponent - 1) << f->fraction_bits);
  if (result > largest(format)) return overflow_of(format, sign, false, saturate);
  return result == 0 && f->is_fnuz ? 0 : (u32)result | sign_bit;
}
