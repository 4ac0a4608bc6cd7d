// Checks that hardware does not make. AMDNFS_EMULATE_CHECKS names those wanted, separated by commas:
//   unwritten   a load of a byte of device memory or of the LDS that nobody wrote
//   races       two waves of a workgroup touch the same LDS byte without a barrier between, one of them writing a new
//               value
//   waits       a register is used before the wait for the load that fills it; an LDS byte is read, and the wave that
//               wrote it did not wait for that before the barrier
//   barriers    waves of a workgroup meet at different barriers, or one ends while others wait
//   order       an operation of a stream or of the host touches device memory whose writer or reader nobody waited for
//   all         all of these
// Accesses outside allocations, the LDS and the scratch memory are always checked.
#pragma once
#include "wave.h"

typedef struct {
  bool unwritten, races, waits, barriers, order;
} Checks;
extern Checks checks;
// Reads the environment. False, with a text in `message`, for a name that is not one of the above.
bool checks_init(char *message, size_t message_bytes);

// LDS: a shadow cell a byte holds who wrote last and who read since, each with the barrier epoch.
LdsShadow *lds_shadow_create(u32 bytes);
void lds_shadow_reset(LdsShadow *shadow);
void lds_shadow_free(LdsShadow *shadow);
// `value` is what a store is about to write (NULL for loads and atomics). False: a fault was raised.
bool lds_shadow_touch(Wave *w, const Inst *inst, u32 address, u32 bytes, const void *value, bool is_store,
                      bool is_atomic);

// Waits: what is outstanding, by counter, and which register waits for it.
WaitState *wait_state_create(void);
void wait_state_reset(WaitState *state);
void wait_state_free(WaitState *state);
// Called before an instruction executes: applies waits, checks the registers it uses, notes what it issues. False: a
// fault was raised.
bool wait_state_step(Wave *w, const Inst *inst);
// Called when the wave comes to a barrier.
void wait_state_barrier(WaitState *state);
// Number of the last operation that was issued, of those of a counter that return in order.
u32 wait_state_issued(const WaitState *state, WaitCounter counter);
// Whether that operation was waited for, now or (`at_barrier`) when the wave came to its last barrier.
bool wait_state_is_done(const WaitState *state, WaitCounter counter, u32 sequence, bool at_barrier);
// As the chip's assembly spells it.
const char *wait_counter_name(const Wave *w, WaitCounter counter);
