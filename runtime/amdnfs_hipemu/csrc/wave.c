// The loop that runs a wave, and faults.
#include "wave.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "checks.h"
#include "dispatch.h"
#include "faults.h"

u64 wave_budget = 1000000000;

static const char *const fault_names[NUM_FAULTS] = {
    "none",         "unknown-instruction", "memory-range", "lds-range", "scratch-range", "unwritten", "lds-race",
    "missing-wait", "order", "divergent-barrier",   "budget",       "jump",      "trap",
};

const char *fault_name(FaultKind kind) { return fault_names[kind]; }

void raise_fault(Wave *w, const Inst *inst, FaultKind kind, const char *format, ...) {
  Dispatch *dispatch = (Dispatch *)w->group->dispatch;
  w->status = WAVE_FAULTED;
  if (__atomic_exchange_n(&dispatch->has_fault, 1, __ATOMIC_ACQ_REL)) return;
  Fault *fault = &dispatch->fault;
  fault->kind = kind;
  fault->name = fault_names[kind];
  fault->pc = inst ? inst->pc : w->kernel->entry;
  memcpy(fault->workgroup, w->group->id, sizeof fault->workgroup);
  fault->wave = w->index;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(fault->detail, sizeof fault->detail, format, arguments);
  va_end(arguments);
  snprintf(fault->message, sizeof fault->message, "%s in kernel %s at pc 0x%x (%s), workgroup [%u, %u, %u], wave %u: %s",
           fault->name, w->kernel->name, fault->pc, inst && inst->name ? inst->name : "?", fault->workgroup[0],
           fault->workgroup[1], fault->workgroup[2], fault->wave, fault->detail);
}

static void raise_unknown(Wave *w, const Inst *inst) {
  raise_fault(w, inst, FAULT_UNKNOWN_INSTRUCTION, "the emulator does not know this instruction of %s; its first dword is 0x%08x",
              w->kernel->module->chip->name, inst->word);
}

static bool is_vector(u8 inst_class) {
  return inst_class <= CLASS_MATRIX || inst_class == CLASS_VECTOR_MEMORY || inst_class == CLASS_SCRATCH || inst_class == CLASS_LDS;
}

void wave_run(Wave *w) {
  const Kernel *kernel = w->kernel;
  Counters *counters = w->counters;
  while (w->status == WAVE_RUNS) {
    if (w->pc >= kernel->num_insts) {
      raise_fault(w, NULL, FAULT_JUMP, "execution runs past the end of the kernel");
      return;
    }
    const Inst *inst = &kernel->insts[w->pc++];
    if (!inst->execute) {
      raise_unknown(w, inst);
      return;
    }
    counters->instructions[inst->inst_class]++;
    if (is_vector(inst->inst_class)) {
      counters->vector_lanes += (u64)__builtin_popcountll(exec_of(w));
      counters->vector_slots += w->lanes;
    }
    if (w->waits && !wait_state_step(w, inst)) return;
    inst->execute(w, inst);
    if (++w->executed >= wave_budget) {
      raise_fault(w, inst, FAULT_BUDGET, "%llu instructions were not enough; AMDNFS_EMULATE_BUDGET sets the limit",
                  (unsigned long long)wave_budget);
      return;
    }
  }
}
