// Scaled conversions of CDNA4: f32, f16 and bf16 from and to fp8, bf8, fp6, bf6 and fp4, and v_prng_b32.
//
// "scale = 32'U(exponent(S2.f32))": values are multiplied by 2^(scale - 127) when they are unpacked, and divided by it
// when they are packed. Packing saturates. Source: CDNA4 ISA, "V_CVT_SCALEF32_*" and "V_PRNG_B32"; OCP Microscaling
// formats 1.0 for the elements.
#include "half.h"
#include "lanes.h"
#include "tables.h"

typedef enum { WIDE_F32, WIDE_F16, WIDE_BF16 } Wide;

// Semantics.detail: format, wide type, elements of a lane, and what packing reads beside the first source.
#define RANDOM 1   // source 1: random bits
#define TWO 2      // source 1: every other element
#define SCALED(FORMAT, WIDE, COUNT, FLAGS) ((u32)(FORMAT) | (u32)(WIDE) << 4 | (u32)(COUNT) << 8 | (u32)(FLAGS) << 16)
#define MAX_COUNT 32

typedef struct {
  SmallFloat format;
  Wide wide;
  u32 count, bits;
  bool is_random, has_two;
} Scaled;

static Scaled scaled_of(const Inst *inst) {
  static const u8 bits[NUM_SMALL_FLOATS] = {8, 8, 8, 8, 6, 6, 4};
  u32 detail = inst->semantics->detail;
  Scaled s = {.format = (SmallFloat)field(detail, 0, 4), .wide = (Wide)field(detail, 4, 4), .count = field(detail, 8, 8)};
  s.bits = bits[s.format];
  s.is_random = detail >> 16 & RANDOM, s.has_two = detail >> 16 & TWO;
  return s;
}

static u32 prng(u32 in) { return in << 1 ^ (in >> 31 ? 197 : 0); }
LANES1(prng_b32, u32, u32, prng(a))

// Bit where the small elements begin: "OPSEL[0] * 16" for two of 8 bits to unpack, "OPSEL[3] * 16" to pack; else a byte,
// "OPSEL[1 : 0] * 8" to unpack, "OPSEL[3 : 2] * 8" to pack. 32 elements fill their registers.
static u32 first_bit(const Scaled *s, u32 op_sel, bool packs) {
  if (s->count == MAX_COUNT) return 0;
  if (s->count == 2 && s->bits == 8) return 16 * (packs ? op_sel >> 3 & 1 : op_sel & 1);
  return 8 * (packs ? op_sel >> 2 & 3 : op_sel & 3);
}

static u32 registers_of_small(const Scaled *s) { return (s->count * s->bits + 31) / 32; }

static void write_registers(Wave *w, const Inst *inst, u32 (*values)[MAX_LANES], u32 count) {
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  for (u32 r = 0; r < count; r++) write_register(w, inst->dst.reg + r, values[r], mask);
}

static void run_scaled_unpack(Wave *w, const Inst *inst) {
  Scaled s = scaled_of(inst);
  Lanes rooms[2];
  VECTOR_ALIGNED u32 out[MAX_COUNT][MAX_LANES] = {{0}};
  const u32 *scale = fetch_raw(w, &inst->src[1], 0, &rooms[1]);
  u32 first = first_bit(&s, inst->abid, false);
  for (u32 e = 0; e < s.count; e++) {
    u32 bit = first + e * s.bits, end = bit % 32 + s.bits;
    const u32 *low = fetch_raw(w, &inst->src[0], bit / 32, &rooms[0]), *high = end > 32 ? low + MAX_LANES : low;
    for (u32 l = 0; l < w->lanes; l++) {
      u32 raw = field(low[l] | (u64)high[l] << 32, (int)(bit % 32), (int)s.bits);
      f32 value = ldexpf(small_to_float(s.format, raw), (int)(scale[l] >> 23 & 255) - 127);
      if (s.wide == WIDE_F32) out[e][l] = bits_of(value);
      else out[e / 2][l] |= (s.wide == WIDE_F16 ? float_to_half(value, ROUND_NEAREST) : float_to_bf16(value)) << 16 * (e & 1);
    }
  }
  // "OPSEL[3] controls destination hi/lo"; the other half stays.
  int shift = inst->abid & 8 ? 16 : 0;
  for (u32 l = 0; l < w->lanes && s.count == 1 && s.wide == WIDE_F16; l++)
    out[0][l] = (w->v[inst->dst.reg][l] & ~(0xffffu << shift)) | out[0][l] << shift;
  write_registers(w, inst, out, inst->dst.count);
}

// Element `e` of a lane's wide operands.
static const f32 *wide_lanes(Wave *w, const Inst *inst, const Scaled *s, u32 e, Lanes *room, f32 *out) {
  const Operand *o = &inst->src[s->has_two ? e & 1 : 0];
  u32 at = s->has_two ? e / 2 : e;
  if (o->type == TYPE_F32) return fetch_lanes(w, inst, o, room);
  const u32 *bits = fetch_raw(w, o, s->wide == WIDE_F32 ? at : at / 2, room);
  int shift = at & 1 ? 16 : 0;
  for (u32 l = 0; l < w->lanes; l++) {
    if (s->wide == WIDE_F32) out[l] = f32_of(bits[l]);
    else if (s->wide == WIDE_F16) out[l] = half_to_float((u16)(bits[l] >> shift));
    else out[l] = bf16_to_float(bits[l] >> shift & 0xffff);
  }
  return out;
}

static void run_scaled_pack(Wave *w, const Inst *inst) {
  Scaled s = scaled_of(inst);
  Lanes room, rooms[2];
  VECTOR_ALIGNED f32 wide[MAX_LANES];
  VECTOR_ALIGNED u32 out[MAX_COUNT / 4][MAX_LANES] = {{0}}, random[MAX_LANES] = {0};
  const u32 *scale = fetch_raw(w, &inst->src[s.is_random || s.has_two ? 2 : 1], 0, &rooms[0]);
  if (s.is_random) memcpy(random, fetch_raw(w, &inst->src[1], 0, &rooms[1]), sizeof random);
  u32 first = first_bit(&s, inst->abid, true), kept = ~(u32)(((1ull << s.count * s.bits % 64) - 1) << first);
  if (s.count < MAX_COUNT)
    for (u32 l = 0; l < w->lanes; l++) out[0][l] = w->v[inst->dst.reg][l] & kept;  // "Other destination bits are preserved"
  for (u32 e = 0; e < s.count; e++) {
    const f32 *values = wide_lanes(w, inst, &s, e, &room, wide);
    u32 bit = first + e * s.bits;
    for (u32 l = 0; l < w->lanes; l++) {
      f32 value = ldexpf(values[l], 127 - (int)(scale[l] >> 23 & 255));
      u64 small = (u64)float_to_small(s.format, value, s.is_random ? (i64)random[l] : -1, true) << bit % 32;
      out[bit / 32][l] |= (u32)small;
      if (bit % 32 + s.bits > 32) out[bit / 32 + 1][l] |= (u32)(small >> 32);
      random[l] = prng(random[l]);
    }
  }
  write_registers(w, inst, out, inst->dst.count);
}

// Registers of each operand of a scaled conversion; sources that are no register pairs keep one.
void scaled_registers(Inst *inst) {
  Scaled s = scaled_of(inst);
  u32 wide = s.wide == WIDE_F32 ? s.count : (s.count + 1) / 2, small = registers_of_small(&s);
  bool packs = inst->semantics->execute == run_scaled_pack;
  u32 sources = packs ? (s.has_two ? wide / 2 : wide) : small;
  inst->dst.count = (u16)(packs ? small : wide);
  for (int k = 0; k < 1 + s.has_two; k++)
    if (inst->src[k].kind == OPERAND_VGPR || inst->src[k].kind == OPERAND_SGPR) inst->src[k].count = (u16)sources;
}

#define U TYPE_B32
#define F TYPE_F32
#define UNPACK(NAME, FORMAT, WIDE, COUNT) \
  {"v_cvt_scalef32_" NAME, run_scaled_unpack, NULL, U, {U, U}, CLASS_VALU, SCALED(FORMAT, WIDE, COUNT, 0)}
#define PACK(NAME, FORMAT, WIDE, COUNT) \
  {"v_cvt_scalef32_" NAME, run_scaled_pack, NULL, U, {U, U}, CLASS_VALU, SCALED(FORMAT, WIDE, COUNT, 0)}
#define PACK_RANDOM(NAME, FORMAT, WIDE, COUNT) \
  {"v_cvt_scalef32_sr_" NAME, run_scaled_pack, NULL, U, {U, U, U}, CLASS_VALU, SCALED(FORMAT, WIDE, COUNT, RANDOM)}
#define PACK_TWO(NAME, FORMAT, TYPE, COUNT) \
  {"v_cvt_scalef32_" NAME, run_scaled_pack, NULL, U, {TYPE, TYPE, U}, CLASS_VALU, SCALED(FORMAT, WIDE_F32, COUNT, TWO)}
// All that fp8 and bf8 have, and all that fp6 and bf6 have.
#define EIGHT_BITS(NAME, FORMAT)                                                                                       \
  UNPACK("f32_" NAME, FORMAT, WIDE_F32, 1), UNPACK("f16_" NAME, FORMAT, WIDE_F16, 1),                                  \
      UNPACK("pk_f32_" NAME, FORMAT, WIDE_F32, 2), UNPACK("pk_f16_" NAME, FORMAT, WIDE_F16, 2),                        \
      UNPACK("pk_bf16_" NAME, FORMAT, WIDE_BF16, 2), PACK_TWO("pk_" NAME "_f32", FORMAT, F, 2),                        \
      PACK("pk_" NAME "_f16", FORMAT, WIDE_F16, 2), PACK("pk_" NAME "_bf16", FORMAT, WIDE_BF16, 2),                    \
      PACK_RANDOM(NAME "_f32", FORMAT, WIDE_F32, 1), PACK_RANDOM(NAME "_f16", FORMAT, WIDE_F16, 1),                    \
      PACK_RANDOM(NAME "_bf16", FORMAT, WIDE_BF16, 1)
#define SIX_BITS(NAME, FORMAT)                                                                                         \
  UNPACK("pk32_f32_" NAME, FORMAT, WIDE_F32, 32), UNPACK("pk32_f16_" NAME, FORMAT, WIDE_F16, 32),                      \
      UNPACK("pk32_bf16_" NAME, FORMAT, WIDE_BF16, 32), PACK_TWO("2xpk16_" NAME "_f32", FORMAT, U, 32),                \
      PACK("pk32_" NAME "_f16", FORMAT, WIDE_F16, 32), PACK("pk32_" NAME "_bf16", FORMAT, WIDE_BF16, 32),              \
      PACK_RANDOM("pk32_" NAME "_f32", FORMAT, WIDE_F32, 32), PACK_RANDOM("pk32_" NAME "_f16", FORMAT, WIDE_F16, 32),  \
      PACK_RANDOM("pk32_" NAME "_bf16", FORMAT, WIDE_BF16, 32)

static const Semantics entries[] = {
    EIGHT_BITS("fp8", FP8_E4M3),
    EIGHT_BITS("bf8", FP8_E5M2),
    SIX_BITS("fp6", FP6_E2M3),
    SIX_BITS("bf6", FP6_E3M2),
    UNPACK("pk_f32_fp4", FP4_E2M1, WIDE_F32, 2),
    UNPACK("pk_f16_fp4", FP4_E2M1, WIDE_F16, 2),
    UNPACK("pk_bf16_fp4", FP4_E2M1, WIDE_BF16, 2),
    PACK_TWO("pk_fp4_f32", FP4_E2M1, F, 2),
    PACK("pk_fp4_f16", FP4_E2M1, WIDE_F16, 2),
    PACK("pk_fp4_bf16", FP4_E2M1, WIDE_BF16, 2),
    PACK_RANDOM("pk_fp4_f32", FP4_E2M1, WIDE_F32, 2),
    PACK_RANDOM("pk_fp4_f16", FP4_E2M1, WIDE_F16, 2),
    PACK_RANDOM("pk_fp4_bf16", FP4_E2M1, WIDE_BF16, 2),
    {"v_prng_b32", run_vector, prng_b32, U, {U}, CLASS_VALU, 0},
};
const SemanticsTable scaled_table = {entries, COUNT_OF(entries)};
