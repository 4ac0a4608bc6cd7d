// Which checks are on, and races in the LDS.
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

bool lds_shadow_touch(Wave *w, const Inst *inst, u32 address, u32 bytes, const void *value, bool is_store, bool is_atomic) {
  LdsShadow *shadow = w->group->shadow;
  u32 epoch = shadow->base_epoch + w->barriers_passed, me = 1u << (w->index & 31);
  if (epoch > shadow->last_epoch) shadow->last_epoch = epoch;
  for (u32 i = 0; i < bytes && address + i < shadow->bytes; i++) {
    Cell *cell = &shadow->cells[address + i];
    bool is_new = !value || ((const u8 *)value)[i] != w->group->lds[address + i];
    bool after_write = cell->write_epoch == epoch && cell->writer != w->index && !(is_atomic && cell->is_atomic);
    bool after_read = cell->read_epoch == epoch && (cell->readers & ~me);
    bool writes = is_store || is_atomic;
    if ((after_write && (!writes || is_new)) || (writes && after_read && is_new && !is_atomic)) {
      u32 other = after_write ? cell->writer : (u32)__builtin_ctz(cell->readers & ~me);
      raise_fault(w, inst, FAULT_LDS_RACE, "byte %u of the LDS: wave %u %s it and wave %u %s it, with no barrier between",
                  address + i, other, after_write ? "writes" : "reads", w->index, writes ? "writes" : "reads");
      return false;
    }
    if (writes) {
      cell->write_epoch = epoch, cell->writer = w->index, cell->is_atomic = is_atomic;
    } else {
      cell->readers = cell->read_epoch == epoch ? cell->readers | me : me;
      cell->read_epoch = epoch;
    }
  }
  return true;
}
