// HIP: memory, copies and pools. Device memory is host memory.
#include <stdlib.h>

#include "hip.h"
#include "memory.h"

HipError hip_copy(void *to, const void *from, size_t bytes) {
  memmove(to, from, bytes);
  memory_mark_written((u64)to, bytes);
  return HIP_SUCCESS;
}

HipError hip_fill(void *to, u32 value, u32 element_bytes, size_t count) {
  u8 *at = to;
  for (size_t i = 0; i < count; i++) memcpy(at + i * element_bytes, &value, element_bytes);
  memory_mark_written((u64)to, count * element_bytes);
  return HIP_SUCCESS;
}

static HipError allocate(void **out, size_t bytes, bool is_host) {
  *out = memory_allocate(bytes, is_host);
  hip_log("allocation of %zu bytes at %p", bytes, *out);
  if (*out) return HIP_SUCCESS;
  hip_set_message("no memory for an allocation of %zu bytes", bytes);
  return HIP_OUT_OF_MEMORY;
}

static HipError release(void *address) {
  memory_free(address);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipMalloc(void **out, size_t bytes) { return allocate(out, bytes, false); }
HIP_EXPORT HipError hipMallocAsync(void **out, size_t bytes, void *s UNUSED) { return allocate(out, bytes, false); }
HIP_EXPORT HipError hipMallocFromPoolAsync(void **out, size_t bytes, void *pool UNUSED, void *s UNUSED) {
  return allocate(out, bytes, false);
}
HIP_EXPORT HipError hipMallocManaged(void **out, size_t bytes, unsigned f UNUSED) { return allocate(out, bytes, true); }
HIP_EXPORT HipError hipHostMalloc(void **out, size_t bytes, unsigned f UNUSED) { return allocate(out, bytes, true); }
HIP_EXPORT HipError hipFree(void *address) { return release(address); }
HIP_EXPORT HipError hipFreeAsync(void *address, void *s UNUSED) { return release(address); }
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

HIP_EXPORT HipError hipMemcpy(void *to, const void *from, size_t bytes, int kind UNUSED) { return hip_copy(to, from, bytes); }
HIP_EXPORT HipError hipMemcpyAsync(void *to, const void *from, size_t bytes, int kind UNUSED, void *s UNUSED) {
  return hip_copy(to, from, bytes);
}
HIP_EXPORT HipError hipMemcpyHtoDAsync(void *to, const void *from, size_t bytes, void *s UNUSED) { return hip_copy(to, from, bytes); }
HIP_EXPORT HipError hipMemset(void *to, int value, size_t bytes) { return hip_fill(to, (u32)value, 1, bytes); }
HIP_EXPORT HipError hipMemsetAsync(void *to, int value, size_t bytes, void *s UNUSED) { return hip_fill(to, (u32)value, 1, bytes); }
HIP_EXPORT HipError hipMemsetD8Async(void *to, unsigned char value, size_t count, void *s UNUSED) { return hip_fill(to, value, 1, count); }
HIP_EXPORT HipError hipMemsetD16Async(void *to, unsigned short value, size_t count, void *s UNUSED) { return hip_fill(to, value, 2, count); }
HIP_EXPORT HipError hipMemsetD32Async(void *to, int value, size_t count, void *s UNUSED) { return hip_fill(to, (u32)value, 4, count); }
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
