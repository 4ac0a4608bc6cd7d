// Scalar arithmetic: SOP1, SOP2, SOPC and SOPK on 32 bits.
// Source: "Scalar ALU operations" of the ISA documents; SCC is set as the tables of SOP1, SOP2 and SOPC say.
#include "lanes.h"
#include "tables.h"

#define SCALAR2(NAME, EXPR, SCC)                            \
  static void NAME(Wave *w, const Inst *inst) {             \
    u32 a = read_scalar(w, &inst->src[0]);                  \
    u32 b = read_scalar(w, &inst->src[1]);                  \
    u32 d = (u32)(EXPR);                                    \
    u32 scc = (SCC);                                        \
    write_scalar(w, &inst->dst, d);                         \
    w->scc = scc;                                           \
  }
#define SCALAR1(NAME, EXPR, SCC)                            \
  static void NAME(Wave *w, const Inst *inst) {             \
    u32 a = read_scalar(w, &inst->src[0]);                  \
    u32 d = (u32)(EXPR);                                    \
    u32 scc = (SCC);                                        \
    write_scalar(w, &inst->dst, d);                         \
    w->scc = scc;                                           \
  }
#define COMPARE(NAME, EXPR)                                 \
  static void NAME(Wave *w, const Inst *inst) {             \
    u32 a = read_scalar(w, &inst->src[0]);                  \
    u32 b = read_scalar(w, &inst->src[1]);                  \
    w->scc = (EXPR);                                        \
  }
// SOPK: the destination is the first source, the immediate the second.
#define COMPARE_K(NAME, B_TYPE, EXPR)                       \
  static void NAME(Wave *w, const Inst *inst) {             \
    u32 a = read_scalar(w, &inst->src[0]), b = (u32)(i32)(B_TYPE)inst->imm; \
    w->scc = (EXPR);                                        \
  }
#define KEEP w->scc

static u32 reverse(u32 v) {
  u32 result = 0;
  for (int i = 0; i < 32; i++) result |= (v >> i & 1) << (31 - i);
  return result;
}
static u32 bfe_u(u32 a, u32 b) {
  u32 width = b >> 16 & 127, offset = b & 31;
  return width >= 32 ? a >> offset : a >> offset & ((1u << width) - 1);
}
static u32 bfe_i(u32 a, u32 b) {
  u32 width = b >> 16 & 127, offset = b & 31;
  if (width == 0) return 0;
  if (width + offset > 32) width = 32 - offset;
  return (u32)sign_extend(a >> offset, (int)width);
}
static u32 wqm(u32 a) {
  u32 quads = (a | a >> 1 | a >> 2 | a >> 3) & 0x11111111;
  return quads * 15;
}
static bool is_overflow(u32 a, u32 b, u32 d) { return ((a ^ d) & (b ^ d)) >> 31; }

SCALAR1(mov, a, KEEP)
SCALAR1(not_, ~a, d != 0)
SCALAR1(brev, reverse(a), KEEP)
SCALAR1(wqm_, wqm(a), d != 0)
SCALAR1(bcnt0, 32 - __builtin_popcount(a), d != 0)
SCALAR1(bcnt1, __builtin_popcount(a), d != 0)
SCALAR1(ff0, ~a ? __builtin_ctz(~a) : -1, KEEP)
SCALAR1(ff1, a ? __builtin_ctz(a) : -1, KEEP)
SCALAR1(flbit, a ? __builtin_clz(a) : -1, KEEP)
SCALAR1(flbit_i, a == 0 || a == ~0u ? -1 : __builtin_clz((i32)a < 0 ? ~a : a), KEEP)
SCALAR1(sext_i8, (i32)(i8)a, KEEP)
SCALAR1(sext_i16, (i32)(i16)a, KEEP)
SCALAR1(abs_, (i32)a < 0 ? 0 - a : a, d != 0)
SCALAR2(add_u, a + b, (u64)a + b > 0xffffffff)
SCALAR2(sub_u, a - b, b > a)
SCALAR2(addc, a + b + w->scc, (u64)a + b + w->scc > 0xffffffff)
SCALAR2(subb, a - b - w->scc, (u64)b + w->scc > a)
SCALAR2(add_i, a + b, is_overflow(a, b, d))
SCALAR2(sub_i, a - b, is_overflow(a, ~b, d))
SCALAR2(min_i, (i32)a < (i32)b ? a : b, (i32)a < (i32)b)
SCALAR2(min_u, a < b ? a : b, a < b)
SCALAR2(max_i, (i32)a > (i32)b ? a : b, (i32)a > (i32)b)
SCALAR2(max_u, a > b ? a : b, a > b)
SCALAR2(cselect, w->scc ? a : b, KEEP)
SCALAR2(and_, a &b, d != 0)
SCALAR2(or_, a | b, d != 0)
SCALAR2(xor_, a ^ b, d != 0)
SCALAR2(andn2, a & ~b, d != 0)
SCALAR2(orn2, a | ~b, d != 0)
SCALAR2(nand_, ~(a & b), d != 0)
SCALAR2(nor_, ~(a | b), d != 0)
SCALAR2(xnor_, ~(a ^ b), d != 0)
SCALAR2(lshl, a << (b & 31), d != 0)
SCALAR2(lshr, a >> (b & 31), d != 0)
SCALAR2(ashr, (i32)a >> (b & 31), d != 0)
SCALAR2(bfm, ((1u << (a & 31)) - 1) << (b & 31), KEEP)
SCALAR2(mul_i, a *b, KEEP)
SCALAR2(mul_hi_u, (u64)a *b >> 32, KEEP)
SCALAR2(mul_hi_i, (i64)(i32)a * (i32)b >> 32, KEEP)
SCALAR2(bfe_u_, bfe_u(a, b), d != 0)
SCALAR2(bfe_i_, bfe_i(a, b), d != 0)
SCALAR2(absdiff, (i32)a > (i32)b ? a - b : b - a, d != 0)
SCALAR2(pack_ll, (a & 0xffff) | b << 16, KEEP)
SCALAR2(pack_lh, (a & 0xffff) | (b & 0xffff0000), KEEP)
SCALAR2(pack_hh, a >> 16 | (b & 0xffff0000), KEEP)
SCALAR2(pack_hl, a >> 16 | b << 16, KEEP)
SCALAR2(lshl1_add, (a << 1) + b, ((u64)a << 1) + b > 0xffffffff)
SCALAR2(lshl2_add, (a << 2) + b, ((u64)a << 2) + b > 0xffffffff)
SCALAR2(lshl3_add, (a << 3) + b, ((u64)a << 3) + b > 0xffffffff)
SCALAR2(lshl4_add, (a << 4) + b, ((u64)a << 4) + b > 0xffffffff)
COMPARE(eq, a == b)
COMPARE(lg, a != b)
COMPARE(gt_i, (i32)a > (i32)b)
COMPARE(ge_i, (i32)a >= (i32)b)
COMPARE(lt_i, (i32)a < (i32)b)
COMPARE(le_i, (i32)a <= (i32)b)
COMPARE(gt_u, a > b)
COMPARE(ge_u, a >= b)
COMPARE(lt_u, a < b)
COMPARE(le_u, a <= b)
COMPARE(bitcmp0, !(a >> (b & 31) & 1))
COMPARE(bitcmp1, a >> (b & 31) & 1)
COMPARE_K(eq_k, i16, a == b)
COMPARE_K(lg_k, i16, a != b)
COMPARE_K(gt_ki, i16, (i32)a > (i32)b)
COMPARE_K(ge_ki, i16, (i32)a >= (i32)b)
COMPARE_K(lt_ki, i16, (i32)a < (i32)b)
COMPARE_K(le_ki, i16, (i32)a <= (i32)b)
COMPARE_K(eq_ku, u16, a == b)
COMPARE_K(lg_ku, u16, a != b)
COMPARE_K(gt_ku, u16, a > b)
COMPARE_K(ge_ku, u16, a >= b)
COMPARE_K(lt_ku, u16, a < b)
COMPARE_K(le_ku, u16, a <= b)

static void cmov(Wave *w, const Inst *inst) {
  if (w->scc) write_scalar(w, &inst->dst, read_scalar(w, &inst->src[0]));
}
static void bitset0(Wave *w, const Inst *inst) { w->s[inst->dst.reg] &= ~(1u << (read_scalar(w, &inst->src[0]) & 31)); }
static void bitset1(Wave *w, const Inst *inst) { w->s[inst->dst.reg] |= 1u << (read_scalar(w, &inst->src[0]) & 31); }
static void movk(Wave *w, const Inst *inst) { write_scalar(w, &inst->dst, (u32)(i32)(i16)inst->imm); }
static void cmovk(Wave *w, const Inst *inst) {
  if (w->scc) movk(w, inst);
}
static void addk(Wave *w, const Inst *inst) {
  u32 a = read_scalar(w, &inst->src[0]), b = (u32)(i32)(i16)inst->imm, d = a + b;
  write_scalar(w, &inst->dst, d);
  w->scc = is_overflow(a, b, d);
}
static void mulk(Wave *w, const Inst *inst) {
  write_scalar(w, &inst->dst, read_scalar(w, &inst->src[0]) * (u32)(i32)(i16)inst->imm);
}

// "S_GETREG_B32/S_SETREG_B32": SIMM16 is {size - 1, offset, register}; register 1 is MODE. Others read as 0.
static void getreg(Wave *w, const Inst *inst) {
  u32 id = inst->imm & 63, offset = inst->imm >> 6 & 31, size = (inst->imm >> 11 & 31) + 1;
  write_scalar(w, &inst->dst, id == 1 ? field(w->mode, (int)offset, (int)size) : 0);
}
static void setreg(Wave *w, const Inst *inst) {
  u32 id = inst->imm & 63, offset = inst->imm >> 6 & 31, size = (inst->imm >> 11 & 31) + 1;
  u32 mask = (u32)((1ull << size) - 1) << offset;
  if (id == 1) w->mode = (w->mode & ~mask) | (read_scalar(w, &inst->src[0]) << offset & mask);
}

#define U TYPE_B32
#define ONE(K) K, NULL, U, {U}, CLASS_SALU, 0
#define TWO(K) K, NULL, U, {U, U}, CLASS_SALU, 0
#define TEST(K) K, NULL, 0, {U, U}, CLASS_SALU, 0
#define IMM(K) K, NULL, U, {0}, CLASS_SALU, 0

static const Semantics entries[] = {
    {"s_mov_b32", ONE(mov)},
    {"s_cmov_b32", ONE(cmov)},
    {"s_not_b32", ONE(not_)},
    {"s_brev_b32", ONE(brev)},
    {"s_wqm_b32", ONE(wqm_)},
    {"s_bcnt0_i32_b32", ONE(bcnt0)},
    {"s_bcnt1_i32_b32", ONE(bcnt1)},
    {"s_ff0_i32_b32", ONE(ff0)},
    {"s_ff1_i32_b32 s_ctz_i32_b32", ONE(ff1)},
    {"s_flbit_i32_b32 s_clz_i32_u32", ONE(flbit)},
    {"s_flbit_i32 s_cls_i32", ONE(flbit_i)},
    {"s_sext_i32_i8", ONE(sext_i8)},
    {"s_sext_i32_i16", ONE(sext_i16)},
    {"s_abs_i32", ONE(abs_)},
    {"s_bitset0_b32", ONE(bitset0)},
    {"s_bitset1_b32", ONE(bitset1)},
    {"s_add_u32 s_add_co_u32", TWO(add_u)},
    {"s_sub_u32 s_sub_co_u32", TWO(sub_u)},
    {"s_addc_u32 s_add_co_ci_u32", TWO(addc)},
    {"s_subb_u32 s_sub_co_ci_u32", TWO(subb)},
    {"s_add_i32 s_add_co_i32", TWO(add_i)},
    {"s_sub_i32 s_sub_co_i32", TWO(sub_i)},
    {"s_min_i32", TWO(min_i)},
    {"s_min_u32", TWO(min_u)},
    {"s_max_i32", TWO(max_i)},
    {"s_max_u32", TWO(max_u)},
    {"s_cselect_b32", TWO(cselect)},
    {"s_and_b32", TWO(and_)},
    {"s_or_b32", TWO(or_)},
    {"s_xor_b32", TWO(xor_)},
    {"s_andn2_b32 s_and_not1_b32", TWO(andn2)},
    {"s_orn2_b32 s_or_not1_b32", TWO(orn2)},
    {"s_nand_b32", TWO(nand_)},
    {"s_nor_b32", TWO(nor_)},
    {"s_xnor_b32", TWO(xnor_)},
    {"s_lshl_b32", TWO(lshl)},
    {"s_lshr_b32", TWO(lshr)},
    {"s_ashr_i32", TWO(ashr)},
    {"s_bfm_b32", TWO(bfm)},
    {"s_mul_i32", TWO(mul_i)},
    {"s_mul_hi_u32", TWO(mul_hi_u)},
    {"s_mul_hi_i32", TWO(mul_hi_i)},
    {"s_bfe_u32", TWO(bfe_u_)},
    {"s_bfe_i32", TWO(bfe_i_)},
    {"s_absdiff_i32", TWO(absdiff)},
    {"s_pack_ll_b32_b16", TWO(pack_ll)},
    {"s_pack_lh_b32_b16", TWO(pack_lh)},
    {"s_pack_hh_b32_b16", TWO(pack_hh)},
    {"s_pack_hl_b32_b16", TWO(pack_hl)},
    {"s_lshl1_add_u32", TWO(lshl1_add)},
    {"s_lshl2_add_u32", TWO(lshl2_add)},
    {"s_lshl3_add_u32", TWO(lshl3_add)},
    {"s_lshl4_add_u32", TWO(lshl4_add)},
    {"s_cmp_eq_i32 s_cmp_eq_u32", TEST(eq)},
    {"s_cmp_lg_i32 s_cmp_lg_u32", TEST(lg)},
    {"s_cmp_gt_i32", TEST(gt_i)},
    {"s_cmp_ge_i32", TEST(ge_i)},
    {"s_cmp_lt_i32", TEST(lt_i)},
    {"s_cmp_le_i32", TEST(le_i)},
    {"s_cmp_gt_u32", TEST(gt_u)},
    {"s_cmp_ge_u32", TEST(ge_u)},
    {"s_cmp_lt_u32", TEST(lt_u)},
    {"s_cmp_le_u32", TEST(le_u)},
    {"s_bitcmp0_b32", TEST(bitcmp0)},
    {"s_bitcmp1_b32", TEST(bitcmp1)},
    {"s_movk_i32", IMM(movk)},
    {"s_cmovk_i32", IMM(cmovk)},
    {"s_addk_i32 s_addk_co_i32", IMM(addk)},
    {"s_mulk_i32", IMM(mulk)},
    {"s_cmpk_eq_i32", IMM(eq_k)},
    {"s_cmpk_lg_i32", IMM(lg_k)},
    {"s_cmpk_gt_i32", IMM(gt_ki)},
    {"s_cmpk_ge_i32", IMM(ge_ki)},
    {"s_cmpk_lt_i32", IMM(lt_ki)},
    {"s_cmpk_le_i32", IMM(le_ki)},
    {"s_cmpk_eq_u32", IMM(eq_ku)},
    {"s_cmpk_lg_u32", IMM(lg_ku)},
    {"s_cmpk_gt_u32", IMM(gt_ku)},
    {"s_cmpk_ge_u32", IMM(ge_ku)},
    {"s_cmpk_lt_u32", IMM(lt_ku)},
    {"s_cmpk_le_u32", IMM(le_ku)},
    {"s_getreg_b32", IMM(getreg)},
    {"s_setreg_b32 s_setreg_imm32_b32", IMM(setreg)},
};
const SemanticsTable scalar_table = {entries, COUNT_OF(entries)};
