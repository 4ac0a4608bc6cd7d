// HIP: graphs. A node's dependencies are nodes that were added before it, so that the order of addition is one in which
// they can run.
#include <stdlib.h>

#include "checks.h"
#include "hip.h"

typedef enum { NODE_EMPTY, NODE_KERNEL, NODE_COPY, NODE_FILL, NODE_EVENT } NodeKind;

typedef struct {
  NodeKind kind;
  const Kernel *kernel;
  HipDim3 grid, block;
  u32 lds_bytes;
  u8 *arguments;           // of a kernel: MAX_ARGUMENT_BYTES, copied when the node is added
  u8 *to;
  const u8 *from;
  size_t bytes;            // of a copy
  u32 value, element_bytes;
  size_t count, rows, pitch;
  void *event;
  u32 *after;              // numbers of the nodes that it depends on
  u32 num_after;
} Node;

typedef struct {
  Node *nodes;
  size_t count, capacity;
  // For the check `order`, once instantiated: the strand of each node, and what the last launch came to.
  u32 number;
  u32 *chain;
  u32 *strands;
  u32 num_strands;
  Clock done;
} Graph;

// hipKernelNodeParams, hipMemsetParams and HIP_MEMCPY3D.
typedef struct {
  HipDim3 block;
  void **extra;
  Kernel *function;
  HipDim3 grid;
  void **parameters;
  unsigned lds_bytes;
} KernelNodeParams;
typedef struct {
  void *to;
  unsigned element_bytes;
  size_t height, pitch;
  unsigned value;
  size_t width;
} FillParams;
typedef struct {
  size_t from_x, from_y, from_z, from_lod;
  int from_type;
  const void *from_host, *from_device, *from_array;
  size_t from_pitch, from_height;
  size_t to_x, to_y, to_z, to_lod;
  int to_type;
  void *to_host, *to_device, *to_array;
  size_t to_pitch, to_height;
  size_t width, height, depth;
} CopyParams;
#define MEMORY_TYPE_HOST 0

// A node's handle is its number plus one: the array moves when it grows.
static HipError add(Graph *graph, void **out, Node node, void *const *dependencies, size_t count) {
  if (graph->count == graph->capacity) {
    size_t capacity = graph->capacity * 2 + 16;
    Node *moved = realloc(graph->nodes, capacity * sizeof(Node));
    if (!moved) return HIP_OUT_OF_MEMORY;
    graph->nodes = moved;
    graph->capacity = capacity;
  }
  node.after = malloc((count + 1) * sizeof(u32));
  if (!node.after) return HIP_OUT_OF_MEMORY;
  for (size_t i = 0; i < count; i++) node.after[i] = (u32)((size_t)dependencies[i] - 1);
  node.num_after = (u32)count;
  graph->nodes[graph->count++] = node;
  *out = (void *)graph->count;
  return HIP_SUCCESS;
}

static HipError check_dependencies(const Graph *graph, void *const *dependencies, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if ((size_t)dependencies[i] - 1 < graph->count) continue;
    hip_set_message("a graph node depends on a node that was not added");
    return HIP_INVALID_VALUE;
  }
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipGraphCreate(Graph **out, unsigned flags UNUSED) {
  *out = calloc(1, sizeof(Graph));
  return *out ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}

HIP_EXPORT HipError hipGraphDestroy(Graph *graph) {
  for (size_t i = 0; i < graph->count; i++) {
    free(graph->nodes[i].arguments);
    free(graph->nodes[i].after);
  }
  for (u32 s = 0; s < graph->num_strands; s++) order_strand_give(graph->strands[s]);
  free(graph->strands);
  free(graph->chain);
  clock_free(&graph->done);
  free(graph->nodes);
  free(graph);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipGraphExecDestroy(Graph *graph) { return hipGraphDestroy(graph); }

HIP_EXPORT HipError hipGraphAddEmptyNode(void **out, Graph *graph, void *const *dependencies, size_t count) {
  HipError error = check_dependencies(graph, dependencies, count);
  return error ? error : add(graph, out, (Node){.kind = NODE_EMPTY}, dependencies, count);
}

HIP_EXPORT HipError hipGraphAddEventRecordNode(void **out, Graph *graph, void *const *dependencies, size_t count, void *event) {
  HipError error = check_dependencies(graph, dependencies, count);
  return error ? error : add(graph, out, (Node){.kind = NODE_EVENT, .event = event}, dependencies, count);
}

HIP_EXPORT HipError hipGraphAddKernelNode(void **out, Graph *graph, void *const *dependencies, size_t count, const KernelNodeParams *p) {
  HipError error = check_dependencies(graph, dependencies, count);
  if (error) return error;
  u8 *arguments = malloc(MAX_ARGUMENT_BYTES);
  if (!arguments) return HIP_OUT_OF_MEMORY;
  error = hip_pack_arguments(p->function, p->parameters, arguments, MAX_ARGUMENT_BYTES);
  if (!error)
    error = add(graph, out, (Node){.kind = NODE_KERNEL, .kernel = p->function, .grid = p->grid, .block = p->block,
                                   .lds_bytes = p->lds_bytes, .arguments = arguments},
                dependencies, count);
  if (error) free(arguments);
  return error;
}

HIP_EXPORT HipError hipGraphAddMemsetNode(void **out, Graph *graph, void *const *dependencies, size_t count, const FillParams *p) {
  HipError error = check_dependencies(graph, dependencies, count);
  if (error) return error;
  return add(graph, out, (Node){.kind = NODE_FILL, .to = p->to, .value = p->value, .element_bytes = p->element_bytes,
                                .count = p->width, .rows = p->height, .pitch = p->pitch},
             dependencies, count);
}

HIP_EXPORT HipError hipDrvGraphAddMemcpyNode(void **out, Graph *graph, void *const *dependencies, size_t count, const CopyParams *p,
                                             void *context UNUSED) {
  HipError error = check_dependencies(graph, dependencies, count);
  if (error) return error;
  if (p->height != 1 || p->depth != 1) {
    hip_set_message("graph copies of more than one row are not supported");
    return HIP_NOT_SUPPORTED;
  }
  const u8 *from = p->from_type == MEMORY_TYPE_HOST ? p->from_host : p->from_device;
  u8 *to = p->to_type == MEMORY_TYPE_HOST ? p->to_host : p->to_device;
  return add(graph, out, (Node){.kind = NODE_COPY, .to = to + p->to_x, .from = from + p->from_x, .bytes = p->width},
             dependencies, count);
}

static void *copy_of(const void *from, size_t bytes) {
  void *made = malloc(bytes + 1);
  if (made) memcpy(made, from, bytes);
  return made;
}

static bool copy_nodes(Graph *to, const Graph *from) {
  to->nodes = calloc(from->count + 1, sizeof(Node));
  if (!to->nodes) return false;
  to->capacity = from->count;
  for (; to->count < from->count; to->count++) {
    const Node *old = &from->nodes[to->count];
    Node *node = &to->nodes[to->count];
    *node = *old;
    node->after = copy_of(old->after, old->num_after * sizeof(u32));
    node->arguments = old->arguments ? copy_of(old->arguments, MAX_ARGUMENT_BYTES) : NULL;
    if (node->after && (node->arguments || !old->arguments)) continue;
    free(node->after);
    free(node->arguments);
    return false;
  }
  return true;
}

static bool take_strands(Graph *graph) {
  static u32 num_graphs;
  graph->number = __atomic_add_fetch(&num_graphs, 1, __ATOMIC_RELAXED);
  const u32 **after = calloc(graph->count + 1, sizeof(u32 *));
  u32 *num_after = calloc(graph->count + 1, sizeof(u32));
  graph->chain = calloc(graph->count + 1, sizeof(u32));
  graph->strands = calloc(graph->count + 1, sizeof(u32));
  bool is_ok = after && num_after && graph->chain && graph->strands;
  for (size_t i = 0; is_ok && i < graph->count; i++) after[i] = graph->nodes[i].after, num_after[i] = graph->nodes[i].num_after;
  if (is_ok) graph->num_strands = order_cut((u32)graph->count, after, num_after, graph->chain);
  for (u32 s = 0; s < graph->num_strands; s++) graph->strands[s] = order_strand_take();
  free(after);
  free(num_after);
  return is_ok;
}

HIP_EXPORT HipError hipGraphInstantiate(Graph **out, const Graph *graph, void **error_node UNUSED, char *log UNUSED, size_t bytes UNUSED) {
  Graph *copy = calloc(1, sizeof(Graph));
  if (!copy) return HIP_OUT_OF_MEMORY;
  if (!copy_nodes(copy, graph) || (checks.order && !take_strands(copy))) {
    hipGraphDestroy(copy);
    return HIP_OUT_OF_MEMORY;
  }
  *out = copy;
  return HIP_SUCCESS;
}

static const char *name_of(const Node *node) {
  switch (node->kind) {
    case NODE_KERNEL: return order_intern(node->kernel->name);
    case NODE_COPY: return "a copy";
    case NODE_FILL: return "a fill";
    default: return "an empty node";
  }
}

static HipError run_node(const Node *node, const Operation *op) {
  HipError error = HIP_SUCCESS;
  switch (node->kind) {
    case NODE_KERNEL: return hip_launch(node->kernel, node->grid, node->block, node->lds_bytes, node->arguments, op);
    case NODE_COPY: return hip_copy(node->to, node->from, node->bytes, op);
    case NODE_FILL:
      for (size_t row = 0; row < node->rows && !error; row++)
        error = hip_fill(node->to + row * node->pitch, node->value, node->element_bytes, node->count, op);
      return error;
    case NODE_EVENT: hip_record_node(node->event, &op->seen); return HIP_SUCCESS;
    default: return HIP_SUCCESS;
  }
}

// A node comes after those that it depends on, and after what the launch comes after: the stream so far, and the last
// launch of the same graph.
static HipError run_in_order(Graph *graph, Stream *stream, Clock *seen) {
  Clock begin = {0};
  HipError error = HIP_SUCCESS;
  order_graph_begin(&begin, stream);
  clock_join(&begin, &graph->done);
  for (u32 i = 0; i < graph->count && !error; i++) {
    const Node *node = &graph->nodes[i];
    Operation op;
    clock_join(&seen[i], &begin);
    for (u32 k = 0; k < node->num_after; k++) clock_join(&seen[i], &seen[node->after[k]]);
    order_begin_node(&op, &seen[i], graph->strands[graph->chain[i]], (OrderPlace){.graph = graph->number, .node = i + 1}, name_of(node));
    error = run_node(node, &op);
    order_end(&op);
    clock_join(&graph->done, &seen[i]);
  }
  order_graph_end(&graph->done, stream);
  clock_free(&begin);
  return error;
}

HIP_EXPORT HipError hipGraphLaunch(Graph *graph, Stream *stream) {
  HipError error = HIP_SUCCESS;
  if (!checks.order) {
    const Operation unchecked = {0};
    for (size_t i = 0; i < graph->count && !error; i++) error = run_node(&graph->nodes[i], &unchecked);
    return error;
  }
  Clock *seen = calloc(graph->count + 1, sizeof(Clock));
  if (!seen) return HIP_OUT_OF_MEMORY;
  error = run_in_order(graph, stream, seen);
  for (size_t i = 0; i < graph->count; i++) clock_free(&seen[i]);
  free(seen);
  return error;
}
