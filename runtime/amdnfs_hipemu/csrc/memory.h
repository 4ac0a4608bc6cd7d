// The device's memory: plain host memory, with a registry of allocations against which every access is checked.
#pragma once
#include "wave.h"

typedef struct OrderTable OrderTable;

// One allocation. `written` and the two epochs exist only in the modes that need them.
typedef struct {
  u64 begin, bytes;
  u8 *written;               // one bit a byte; set once it was written (check `unwritten`)
  u32 *loaded_lines;         // for each 128-byte line the last dispatch that loaded it (counters)
  u32 *stored_lines;         // likewise for stores
  OrderTable *stored_by, *loaded_by;   // which operations (check `order`)
  u32 made_by;               // operation of a stream that allocated it; 0: the host (check `order`)
  u64 number;                // of the allocation, from 1, for messages
  bool is_host;              // hipHostMalloc or registered by the program: counted as written from the start
} Allocation;

int memory_init(void);
// Fresh device memory, filled with AMDNFS_EMULATE_POISON (default 0xff: NaNs). NULL if there is none.
void *memory_allocate(u64 bytes, bool is_host);
void memory_free(void *address);
// Says which operation of a stream made the allocation that begins at `address`.
void memory_made_by(void *address, u32 operation);
void memory_register(void *address, u64 bytes);
void memory_unregister(void *address);
// The allocation that holds all of [address, address + bytes), or NULL. Keeps the last answer for each thread.
const Allocation *memory_find(u64 address, u64 bytes);
// Marks bytes as written by the host: memcpy, memset.
void memory_mark_written(u64 address, u64 bytes);

// Checks and counts a load or store of one wave: `address[lane]` for the lanes in `active`, `bytes` each. False: a
// fault was raised.
bool memory_touch(Wave *w, const Inst *inst, const u64 *address, u64 active, u32 bytes, bool is_store);
// Likewise for one scalar access.
bool memory_touch_scalar(Wave *w, const Inst *inst, u64 address, u32 bytes);
