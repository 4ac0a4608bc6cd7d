// Counters: sums, bank conflicts, and the JSON lines.
#include "counters.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "dispatch.h"
#include "lds_banks.h"

bool counters_are_kept;
static FILE *output;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const u32 widths[NUM_WIDTHS] = {1, 2, 4, 8, 12, 16};
static const char *const class_names[NUM_CLASSES] = {
    "valu", "transcendental", "matrix", "salu", "scalar-memory", "vector-memory", "scratch", "lds", "branch", "barrier", "wait",
};

bool counters_init(char *message, size_t message_bytes) {
  const char *path = getenv("AMDNFS_EMULATE_COUNTERS");
  if (!path || !*path || output) return true;
  output = fopen(path, "a");
  if (!output) snprintf(message, message_bytes, "AMDNFS_EMULATE_COUNTERS=%s cannot be written", path);
  counters_are_kept = output != NULL;
  return output != NULL;
}

int width_index(u32 bytes) {
  for (int i = 0; i < NUM_WIDTHS - 1; i++)
    if (bytes <= widths[i]) return i;
  return NUM_WIDTHS - 1;
}

void counters_add(Counters *total, const Counters *part) {
  u64 *to = (u64 *)total;
  const u64 *from = (const u64 *)part;
  for (size_t i = 0; i < sizeof(Counters) / sizeof(u64); i++) to[i] += from[i];
}

// 32 banks of a dword. A group is as many lanes as 32 dwords serve; lanes that read the same dword share it.
u64 bank_conflicts(const Wave *w, const u32 *address, u64 active, u32 bytes) {
  u32 dwords = bytes < 4 ? 1 : bytes / 4, group = 32 / dwords;
  u64 extra = 0;
  for (u32 first = 0; first < w->lanes; first += group) {
    u32 banks[32][32], used[32] = {0}, most = 0;
    for (u32 l = first; l < first + group && l < w->lanes; l++) {
      if (!(active >> l & 1)) continue;
      for (u32 d = 0; d < dwords; d++) {
        u32 word = address[l] / 4 + d, bank = word % 32, k = 0;
        while (k < used[bank] && banks[bank][k] != word) k++;
        if (k == used[bank] && k < 32) banks[bank][used[bank]++] = word;
        most = used[bank] > most ? used[bank] : most;
      }
    }
    extra += most > 1 ? most - 1 : 0;
  }
  return extra;
}

static void write_text(const char *text) {
  for (const char *c = text; *c; c++) {
    if (*c == '"' || *c == '\\') fputc('\\', output);
    if ((u8)*c >= 32) fputc(*c, output);
  }
}

static void write_widths(const char *name, const u64 *bytes) {
  fprintf(output, "\"%s\": {", name);
  const char *comma = "";
  for (int i = 0; i < NUM_WIDTHS; i++) {
    if (!bytes[i]) continue;
    fprintf(output, "%s\"%u\": %llu", comma, widths[i], (unsigned long long)bytes[i]);
    comma = ", ";
  }
  fprintf(output, "}, ");
}

static void write_number(const char *name, u64 value) { fprintf(output, "\"%s\": %llu, ", name, (unsigned long long)value); }

void counters_write(const Dispatch *dispatch, const Counters *c, f64 seconds) {
  if (!counters_are_kept) return;
  const Kernel *kernel = dispatch->kernel;
  pthread_mutex_lock(&lock);
  fprintf(output, "{\"dispatch\": %llu, \"kernel\": \"", (unsigned long long)dispatch->number);
  write_text(kernel->name);
  fprintf(output, "\", \"target\": \"%s\", \"code_object\": \"%016llx\", ", kernel->module->chip->name,
          (unsigned long long)kernel->module->digest);
  fprintf(output, "\"grid\": [%u, %u, %u], \"block\": [%u, %u, %u], ", dispatch->grid[0], dispatch->grid[1],
          dispatch->grid[2], dispatch->block[0], dispatch->block[1], dispatch->block[2]);
  write_number("waves", c->waves);
  fprintf(output, "\"seconds\": %.6f, \"instructions\": {", seconds);
  for (int i = 0; i < NUM_CLASSES; i++)
    fprintf(output, "%s\"%s\": %llu", i ? ", " : "", class_names[i], (unsigned long long)c->instructions[i]);
  fprintf(output, "}, ");
  write_number("vector_lanes", c->vector_lanes);
  write_number("vector_slots", c->vector_slots);
  write_number("matrix_flops", c->matrix_flops);
  write_widths("loaded_bytes", c->loaded_bytes);
  write_widths("stored_bytes", c->stored_bytes);
  write_number("scalar_loaded_bytes", c->scalar_loaded_bytes);
  write_number("atomic_operations", c->atomic_operations);
  write_number("loaded_lines", c->loaded_lines);
  write_number("stored_lines", c->stored_lines);
  write_number("lds_loaded_bytes", c->lds_loaded_bytes);
  write_number("lds_stored_bytes", c->lds_stored_bytes);
  write_number("lds_bank_conflicts", c->lds_bank_conflicts);
  write_number("scratch_loaded_bytes", c->scratch_loaded_bytes);
  write_number("scratch_stored_bytes", c->scratch_stored_bytes);
  if (dispatch->has_fault) {
    fprintf(output, "\"fault\": {\"kind\": \"%s\", \"message\": \"", dispatch->fault.name);
    write_text(dispatch->fault.message);
    fprintf(output, "\"}}\n");
  } else {
    fprintf(output, "\"fault\": null}\n");
  }
  fflush(output);
  pthread_mutex_unlock(&lock);
}
