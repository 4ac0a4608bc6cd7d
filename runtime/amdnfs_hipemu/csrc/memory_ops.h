// Executors of memory instructions, and the atomic operations that they share.
#pragma once
#include "program.h"

typedef enum {
  ATOMIC_NONE,
  ATOMIC_ADD,
  ATOMIC_SUB,
  ATOMIC_RSUB,
  ATOMIC_INC,
  ATOMIC_DEC,
  ATOMIC_MIN_I,
  ATOMIC_MAX_I,
  ATOMIC_MIN_U,
  ATOMIC_MAX_U,
  ATOMIC_AND,
  ATOMIC_OR,
  ATOMIC_XOR,
  ATOMIC_SWAP,
  ATOMIC_CMPSWAP,
  ATOMIC_ADD_F,
  ATOMIC_MIN_F,
  ATOMIC_MAX_F,
  ATOMIC_PK_ADD_F16,
  ATOMIC_PK_ADD_BF16,
  ATOMIC_COND_SUB,
  ATOMIC_SUB_CLAMP,
  ATOMIC_MSKOR,
} AtomicOp;

// Applies an atomic to 4 or 8 bytes of memory that other threads may use; returns the old value.
u64 atomic_apply(AtomicOp op, void *address, u32 bytes, u64 data, u64 compare);

Execute run_global, run_flat, run_scratch, run_buffer, run_global_atomic, run_buffer_atomic, run_scalar_load,
    run_scalar_buffer_load, run_cache_control;
Execute run_lds, run_lds2, run_lds_atomic, run_lds_addtid;
