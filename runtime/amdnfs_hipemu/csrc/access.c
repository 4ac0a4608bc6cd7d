// Moving bytes between registers and memory.
#include "access.h"

#include "checks.h"
#include "faults.h"
#include "half.h"
#include "lanes.h"

#define MAX_DWORDS 4

static u32 small_value(const Inst *inst, u32 raw) {
  int bits = inst->size * 8;
  return inst->is_signed ? (u32)sign_extend(raw, bits) : field(raw, 0, bits);
}

void write_loaded(Wave *w, const Inst *inst, u32 (*values)[MAX_LANES], u32 registers, u64 mask) {
  exec_lanes(w);
  if (inst->size < 4) {
    const u32 *old = w->v[inst->dst.reg];
    for (int l = 0; l < MAX_LANES; l++) {
      u32 value = small_value(inst, values[0][l]);
      if (inst->is_d16_hi) value = (old[l] & 0xffff) | value << 16;
      else if (inst->is_d16) value = (old[l] & 0xffff0000) | (value & 0xffff);
      values[0][l] = value;
    }
  }
  for (u32 r = 0; r < registers; r++) write_register(w, inst->dst.reg + r, values[r], mask);
}

// Loads to the LDS: lane l's bytes go to M0 + offset + l * size. Source: CDNA3 ISA, "Memory Buffer Load to LDS".
static void load_to_lds(Wave *w, const Inst *inst, u32 (*values)[MAX_LANES], u64 active) {
  u32 base = (w->s[SGPR_M0] & 0xffff) + (u32)inst->offset, bytes = inst->size < 4 ? 4 : inst->size;
  for (u32 l = 0; l < w->lanes; l++) {
    if (!(active >> l & 1)) continue;
    u32 words[MAX_DWORDS], at = base + l * bytes;
    for (u32 r = 0; r < bytes / 4; r++) words[r] = inst->size < 4 ? small_value(inst, values[0][l]) : values[r][l];
    if (!lds_check(w, inst, at, bytes, l)) return;
    if (w->group->shadow && !lds_shadow_touch(w, inst, at, bytes, words, true, false)) return;
    memcpy(w->group->lds + at, words, bytes);
  }
}

#define GATHER(BYTES)                                                    \
  for (u32 l = 0; l < w->lanes; l++) {                                   \
    if (!(active >> l & 1)) continue;                                    \
    u32 words[(BYTES + 3) / 4] = {0};                                    \
    memcpy(words, (const void *)address[l], BYTES);                      \
    for (u32 r = 0; r < (BYTES + 3) / 4; r++) values[r][l] = words[r];   \
  }

void load_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active) {
  VECTOR_ALIGNED u32 values[MAX_DWORDS][MAX_LANES];
  switch (inst->size) {
    case 1: GATHER(1) break;
    case 2: GATHER(2) break;
    case 4: GATHER(4) break;
    case 8: GATHER(8) break;
    case 12: GATHER(12) break;
    default: GATHER(16) break;
  }
  if (inst->to_lds) load_to_lds(w, inst, values, active);
  else write_loaded(w, inst, values, inst->size < 4 ? 1 : inst->size / 4, active);
}

#define SCATTER(BYTES)                                                                 \
  for (u32 l = 0; l < w->lanes; l++) {                                                 \
    if (!(active >> l & 1)) continue;                                                  \
    u32 words[(BYTES + 3) / 4];                                                        \
    for (u32 r = 0; r < (BYTES + 3) / 4; r++) words[r] = data[r * MAX_LANES + l];      \
    if (BYTES < 4 && inst->is_d16_hi) words[0] >>= 16;                                 \
    memcpy((void *)address[l], words, BYTES);                                          \
  }

void store_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active) {
  const u32 *data = w->v[inst->src[1].reg];
  switch (inst->size) {
    case 1: SCATTER(1) break;
    case 2: SCATTER(2) break;
    case 4: SCATTER(4) break;
    case 8: SCATTER(8) break;
    case 12: SCATTER(12) break;
    default: SCATTER(16) break;
  }
}

void atomic_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active) {
  u32 (*data)[MAX_LANES] = &w->v[inst->src[1].reg];
  bool is_wide = inst->size == 8;
  VECTOR_ALIGNED u32 low[MAX_LANES], high[MAX_LANES];
  for (u32 l = 0; l < w->lanes; l++) {
    if (!(active >> l & 1)) continue;
    u64 value = is_wide ? data[0][l] | (u64)data[1][l] << 32 : data[0][l];
    u64 compare = 0;
    if (inst->imm == ATOMIC_CMPSWAP) compare = is_wide ? data[2][l] | (u64)data[3][l] << 32 : data[1][l];
    u64 old = atomic_apply((AtomicOp)inst->imm, (void *)address[l], inst->size, value, compare);
    low[l] = (u32)old, high[l] = (u32)(old >> 32);
  }
  w->counters->atomic_operations += (u64)__builtin_popcountll(active);
  if (!inst->returns) return;
  exec_lanes(w);
  write_register(w, inst->dst.reg, low, active);
  if (is_wide) write_register(w, inst->dst.reg + 1, high, active);
}

static u32 pk_add(AtomicOp op, u32 a, u32 b) {
  u32 result = 0;
  for (int h = 0; h < 2; h++) {
    u16 x = (u16)(a >> 16 * h), y = (u16)(b >> 16 * h);
    u32 sum = op == ATOMIC_PK_ADD_F16 ? float_to_half(half_to_float(x) + half_to_float(y), ROUND_NEAREST)
                                      : float_to_bf16(bf16_to_float(x) + bf16_to_float(y));
    result |= sum << 16 * h;
  }
  return result;
}

static f64 float_op(AtomicOp op, f64 a, f64 b) {
  if (op == ATOMIC_ADD_F) return a + b;
  if (a != a) return b;
  if (b != b) return a;
  return op == ATOMIC_MIN_F ? (a < b ? a : b) : (a > b ? a : b);
}

// The new value. Source: "DS and memory atomics": INC wraps to 0 above the data, DEC to the data below 0.
static u64 next_value(AtomicOp op, u32 bytes, u64 old, u64 data, u64 compare) {
  int shift = bytes == 8 ? 0 : 32;
  i64 a = (i64)(old << shift) >> shift, b = (i64)(data << shift) >> shift;
  switch (op) {
    case ATOMIC_ADD: return old + data;
    case ATOMIC_SUB: return old - data;
    case ATOMIC_RSUB: return data - old;
    case ATOMIC_INC: return old >= data ? 0 : old + 1;
    case ATOMIC_DEC: return old == 0 || old > data ? data : old - 1;
    case ATOMIC_MIN_I: return a < b ? old : data;
    case ATOMIC_MAX_I: return a > b ? old : data;
    case ATOMIC_MIN_U: return old < data ? old : data;
    case ATOMIC_MAX_U: return old > data ? old : data;
    case ATOMIC_AND: return old & data;
    case ATOMIC_OR: return old | data;
    case ATOMIC_XOR: return old ^ data;
    case ATOMIC_CMPSWAP: return old == compare ? data : old;
    case ATOMIC_COND_SUB: return old >= data ? old - data : old;
    case ATOMIC_SUB_CLAMP: return old >= data ? old - data : 0;
    case ATOMIC_MSKOR: return (old & ~data) | compare;
    case ATOMIC_PK_ADD_F16:
    case ATOMIC_PK_ADD_BF16: return pk_add(op, (u32)old, (u32)data);
    case ATOMIC_ADD_F:
    case ATOMIC_MIN_F:
    case ATOMIC_MAX_F:
      if (bytes == 8) return bits_of_f64(float_op(op, f64_of(old), f64_of(data)));
      if (op == ATOMIC_ADD_F) return bits_of(f32_of((u32)old) + f32_of((u32)data));
      return bits_of((f32)float_op(op, (f64)f32_of((u32)old), (f64)f32_of((u32)data)));
    default: return data;
  }
}

u64 atomic_apply(AtomicOp op, void *address, u32 bytes, u64 data, u64 compare) {
  if (bytes == 8) {
    u64 old = __atomic_load_n((u64 *)address, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n((u64 *)address, &old, next_value(op, 8, old, data, compare), true,
                                        __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
    }
    return old;
  }
  u32 old = __atomic_load_n((u32 *)address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n((u32 *)address, &old, (u32)next_value(op, 4, old, data, compare), true,
                                      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) {
  }
  return old;
}
