// Elements and shapes of matrix instructions.
#include "matrix.h"

#include "half.h"
#include "tables.h"

Shape shape_of(const Inst *inst) {
  u32 detail = inst->semantics->detail;
  Shape shape = {field(detail, 0, 6), field(detail, 6, 8), field(detail, 14, 5), (Element)field(detail, 19, 4),
                 (Element)field(detail, 23, 4), (Element)field(detail, 27, 4)};
  // "F8F6F4": CBSZ names the format of A, BLGP that of B: 0 fp8, 1 bf8, 2 fp6, 3 bf6, 4 fp4.
  static const Element named[] = {ELEMENT_FP8, ELEMENT_BF8, ELEMENT_FP6, ELEMENT_BF6, ELEMENT_FP4};
  if (shape.a == ELEMENT_BY_FIELD) shape.a = inst->cbsz < 5 ? named[inst->cbsz] : ELEMENT_FP8;
  if (shape.b == ELEMENT_BY_FIELD) shape.b = inst->blgp < 5 ? named[inst->blgp] : ELEMENT_FP8;
  return shape;
}

u32 element_bits(Element element) {
  static const u8 bits[] = {16, 16, 32, 64, 8, 4, 8, 8, 6, 6, 4};
  return bits[element];
}

static u32 bits_of_element(const Wave *w, const Operand *o, u32 bit, u32 bits, u32 lane) {
  const u32 *word = &w->v[o->reg + bit / 32][lane];
  u64 pair = word[0];
  if (bit % 32 + bits > 32) pair |= (u64)word[MAX_LANES] << 32;
  return field(pair, bit % 32, (int)bits);
}

// Sources of matrix instructions are registers, or an inline constant that all lanes and elements share.
static void unpack_register(Wave *w, const Operand *o, Element element, u32 index, f32 (*out)[MAX_LANES]) {
  Lanes room;
  const u32 *bits = o->kind == OPERAND_VGPR ? w->v[o->reg + index] : fetch_raw(w, o, 0, &room);
  u32 halves[MAX_LANES] VECTOR_ALIGNED;
  switch (element) {
    case ELEMENT_F32: memcpy(out[0], bits, sizeof out[0]); return;
    case ELEMENT_F16:
      halves_to_floats(out[0], bits, (int)w->lanes);
      for (int l = 0; l < MAX_LANES; l++) halves[l] = bits[l] >> 16;
      halves_to_floats(out[1], halves, (int)w->lanes);
      return;
    case ELEMENT_BF16:
      for (int l = 0; l < MAX_LANES; l++) out[0][l] = f32_of(bits[l] << 16), out[1][l] = f32_of(bits[l] & 0xffff0000);
      return;
    default:
      for (int e = 0; e < 4; e++) {
        u8 bytes[MAX_LANES];
        for (int l = 0; l < MAX_LANES; l++) bytes[l] = (u8)(bits[l] >> 8 * e);
        small_floats(w, element == ELEMENT_BF8, bytes, out[e], w->lanes);
      }
  }
}

void unpack_floats(Wave *w, const Operand *o, Element element, u32 count, f32 (*out)[MAX_LANES]) {
  u32 bits = element_bits(element);
  static const SmallFloat formats[] = {[ELEMENT_FP6] = FP6_E2M3, [ELEMENT_BF6] = FP6_E3M2, [ELEMENT_FP4] = FP4_E2M1};
  if (element == ELEMENT_FP6 || element == ELEMENT_BF6 || element == ELEMENT_FP4) {
    for (u32 e = 0; e < count; e++)
      for (u32 l = 0; l < w->lanes; l++)
        out[e][l] = small_to_float(formats[element], bits_of_element(w, o, e * bits, bits, l));
    return;
  }
  for (u32 e = 0; e < count; e += 32 / bits) unpack_register(w, o, element, e * bits / 32, out + e);
}

void unpack_integers(Wave *w, const Operand *o, Element element, bool is_signed, u32 count, i32 (*out)[MAX_LANES]) {
  int bits = (int)element_bits(element), per_word = 32 / bits;
  for (u32 e = 0; e < count; e++) {
    const u32 *words = w->v[o->reg + e / (u32)per_word];
    int low = (int)(e % (u32)per_word) * bits;
    for (int l = 0; l < MAX_LANES; l++) {
      u32 raw = words[l] >> low & ((1u << bits) - 1);
      out[e][l] = is_signed ? (i32)(raw << (32 - bits)) >> (32 - bits) : (i32)raw;
    }
  }
}

static u32 at_least_one(u32 count) { return count ? count : 1; }

// Registers of a lane for each operand. RDNA3 holds A and B twice (four times in 64-lane waves), one row a lane.
void matrix_registers(Inst *inst, u32 lanes) {
  Shape s = shape_of(inst);
  u32 elements = s.m * s.m * s.blocks, result_bits = element_bits(s.d == ELEMENT_I8 ? ELEMENT_F32 : s.d);
  bool is_wmma = inst->semantics->execute == run_wmma;
  bool is_rdna3 = is_wmma && inst->abid;
  u32 depth = s.m * s.k * s.blocks;
  inst->src[0].count = (u16)at_least_one((is_rdna3 ? s.k : depth / lanes) * element_bits(s.a) / 32);
  inst->src[1].count = (u16)at_least_one((is_rdna3 ? s.k : depth / lanes) * element_bits(s.b) / 32);
  u32 result = elements / lanes * (is_rdna3 && result_bits < 32 ? 32 : result_bits) / 32;
  inst->dst.count = (u16)at_least_one(result);
  bool is_sparse = inst->semantics->execute == run_smfmac;
  if (is_sparse) inst->src[0].count = (u16)at_least_one(inst->src[0].count / 2u);
  if (inst->src[2].kind == OPERAND_VGPR) inst->src[2].count = is_sparse ? 1 : inst->dst.count;
  inst->dst.type = TYPE_B32;
  for (int k = 0; k < 3; k++) inst->src[k].type = TYPE_B32;
}

#define M TYPE_B32, {TYPE_B32, TYPE_B32, TYPE_B32}, CLASS_MATRIX
#define MFMA(NAME, MM, K, BLOCKS, A, B, D) {NAME, run_mfma, NULL, M, SHAPE(MM, K, BLOCKS, ELEMENT_##A, ELEMENT_##B, ELEMENT_##D)}
#define SMFMAC(NAME, MM, K, A, B, D) {NAME, run_smfmac, NULL, M, SHAPE(MM, K, 1, ELEMENT_##A, ELEMENT_##B, ELEMENT_##D)}
#define WMMA(NAME, K, A, B, D) {NAME, run_wmma, NULL, M, SHAPE(16, K, 1, ELEMENT_##A, ELEMENT_##B, ELEMENT_##D)}

void run_accvgpr_move(Wave *w, const Inst *inst);

static const Semantics entries[] = {
    MFMA("v_mfma_f32_32x32x1_2b_f32", 32, 1, 2, F32, F32, F32),
    MFMA("v_mfma_f32_16x16x1_4b_f32", 16, 1, 4, F32, F32, F32),
    MFMA("v_mfma_f32_4x4x1_16b_f32", 4, 1, 16, F32, F32, F32),
    MFMA("v_mfma_f32_32x32x2_f32", 32, 2, 1, F32, F32, F32),
    MFMA("v_mfma_f32_16x16x4_f32", 16, 4, 1, F32, F32, F32),
    MFMA("v_mfma_f32_32x32x4_2b_f16", 32, 4, 2, F16, F16, F32),
    MFMA("v_mfma_f32_16x16x4_4b_f16", 16, 4, 4, F16, F16, F32),
    MFMA("v_mfma_f32_4x4x4_16b_f16", 4, 4, 16, F16, F16, F32),
    MFMA("v_mfma_f32_32x32x8_f16", 32, 8, 1, F16, F16, F32),
    MFMA("v_mfma_f32_16x16x16_f16", 16, 16, 1, F16, F16, F32),
    MFMA("v_mfma_f32_16x16x32_f16", 16, 32, 1, F16, F16, F32),
    MFMA("v_mfma_f32_32x32x16_f16", 32, 16, 1, F16, F16, F32),
    MFMA("v_mfma_f32_32x32x4_2b_bf16", 32, 4, 2, BF16, BF16, F32),
    MFMA("v_mfma_f32_16x16x4_4b_bf16", 16, 4, 4, BF16, BF16, F32),
    MFMA("v_mfma_f32_4x4x4_16b_bf16", 4, 4, 16, BF16, BF16, F32),
    MFMA("v_mfma_f32_32x32x8_bf16", 32, 8, 1, BF16, BF16, F32),
    MFMA("v_mfma_f32_16x16x16_bf16", 16, 16, 1, BF16, BF16, F32),
    MFMA("v_mfma_f32_32x32x2_2b_bf16", 32, 2, 2, BF16, BF16, F32),
    MFMA("v_mfma_f32_16x16x2_4b_bf16", 16, 2, 4, BF16, BF16, F32),
    MFMA("v_mfma_f32_4x4x2_16b_bf16", 4, 2, 16, BF16, BF16, F32),
    MFMA("v_mfma_f32_32x32x4_bf16", 32, 4, 1, BF16, BF16, F32),
    MFMA("v_mfma_f32_16x16x8_bf16", 16, 8, 1, BF16, BF16, F32),
    MFMA("v_mfma_f32_16x16x32_bf16", 16, 32, 1, BF16, BF16, F32),
    MFMA("v_mfma_f32_32x32x16_bf16", 32, 16, 1, BF16, BF16, F32),
    MFMA("v_mfma_i32_32x32x4_2b_i8", 32, 4, 2, I8, I8, I8),
    MFMA("v_mfma_i32_16x16x4_4b_i8", 16, 4, 4, I8, I8, I8),
    MFMA("v_mfma_i32_4x4x4_16b_i8", 4, 4, 16, I8, I8, I8),
    MFMA("v_mfma_i32_32x32x8_i8", 32, 8, 1, I8, I8, I8),
    MFMA("v_mfma_i32_16x16x16_i8", 16, 16, 1, I8, I8, I8),
    MFMA("v_mfma_i32_32x32x16_i8", 32, 16, 1, I8, I8, I8),
    MFMA("v_mfma_i32_16x16x32_i8", 16, 32, 1, I8, I8, I8),
    MFMA("v_mfma_i32_32x32x32_i8", 32, 32, 1, I8, I8, I8),
    MFMA("v_mfma_i32_16x16x64_i8", 16, 64, 1, I8, I8, I8),
    MFMA("v_mfma_f64_16x16x4_f64", 16, 4, 1, F64, F64, F64),
    MFMA("v_mfma_f64_4x4x4_4b_f64", 4, 4, 4, F64, F64, F64),
    MFMA("v_mfma_f32_16x16x32_fp8_fp8", 16, 32, 1, FP8, FP8, F32),
    MFMA("v_mfma_f32_16x16x32_fp8_bf8", 16, 32, 1, FP8, BF8, F32),
    MFMA("v_mfma_f32_16x16x32_bf8_fp8", 16, 32, 1, BF8, FP8, F32),
    MFMA("v_mfma_f32_16x16x32_bf8_bf8", 16, 32, 1, BF8, BF8, F32),
    MFMA("v_mfma_f32_32x32x16_fp8_fp8", 32, 16, 1, FP8, FP8, F32),
    MFMA("v_mfma_f32_32x32x16_fp8_bf8", 32, 16, 1, FP8, BF8, F32),
    MFMA("v_mfma_f32_32x32x16_bf8_fp8", 32, 16, 1, BF8, FP8, F32),
    MFMA("v_mfma_f32_32x32x16_bf8_bf8", 32, 16, 1, BF8, BF8, F32),
    MFMA("v_mfma_f32_16x16x128_f8f6f4", 16, 128, 1, BY_FIELD, BY_FIELD, F32),
    MFMA("v_mfma_f32_32x32x64_f8f6f4", 32, 64, 1, BY_FIELD, BY_FIELD, F32),
    SMFMAC("v_smfmac_f32_16x16x32_f16", 16, 32, F16, F16, F32),
    SMFMAC("v_smfmac_f32_32x32x16_f16", 32, 16, F16, F16, F32),
    SMFMAC("v_smfmac_f32_16x16x64_f16", 16, 64, F16, F16, F32),
    SMFMAC("v_smfmac_f32_32x32x32_f16", 32, 32, F16, F16, F32),
    SMFMAC("v_smfmac_f32_16x16x32_bf16", 16, 32, BF16, BF16, F32),
    SMFMAC("v_smfmac_f32_32x32x16_bf16", 32, 16, BF16, BF16, F32),
    SMFMAC("v_smfmac_f32_16x16x64_bf16", 16, 64, BF16, BF16, F32),
    SMFMAC("v_smfmac_f32_32x32x32_bf16", 32, 32, BF16, BF16, F32),
    SMFMAC("v_smfmac_i32_16x16x64_i8", 16, 64, I8, I8, I8),
    SMFMAC("v_smfmac_f32_16x16x64_bf8_bf8", 16, 64, BF8, BF8, F32),
    SMFMAC("v_smfmac_f32_16x16x64_bf8_fp8", 16, 64, BF8, FP8, F32),
    SMFMAC("v_smfmac_f32_16x16x64_fp8_bf8", 16, 64, FP8, BF8, F32),
    SMFMAC("v_smfmac_f32_16x16x64_fp8_fp8", 16, 64, FP8, FP8, F32),
    SMFMAC("v_smfmac_i32_32x32x32_i8", 32, 32, I8, I8, I8),
    SMFMAC("v_smfmac_f32_32x32x32_bf8_bf8", 32, 32, BF8, BF8, F32),
    SMFMAC("v_smfmac_f32_32x32x32_bf8_fp8", 32, 32, BF8, FP8, F32),
    SMFMAC("v_smfmac_f32_32x32x32_fp8_bf8", 32, 32, FP8, BF8, F32),
    SMFMAC("v_smfmac_f32_32x32x32_fp8_fp8", 32, 32, FP8, FP8, F32),
    SMFMAC("v_smfmac_i32_16x16x128_i8", 16, 128, I8, I8, I8),
    SMFMAC("v_smfmac_f32_16x16x128_bf8_bf8", 16, 128, BF8, BF8, F32),
    SMFMAC("v_smfmac_f32_16x16x128_bf8_fp8", 16, 128, BF8, FP8, F32),
    SMFMAC("v_smfmac_f32_16x16x128_fp8_bf8", 16, 128, FP8, BF8, F32),
    SMFMAC("v_smfmac_f32_16x16x128_fp8_fp8", 16, 128, FP8, FP8, F32),
    SMFMAC("v_smfmac_i32_32x32x64_i8", 32, 64, I8, I8, I8),
    SMFMAC("v_smfmac_f32_32x32x64_bf8_bf8", 32, 64, BF8, BF8, F32),
    SMFMAC("v_smfmac_f32_32x32x64_bf8_fp8", 32, 64, BF8, FP8, F32),
    SMFMAC("v_smfmac_f32_32x32x64_fp8_bf8", 32, 64, FP8, BF8, F32),
    SMFMAC("v_smfmac_f32_32x32x64_fp8_fp8", 32, 64, FP8, FP8, F32),
    WMMA("v_wmma_f32_16x16x16_f16", 16, F16, F16, F32),
    WMMA("v_wmma_f32_16x16x16_bf16", 16, BF16, BF16, F32),
    WMMA("v_wmma_f16_16x16x16_f16", 16, F16, F16, F16),
    WMMA("v_wmma_bf16_16x16x16_bf16", 16, BF16, BF16, BF16),
    WMMA("v_wmma_i32_16x16x16_iu8", 16, I8, I8, I8),
    WMMA("v_wmma_i32_16x16x16_iu4", 16, I4, I4, I8),
    WMMA("v_wmma_i32_16x16x32_iu4", 32, I4, I4, I8),
    WMMA("v_wmma_f32_16x16x16_fp8_fp8", 16, FP8, FP8, F32),
    WMMA("v_wmma_f32_16x16x16_fp8_bf8", 16, FP8, BF8, F32),
    WMMA("v_wmma_f32_16x16x16_bf8_fp8", 16, BF8, FP8, F32),
    WMMA("v_wmma_f32_16x16x16_bf8_bf8", 16, BF8, BF8, F32),
    {"v_accvgpr_read_b32 v_accvgpr_write_b32 v_accvgpr_read v_accvgpr_write", run_accvgpr_move, NULL, TYPE_B32,
     {TYPE_B32}, CLASS_VALU, 0},
    {"v_accvgpr_mov_b32", run_accvgpr_move, NULL, TYPE_B32, {TYPE_B32}, CLASS_VALU, 0},
};
const SemanticsTable matrix_table = {entries, COUNT_OF(entries)};

// "V_ACCVGPR_READ/WRITE/MOV": moves under EXEC; the decoder has put 256 to the accumulation registers' numbers.
void run_accvgpr_move(Wave *w, const Inst *inst) {
  Lanes room;
  const u32 *in = fetch_raw(w, &inst->src[0], 0, &room);
  exec_lanes(w);
  write_register(w, inst->dst.reg, in, exec_of(w));
}
