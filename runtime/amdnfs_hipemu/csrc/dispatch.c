// Runs the workgroups of a launch: sets up waves, runs them between barriers, checks how they meet there.
#include "dispatch.h"

#include <stdio.h>
#include <stdlib.h>

#include "checks.h"
#include "wave.h"

#define LDS_GARBAGE 0xcd   // what unwritten LDS holds
#define PACKET_BYTES 64

typedef struct {
  Dispatch *dispatch;
  u64 next;               // workgroup to take, atomically
  u64 num_groups;
  Counters total;
  int total_lock;
} Job;

// Per thread: the waves of one workgroup and their memory.
typedef struct {
  Workgroup group;
  Wave *waves;
  Wave **pointers;
  u8 *scratch;
  WaitState **waits;
} Room;

static u32 num_waves_of(const Dispatch *d) {
  u64 threads = (u64)d->block[0] * d->block[1] * d->block[2];
  return (u32)((threads + d->kernel->lanes - 1) / d->kernel->lanes);
}

static void close_room(Room *room) {
  for (u32 i = 0; room->waits && i < room->group.num_waves; i++) wait_state_free(room->waits[i]);
  if (room->group.shadow) lds_shadow_free(room->group.shadow);
  free(room->waits);
  free(room->scratch);
  free(room->group.lds);
  free(room->pointers);
  free(room->waves);
}

static bool open_room(Room *room, Dispatch *d) {
  u32 num_waves = num_waves_of(d);
  size_t scratch = (size_t)d->kernel->scratch_bytes * MAX_LANES * num_waves;
  *room = (Room){.group = {.dispatch = d, .num_waves = num_waves, .lds_bytes = d->lds_bytes}};
  room->waves = aligned_alloc(64, sizeof(Wave) * num_waves);
  room->pointers = calloc(num_waves, sizeof(Wave *));
  room->waits = calloc(num_waves, sizeof(WaitState *));
  room->group.lds = aligned_alloc(64, (d->lds_bytes + 127) & ~63u);
  room->scratch = scratch ? aligned_alloc(64, (scratch + 63) & ~63ull) : NULL;
  bool is_ok = room->waves && room->pointers && room->waits && room->group.lds && (room->scratch || !scratch);
  if (is_ok && (checks.races || checks.waits || checks.unwritten)) is_ok = (room->group.shadow = lds_shadow_create(d->lds_bytes)) != NULL;
  for (u32 i = 0; is_ok && i < num_waves; i++) {
    room->pointers[i] = &room->waves[i];
    if (checks.waits) is_ok = (room->waits[i] = wait_state_create()) != NULL;
  }
  room->group.waves = room->pointers;
  return is_ok;
}

// "Initial kernel execution state" of LLVM's AMDGPUUsage: user SGPRs in the order of the kernel code properties, then
// the workgroup's ids; RDNA4 has the ids in TTMP9 and TTMP7, and the wave's number in TTMP8 bits 29:25.
static void set_scalars(Wave *w, const Dispatch *d, const u32 *id) {
  const Kernel *kernel = d->kernel;
  u32 at = 0, properties = kernel->properties;
  u64 kernarg = (u64)d->kernarg, packet = kernarg + d->kernarg_bytes - PACKET_BYTES, scratch = (u64)w->scratch;
  if (properties & 1) {  // private segment buffer: swizzled, 64 lanes of dwords
    w->s[at] = (u32)scratch;
    w->s[at + 1] = (u32)(scratch >> 32 & 0xffff) | 1u << 31;
    w->s[at + 2] = ~0u;
    w->s[at + 3] = 3u << 21 | 1u << 19 | 1u << 23;
    at += 4;
  }
  if (properties & 2) w->s[at] = (u32)packet, w->s[at + 1] = (u32)(packet >> 32), at += 2;
  if (properties & 4) at += 2;  // queue
  if (properties & 8) w->s[at] = (u32)kernarg, w->s[at + 1] = (u32)(kernarg >> 32), at += 2;
  at = kernel->rsrc2 >> 1 & 31;
  if (kernel->module->chip->family == GFX12) {
    w->s[SGPR_TTMP0 + 9] = id[0];
    w->s[SGPR_TTMP0 + 7] = (id[1] & 0xffff) | id[2] << 16;
    w->s[SGPR_TTMP0 + 8] = (u32)w->index << 25;
    return;
  }
  for (int axis = 0; axis < 3; axis++)
    if (kernel->rsrc2 >> (7 + axis) & 1) w->s[at++] = id[axis];
  // Workgroup info and the scratch wave offset stay 0.
}

static void set_ids(Wave *w, const Dispatch *d) {
  const Chip *chip = d->kernel->module->chip;
  bool is_packed = chip->family == GFX9 || chip->family >= GFX11;
  u32 threads = d->block[0] * d->block[1] * d->block[2], first = w->index * w->lanes;
  u64 exec = 0;
  for (u32 l = 0; l < w->lanes && first + l < threads; l++) {
    u32 thread = first + l, x = thread % d->block[0], y = thread / d->block[0] % d->block[1];
    u32 z = thread / (d->block[0] * d->block[1]);
    w->v[0][l] = is_packed ? x | y << 10 | z << 20 : x;
    if (!is_packed) w->v[1][l] = y, w->v[2][l] = z;
    exec |= 1ull << l;
  }
  w->s[SGPR_EXEC] = (u32)exec;
  w->s[SGPR_EXEC + 1] = (u32)(exec >> 32);
}

static void start_wave(Room *room, u32 index, const u32 *id, Counters *counters) {
  const Dispatch *d = room->group.dispatch;
  const Kernel *kernel = d->kernel;
  Wave *w = &room->waves[index];
  memset(w->v, 0, kernel->used_vgprs * sizeof w->v[0]);
  if (kernel->used_accs) memset(w->v[256], 0, kernel->used_accs * sizeof w->v[0]);
  memset(w->exec_lanes, 0, sizeof(Wave) - offsetof(Wave, exec_lanes));
  w->mode = kernel->rsrc1 >> 12 & 0xff;
  w->lanes = kernel->lanes;
  w->index = (u8)index;
  w->kernel = kernel;
  w->group = &room->group;
  w->counters = counters;
  w->waits = room->waits[index];
  if (w->waits) wait_state_reset(w->waits);
  if (room->scratch) w->scratch = room->scratch + (size_t)index * kernel->scratch_bytes * MAX_LANES;
  set_scalars(w, d, id);
  set_ids(w, d);
}

static void check_barrier(Room *room) {
  const Wave *first = room->waves;
  while (first->status != WAVE_AT_BARRIER) first++;
  for (u32 i = 0; i < room->group.num_waves; i++) {
    Wave *w = &room->waves[i];
    if (w->status == WAVE_ENDED)
      raise_fault(w, first->barrier, FAULT_DIVERGENT_BARRIER, "it has ended while wave %u waits at this barrier", first->index);
    else if (w->barrier != first->barrier)
      raise_fault(w, w->barrier, FAULT_DIVERGENT_BARRIER, "it waits at this barrier, wave %u at the one at pc 0x%x", first->index,
                  first->barrier->pc);
  }
}

// Runs every wave up to the next barrier or its end. False: nothing is left to run.
static bool run_phase(Room *room) {
  bool waits = false;
  for (u32 i = 0; i < room->group.num_waves; i++) {
    Wave *w = &room->waves[i];
    if (w->status == WAVE_RUNS) wave_run(w);
    if (w->status == WAVE_FAULTED) return false;
    waits |= w->status == WAVE_AT_BARRIER;
  }
  if (waits && checks.barriers) check_barrier(room);
  for (u32 i = 0; i < room->group.num_waves; i++) {
    Wave *w = &room->waves[i];
    if (w->status == WAVE_FAULTED) return false;
    if (w->status != WAVE_AT_BARRIER) continue;
    w->status = WAVE_RUNS;
    w->is_signalled = false;
    w->barriers_passed++;
  }
  return waits;
}

static void run_group(Room *room, u64 number, Counters *counters) {
  const Dispatch *d = room->group.dispatch;
  u32 id[3] = {(u32)(number % d->grid[0]), (u32)(number / d->grid[0] % d->grid[1]),
               (u32)(number / ((u64)d->grid[0] * d->grid[1]))};
  memcpy(room->group.id, id, sizeof id);
  memset(room->group.lds, LDS_GARBAGE, room->group.lds_bytes);
  if (room->group.shadow) lds_shadow_reset(room->group.shadow);
  for (u32 i = 0; i < room->group.num_waves; i++) start_wave(room, i, id, counters);
  counters->waves += room->group.num_waves;
  while (run_phase(room)) {
  }
}

static void run_groups(void *argument, u32 thread) {
  (void)thread;
  Job *job = argument;
  Counters counters = {0};
  Room room;
  if (open_room(&room, job->dispatch)) {
    for (;;) {
      u64 number = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
      if (number >= job->num_groups || __atomic_load_n(&job->dispatch->has_fault, __ATOMIC_ACQUIRE)) break;
      run_group(&room, number, &counters);
    }
  }
  else if (!__atomic_exchange_n(&job->dispatch->has_fault, 1, __ATOMIC_ACQ_REL)) {
    Fault *fault = &job->dispatch->fault;
    fault->name = "no-memory";
    snprintf(fault->message, sizeof fault->message, "no-memory in kernel %s: there is none for the %u waves of a workgroup",
             job->dispatch->kernel->name, room.group.num_waves);
  }
  close_room(&room);
  while (__atomic_exchange_n(&job->total_lock, 1, __ATOMIC_ACQUIRE)) {
  }
  counters_add(&job->total, &counters);
  __atomic_store_n(&job->total_lock, 0, __ATOMIC_RELEASE);
}

int dispatch_run(Dispatch *dispatch, Counters *counters) {
  Job job = {.dispatch = dispatch, .num_groups = (u64)dispatch->grid[0] * dispatch->grid[1] * dispatch->grid[2]};
  dispatch->has_fault = 0;
  if (job.num_groups > 1) pool_run(run_groups, &job);
  else run_groups(&job, 0);
  *counters = job.total;
  return dispatch->has_fault ? -1 : 0;
}
