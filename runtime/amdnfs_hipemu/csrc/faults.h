// What stops a dispatch: one record, and its text.
#pragma once
#include "base.h"

typedef enum {
  FAULT_NONE,
  FAULT_UNKNOWN_INSTRUCTION,   // not in the tables, or without semantics here
  FAULT_MEMORY_RANGE,          // access outside every allocation
  FAULT_LDS_RANGE,
  FAULT_SCRATCH_RANGE,
  FAULT_UNWRITTEN,             // check `unwritten`
  FAULT_LDS_RACE,              // check `races`
  FAULT_MISSING_WAIT,          // check `waits`
  FAULT_ORDER,                 // check `order`
  FAULT_DIVERGENT_BARRIER,     // check `barriers`
  FAULT_BUDGET,                // AMDNFS_EMULATE_BUDGET wave instructions were not enough
  FAULT_JUMP,                  // out of the kernel's code
  FAULT_TRAP,                  // s_trap, or an assertion of the program
  NUM_FAULTS
} FaultKind;

typedef struct {
  u32 kind;                // FaultKind
  const char *name;        // the kind as the JSON lines spell it, e.g. "memory-range"
  u32 pc;                  // byte offset in the code object's image
  u32 workgroup[3];
  u32 wave;
  char detail[448];        // what happened, with the figures
  char message[896];       // kind, kernel, mnemonic, pc, workgroup, wave and detail in one line
} Fault;

struct Wave;
struct Inst;
// Records the dispatch's first fault and ends the wave. `format` is the detail.
void raise_fault(struct Wave *wave, const struct Inst *inst, FaultKind kind, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
const char *fault_name(FaultKind kind);
