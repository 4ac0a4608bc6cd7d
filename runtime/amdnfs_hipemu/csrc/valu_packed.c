// VOP3P: the same operation on both halves of a register, on pairs of f32, and the mixed-precision multiply-adds.
// Source: "VOP3P": OP_SEL chooses the half that the low result reads, OP_SEL_HI that of the high result; NEG and
// NEG_HI negate the operands of each.
#include "float_math.h"
#include "half.h"
#include "lanes.h"
#include "tables.h"

LANES2(add, f32, f32, f32, a + b)
LANES2(mul, f32, f32, f32, a *b)
LANES2(max, f32, f32, f32, max_f32(a, b))
LANES2(min, f32, f32, f32, min_f32(a, b))
LANES2(maximum, f32, f32, f32, maximum_f32(a, b))
LANES2(minimum, f32, f32, f32, minimum_f32(a, b))
LANES3(maximum3, f32, f32, f32, f32, maximum_f32(maximum_f32(a, b), c))
LANES3(minimum3, f32, f32, f32, f32, minimum_f32(minimum_f32(a, b), c))
LANES3(fma_16, f32, f32, f32, f32, fma_half(a, b, c))
LANES3(fma_32, f32, f32, f32, f32, fmaf(a, b, c))
static inline u32 limit_u16(i32 value, bool clamp) {
  return (u32)(clamp ? (value < 0 ? 0 : value > 65535 ? 65535 : value) : value) & 0xffff;
}
static inline u32 limit_i16(i32 value, bool clamp) {
  return (u32)(clamp ? (value < -32768 ? -32768 : value > 32767 ? 32767 : value) : value) & 0xffff;
}
#define CLAMP args->inst->clamp
LANES2(add_u16, u32, i32, i32, limit_u16(a + b, CLAMP))
LANES2(sub_u16, u32, i32, i32, limit_u16(a - b, CLAMP))
LANES2(add_i16, u32, i32, i32, limit_i16(a + b, CLAMP))
LANES2(sub_i16, u32, i32, i32, limit_i16(a - b, CLAMP))
LANES2(mul_lo_u16, u32, u32, u32, a *b)
LANES2(lshlrev_b16, u32, u32, u32, b << (a & 15))
LANES2(lshrrev_b16, u32, u32, u32, b >> (a & 15))
LANES2(ashrrev_i16, i32, i32, i32, b >> (a & 15))
LANES2(max_16, i32, i32, i32, a > b ? a : b)
LANES2(min_16, i32, i32, i32, a < b ? a : b)
LANES3(mad_u16, u32, u32, u32, u32, a *b + c)
LANES3(mad_i16, u32, i32, i32, i32, limit_i16(a *b + c, CLAMP))

static void read_half(Wave *w, const Operand *o, u8 type, bool is_high, u32 *out) {
  Lanes room;
  const u32 *bits = fetch_raw(w, o, 0, &room);
  int shift = (is_high ? o->half_hi : o->half) ? 16 : 0;
  u32 flip = (is_high ? o->neg_hi : o->neg) ? 0x8000 : 0;
  for (int l = 0; l < MAX_LANES; l++) out[l] = (bits[l] >> shift & 0xffff) ^ flip;
  if (type == TYPE_I16)
    for (int l = 0; l < MAX_LANES; l++) out[l] = (u32)(i32)(i16)out[l];
  if (type == TYPE_BF16)
    for (int l = 0; l < MAX_LANES; l++) out[l] <<= 16;
  if (type == TYPE_F16) {
    u32 halves[MAX_LANES] VECTOR_ALIGNED;
    memcpy(halves, out, sizeof halves);
    halves_to_floats((f32 *)out, halves, (int)w->lanes);
  }
}

static void finish_half(Wave *w, const Inst *inst, u8 type, u32 *values) {
  f32 *floats = (f32 *)values;
  bool is_float = type == TYPE_F16 || type == TYPE_BF16;
  if (is_float && inst->clamp)
    for (int l = 0; l < MAX_LANES; l++) floats[l] = floats[l] > 0.0f ? (floats[l] < 1.0f ? floats[l] : 1.0f) : 0.0f;
  if (type == TYPE_F16) floats_to_halves(values, floats, (int)w->lanes, (Rounding)(w->mode >> 2 & 3));
  if (type == TYPE_BF16)
    for (int l = 0; l < MAX_LANES; l++) values[l] = float_to_bf16(floats[l]);
}

static void run_packed(Wave *w, const Inst *inst) {
  const Semantics *semantics = inst->semantics;
  u32 halves[2][MAX_LANES] VECTOR_ALIGNED, in[3][MAX_LANES] VECTOR_ALIGNED;
  LaneArgs args = {.in = {in[0], in[1], in[2]}, .lanes = (int)w->lanes, .inst = inst, .wave = w};
  for (int h = 0; h < 2; h++) {
    for (int k = 0; k < 3; k++)
      if (semantics->in[k]) read_half(w, &inst->src[k], semantics->in[k], h, in[k]);
    args.out = halves[h];
    semantics->kernel(&args);
    finish_half(w, inst, semantics->out, halves[h]);
  }
  for (int l = 0; l < MAX_LANES; l++) halves[0][l] = (halves[0][l] & 0xffff) | halves[1][l] << 16;
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, halves[0], mask);
}

// "V_PK_FMA_F32" and the like: pairs of registers; OP_SEL and OP_SEL_HI choose the register of the pair.
static void run_packed_f32(Wave *w, const Inst *inst) {
  const Semantics *semantics = inst->semantics;
  u32 results[2][MAX_LANES] VECTOR_ALIGNED, in[3][MAX_LANES] VECTOR_ALIGNED;
  LaneArgs args = {.in = {in[0], in[1], in[2]}, .lanes = (int)w->lanes, .inst = inst, .wave = w};
  for (int h = 0; h < 2; h++) {
    for (int k = 0; k < 3; k++) {
      if (!semantics->in[k]) continue;
      const Operand *o = &inst->src[k];
      Lanes room;
      bool is_high = h ? o->half_hi : o->half;
      const u32 *bits = fetch_raw(w, o, is_high && o->kind != OPERAND_VALUE, &room);
      u32 flip = (h ? o->neg_hi : o->neg) ? 0x80000000 : 0;
      for (int l = 0; l < MAX_LANES; l++) in[k][l] = bits[l] ^ flip;
    }
    args.out = results[h];
    semantics->kernel(&args);
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, results[0], mask);
  write_register(w, inst->dst.reg + 1, results[1], mask);
}

// "V_PK_MOV_B32": the low result comes from source 0, the high one from source 1; OP_SEL chooses the registers.
static void run_packed_mov(Wave *w, const Inst *inst) {
  u32 results[2][MAX_LANES] VECTOR_ALIGNED;
  for (int k = 0; k < 2; k++) {
    Lanes room;
    bool is_high = k == 0 ? inst->src[0].half : inst->src[1].half;
    const u32 *bits = fetch_raw(w, &inst->src[k], is_high && inst->src[k].kind != OPERAND_VALUE, &room);
    memcpy(results[k], bits, sizeof results[k]);
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, results[0], mask);
  write_register(w, inst->dst.reg + 1, results[1], mask);
}

#define TO_LOW_HALF 1
#define TO_HIGH_HALF 2

// "V_FMA_MIX": OP_SEL_HI says that a source is a half, OP_SEL which; NEG_HI is the absolute value.
static void read_mixed(Wave *w, const Operand *o, f32 *out) {
  Lanes room;
  const u32 *bits = fetch_raw(w, o, 0, &room);
  if (o->half_hi) {
    u32 halves[MAX_LANES] VECTOR_ALIGNED;
    for (int l = 0; l < MAX_LANES; l++) halves[l] = bits[l] >> (o->half && o->kind != OPERAND_VALUE ? 16 : 0) & 0xffff;
    halves_to_floats(out, halves, (int)w->lanes);
  } else {
    memcpy(out, bits, MAX_LANES * sizeof(f32));
  }
  if (o->neg_hi)
    for (int l = 0; l < MAX_LANES; l++) out[l] = fabsf(out[l]);
  if (o->neg)
    for (int l = 0; l < MAX_LANES; l++) out[l] = -out[l];
}

static void run_mix(Wave *w, const Inst *inst) {
  VECTOR_ALIGNED f32 in[3][MAX_LANES];
  VECTOR_ALIGNED f32 out[MAX_LANES];
  u32 halves[MAX_LANES] VECTOR_ALIGNED, detail = inst->semantics->detail;
  for (int k = 0; k < 3; k++) read_mixed(w, &inst->src[k], in[k]);
  for (int l = 0; l < MAX_LANES; l++) out[l] = fmaf(in[0][l], in[1][l], in[2][l]);
  if (inst->clamp)
    for (int l = 0; l < MAX_LANES; l++) out[l] = out[l] > 0.0f ? (out[l] < 1.0f ? out[l] : 1.0f) : 0.0f;
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  if (!detail) {
    write_register(w, inst->dst.reg, (u32 *)out, mask);
    return;
  }
  floats_to_halves(halves, out, (int)w->lanes, (Rounding)(w->mode >> 2 & 3));
  const u32 *old = w->v[inst->dst.reg];
  for (int l = 0; l < MAX_LANES; l++)
    halves[l] = detail == TO_HIGH_HALF ? (old[l] & 0xffff) | halves[l] << 16 : (old[l] & 0xffff0000) | halves[l];
  write_register(w, inst->dst.reg, halves, mask);
}

#define H TYPE_F16
#define B TYPE_BF16
#define U TYPE_B16
#define I TYPE_I16
#define TWO(T, K) run_packed, K, T, {T, T}, CLASS_VALU, 0
#define THREE(T, K) run_packed, K, T, {T, T, T}, CLASS_VALU, 0
#define PAIRS(K, ...) run_packed_f32, K, TYPE_B64, {__VA_ARGS__}, CLASS_VALU, 0
#define MIXED TYPE_B32, {TYPE_F32, TYPE_F32, TYPE_F32}, CLASS_VALU

static const Semantics entries[] = {
    {"v_pk_add_f16", TWO(H, add)},
    {"v_pk_mul_f16", TWO(H, mul)},
    {"v_pk_max_f16 v_pk_max_num_f16", TWO(H, max)},
    {"v_pk_min_f16 v_pk_min_num_f16", TWO(H, min)},
    {"v_pk_maximum_f16", TWO(H, maximum)},
    {"v_pk_minimum_f16", TWO(H, minimum)},
    {"v_pk_maximum3_f16", THREE(H, maximum3)},
    {"v_pk_minimum3_f16", THREE(H, minimum3)},
    {"v_pk_fma_f16", THREE(H, fma_16)},
    {"v_pk_add_bf16", TWO(B, add)},
    {"v_pk_mul_bf16", TWO(B, mul)},
    {"v_pk_max_num_bf16", TWO(B, max)},
    {"v_pk_min_num_bf16", TWO(B, min)},
    {"v_pk_fma_bf16", THREE(B, fma_32)},
    {"v_pk_add_u16", TWO(U, add_u16)},
    {"v_pk_sub_u16", TWO(U, sub_u16)},
    {"v_pk_add_i16", TWO(I, add_i16)},
    {"v_pk_sub_i16", TWO(I, sub_i16)},
    {"v_pk_mul_lo_u16", TWO(U, mul_lo_u16)},
    {"v_pk_lshlrev_b16", TWO(U, lshlrev_b16)},
    {"v_pk_lshrrev_b16", TWO(U, lshrrev_b16)},
    {"v_pk_ashrrev_i16", TWO(I, ashrrev_i16)},
    {"v_pk_max_u16", TWO(U, max_16)},
    {"v_pk_min_u16", TWO(U, min_16)},
    {"v_pk_max_i16", TWO(I, max_16)},
    {"v_pk_min_i16", TWO(I, min_16)},
    {"v_pk_mad_u16", THREE(U, mad_u16)},
    {"v_pk_mad_i16", THREE(I, mad_i16)},
    {"v_pk_add_f32", PAIRS(add, TYPE_B64, TYPE_B64)},
    {"v_pk_mul_f32", PAIRS(mul, TYPE_B64, TYPE_B64)},
    {"v_pk_fma_f32", PAIRS(fma_32, TYPE_B64, TYPE_B64, TYPE_B64)},
    {"v_pk_mov_b32", run_packed_mov, NULL, TYPE_B64, {TYPE_B64, TYPE_B64}, CLASS_VALU, 0},
    {"v_fma_mix_f32 v_mad_mix_f32", run_mix, NULL, MIXED, 0},
    {"v_fma_mixlo_f16 v_mad_mixlo_f16", run_mix, NULL, MIXED, TO_LOW_HALF},
    {"v_fma_mixhi_f16 v_mad_mixhi_f16", run_mix, NULL, MIXED, TO_HIGH_HALF},
};
const SemanticsTable packed_table = {entries, COUNT_OF(entries)};
