// Additions with carries in lane masks, and the 64-bit multiply-adds.
#include "lanes.h"
#include "tables.h"

#define TAKES_CARRY 1   // detail bits
#define SUBTRACTS 2
#define IS_REVERSED 4

// "V_ADDC_CO_U32: D0 = S0 + S1 + carry-in; the carry-out goes to VCC or SDST".
static void run_carry(Wave *w, const Inst *inst) {
  u32 detail = inst->semantics->detail;
  Lanes rooms[3], result;
  const u32 *a = fetch_lanes(w, inst, &inst->src[0], &rooms[0]), *b = fetch_lanes(w, inst, &inst->src[1], &rooms[1]);
  const u32 *carry = detail & TAKES_CARRY ? fetch_lanes(w, inst, &inst->src[2], &rooms[2]) : NULL;
  const u32 *first = detail & IS_REVERSED ? b : a, *second = detail & IS_REVERSED ? a : b;
  u32 *out = (u32 *)result.values;
  u64 carries = 0;
  for (u32 l = 0; l < w->lanes; l++) {
    u64 in = carry ? carry[l] : 0;
    u64 sum = detail & SUBTRACTS ? (u64)first[l] - second[l] - in : (u64)first[l] + second[l] + in;
    bool is_carry = sum >> 32 & 1;
    out[l] = !(inst->clamp && is_carry) ? (u32)sum : detail & SUBTRACTS ? 0 : ~0u;
    carries |= (u64)is_carry << l;
  }
  u64 mask = write_mask(w, inst);
  commit_lanes(w, inst, &inst->dst, out);
  write_mask_register(w, &inst->dst2, carries & mask);
}

static void run_mad_64(Wave *w, const Inst *inst) {
  Lanes rooms[3], result;
  const u32 *a = fetch_lanes(w, inst, &inst->src[0], &rooms[0]), *b = fetch_lanes(w, inst, &inst->src[1], &rooms[1]);
  const u64 *c = fetch_lanes(w, inst, &inst->src[2], &rooms[2]);
  bool is_signed = inst->semantics->detail;
  u64 carries = 0;
  for (u32 l = 0; l < w->lanes; l++) {
    u64 product = is_signed ? (u64)((i64)(i32)a[l] * (i32)b[l]) : (u64)a[l] * b[l];
    result.values[l] = product + c[l];
    carries |= (u64)(result.values[l] < product) << l;
  }
  u64 mask = write_mask(w, inst);
  commit_lanes(w, inst, &inst->dst, result.values);
  write_mask_register(w, &inst->dst2, carries & mask);
}

#define U TYPE_B32
#define PLAIN(FLAGS) run_carry, NULL, U, {U, U}, CLASS_VALU, FLAGS
#define WITH_CARRY(FLAGS) run_carry, NULL, U, {U, U, TYPE_LANES}, CLASS_VALU, TAKES_CARRY | (FLAGS)

static const Semantics entries[] = {
    {"v_add_co_u32", PLAIN(0)},
    {"v_sub_co_u32", PLAIN(SUBTRACTS)},
    {"v_subrev_co_u32", PLAIN(SUBTRACTS | IS_REVERSED)},
    {"v_addc_co_u32 v_add_co_ci_u32", WITH_CARRY(0)},
    {"v_subb_co_u32 v_sub_co_ci_u32", WITH_CARRY(SUBTRACTS)},
    {"v_subbrev_co_u32 v_subrev_co_ci_u32", WITH_CARRY(SUBTRACTS | IS_REVERSED)},
    {"v_mad_u64_u32 v_mad_co_u64_u32", run_mad_64, NULL, TYPE_B64, {U, U, TYPE_B64}, CLASS_VALU, 0},
    {"v_mad_i64_i32 v_mad_co_i64_i32", run_mad_64, NULL, TYPE_B64, {U, U, TYPE_B64}, CLASS_VALU, 1},
};
const SemanticsTable carry_table = {entries, COUNT_OF(entries)};
