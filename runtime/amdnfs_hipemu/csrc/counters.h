// Counters of a dispatch, and how they are written.
//
// With AMDNFS_EMULATE_COUNTERS=FILE one JSON object a dispatch is appended to FILE, one line each, in launch order:
//   {"dispatch": 1,                  number of the launch in this process, from 1
//    "kernel": "main$async_dispatch_0_...",
//    "target": "gfx942",
//    "code_object": "9f0c...",       FNV-1a-64 of the ELF image, 16 hex digits
//    "grid": [4, 1, 1], "block": [256, 1, 1], "waves": 16, "seconds": 0.002,
//    "instructions": {"valu": 0, "transcendental": 0, "matrix": 0, "salu": 0, "scalar-memory": 0, "vector-memory": 0,
//                     "scratch": 0, "lds": 0, "branch": 0, "barrier": 0, "wait": 0},      wave instructions
//    "vector_lanes": 0,              lanes that EXEC enabled, summed over vector instructions (all but scalar classes)
//    "vector_slots": 0,              lanes of the wave, summed over the same instructions
//    "matrix_flops": 0,              2 * M * N * K * blocks of each matrix and dot instruction of a wave
//    "loaded_bytes": {"1": 0, "2": 0, "4": 0, "8": 0, "12": 0, "16": 0},   by width of a lane's access; global,
//    "stored_bytes": {...},                                                flat and buffer; 0 entries are left out
//    "scalar_loaded_bytes": 0,
//    "atomic_operations": 0,         lanes that did an atomic on memory
//    "loaded_lines": 0,              distinct 128-byte lines that this dispatch loaded, scalar loads included
//    "stored_lines": 0,              distinct 128-byte lines that it stored to
//    "lds_loaded_bytes": 0, "lds_stored_bytes": 0,
//    "lds_bank_conflicts": 0,        extra LDS cycles: for each group of lanes that is served at once, the most
//                                    distinct dwords in one of the banks, less one
//    "scratch_loaded_bytes": 0, "scratch_stored_bytes": 0,
//    "fault": null}                  or {"kind": "memory-range", "message": "..."}
#pragma once
#include "program.h"

#define NUM_WIDTHS 6   // 1, 2, 4, 8, 12, 16 bytes

typedef struct {
  u64 instructions[NUM_CLASSES];
  u64 vector_lanes, vector_slots;
  u64 matrix_flops;
  u64 loaded_bytes[NUM_WIDTHS], stored_bytes[NUM_WIDTHS];
  u64 scalar_loaded_bytes;
  u64 atomic_operations;
  u64 loaded_lines, stored_lines;
  u64 lds_loaded_bytes, lds_stored_bytes;
  u64 lds_bank_conflicts;
  u64 scratch_loaded_bytes, scratch_stored_bytes;
  u64 waves;
} Counters;

struct Dispatch;
// Whether the counters that cost time (lines, bank conflicts, bytes) are kept: AMDNFS_EMULATE_COUNTERS is set.
extern bool counters_are_kept;
bool counters_init(char *message, size_t message_bytes);  // false, with a text: the file cannot be written
void counters_add(Counters *total, const Counters *part);
// Appends the line of a dispatch; does nothing unless the counters are kept.
void counters_write(const struct Dispatch *dispatch, const Counters *counters, f64 seconds);
// Index into loaded_bytes of an access of `bytes` a lane.
int width_index(u32 bytes);
