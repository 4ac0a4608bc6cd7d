// HIP: streams and events. All work is done when its call returns, so that streams have no state.
#include <stdlib.h>
#include <time.h>

#include "hip.h"

typedef struct {
  struct timespec time;
} Event;

static HipError make(void **out, size_t bytes) {
  *out = calloc(1, bytes);
  return *out ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}

HIP_EXPORT HipError hipStreamCreateWithFlags(void **out, unsigned flags UNUSED) { return make(out, 1); }
HIP_EXPORT HipError hipStreamDestroy(void *stream) {
  free(stream);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipStreamSynchronize(void *stream UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipStreamWaitEvent(void *stream UNUSED, void *event UNUSED, unsigned flags UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipLaunchHostFunc(void *stream UNUSED, void (*call)(void *), void *argument) {
  call(argument);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipEventCreate(void **out) { return make(out, sizeof(Event)); }
HIP_EXPORT HipError hipEventCreateWithFlags(void **out, unsigned flags UNUSED) { return make(out, sizeof(Event)); }
HIP_EXPORT HipError hipEventDestroy(void *event) {
  free(event);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipEventRecord(void *event, void *stream UNUSED) {
  clock_gettime(CLOCK_MONOTONIC, &((Event *)event)->time);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipEventQuery(void *event UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipEventSynchronize(void *event UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipEventElapsedTime(f32 *milliseconds, void *begin, void *end) {
  const struct timespec *a = &((Event *)begin)->time, *b = &((Event *)end)->time;
  *milliseconds = (f32)((f64)(b->tv_sec - a->tv_sec) * 1e3 + (f64)(b->tv_nsec - a->tv_nsec) * 1e-6);
  return HIP_SUCCESS;
}
