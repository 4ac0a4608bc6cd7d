// HIP: graphs. A node's dependencies are nodes that were added before it, so that the order of addition is one in which
// they can run.
#include <stdlib.h>

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
} Node;

typedef struct {
  Node *nodes;
  size_t count, capacity;
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

HipError hipEventRecord(void *event, void *stream);

// A node's handle is its number plus one: the array moves when it grows.
static HipError add(Graph *graph, void **out, Node node) {
  if (graph->count == graph->capacity) {
    size_t capacity = graph->capacity * 2 + 16;
    Node *moved = realloc(graph->nodes, capacity * sizeof(Node));
    if (!moved) return HIP_OUT_OF_MEMORY;
    graph->nodes = moved;
    graph->capacity = capacity;
  }
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
  for (size_t i = 0; i < graph->count; i++) free(graph->nodes[i].arguments);
  free(graph->nodes);
  free(graph);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipGraphExecDestroy(Graph *graph) { return hipGraphDestroy(graph); }

HIP_EXPORT HipError hipGraphAddEmptyNode(void **out, Graph *graph, void *const *dependencies, size_t count) {
  HipError error = check_dependencies(graph, dependencies, count);
  return error ? error : add(graph, out, (Node){.kind = NODE_EMPTY});
}

HIP_EXPORT HipError hipGraphAddEventRecordNode(void **out, Graph *graph, void *const *dependencies, size_t count, void *event) {
  HipError error = check_dependencies(graph, dependencies, count);
  return error ? error : add(graph, out, (Node){.kind = NODE_EVENT, .event = event});
}

HIP_EXPORT HipError hipGraphAddKernelNode(void **out, Graph *graph, void *const *dependencies, size_t count, const KernelNodeParams *p) {
  HipError error = check_dependencies(graph, dependencies, count);
  if (error) return error;
  u8 *arguments = malloc(MAX_ARGUMENT_BYTES);
  if (!arguments) return HIP_OUT_OF_MEMORY;
  error = hip_pack_arguments(p->function, p->parameters, arguments, MAX_ARGUMENT_BYTES);
  if (!error)
    error = add(graph, out, (Node){.kind = NODE_KERNEL, .kernel = p->function, .grid = p->grid, .block = p->block,
                                   .lds_bytes = p->lds_bytes, .arguments = arguments});
  if (error) free(arguments);
  return error;
}

HIP_EXPORT HipError hipGraphAddMemsetNode(void **out, Graph *graph, void *const *dependencies, size_t count, const FillParams *p) {
  HipError error = check_dependencies(graph, dependencies, count);
  if (error) return error;
  return add(graph, out, (Node){.kind = NODE_FILL, .to = p->to, .value = p->value, .element_bytes = p->element_bytes,
                                .count = p->width, .rows = p->height, .pitch = p->pitch});
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
  return add(graph, out, (Node){.kind = NODE_COPY, .to = to + p->to_x, .from = from + p->from_x, .bytes = p->width});
}

HIP_EXPORT HipError hipGraphInstantiate(Graph **out, const Graph *graph, void **error_node UNUSED, char *log UNUSED, size_t bytes UNUSED) {
  Graph *copy = calloc(1, sizeof(Graph));
  if (!copy) return HIP_OUT_OF_MEMORY;
  copy->nodes = calloc(graph->count + 1, sizeof(Node));
  if (!copy->nodes) {
    free(copy);
    return HIP_OUT_OF_MEMORY;
  }
  copy->count = copy->capacity = graph->count;
  for (size_t i = 0; i < graph->count; i++) {
    copy->nodes[i] = graph->nodes[i];
    if (!graph->nodes[i].arguments) continue;
    copy->nodes[i].arguments = malloc(MAX_ARGUMENT_BYTES);
    if (!copy->nodes[i].arguments) {
      hipGraphDestroy(copy);
      return HIP_OUT_OF_MEMORY;
    }
    memcpy(copy->nodes[i].arguments, graph->nodes[i].arguments, MAX_ARGUMENT_BYTES);
  }
  *out = copy;
  return HIP_SUCCESS;
}

static HipError run_node(const Node *node, void *stream) {
  switch (node->kind) {
    case NODE_KERNEL: return hip_launch(node->kernel, node->grid, node->block, node->lds_bytes, node->arguments);
    case NODE_COPY: return hip_copy(node->to, node->from, node->bytes);
    case NODE_FILL:
      for (size_t row = 0; row < node->rows; row++)
        hip_fill(node->to + row * node->pitch, node->value, node->element_bytes, node->count);
      return HIP_SUCCESS;
    case NODE_EVENT: return hipEventRecord(node->event, stream);
    default: return HIP_SUCCESS;
  }
}

HIP_EXPORT HipError hipGraphLaunch(Graph *graph, void *stream) {
  for (size_t i = 0; i < graph->count; i++) {
    HipError error = run_node(&graph->nodes[i], stream);
    if (error) return error;
  }
  return HIP_SUCCESS;
}
