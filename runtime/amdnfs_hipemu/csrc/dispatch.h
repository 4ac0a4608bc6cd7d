// A launch: what all workgroups of a grid share, and the thread pool that runs them.
#pragma once
#include "counters.h"
#include "faults.h"
#include "program.h"

struct Dispatch {
  const Kernel *kernel;
  u32 grid[3];               // workgroups
  u32 block[3];              // lanes of a workgroup
  u32 lds_bytes;             // static and dynamic
  u8 *kernarg;               // 64-byte aligned
  u32 kernarg_bytes;
  const struct Operation *operation;   // for the check `order`
  u64 number;                // from 1; also the epoch of the line counters
  Fault fault;               // of the first workgroup that failed
  int has_fault;             // set atomically; other workgroups stop then
};
typedef struct Dispatch Dispatch;

// Runs a grid to its end on the pool's threads. Returns 0, or -1 with `dispatch->fault` set.
int dispatch_run(Dispatch *dispatch, Counters *counters);

// Threads of the pool: AMDNFS_EMULATE_THREADS, or the processors that this process may use.
u32 pool_threads(void);
// Calls work(argument, thread) once on each of the pool's threads and returns when all have returned.
void pool_run(void (*work)(void *argument, u32 thread), void *argument);
