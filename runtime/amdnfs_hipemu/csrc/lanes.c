// Operands as arrays of lanes.
#include "lanes.h"

#include <fenv.h>

#include "half.h"

// MODE register: FP_ROUND 3:0 (f32 1:0, f64 and f16 3:2), FP_DENORM 7:4 (f32 5:4, f64 and f16 7:6): bit 0 of each
// allows denormal inputs, bit 1 denormal outputs. Source: "Mode register", "Denormals" of the ISA documents.
#define MODE_DEFAULT_F32 0x30
#define MODE_DENORM_IN_F32 0x10
#define MODE_DENORM_OUT_F32 0x20
#define MODE_DENORM_IN_F16 0x40
#define MODE_DENORM_OUT_F16 0x80

const u32 *exec_lanes(Wave *w) {
  u64 exec = exec_of(w);
  if (exec != w->exec_seen) {
    for (int l = 0; l < MAX_LANES; l++) w->exec_lanes[l] = 0u - (u32)(exec >> l & 1);
    w->exec_seen = exec;
  }
  return w->exec_lanes;
}

u32 read_scalar(const Wave *w, const Operand *o) {
  switch (o->kind) {
    case OPERAND_SGPR: return w->s[o->reg];
    case OPERAND_SCC: return w->scc;
    case OPERAND_VCCZ: return w->lanes == 64 ? !(w->s[SGPR_VCC] | w->s[SGPR_VCC + 1]) : !w->s[SGPR_VCC];
    case OPERAND_EXECZ: return exec_of(w) == 0;
    case OPERAND_VGPR: return w->v[o->reg][0];
    default: return (u32)o->value;
  }
}

u64 read_scalar64(const Wave *w, const Operand *o) {
  if (o->kind == OPERAND_SGPR) return w->s[o->reg] | (u64)(o->reg == SGPR_NULL ? 0 : w->s[o->reg + 1]) << 32;
  return o->kind == OPERAND_VALUE ? o->value : read_scalar(w, o);
}

void write_scalar(Wave *w, const Operand *o, u32 value) {
  if (o->reg != SGPR_NULL) w->s[o->reg] = value;
}

void write_scalar64(Wave *w, const Operand *o, u64 value) {
  if (o->reg == SGPR_NULL) return;
  w->s[o->reg] = (u32)value;
  w->s[o->reg + 1] = (u32)(value >> 32);
}

void write_mask_register(Wave *w, const Operand *o, u64 mask) {
  if (w->lanes == 64) write_scalar64(w, o, mask);
  else write_scalar(w, o, (u32)mask);
}

static void broadcast(u32 *out, u32 value) {
  for (int l = 0; l < MAX_LANES; l++) out[l] = value;
}

static void permute(Wave *w, const Dpp *dpp, u32 *out, const u32 *in) {
  u64 readable = dpp->fetch_inactive ? ~0ull : exec_of(w);
  for (u32 l = 0; l < w->lanes; l++) {
    int from = dpp->source[l];
    out[l] = from >= 0 && (readable >> from & 1) ? in[from] : 0;
  }
}

static void select_bits(u32 *out, const u32 *in, u8 select, bool is_signed) {
  int low = select <= 4 ? 8 * (select - 1) : 16 * (select - 5), bits = select <= 4 ? 8 : 16;
  for (int l = 0; l < MAX_LANES; l++) {
    u32 value = field(in[l], low, bits);
    out[l] = is_signed ? (u32)sign_extend(value, bits) : value;
  }
}

const u32 *fetch_raw(Wave *w, const Operand *o, u32 index, Lanes *room) {
  if (o->kind == OPERAND_VGPR) return w->v[o->reg + index];
  u32 value = index == 0 ? read_scalar(w, o) : (u32)(read_scalar64(w, o) >> 32);
  broadcast((u32 *)room->values, value);
  return (u32 *)room->values;
}

// A register with what stands before the type: GFX9's index mode, DPP, SDWA.
static const u32 *fetch_register(Wave *w, const Inst *inst, const Operand *o, u32 index, Lanes *room) {
  const u32 *bits = fetch_raw(w, o, index, room);
  u32 *changed = (u32 *)room->values;
  if (inst->dpp && o == &inst->src[0] && o->kind == OPERAND_VGPR) {
    permute(w, inst->dpp, changed, bits);
    bits = changed;
  }
  if (o->select) {
    select_bits(changed, bits, o->select, o->sign_extend);
    bits = changed;
  }
  return bits;
}

static void flush_denormals(u32 *values, int lanes) {
  for (int l = 0; l < lanes; l++) values[l] = values[l] & 0x7f800000 ? values[l] : values[l] & 0x80000000;
}

static const void *fetch_f32(Wave *w, const Inst *inst, const Operand *o, Lanes *room) {
  const u32 *bits = fetch_register(w, inst, o, 0, room);
  u32 *out = (u32 *)room->values;
  bool flush = !(w->mode & MODE_DENORM_IN_F32);
  if (!o->neg && !o->abs && !flush) return bits;
  u32 keep = o->abs ? 0x7fffffff : 0xffffffff, flip = o->neg ? 0x80000000 : 0;
  for (int l = 0; l < MAX_LANES; l++) out[l] = (bits[l] & keep) ^ flip;
  if (flush) flush_denormals(out, MAX_LANES);
  return out;
}

static void fetch_16(Wave *w, const Inst *inst, const Operand *o, u32 *out) {
  Lanes room;
  const u32 *bits = fetch_register(w, inst, o, 0, &room);
  int shift = o->half && o->kind != OPERAND_VALUE ? 16 : 0;
  u32 keep = o->abs ? 0x7fff : 0xffff, flip = o->neg ? 0x8000 : 0;
  for (int l = 0; l < MAX_LANES; l++) out[l] = (bits[l] >> shift & keep) ^ flip;
}

static const void *fetch_64(Wave *w, const Inst *inst, const Operand *o, Lanes *room) {
  Lanes low_room, high_room;
  const u32 *low = fetch_register(w, inst, o, 0, &low_room), *high = fetch_register(w, inst, o, 1, &high_room);
  u64 keep = o->abs ? ~(1ull << 63) : ~0ull, flip = o->neg ? 1ull << 63 : 0;
  for (int l = 0; l < MAX_LANES; l++) room->values[l] = ((low[l] | (u64)high[l] << 32) & keep) ^ flip;
  if (o->type == TYPE_F64 && !(w->mode & MODE_DENORM_IN_F16))
    for (int l = 0; l < MAX_LANES; l++)
      if (!(room->values[l] >> 52 & 0x7ff)) room->values[l] &= 1ull << 63;
  return room->values;
}

const void *fetch_lanes(Wave *w, const Inst *inst, const Operand *o, Lanes *room) {
  u32 *out = (u32 *)room->values;
  if (o->is_plain && (o->type == TYPE_B32 || w->mode & MODE_DENORM_IN_F32)) return w->v[o->reg];
  switch (o->type) {
    case TYPE_F32: return fetch_f32(w, inst, o, room);
    case TYPE_B32: {
      const u32 *bits = fetch_register(w, inst, o, 0, room);
      if (!o->neg && !o->abs) return bits;
      for (int l = 0; l < MAX_LANES; l++) out[l] = (bits[l] & (o->abs ? 0x7fffffff : ~0u)) ^ (o->neg ? 0x80000000 : 0);
      return out;
    }
    case TYPE_B16: fetch_16(w, inst, o, out); return out;
    case TYPE_I16:
      fetch_16(w, inst, o, out);
      for (int l = 0; l < MAX_LANES; l++) out[l] = (u32)(i32)(i16)out[l];
      return out;
    case TYPE_F16: {
      u32 bits[MAX_LANES] VECTOR_ALIGNED;
      fetch_16(w, inst, o, bits);
      if (!(w->mode & MODE_DENORM_IN_F16))
        for (int l = 0; l < MAX_LANES; l++) bits[l] = bits[l] & 0x7c00 ? bits[l] : bits[l] & 0x8000;
      halves_to_floats((f32 *)out, bits, (int)w->lanes);
      return out;
    }
    case TYPE_BF16:
      fetch_16(w, inst, o, out);
      for (int l = 0; l < MAX_LANES; l++) out[l] <<= 16;
      return out;
    case TYPE_LANES: {
      u64 mask = o->kind != OPERAND_SGPR ? (u64)(i64)(i32)read_scalar(w, o)
                 : w->lanes == 64        ? read_scalar64(w, o)
                                         : read_scalar(w, o);
      for (int l = 0; l < MAX_LANES; l++) out[l] = (u32)(mask >> l & 1);
      return out;
    }
    default: return fetch_64(w, inst, o, room);
  }
}

u64 write_mask(Wave *w, const Inst *inst) {
  u64 mask = exec_of(w);
  if (!inst->dpp) return mask;
  u64 readable = inst->dpp->fetch_inactive ? ~0ull : mask, valid = 0;
  for (u32 l = 0; l < w->lanes; l++) {
    int from = inst->dpp->source[l];
    if (inst->dpp->bound_ctrl || (from >= 0 && (readable >> from & 1))) valid |= 1ull << l;
  }
  return mask & valid & inst->dpp->writable;
}

void write_register(Wave *w, u32 reg, const u32 *values, u64 mask) {
  u32 *out = w->v[reg];
  if (mask == full_exec(w)) {
    memcpy(out, values, w->lanes * sizeof(u32));
  } else if (mask == w->exec_seen) {
    for (int l = 0; l < MAX_LANES; l++) out[l] = (values[l] & w->exec_lanes[l]) | (out[l] & ~w->exec_lanes[l]);
  } else {
    for (u32 l = 0; l < w->lanes; l++)
      if (mask >> l & 1) out[l] = values[l];
  }
}

// "Output modifiers": OMOD multiplies by 2, 4 or 1/2, then CLAMP limits to [0, 1] with NaN to 0.
static void modify_floats(const Wave *w, const Inst *inst, f32 *values) {
  static const f32 factors[] = {1.0f, 2.0f, 4.0f, 0.5f};
  f32 factor = factors[inst->omod];
  if (inst->omod)
    for (int l = 0; l < MAX_LANES; l++) values[l] *= factor;
  if (inst->clamp)
    for (int l = 0; l < MAX_LANES; l++) values[l] = values[l] > 0.0f ? (values[l] < 1.0f ? values[l] : 1.0f) : 0.0f;
  if (!(w->mode & MODE_DENORM_OUT_F32) && inst->semantics->out == TYPE_F32) flush_denormals((u32 *)values, MAX_LANES);
}

static void modify_doubles(const Inst *inst, f64 *values) {
  static const f64 factors[] = {1.0, 2.0, 4.0, 0.5};
  for (int l = 0; l < MAX_LANES; l++) {
    values[l] *= factors[inst->omod];
    if (inst->clamp) values[l] = values[l] > 0.0 ? (values[l] < 1.0 ? values[l] : 1.0) : 0.0;
  }
}

// SDWA destinations: "DST_SEL" places 8 or 16 bits; "DST_UNUSED" pads with 0, sign-extends or keeps the rest.
static void place_sdwa(const Wave *w, const Inst *inst, const Operand *o, u32 *values) {
  int low = inst->dst_select <= 4 ? 8 * (inst->dst_select - 1) : 16 * (inst->dst_select - 5);
  int bits = inst->dst_select <= 4 ? 8 : 16;
  u32 mask = ((1u << bits) - 1) << low;
  for (int l = 0; l < MAX_LANES; l++) {
    u32 placed = values[l] << low & mask;
    if (inst->dst_unused == 1) placed = (u32)sign_extend(field(values[l], 0, bits), bits) << low;
    if (inst->dst_unused == 2) placed |= w->v[o->reg][l] & ~mask;
    values[l] = placed;
  }
}

static void commit_16(Wave *w, const Inst *inst, const Operand *o, u32 *values, u64 mask) {
  const u32 *old = w->v[o->reg];
  if (inst->dst_select) place_sdwa(w, inst, o, values);
  else if (o->half)
    for (int l = 0; l < MAX_LANES; l++) values[l] = (old[l] & 0xffff) | values[l] << 16;
  else if (inst->keep_dst_half)
    for (int l = 0; l < MAX_LANES; l++) values[l] = (old[l] & 0xffff0000) | (values[l] & 0xffff);
  else
    for (int l = 0; l < MAX_LANES; l++) values[l] &= 0xffff;
  write_register(w, o->reg, values, mask);
}

static void commit_64(Wave *w, const Operand *o, const u64 *values, u64 mask) {
  u32 low[MAX_LANES] VECTOR_ALIGNED, high[MAX_LANES] VECTOR_ALIGNED;
  for (int l = 0; l < MAX_LANES; l++) low[l] = (u32)values[l], high[l] = (u32)(values[l] >> 32);
  write_register(w, o->reg, low, mask);
  write_register(w, o->reg + 1, high, mask);
}

static u64 gather_mask(const u32 *values, u32 lanes) {
  u64 mask = 0;
  for (u32 l = 0; l < lanes; l++) mask |= (u64)(values[l] & 1) << l;
  return mask;
}

void commit_lanes(Wave *w, const Inst *inst, const Operand *o, void *values) {
  u64 mask = write_mask(w, inst);
  exec_lanes(w);
  switch (o->type) {
    case TYPE_LANES: {
      u64 result = gather_mask(values, w->lanes) & mask;
      write_mask_register(w, o, result);
      if (inst->dst2.kind == OPERAND_SGPR && o == &inst->dst) write_mask_register(w, &inst->dst2, result);
      return;
    }
    case TYPE_F32:
      if (inst->omod || inst->clamp || !(w->mode & MODE_DENORM_OUT_F32)) modify_floats(w, inst, values);
      break;
    case TYPE_F16: {
      u32 halves[MAX_LANES] VECTOR_ALIGNED;
      if (inst->omod || inst->clamp) modify_floats(w, inst, values);
      floats_to_halves(halves, values, (int)w->lanes, (Rounding)(w->mode >> 2 & 3));
      if (!(w->mode & MODE_DENORM_OUT_F16))
        for (int l = 0; l < MAX_LANES; l++) halves[l] = halves[l] & 0x7c00 ? halves[l] : halves[l] & 0x8000;
      commit_16(w, inst, o, halves, mask);
      return;
    }
    case TYPE_BF16: {
      u32 *bits = values;
      for (int l = 0; l < MAX_LANES; l++) bits[l] = float_to_bf16(f32_of(bits[l]));
      commit_16(w, inst, o, bits, mask);
      return;
    }
    case TYPE_B16:
    case TYPE_I16: commit_16(w, inst, o, values, mask); return;
    case TYPE_F64:
      if (inst->omod || inst->clamp) modify_doubles(inst, values);
      commit_64(w, o, values, mask);
      return;
    case TYPE_B64: commit_64(w, o, values, mask); return;
    default: break;
  }
  if (o->kind == OPERAND_SGPR) {  // v_s_exp_f32 and the like: one value
    write_scalar(w, o, ((u32 *)values)[0]);
    return;
  }
  if (inst->dst_select) place_sdwa(w, inst, o, values);
  write_register(w, o->reg, values, mask);
}

// Other rounding than nearest comes from the MODE register and is rare: the host's rounding is switched for the call.
static void run_rounded(const LaneArgs *args, const Semantics *semantics, u32 mode) {
  static const int host_modes[] = {FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO};
  fesetround(host_modes[(semantics->out == TYPE_F32 ? mode : mode >> 2) & 3]);
  semantics->kernel(args);
  fesetround(FE_TONEAREST);
}

void run_vector(Wave *w, const Inst *inst) {
  const Semantics *semantics = inst->semantics;
  Lanes rooms[3], result;
  LaneArgs args = {.lanes = (int)w->lanes, .inst = inst, .wave = w};
  for (int k = 0; k < 3; k++)
    if (semantics->in[k]) args.in[k] = fetch_lanes(w, inst, &inst->src[k], &rooms[k]);
  bool is_direct = inst->dst.is_plain && exec_of(w) == full_exec(w) &&
                   (semantics->out == TYPE_B32 || w->mode & MODE_DENORM_OUT_F32);
  args.out = is_direct ? (void *)w->v[inst->dst.reg] : result.values;
  if (w->mode & 15) run_rounded(&args, semantics, w->mode);
  else semantics->kernel(&args);
  if (!is_direct) commit_lanes(w, inst, &inst->dst, result.values);
}

// VOPD: both operations read before either writes.
void run_dual(Wave *w, const Inst *inst) {
  const Inst *halves[2] = {inst, inst->dual};
  Lanes rooms[2][3], results[2];
  for (int h = 0; h < 2; h++) {
    const Semantics *semantics = halves[h]->semantics;
    LaneArgs args = {.out = results[h].values, .lanes = (int)w->lanes, .inst = halves[h], .wave = w};
    for (int k = 0; k < 3; k++)
      if (semantics->in[k]) args.in[k] = fetch_lanes(w, halves[h], &halves[h]->src[k], &rooms[h][k]);
    semantics->kernel(&args);
  }
  for (int h = 0; h < 2; h++) commit_lanes(w, halves[h], &halves[h]->dst, results[h].values);
}
