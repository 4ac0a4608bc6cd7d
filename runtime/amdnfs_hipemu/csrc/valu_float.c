// Vector arithmetic in f32 and f16. f16 values are f32 here and rounded when they are written: sums, products, quotients
// and roots of halves rounded to f32 and then to f16 are rounded correctly, since 24 >= 2 * 11 + 2.
#include "float_math.h"
#include "lanes.h"
#include "tables.h"

LANES2(add, f32, f32, f32, a + b)
LANES2(sub, f32, f32, f32, a - b)
LANES2(subrev, f32, f32, f32, b - a)
LANES2(mul, f32, f32, f32, a *b)
LANES2(mul_legacy, f32, f32, f32, (a == 0.0f || b == 0.0f) ? 0.0f : a * b)
LANES2(max, f32, f32, f32, max_f32(a, b))
LANES2(min, f32, f32, f32, min_f32(a, b))
LANES2(maximum, f32, f32, f32, maximum_f32(a, b))
LANES2(minimum, f32, f32, f32, minimum_f32(a, b))
LANES3(fma_single, f32, f32, f32, f32, fmaf(a, b, c))
LANES3(fma_legacy, f32, f32, f32, f32, (a == 0.0f || b == 0.0f) ? c : fmaf(a, b, c))
LANES3(fma_f16, f32, f32, f32, f32, fma_half(a, b, c))
LANES3(mad, f32, f32, f32, f32, flush_f32(flush_f32(flush_f32(a) * flush_f32(b)) + flush_f32(c)))
LANES3(max3, f32, f32, f32, f32, max_f32(max_f32(a, b), c))
LANES3(min3, f32, f32, f32, f32, min_f32(min_f32(a, b), c))
LANES3(med3, f32, f32, f32, f32, med3_f32(a, b, c))
LANES3(maximum3, f32, f32, f32, f32, maximum_f32(maximum_f32(a, b), c))
LANES3(minimum3, f32, f32, f32, f32, minimum_f32(minimum_f32(a, b), c))
LANES3(maxmin, f32, f32, f32, f32, min_f32(max_f32(a, b), c))
LANES3(minmax, f32, f32, f32, f32, max_f32(min_f32(a, b), c))
LANES3(maximumminimum, f32, f32, f32, f32, minimum_f32(maximum_f32(a, b), c))
LANES3(minimummaximum, f32, f32, f32, f32, maximum_f32(minimum_f32(a, b), c))
LANES1(floor_, f32, f32, floorf(a))
LANES1(ceil_, f32, f32, ceilf(a))
LANES1(trunc_, f32, f32, truncf(a))
LANES1(fract, f32, f32, fract_f32(a))
LANES1(exp2_, f32, f32, exp2_f32(flush_f32(a)))
LANES1(log2_, f32, f32, log2_f32(a))
// "V_RCP/RSQ_F32": LLVM's code generator counts on flushed denormals; the documents say 1 ulp.
LANES1(rcp, f32, f32, flush_f32(1.0f / flush_f32(a)))
LANES1(rsq, f32, f32, (f32)(1.0 / sqrt((f64)flush_f32(a))))
LANES1(sqrt_, f32, f32, sqrtf(flush_f32(a)))
LANES1(rcp_f16, f32, f32, 1.0f / a)
LANES1(rsq_f16, f32, f32, (f32)(1.0 / sqrt((f64)a)))
LANES1(sqrt_f16, f32, f32, sqrtf(a))
LANES1(exp_f16, f32, f32, (f32)exp2_f64((f64)a))
LANES1(log_f16, f32, f32, log2_f32(a))
LANES1(tanh_, f32, f32, tanhf(a))
LANES1(sin_, f32, f32, (f32)sin(6.28318530717958647692 * (f64)a))
LANES1(cos_, f32, f32, (f32)cos(6.28318530717958647692 * (f64)a))
LANES2(ldexp_, f32, f32, i32, ldexpf(a, b))
LANES1(frexp_mantissa, f32, f32, isfinite(a) ? frexpf(a, &(int){0}) : a)

// "V_RNDNE": to the nearest even integer, whatever the rounding mode.
LANES1(rndne, f32, f32, __builtin_roundevenf(a))

static void frexp_exponent(const LaneArgs *args) {
  i32 *out = args->out;
  const f32 *in = args->in[0];
  for (int l = 0; l < args->lanes; l++) {
    int exponent = 0;
    if (isfinite(in[l])) frexpf(in[l], &exponent);
    out[l] = exponent;
  }
}

// "V_DIV_FIXUP_F32": the special cases of a / b, around a quotient that was computed in steps.
static f32 div_fixup_one(f32 q, f32 b, f32 a) {
  u32 sign = (bits_of(a) ^ bits_of(b)) & 0x80000000;
  if (a != a) return f32_of(bits_of(a) | 0x400000);
  if (b != b) return f32_of(bits_of(b) | 0x400000);
  if ((a == 0.0f && b == 0.0f) || (isinf(a) && isinf(b))) return f32_of(0xffc00000);
  if (b == 0.0f || isinf(a)) return f32_of(sign | 0x7f800000);
  if (isinf(b) || a == 0.0f) return f32_of(sign);
  int exponent_a = (int)(bits_of(a) >> 23 & 255), exponent_b = (int)(bits_of(b) >> 23 & 255);
  if (exponent_a - exponent_b < -150) return f32_of(sign);
  if (exponent_b == 255) return f32_of(sign | 0x7f800000);
  return f32_of((bits_of(q) & 0x7fffffff) | sign);
}
LANES3(div_fixup, f32, f32, f32, f32, div_fixup_one(a, b, c))

// "V_DIV_FMAS_F32": fma, times 2^64 in the lanes of VCC that had to be scaled.
static void div_fmas(const LaneArgs *args) {
  const Wave *w = args->wave;
  u64 vcc = w->lanes == 64 ? w->s[SGPR_VCC] | (u64)w->s[SGPR_VCC + 1] << 32 : w->s[SGPR_VCC];
  f32 *out = args->out;
  const f32 *a = args->in[0], *b = args->in[1], *c = args->in[2];
  for (int l = 0; l < args->lanes; l++) {
    f32 result = fmaf(a[l], b[l], c[l]);
    out[l] = vcc >> l & 1 ? ldexpf(result, (bits_of(c[l]) >> 23 & 255) > 127 ? 64 : -64) : result;
  }
}

// "V_DIV_SCALE_F32": scales numerator or denominator so that the steps of the division neither over- nor underflow.
static f32 div_scale_one(f32 s0, f32 s1, f32 s2, bool *vcc) {
  int e1 = (int)(bits_of(s1) >> 23 & 255), e2 = (int)(bits_of(s2) >> 23 & 255);
  *vcc = false;
  if (s2 == 0.0f || s1 == 0.0f) return NAN;
  bool is_quotient_denormal = fabs((f64)s2 / (f64)s1) < 0x1p-126;
  bool is_reciprocal_denormal = fabs(1.0 / (f64)s1) < 0x1p-126;
  if (e2 - e1 >= 96) {
    *vcc = true;
    return s0 == s1 ? ldexpf(s0, 64) : s0;
  }
  if (e1 == 0) return ldexpf(s0, 64);
  if (is_reciprocal_denormal && is_quotient_denormal) {
    *vcc = true;
    return s0 == s1 ? ldexpf(s0, 64) : s0;
  }
  if (is_reciprocal_denormal) return ldexpf(s0, -64);
  if (is_quotient_denormal) {
    *vcc = true;
    return s0 == s2 ? ldexpf(s0, 64) : s0;
  }
  return e2 <= 23 ? ldexpf(s0, 64) : s0;
}

static void run_div_scale(Wave *w, const Inst *inst) {
  Lanes rooms[3], result;
  const f32 *in[3];
  for (int k = 0; k < 3; k++) in[k] = fetch_lanes(w, inst, &inst->src[k], &rooms[k]);
  u64 vcc = 0, exec = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    bool is_scaled;
    ((f32 *)result.values)[l] = div_scale_one(in[0][l], in[1][l], in[2][l], &is_scaled);
    vcc |= (u64)is_scaled << l;
  }
  commit_lanes(w, inst, &inst->dst, result.values);
  write_mask_register(w, &inst->dst2, vcc & exec);
}

#define F TYPE_F32
#define H TYPE_F16
#define UNARY(T, K) run_vector, K, T, {T}, CLASS_VALU, 0
#define BINARY(T, K) run_vector, K, T, {T, T}, CLASS_VALU, 0
#define TERNARY(T, K) run_vector, K, T, {T, T, T}, CLASS_VALU, 0
#define SLOW(T, K) run_vector, K, T, {T}, CLASS_TRANSCENDENTAL, 0

static const Semantics entries[] = {
    {"v_add_f32", BINARY(F, add)},
    {"v_sub_f32", BINARY(F, sub)},
    {"v_subrev_f32", BINARY(F, subrev)},
    {"v_mul_f32", BINARY(F, mul)},
    {"v_mul_legacy_f32 v_mul_dx9_zero_f32", BINARY(F, mul_legacy)},
    {"v_max_f32 v_max_num_f32", BINARY(F, max)},
    {"v_min_f32 v_min_num_f32", BINARY(F, min)},
    {"v_maximum_f32", BINARY(F, maximum)},
    {"v_minimum_f32", BINARY(F, minimum)},
    {"v_fma_f32 v_fmac_f32 v_fmaak_f32 v_fmamk_f32", TERNARY(F, fma_single)},
    {"v_fma_legacy_f32 v_fmac_legacy_f32 v_fma_dx9_zero_f32 v_fmac_dx9_zero_f32", TERNARY(F, fma_legacy)},
    {"v_mad_f32 v_mac_f32 v_madak_f32 v_madmk_f32", TERNARY(F, mad)},
    {"v_max3_f32 v_max3_num_f32", TERNARY(F, max3)},
    {"v_min3_f32 v_min3_num_f32", TERNARY(F, min3)},
    {"v_med3_f32 v_med3_num_f32", TERNARY(F, med3)},
    {"v_maximum3_f32", TERNARY(F, maximum3)},
    {"v_minimum3_f32", TERNARY(F, minimum3)},
    {"v_maxmin_f32 v_maxmin_num_f32", TERNARY(F, maxmin)},
    {"v_minmax_f32 v_minmax_num_f32", TERNARY(F, minmax)},
    {"v_maximumminimum_f32", TERNARY(F, maximumminimum)},
    {"v_minimummaximum_f32", TERNARY(F, minimummaximum)},
    {"v_floor_f32", UNARY(F, floor_)},
    {"v_ceil_f32", UNARY(F, ceil_)},
    {"v_trunc_f32", UNARY(F, trunc_)},
    {"v_rndne_f32", UNARY(F, rndne)},
    {"v_fract_f32", UNARY(F, fract)},
    {"v_exp_f32 v_s_exp_f32", SLOW(F, exp2_)},
    {"v_log_f32 v_s_log_f32", SLOW(F, log2_)},
    {"v_rcp_f32 v_rcp_iflag_f32 v_s_rcp_f32", SLOW(F, rcp)},
    {"v_rsq_f32 v_s_rsq_f32", SLOW(F, rsq)},
    {"v_sqrt_f32 v_s_sqrt_f32", SLOW(F, sqrt_)},
    {"v_sin_f32", SLOW(F, sin_)},
    {"v_cos_f32", SLOW(F, cos_)},
    {"v_tanh_f32", SLOW(F, tanh_)},
    {"v_ldexp_f32", run_vector, ldexp_, F, {F, TYPE_B32}, CLASS_VALU, 0},
    {"v_frexp_mant_f32", UNARY(F, frexp_mantissa)},
    {"v_frexp_exp_i32_f32", run_vector, frexp_exponent, TYPE_B32, {F}, CLASS_VALU, 0},
    {"v_div_fixup_f32", TERNARY(F, div_fixup)},
    {"v_div_fmas_f32", TERNARY(F, div_fmas)},
    {"v_div_scale_f32", run_div_scale, NULL, F, {F, F, F}, CLASS_VALU, 0},
    {"v_add_f16", BINARY(H, add)},
    {"v_sub_f16", BINARY(H, sub)},
    {"v_subrev_f16", BINARY(H, subrev)},
    {"v_mul_f16", BINARY(H, mul)},
    {"v_max_f16 v_max_num_f16", BINARY(H, max)},
    {"v_min_f16 v_min_num_f16", BINARY(H, min)},
    {"v_maximum_f16", BINARY(H, maximum)},
    {"v_minimum_f16", BINARY(H, minimum)},
    {"v_fma_f16 v_fmac_f16 v_fmaak_f16 v_fmamk_f16 v_mad_f16 v_mac_f16", TERNARY(H, fma_f16)},
    {"v_max3_f16 v_max3_num_f16", TERNARY(H, max3)},
    {"v_min3_f16 v_min3_num_f16", TERNARY(H, min3)},
    {"v_med3_f16 v_med3_num_f16", TERNARY(H, med3)},
    {"v_maximum3_f16", TERNARY(H, maximum3)},
    {"v_minimum3_f16", TERNARY(H, minimum3)},
    {"v_maxmin_f16 v_maxmin_num_f16", TERNARY(H, maxmin)},
    {"v_minmax_f16 v_minmax_num_f16", TERNARY(H, minmax)},
    {"v_floor_f16", UNARY(H, floor_)},
    {"v_ceil_f16", UNARY(H, ceil_)},
    {"v_trunc_f16", UNARY(H, trunc_)},
    {"v_rndne_f16", UNARY(H, rndne)},
    {"v_fract_f16", UNARY(H, fract)},
    {"v_exp_f16 v_s_exp_f16", SLOW(H, exp_f16)},
    {"v_log_f16 v_s_log_f16", SLOW(H, log_f16)},
    {"v_rcp_f16 v_s_rcp_f16", SLOW(H, rcp_f16)},
    {"v_rsq_f16 v_s_rsq_f16", SLOW(H, rsq_f16)},
    {"v_sqrt_f16 v_s_sqrt_f16", SLOW(H, sqrt_f16)},
    {"v_sin_f16", SLOW(H, sin_)},
    {"v_cos_f16", SLOW(H, cos_)},
    {"v_ldexp_f16", run_vector, ldexp_, H, {H, TYPE_I16}, CLASS_VALU, 0},
    {"v_frexp_mant_f16", UNARY(H, frexp_mantissa)},
    {"v_frexp_exp_i16_f16", run_vector, frexp_exponent, TYPE_B16, {H}, CLASS_VALU, 0},
    {"v_div_fixup_f16", TERNARY(H, div_fixup)},
};
const SemanticsTable float_table = {entries, COUNT_OF(entries)};
