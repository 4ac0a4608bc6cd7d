// HIP: start, device and contexts, errors and the log.
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>

#include "checks.h"
#include "hip.h"

extern u64 wave_budget;

static __thread char message[1024] = "no error";
static FILE *log_file;
static const Chip *device_chip;
static bool is_chip_wanted;
static HipError start_error;
static pthread_once_t is_started = PTHREAD_ONCE_INIT;
static int context;   // only its address is used

void hip_set_message(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
}

void hip_log(const char *format, ...) {
  if (!log_file) return;
  va_list arguments;
  va_start(arguments, format);
  fputs("amdnfs-hipemu: ", log_file);
  vfprintf(log_file, format, arguments);
  fputc('\n', log_file);
  fflush(log_file);
  va_end(arguments);
}

static void refuse(const char *text) {
  start_error = HIP_INVALID_VALUE;
  hip_set_message("%s", text);
  fprintf(stderr, "amdnfs-hipemu: %s\n", text);
}

// A setting that is a number from `least` to `most`; `value` is left alone where there is none.
static void read_number(const char *name, u64 least, u64 most, const char *what, u64 *value) {
  const char *text = getenv(name);
  if (!text || !*text) return;
  char *end, message[256];
  u64 number = strtoull(text, &end, 0);
  if (!*end && *text != '-' && number >= least && number <= most) {
    *value = number;
    return;
  }
  snprintf(message, sizeof message, "%s=%s is no number of %s (%llu to %llu)", name, text, what, (unsigned long long)least,
           (unsigned long long)most);
  refuse(message);
}

static void start(void) {
  char text[256];
  const char *log = getenv("AMDNFS_EMULATE_LOG"), *target = getenv("AMDNFS_EMULATE_TARGET");
  if (log && *log) log_file = strcmp(log, "1") ? fopen(log, "a") : stderr;
  if (log && *log && !log_file) {
    snprintf(text, sizeof text, "AMDNFS_EMULATE_LOG=%s cannot be written", log);
    refuse(text);
  }
  if (!checks_init(text, sizeof text)) refuse(text);
  if (!counters_init(text, sizeof text)) refuse(text);
  if (target && *target) {
    device_chip = chip_by_name(target);
    is_chip_wanted = true;
    snprintf(text, sizeof text, "AMDNFS_EMULATE_TARGET=%s is no chip that the emulator knows", target);
    if (!device_chip) refuse(text);
  }
  u64 threads = 0, poison = 0;  // read again where they are used
  read_number("AMDNFS_EMULATE_BUDGET", 1, ~0ull, "instructions", &wave_budget);
  read_number("AMDNFS_EMULATE_THREADS", 1, 256, "threads", &threads);
  read_number("AMDNFS_EMULATE_POISON", 0, 255, "a byte", &poison);
}

HipError hip_start(void) {
  pthread_once(&is_started, start);
  return start_error;
}

const Chip *hip_chip(void) { return device_chip; }

HipError hip_claim_chip(const Chip *chip) {
  // Without a wish, the device is whatever each code object is for.
  if (!is_chip_wanted) device_chip = chip;
  if (device_chip == chip) return HIP_SUCCESS;
  hip_set_message("the code object is for %s, the emulated device is a %s", chip->name, device_chip->name);
  return HIP_NO_BINARY_FOR_GPU;
}

HIP_EXPORT HipError hipInit(unsigned flags UNUSED) { return hip_start(); }
HIP_EXPORT HipError hipGetDeviceCount(int *count) {
  *count = 1;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? HIP_SUCCESS : HIP_INVALID_VALUE;
}
HIP_EXPORT HipError hipDeviceGetName(char *name, int bytes, int device UNUSED) {
  snprintf(name, (size_t)bytes, "AMD-NFS emulator%s%s", device_chip ? " as " : "", device_chip ? device_chip->name : "");
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDeviceGetUuid(char *uuid, int device UNUSED) {
  memcpy(uuid, "amdnfs-emulator0", 16);
  return HIP_SUCCESS;
}

// hipDeviceAttribute_t, by number.
HIP_EXPORT HipError hipDeviceGetAttribute(int *value, int attribute, int device UNUSED) {
  switch (attribute) {
    case 26: case 27: case 28: *value = 1024; break;                   // MaxBlockDimX, Y, Z
    case 29: *value = 2147483647; break;                               // MaxGridDimX
    case 30: case 31: *value = 65535; break;                           // MaxGridDimY, Z
    case 56: *value = 1024; break;                                     // MaxThreadsPerBlock
    case 63: *value = device_chip ? (int)device_chip->compute_units : 64; break;
    // MaxSharedMemoryPerBlock. A device that takes any chip's code has what the largest has; launches check their own.
    case 74: *value = is_chip_wanted ? (int)device_chip->lds_bytes : 163840; break;
    case 87: *value = device_chip && device_chip->family != GFX9 ? 32 : 64; break;  // WarpSize
    default: *value = 0;
  }
  hip_log("attribute %d is %d", attribute, *value);
  return HIP_SUCCESS;
}

// hipDeviceProp_tR0000 up to the name of the chip; what follows stays as the caller left it.
typedef struct {
  char name[256];
  size_t total_memory, lds_bytes;
  int registers, wave_lanes, block_threads, block_dims[3], grid_dims[3], clock, memory_clock, memory_bus;
  size_t constant_bytes;
  int major, minor, compute_units, l2_bytes, threads_a_unit, compute_mode, instruction_clock;
  unsigned features;
  int concurrent_kernels, pci_domain, pci_bus, pci_device;
  size_t lds_bytes_a_unit;
  int is_multi_gpu, can_map_host, gcn_arch;
  char gcn_name[256];
} Properties;

HIP_EXPORT HipError hipGetDeviceProperties(Properties *out, int device) {
  if (!device_chip) {
    hip_set_message("no chip is chosen yet: set AMDNFS_EMULATE_TARGET");
    return HIP_NOT_SUPPORTED;
  }
  memset(out, 0, sizeof *out);
  hipDeviceGetName(out->name, sizeof out->name, device);
  out->total_memory = 64ull << 30;
  out->lds_bytes = out->lds_bytes_a_unit = device_chip->lds_bytes;
  out->wave_lanes = device_chip->family == GFX9 ? 64 : 32;
  out->block_threads = out->block_dims[0] = out->block_dims[1] = out->block_dims[2] = 1024;
  out->grid_dims[0] = 2147483647, out->grid_dims[1] = out->grid_dims[2] = 65535;
  out->compute_units = (int)device_chip->compute_units;
  snprintf(out->gcn_name, sizeof out->gcn_name, "%s", device_chip->name);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipCtxSetCurrent(void *c UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipCtxPushCurrent(void *c UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipCtxGetCurrent(void **out) {
  *out = &context;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipCtxPopCurrent(void **out) {
  if (out) *out = &context;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDevicePrimaryCtxRetain(void **out, int device UNUSED) {
  *out = &context;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDevicePrimaryCtxRelease(int device UNUSED) { return HIP_SUCCESS; }
HIP_EXPORT HipError hipSetDevice(unsigned device) { return device == 0 ? HIP_SUCCESS : HIP_INVALID_VALUE; }
HIP_EXPORT HipError hipDeviceCanAccessPeer(int *can, int device, int peer) {
  *can = device == peer;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipDeviceEnablePeerAccess(int peer UNUSED, unsigned flags UNUSED) { return HIP_SUCCESS; }

HIP_EXPORT const char *hipGetErrorName(HipError error) {
  switch (error) {
    case HIP_SUCCESS: return "hipSuccess";
    case HIP_INVALID_VALUE: return "hipErrorInvalidValue";
    case HIP_OUT_OF_MEMORY: return "hipErrorOutOfMemory";
    case HIP_NOT_INITIALIZED: return "hipErrorNotInitialized";
    case HIP_INVALID_IMAGE: return "hipErrorInvalidImage";
    case HIP_NO_BINARY_FOR_GPU: return "hipErrorNoBinaryForGpu";
    case HIP_NOT_FOUND: return "hipErrorNotFound";
    case HIP_LAUNCH_FAILURE: return "hipErrorLaunchFailure";
    case HIP_NOT_SUPPORTED: return "hipErrorNotSupported";
    default: return "hipErrorUnknown";
  }
}
HIP_EXPORT const char *hipGetErrorString(HipError error) { return error ? message : "no error"; }
HIP_EXPORT HipError hipGetLastError(void) { return HIP_SUCCESS; }
