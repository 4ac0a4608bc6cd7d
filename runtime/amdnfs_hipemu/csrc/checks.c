// Which checks are on; races in the LDS, reads of what nobody wrote there, and writes that nobody waited for.
#include "checks.h"

#include <stdio.h>
#include <stdlib.h>

#include "faults.h"

Checks checks;

bool checks_init(char *message, size_t message_bytes) {
  const char *text = getenv("AMDNFS_EMULATE_CHECKS");
  checks = (Checks){0};
  while (text && *text) {
    size_t length = strcspn(text, ",");
    bool is_all = length == 3 && !strncmp(text, "all", 3), is_known = is_all;
    if (is_all || (length == 9 && !strncmp(text, "unwritten", 9))) checks.unwritten = is_known = true;
    if (is_all || (length == 5 && !strncmp(text, "races", 5))) checks.races = is_known = true;
    if (is_all || (length == 5 && !strncmp(text, "waits", 5))) checks.waits = is_known = true;
    if (is_all || (length == 8 && !strncmp(text, "barriers", 8))) checks.barriers = is_known = true;
    if (is_all || (length == 5 && !strncmp(text, "order", 5))) checks.order = is_known = true;
    if (!is_known) {
      snprintf(message, message_bytes, "AMDNFS_EMULATE_CHECKS: unknown check '%.*s'; known are all, barriers, order, races, unwritten, waits",
               (int)length, text);
      return false;
    }
    text += length + (text[length] == ',');
  }
  return true;
}

// Of one byte of the LDS. Epochs count barriers and never repeat between workgroups, so that a reset is one addition.
typedef struct {
  u32 write_epoch, read_epoch;
  u32 readers;        // waves that read it in read_epoch
  u32 write_pc;       // of the instruction that wrote it
  u32 sequence;       // of that write among those of its counter
  u8 counter;         // WaitCounter
  u8 writer;          // wave that wrote it in write_epoch
  bool is_atomic;     // that write was an atomic
} Cell;

struct LdsShadow {
  u32 bytes;
  u32 base_epoch;     // of the workgroup
  u32 last_epoch;     // highest used so far
  Cell cells[];
};

LdsShadow *lds_shadow_create(u32 bytes) {
  LdsShadow *shadow = calloc(1, sizeof(LdsShadow) + (size_t)bytes * sizeof(Cell));
  if (shadow) shadow->bytes = bytes;
  return shadow;
}

void lds_shadow_reset(LdsShadow *shadow) { shadow->base_epoch = shadow->last_epoch + 1; }
void lds_shadow_free(LdsShadow *shadow) { free(shadow); }

static bool check_race(Wave *w, const Inst *inst, const Cell *cell, u32 address, u32 epoch, bool writes, bool is_new, bool is_atomic) {
  u32 others = cell->readers & ~(1u << (w->index & 31));
  bool after_write = cell->write_epoch == epoch && cell->writer != w->index && !(is_atomic && cell->is_atomic);
  bool after_read = cell->read_epoch == epoch && others;
  if (!(after_write && (!writes || is_new)) && !(writes && after_read && is_new && !is_atomic)) return true;
  raise_fault(w, inst, FAULT_LDS_RACE, "byte %u of the LDS: wave %u %s it and wave %u %s it, with no barrier between", address,
              after_write ? cell->writer : (u32)__builtin_ctz(others), after_write ? "writes" : "reads", w->index,
              writes ? "writes" : "reads");
  return false;
}

// LDS operations of one wave come in order; what a load from memory leaves in the LDS must be waited for by its own
// wave, too.
static bool check_wait(Wave *w, const Inst *inst, const Cell *cell, u32 address, u32 epoch) {
  bool is_own = cell->writer == w->index;
  if (cell->write_epoch < w->group->shadow->base_epoch || (is_own && cell->counter == COUNTER_DS)) return true;
  if (!is_own && cell->write_epoch == epoch) return true;  // a race
  const Wave *writer = w->group->waves[cell->writer];
  if (wait_state_is_done(writer->waits, cell->counter, cell->sequence, !is_own)) return true;
  raise_fault(w, inst, FAULT_MISSING_WAIT, "byte %u of the LDS is read, and wave %u, which wrote it at pc 0x%x, did not wait for that%s (%s)",
              address, cell->writer, cell->write_pc, is_own ? "" : " before the barrier", wait_counter_name(w, cell->counter));
  return false;
}

static bool check_written(Wave *w, const Inst *inst, const Cell *cell, u32 address) {
  if (cell->write_epoch >= w->group->shadow->base_epoch) return true;
  raise_fault(w, inst, FAULT_UNWRITTEN, "byte %u of the LDS is read, and no wave of the workgroup has written it", address);
  return false;
}

bool lds_shadow_touch(Wave *w, const Inst *inst, u32 address, u32 bytes, const void *value, bool is_store, bool is_atomic) {
  LdsShadow *shadow = w->group->shadow;
  u32 epoch = shadow->base_epoch + w->barriers_passed, me = 1u << (w->index & 31);
  if (epoch > shadow->last_epoch) shadow->last_epoch = epoch;
  bool reads = !is_store, writes = is_store || is_atomic;
  WaitCounter counter = inst->to_lds ? COUNTER_LOAD : COUNTER_DS;
  for (u32 i = 0; i < bytes && address + i < shadow->bytes; i++) {
    Cell *cell = &shadow->cells[address + i];
    bool is_new = !value || ((const u8 *)value)[i] != w->group->lds[address + i];
    if (checks.races && !check_race(w, inst, cell, address + i, epoch, writes, is_new, is_atomic)) return false;
    if (checks.waits && reads && !check_wait(w, inst, cell, address + i, epoch)) return false;
    if (checks.unwritten && reads && !check_written(w, inst, cell, address + i)) return false;
    if (writes) {
      cell->write_epoch = epoch, cell->writer = w->index, cell->is_atomic = is_atomic, cell->write_pc = inst->pc;
      if (checks.waits) cell->counter = counter, cell->sequence = wait_state_issued(w->waits, counter);
    } else {
      cell->readers = cell->read_epoch == epoch ? cell->readers | me : me;
      cell->read_epoch = epoch;
    }
  }
  return true;
}
