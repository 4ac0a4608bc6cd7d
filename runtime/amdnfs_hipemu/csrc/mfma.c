// MFMA of CDNA. A is M x K, B is K x N, both K-major in registers: lane l holds row (column) l % M and the depths of
// group l / M. So the values of one depth are contiguous lanes, and so is a row of the result.
// Source: "Matrix Arithmetic Instructions" of the CDNA3 and CDNA4 ISA documents, and AMD's matrix instruction
// calculator for the layouts.
#include "counters.h"
#include "half.h"
#include "matrix.h"

#define MAX_ELEMENTS 32

// Where row `i` of a block's result lies: register number, and the lane of column 0.
static void row_place(const Shape *s, u32 block, u32 i, u32 *reg, u32 *lane) {
  if (s->m == 32) {
    *reg = block * 16 + 4 * (i / 8) + i % 4;
    *lane = 32 * (i / 4 % 2);
  } else if (s->m == 16) {
    *reg = block * 4 + i % 4;
    *lane = 16 * (i / 4);
  } else {
    *reg = i;
    *lane = 4 * block;
  }
}

// First lane of the group that holds depth `k` of a block, and the element within the lane.
static void depth_place(const Shape *s, u32 elements, u32 block, u32 k, u32 *lane, u32 *element) {
  u32 group = s->blocks > 1 ? block : k / elements;
  *lane = group * s->m;
  *element = s->blocks > 1 ? k : k % elements;
}

// "CBSZ and ABID": one block of A is broadcast to 2^CBSZ blocks.
static u32 block_of_a(const Shape *s, const Inst *inst, u32 block) {
  if (s->blocks == 1 || inst->cbsz == 0) return block;
  u32 group = 1u << inst->cbsz;
  return (block & ~(group - 1)) + (inst->abid & (group - 1));
}

static void start_row(Wave *w, const Operand *c, u32 reg, u32 lane, u32 n, u32 *out) {
  if (c->kind == OPERAND_VGPR) memcpy(out, &w->v[c->reg + reg][lane], n * sizeof(u32));
  else
    for (u32 j = 0; j < n; j++) out[j] = read_scalar(w, c);
}

// Of each depth of a block the values of A's rows and of B's columns, which are contiguous lanes.
#define MAX_DEPTH 128

#define COLUMN_POINTERS(NAME, ARRAY, BLOCK)                        \
  for (u32 k = 0; k < s->k; k++) {                                      \
    u32 lane, element;                                                   \
    depth_place(s, elements, BLOCK, k, &lane, &element);                 \
    NAME[k] = &ARRAY[element][lane];                                     \
  }

// One row of the result: row += sum over k of a[k][i] * b[k]. The width is constant, so that the row stays in registers.
#define ROW_OF_FLOATS(WIDTH)                                                          \
  static void row_##WIDTH(f32 *row, const f32 **a, const f32 **b, u32 i, u32 depth) { \
    VECTOR_ALIGNED f32 sums[WIDTH];                                                   \
    memcpy(sums, row, sizeof sums);                                                   \
    for (u32 k = 0; k < depth; k++) {                                                 \
      f32 x = a[k][i];                                                                \
      const f32 *y = b[k];                                                            \
      for (int j = 0; j < WIDTH; j++) sums[j] = fmaf(x, y[j], sums[j]);               \
    }                                                                                 \
    memcpy(row, sums, sizeof sums);                                                   \
  }
ROW_OF_FLOATS(32)
ROW_OF_FLOATS(16)
ROW_OF_FLOATS(4)

static void multiply_floats(Wave *w, const Inst *inst, const Operand *c, const Shape *s, f32 (*a)[MAX_LANES],
                            f32 (*b)[MAX_LANES], u32 elements) {
  VECTOR_ALIGNED u32 results[MAX_ELEMENTS][MAX_LANES];
  const f32 *rows_of_a[MAX_DEPTH], *columns_of_b[MAX_DEPTH];
  for (u32 block = 0; block < s->blocks; block++) {
    COLUMN_POINTERS(rows_of_a, a, block_of_a(s, inst, block))
    COLUMN_POINTERS(columns_of_b, b, block)
    for (u32 i = 0; i < s->m; i++) {
      u32 reg, lane;
      row_place(s, block, i, &reg, &lane);
      start_row(w, c, reg, lane, s->m, &results[reg][lane]);
      f32 *row = (f32 *)&results[reg][lane];
      if (s->m == 32) row_32(row, rows_of_a, columns_of_b, i, s->k);
      else if (s->m == 16) row_16(row, rows_of_a, columns_of_b, i, s->k);
      else row_4(row, rows_of_a, columns_of_b, i, s->k);
    }
  }
  memcpy(w->v[inst->dst.reg], results, inst->dst.count * sizeof results[0]);
}

static void multiply_integers(Wave *w, const Inst *inst, const Operand *c, const Shape *s, i32 (*a)[MAX_LANES],
                              i32 (*b)[MAX_LANES], u32 elements) {
  VECTOR_ALIGNED u32 results[MAX_ELEMENTS][MAX_LANES];
  const i32 *rows_of_a[MAX_DEPTH], *columns_of_b[MAX_DEPTH];
  for (u32 block = 0; block < s->blocks; block++) {
    COLUMN_POINTERS(rows_of_a, a, block_of_a(s, inst, block))
    COLUMN_POINTERS(columns_of_b, b, block)
    for (u32 i = 0; i < s->m; i++) {
      u32 reg, lane;
      row_place(s, block, i, &reg, &lane);
      u32 *row = &results[reg][lane];
      start_row(w, c, reg, lane, s->m, row);
      for (u32 k = 0; k < s->k; k++) {
        i32 x = rows_of_a[k][i];
        const i32 *y = columns_of_b[k];
        for (u32 j = 0; j < s->m; j++) row[j] += (u32)(x * y[j]);
      }
    }
  }
  memcpy(w->v[inst->dst.reg], results, inst->dst.count * sizeof results[0]);
}

// f64: row i of the 16 x 16 result is register pair i / 4, lanes 16 * (i % 4) on; the 4 x 4 blocks have one value a
// lane: lane 16 * i + 4 * block + j. BLGP negates: bit 0 A, 1 B, 2 C.
static f64 double_at(const Wave *w, const Operand *o, u32 pair, u32 lane) {
  if (o->kind != OPERAND_VGPR) return o->kind == OPERAND_VALUE && o->value ? (f64)f32_of((u32)o->value) : 0.0;
  return f64_of(w->v[o->reg + 2 * pair][lane] | (u64)w->v[o->reg + 2 * pair + 1][lane] << 32);
}
static void multiply_doubles(Wave *w, const Inst *inst, const Shape *s) {
  f64 signs[3];
  for (int k = 0; k < 3; k++) signs[k] = inst->blgp >> k & 1 ? -1.0 : 1.0;
  static __thread f64 results[4][MAX_LANES];
  for (u32 block = 0; block < s->blocks; block++)
    for (u32 i = 0; i < s->m; i++)
      for (u32 j = 0; j < s->m; j++) {
        u32 pair = s->m == 16 ? i / 4 : 0, lane = s->m == 16 ? 16 * (i % 4) + j : 16 * i + 4 * block + j;
        f64 sum = signs[2] * double_at(w, &inst->src[2], pair, lane);
        for (u32 k = 0; k < s->k; k++) {
          u32 a_lane = 16 * k + 4 * block * (s->m == 4) + i, b_lane = 16 * k + 4 * block * (s->m == 4) + j;
          sum = fma(signs[0] * double_at(w, &inst->src[0], 0, a_lane), signs[1] * double_at(w, &inst->src[1], 0, b_lane), sum);
        }
        results[pair][lane] = sum;
      }
  for (u32 pair = 0; pair < inst->dst.count / 2u; pair++)
    for (u32 l = 0; l < 64; l++) {
      u64 bits = bits_of_f64(results[pair][l]);
      w->v[inst->dst.reg + 2 * pair][l] = (u32)bits;
      w->v[inst->dst.reg + 2 * pair + 1][l] = (u32)(bits >> 32);
    }
}

// "V_MFMA_SCALE_*": each lane's 32 elements share a scale 2^(byte - 127); the bytes are chosen by OP_SEL.
static void apply_scales(Wave *w, const Operand *scale, u32 byte, u32 count, f32 (*values)[MAX_LANES]) {
  Lanes room;
  const u32 *bits = fetch_raw(w, scale, 0, &room);
  for (u32 l = 0; l < w->lanes; l++) {
    f32 factor = ldexpf(1.0f, (int)(bits[l] >> 8 * byte & 255) - 127);
    for (u32 e = 0; e < count; e++) values[e][l] *= factor;
  }
}

void run_mfma(Wave *w, const Inst *inst) {
  Shape s = shape_of(inst);
  u32 elements = s.m * s.k * s.blocks / 64;
  w->counters->matrix_flops += 2ull * s.m * s.m * s.k * s.blocks;
  if (s.a == ELEMENT_F64) {
    multiply_doubles(w, inst, &s);
  } else if (s.a == ELEMENT_I8) {
    VECTOR_ALIGNED i32 a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
    unpack_integers(w, &inst->src[0], s.a, true, elements, a);
    unpack_integers(w, &inst->src[1], s.b, true, elements, b);
    multiply_integers(w, inst, &inst->src[2], &s, a, b, elements);
  } else {
    VECTOR_ALIGNED f32 a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
    unpack_floats(w, &inst->src[0], s.a, elements, a);
    unpack_floats(w, &inst->src[1], s.b, elements, b);
    if (inst->is_signed) {
      apply_scales(w, &inst->src[3], (inst->omod & 1) | (inst->dst_select & 1) << 1, elements, a);
      apply_scales(w, &inst->dst2, inst->omod >> 1 | (inst->dst_select >> 1) << 1, elements, b);
    }
    multiply_floats(w, inst, &inst->src[2], &s, a, b, elements);
  }
}

// SMFMAC: of each four depths of A only two are stored; source 2 holds their 2-bit positions, ABID says which 8 (16-bit
// elements) or 16 bits (8-bit elements) of it, and the result is accumulated in place.
static u32 position(const Wave *w, const Inst *inst, u32 stored, u32 element, u32 lane) {
  u32 bits = 2 * stored, set = bits < 32 ? inst->abid % (32 / bits) : 0;
  u32 base = inst->cbsz == 0 ? set * bits : 0;
  return w->v[inst->src[2].reg][lane] >> (base + 2 * element) & 3;
}

void run_smfmac(Wave *w, const Inst *inst) {
  Shape s = shape_of(inst);
  u32 elements = s.m * s.k / 64, stored = elements / 2;
  w->counters->matrix_flops += 2ull * s.m * s.m * s.k;
  if (s.a == ELEMENT_I8) {
    VECTOR_ALIGNED i32 packed[MAX_ELEMENTS][MAX_LANES], a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
    unpack_integers(w, &inst->src[0], s.a, true, stored, packed);
    unpack_integers(w, &inst->src[1], s.b, true, elements, b);
    memset(a, 0, sizeof a);
    for (u32 e = 0; e < stored; e++)
      for (u32 l = 0; l < 64; l++) a[e / 2 * 4 + position(w, inst, stored, e, l)][l] = packed[e][l];
    multiply_integers(w, inst, &inst->dst, &s, a, b, elements);
  } else {
    VECTOR_ALIGNED f32 packed[MAX_ELEMENTS][MAX_LANES], a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
    unpack_floats(w, &inst->src[0], s.a, stored, packed);
    unpack_floats(w, &inst->src[1], s.b, elements, b);
    memset(a, 0, sizeof a);
    for (u32 e = 0; e < stored; e++)
      for (u32 l = 0; l < 64; l++) a[e / 2 * 4 + position(w, inst, stored, e, l)][l] = packed[e][l];
    multiply_floats(w, inst, &inst->dst, &s, a, b, elements);
  }
}
