// HIP: memory, copies and pools. Device memory is host memory.
#include <stdlib.h>

#include "checks.h"
#include "hip.h"
#include "memory.h"

static HipError refuse(const Operation *op, const Allocation *a, const Conflict *conflict, const char *does, size_t bytes) {
  char why[256];
  order_explain(op, conflict, why, sizeof why);
  hip_set_message("order in %s: %s of %zu bytes at byte %llu of allocation %llu (%llu bytes), %s", op->name, does, bytes,
                  (unsigned long long)conflict->offset, (unsigned long long)a->number, (unsigned long long)a->bytes, why);
  fprintf(stderr, "amdnfs-hipemu: %s\n", hipGetErrorString(HIP_LAUNCH_FAILURE));
  return HIP_LAUNCH_FAILURE;
}

// For the check `order`; memory that is no allocation is the host's own.
static HipError touch(const Operation *op, const void *address, size_t bytes, bool is_store) {
  const Allocation *a = op->number && bytes ? memory_find((u64)address, bytes) : NULL;
  Conflict conflict;
  if (!a || order_touch(op, a, (u64)address - a->begin, bytes, is_store, &conflict)) return HIP_SUCCESS;
  return refuse(op, a, &conflict, is_store ? "store" : "load", bytes);
}

HipError hip_copy(void *to, const void *from, size_t bytes, const Operation *op) {
  HipError error = touch(op, from, bytes, false);
  if (!error) error = touch(op, to, bytes, true);
  if (error) return error;
  memmove(to, from, bytes);
  memory_mark_written((u64)to, bytes);
  return HIP_SUCCESS;
}

HipError hip_fill(void *to, u32 value, u32 element_bytes, size_t count, const Operation *op) {
  HipError error = touch(op, to, count * element_bytes, true);
  if (error) return error;
  u8 *at = to;
  for (size_t i = 0; i < count; i++) memcpy(at + i * element_bytes, &value, element_bytes);
  memory_mark_written((u64)to, count * element_bytes);
  return HIP_SUCCESS;
}

static HipError copy_in(Stream *stream, const char *name, void *to, const void *from, size_t bytes) {
  Operation op;
  order_begin(&op, stream, name);
  HipError error = hip_copy(to, from, bytes, &op);
  order_end(&op);
  return error;
}

static HipError fill_in(Stream *stream, const char *name, void *to, u32 value, u32 element_bytes, size_t count) {
  Operation op;
  order_begin(&op, stream, name);
  HipError error = hip_fill(to, value, element_bytes, count, &op);
  order_end(&op);
  return error;
}

static HipError allocate(void **out, size_t bytes, bool is_host) {
  *out = memory_allocate(bytes, is_host);
  hip_log("allocation of %zu bytes at %p", bytes, *out);
  if (*out) return HIP_SUCCESS;
  hip_set_message("no memory for an allocation of %zu bytes", bytes);
  return HIP_OUT_OF_MEMORY;
}

// "hipFree, hipHostFree: This API performs an implicit hipDeviceSynchronize() call" (hip_runtime_api.h).
static HipError release(void *address) {
  order_host_waits_all();
  memory_free(address);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipMalloc(void **out, size_t bytes) { return allocate(out, bytes, false); }
// The memory is there for what comes after the call in its stream.
HIP_EXPORT HipError hipMallocAsync(void **out, size_t bytes, Stream *stream) {
  HipError error = allocate(out, bytes, false);
  if (error || !checks.order) return error;
  Operation op;
  order_begin(&op, stream, "hipMallocAsync");
  memory_made_by(*out, op.number);
  order_end(&op);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipMallocFromPoolAsync(void **out, size_t bytes, void *pool UNUSED, Stream *stream) {
  return hipMallocAsync(out, bytes, stream);
}
HIP_EXPORT HipError hipMallocManaged(void **out, size_t bytes, unsigned f UNUSED) { return allocate(out, bytes, true); }
HIP_EXPORT HipError hipHostMalloc(void **out, size_t bytes, unsigned f UNUSED) { return allocate(out, bytes, true); }
HIP_EXPORT HipError hipFree(void *address) { return release(address); }
HIP_EXPORT HipError hipFreeAsync(void *address, Stream *stream) {
  Operation op;
  Conflict conflict;
  order_begin(&op, stream, "hipFreeAsync");
  const Allocation *a = op.number && address ? memory_find((u64)address, 1) : NULL;
  HipError error = !a || order_check_free(&op, a, &conflict) ? HIP_SUCCESS : refuse(&op, a, &conflict, "release", a->bytes);
  order_end(&op);
  if (!error) memory_free(address);
  return error;
}
HIP_EXPORT HipError hipHostFree(void *address) { return release(address); }
HIP_EXPORT HipError hipHostRegister(void *address, size_t bytes, unsigned f UNUSED) {
  memory_register(address, bytes);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipHostUnregister(void *address) {
  memory_unregister(address);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipHostGetDevicePointer(void **out, void *host, unsigned f UNUSED) {
  *out = host;
  return HIP_SUCCESS;
}

// The calls without "Async" run in the default stream, and the host waits for it.
HIP_EXPORT HipError hipMemcpy(void *to, const void *from, size_t bytes, int kind UNUSED) {
  HipError error = copy_in(NULL, "hipMemcpy", to, from, bytes);
  order_host_waits_stream(NULL);
  return error;
}
HIP_EXPORT HipError hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind UNUSED, Stream *stream) {
  return copy_in(stream, "hipMemcpyAsync", to, from, bytes);
}
HIP_EXPORT HipError hipMemcpyHtoDAsync(void *to, const void *from, size_t bytes, Stream *stream) {
  return copy_in(stream, "hipMemcpyHtoDAsync", to, from, bytes);
}
HIP_EXPORT HipError hipMemset(void *to, int value, size_t bytes) {
  HipError error = fill_in(NULL, "hipMemset", to, (u32)value, 1, bytes);
  order_host_waits_stream(NULL);
  return error;
}
HIP_EXPORT HipError hipMemsetAsync(void *to, int value, size_t bytes, Stream *stream) {
  return fill_in(stream, "hipMemsetAsync", to, (u32)value, 1, bytes);
}
HIP_EXPORT HipError hipMemsetD8Async(void *to, unsigned char value, size_t count, Stream *stream) {
  return fill_in(stream, "hipMemsetD8Async", to, value, 1, count);
}
HIP_EXPORT HipError hipMemsetD16Async(void *to, unsigned short value, size_t count, Stream *stream) {
  return fill_in(stream, "hipMemsetD16Async", to, value, 2, count);
}
HIP_EXPORT HipError hipMemsetD32Async(void *to, int value, size_t count, Stream *stream) {
  return fill_in(stream, "hipMemsetD32Async", to, (u32)value, 4, count);
}
HIP_EXPORT HipError hipMemPrefetchAsync(const void *p UNUSED, size_t bytes UNUSED, int device UNUSED, void *s UNUSED) { return HIP_SUCCESS; }

HIP_EXPORT HipError hipMemPoolCreate(void **out, const void *properties UNUSED) {
  *out = malloc(1);
  return *out ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}
HIP_EXPORT HipError hipMemPoolDestroy(void *pool) {
  free(pool);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipMemPoolGetAttribute(void *pool UNUSED, int attribute UNUSED, void *value) {
  memset(value, 0, sizeof(u64));
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipMemPoolSetAttribute(void *pool UNUSED, int attribute UNUSED, void *value UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipMemPoolTrimTo(void *pool UNUSED, size_t bytes UNUSED) { return HIP_SUCCESS; }
