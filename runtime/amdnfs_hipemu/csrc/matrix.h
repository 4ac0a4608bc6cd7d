// Matrix instructions: their shapes, and the elements of a lane's registers as arrays.
#pragma once
#include "lanes.h"

typedef enum { ELEMENT_F16, ELEMENT_BF16, ELEMENT_F32, ELEMENT_F64, ELEMENT_I8, ELEMENT_I4, ELEMENT_FP8, ELEMENT_BF8,
               ELEMENT_FP6, ELEMENT_BF6, ELEMENT_FP4, ELEMENT_BY_FIELD } Element;

// A shape in Semantics.detail: rows and columns M = N, depth K, blocks, elements of A and B, and of the result.
#define SHAPE(M, K, BLOCKS, A, B, D) \
  ((u32)(M) | (u32)(K) << 6 | (u32)(BLOCKS) << 14 | (u32)(A) << 19 | (u32)(B) << 23 | (u32)(D) << 27)

typedef struct {
  u32 m, k, blocks;
  Element a, b, d;
} Shape;

Shape shape_of(const Inst *inst);
u32 element_bits(Element element);
// Elements of a register range, one array of f32 (or i32) lanes after the other: out[element][lane].
void unpack_floats(Wave *w, const Operand *operand, Element element, u32 count, f32 (*out)[MAX_LANES]);
void unpack_integers(Wave *w, const Operand *operand, Element element, bool is_signed, u32 count, i32 (*out)[MAX_LANES]);
// Bytes as fp8 or bf8 of the chip.
void small_floats(const Wave *w, bool is_bf8, const u8 *in, f32 *out, u32 count);

Execute run_mfma, run_smfmac, run_wmma;
