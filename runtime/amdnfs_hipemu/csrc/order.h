// Check `order`: which asynchronous operations are waited for when another touches the same memory.
//
// The emulator runs an operation when it is called, so that a missing wait does no harm here; on a device it does. Each
// stream is a strand: a line of operations, numbered from 1, that run one after another. A graph is cut into as few
// strands as its edges allow. A clock says, for every strand, up to which operation all is known to be done. Waits join
// clocks. An operation is ordered after another if its clock has that one's number. This is the happens-before relation
// that detectors of data races use. Source: L. Lamport, "Time, Clocks, and the Ordering of Events in a Distributed
// System", CACM 1978; HIP programming manual, "Asynchronous concurrent execution" (what streams and events order).
//
// All threads of the host count as one, because what they tell each other is not seen.
#pragma once
#include "memory.h"

typedef struct {
  u32 *done;              // by strand
  u32 count;              // strands that it has room for; the others are 0
} Clock;

// A HIP stream.
typedef struct Stream {
  u32 number;             // for messages; 0: the default stream
  u32 strand;
  bool is_blocking;       // waits for the default stream, and that for it: made without hipStreamNonBlocking
  Clock seen;
  struct Stream *next;
} Stream;

// Where an operation runs: a stream, or a node of a graph (both from 1).
typedef struct {
  u32 stream, graph, node;
} OrderPlace;

// An operation while it runs. `number` is 0 if nothing is checked.
typedef struct Operation {
  u32 number;             // of all operations of this process, from 1
  u32 floor;              // all operations up to this one are ordered before it
  u32 done;               // all up to this one are done for the host, and so for every operation to come
  OrderPlace place;
  const char *name;
  Clock seen;
} Operation;

// Two operations that touch the same bytes, one of them writing, with nothing that orders them.
typedef struct {
  u64 offset;             // of the first such byte in the allocation
  u32 other;              // number of the earlier operation
  bool other_stores;
} Conflict;

// NULL: the default stream.
Stream *order_stream_create(bool is_blocking);
void order_stream_destroy(Stream *stream);

// An operation begins in a stream. `name` is kept as it is: see order_intern.
void order_begin(Operation *op, Stream *stream, const char *name);
void order_end(Operation *op);
// A copy of a name that lives as long as the process.
const char *order_intern(const char *name);

// hipEventRecord, hipStreamWaitEvent, and what the host waits for.
void order_record(Clock *event, Stream *stream);
void order_stream_waits(Stream *stream, const Clock *event);
void order_host_waits_event(const Clock *event);
void order_host_waits_stream(Stream *stream);
void order_host_waits_all(void);

// Of graphs: `after` is what a node comes after, and itself once it has begun.
void clock_join(Clock *to, const Clock *from);
void clock_free(Clock *clock);
void clock_set(Clock *clock, u32 strand, u32 done);
// Operations of a strand that a clock knows to be done.
u32 clock_of(const Clock *clock, u32 strand);
u32 order_strand_take(void);
void order_strand_give(u32 strand);
void order_graph_begin(Clock *begin, Stream *stream);
void order_graph_end(const Clock *end, Stream *stream);
// Cuts a graph of `count` nodes into chains, each a path of nodes that come one after another, and gives each node's.
// `after[i]` has num_after[i] numbers of nodes below i. Returns the number of chains.
u32 order_cut(u32 count, const u32 *const *after, const u32 *num_after, u32 *chain);
void order_begin_node(Operation *op, Clock *after, u32 strand, OrderPlace place, const char *name);

// Which operations touched an allocation of so many bytes: layers of cells, made when they are needed.
#define ORDER_LAYERS 64
struct OrderTable {
  u64 *layer[ORDER_LAYERS];
};
OrderTable *order_table_create(u64 bytes);
void order_table_free(OrderTable *table, u64 bytes);

// Checks and notes an access. False: `conflict` says with what.
bool order_touch(const Operation *op, const Allocation *a, u64 offset, u64 bytes, bool is_store, Conflict *conflict);
// Whether all accesses to the allocation are ordered before the operation, which frees it.
bool order_check_free(const Operation *op, const Allocation *a, Conflict *conflict);
// What is wrong, after "load of 4 bytes at byte 0 of allocation 1": ", which kernel k writes in stream 1; ...".
void order_explain(const Operation *op, const Conflict *conflict, char *text, size_t text_bytes);
bool order_is_before(u32 earlier, const Operation *op);
