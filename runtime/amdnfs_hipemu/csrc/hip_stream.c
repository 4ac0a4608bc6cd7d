// HIP: streams and events. All work is done when its call returns; what a stream has waited for is kept for the check
// `order`.
#include <stdlib.h>
#include <time.h>

#include "hip.h"

#define STREAM_NON_BLOCKING 1

typedef struct {
  struct timespec time;
  Clock clock;
} Event;

HIP_EXPORT HipError hipStreamCreateWithFlags(Stream **out, unsigned flags) {
  *out = order_stream_create(!(flags & STREAM_NON_BLOCKING));
  return *out ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}
HIP_EXPORT HipError hipStreamDestroy(Stream *stream) {
  order_stream_destroy(stream);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipStreamSynchronize(Stream *stream) {
  order_host_waits_stream(stream);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDeviceSynchronize(void) {
  order_host_waits_all();
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipStreamWaitEvent(Stream *stream, Event *event, unsigned flags UNUSED) {
  order_stream_waits(stream, &event->clock);
  return HIP_SUCCESS;
}
// The function may tell the host's threads what it knows, which is not seen: from here on they count as having waited.
HIP_EXPORT HipError hipLaunchHostFunc(Stream *stream, void (*call)(void *), void *argument) {
  order_host_waits_stream(stream);
  call(argument);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipEventCreate(Event **out) {
  *out = calloc(1, sizeof(Event));
  return *out ? HIP_SUCCESS : HIP_OUT_OF_MEMORY;
}
HIP_EXPORT HipError hipEventCreateWithFlags(Event **out, unsigned flags UNUSED) { return hipEventCreate(out); }
HIP_EXPORT HipError hipEventDestroy(Event *event) {
  clock_free(&event->clock);
  free(event);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipEventRecord(Event *event, Stream *stream) {
  clock_gettime(CLOCK_MONOTONIC, &event->time);
  order_record(&event->clock, stream);
  return HIP_SUCCESS;
}
void hip_record_node(void *event, const Clock *seen) {
  Clock *clock = &((Event *)event)->clock;
  clock_gettime(CLOCK_MONOTONIC, &((Event *)event)->time);
  clock_free(clock);
  clock_join(clock, seen);
}
// "Done" is known to the host from then on.
HIP_EXPORT HipError hipEventQuery(Event *event) {
  order_host_waits_event(&event->clock);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipEventSynchronize(Event *event) {
  order_host_waits_event(&event->clock);
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipEventElapsedTime(f32 *milliseconds, const Event *begin, const Event *end) {
  const struct timespec *a = &begin->time, *b = &end->time;
  *milliseconds = (f32)((f64)(b->tv_sec - a->tv_sec) * 1e3 + (f64)(b->tv_nsec - a->tv_nsec) * 1e-6);
  return HIP_SUCCESS;
}
