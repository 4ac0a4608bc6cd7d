// Global, flat and scratch memory; scalar loads.
// Source: "Flat Memory Instructions" and "Scalar Memory Operations" of the ISA documents.
#include "access.h"
#include "faults.h"
#include "lanes.h"
#include "memory.h"

// "ADDR = SGPR(64) + VGPR(32) + offset" with a scalar base, else "VGPR(64) + offset".
static void global_addresses(const Wave *w, const Inst *inst, u64 *address) {
  const u32 *low = w->v[inst->src[0].reg];
  u64 offset = (u64)(i64)inst->offset;
  if (inst->src[2].kind == OPERAND_SGPR) {
    u64 base = read_scalar64(w, &inst->src[2]) + offset;
    for (u32 l = 0; l < w->lanes; l++) address[l] = base + low[l];
  } else {
    const u32 *high = w->v[inst->src[0].reg + 1];
    for (u32 l = 0; l < w->lanes; l++) address[l] = (low[l] | (u64)high[l] << 32) + offset;
  }
}

void run_global(Wave *w, const Inst *inst) {
  u64 address[MAX_LANES], active = exec_of(w);
  global_addresses(w, inst, address);
  if (!memory_touch(w, inst, address, active, inst->size, inst->is_store)) return;
  if (inst->is_store) store_lanes(w, inst, address, active);
  else load_lanes(w, inst, address, active);
}

// Flat addresses of the LDS and of scratch are not emulated: such an access lies outside every allocation.
void run_flat(Wave *w, const Inst *inst) { run_global(w, inst); }

void run_global_atomic(Wave *w, const Inst *inst) {
  u64 address[MAX_LANES], active = exec_of(w);
  global_addresses(w, inst, address);
  if (!memory_touch(w, inst, address, active, inst->size, false)) return;
  if (!memory_touch(w, inst, address, active, inst->size, true)) return;
  for (u32 l = 0; l < w->lanes; l++)
    if ((active >> l & 1) && address[l] % inst->size) {
      raise_fault(w, inst, FAULT_MEMORY_RANGE, "atomic at 0x%llx is not aligned to %u bytes", (unsigned long long)address[l], inst->size);
      return;
    }
  atomic_lanes(w, inst, address, active);
}

// Scratch: offset = instruction offset + SGPR + VGPR (each if there), within the lane's private memory.
bool scratch_addresses(Wave *w, const Inst *inst, const u64 *offset, u64 active, u64 *address) {
  u32 bytes = w->kernel->scratch_bytes;
  for (u32 l = 0; l < w->lanes; l++) {
    if (!(active >> l & 1)) continue;
    if (offset[l] + inst->size > bytes) {
      raise_fault(w, inst, FAULT_SCRATCH_RANGE, "%u bytes at %llu of %u bytes of private memory (lane %u)", inst->size,
                  (unsigned long long)offset[l], bytes, l);
      return false;
    }
    address[l] = (u64)w->scratch + (u64)l * bytes + offset[l];
  }
  u64 moved = (u64)inst->size * (u64)__builtin_popcountll(active);
  if (inst->is_store) w->counters->scratch_stored_bytes += moved;
  else w->counters->scratch_loaded_bytes += moved;
  return true;
}

void run_scratch(Wave *w, const Inst *inst) {
  u64 offset[MAX_LANES], address[MAX_LANES], active = exec_of(w);
  u32 base = (u32)inst->offset + (inst->src[2].kind == OPERAND_SGPR ? read_scalar(w, &inst->src[2]) : 0);
  for (u32 l = 0; l < w->lanes; l++)
    offset[l] = inst->src[0].kind == OPERAND_VGPR ? (u32)(base + w->v[inst->src[0].reg][l]) : base;
  if (!scratch_addresses(w, inst, offset, active, address)) return;
  if (inst->is_store) store_lanes(w, inst, address, active);
  else load_lanes(w, inst, address, active);
}

static void write_scalars(Wave *w, const Inst *inst, u64 address) {
  if (inst->size < 4) {
    u32 raw = 0;
    memcpy(&raw, (const void *)address, inst->size);
    write_scalar(w, &inst->dst, inst->is_signed ? (u32)sign_extend(raw, inst->size * 8) : raw);
    return;
  }
  u32 words[16];
  memcpy(words, (const void *)address, inst->size);
  for (u32 r = 0; r < inst->size / 4u; r++)
    if (inst->dst.reg + r != SGPR_NULL) w->s[inst->dst.reg + r] = words[r];
}

// "S_LOAD: ADDR = SBASE + inst_offset + SOFFSET"; dwords are aligned to 4 bytes.
void run_scalar_load(Wave *w, const Inst *inst) {
  u64 address = read_scalar64(w, &inst->src[0]) + (u64)(i64)inst->offset;
  if (inst->src[1].kind == OPERAND_SGPR) address += read_scalar(w, &inst->src[1]);
  if (inst->size >= 4) address &= ~3ull;
  if (memory_touch_scalar(w, inst, address, inst->size)) write_scalars(w, inst, address);
}

// "S_BUFFER_LOAD": dwords beyond NUM_RECORDS (times the stride, if there is one) read as 0.
void run_scalar_buffer_load(Wave *w, const Inst *inst) {
  const u32 *descriptor = &w->s[inst->src[0].reg];
  u64 base = (descriptor[0] | (u64)descriptor[1] << 32) & 0xffffffffffffull;
  u32 stride = descriptor[1] >> 16 & 0x3fff;
  u64 limit = (u64)descriptor[2] * (stride ? stride : 1);
  u64 offset = (u64)(u32)inst->offset + (inst->src[1].kind == OPERAND_SGPR ? read_scalar(w, &inst->src[1]) : 0);
  u32 bytes = inst->size < 4 ? inst->size : 4;
  for (u32 r = 0; r * 4 < inst->size; r++) {
    u32 value = 0;
    if (offset + 4 * r + bytes <= limit) {
      if (!memory_touch_scalar(w, inst, base + offset + 4 * r, bytes)) return;
      memcpy(&value, (const void *)(base + offset + 4 * r), bytes);
    }
    if (inst->is_signed) value = (u32)sign_extend(value, (int)bytes * 8);
    if (inst->dst.reg + r != SGPR_NULL) w->s[inst->dst.reg + r] = value;
  }
}

void run_cache_control(Wave *w UNUSED, const Inst *inst UNUSED) {}
