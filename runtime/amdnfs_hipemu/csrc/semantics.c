// Finds what an instruction does by its mnemonic.
#include <pthread.h>
#include <stdlib.h>

#include "tables.h"

#define NUM_SLOTS 4096

typedef struct {
  const char *name;
  size_t length;
  const Semantics *semantics;
} Slot;

static Slot slots[NUM_SLOTS];
static pthread_once_t is_filled = PTHREAD_ONCE_INIT;

static u32 hash_of(const char *name, size_t length) {
  u32 hash = 2166136261u;
  for (size_t i = 0; i < length; i++) hash = (hash ^ (u8)name[i]) * 16777619u;
  return hash % NUM_SLOTS;
}

static Slot *slot_of(const char *name, size_t length) {
  u32 at = hash_of(name, length);
  while (slots[at].name && (slots[at].length != length || memcmp(slots[at].name, name, length))) at = (at + 1) % NUM_SLOTS;
  return &slots[at];
}

static void fill_slots(void) {
  static const SemanticsTable *const tables[] = {
      &float_table,  &double_table, &integer_table, &short_table,  &convert_table,     &small_float_table, &scaled_table,
      &carry_table,  &packed_table, &dot_table,     &cross_table,  &scalar_table,      &scalar_wide_table,
      &scalar_float_table, &control_table, &lds_table, &matrix_table,
  };
  for (size_t t = 0; t < COUNT_OF(tables); t++) {
    for (size_t i = 0; i < tables[t]->count; i++) {
      const Semantics *semantics = &tables[t]->entries[i];
      for (const char *name = semantics->names; *name;) {
        size_t length = strcspn(name, " ");
        *slot_of(name, length) = (Slot){name, length, semantics};
        name += length + (name[length] == ' ');
      }
    }
  }
}

const Semantics *semantics_of(const char *name) {
  pthread_once(&is_filled, fill_slots);
  if (!strncmp(name, "v_cmp", 5)) return compare_semantics(name);
  return slot_of(name, strlen(name))->semantics;
}
