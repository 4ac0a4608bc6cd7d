// Arithmetic of floats as the ISA documents define it where C differs, written so that loops over it vectorise.
#pragma once
#include "base.h"

// "V_MIN/MAX": of a NaN and a number the number; +0 counts as greater than -0.
static inline f32 max_f32(f32 a, f32 b) {
  f32 greater = a > b ? a : a == b ? f32_of(bits_of(a) & bits_of(b)) : b;
  return a != a ? b : b != b ? a : greater;
}
static inline f32 min_f32(f32 a, f32 b) {
  f32 less = a < b ? a : a == b ? f32_of(bits_of(a) | bits_of(b)) : b;
  return a != a ? b : b != b ? a : less;
}
// "V_MINIMUM/MAXIMUM" of RDNA4 and CDNA4: NaN if either is.
static inline f32 maximum_f32(f32 a, f32 b) { return a != a ? a : b != b ? b : max_f32(a, b); }
static inline f32 minimum_f32(f32 a, f32 b) { return a != a ? a : b != b ? b : min_f32(a, b); }
// "V_MED3": the minimum if one is NaN.
static inline f32 med3_f32(f32 a, f32 b, f32 c) {
  f32 low = min_f32(a, b), high = max_f32(a, b);
  f32 median = max_f32(low, min_f32(high, c));
  return a != a || b != b || c != c ? min_f32(low, c) : median;
}
static inline f32 flush_f32(f32 a) { return bits_of(a) & 0x7f800000 ? a : f32_of(bits_of(a) & 0x80000000); }

// 2^x in double from a polynomial on [-1/2, 1/2]: relative error below 1e-9, so the f32 result is within 1 ulp.
static inline f64 exp2_f64(f64 x) {
  f64 clamped = x > 1100.0 ? 1100.0 : x < -1100.0 ? -1100.0 : x;
  f64 whole = clamped + 0x1.8p52, n = whole - 0x1.8p52, t = (clamped - n) * 0.693147180559945309;
  f64 p = 1.0 / 362880;
  p = p * t + 1.0 / 40320;
  p = p * t + 1.0 / 5040;
  p = p * t + 1.0 / 720;
  p = p * t + 1.0 / 120;
  p = p * t + 1.0 / 24;
  p = p * t + 1.0 / 6;
  p = p * t + 0.5;
  p = p * t + 1.0;
  p = p * t + 1.0;
  i64 exponent = (i64)(bits_of_f64(whole) & 0xffff);
  exponent = (exponent ^ 0x8000) - 0x8000;
  exponent = exponent < -1000 ? -1000 : exponent > 1020 ? 1020 : exponent;
  return p * f64_of((u64)(exponent + 1023) << 52);
}

// "V_EXP_F32: 1 ULP accuracy, denormals are flushed".
static inline f32 exp2_f32(f32 x) {
  f32 result = (f32)exp2_f64((f64)x);
  result = bits_of(result) & 0x7f800000 ? result : 0.0f;
  return x != x ? x : result;
}

// log2 of a positive normal double: x = m * 2^e with m in [sqrt(1/2), sqrt(2)), then the series of atanh.
static inline f64 log2_f64(f64 x) {
  u64 bits = bits_of_f64(x) - 0x3fe6a09e667f3bcdull;
  i64 e = (i64)bits >> 52;
  f64 m = f64_of(bits_of_f64(x) - ((u64)e << 52));
  f64 s = (m - 1.0) / (m + 1.0), z = s * s;
  f64 p = 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  p = p * z + 1.0;
  return (f64)(i32)e + s * p * 2.88539008177792681;
}

// "V_LOG_F32: 1 ULP accuracy, denormals are flushed".
static inline f32 log2_f32(f32 x) {
  f32 a = flush_f32(x);
  f32 result = (f32)log2_f64((f64)a);
  result = a == INFINITY ? a : result;
  return a != a ? a : a == 0.0f ? -INFINITY : a < 0.0f ? NAN : result;
}

static inline f32 fract_f32(f32 a) {
  f32 result = a - floorf(a);
  return result >= 1.0f ? 0x1.fffffep-1f : result;
}

// A fused multiply-add of halves, in f32 with the last bit sticky ("round to odd"), so that rounding it to a half
// rounds once. The product of two halves is exact in f32; the error of the sum is found by Knuth's two-sum.
static inline f32 fma_half(f32 a, f32 b, f32 c) {
  f32 product = a * b, sum = product + c;
  f32 part = sum - product, error = (product - (sum - part)) + (c - part);
  u32 bits = bits_of(sum);
  bool is_same_sign = (bits_of(error) ^ bits) >> 31 == 0;
  u32 odd = is_same_sign ? bits | 1 : (bits & 1 ? bits : bits - 1);
  bool is_inexact = error != 0.0f && error == error && (bits & 0x7f800000) != 0x7f800000;
  return is_inexact ? f32_of(odd) : sum;
}
