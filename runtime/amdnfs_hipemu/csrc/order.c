// Strands, clocks and operations of the check `order`.
#include "order.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "checks.h"

#define CHUNK 4096
#define MAX_CHUNKS 65536

// What is kept of an operation: enough to tell whether it was waited for, and to name it.
typedef struct {
  const char *name;
  u32 strand, index;      // its number in the strand
  OrderPlace place;
} Record;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Record *records[MAX_CHUNKS];   // chunks do not move: kernels read them without the lock
static u32 num_operations;
static u32 *last;                     // operations of each strand so far
static bool *is_free;                 // strands whose stream or graph is gone
static u32 num_strands;
static Clock host;
static u32 host_floor;                // the host has waited for all operations up to this one
static Stream default_stream = {.is_blocking = true};
static Stream *streams = &default_stream;
static u32 num_streams;

static void *grown(void *memory, size_t bytes) {
  void *moved = realloc(memory, bytes);
  if (!moved) abort();
  return moved;
}

static void reserve(Clock *clock, u32 count) {
  if (clock->count >= count) return;
  clock->done = grown(clock->done, count * sizeof(u32));
  memset(clock->done + clock->count, 0, (count - clock->count) * sizeof(u32));
  clock->count = count;
}

void clock_join(Clock *to, const Clock *from) {
  reserve(to, from->count);
  for (u32 s = 0; s < from->count; s++)
    if (from->done[s] > to->done[s]) to->done[s] = from->done[s];
}

void clock_free(Clock *clock) {
  free(clock->done);
  *clock = (Clock){0};
}

void clock_set(Clock *clock, u32 strand, u32 done) {
  reserve(clock, strand + 1);
  clock->done[strand] = done;
}

u32 clock_of(const Clock *clock, u32 strand) { return strand < clock->count ? clock->done[strand] : 0; }

static u32 new_strand(void) {
  last = grown(last, (num_strands + 1) * sizeof(u32));
  is_free = grown(is_free, (num_strands + 1) * sizeof(bool));
  last[num_strands] = 0;
  is_free[num_strands] = false;
  return num_strands++;
}

// Strand 0 is the default stream's.
static void start(void) {
  if (num_strands == 0) new_strand();
}

// A strand that nobody uses and whose operations the host has waited for, or a new one.
static u32 take_strand(void) {
  start();
  for (u32 s = 0; s < num_strands; s++)
    if (is_free[s] && clock_of(&host, s) >= last[s]) {
      is_free[s] = false;
      return s;
    }
  return new_strand();
}

u32 order_strand_take(void) {
  pthread_mutex_lock(&lock);
  u32 strand = take_strand();
  pthread_mutex_unlock(&lock);
  return strand;
}

void order_strand_give(u32 strand) {
  pthread_mutex_lock(&lock);
  is_free[strand] = true;
  pthread_mutex_unlock(&lock);
}

Stream *order_stream_create(bool is_blocking) {
  Stream *stream = calloc(1, sizeof(Stream));
  if (!stream) return NULL;
  pthread_mutex_lock(&lock);
  *stream = (Stream){.number = ++num_streams, .strand = take_strand(), .is_blocking = is_blocking, .next = streams};
  streams = stream;
  pthread_mutex_unlock(&lock);
  return stream;
}

void order_stream_destroy(Stream *stream) {
  pthread_mutex_lock(&lock);
  Stream **at = &streams;
  while (*at && *at != stream) at = &(*at)->next;
  if (*at) {
    *at = stream->next;
    // The default stream would have waited for it.
    if (stream->is_blocking) clock_join(&default_stream.seen, &stream->seen);
    is_free[stream->strand] = true;
    clock_free(&stream->seen);
    free(stream);
  }
  pthread_mutex_unlock(&lock);
}

// What an operation that is called now in this stream comes after.
static Stream *arrive(Stream *stream) {
  start();
  if (!stream) stream = &default_stream;
  clock_join(&stream->seen, &host);
  if (stream == &default_stream) {
    for (Stream *s = streams; s; s = s->next)
      if (s->is_blocking && s != stream) clock_join(&stream->seen, &s->seen);
  } else if (stream->is_blocking) {
    clock_join(&stream->seen, &default_stream.seen);
  }
  return stream;
}

static bool covers_all(const Clock *clock, u32 but_strand) {
  for (u32 s = 0; s < num_strands; s++)
    if (s != but_strand && clock_of(clock, s) < last[s]) return false;
  return true;
}

static void begin(Operation *op, Clock *seen, u32 strand, OrderPlace place, const char *name) {
  u32 number = ++num_operations;
  if (number / CHUNK >= MAX_CHUNKS) abort();
  Record **chunk = &records[number / CHUNK];
  if (!*chunk) *chunk = grown(NULL, CHUNK * sizeof(Record));
  bool is_last = covers_all(seen, strand);
  clock_set(seen, strand, ++last[strand]);
  (*chunk)[number % CHUNK] = (Record){name, strand, last[strand], place};
  *op = (Operation){
      .number = number, .floor = is_last ? number - 1 : host_floor, .done = host_floor, .place = place, .name = name};
  clock_join(&op->seen, seen);
}

void order_begin(Operation *op, Stream *stream, const char *name) {
  *op = (Operation){0};
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  stream = arrive(stream);
  begin(op, &stream->seen, stream->strand, (OrderPlace){.stream = stream->number}, name);
  pthread_mutex_unlock(&lock);
}

void order_begin_node(Operation *op, Clock *after, u32 strand, OrderPlace place, const char *name) {
  *op = (Operation){0};
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  begin(op, after, strand, place, name);
  pthread_mutex_unlock(&lock);
}

// A node goes to the end of a chain whose last node it comes after, so that a chain is a strand.
u32 order_cut(u32 count, const u32 *const *after, const u32 *num_after, u32 *chain) {
  Clock *seen = grown(NULL, (count + 1) * sizeof(Clock)), ends = {0};
  u32 num_chains = 0;
  for (u32 i = 0; i < count; i++) {
    seen[i] = (Clock){0};
    for (u32 k = 0; k < num_after[i]; k++) clock_join(&seen[i], &seen[after[i][k]]);
    u32 c = 0;
    while (c < num_chains && clock_of(&seen[i], c) < clock_of(&ends, c)) c++;
    num_chains += c == num_chains;
    clock_set(&ends, c, clock_of(&ends, c) + 1);
    clock_set(&seen[i], c, clock_of(&ends, c));
    chain[i] = c;
  }
  for (u32 i = 0; i < count; i++) clock_free(&seen[i]);
  free(seen);
  clock_free(&ends);
  return num_chains;
}

void order_end(Operation *op) { clock_free(&op->seen); }

const char *order_intern(const char *name) {
  static char **names;
  static u32 count;
  pthread_mutex_lock(&lock);
  const char *found = NULL;
  for (u32 i = 0; i < count && !found; i++)
    if (!strcmp(names[i], name)) found = names[i];
  if (!found) {
    names = grown(names, (count + 1) * sizeof(char *));
    names[count] = strdup(name);
    if (!names[count]) abort();
    found = names[count++];
  }
  pthread_mutex_unlock(&lock);
  return found;
}

void order_record(Clock *event, Stream *stream) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  stream = arrive(stream);
  clock_free(event);
  clock_join(event, &stream->seen);
  pthread_mutex_unlock(&lock);
}

void order_stream_waits(Stream *stream, const Clock *event) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  clock_join(&arrive(stream)->seen, event);
  pthread_mutex_unlock(&lock);
}

static void host_waits(const Clock *clock) {
  clock_join(&host, clock);
  if (covers_all(&host, UINT32_MAX)) host_floor = num_operations;
}

void order_host_waits_event(const Clock *event) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  host_waits(event);
  pthread_mutex_unlock(&lock);
}

void order_host_waits_stream(Stream *stream) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  host_waits(&arrive(stream)->seen);
  pthread_mutex_unlock(&lock);
}

void order_host_waits_all(void) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  Clock all = {0};
  reserve(&all, num_strands);
  for (u32 s = 0; s < num_strands; s++) all.done[s] = last[s];
  host_waits(&all);
  clock_free(&all);
  pthread_mutex_unlock(&lock);
}

void order_graph_begin(Clock *after, Stream *stream) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  clock_join(after, &arrive(stream)->seen);
  pthread_mutex_unlock(&lock);
}

void order_graph_end(const Clock *end, Stream *stream) {
  if (!checks.order) return;
  pthread_mutex_lock(&lock);
  clock_join(&(stream ? stream : &default_stream)->seen, end);
  pthread_mutex_unlock(&lock);
}

static const Record *record_of(u32 number) { return &records[number / CHUNK][number % CHUNK]; }

bool order_is_before(u32 earlier, const Operation *op) {
  const Record *record = record_of(earlier);
  return record->index <= clock_of(&op->seen, record->strand);
}

static void describe(OrderPlace place, char *text, size_t bytes) {
  if (place.graph) snprintf(text, bytes, "node %u of graph %u", place.node, place.graph);
  else if (place.stream) snprintf(text, bytes, "stream %u", place.stream);
  else snprintf(text, bytes, "the default stream");
}

void order_explain(const Operation *op, const Conflict *conflict, char *text, size_t text_bytes) {
  const Record *other = record_of(conflict->other);
  char there[64], here[64];
  describe(other->place, there, sizeof there);
  describe(op->place, here, sizeof here);
  int length = snprintf(text, text_bytes, "which %.90s %s in %s; ", other->name, conflict->other_stores ? "writes" : "reads", there);
  size_t used = length < 0 || (size_t)length >= text_bytes ? text_bytes : (size_t)length;
  if (op->place.graph && op->place.graph == other->place.graph)
    snprintf(text + used, text_bytes - used, "no path of edges leads to %s from there", here);
  else
    snprintf(text + used, text_bytes - used, "%s has not waited for it: record an event in %s after it, and let %s wait for that",
             here, other->place.graph ? "its stream" : there, op->place.graph ? "the graph's stream" : here);
}
