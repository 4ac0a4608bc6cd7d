// The check `order`: which operations touched which bytes last.
//
// A cell for each 32 bytes of an allocation holds an operation's number and a bit for each byte that it touched. Stores
// and loads have a table each, of layers of cells: layer 0 has the operation that came last, the others have those before
// it that a later operation may still have to wait for. A cell is free again once its operation is done for all that will
// come, or once one that is ordered after it has touched the same bytes. What is forgotten (more than ORDER_LAYERS such
// operations, or two threads that note something at once) can hide a fault, never invent one.
#include "order.h"

#include <stdlib.h>
#include <sys/mman.h>

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

static u64 layer_bytes(u64 bytes) { return (bytes / CELL_BYTES + 1) * sizeof(Cell); }

static Cell *layer_of(OrderTable *table, u32 k) { return __atomic_load_n(&table->layer[k], __ATOMIC_ACQUIRE); }

static Cell *made_layer(OrderTable *table, u32 k, u64 bytes) {
  Cell *found = layer_of(table, k);
  if (found) return found;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  Cell *made = mmap(NULL, layer_bytes(bytes), PROT_READ | PROT_WRITE, flags, -1, 0);
  if (made == MAP_FAILED) abort();
  if (__atomic_compare_exchange_n(&table->layer[k], &found, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return made;
  munmap(made, layer_bytes(bytes));
  return found;
}

OrderTable *order_table_create(u64 bytes) {
  OrderTable *table = calloc(1, sizeof(OrderTable));
  if (!table) abort();
  made_layer(table, 0, bytes);
  return table;
}

void order_table_free(OrderTable *table, u64 bytes) {
  for (u32 k = 0; k < ORDER_LAYERS; k++)
    if (table->layer[k]) munmap(table->layer[k], layer_bytes(bytes));
  free(table);
}

// Whether nothing is lost without this cell, once `op` is known to have touched `bytes`.
static inline bool is_spare(const Operation *op, Cell cell, u32 bytes) {
  return (u32)cell <= op->done || (!((u32)(cell >> 32) & ~bytes) && is_ordered((u32)cell, op));
}

static void note(const Operation *op, const Allocation *a, OrderTable *table, u64 index, u32 bytes) {
  Cell mine = op->number | (u64)bytes << 32, *first = &layer_of(table, 0)[index], old = load_cell(first);
  if ((u32)old == op->number) {
    if (old != (old | mine)) store_cell(first, old | mine);
    return;
  }
  store_cell(first, mine);
  if (is_spare(op, old, bytes)) return;
  for (u32 k = 1; k < ORDER_LAYERS; k++) {
    Cell *cell = &made_layer(table, k, a->bytes)[index];
    if (!is_spare(op, load_cell(cell), bytes)) continue;
    store_cell(cell, old);
    return;
  }
}

static inline bool check_table(
    const Operation *op, OrderTable *table, u64 index, u32 bytes, bool are_stores, Conflict *conflict) {
  const Cell *layer;
  for (u32 k = 0; k < ORDER_LAYERS && (layer = layer_of(table, k)); k++) {
    Cell cell = load_cell(&layer[index]);
    if (meets(op, cell, bytes)) return report(conflict, cell, index, bytes, are_stores);
  }
  return true;
}

static inline bool check_stores(const Operation *op, const Allocation *a, u64 index, u32 bytes, Conflict *conflict) {
  // Memory was made by an operation, too, if it comes from a stream.
  Cell made = a->made_by | ~0ull << 32;
  if (!check_table(op, a->stored_by, index, bytes, true, conflict)) return false;
  return meets(op, made, bytes) ? report(conflict, made, index, bytes, true) : true;
}

static inline bool touch_cell(const Operation *op, const Allocation *a, u64 index, u32 bytes, bool is_store, Conflict *conflict) {
  bool is_alone = op->floor + 1 == op->number;  // nothing runs beside it: most programs have one stream
  if (!is_alone) {
    if (!check_stores(op, a, index, bytes, conflict)) return false;
    if (is_store && !check_table(op, a->loaded_by, index, bytes, false, conflict)) return false;
  }
  note(op, a, is_store ? a->stored_by : a->loaded_by, index, bytes);
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
    if (!check_stores(op, a, index, ~0u, conflict)) return false;
    if (!check_table(op, a->loaded_by, index, ~0u, false, conflict)) return false;
  }
  return true;
}
