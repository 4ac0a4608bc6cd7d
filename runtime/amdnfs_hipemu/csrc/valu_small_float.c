// Conversions of fp8 and bf8. Those with scales are in valu_scaled.c.
// Source: CDNA3, CDNA4 and RDNA4 ISA documents, "V_CVT_F32_FP8" and following.
#include <stdlib.h>

#include "half.h"
#include "lanes.h"
#include "tables.h"

#define IS_BF8 1   // detail

static SmallFloat format_of(const Wave *w, u32 detail) {
  bool is_fnuz = w->kernel->module->chip->is_fnuz;
  if (detail & IS_BF8) return is_fnuz ? FP8_E5M2_FNUZ : FP8_E5M2;
  return is_fnuz ? FP8_E4M3_FNUZ : FP8_E4M3;
}

// Tables of all 256 values, made on first use for each format.
static const f32 *values_of(SmallFloat format) {
  static f32 tables[NUM_SMALL_FLOATS][256];
  static int is_made[NUM_SMALL_FLOATS];
  if (!__atomic_load_n(&is_made[format], __ATOMIC_ACQUIRE)) {
    for (u32 bits = 0; bits < 256; bits++) tables[format][bits] = small_to_float(format, bits);
    __atomic_store_n(&is_made[format], 1, __ATOMIC_RELEASE);
  }
  return tables[format];
}

void small_floats(const Wave *w, bool is_bf8, const u8 *in, f32 *out, u32 count) {
  const f32 *table = values_of(format_of(w, is_bf8 ? IS_BF8 : 0));
  for (u32 i = 0; i < count; i++) out[i] = table[in[i]];
}

// One byte of the source. VOP3 forms say which in OP_SEL: RDNA4 "OPSEL[1:0]" with bits swapped against SDWA of CDNA.
static void run_unpack_one(Wave *w, const Inst *inst) {
  const f32 *table = values_of(format_of(w, inst->imm));
  Lanes room, result;
  const u32 *in = fetch_lanes(w, inst, &inst->src[0], &room);
  u32 op_sel = inst->format == FORMAT_VOP3 ? inst->abid : 0;
  u32 byte = (op_sel & 1) << 1 | (op_sel >> 1 & 1);
  for (u32 l = 0; l < w->lanes; l++) ((f32 *)result.values)[l] = table[in[l] >> 8 * byte & 255];
  commit_lanes(w, inst, &inst->dst, result.values);
}

// Two bytes of the source to two registers; OP_SEL[0] or SDWA's WORD_1 selects the high half.
static void run_unpack_two(Wave *w, const Inst *inst) {
  const f32 *table = values_of(format_of(w, inst->imm));
  Lanes room;
  f32 low[MAX_LANES] VECTOR_ALIGNED, high[MAX_LANES] VECTOR_ALIGNED;
  const u32 *in = fetch_lanes(w, inst, &inst->src[0], &room);
  int shift = inst->format == FORMAT_VOP3 && (inst->abid & 1) ? 16 : 0;
  for (u32 l = 0; l < w->lanes; l++) {
    low[l] = table[in[l] >> shift & 255];
    high[l] = table[in[l] >> (shift + 8) & 255];
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, (u32 *)low, mask);
  write_register(w, inst->dst.reg + 1, (u32 *)high, mask);
}

// Two floats to one half of the destination; OP_SEL[3] says which, the other stays.
static void run_pack_two(Wave *w, const Inst *inst) {
  SmallFloat format = format_of(w, inst->imm);
  Lanes rooms[2];
  const f32 *a = fetch_lanes(w, inst, &inst->src[0], &rooms[0]), *b = fetch_lanes(w, inst, &inst->src[1], &rooms[1]);
  u32 out[MAX_LANES] VECTOR_ALIGNED = {0};
  int shift = inst->abid & 8 ? 16 : 0;
  // "CLAMP" (FP16_OVFL of MODE bit 23): saturate instead of overflowing.
  bool saturate = inst->clamp || w->mode >> 23 & 1;
  for (u32 l = 0; l < w->lanes; l++) {
    u32 pair = float_to_small(format, a[l], -1, saturate) | float_to_small(format, b[l], -1, saturate) << 8;
    out[l] = (w->v[inst->dst.reg][l] & ~(0xffffu << shift)) | pair << shift;
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, mask);
}

// "V_CVT_SR_FP8_F32": the top 20 (fp8) or 21 (bf8) random bits are added to the fraction, then it is rounded; OP_SEL
// [3:2] says which byte is written.
static void run_pack_random(Wave *w, const Inst *inst) {
  SmallFloat format = format_of(w, inst->imm);
  Lanes rooms[2];
  const f32 *a = fetch_lanes(w, inst, &inst->src[0], &rooms[0]);
  const u32 *random = fetch_lanes(w, inst, &inst->src[1], &rooms[1]);
  u32 out[MAX_LANES] VECTOR_ALIGNED = {0};
  int shift = 8 * (inst->abid >> 2 & 3);
  for (u32 l = 0; l < w->lanes; l++) {
    u32 byte = float_to_small(format, a[l], (i64)random[l], inst->clamp || w->mode >> 23 & 1);
    out[l] = (w->v[inst->dst.reg][l] & ~(255u << shift)) | byte << shift;
  }
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, mask);
}

#define F TYPE_F32
#define U TYPE_B32
static const Semantics entries[] = {
    {"v_cvt_f32_fp8", run_unpack_one, NULL, F, {U}, CLASS_VALU, 0},
    {"v_cvt_f32_bf8", run_unpack_one, NULL, F, {U}, CLASS_VALU, IS_BF8},
    {"v_cvt_pk_f32_fp8", run_unpack_two, NULL, TYPE_B64, {U}, CLASS_VALU, 0},
    {"v_cvt_pk_f32_bf8", run_unpack_two, NULL, TYPE_B64, {U}, CLASS_VALU, IS_BF8},
    {"v_cvt_pk_fp8_f32", run_pack_two, NULL, U, {F, F}, CLASS_VALU, 0},
    {"v_cvt_pk_bf8_f32", run_pack_two, NULL, U, {F, F}, CLASS_VALU, IS_BF8},
    {"v_cvt_sr_fp8_f32", run_pack_random, NULL, U, {F, U}, CLASS_VALU, 0},
    {"v_cvt_sr_bf8_f32", run_pack_random, NULL, U, {F, U}, CLASS_VALU, IS_BF8},
};
const SemanticsTable small_float_table = {entries, COUNT_OF(entries)};
