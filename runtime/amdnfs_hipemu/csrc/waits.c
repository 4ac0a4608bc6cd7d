// Check of waits: what a load or a store leaves in a register or in the LDS may be used only after the wait for it.
// Source: "Manually Inserted Wait States / Data dependency resolution" of the ISA documents: loads of one kind return in
// order; scalar loads in any order, and so do flat loads of CDNA ("the only sensible wait is for zero"). Of those that
// return in order, a wait that leaves n outstanding covers all but the last n, whatever else shares the counter.
#include <stdlib.h>

#include "checks.h"
#include "faults.h"

#define NUM_REGISTERS (USE_SGPR + 128)

// A place among the operations of a counter.
typedef struct {
  u64 sequence;      // 0: none
  u8 counter;
  bool is_unordered;
} Ticket;

// What fills a register: flat loads have a ticket of the loads and one of the LDS.
typedef struct {
  Ticket tickets[2];
} Pending;

typedef struct {
  u64 issued, done;            // those that return in order: all up to `done` have returned
  u64 done_at_barrier;         // `done` when the wave came to its last barrier
  u64 unordered, drained;      // those that return in any order: `drained` were issued at the last wait for zero
} Counter;

struct WaitState {
  Counter counters[NUM_WAIT_COUNTERS];
  Pending pending[NUM_REGISTERS];
};

WaitState *wait_state_create(void) { return calloc(1, sizeof(WaitState)); }
void wait_state_reset(WaitState *state) { memset(state, 0, sizeof *state); }
void wait_state_free(WaitState *state) { free(state); }

static void apply_wait(Counter *counter, u16 left) {
  u64 done = counter->issued > left ? counter->issued - left : 0;
  if (done > counter->done) counter->done = done;
  if (left == 0) counter->drained = counter->unordered;
}

const char *wait_counter_name(const Wave *w, WaitCounter counter) {
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

static bool is_flat(const Inst *inst) { return inst->inst_class == CLASS_VECTOR_MEMORY && inst->format == FORMAT_FLAT; }

static Ticket take_ticket(WaitState *state, int counter, bool is_unordered) {
  Counter *of = &state->counters[counter];
  return (Ticket){is_unordered ? ++of->unordered : ++of->issued, (u8)counter, is_unordered};
}

static bool has_returned(const WaitState *state, const Ticket *ticket) {
  const Counter *counter = &state->counters[ticket->counter];
  return ticket->sequence <= (ticket->is_unordered ? counter->drained : counter->done);
}

// The ticket of a register that has not returned, or NULL.
static const Ticket *find_outstanding(const WaitState *state, const Pending *pending) {
  for (int t = 0; t < 2; t++)
    if (pending->tickets[t].sequence && !has_returned(state, &pending->tickets[t])) return &pending->tickets[t];
  return NULL;
}

static bool check_uses(Wave *w, const Inst *inst, int counter) {
  WaitState *state = w->waits;
  for (u32 k = 0; k < inst->num_uses; k++) {
    RegisterUse use = inst->uses[k];
    for (u32 r = use.first; r < (u32)use.first + use.count && r < NUM_REGISTERS; r++) {
      Pending *pending = &state->pending[r];
      if (pending->tickets[0].sequence == 0) continue;
      const Ticket *ticket = find_outstanding(state, pending);
      if (!ticket) {
        pending->tickets[0].sequence = 0;
        continue;
      }
      // Loads of one counter return in order, so a later one may fill the same register.
      if (use.is_write && counter == ticket->counter && !ticket->is_unordered && !is_flat(inst)) continue;
      raise_fault(w, inst, FAULT_MISSING_WAIT, "%s%u is used, but the load that fills it is not waited for (%s)",
                  r >= USE_SGPR ? "s" : r >= 256 ? "a" : "v", r >= USE_SGPR ? r - USE_SGPR : r & 255,
                  wait_counter_name(w, ticket->counter));
      return false;
    }
  }
  return true;
}

bool wait_state_step(Wave *w, const Inst *inst) {
  WaitState *state = w->waits;
  for (int c = 0; c < NUM_WAIT_COUNTERS; c++)
    if (inst->waits[c] != WAIT_NONE) apply_wait(&state->counters[c], inst->waits[c]);
  int counter = counter_of(w, inst);
  if (!check_uses(w, inst, counter)) return false;
  if (counter < 0) return true;
  bool is_unordered = inst->inst_class == CLASS_SCALAR_MEMORY || (is_flat(inst) && w->kernel->module->chip->family == GFX9);
  Pending pending = {{take_ticket(state, counter, is_unordered)}};
  if (is_flat(inst)) pending.tickets[1] = take_ticket(state, COUNTER_DS, is_unordered);
  for (u32 k = 0; k < inst->num_uses; k++) {
    RegisterUse use = inst->uses[k];
    for (u32 r = use.first; use.is_write && r < (u32)use.first + use.count && r < NUM_REGISTERS; r++)
      state->pending[r] = pending;
  }
  return true;
}

void wait_state_barrier(WaitState *state) {
  for (int c = 0; c < NUM_WAIT_COUNTERS; c++) state->counters[c].done_at_barrier = state->counters[c].done;
}

u32 wait_state_issued(const WaitState *state, WaitCounter counter) { return (u32)state->counters[counter].issued; }

bool wait_state_is_done(const WaitState *state, WaitCounter counter, u32 sequence, bool at_barrier) {
  const Counter *of = &state->counters[counter];
  return sequence <= (at_barrier ? of->done_at_barrier : of->done);
}
