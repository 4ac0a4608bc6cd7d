// Operands as arrays of lanes: how vector instructions read their sources and write their results.
#pragma once
#include "wave.h"

// Room for one operand in any representation.
typedef struct {
  VECTOR_ALIGNED u64 values[MAX_LANES];
} Lanes;

// The operand as an array in the representation of its type: the register itself, or `room`.
const void *fetch_lanes(Wave *w, const Inst *inst, const Operand *operand, Lanes *room);
// Register bits without modifiers: u32[lanes] of the operand's register number `index`.
const u32 *fetch_raw(Wave *w, const Operand *operand, u32 index, Lanes *room);
// Writes results under EXEC, with clamp, output modifier and the selection of halves.
void commit_lanes(Wave *w, const Inst *inst, const Operand *destination, void *values);
// Writes u32[lanes] to a vector register under a mask.
void write_register(Wave *w, u32 reg, const u32 *values, u64 mask);
// Lanes that an instruction writes: EXEC without those that DPP leaves out.
u64 write_mask(Wave *w, const Inst *inst);

// The common executor: fetches, calls the kernel of the semantics, commits.
Execute run_vector;

u32 read_scalar(const Wave *w, const Operand *operand);
u64 read_scalar64(const Wave *w, const Operand *operand);
void write_scalar(Wave *w, const Operand *operand, u32 value);
void write_scalar64(Wave *w, const Operand *operand, u64 value);
void write_mask_register(Wave *w, const Operand *operand, u64 mask);

// Lane arithmetic. The loops have a constant inner count, so that the compiler turns them into vectors without tails;
// an output may be one of the inputs, which the pragma says is no dependence between lanes.
#define FOR_LANES(args)                             \
  for (int half = 0; half < (args)->lanes; half += 32) \
    _Pragma("GCC ivdep") for (int l = half; l < half + 32; l++)

#define LANES1(NAME, OUT, A, EXPR)                \
  static void NAME(const LaneArgs *args) {        \
    OUT *out = args->out;                         \
    const A *in0 = args->in[0];                   \
    FOR_LANES(args) {                             \
      const A a = in0[l];                         \
      out[l] = (OUT)(EXPR);                       \
    }                                             \
  }
#define LANES2(NAME, OUT, A, B, EXPR)             \
  static void NAME(const LaneArgs *args) {        \
    OUT *out = args->out;                         \
    const A *in0 = args->in[0];                   \
    const B *in1 = args->in[1];                   \
    FOR_LANES(args) {                             \
      const A a = in0[l];                         \
      const B b = in1[l];                         \
      out[l] = (OUT)(EXPR);                       \
    }                                             \
  }
#define LANES3(NAME, OUT, A, B, C, EXPR)          \
  static void NAME(const LaneArgs *args) {        \
    OUT *out = args->out;                         \
    const A *in0 = args->in[0];                   \
    const B *in1 = args->in[1];                   \
    const C *in2 = args->in[2];                   \
    FOR_LANES(args) {                             \
      const A a = in0[l];                         \
      const B b = in1[l];                         \
      const C c = in2[l];                         \
      out[l] = (OUT)(EXPR);                       \
    }                                             \
  }
