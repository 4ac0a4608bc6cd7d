// The check `order`: which operations touched which bytes last.
//
// A cell for each 32 bytes of an allocation holds an operation's number and a bit for each byte that it touched. There
// are three: the last store, the last load, and the last load before it by an operation that is not ordered before it.
// What is forgotten (three streams that read the same bytes, several that write other bytes of one cell) can hide a
// fault, never invent one.
#include "order.h"

#define CELL_BYTES 32

typedef u64 Cell;   // operation in bits 31:0, bytes in bits 63:32

static inline Cell load_cell(const Cell *cell) { return __atomic_load_n(cell, __ATOMIC_RELAXED); }
static inline void store_cell(Cell *cell, Cell value) { __atomic_store_n(cell, value, __ATOMIC_RELAXED); }

// Operations that began later check for themselves.
static bool is_ordered(u32 earlier, const Operation *op) {
  static __thread u32 known, known_for;
  if (earlier <= op->floor || earlier >= op->number) return true;
  if (known == earlier && known_for == op->number) return true;
  if (!order_is_before(earlier, op)) return false;
  known = earlier, known_for = op->number;
  return true;
}

static inline bool meets(const Operation *op, Cell cell, u32 bytes) {
  return (u32)cell > op->floor && (u32)(cell >> 32) & bytes && !is_ordered((u32)cell, op);
}

static bool report(Conflict *conflict, Cell cell, u64 index, u32 bytes, bool other_stores) {
  u64 first = index * CELL_BYTES + (u64)__builtin_ctz((u32)(cell >> 32) & bytes);
  *conflict = (Conflict){.offset = first, .other = (u32)cell, .other_stores = other_stores};
  return false;
}

static inline void note(Cell *cell, Cell old, Cell mine) {
  if ((u32)old == (u32)mine) mine |= old;
  if (old != mine) store_cell(cell, mine);
}

static inline bool check_stores(const Operation *op, const Allocation *a, u64 index, u32 bytes, Cell *stored, Conflict *conflict) {
  *stored = load_cell(&a->stored_by[index]);
  // Memory that nobody wrote yet was made by an operation, too, if it comes from a stream.
  Cell cell = *stored ? *stored : a->made_by | ~0ull << 32;
  return meets(op, cell, bytes) ? report(conflict, cell, index, bytes, true) : true;
}

static inline bool check_loads(const Operation *op, const Allocation *a, u64 index, u32 bytes, Conflict *conflict) {
  Cell cell = load_cell(&a->loaded_by[index]);
  if (meets(op, cell, bytes)) return report(conflict, cell, index, bytes, false);
  cell = load_cell(&a->also_loaded_by[index]);
  return meets(op, cell, bytes) ? report(conflict, cell, index, bytes, false) : true;
}

static inline bool touch_cell(const Operation *op, const Allocation *a, u64 index, u32 bytes, bool is_store, Conflict *conflict) {
  Cell mine = op->number | (u64)bytes << 32, stored;
  if (op->floor + 1 == op->number) {  // nothing runs beside it: most programs have one stream
    Cell *cell = is_store ? &a->stored_by[index] : &a->loaded_by[index];
    note(cell, load_cell(cell), mine);
    return true;
  }
  if (!check_stores(op, a, index, bytes, &stored, conflict)) return false;
  if (is_store) {
    if (!check_loads(op, a, index, bytes, conflict)) return false;
    note(&a->stored_by[index], stored, mine);
    return true;
  }
  Cell loaded = load_cell(&a->loaded_by[index]);
  if ((u32)loaded > op->floor && !is_ordered((u32)loaded, op)) store_cell(&a->also_loaded_by[index], loaded);
  note(&a->loaded_by[index], loaded, mine);
  return true;
}

bool order_touch(const Operation *op, const Allocation *a, u64 offset, u64 bytes, bool is_store, Conflict *conflict) {
  u64 end = offset + bytes;
  for (u64 index = offset / CELL_BYTES; index * CELL_BYTES < end; index++) {
    u64 begin = index * CELL_BYTES;
    u32 mask = ~0u;
    if (offset > begin) mask &= ~0u << (offset - begin);
    if (end < begin + CELL_BYTES) mask &= ~0u >> (begin + CELL_BYTES - end);
    if (!touch_cell(op, a, index, mask, is_store, conflict)) return false;
  }
  return true;
}

bool order_check_free(const Operation *op, const Allocation *a, Conflict *conflict) {
  if (op->floor + 1 == op->number) return true;
  for (u64 index = 0; index * CELL_BYTES < a->bytes; index++) {
    Cell stored;
    if (!check_stores(op, a, index, ~0u, &stored, conflict) || !check_loads(op, a, index, ~0u, conflict)) return false;
  }
  return true;
}
