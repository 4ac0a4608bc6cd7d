// Scalar operations on 64 bits, and those on EXEC.
#include "lanes.h"
#include "tables.h"

#define WIDE2(NAME, B_READ, EXPR, SCC)                      \
  static void NAME(Wave *w, const Inst *inst) {             \
    u64 a = read_scalar64(w, &inst->src[0]);                \
    u64 b = B_READ(w, &inst->src[1]);                       \
    u64 d = (u64)(EXPR);                                    \
    u32 scc = (SCC);                                        \
    write_scalar64(w, &inst->dst, d);                       \
    w->scc = scc;                                           \
  }
#define WIDE1(NAME, EXPR, SCC)                              \
  static void NAME(Wave *w, const Inst *inst) {             \
    u64 a = read_scalar64(w, &inst->src[0]);                \
    u64 d = (u64)(EXPR);                                    \
    u32 scc = (SCC);                                        \
    write_scalar64(w, &inst->dst, d);                       \
    w->scc = scc;                                           \
  }
// 64 bits in, 32 bits out.
#define NARROW(NAME, EXPR, SCC)                             \
  static void NAME(Wave *w, const Inst *inst) {             \
    u64 a = read_scalar64(w, &inst->src[0]);                \
    u32 d = (u32)(EXPR);                                    \
    u32 scc = (SCC);                                        \
    write_scalar(w, &inst->dst, d);                         \
    w->scc = scc;                                           \
  }
#define KEEP w->scc

static u64 reverse(u64 v) {
  u64 result = 0;
  for (int i = 0; i < 64; i++) result |= (v >> i & 1) << (63 - i);
  return result;
}
static u64 wqm(u64 a) { return ((a | a >> 1 | a >> 2 | a >> 3) & 0x1111111111111111ull) * 15; }
static u64 bfe(u64 a, u32 b, bool is_signed) {
  u32 width = b >> 16 & 127, offset = b & 63;
  if (width == 0) return 0;
  if (width + offset > 64) width = 64 - offset;
  u64 raw = a >> offset;
  return is_signed ? (u64)sign_extend(raw, (int)width) : width == 64 ? raw : raw & ((1ull << width) - 1);
}
static u64 replicate(u32 a) {
  u64 result = 0;
  for (int i = 0; i < 32; i++) result |= (u64)(a >> i & 1) * 3 << 2 * i;
  return result;
}

WIDE1(mov, a, KEEP)
WIDE1(not_, ~a, d != 0)
WIDE1(brev, reverse(a), KEEP)
WIDE1(wqm_, wqm(a), d != 0)
WIDE2(cselect, read_scalar64, w->scc ? a : b, KEEP)
WIDE2(and_, read_scalar64, a &b, d != 0)
WIDE2(or_, read_scalar64, a | b, d != 0)
WIDE2(xor_, read_scalar64, a ^ b, d != 0)
WIDE2(andn2, read_scalar64, a & ~b, d != 0)
WIDE2(orn2, read_scalar64, a | ~b, d != 0)
WIDE2(nand_, read_scalar64, ~(a & b), d != 0)
WIDE2(nor_, read_scalar64, ~(a | b), d != 0)
WIDE2(xnor_, read_scalar64, ~(a ^ b), d != 0)
WIDE2(lshl, read_scalar, a << (b & 63), d != 0)
WIDE2(lshr, read_scalar, a >> (b & 63), d != 0)
WIDE2(ashr, read_scalar, (i64)a >> (b & 63), d != 0)
WIDE2(add, read_scalar64, a + b, KEEP)
WIDE2(sub, read_scalar64, a - b, KEEP)
WIDE2(mul, read_scalar64, a *b, KEEP)
WIDE2(bfe_u, read_scalar, bfe(a, (u32)b, false), d != 0)
WIDE2(bfe_i, read_scalar, bfe(a, (u32)b, true), d != 0)
NARROW(bcnt0, 64 - __builtin_popcountll(a), d != 0)
NARROW(bcnt1, __builtin_popcountll(a), d != 0)
NARROW(ff0, ~a ? __builtin_ctzll(~a) : -1, KEEP)
NARROW(ff1, a ? __builtin_ctzll(a) : -1, KEEP)
NARROW(flbit, a ? __builtin_clzll(a) : -1, KEEP)
NARROW(flbit_i, a == 0 || a == ~0ull ? -1 : __builtin_clzll((i64)a < 0 ? ~a : a), KEEP)

static void bfm(Wave *w, const Inst *inst) {
  u32 a = read_scalar(w, &inst->src[0]), b = read_scalar(w, &inst->src[1]);
  write_scalar64(w, &inst->dst, ((1ull << (a & 63)) - 1) << (b & 63));
}
static void bitreplicate(Wave *w, const Inst *inst) {
  write_scalar64(w, &inst->dst, replicate(read_scalar(w, &inst->src[0])));
}
static void cmov(Wave *w, const Inst *inst) {
  if (w->scc) write_scalar64(w, &inst->dst, read_scalar64(w, &inst->src[0]));
}
static void bitset0(Wave *w, const Inst *inst) {
  Operand old = inst->dst;
  write_scalar64(w, &inst->dst, read_scalar64(w, &old) & ~(1ull << (read_scalar(w, &inst->src[0]) & 63)));
}
static void bitset1(Wave *w, const Inst *inst) {
  Operand old = inst->dst;
  write_scalar64(w, &inst->dst, read_scalar64(w, &old) | 1ull << (read_scalar(w, &inst->src[0]) & 63));
}
static void eq(Wave *w, const Inst *inst) { w->scc = read_scalar64(w, &inst->src[0]) == read_scalar64(w, &inst->src[1]); }
static void lg(Wave *w, const Inst *inst) { w->scc = read_scalar64(w, &inst->src[0]) != read_scalar64(w, &inst->src[1]); }
static void bitcmp0(Wave *w, const Inst *inst) { w->scc = !(read_scalar64(w, &inst->src[0]) >> (read_scalar(w, &inst->src[1]) & 63) & 1); }
static void bitcmp1(Wave *w, const Inst *inst) { w->scc = read_scalar64(w, &inst->src[0]) >> (read_scalar(w, &inst->src[1]) & 63) & 1; }

enum { EXEC_AND, EXEC_OR, EXEC_XOR, EXEC_NAND, EXEC_NOR, EXEC_XNOR, EXEC_ANDN1, EXEC_ANDN2, EXEC_ORN1, EXEC_ORN2 };
#define WRITES_EXEC 16   // _WREXEC: the result goes to both
#define IS_NARROW 32

// "S_AND_SAVEEXEC_B64: D0 = EXEC; EXEC = S0 & EXEC; SCC = EXEC != 0".
static void run_saveexec(Wave *w, const Inst *inst) {
  u32 detail = inst->semantics->detail;
  bool is_narrow = detail & IS_NARROW;
  u64 s = is_narrow ? read_scalar(w, &inst->src[0]) : read_scalar64(w, &inst->src[0]);
  u64 exec = is_narrow ? w->s[SGPR_EXEC] : w->s[SGPR_EXEC] | (u64)w->s[SGPR_EXEC + 1] << 32, result = 0;
  switch (detail & 15) {
    case EXEC_AND: result = s & exec; break;
    case EXEC_OR: result = s | exec; break;
    case EXEC_XOR: result = s ^ exec; break;
    case EXEC_NAND: result = ~(s & exec); break;
    case EXEC_NOR: result = ~(s | exec); break;
    case EXEC_XNOR: result = ~(s ^ exec); break;
    case EXEC_ANDN1: result = ~s & exec; break;
    case EXEC_ANDN2: result = s & ~exec; break;
    case EXEC_ORN1: result = ~s | exec; break;
    case EXEC_ORN2: result = s | ~exec; break;
  }
  if (is_narrow) result = (u32)result;
  u64 saved = detail & WRITES_EXEC ? result : exec;
  if (is_narrow) write_scalar(w, &inst->dst, (u32)saved);
  else write_scalar64(w, &inst->dst, saved);
  w->s[SGPR_EXEC] = (u32)result;
  if (!is_narrow) w->s[SGPR_EXEC + 1] = (u32)(result >> 32);
  w->scc = result != 0;
}

#define W TYPE_B64
#define U TYPE_B32
#define ONE(K) K, NULL, W, {W}, CLASS_SALU, 0
#define TWO(K) K, NULL, W, {W, W}, CLASS_SALU, 0
#define SHIFT(K) K, NULL, W, {W, U}, CLASS_SALU, 0
#define COUNT(K) K, NULL, U, {W}, CLASS_SALU, 0
#define SAVE64(OP) run_saveexec, NULL, W, {W}, CLASS_SALU, OP
#define SAVE32(OP) run_saveexec, NULL, U, {U}, CLASS_SALU, IS_NARROW | (OP)

static const Semantics entries[] = {
    {"s_mov_b64", ONE(mov)},
    {"s_cmov_b64", ONE(cmov)},
    {"s_not_b64", ONE(not_)},
    {"s_brev_b64", ONE(brev)},
    {"s_wqm_b64", ONE(wqm_)},
    {"s_bitset0_b64", bitset0, NULL, W, {U}, CLASS_SALU, 0},
    {"s_bitset1_b64", bitset1, NULL, W, {U}, CLASS_SALU, 0},
    {"s_bitreplicate_b64_b32", bitreplicate, NULL, W, {U}, CLASS_SALU, 0},
    {"s_cselect_b64", TWO(cselect)},
    {"s_and_b64", TWO(and_)},
    {"s_or_b64", TWO(or_)},
    {"s_xor_b64", TWO(xor_)},
    {"s_andn2_b64 s_and_not1_b64", TWO(andn2)},
    {"s_orn2_b64 s_or_not1_b64", TWO(orn2)},
    {"s_nand_b64", TWO(nand_)},
    {"s_nor_b64", TWO(nor_)},
    {"s_xnor_b64", TWO(xnor_)},
    {"s_add_u64 s_add_nc_u64", TWO(add)},
    {"s_sub_u64 s_sub_nc_u64", TWO(sub)},
    {"s_mul_u64", TWO(mul)},
    {"s_lshl_b64", SHIFT(lshl)},
    {"s_lshr_b64", SHIFT(lshr)},
    {"s_ashr_i64", SHIFT(ashr)},
    {"s_bfe_u64", SHIFT(bfe_u)},
    {"s_bfe_i64", SHIFT(bfe_i)},
    {"s_bfm_b64", bfm, NULL, W, {U, U}, CLASS_SALU, 0},
    {"s_bcnt0_i32_b64", COUNT(bcnt0)},
    {"s_bcnt1_i32_b64", COUNT(bcnt1)},
    {"s_ff0_i32_b64", COUNT(ff0)},
    {"s_ff1_i32_b64 s_ctz_i32_b64", COUNT(ff1)},
    {"s_flbit_i32_b64 s_clz_i32_u64", COUNT(flbit)},
    {"s_flbit_i32_i64 s_cls_i32_i64", COUNT(flbit_i)},
    {"s_cmp_eq_u64", eq, NULL, 0, {W, W}, CLASS_SALU, 0},
    {"s_cmp_lg_u64", lg, NULL, 0, {W, W}, CLASS_SALU, 0},
    {"s_bitcmp0_b64", bitcmp0, NULL, 0, {W, U}, CLASS_SALU, 0},
    {"s_bitcmp1_b64", bitcmp1, NULL, 0, {W, U}, CLASS_SALU, 0},
    {"s_and_saveexec_b64", SAVE64(EXEC_AND)},
    {"s_or_saveexec_b64", SAVE64(EXEC_OR)},
    {"s_xor_saveexec_b64", SAVE64(EXEC_XOR)},
    {"s_nand_saveexec_b64", SAVE64(EXEC_NAND)},
    {"s_nor_saveexec_b64", SAVE64(EXEC_NOR)},
    {"s_xnor_saveexec_b64", SAVE64(EXEC_XNOR)},
    {"s_andn1_saveexec_b64 s_and_not0_saveexec_b64", SAVE64(EXEC_ANDN1)},
    {"s_andn2_saveexec_b64 s_and_not1_saveexec_b64", SAVE64(EXEC_ANDN2)},
    {"s_orn1_saveexec_b64 s_or_not0_saveexec_b64", SAVE64(EXEC_ORN1)},
    {"s_orn2_saveexec_b64 s_or_not1_saveexec_b64", SAVE64(EXEC_ORN2)},
    {"s_andn1_wrexec_b64 s_and_not0_wrexec_b64", SAVE64(EXEC_ANDN1 | WRITES_EXEC)},
    {"s_andn2_wrexec_b64 s_and_not1_wrexec_b64", SAVE64(EXEC_ANDN2 | WRITES_EXEC)},
    {"s_and_saveexec_b32", SAVE32(EXEC_AND)},
    {"s_or_saveexec_b32", SAVE32(EXEC_OR)},
    {"s_xor_saveexec_b32", SAVE32(EXEC_XOR)},
    {"s_nand_saveexec_b32", SAVE32(EXEC_NAND)},
    {"s_nor_saveexec_b32", SAVE32(EXEC_NOR)},
    {"s_xnor_saveexec_b32", SAVE32(EXEC_XNOR)},
    {"s_andn1_saveexec_b32 s_and_not0_saveexec_b32", SAVE32(EXEC_ANDN1)},
    {"s_andn2_saveexec_b32 s_and_not1_saveexec_b32", SAVE32(EXEC_ANDN2)},
    {"s_orn1_saveexec_b32 s_or_not0_saveexec_b32", SAVE32(EXEC_ORN1)},
    {"s_orn2_saveexec_b32 s_or_not1_saveexec_b32", SAVE32(EXEC_ORN2)},
    {"s_andn1_wrexec_b32 s_and_not0_wrexec_b32", SAVE32(EXEC_ANDN1 | WRITES_EXEC)},
    {"s_andn2_wrexec_b32 s_and_not1_wrexec_b32", SAVE32(EXEC_ANDN2 | WRITES_EXEC)},
};
const SemanticsTable scalar_wide_table = {entries, COUNT_OF(entries)};
