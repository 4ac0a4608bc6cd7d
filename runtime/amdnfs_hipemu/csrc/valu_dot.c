// Dot products of packed elements within a lane.
#include "half.h"
#include "lanes.h"
#include "tables.h"

static inline i32 element(u32 word, int index, int bits, bool is_signed) {
  u32 raw = field(word, index * bits, bits);
  return is_signed ? (i32)sign_extend(raw, bits) : (i32)raw;
}

#define IS_SIGNED_A 1   // detail bits
#define IS_SIGNED_B 2
#define SIGNS_FROM_NEG 4
#define IS_NIBBLES 8
#define IS_HALVES 16

// "V_DOT4_I32_I8", "V_DOT8_I32_I4", "V_DOT2_I32_I16"; the IU forms of RDNA3 say in NEG which sources are signed.
static void run_integer_dot(Wave *w, const Inst *inst) {
  u32 detail = inst->semantics->detail;
  bool signed_a = detail & SIGNS_FROM_NEG ? inst->src[0].neg : detail & IS_SIGNED_A;
  bool signed_b = detail & SIGNS_FROM_NEG ? inst->src[1].neg : detail & IS_SIGNED_B;
  int bits = detail & IS_NIBBLES ? 4 : detail & IS_HALVES ? 16 : 8;
  Lanes rooms[3];
  const u32 *in[3];
  for (int k = 0; k < 3; k++) in[k] = fetch_raw(w, &inst->src[k], 0, &rooms[k]);
  u32 out[MAX_LANES] VECTOR_ALIGNED;
  for (u32 l = 0; l < w->lanes; l++) {
    i64 sum = signed_a || signed_b ? (i64)(i32)in[2][l] : (i64)in[2][l];
    for (int i = 0; i < 32 / bits; i++)
      sum += (i64)element(in[0][l], i, bits, signed_a) * element(in[1][l], i, bits, signed_b);
    if (inst->clamp && (signed_a || signed_b)) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
    else if (inst->clamp) sum = sum > UINT32_MAX ? UINT32_MAX : sum;
    out[l] = (u32)sum;
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, mask);
}

// "V_DOT2_F32_F16": D = A0 * B0 + A1 * B1 + C. The documents name no order of rounding; here it is one fma after the
// other, low halves first. NEG and NEG_HI negate the low and high elements; of C, NEG and NEG_HI (the magnitude).
static void run_float_dot(Wave *w, const Inst *inst) {
  bool is_bf16 = inst->semantics->detail & 1, to_half = inst->semantics->detail & 2;
  Lanes rooms[3];
  const u32 *in[3];
  for (int k = 0; k < 3; k++) in[k] = fetch_raw(w, &inst->src[k], 0, &rooms[k]);
  u32 out[MAX_LANES] VECTOR_ALIGNED;
  bool is_short = inst->format == FORMAT_VOP2 || inst->format == FORMAT_VOPD || inst->format == FORMAT_VOP3;
  for (u32 l = 0; l < w->lanes; l++) {
    f32 value[2][2];
    for (int k = 0; k < 2; k++) {
      const Operand *o = &inst->src[k];
      for (int h = 0; h < 2; h++) {
        bool is_upper = is_short ? h : (h ? o->half_hi : o->half);
        u32 bits = in[k][l] >> (is_upper ? 16 : 0) & 0xffff;
        value[k][h] = is_bf16 ? bf16_to_float(bits) : half_to_float((u16)bits);
        if (h ? o->neg_hi : o->neg) value[k][h] = -value[k][h];
      }
    }
    f32 c = to_half ? (is_bf16 ? bf16_to_float(in[2][l] & 0xffff) : half_to_float((u16)in[2][l])) : f32_of(in[2][l]);
    if (!is_short && inst->src[2].neg) c = -c;
    f32 sum = fmaf(value[0][1], value[1][1], fmaf(value[0][0], value[1][0], c));
    if (inst->clamp) sum = sum > 0.0f ? (sum < 1.0f ? sum : 1.0f) : 0.0f;
    out[l] = bits_of(sum);
    if (to_half)
      out[l] = (w->v[inst->dst.reg][l] & 0xffff0000) | (is_bf16 ? float_to_bf16(sum) : float_to_half(sum, ROUND_NEAREST));
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, mask);
}

#define U TYPE_B32
#define INTEGER(FLAGS) run_integer_dot, NULL, U, {U, U, U}, CLASS_VALU, FLAGS
#define FLOATING(FLAGS) run_float_dot, NULL, U, {U, U, U}, CLASS_VALU, FLAGS

static const Semantics entries[] = {
    {"v_dot4_i32_i8 v_dot4c_i32_i8", INTEGER(IS_SIGNED_A | IS_SIGNED_B)},
    {"v_dot4_u32_u8", INTEGER(0)},
    {"v_dot4_i32_iu8", INTEGER(SIGNS_FROM_NEG)},
    {"v_dot8_i32_i4 v_dot8c_i32_i4", INTEGER(IS_SIGNED_A | IS_SIGNED_B | IS_NIBBLES)},
    {"v_dot8_u32_u4", INTEGER(IS_NIBBLES)},
    {"v_dot8_i32_iu4", INTEGER(SIGNS_FROM_NEG | IS_NIBBLES)},
    {"v_dot2_i32_i16 v_dot2c_i32_i16", INTEGER(IS_SIGNED_A | IS_SIGNED_B | IS_HALVES)},
    {"v_dot2_u32_u16", INTEGER(IS_HALVES)},
    {"v_dot2_f32_f16 v_dot2c_f32_f16 v_dot2acc_f32_f16", FLOATING(0)},
    {"v_dot2_f32_bf16 v_dot2c_f32_bf16 v_dot2acc_f32_bf16", FLOATING(1)},
    {"v_dot2_f16_f16", FLOATING(2)},
    {"v_dot2_bf16_bf16", FLOATING(3)},
};
const SemanticsTable dot_table = {entries, COUNT_OF(entries)};
