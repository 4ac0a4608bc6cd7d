// WMMA of RDNA: D = A * B + C with 16 x 16 results.
// RDNA3 ("Wave Matrix Multiply Accumulate"): lane l holds the whole row l % 16 of A (column of B), so lanes hold it
// twice or four times; register r of the result holds rows r * (lanes / 16) + l / 16. 16-bit results lie in one half
// of a register, chosen by OP_SEL[2].
// RDNA4: lane group g = l / 16 holds depths g * K/groups on; its results are rows g * 16/groups on, 16-bit ones packed.
#include "counters.h"
#include "half.h"
#include "matrix.h"

#define MAX_ELEMENTS 16

typedef struct {
  Shape shape;
  bool is_rdna3;
  u32 groups;      // of 16 lanes
  u32 elements;    // of A that a lane holds
} Wmma;

static void depth_place(const Wmma *m, u32 k, u32 *lane, u32 *element) {
  *lane = m->is_rdna3 ? 0 : 16 * (k / m->elements);
  *element = m->is_rdna3 ? k : k % m->elements;
}

// Row i: lane of column 0, and number among the lane's results.
static void row_place(const Wmma *m, u32 i, u32 *lane, u32 *index) {
  u32 rows = 16 / m->groups;
  *lane = 16 * (m->is_rdna3 ? i % m->groups : i / rows);
  *index = m->is_rdna3 ? i / m->groups : i % rows;
}

static f32 half_value(Element element, u32 bits) {
  return element == ELEMENT_F16 ? half_to_float((u16)bits) : bf16_to_float(bits);
}

static f32 accumulator(Wave *w, const Inst *inst, const Wmma *m, u32 index, u32 lane) {
  const Operand *c = &inst->src[2];
  f32 value;
  if (m->shape.d == ELEMENT_F32) {
    value = f32_of(c->kind == OPERAND_VGPR ? w->v[c->reg + index][lane] : read_scalar(w, c));
  } else if (c->kind != OPERAND_VGPR) {
    // Inline constants of matrix operands are f32 here: the decoder does not know the element.
    value = f32_of(read_scalar(w, c));
  } else if (m->is_rdna3) {
    value = half_value(m->shape.d, w->v[c->reg + index][lane] >> (c->half ? 16 : 0) & 0xffff);
  } else {
    value = half_value(m->shape.d, w->v[c->reg + index / 2][lane] >> 16 * (index & 1) & 0xffff);
  }
  if (c->neg_hi) value = fabsf(value);
  return c->neg ? -value : value;
}

static void write_result(Wave *w, const Inst *inst, const Wmma *m, u32 index, u32 lane, f32 value) {
  if (m->shape.d == ELEMENT_F32) {
    w->v[inst->dst.reg + index][lane] = bits_of(value);
    return;
  }
  u32 bits = m->shape.d == ELEMENT_F16 ? float_to_half(value, ROUND_NEAREST) : float_to_bf16(value);
  u32 shift = m->is_rdna3 ? (inst->src[2].half ? 16 : 0) : 16 * (index & 1);
  u32 *word = &w->v[inst->dst.reg + (m->is_rdna3 ? index : index / 2)][lane];
  *word = (*word & ~(0xffffu << shift)) | bits << shift;
}

static void multiply_floats(Wave *w, const Inst *inst, const Wmma *m) {
  VECTOR_ALIGNED f32 a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
  VECTOR_ALIGNED f32 rows[16][16];
  unpack_floats(w, &inst->src[0], m->shape.a, m->elements, a);
  unpack_floats(w, &inst->src[1], m->shape.b, m->elements, b);
  for (u32 i = 0; i < 16; i++) {
    u32 lane, index;
    row_place(m, i, &lane, &index);
    for (u32 j = 0; j < 16; j++) rows[i][j] = accumulator(w, inst, m, index, lane + j);
    for (u32 k = 0; k < m->shape.k; k++) {
      u32 from, element;
      depth_place(m, k, &from, &element);
      f32 x = a[element][from + i];
      const f32 *y = &b[element][from];
      for (int j = 0; j < 16; j++) rows[i][j] = fmaf(x, y[j], rows[i][j]);
    }
  }
  for (u32 i = 0; i < 16; i++) {
    u32 lane, index;
    row_place(m, i, &lane, &index);
    for (u32 j = 0; j < 16; j++) write_result(w, inst, m, index, lane + j, rows[i][j]);
  }
}

// "IU8, IU4": NEG says which source is signed; CLAMP saturates.
static void multiply_integers(Wave *w, const Inst *inst, const Wmma *m) {
  VECTOR_ALIGNED i32 a[MAX_ELEMENTS][MAX_LANES], b[MAX_ELEMENTS][MAX_LANES];
  VECTOR_ALIGNED i32 rows[16][16];
  unpack_integers(w, &inst->src[0], m->shape.a, inst->src[0].neg, m->elements, a);
  unpack_integers(w, &inst->src[1], m->shape.b, inst->src[1].neg, m->elements, b);
  for (u32 i = 0; i < 16; i++) {
    u32 lane, index;
    row_place(m, i, &lane, &index);
    for (u32 j = 0; j < 16; j++) {
      const Operand *c = &inst->src[2];
      i64 sum = (i32)(c->kind == OPERAND_VGPR ? w->v[c->reg + index][lane + j] : read_scalar(w, c));
      for (u32 k = 0; k < m->shape.k; k++) {
        u32 from, element;
        depth_place(m, k, &from, &element);
        sum += (i64)a[element][from + i] * b[element][from + j];
      }
      if (inst->clamp) sum = sum > INT32_MAX ? INT32_MAX : sum < INT32_MIN ? INT32_MIN : sum;
      rows[i][j] = (i32)sum;
    }
  }
  for (u32 i = 0; i < 16; i++) {
    u32 lane, index;
    row_place(m, i, &lane, &index);
    memcpy(&w->v[inst->dst.reg + index][lane], rows[i], sizeof rows[i]);
  }
}

void run_wmma(Wave *w, const Inst *inst) {
  Wmma m = {.shape = shape_of(inst), .is_rdna3 = w->kernel->module->chip->family == GFX11, .groups = w->lanes / 16};
  m.elements = m.is_rdna3 ? m.shape.k : m.shape.k / m.groups;
  w->counters->matrix_flops += 2ull * 16 * 16 * m.shape.k;
  if (m.shape.a == ELEMENT_I8 || m.shape.a == ELEMENT_I4) multiply_integers(w, inst, &m);
  else multiply_floats(w, inst, &m);
}
