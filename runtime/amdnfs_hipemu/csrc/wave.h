// State of a wave and of a workgroup while they run.
#pragma once
#include "counters.h"
#include "program.h"

typedef struct Dispatch Dispatch;
typedef struct Workgroup Workgroup;
typedef struct LdsShadow LdsShadow;
typedef struct WaitState WaitState;

typedef enum { WAVE_RUNS, WAVE_AT_BARRIER, WAVE_ENDED, WAVE_FAULTED } WaveStatus;

struct Wave {
  VECTOR_ALIGNED u32 v[MAX_VGPRS][MAX_LANES];
  VECTOR_ALIGNED u32 exec_lanes[MAX_LANES];  // EXEC as 0 or ~0 for each lane; valid for exec_seen
  u64 exec_seen;
  u32 s[128];                // SGPRs, VCC, TTMPs, M0 and EXEC by their SSRC numbers; s[SGPR_NULL] stays 0
  u32 scc;                   // 0 or 1
  u32 mode;                  // MODE register: round 3:0, denormals 7:4 (see "Mode register" of the ISA documents)
  u32 pc;                    // index of the next instruction in kernel->insts
  u32 lanes;                 // 32 or 64
  u8 status;                 // WaveStatus
  u8 index;                  // number of the wave in its workgroup
  bool is_signalled;         // split barriers: it has signalled but not waited
  bool vgpr_index_mode;      // GFX9: s_set_gpr_idx_on is in force
  const Inst *barrier;       // that it came to last, for the check of divergent barriers
  u32 barriers_passed;       // of the workgroup's barrier
  u64 executed;              // instructions of this wave so far
  u8 *scratch;               // lane l's private memory begins at scratch + l * scratch_bytes
  const Kernel *kernel;
  Workgroup *group;
  Counters *counters;        // of the thread that runs the wave
  WaitState *waits;          // NULL unless waits are checked
};

struct Workgroup {
  const Dispatch *dispatch;
  u32 id[3];
  u32 num_waves;
  Wave **waves;
  u8 *lds;
  u32 lds_bytes;
  LdsShadow *shadow;         // NULL unless races, waits or unwritten bytes are checked
};

static inline u64 exec_of(const Wave *w) {
  return w->lanes == 64 ? w->s[SGPR_EXEC] | (u64)w->s[SGPR_EXEC + 1] << 32 : w->s[SGPR_EXEC];
}
static inline u64 full_exec(const Wave *w) { return w->lanes == 64 ? ~0ull : 0xffffffffull; }

// EXEC as lanes, made anew if EXEC changed.
const u32 *exec_lanes(Wave *w);

// Runs a wave until it ends, faults or stands at a barrier.
void wave_run(Wave *w);
