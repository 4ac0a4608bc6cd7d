// The registry of allocations, and the checks and counts of accesses.
#include "memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "checks.h"
#include "dispatch.h"
#include "faults.h"
#include "order.h"

#define LINE_BYTES 128
#define ALIGNMENT 256

static Allocation *allocations;   // sorted by begin
static size_t num_allocations, capacity;
static u64 num_made;
static u64 generation = 1;        // changes with the table: invalidates what threads remember
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;

static __thread Allocation remembered;
static __thread u64 remembered_generation;

static u8 poison(void) {
  const char *text = getenv("AMDNFS_EMULATE_POISON");
  return text ? (u8)strtoul(text, NULL, 0) : 0xff;
}

// Index of the first allocation that begins after `address`.
static size_t upper_bound(u64 address) {
  size_t low = 0, high = num_allocations;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (allocations[middle].begin <= address) low = middle + 1;
    else high = middle;
  }
  return low;
}

static void *zeroed(u64 bytes) {
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

static u64 num_lines(const Allocation *a) { return a->bytes / LINE_BYTES + 2; }

static void insert(u64 begin, u64 bytes, bool is_host) {
  Allocation made = {.begin = begin, .bytes = bytes, .is_host = is_host};
  if (checks.unwritten && !is_host) made.written = zeroed(bytes / 8 + 8);
  if (counters_are_kept) {
    made.loaded_lines = zeroed(num_lines(&made) * sizeof(u32));
    made.stored_lines = zeroed(num_lines(&made) * sizeof(u32));
  }
  if (checks.order) {
    made.stored_by = order_table_create(bytes);
    made.loaded_by = order_table_create(bytes);
  }
  pthread_rwlock_wrlock(&lock);
  made.number = ++num_made;
  if (num_allocations == capacity) {
    capacity = capacity * 2 + 64;
    allocations = realloc(allocations, capacity * sizeof(Allocation));
    if (!allocations) abort();
  }
  size_t at = upper_bound(begin);
  memmove(&allocations[at + 1], &allocations[at], (num_allocations - at) * sizeof(Allocation));
  allocations[at] = made;
  num_allocations++;
  __atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
  pthread_rwlock_unlock(&lock);
}

static bool erase(u64 begin) {
  pthread_rwlock_wrlock(&lock);
  size_t at = upper_bound(begin);
  bool is_found = at > 0 && allocations[at - 1].begin == begin;
  if (is_found) {
    Allocation *gone = &allocations[at - 1];
    if (gone->written) munmap(gone->written, gone->bytes / 8 + 8);
    if (gone->loaded_lines) munmap(gone->loaded_lines, num_lines(gone) * sizeof(u32));
    if (gone->stored_lines) munmap(gone->stored_lines, num_lines(gone) * sizeof(u32));
    if (gone->stored_by) order_table_free(gone->stored_by, gone->bytes);
    if (gone->loaded_by) order_table_free(gone->loaded_by, gone->bytes);
    memmove(gone, gone + 1, (num_allocations - at) * sizeof(Allocation));
    num_allocations--;
    __atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
  }
  pthread_rwlock_unlock(&lock);
  return is_found;
}

void *memory_allocate(u64 bytes, bool is_host) {
  void *memory = NULL;
  if (posix_memalign(&memory, ALIGNMENT, bytes ? bytes : 1)) return NULL;
  memset(memory, is_host ? 0 : poison(), bytes);
  insert((u64)memory, bytes, is_host);
  return memory;
}

void memory_free(void *address) {
  if (address && erase((u64)address)) free(address);
}

void memory_made_by(void *address, u32 operation) {
  pthread_rwlock_wrlock(&lock);
  size_t at = upper_bound((u64)address);
  if (at > 0 && allocations[at - 1].begin == (u64)address) allocations[at - 1].made_by = operation;
  __atomic_add_fetch(&generation, 1, __ATOMIC_ACQ_REL);
  pthread_rwlock_unlock(&lock);
}

void memory_register(void *address, u64 bytes) { insert((u64)address, bytes, true); }
void memory_unregister(void *address) { erase((u64)address); }

const Allocation *memory_find(u64 address, u64 bytes) {
  u64 now = __atomic_load_n(&generation, __ATOMIC_ACQUIRE);
  if (remembered_generation == now && address >= remembered.begin && address - remembered.begin + bytes <= remembered.bytes)
    return &remembered;
  pthread_rwlock_rdlock(&lock);
  size_t at = upper_bound(address);
  bool is_inside = at > 0 && address - allocations[at - 1].begin + bytes <= allocations[at - 1].bytes;
  if (is_inside) {
    remembered = allocations[at - 1];
    remembered_generation = generation;
  }
  pthread_rwlock_unlock(&lock);
  return is_inside ? &remembered : NULL;
}

void memory_mark_written(u64 address, u64 bytes) {
  const Allocation *a = checks.unwritten && bytes ? memory_find(address, bytes) : NULL;
  if (!a || !a->written) return;
  u64 first = address - a->begin;
  for (u64 at = first; at < first + bytes;) {
    if (at % 8 == 0 && first + bytes - at >= 8) {
      u64 whole = (first + bytes - at) / 8;
      memset(a->written + at / 8, 0xff, whole);
      at += whole * 8;
    } else {
      __atomic_fetch_or(&a->written[at / 8], (u8)(1 << at % 8), __ATOMIC_RELAXED);
      at++;
    }
  }
}

static bool is_written(const Allocation *a, u64 address, u32 bytes) {
  if (!a->written) return true;
  for (u64 at = address - a->begin; bytes > 0; at++, bytes--)
    if (!(__atomic_load_n(&a->written[at / 8], __ATOMIC_RELAXED) >> at % 8 & 1)) return false;
  return true;
}

static u64 count_lines(u32 *lines, const Allocation *a, u64 address, u32 bytes, u32 epoch) {
  u64 added = 0, base = a->begin / LINE_BYTES;
  for (u64 line = address / LINE_BYTES - base; line <= (address + bytes - 1) / LINE_BYTES - base; line++) {
    if (__atomic_load_n(&lines[line], __ATOMIC_RELAXED) == epoch) continue;
    added += __atomic_exchange_n(&lines[line], epoch, __ATOMIC_RELAXED) != epoch;
  }
  return added;
}

static bool is_kernarg(const Dispatch *dispatch, u64 address, u64 bytes) {
  return address - (u64)dispatch->kernarg + bytes <= dispatch->kernarg_bytes && address >= (u64)dispatch->kernarg;
}

static bool is_image(const Wave *w, u64 address, u64 bytes) {
  const Module *module = w->kernel->module;
  return address >= (u64)module->image && address - (u64)module->image + bytes <= module->image_bytes;
}

static bool touch_one(Wave *w, const Inst *inst, u64 address, u32 bytes, u32 lane, bool is_store) {
  const Allocation *a = memory_find(address, bytes);
  if (!a) {
    if (is_kernarg(w->group->dispatch, address, bytes) || is_image(w, address, bytes)) return true;
    raise_fault(w, inst, FAULT_MEMORY_RANGE, "%s of %u bytes at 0x%llx (lane %u) lies outside every allocation",
                is_store ? "store" : "load", bytes, (unsigned long long)address, lane);
    return false;
  }
  if (a->written) {
    if (is_store) {
      memory_mark_written(address, bytes);
    } else if (!is_written(a, address, bytes)) {
      raise_fault(w, inst, FAULT_UNWRITTEN,
                  "load of %u bytes at byte %llu of allocation %llu (%llu bytes, lane %u), which nobody wrote", bytes,
                  (unsigned long long)(address - a->begin), (unsigned long long)a->number, (unsigned long long)a->bytes, lane);
      return false;
    }
  }
  if (a->loaded_lines) {
    u64 added = count_lines(is_store ? a->stored_lines : a->loaded_lines, a, address, bytes, (u32)w->group->dispatch->number);
    if (is_store) w->counters->stored_lines += added;
    else w->counters->loaded_lines += added;
  }
  return true;
}

// Notes bytes for the check `order`. False: a fault was raised.
static bool touch_in_order(Wave *w, const Inst *inst, u64 begin, u64 end, u32 bytes, u32 lane, bool is_store) {
  const Allocation *a = memory_find(begin, end - begin);
  Conflict conflict;
  const Operation *op = w->group->dispatch->operation;
  if (!a || order_touch(op, a, begin - a->begin, end - begin, is_store, &conflict)) return true;
  char why[256];
  order_explain(op, &conflict, why, sizeof why);
  raise_fault(w, inst, FAULT_ORDER, "%s of %u bytes at byte %llu of allocation %llu (%llu bytes, lane %u), %s", is_store ? "store" : "load",
              bytes, (unsigned long long)conflict.offset, (unsigned long long)a->number, (unsigned long long)a->bytes,
              lane, why);
  return false;
}

// Lanes that follow each other in memory are one range.
static bool touch_lanes_in_order(Wave *w, const Inst *inst, const u64 *address, u64 active, u32 bytes, bool is_store) {
  u64 begin = 0, end = 0;
  u32 first = 0;
  for (u64 left = active; left; left &= left - 1) {
    u32 lane = (u32)__builtin_ctzll(left);
    if (address[lane] == end) {
      end += bytes;
      continue;
    }
    if (address[lane] == begin && end - begin == bytes) continue;
    if (end && !touch_in_order(w, inst, begin, end, bytes, first, is_store)) return false;
    begin = address[lane], end = begin + bytes, first = lane;
  }
  return touch_in_order(w, inst, begin, end, bytes, first, is_store);
}

static bool touch_lanes(Wave *w, const Inst *inst, const u64 *address, u64 active, u32 bytes, bool is_store) {
  u64 *by_width = is_store ? w->counters->stored_bytes : w->counters->loaded_bytes;
  by_width[width_index(bytes)] += (u64)bytes * (u64)__builtin_popcountll(active);
  if (!checks.unwritten && !counters_are_kept) {
    // Fast: the span of all lanes lies in one allocation.
    u64 low = ~0ull, high = 0;
    for (u32 l = 0; l < w->lanes; l++) {
      bool is_active = active >> l & 1;
      low = is_active && address[l] < low ? address[l] : low;
      high = is_active && address[l] > high ? address[l] : high;
    }
    if (memory_find(low, high - low + bytes)) return true;
  }
  for (u32 l = 0; l < w->lanes; l++)
    if ((active >> l & 1) && !touch_one(w, inst, address[l], bytes, l, is_store)) return false;
  return true;
}

bool memory_touch(Wave *w, const Inst *inst, const u64 *address, u64 active, u32 bytes, bool is_store) {
  if (!active) return true;
  if (!touch_lanes(w, inst, address, active, bytes, is_store)) return false;
  return !checks.order || touch_lanes_in_order(w, inst, address, active, bytes, is_store);
}

bool memory_touch_scalar(Wave *w, const Inst *inst, u64 address, u32 bytes) {
  w->counters->scalar_loaded_bytes += bytes;
  if (!touch_one(w, inst, address, bytes, 0, false)) return false;
  return !checks.order || touch_in_order(w, inst, address, address + bytes, bytes, 0, false);
}
