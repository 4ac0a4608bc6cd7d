// HIP: code objects and launches.
#include <stdlib.h>
#include <time.h>

#include "checks.h"
#include "dispatch.h"
#include "hip.h"

#define PACKET_BYTES 64
#define MAX_ELF_BYTES (1ull << 28)
#define MAX_SCRATCH_BYTES (1u << 20)   // of a lane; more than any chip has

static u64 num_dispatches;

static void log_unknown(const Module *module) {
  for (u32 k = 0; k < module->num_kernels; k++)
    for (u32 i = 0; i < module->kernels[k].num_insts; i++) {
      const Inst *inst = &module->kernels[k].insts[i];
      if (!inst->execute)
        hip_log("kernel %s has an instruction that the emulator does not know: %s (0x%08x) at pc 0x%x",
                module->kernels[k].name, inst->name ? inst->name : "?", inst->word, inst->pc);
    }
}

// Bytes from `address` on that can be read: HIP's calls do not say how long a code object is, and a damaged one may say
// more than there is.
static u64 readable_bytes(const void *address) {
  FILE *maps = fopen("/proc/self/maps", "r");
  if (!maps) return MAX_ELF_BYTES;
  char line[512];
  unsigned long long begin, end, reached = (u64)address;
  bool is_line_start = true;
  while (reached - (u64)address < MAX_ELF_BYTES && fgets(line, sizeof line, maps)) {
    char may_read;
    bool is_entry = is_line_start && sscanf(line, "%llx-%llx %c", &begin, &end, &may_read) == 3;
    is_line_start = strchr(line, '\n') != NULL;
    if (is_entry && begin <= reached && reached < end && may_read == 'r') reached = end;
  }
  fclose(maps);
  u64 bytes = reached - (u64)address;
  return bytes < MAX_ELF_BYTES ? bytes : MAX_ELF_BYTES;
}

HIP_EXPORT HipError hipModuleLoadDataEx(HipModule **out, const void *image, unsigned n UNUSED, int *options UNUSED,
                                        void **values UNUSED) {
  char text[256];
  HipError error = hip_start();
  if (error) return error;
  Module *module = module_load(image, readable_bytes(image), text, sizeof text);
  if (!module) {
    hip_set_message("%s", text);
    return HIP_INVALID_IMAGE;
  }
  error = hip_claim_chip(module->chip);
  *out = error ? NULL : malloc(sizeof(HipModule));
  if (!*out) {
    module_free(module);
    return error ? error : HIP_OUT_OF_MEMORY;
  }
  (*out)->module = module;
  hip_log("code object %016llx for %s with %u kernels", (unsigned long long)module->digest, module->chip->name, module->num_kernels);
  log_unknown(module);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipModuleLoadData(HipModule **out, const void *image) { return hipModuleLoadDataEx(out, image, 0, NULL, NULL); }

HIP_EXPORT HipError hipModuleUnload(HipModule *module) {
  module_free(module->module);
  free(module);
  return HIP_SUCCESS;
}

HIP_EXPORT HipError hipModuleGetGlobal(void **out UNUSED, size_t *bytes UNUSED, HipModule *module UNUSED, const char *name) {
  hip_set_message("the emulator has no global variables: %s", name);
  return HIP_NOT_FOUND;
}

HIP_EXPORT HipError hipModuleGetFunction(Kernel **out, HipModule *module, const char *name) {
  *out = module_find(module->module, name);
  if (!*out) hip_set_message("the code object has no kernel %s", name);
  return *out ? HIP_SUCCESS : HIP_NOT_FOUND;
}

// hipFuncAttribute: 0 most threads, 1 LDS, 3 scratch, 4 registers.
HIP_EXPORT HipError hipFuncGetAttribute(int *value, int attribute, const Kernel *kernel) {
  *value = attribute == 0 ? 1024 : attribute == 1 ? (int)kernel->lds_bytes : attribute == 3 ? (int)kernel->scratch_bytes : (int)kernel->used_vgprs;
  return HIP_SUCCESS;
}
HIP_EXPORT HipError hipFuncSetAttribute(const void *kernel UNUSED, int attribute UNUSED, int value UNUSED) { return HIP_SUCCESS; }

HipError hip_pack_arguments(const Kernel *kernel, void *const *parameters, u8 *out, u32 out_bytes) {
  memset(out, 0, out_bytes);
  for (u32 i = 0; i < kernel->num_args; i++) {
    const KernelArg *arg = &kernel->args[i];
    if (arg->offset + arg->size > out_bytes || !parameters) {
      hip_set_message("the arguments of kernel %s do not fit", kernel->name);
      return HIP_INVALID_VALUE;
    }
    memcpy(out + arg->offset, parameters[i], arg->size);
  }
  return HIP_SUCCESS;
}

// Hidden arguments: "hidden_block_count_x" and its fellows, in the order of HIDDEN_NAMES in image.c.
static void fill_hidden(const Dispatch *d) {
  const Kernel *kernel = d->kernel;
  for (int h = 0; h < NUM_HIDDEN; h++) {
    if (kernel->hidden[h] == UINT32_MAX || kernel->hidden[h] + 4 > d->kernarg_bytes - PACKET_BYTES) continue;
    u8 *at = d->kernarg + kernel->hidden[h];
    u16 small = h < 6 ? (u16)d->block[h % 3] : 0;
    if (h == 9) small = d->grid[2] * d->block[2] > 1 ? 3 : d->grid[1] * d->block[1] > 1 ? 2 : 1;
    if (h < 3) memcpy(at, &d->grid[h], 4);
    else memcpy(at, &small, 2);
  }
}

// The dispatch packet (hsa_kernel_dispatch_packet_t) for kernels that ask for its address.
static void fill_packet(const Dispatch *d) {
  u8 *packet = d->kernarg + d->kernarg_bytes - PACKET_BYTES;
  for (int axis = 0; axis < 3; axis++) {
    u16 threads = (u16)d->block[axis];
    u32 grid = d->grid[axis] * d->block[axis];
    memcpy(packet + 4 + 2 * axis, &threads, 2);
    memcpy(packet + 12 + 4 * axis, &grid, 4);
  }
  memcpy(packet + 24, &d->kernel->scratch_bytes, 4);
  memcpy(packet + 28, &d->lds_bytes, 4);
}

static HipError run(Dispatch *d) {
  Counters counters;
  struct timespec begin, end;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  int status = dispatch_run(d, &counters);
  clock_gettime(CLOCK_MONOTONIC, &end);
  f64 seconds = (f64)(end.tv_sec - begin.tv_sec) + (f64)(end.tv_nsec - begin.tv_nsec) * 1e-9;
  counters_write(d, &counters, seconds);
  u64 executed = 0;
  for (int c = 0; c < NUM_CLASSES; c++) executed += counters.instructions[c];
  hip_log("dispatch %llu of %s: grid [%u, %u, %u] of [%u, %u, %u], %llu wave instructions in %.3f ms%s%s",
          (unsigned long long)d->number, d->kernel->name, d->grid[0], d->grid[1], d->grid[2], d->block[0], d->block[1],
          d->block[2], (unsigned long long)executed, seconds * 1e3, status ? ": " : "", status ? d->fault.message : "");
  if (!status) return HIP_SUCCESS;
  hip_set_message("%s", d->fault.message);
  fprintf(stderr, "amdnfs-hipemu: %s\n", d->fault.message);
  return HIP_LAUNCH_FAILURE;
}

HipError hip_launch(const Kernel *kernel, HipDim3 grid, HipDim3 block, u32 dynamic_lds, const u8 *arguments, const Operation *op) {
  u32 bytes = kernel->kernarg_bytes > 256 ? kernel->kernarg_bytes : 256;
  u64 threads = (u64)block.x * block.y * block.z;
  if (threads == 0 || threads > 1024) {
    hip_set_message("kernel %s: a workgroup of %llu threads", kernel->name, (unsigned long long)threads);
    return HIP_INVALID_VALUE;
  }
  Dispatch d = {.kernel = kernel, .operation = op, .grid = {grid.x, grid.y, grid.z}, .block = {block.x, block.y, block.z}};
  u64 lds_bytes = (u64)kernel->lds_bytes + dynamic_lds;
  if (lds_bytes > kernel->module->chip->lds_bytes) {
    hip_set_message("kernel %s asks for %llu bytes of LDS; %s has %u", kernel->name, (unsigned long long)lds_bytes,
                    kernel->module->chip->name, kernel->module->chip->lds_bytes);
    return HIP_INVALID_VALUE;
  }
  d.lds_bytes = (u32)lds_bytes;
  if (kernel->scratch_bytes > MAX_SCRATCH_BYTES) {
    hip_set_message("kernel %s asks for %u bytes of private memory a lane; %u are possible", kernel->name,
                    kernel->scratch_bytes, MAX_SCRATCH_BYTES);
    return HIP_INVALID_VALUE;
  }
  d.kernarg_bytes = ((bytes + 63) & ~63u) + PACKET_BYTES;
  d.number = __atomic_add_fetch(&num_dispatches, 1, __ATOMIC_RELAXED);
  d.kernarg = aligned_alloc(64, d.kernarg_bytes);
  if (!d.kernarg) return HIP_OUT_OF_MEMORY;
  memset(d.kernarg, 0, d.kernarg_bytes);
  memcpy(d.kernarg, arguments, bytes < MAX_ARGUMENT_BYTES ? bytes : MAX_ARGUMENT_BYTES);
  fill_hidden(&d);
  fill_packet(&d);
  HipError error = run(&d);
  free(d.kernarg);
  return error;
}

HIP_EXPORT HipError hipModuleLaunchKernel(Kernel *kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                                          unsigned bz, unsigned lds, Stream *stream, void **parameters, void **extra) {
  u8 arguments[MAX_ARGUMENT_BYTES];
  if (extra) {
    hip_set_message("kernel %s: arguments in `extra` are not supported", kernel->name);
    return HIP_NOT_SUPPORTED;
  }
  HipError error = hip_pack_arguments(kernel, parameters, arguments, sizeof arguments);
  if (error) return error;
  Operation op;
  order_begin(&op, stream, checks.order ? order_intern(kernel->name) : NULL);
  error = hip_launch(kernel, (HipDim3){gx, gy, gz}, (HipDim3){bx, by, bz}, lds, arguments, &op);
  order_end(&op);
  return error;
}

HIP_EXPORT HipError hipLaunchKernel(const void *function UNUSED, HipDim3 grid UNUSED, HipDim3 block UNUSED, void **p UNUSED,
                                    size_t lds UNUSED, void *s UNUSED) {
  hip_set_message("hipLaunchKernel needs a host stub; only hipModuleLaunchKernel is supported");
  return HIP_NOT_SUPPORTED;
}
