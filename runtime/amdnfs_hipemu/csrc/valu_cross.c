// Vector instructions that move data between lanes, or between lanes and scalars.
#include "lanes.h"
#include "tables.h"

// "V_READFIRSTLANE_B32: of the first lane that EXEC enables; of lane 0 if there is none".
static void run_readfirstlane(Wave *w, const Inst *inst) {
  Lanes room;
  const u32 *in = fetch_raw(w, &inst->src[0], 0, &room);
  u64 exec = exec_of(w);
  write_scalar(w, &inst->dst, in[exec ? __builtin_ctzll(exec) : 0]);
}

static void run_readlane(Wave *w, const Inst *inst) {
  Lanes room;
  const u32 *in = fetch_raw(w, &inst->src[0], 0, &room);
  write_scalar(w, &inst->dst, in[read_scalar(w, &inst->src[1]) & (w->lanes - 1)]);
}

static void run_writelane(Wave *w, const Inst *inst) {
  w->v[inst->dst.reg][read_scalar(w, &inst->src[1]) & (w->lanes - 1)] = read_scalar(w, &inst->src[0]);
}

// "V_MBCNT_LO/HI": bits of a mask below this lane, plus S1.
static void run_mbcnt(Wave *w, const Inst *inst) {
  Lanes rooms[2], result;
  const u32 *mask = fetch_lanes(w, inst, &inst->src[0], &rooms[0]), *add = fetch_lanes(w, inst, &inst->src[1], &rooms[1]);
  bool is_high = inst->semantics->detail;
  u32 *out = (u32 *)result.values;
  for (u32 l = 0; l < w->lanes; l++) {
    u32 below = is_high ? (l < 32 ? 0 : (1u << (l - 32)) - 1) : l < 32 ? (1u << l) - 1 : ~0u;
    out[l] = (u32)__builtin_popcount(mask[l] & below) + add[l];
  }
  commit_lanes(w, inst, &inst->dst, out);
}

#define OTHER_ROW 1   // detail bits
#define BY_LANE 2

// "V_PERMLANE16/X16": 4-bit selects of a lane in the row (or the other row of the pair), from S1 and S2 or, in the VAR
// forms of RDNA4, from each lane's S1. OP_SEL[0] is FI, OP_SEL[1] bound_ctrl.
static void run_permlane(Wave *w, const Inst *inst) {
  Lanes rooms[2], result;
  const u32 *in = fetch_raw(w, &inst->src[0], 0, &rooms[0]), *selects = NULL;
  u64 select = 0, exec = exec_of(w);
  if (inst->semantics->detail & BY_LANE) selects = fetch_raw(w, &inst->src[1], 0, &rooms[1]);
  else select = read_scalar(w, &inst->src[1]) | (u64)read_scalar(w, &inst->src[2]) << 32;
  u64 readable = inst->abid & 1 ? ~0ull : exec, written = 0;
  u32 *out = (u32 *)result.values;
  for (u32 l = 0; l < w->lanes; l++) {
    u32 row = (l & ~15u) ^ (inst->semantics->detail & OTHER_ROW ? 16 : 0);
    u32 from = row + (selects ? selects[l] & 15 : (u32)(select >> 4 * (l & 15)) & 15);
    bool is_valid = readable >> from & 1;
    out[l] = is_valid ? in[from] : 0;
    written |= (u64)(is_valid || inst->abid & 2) << l;
  }
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, exec & written);
}

// "V_PERMLANE64_B32": the halves of a 64-lane wave change places.
static void run_permlane64(Wave *w, const Inst *inst) {
  u32 out[MAX_LANES] VECTOR_ALIGNED;
  for (u32 l = 0; l < w->lanes; l++) out[l] = w->v[inst->src[0].reg][w->lanes == 64 ? l ^ 32 : l];
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, exec_of(w));
}

// "V_PERMLANE16_SWAP/32_SWAP" of CDNA4: odd rows (halves) of VDST change places with even ones of VSRC.
static void run_permlane_swap(Wave *w, const Inst *inst) {
  u32 *a = w->v[inst->dst.reg], *b = w->v[inst->src[0].reg];
  u32 step = inst->semantics->detail;
  for (u32 l = 0; l < 64; l++) {
    if (l & step) continue;
    u32 kept = a[l + step];
    a[l + step] = b[l];
    b[l] = kept;
  }
}

static void run_swap(Wave *w, const Inst *inst) {
  u32 old[MAX_LANES] VECTOR_ALIGNED;
  memcpy(old, w->v[inst->dst.reg], sizeof old);
  u64 exec = exec_of(w);
  exec_lanes(w);
  write_register(w, inst->dst.reg, w->v[inst->src[0].reg], exec);
  write_register(w, inst->src[0].reg, old, exec);
}

// DS instructions that exchange lanes without touching the LDS.
static void run_bpermute(Wave *w, const Inst *inst) {
  const u32 *address = w->v[inst->src[0].reg], *in = w->v[inst->src[1].reg];
  bool fetches_inactive = inst->semantics->detail;
  u32 out[MAX_LANES] VECTOR_ALIGNED;
  u64 exec = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    u32 from = (address[l] + (u32)inst->offset) >> 2 & (w->lanes - 1);
    out[l] = fetches_inactive || exec >> from & 1 ? in[from] : 0;
  }
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, exec);
}

static void run_permute(Wave *w, const Inst *inst) {
  const u32 *address = w->v[inst->src[0].reg], *in = w->v[inst->src[1].reg];
  u32 out[MAX_LANES] VECTOR_ALIGNED = {0};
  u64 exec = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++)
    if (exec >> l & 1) out[(address[l] + (u32)inst->offset) >> 2 & (w->lanes - 1)] = in[l];
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, exec);
}

// "DS_SWIZZLE_B32": offset bit 15: quad permute; offset >= 0xe000: FFT; 0xc000: rotate; else and, or, xor masks in
// groups of 32.
static void run_swizzle(Wave *w, const Inst *inst) {
  const u32 *in = w->v[inst->src[0].reg];
  u32 out[MAX_LANES] VECTOR_ALIGNED, offset = (u32)inst->offset;
  u64 exec = exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    u32 from;
    if (offset >= 0xc000) {
      u32 count = offset >> 5 & 31, keep = offset & 31;
      u32 turned = (offset & 0x400 ? l - count : l + count) & 31;
      from = (l & 32) | (l & keep) | (turned & ~keep & 31);
    } else if (offset & 0x8000) {
      from = (l & ~3u) | (offset >> 2 * (l & 3) & 3);
    } else {
      from = (l & 32) | ((((l & 31) & (offset & 31)) | (offset >> 5 & 31)) ^ (offset >> 10 & 31));
    }
    out[l] = exec >> from & 1 ? in[from] : 0;
  }
  exec_lanes(w);
  write_register(w, inst->dst.reg, out, exec);
}

static void run_nop(Wave *w UNUSED, const Inst *inst UNUSED) {}

#define U TYPE_B32
static const Semantics entries[] = {
    {"v_readfirstlane_b32", run_readfirstlane, NULL, U, {U}, CLASS_VALU, 0},
    {"v_readlane_b32", run_readlane, NULL, U, {U, U}, CLASS_VALU, 0},
    {"v_writelane_b32", run_writelane, NULL, U, {U, U}, CLASS_VALU, 0},
    {"v_mbcnt_lo_u32_b32", run_mbcnt, NULL, U, {U, U}, CLASS_VALU, 0},
    {"v_mbcnt_hi_u32_b32", run_mbcnt, NULL, U, {U, U}, CLASS_VALU, 1},
    {"v_permlane16_b32", run_permlane, NULL, U, {U, U, U}, CLASS_VALU, 0},
    {"v_permlanex16_b32", run_permlane, NULL, U, {U, U, U}, CLASS_VALU, OTHER_ROW},
    {"v_permlane16_var_b32", run_permlane, NULL, U, {U, U}, CLASS_VALU, BY_LANE},
    {"v_permlanex16_var_b32", run_permlane, NULL, U, {U, U}, CLASS_VALU, BY_LANE | OTHER_ROW},
    {"v_permlane64_b32", run_permlane64, NULL, U, {U}, CLASS_VALU, 0},
    {"v_permlane16_swap_b32", run_permlane_swap, NULL, U, {U}, CLASS_VALU, 16},
    {"v_permlane32_swap_b32", run_permlane_swap, NULL, U, {U}, CLASS_VALU, 32},
    {"v_swap_b32", run_swap, NULL, U, {U}, CLASS_VALU, 0},
    {"v_nop v_pipeflush", run_nop, NULL, 0, {0}, CLASS_VALU, 0},
    {"ds_bpermute_b32", run_bpermute, NULL, U, {U, U}, CLASS_LDS, 0},
    {"ds_bpermute_fi_b32", run_bpermute, NULL, U, {U, U}, CLASS_LDS, 1},
    {"ds_permute_b32", run_permute, NULL, U, {U, U}, CLASS_LDS, 0},
    {"ds_swizzle_b32", run_swizzle, NULL, U, {U}, CLASS_LDS, 0},
};
const SemanticsTable cross_table = {entries, COUNT_OF(entries)};
