// The LDS: loads, stores and atomics, and its bank conflicts.
// Source: "Data Share Operations" of the ISA documents.
#include "lds_banks.h"

#include "access.h"
#include "checks.h"
#include "faults.h"
#include "lanes.h"
#include "tables.h"

bool lds_check(Wave *w, const Inst *inst, u64 address, u32 bytes, u32 lane) {
  if (address + bytes <= w->group->lds_bytes) return true;
  raise_fault(w, inst, FAULT_LDS_RANGE, "%u bytes at %llu of %u bytes of LDS (lane %u)", bytes,
              (unsigned long long)address, w->group->lds_bytes, lane);
  return false;
}

// Addresses of all active lanes, checked and counted.
static bool find_addresses(Wave *w, const Inst *inst, u32 offset, u32 bytes, u64 active, u32 *address) {
  const u32 *base = w->v[inst->src[0].reg];
  u32 highest = 0;
  for (u32 l = 0; l < w->lanes; l++) {
    address[l] = base[l] + offset;
    highest = (active >> l & 1) && address[l] > highest ? address[l] : highest;
  }
  if ((u64)highest + bytes > w->group->lds_bytes)
    for (u32 l = 0; l < w->lanes; l++)
      if ((active >> l & 1) && !lds_check(w, inst, address[l], bytes, l)) return false;
  u64 moved = (u64)bytes * (u64)__builtin_popcountll(active);
  if (inst->is_store) w->counters->lds_stored_bytes += moved;
  else w->counters->lds_loaded_bytes += moved;
  if (counters_are_kept) w->counters->lds_bank_conflicts += bank_conflicts(w, address, active, bytes);
  return true;
}

static bool check_lds(Wave *w, const Inst *inst, const u32 *address, u32 bytes, u64 active, const u32 *data, bool is_atomic) {
  if (!w->group->shadow) return true;
  for (u32 l = 0; l < w->lanes; l++) {
    if (!(active >> l & 1)) continue;
    u32 words[4];
    for (u32 r = 0; data && r < (bytes + 3) / 4; r++) words[r] = data[r * MAX_LANES + l] >> (inst->is_d16_hi && bytes < 4 ? 16 : 0);
    if (!lds_shadow_touch(w, inst, address[l], bytes, data ? words : NULL, inst->is_store, is_atomic)) return false;
  }
  return true;
}

static void to_pointers(const Wave *w, const u32 *address, u64 *pointer) {
  for (u32 l = 0; l < w->lanes; l++) pointer[l] = (u64)w->group->lds + address[l];
}

void run_lds(Wave *w, const Inst *inst) {
  u32 address[MAX_LANES];
  u64 pointer[MAX_LANES], active = exec_of(w);
  if (!find_addresses(w, inst, (u32)inst->offset, inst->size, active, address)) return;
  if (!check_lds(w, inst, address, inst->size, active, inst->is_store ? w->v[inst->src[1].reg] : NULL, false)) return;
  to_pointers(w, address, pointer);
  if (inst->is_store) store_lanes(w, inst, pointer, active);
  else load_lanes(w, inst, pointer, active);
}

// Two addresses: each moves `size` bytes.
void run_lds2(Wave *w, const Inst *inst) {
  u64 active = exec_of(w);
  u32 registers = inst->size / 4, address[2][MAX_LANES];
  VECTOR_ALIGNED u32 values[4][MAX_LANES];
  for (u32 h = 0; h < 2; h++) {
    if (!find_addresses(w, inst, (u32)(h ? inst->offset2 : inst->offset), inst->size, active, address[h])) return;
    const u32 *data = inst->is_store ? w->v[inst->src[1 + h].reg] : NULL;
    if (!check_lds(w, inst, address[h], inst->size, active, data, false)) return;
    for (u32 l = 0; l < w->lanes; l++) {
      if (!(active >> l & 1)) continue;
      u8 *at = w->group->lds + address[h][l];
      for (u32 r = 0; r < registers; r++) {
        if (data) memcpy(at + 4 * r, &data[r * MAX_LANES + l], 4);
        else memcpy(&values[h * registers + r][l], at + 4 * r, 4);
      }
    }
  }
  if (!inst->is_store) write_loaded(w, inst, values, 2 * registers, active);
}

void run_lds_atomic(Wave *w, const Inst *inst) {
  u32 address[MAX_LANES];
  u64 active = exec_of(w);
  if (!find_addresses(w, inst, (u32)inst->offset, inst->size, active, address)) return;
  if (!check_lds(w, inst, address, inst->size, active, NULL, true)) return;
  bool is_wide = inst->size == 8;
  u32 (*first)[MAX_LANES] = &w->v[inst->src[1].reg], (*second)[MAX_LANES] = &w->v[inst->src[2].reg];
  // DS_CMPST has the comparison first, DS_CMPSTORE of RDNA3 and 4 the data.
  bool is_compare_first = inst->imm == ATOMIC_CMPSWAP && strstr(inst->name, "cmpst_");
  VECTOR_ALIGNED u32 low[MAX_LANES], high[MAX_LANES];
  for (u32 l = 0; l < w->lanes; l++) {
    if (!(active >> l & 1)) continue;
    u64 a = is_wide ? first[0][l] | (u64)first[1][l] << 32 : first[0][l];
    u64 b = inst->src[2].kind == OPERAND_NONE ? 0 : is_wide ? second[0][l] | (u64)second[1][l] << 32 : second[0][l];
    u64 old = atomic_apply((AtomicOp)inst->imm, w->group->lds + address[l], inst->size, is_compare_first ? b : a,
                           is_compare_first ? a : b);
    low[l] = (u32)old, high[l] = (u32)(old >> 32);
  }
  if (!inst->returns) return;
  exec_lanes(w);
  write_register(w, inst->dst.reg, low, active);
  if (is_wide) write_register(w, inst->dst.reg + 1, high, active);
}

// "DS_LOAD_ADDTID: address = offset + M0 + lane * 4".
void run_lds_addtid(Wave *w, const Inst *inst) {
  u32 address[MAX_LANES];
  u64 pointer[MAX_LANES], active = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    address[l] = (u32)inst->offset + (w->s[SGPR_M0] & 0xffff) + 4 * l;
    if ((active >> l & 1) && !lds_check(w, inst, address[l], 4, l)) return;
  }
  if (!check_lds(w, inst, address, 4, active, inst->is_store ? w->v[inst->src[1].reg] : NULL, false)) return;
  to_pointers(w, address, pointer);
  if (inst->is_store) store_lanes(w, inst, pointer, active);
  else load_lanes(w, inst, pointer, active);
}

// "DS_READ_B64_TR_B16" of CDNA4: of each 16 lanes, lane p gets in element e the value p % 4 of lane 4 * e + p / 4.
// The 8-bit form: lane p gets element e from lane 2 * e + p / 8, value p % 8.
static void run_transposed(Wave *w, const Inst *inst) {
  u32 address[MAX_LANES], bits = inst->semantics->detail, count = 64 / bits;
  u64 active = exec_of(w), loaded[MAX_LANES] = {0};
  if (!find_addresses(w, inst, (u32)inst->offset, 8, active, address)) return;
  if (!check_lds(w, inst, address, 8, active, NULL, false)) return;
  for (u32 l = 0; l < w->lanes; l++)
    if (active >> l & 1) memcpy(&loaded[l], w->group->lds + address[l], 8);
  VECTOR_ALIGNED u32 values[2][MAX_LANES];
  u32 lanes_a_row = 16 / count;
  for (u32 l = 0; l < w->lanes; l++) {
    u64 result = 0;
    for (u32 e = 0; e < count; e++) {
      u64 from = loaded[(l & ~15u) + lanes_a_row * e + (l & 15) / count];
      result |= (from >> bits * (l % count) & ((1ull << bits) - 1)) << bits * e;
    }
    values[0][l] = (u32)result, values[1][l] = (u32)(result >> 32);
  }
  exec_lanes(w);
  write_register(w, inst->dst.reg, values[0], active);
  write_register(w, inst->dst.reg + 1, values[1], active);
}

static void run_nop(Wave *w UNUSED, const Inst *inst UNUSED) {}

static const Semantics entries[] = {
    {"ds_read_b64_tr_b16", run_transposed, NULL, TYPE_B64, {TYPE_B32}, CLASS_LDS, 16},
    {"ds_read_b64_tr_b8", run_transposed, NULL, TYPE_B64, {TYPE_B32}, CLASS_LDS, 8},
    {"ds_nop", run_nop, NULL, 0, {0}, CLASS_LDS, 0},
};
const SemanticsTable lds_table = {entries, COUNT_OF(entries)};
