// Scalar floats of RDNA3.5 and RDNA4.
#include "float_math.h"
#include "half.h"
#include "lanes.h"
#include "tables.h"

#define FLOAT2(NAME, EXPR)                                                                  \
  static void NAME(Wave *w, const Inst *inst) {                                             \
    f32 a = f32_of(read_scalar(w, &inst->src[0])), b = f32_of(read_scalar(w, &inst->src[1])); \
    write_scalar(w, &inst->dst, bits_of(EXPR));                                             \
  }
#define FLOAT1(NAME, EXPR)                                    \
  static void NAME(Wave *w, const Inst *inst) {               \
    f32 a = f32_of(read_scalar(w, &inst->src[0]));            \
    write_scalar(w, &inst->dst, bits_of(EXPR));               \
  }
#define FLOAT3(NAME, EXPR)                                                                  \
  static void NAME(Wave *w, const Inst *inst) {                                             \
    f32 a = f32_of(read_scalar(w, &inst->src[0])), b = f32_of(read_scalar(w, &inst->src[1])); \
    f32 c = f32_of(read_scalar(w, &inst->src[2]));                                          \
    write_scalar(w, &inst->dst, bits_of(EXPR));                                             \
  }
#define TEST(NAME, EXPR)                                                                    \
  static void NAME(Wave *w, const Inst *inst) {                                             \
    f32 a = f32_of(read_scalar(w, &inst->src[0])), b = f32_of(read_scalar(w, &inst->src[1])); \
    w->scc = (EXPR);                                                                        \
  }
#define HALF2(NAME, EXPR)                                                                   \
  static void NAME(Wave *w, const Inst *inst) {                                             \
    f32 a = half_to_float((u16)read_scalar(w, &inst->src[0]));                              \
    f32 b = half_to_float((u16)read_scalar(w, &inst->src[1]));                              \
    write_scalar(w, &inst->dst, float_to_half((EXPR), ROUND_NEAREST));                      \
  }

FLOAT2(add, a + b)
FLOAT2(sub, a - b)
FLOAT2(mul, a *b)
FLOAT2(min, min_f32(a, b))
FLOAT2(max, max_f32(a, b))
FLOAT2(minimum, minimum_f32(a, b))
FLOAT2(maximum, maximum_f32(a, b))
FLOAT3(fma_, fmaf(a, b, c))
FLOAT1(ceil_, ceilf(a))
FLOAT1(floor_, floorf(a))
FLOAT1(trunc_, truncf(a))
FLOAT1(rndne, __builtin_roundevenf(a))
HALF2(add_f16, a + b)
HALF2(sub_f16, a - b)
HALF2(mul_f16, a *b)
HALF2(min_f16, min_f32(a, b))
HALF2(max_f16, max_f32(a, b))
TEST(lt, a < b)
TEST(eq, a == b)
TEST(le, a <= b)
TEST(gt, a > b)
TEST(lg, a < b || a > b)
TEST(ge, a >= b)
TEST(ordered, a == a && b == b)
TEST(unordered, a != a || b != b)
TEST(nge, !(a >= b))
TEST(nlg, !(a < b || a > b))
TEST(ngt, !(a > b))
TEST(nle, !(a <= b))
TEST(neq, a != b)
TEST(nlt, !(a < b))

static void from_i32(Wave *w, const Inst *inst) { write_scalar(w, &inst->dst, bits_of((f32)(i32)read_scalar(w, &inst->src[0]))); }
static void from_u32(Wave *w, const Inst *inst) { write_scalar(w, &inst->dst, bits_of((f32)read_scalar(w, &inst->src[0]))); }
static void to_i32(Wave *w, const Inst *inst) {
  f32 a = f32_of(read_scalar(w, &inst->src[0]));
  i32 d = a != a ? 0 : a >= 2147483648.0f ? INT32_MAX : a <= -2147483648.0f ? INT32_MIN : (i32)a;
  write_scalar(w, &inst->dst, (u32)d);
}
static void to_u32(Wave *w, const Inst *inst) {
  f32 a = f32_of(read_scalar(w, &inst->src[0]));
  write_scalar(w, &inst->dst, a != a || a <= 0.0f ? 0 : a >= 4294967296.0f ? UINT32_MAX : (u32)a);
}
static void to_f16(Wave *w, const Inst *inst) {
  write_scalar(w, &inst->dst, float_to_half(f32_of(read_scalar(w, &inst->src[0])), (Rounding)(w->mode >> 2 & 3)));
}
static void from_f16(Wave *w, const Inst *inst) { write_scalar(w, &inst->dst, bits_of(half_to_float((u16)read_scalar(w, &inst->src[0])))); }
static void from_f16_high(Wave *w, const Inst *inst) {
  write_scalar(w, &inst->dst, bits_of(half_to_float((u16)(read_scalar(w, &inst->src[0]) >> 16))));
}
static void pk_to_zero(Wave *w, const Inst *inst) {
  u32 low = float_to_half(f32_of(read_scalar(w, &inst->src[0])), ROUND_ZERO);
  u32 high = float_to_half(f32_of(read_scalar(w, &inst->src[1])), ROUND_ZERO);
  write_scalar(w, &inst->dst, low | high << 16);
}

#define U TYPE_B32
#define ONE(K) K, NULL, U, {U}, CLASS_SALU, 0
#define TWO(K) K, NULL, U, {U, U}, CLASS_SALU, 0
#define COMPARE(K) K, NULL, 0, {U, U}, CLASS_SALU, 0

static const Semantics entries[] = {
    {"s_add_f32", TWO(add)},
    {"s_sub_f32", TWO(sub)},
    {"s_mul_f32", TWO(mul)},
    {"s_min_f32 s_min_num_f32", TWO(min)},
    {"s_max_f32 s_max_num_f32", TWO(max)},
    {"s_minimum_f32", TWO(minimum)},
    {"s_maximum_f32", TWO(maximum)},
    {"s_fmac_f32 s_fmaak_f32", fma_, NULL, U, {U, U, U}, CLASS_SALU, 0},
    {"s_ceil_f32", ONE(ceil_)},
    {"s_floor_f32", ONE(floor_)},
    {"s_trunc_f32", ONE(trunc_)},
    {"s_rndne_f32", ONE(rndne)},
    {"s_add_f16", TWO(add_f16)},
    {"s_sub_f16", TWO(sub_f16)},
    {"s_mul_f16", TWO(mul_f16)},
    {"s_min_f16 s_min_num_f16", TWO(min_f16)},
    {"s_max_f16 s_max_num_f16", TWO(max_f16)},
    {"s_cvt_f32_i32", ONE(from_i32)},
    {"s_cvt_f32_u32", ONE(from_u32)},
    {"s_cvt_i32_f32", ONE(to_i32)},
    {"s_cvt_u32_f32", ONE(to_u32)},
    {"s_cvt_f16_f32", ONE(to_f16)},
    {"s_cvt_f32_f16", ONE(from_f16)},
    {"s_cvt_hi_f32_f16", ONE(from_f16_high)},
    {"s_cvt_pk_rtz_f16_f32", TWO(pk_to_zero)},
    {"s_cmp_lt_f32", COMPARE(lt)},
    {"s_cmp_eq_f32", COMPARE(eq)},
    {"s_cmp_le_f32", COMPARE(le)},
    {"s_cmp_gt_f32", COMPARE(gt)},
    {"s_cmp_lg_f32", COMPARE(lg)},
    {"s_cmp_ge_f32", COMPARE(ge)},
    {"s_cmp_o_f32", COMPARE(ordered)},
    {"s_cmp_u_f32", COMPARE(unordered)},
    {"s_cmp_nge_f32", COMPARE(nge)},
    {"s_cmp_nlg_f32", COMPARE(nlg)},
    {"s_cmp_ngt_f32", COMPARE(ngt)},
    {"s_cmp_nle_f32", COMPARE(nle)},
    {"s_cmp_neq_f32", COMPARE(neq)},
    {"s_cmp_nlt_f32", COMPARE(nlt)},
};
const SemanticsTable scalar_float_table = {entries, COUNT_OF(entries)};
