// The part of HIP's binary interface that IREE's driver uses. Everything runs at once, in the order of the calls: an
// asynchronous call has been done when it returns. What should have been waited for is kept by order.h.
// Source: hip_runtime_api.h and driver_types.h of ROCm 6 (constants and layouts).
#pragma once
#include <stdio.h>

#include "order.h"
#include "program.h"

#define HIP_EXPORT __attribute__((visibility("default")))

typedef int HipError;
enum {
  HIP_SUCCESS = 0,
  HIP_INVALID_VALUE = 1,
  HIP_OUT_OF_MEMORY = 2,
  HIP_NOT_INITIALIZED = 3,
  HIP_INVALID_IMAGE = 200,
  HIP_NO_BINARY_FOR_GPU = 209,
  HIP_NOT_FOUND = 500,
  HIP_LAUNCH_FAILURE = 719,
  HIP_NOT_SUPPORTED = 801,
};

typedef struct {
  Module *module;
} HipModule;

typedef struct {
  u32 x, y, z;
} HipDim3;

// The last error's text, of this thread; hipGetErrorString returns it.
const char *hipGetErrorString(HipError error);
void hip_set_message(const char *format, ...) __attribute__((format(printf, 1, 2)));
// One line to AMDNFS_EMULATE_LOG, if it is set.
void hip_log(const char *format, ...) __attribute__((format(printf, 1, 2)));
// Reads the environment once. HIP_INVALID_VALUE for a setting that cannot be read.
HipError hip_start(void);

// The chip that the device reports: AMDNFS_EMULATE_TARGET, or that of the code object loaded last. NULL: none yet.
const Chip *hip_chip(void);
// HIP_NO_BINARY_FOR_GPU if the device is another chip.
HipError hip_claim_chip(const Chip *chip);

// Puts a kernel's arguments together from HIP's array of pointers to each.
HipError hip_pack_arguments(const Kernel *kernel, void *const *parameters, u8 *out, u32 out_bytes);
#define MAX_ARGUMENT_BYTES 4096
// What an operation does once it has begun. HIP_LAUNCH_FAILURE, with the text of the fault, if a check stops it.
HipError hip_launch(const Kernel *kernel, HipDim3 grid, HipDim3 block, u32 dynamic_lds, const u8 *arguments, const Operation *op);
HipError hip_copy(void *to, const void *from, size_t bytes, const Operation *op);
HipError hip_fill(void *to, u32 value, u32 element_bytes, size_t count, const Operation *op);
// hipEventRecord by a node of a graph that comes after `seen`.
void hip_record_node(void *event, const Clock *seen);
