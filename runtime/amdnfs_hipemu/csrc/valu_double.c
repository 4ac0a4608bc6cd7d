// Vector arithmetic in f64.
#include "lanes.h"
#include "tables.h"

static inline f64 max_f64(f64 a, f64 b) { return a != a ? b : b != b ? a : a > b ? a : b; }
static inline f64 min_f64(f64 a, f64 b) { return a != a ? b : b != b ? a : a < b ? a : b; }

LANES2(add, f64, f64, f64, a + b)
LANES2(mul, f64, f64, f64, a *b)
LANES2(max, f64, f64, f64, max_f64(a, b))
LANES2(min, f64, f64, f64, min_f64(a, b))
LANES3(fma_, f64, f64, f64, f64, fma(a, b, c))
LANES1(floor_, f64, f64, floor(a))
LANES1(ceil_, f64, f64, ceil(a))
LANES1(trunc_, f64, f64, trunc(a))
LANES1(rndne, f64, f64, __builtin_roundeven(a))
LANES1(fract, f64, f64, fmin(a - floor(a), 0x1.fffffffffffffp-1))
LANES1(rcp, f64, f64, 1.0 / a)
LANES1(rsq, f64, f64, 1.0 / sqrt(a))
LANES1(sqrt_, f64, f64, sqrt(a))
LANES2(ldexp_, f64, f64, i32, ldexp(a, b))
LANES1(frexp_mantissa, f64, f64, isfinite(a) ? frexp(a, &(int){0}) : a)

static void frexp_exponent(const LaneArgs *args) {
  i32 *out = args->out;
  const f64 *in = args->in[0];
  for (int l = 0; l < args->lanes; l++) {
    int exponent = 0;
    if (isfinite(in[l])) frexp(in[l], &exponent);
    out[l] = exponent;
  }
}

// "V_DIV_FIXUP_F64", "V_DIV_FMAS_F64", "V_DIV_SCALE_F64": as for f32, with the exponents of f64.
static f64 div_fixup_one(f64 q, f64 b, f64 a) {
  u64 sign = (bits_of_f64(a) ^ bits_of_f64(b)) & 1ull << 63;
  if (a != a) return a;
  if (b != b) return b;
  if ((a == 0.0 && b == 0.0) || (isinf(a) && isinf(b))) return f64_of(0xfff8000000000000ull);
  if (b == 0.0 || isinf(a)) return f64_of(sign | 0x7ff0000000000000ull);
  if (isinf(b) || a == 0.0) return f64_of(sign);
  return f64_of((bits_of_f64(q) & ~(1ull << 63)) | sign);
}
LANES3(div_fixup, f64, f64, f64, f64, div_fixup_one(a, b, c))

static void div_fmas(const LaneArgs *args) {
  const Wave *w = args->wave;
  u64 vcc = w->lanes == 64 ? w->s[SGPR_VCC] | (u64)w->s[SGPR_VCC + 1] << 32 : w->s[SGPR_VCC];
  f64 *out = args->out;
  const f64 *a = args->in[0], *b = args->in[1], *c = args->in[2];
  for (int l = 0; l < args->lanes; l++) {
    f64 result = fma(a[l], b[l], c[l]);
    out[l] = vcc >> l & 1 ? ldexp(result, (bits_of_f64(c[l]) >> 52 & 2047) > 1023 ? 128 : -128) : result;
  }
}

static f64 div_scale_one(f64 s0, f64 s1, f64 s2, bool *vcc) {
  int e1 = (int)(bits_of_f64(s1) >> 52 & 2047), e2 = (int)(bits_of_f64(s2) >> 52 & 2047);
  *vcc = false;
  if (s2 == 0.0 || s1 == 0.0) return NAN;
  bool is_quotient_denormal = fabs(s2 / s1) < 0x1p-1022, is_reciprocal_denormal = fabs(1.0 / s1) < 0x1p-1022;
  *vcc = e2 - e1 >= 768 || (e1 != 0 && is_quotient_denormal);
  if (e2 - e1 >= 768) return s0 == s1 ? ldexp(s0, 128) : s0;
  if (e1 == 0) return ldexp(s0, 128);
  if (is_reciprocal_denormal && is_quotient_denormal) return s0 == s1 ? ldexp(s0, 128) : s0;
  if (is_reciprocal_denormal) return ldexp(s0, -128);
  if (is_quotient_denormal) return s0 == s2 ? ldexp(s0, 128) : s0;
  return e2 <= 53 ? ldexp(s0, 128) : s0;
}

static void run_div_scale(Wave *w, const Inst *inst) {
  Lanes rooms[3], result;
  const f64 *in[3];
  for (int k = 0; k < 3; k++) in[k] = fetch_lanes(w, inst, &inst->src[k], &rooms[k]);
  u64 vcc = 0, exec = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    bool is_scaled;
    ((f64 *)result.values)[l] = div_scale_one(in[0][l], in[1][l], in[2][l], &is_scaled);
    vcc |= (u64)is_scaled << l;
  }
  commit_lanes(w, inst, &inst->dst, result.values);
  write_mask_register(w, &inst->dst2, vcc & exec);
}

#define D TYPE_F64
static const Semantics entries[] = {
    {"v_add_f64", run_vector, add, D, {D, D}, CLASS_VALU, 0},
    {"v_mul_f64", run_vector, mul, D, {D, D}, CLASS_VALU, 0},
    {"v_max_f64 v_max_num_f64", run_vector, max, D, {D, D}, CLASS_VALU, 0},
    {"v_min_f64 v_min_num_f64", run_vector, min, D, {D, D}, CLASS_VALU, 0},
    {"v_fma_f64 v_fmac_f64", run_vector, fma_, D, {D, D, D}, CLASS_VALU, 0},
    {"v_floor_f64", run_vector, floor_, D, {D}, CLASS_VALU, 0},
    {"v_ceil_f64", run_vector, ceil_, D, {D}, CLASS_VALU, 0},
    {"v_trunc_f64", run_vector, trunc_, D, {D}, CLASS_VALU, 0},
    {"v_rndne_f64", run_vector, rndne, D, {D}, CLASS_VALU, 0},
    {"v_fract_f64", run_vector, fract, D, {D}, CLASS_VALU, 0},
    {"v_rcp_f64", run_vector, rcp, D, {D}, CLASS_TRANSCENDENTAL, 0},
    {"v_rsq_f64", run_vector, rsq, D, {D}, CLASS_TRANSCENDENTAL, 0},
    {"v_sqrt_f64", run_vector, sqrt_, D, {D}, CLASS_TRANSCENDENTAL, 0},
    {"v_ldexp_f64", run_vector, ldexp_, D, {D, TYPE_B32}, CLASS_VALU, 0},
    {"v_frexp_mant_f64", run_vector, frexp_mantissa, D, {D}, CLASS_VALU, 0},
    {"v_frexp_exp_i32_f64", run_vector, frexp_exponent, TYPE_B32, {D}, CLASS_VALU, 0},
    {"v_div_fixup_f64", run_vector, div_fixup, D, {D, D, D}, CLASS_VALU, 0},
    {"v_div_fmas_f64", run_vector, div_fmas, D, {D, D, D}, CLASS_VALU, 0},
    {"v_div_scale_f64", run_div_scale, NULL, D, {D, D, D}, CLASS_VALU, 0},
};
const SemanticsTable double_table = {entries, COUNT_OF(entries)};
