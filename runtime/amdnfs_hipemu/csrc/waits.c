// Check of waits: a register that a load fills may be used only after the wait for it.
// Source: "Manually Inserted Wait States / Data dependency resolution" of the ISA documents: loads of one kind return in
// order, scalar loads in any order, so that only a wait for zero covers them.
#include <stdlib.h>

#include "checks.h"
#include "faults.h"

#define NUM_REGISTERS (USE_SGPR + 128)

typedef struct {
  u64 sequence;      // of the load among those of its counter; 0: none
  u8 counter;
  bool is_unordered;
} Pending;

struct WaitState {
  u64 issued[NUM_WAIT_COUNTERS];
  u64 done[NUM_WAIT_COUNTERS];     // all up to this one have returned
  u64 drained[NUM_WAIT_COUNTERS];  // issued at the last wait for zero
  Pending pending[NUM_REGISTERS];
};

WaitState *wait_state_create(void) { return calloc(1, sizeof(WaitState)); }
void wait_state_reset(WaitState *state) { memset(state, 0, sizeof *state); }
void wait_state_free(WaitState *state) { free(state); }

static void apply_wait(WaitState *state, int counter, u16 left) {
  u64 done = state->issued[counter] > left ? state->issued[counter] - left : 0;
  if (done > state->done[counter]) state->done[counter] = done;
  if (left == 0) state->drained[counter] = state->issued[counter];
}

static const char *counter_name(const Wave *w, int counter) {
  static const char *const new_names[] = {"loadcnt", "storecnt", "dscnt", "kmcnt", "expcnt"};
  static const char *const old_names[] = {"vmcnt", "vscnt", "lgkmcnt", "lgkmcnt", "expcnt"};
  return (w->kernel->module->chip->family == GFX12 ? new_names : old_names)[counter];
}

// The counter that an instruction raises, or -1. CDNA counts stores with loads; before RDNA4 LDS and scalar memory
// share one counter.
static int counter_of(const Wave *w, const Inst *inst) {
  Family family = w->kernel->module->chip->family;
  bool is_control = inst->inst_class == CLASS_WAIT && inst->format >= FORMAT_FLAT && family != GFX10 && family != GFX11;
  if (is_control) return strstr(inst->name, "wb") && family == GFX12 ? COUNTER_STORE : COUNTER_LOAD;
  switch (inst->inst_class) {
    case CLASS_VECTOR_MEMORY:
    case CLASS_SCRATCH: {
      bool returns = inst->dst.kind == OPERAND_VGPR || inst->to_lds;
      return returns || family == GFX9 ? COUNTER_LOAD : COUNTER_STORE;
    }
    case CLASS_LDS: return COUNTER_DS;
    case CLASS_SCALAR_MEMORY: return family == GFX12 ? COUNTER_KM : COUNTER_DS;
    default: return -1;
  }
}

static bool is_ready(const WaitState *state, const Pending *pending) {
  u64 returned = pending->is_unordered ? state->drained[pending->counter] : state->done[pending->counter];
  return pending->sequence <= returned;
}

static bool check_uses(Wave *w, const Inst *inst, int counter) {
  WaitState *state = w->waits;
  for (u32 k = 0; k < inst->num_uses; k++) {
    RegisterUse use = inst->uses[k];
    for (u32 r = use.first; r < (u32)use.first + use.count && r < NUM_REGISTERS; r++) {
      Pending *pending = &state->pending[r];
      if (pending->sequence == 0) continue;
      if (is_ready(state, pending)) {
        pending->sequence = 0;
        continue;
      }
      // Loads of one counter return in order, so a later one may fill the same register.
      if (use.is_write && counter == pending->counter && !pending->is_unordered) continue;
      raise_fault(w, inst, FAULT_MISSING_WAIT, "%s%u is used, but the load that fills it is not waited for (%s)",
                  r >= USE_SGPR ? "s" : r >= 256 ? "a" : "v", r >= USE_SGPR ? r - USE_SGPR : r & 255,
                  counter_name(w, pending->counter));
      return false;
    }
  }
  return true;
}

bool wait_state_step(Wave *w, const Inst *inst) {
  WaitState *state = w->waits;
  for (int c = 0; c < NUM_WAIT_COUNTERS; c++)
    if (inst->waits[c] != WAIT_NONE) apply_wait(state, c, inst->waits[c]);
  int counter = counter_of(w, inst);
  if (!check_uses(w, inst, counter)) return false;
  if (counter < 0) return true;
  u64 sequence = ++state->issued[counter];
  bool is_unordered = inst->inst_class == CLASS_SCALAR_MEMORY;
  for (u32 k = 0; k < inst->num_uses; k++) {
    RegisterUse use = inst->uses[k];
    for (u32 r = use.first; use.is_write && r < (u32)use.first + use.count && r < NUM_REGISTERS; r++)
      state->pending[r] = (Pending){sequence, (u8)counter, is_unordered};
  }
  return true;
}
