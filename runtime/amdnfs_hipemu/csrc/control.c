// Branches, barriers, waits and the rest of SOPP; jumps through registers.
#include "checks.h"
#include "faults.h"
#include "lanes.h"
#include "tables.h"

static void jump_to_index(Wave *w, const Inst *inst, u32 index) {
  if (index == UINT32_MAX) raise_fault(w, inst, FAULT_JUMP, "the branch leaves the code of the kernel");
  else w->pc = index;
}

static void run_branch(Wave *w, const Inst *inst) { jump_to_index(w, inst, inst->target); }

enum { IF_SCC0, IF_SCC1, IF_VCCZ, IF_VCCNZ, IF_EXECZ, IF_EXECNZ, NEVER };

static void run_branch_if(Wave *w, const Inst *inst) {
  u64 vcc = w->lanes == 64 ? w->s[SGPR_VCC] | (u64)w->s[SGPR_VCC + 1] << 32 : w->s[SGPR_VCC];
  bool is_taken = false;
  switch (inst->semantics->detail) {
    case IF_SCC0: is_taken = !w->scc; break;
    case IF_SCC1: is_taken = w->scc; break;
    case IF_VCCZ: is_taken = vcc == 0; break;
    case IF_VCCNZ: is_taken = vcc != 0; break;
    case IF_EXECZ: is_taken = exec_of(w) == 0; break;
    case IF_EXECNZ: is_taken = exec_of(w) != 0; break;
  }
  if (is_taken) jump_to_index(w, inst, inst->target);
}

static void jump_to_address(Wave *w, const Inst *inst, u64 address) {
  const Kernel *kernel = w->kernel;
  u64 offset = address - (u64)kernel->module->image - kernel->entry;
  jump_to_index(w, inst, offset < kernel->code_bytes && offset % 4 == 0 ? kernel->inst_of_pc[offset / 4] : UINT32_MAX);
}

static u64 address_after(const Wave *w, const Inst *inst) { return (u64)w->kernel->module->image + inst->next_pc; }

static void run_getpc(Wave *w, const Inst *inst) { write_scalar64(w, &inst->dst, address_after(w, inst)); }
static void run_setpc(Wave *w, const Inst *inst) { jump_to_address(w, inst, read_scalar64(w, &inst->src[0])); }
static void run_swappc(Wave *w, const Inst *inst) {
  u64 target = read_scalar64(w, &inst->src[0]);
  write_scalar64(w, &inst->dst, address_after(w, inst));
  jump_to_address(w, inst, target);
}
static void run_call(Wave *w, const Inst *inst) {
  write_scalar64(w, &inst->dst, address_after(w, inst));
  jump_to_index(w, inst, inst->target);
}

static void run_endpgm(Wave *w, const Inst *inst UNUSED) { w->status = WAVE_ENDED; }

static void stand_at_barrier(Wave *w, const Inst *inst) {
  w->barrier = inst;
  w->status = WAVE_AT_BARRIER;
}

static void run_barrier(Wave *w, const Inst *inst) {
  if (w->waits) wait_state_barrier(w->waits);
  stand_at_barrier(w, inst);
}

// RDNA4 splits the barrier: "S_BARRIER_SIGNAL -1" announces, "S_BARRIER_WAIT -1" waits for all.
static void run_barrier_signal(Wave *w, const Inst *inst UNUSED) {
  if (w->waits) wait_state_barrier(w->waits);
  w->is_signalled = true;
}
static void run_barrier_signal_isfirst(Wave *w, const Inst *inst) {
  w->scc = 1;
  for (u32 i = 0; i < w->group->num_waves; i++)
    if (w->group->waves[i]->is_signalled) w->scc = 0;
  run_barrier_signal(w, inst);
}
static void run_barrier_wait(Wave *w, const Inst *inst) {
  if (!w->is_signalled) {
    raise_fault(w, inst, FAULT_DIVERGENT_BARRIER, "the wave waits at a barrier that it has not signalled");
    return;
  }
  stand_at_barrier(w, inst);
}

static void run_nothing(Wave *w UNUSED, const Inst *inst UNUSED) {}

static void run_trap(Wave *w, const Inst *inst) { raise_fault(w, inst, FAULT_TRAP, "s_trap %u", inst->imm); }

// "S_ROUND_MODE, S_DENORM_MODE": the low and the high half of MODE's float byte.
static void run_round_mode(Wave *w, const Inst *inst) { w->mode = (w->mode & ~15u) | (inst->imm & 15); }
static void run_denorm_mode(Wave *w, const Inst *inst) { w->mode = (w->mode & ~0xf0u) | (inst->imm & 15) << 4; }

// Clocks count executed instructions: programs that measure see time pass, and runs repeat.
static void run_clock(Wave *w, const Inst *inst) { write_scalar64(w, &inst->dst, w->executed * 4); }

#define CONTROL(K, CLASS) K, NULL, 0, {0}, CLASS, 0
#define BRANCH(CONDITION) run_branch_if, NULL, 0, {0}, CLASS_BRANCH, CONDITION

static const Semantics entries[] = {
    {"s_branch", CONTROL(run_branch, CLASS_BRANCH)},
    {"s_cbranch_scc0", BRANCH(IF_SCC0)},
    {"s_cbranch_scc1", BRANCH(IF_SCC1)},
    {"s_cbranch_vccz", BRANCH(IF_VCCZ)},
    {"s_cbranch_vccnz", BRANCH(IF_VCCNZ)},
    {"s_cbranch_execz", BRANCH(IF_EXECZ)},
    {"s_cbranch_execnz", BRANCH(IF_EXECNZ)},
    {"s_cbranch_cdbgsys s_cbranch_cdbguser s_cbranch_cdbgsys_or_user s_cbranch_cdbgsys_and_user", BRANCH(NEVER)},
    {"s_getpc_b64", run_getpc, NULL, TYPE_B64, {0}, CLASS_BRANCH, 0},
    {"s_setpc_b64", run_setpc, NULL, 0, {TYPE_B64}, CLASS_BRANCH, 0},
    {"s_swappc_b64", run_swappc, NULL, TYPE_B64, {TYPE_B64}, CLASS_BRANCH, 0},
    {"s_call_b64", run_call, NULL, TYPE_B64, {0}, CLASS_BRANCH, 0},
    {"s_endpgm s_endpgm_saved s_endpgm_ordered_ps_done", CONTROL(run_endpgm, CLASS_BRANCH)},
    {"s_barrier", CONTROL(run_barrier, CLASS_BARRIER)},
    {"s_barrier_signal", run_barrier_signal, NULL, 0, {TYPE_B32}, CLASS_BARRIER, 0},
    {"s_barrier_signal_isfirst", run_barrier_signal_isfirst, NULL, 0, {TYPE_B32}, CLASS_BARRIER, 0},
    {"s_barrier_wait", CONTROL(run_barrier_wait, CLASS_BARRIER)},
    {"s_trap", CONTROL(run_trap, CLASS_BRANCH)},
    {"s_round_mode", CONTROL(run_round_mode, CLASS_SALU)},
    {"s_denorm_mode", CONTROL(run_denorm_mode, CLASS_SALU)},
    {"s_memtime s_memrealtime", run_clock, NULL, TYPE_B64, {0}, CLASS_SCALAR_MEMORY, 0},
    {"s_nop s_waitcnt s_wait_loadcnt s_wait_storecnt s_wait_dscnt s_wait_kmcnt s_wait_loadcnt_dscnt "
     "s_wait_storecnt_dscnt s_wait_samplecnt s_wait_bvhcnt s_wait_expcnt s_waitcnt_vscnt s_waitcnt_vmcnt "
     "s_waitcnt_lgkmcnt s_waitcnt_expcnt s_waitcnt_depctr s_wait_alu s_wait_idle s_wait_event s_delay_alu s_clause "
     "s_sleep s_setprio s_sethalt s_setkill s_icache_inv s_dcache_inv s_inst_prefetch "
     "s_set_inst_prefetch_distance s_code_end s_ttracedata s_ttracedata_imm s_incperflevel s_decperflevel s_version "
     "s_sendmsg s_sendmsghalt s_sleep_var s_set_valu_coexec_mode",
     CONTROL(run_nothing, CLASS_WAIT)},
};
const SemanticsTable control_table = {entries, COUNT_OF(entries)};
