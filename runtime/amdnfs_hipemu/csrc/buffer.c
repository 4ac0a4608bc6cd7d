// Buffer memory: descriptors, addresses and range checks.
// Source: "Buffer Resource Descriptor", "Buffer Addressing" and "Range Checking" of the CDNA3, RDNA3 and RDNA4 ISA
// documents. Offsets are added as unsigned numbers that do not wrap: a negative vector offset is out of range even if
// the instruction's offset would bring it back. Private memory is another matter: see run_private.
#include "access.h"
#include "dispatch.h"
#include "faults.h"
#include "lanes.h"
#include "memory.h"

typedef struct {
  u64 base;
  u32 stride, num_records;
  bool is_swizzled;
  u32 index_stride, element_bytes;
  u32 out_of_bounds;   // OOB_SELECT of RDNA; 3 (raw) or 0 (structured) on CDNA
  bool is_scratch;     // the descriptor that the dispatch gave for private memory (CDNA2)
} Buffer;

static Buffer read_descriptor(const Wave *w, const Inst *inst) {
  const u32 *word = &w->s[inst->src[2].reg];
  Family family = w->kernel->module->chip->family;
  Buffer b = {.base = word[0] | (u64)(word[1] & 0xffff) << 32, .stride = word[1] >> 16 & 0x3fff, .num_records = word[2]};
  if (family == GFX9) {
    b.is_swizzled = word[1] >> 31;
    b.out_of_bounds = b.stride == 0 || !b.is_swizzled ? 3 : 0;
    b.element_bytes = 2u << (word[3] >> 19 & 3);
  } else {
    b.is_swizzled = family == GFX10 ? word[1] >> 31 : word[1] >> 30;
    b.out_of_bounds = word[3] >> 28 & 3;
    b.element_bytes = 4u << (family == GFX10 ? 0 : (word[1] >> 30 & 3) == 3 ? 2 : 0);
  }
  b.index_stride = 8u << (word[3] >> 21 & 3);
  b.is_scratch = w->scratch && b.base == ((u64)w->scratch & 0xffffffffffffull) && b.is_swizzled;
  return b;
}

// "Out of range": raw: offset + size > NUM_RECORDS; structured: index >= NUM_RECORDS or offset + size > STRIDE;
// 1: only the index; 2: only if there are no records at all.
static bool is_in_range(const Buffer *b, u64 index, u64 offset, u64 linear, u32 bytes) {
  switch (b->out_of_bounds) {
    case 0: return index < b->num_records && (b->stride == 0 || offset + bytes <= b->stride);
    case 1: return index < b->num_records;
    case 2: return b->num_records != 0;
    default: return linear + bytes <= b->num_records;
  }
}

static u64 swizzled(const Buffer *b, u64 index, u64 offset) {
  u64 index_high = index / b->index_stride, index_low = index % b->index_stride;
  u64 offset_high = offset / b->element_bytes, offset_low = offset % b->element_bytes;
  return (index_high * b->stride + offset_high * b->element_bytes) * b->index_stride + index_low * b->element_bytes + offset_low;
}

static u32 scalar_offset(const Wave *w, const Inst *inst) { return read_scalar(w, &inst->src[3]); }

// Addresses of each lane, and which of its dwords are in range.
typedef struct {
  u64 address[MAX_LANES];
  u64 valid[4];   // by dword: lanes for which it is in range
} Access;

static void find_addresses(const Wave *w, const Inst *inst, const Buffer *b, Access *access) {
  const u32 *first = w->v[inst->src[0].reg], *second = first + MAX_LANES;
  u32 soffset = scalar_offset(w, inst), dwords = inst->size <= 4 ? 1 : inst->size / 4, bytes = inst->size < 4 ? inst->size : 4;
  memset(access->valid, 0, sizeof access->valid);
  for (u32 l = 0; l < w->lanes; l++) {
    u64 index = inst->idxen ? first[l] : 0;
    u64 offset = (u64)(u32)inst->offset + (inst->offen ? (inst->idxen ? second[l] : first[l]) : 0);
    u64 linear = index * b->stride + offset;
    access->address[l] = b->base + soffset + (b->is_swizzled && b->stride ? swizzled(b, index, offset) : linear);
    for (u32 d = 0; d < dwords; d++)
      access->valid[d] |= (u64)is_in_range(b, index, offset + 4 * d, linear + soffset + 4 * d, bytes) << l;
  }
}

// Lanes whose access is in range only in part: dword by dword; what is out of range reads 0 and is not written.
static bool run_partly(Wave *w, const Inst *inst, const Access *access, u64 exec) {
  u32 dwords = inst->size <= 4 ? 1 : inst->size / 4, bytes = inst->size < 4 ? inst->size : 4;
  VECTOR_ALIGNED u32 values[4][MAX_LANES];
  memset(values, 0, sizeof values);
  for (u32 d = 0; d < dwords; d++) {
    u64 active = exec & access->valid[d], address[MAX_LANES];
    for (u32 l = 0; l < w->lanes; l++) address[l] = access->address[l] + 4 * d;
    if (!memory_touch(w, inst, address, active, bytes, inst->is_store)) return false;
    for (u32 l = 0; l < w->lanes; l++) {
      if (!(active >> l & 1)) continue;
      if (inst->is_store) {
        u32 word = w->v[inst->src[1].reg + d][l] >> (inst->is_d16_hi && bytes < 4 ? 16 : 0);
        memcpy((void *)address[l], &word, bytes);
      } else {
        memcpy(&values[d][l], (const void *)address[l], bytes);
      }
    }
  }
  if (inst->is_store) return true;
  if (!inst->to_lds) {
    write_loaded(w, inst, values, dwords, exec);
    return true;
  }
  // Loads to the LDS write zeros for what is out of range.
  VECTOR_ALIGNED u64 zeros[MAX_LANES];
  for (u32 l = 0; l < w->lanes; l++) {
    u32 packed[4] = {values[0][l], values[1][l], values[2][l], values[3][l]};
    zeros[l] = (u64)packed;
    load_lanes(w, inst, zeros, exec & 1ull << l);
    if (w->status == WAVE_FAULTED) return false;
  }
  return true;
}

bool scratch_addresses(Wave *w, const Inst *inst, const u64 *offset, u64 active, u64 *address);

// CDNA2 and RDNA2 reach private memory through a swizzled descriptor: what counts is the offset within the lane. Here the
// sum wraps: LLVM adds an instruction's offset to a negative vector offset, since this descriptor is not range checked
// from GFX9 on. Source: LLVM, AMDGPUISelDAGToDAG.cpp, SelectMUBUFScratchOffen.
static void run_private(Wave *w, const Inst *inst) {
  u64 offset[MAX_LANES], address[MAX_LANES], active = exec_of(w);
  u32 base = (u32)inst->offset + scalar_offset(w, inst) / w->lanes;
  for (u32 l = 0; l < w->lanes; l++) offset[l] = (u32)(base + (inst->offen ? w->v[inst->src[0].reg][l] : 0));
  if (!scratch_addresses(w, inst, offset, active, address)) return;
  if (inst->is_store) store_lanes(w, inst, address, active);
  else load_lanes(w, inst, address, active);
}

void run_buffer(Wave *w, const Inst *inst) {
  Buffer b = read_descriptor(w, inst);
  if (b.is_scratch) {
    run_private(w, inst);
    return;
  }
  Access access;
  u64 exec = exec_of(w);
  find_addresses(w, inst, &b, &access);
  u32 dwords = inst->size <= 4 ? 1 : inst->size / 4;
  bool is_whole = true;
  for (u32 d = 0; d < dwords; d++) is_whole &= (exec & ~access.valid[d]) == 0;
  if (!is_whole) {
    run_partly(w, inst, &access, exec);
    return;
  }
  if (!memory_touch(w, inst, access.address, exec, inst->size, inst->is_store)) return;
  if (inst->is_store) store_lanes(w, inst, access.address, exec);
  else load_lanes(w, inst, access.address, exec);
}

void run_buffer_atomic(Wave *w, const Inst *inst) {
  Buffer b = read_descriptor(w, inst);
  Access access;
  find_addresses(w, inst, &b, &access);
  u64 active = exec_of(w) & access.valid[0];
  if (!memory_touch(w, inst, access.address, active, inst->size, false)) return;
  if (!memory_touch(w, inst, access.address, active, inst->size, true)) return;
  atomic_lanes(w, inst, access.address, active);
}
