// Moving bytes between lanes' registers and memory, once addresses are known and checked.
#pragma once
#include "memory_ops.h"
#include "wave.h"

// Loads inst->size bytes for each active lane into its destination registers (or the LDS, for loads to LDS).
void load_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active);
// Stores from the data registers inst->src[1].
void store_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active);
// Writes loaded dwords [registers][lanes] as the instruction says: sign, D16 halves.
void write_loaded(Wave *w, const Inst *inst, u32 (*values)[MAX_LANES], u32 registers, u64 mask);
// An atomic of each active lane on memory.
void atomic_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active);
// Checks an LDS access of a lane; raises a fault if it lies outside.
bool lds_check(Wave *w, const Inst *inst, u64 address, u32 bytes, u32 lane);
