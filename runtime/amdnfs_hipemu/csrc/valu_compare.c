// V_CMP and V_CMPX: 16 conditions of floats, 8 of integers, and the class test.
#include <pthread.h>
#include <stdio.h>

#include "lanes.h"
#include "tables.h"

// "VOPC instructions": F, LT, EQ, LE, GT, LG, GE, O, U, NGE, NLG, NGT, NLE, NEQ, NLT, T.
#define COMPARE(NAME, TYPE, EXPR)                                     \
  static void NAME(const LaneArgs *args) {                            \
    const TYPE *in0 = args->in[0], *in1 = args->in[1];                \
    u32 *out = args->out;                                             \
    FOR_LANES(args) {                                                 \
      const TYPE a UNUSED = in0[l], b UNUSED = in1[l];                \
      out[l] = (EXPR);                                                \
    }                                                                 \
  }
#define FLOATS(P, T)                                                                                              \
  COMPARE(P##_f, T, 0) COMPARE(P##_lt, T, a < b) COMPARE(P##_eq, T, a == b) COMPARE(P##_le, T, a <= b)           \
  COMPARE(P##_gt, T, a > b) COMPARE(P##_lg, T, a < b || a > b) COMPARE(P##_ge, T, a >= b)                         \
  COMPARE(P##_o, T, a == a && b == b) COMPARE(P##_u, T, a != a || b != b) COMPARE(P##_nge, T, !(a >= b))          \
  COMPARE(P##_nlg, T, !(a < b || a > b)) COMPARE(P##_ngt, T, !(a > b)) COMPARE(P##_nle, T, !(a <= b))            \
  COMPARE(P##_neq, T, a != b) COMPARE(P##_nlt, T, !(a < b)) COMPARE(P##_t, T, 1)                                  \
  static LaneKernel *const P##_kernels[] = {P##_f, P##_lt, P##_eq, P##_le, P##_gt, P##_lg, P##_ge, P##_o,         \
                                            P##_u, P##_nge, P##_nlg, P##_ngt, P##_nle, P##_neq, P##_nlt, P##_t};
#define INTEGERS(P, T)                                                                                            \
  COMPARE(P##_f, T, 0) COMPARE(P##_lt, T, a < b) COMPARE(P##_eq, T, a == b) COMPARE(P##_le, T, a <= b)           \
  COMPARE(P##_gt, T, a > b) COMPARE(P##_ne, T, a != b) COMPARE(P##_ge, T, a >= b) COMPARE(P##_t, T, 1)            \
  static LaneKernel *const P##_kernels[] = {P##_f, P##_lt, P##_eq, P##_le, P##_gt, P##_ne, P##_ge, P##_t};

FLOATS(f32, f32)
FLOATS(f64, f64)
INTEGERS(u32, u32)
INTEGERS(i32, i32)
INTEGERS(u64, u64)
INTEGERS(i64, i64)

// "V_CMP_CLASS": bits 0 signalling NaN, 1 quiet NaN, 2 -inf, 3 -normal, 4 -denormal, 5 -0, 6 +0, 7 +denormal, 8
// +normal, 9 +inf.
static u32 class_of(bool sign, bool is_max_exponent, bool is_zero_exponent, u64 fraction, bool is_quiet) {
  if (is_max_exponent) return fraction ? (is_quiet ? 2 : 1) : sign ? 4 : 512;
  if (is_zero_exponent) return fraction ? (sign ? 16 : 128) : sign ? 32 : 64;
  return sign ? 8 : 256;
}
static void class_f32(const LaneArgs *args) {
  const u32 *a = args->in[0], *mask = args->in[1];
  u32 *out = args->out;
  for (int l = 0; l < args->lanes; l++) {
    u32 exponent = a[l] >> 23 & 255, fraction = a[l] & 0x7fffff;
    out[l] = (class_of(a[l] >> 31, exponent == 255, exponent == 0, fraction, fraction >> 22) & mask[l]) != 0;
  }
}
static void class_f16(const LaneArgs *args) {
  const u32 *a = args->in[0], *mask = args->in[1];
  u32 *out = args->out;
  for (int l = 0; l < args->lanes; l++) {
    u32 exponent = a[l] >> 10 & 31, fraction = a[l] & 0x3ff;
    out[l] = (class_of(a[l] >> 15 & 1, exponent == 31, exponent == 0, fraction, fraction >> 9) & mask[l]) != 0;
  }
}
static void class_f64(const LaneArgs *args) {
  const u64 *a = args->in[0];
  const u32 *mask = args->in[1];
  u32 *out = args->out;
  for (int l = 0; l < args->lanes; l++) {
    u64 exponent = a[l] >> 52 & 2047, fraction = a[l] & ((1ull << 52) - 1);
    out[l] = (class_of(a[l] >> 63, exponent == 2047, exponent == 0, fraction, fraction >> 51) & mask[l]) != 0;
  }
}

static const char *const float_conditions[] = {"f",   "lt",  "eq",  "le",  "gt",  "lg",  "ge",  "o",
                                               "u",   "nge", "nlg", "ngt", "nle", "neq", "nlt", "t"};
static const char *const integer_conditions[] = {"f", "lt", "eq", "le", "gt", "ne", "ge", "t"};

static const struct {
  const char *name;
  u8 type;
  LaneKernel *const *kernels;
  bool is_float;
} types[] = {
    {"f16", TYPE_F16, f32_kernels, true},  {"f32", TYPE_F32, f32_kernels, true},  {"f64", TYPE_F64, f64_kernels, true},
    {"u16", TYPE_B16, u32_kernels, false}, {"i16", TYPE_I16, i32_kernels, false}, {"u32", TYPE_B32, u32_kernels, false},
    {"i32", TYPE_B32, i32_kernels, false}, {"u64", TYPE_B64, u64_kernels, false}, {"i64", TYPE_B64, i64_kernels, false},
};

static Semantics made[2 * (3 * 16 + 6 * 8 + 3)];
static char made_names[COUNT_OF(made)][24];
static size_t num_made;
static pthread_once_t is_made = PTHREAD_ONCE_INIT;

static void make_one(bool is_cmpx, const char *condition, const char *type, LaneKernel *kernel, u8 in0, u8 in1) {
  snprintf(made_names[num_made], sizeof made_names[0], "v_cmp%s_%s_%s", is_cmpx ? "x" : "", condition, type);
  made[num_made] = (Semantics){made_names[num_made], run_vector, kernel, TYPE_LANES, {in0, in1, 0}, CLASS_VALU, 0};
  num_made++;
}

static void make_all(void) {
  for (int is_cmpx = 0; is_cmpx < 2; is_cmpx++) {
    for (size_t t = 0; t < COUNT_OF(types); t++)
      for (size_t c = 0; c < (types[t].is_float ? 16u : 8u); c++)
        make_one(is_cmpx, (types[t].is_float ? float_conditions : integer_conditions)[c], types[t].name,
                 types[t].kernels[c], types[t].type, types[t].type);
    make_one(is_cmpx, "class", "f16", class_f16, TYPE_B16, TYPE_B32);
    make_one(is_cmpx, "class", "f32", class_f32, TYPE_B32, TYPE_B32);
    make_one(is_cmpx, "class", "f64", class_f64, TYPE_B64, TYPE_B32);
  }
}

const Semantics *compare_semantics(const char *name) {
  pthread_once(&is_made, make_all);
  char spelled[32];
  snprintf(spelled, sizeof spelled, "%s", name);
  char *tru = strstr(spelled, "_tru_");
  if (tru) memmove(tru + 2, tru + 4, strlen(tru + 4) + 1);
  for (size_t i = 0; i < num_made; i++)
    if (!strcmp(made_names[i], spelled)) return &made[i];
  return NULL;
}
