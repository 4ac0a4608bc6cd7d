// Vector integer and bit operations on 32 and 64 bits.
#include "lanes.h"
#include "tables.h"

static inline u32 bit_field(u32 value, u32 offset, u32 width) {
  return value >> (offset & 31) & (u32)((1ull << (width & 31)) - 1);
}
static inline i32 signed_field(u32 value, u32 offset, u32 width) {
  u32 bits = width & 31, raw = bit_field(value, offset, width);
  return bits ? (i32)((raw ^ 1u << (bits - 1)) - (1u << (bits - 1))) : 0;
}
static inline i32 i24(u32 value) { return (i32)(value << 8) >> 8; }
static inline u32 u24(u32 value) { return value & 0xffffff; }
static inline u32 reverse(u32 v) {
  v = (v >> 1 & 0x55555555) | (v & 0x55555555) << 1;
  v = (v >> 2 & 0x33333333) | (v & 0x33333333) << 2;
  v = (v >> 4 & 0x0f0f0f0f) | (v & 0x0f0f0f0f) << 4;
  return __builtin_bswap32(v);
}
// "CLAMP" of integer operations: the result saturates instead of wrapping.
static inline u32 limit_u32(i64 value, bool clamp) {
  i64 limited = value < 0 ? 0 : value > 0xffffffffll ? 0xffffffffll : value;
  return (u32)(clamp ? limited : value);
}
static inline u32 limit_i32(i64 value, bool clamp) {
  i64 limited = value < INT32_MIN ? INT32_MIN : value > INT32_MAX ? INT32_MAX : value;
  return (u32)(clamp ? limited : value);
}
#define CLAMP args->inst->clamp
// "V_PERM_B32": each byte of the selector names a byte of {S0, S1}, a sign, or a constant.
static u32 perm_one(u32 high, u32 low, u32 selector) {
  u64 bytes = low | (u64)high << 32;
  u32 result = 0;
  for (int i = 0; i < 4; i++) {
    u32 s = selector >> 8 * i & 255, byte;
    if (s < 8) byte = (u32)(bytes >> 8 * s & 255);
    else if (s < 12) byte = bytes >> (16 * (s - 8) + 15) & 1 ? 255 : 0;
    else byte = s == 12 ? 0 : 255;
    result |= byte << 8 * i;
  }
  return result;
}
static u32 sad_u8(u32 a, u32 b, u32 c) {
  for (int i = 0; i < 4; i++) {
    int difference = (int)(a >> 8 * i & 255) - (int)(b >> 8 * i & 255);
    c += (u32)(difference < 0 ? -difference : difference);
  }
  return c;
}
static inline u32 med3_u32(u32 a, u32 b, u32 c) {
  u32 low = a < b ? a : b, high = a < b ? b : a, least = high < c ? high : c;
  return low > least ? low : least;
}
static inline i32 med3_i32(i32 a, i32 b, i32 c) {
  i32 low = a < b ? a : b, high = a < b ? b : a, least = high < c ? high : c;
  return low > least ? low : least;
}
// "V_BITOP3": the truth table is the immediate; bit 4*a + 2*b + c of it is the result.
static inline u32 bitop3(u32 a, u32 b, u32 c, u32 table) {
  u32 result = 0;
  for (int i = 0; i < 8; i++) result |= table >> i & 1 ? (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c) : 0;
  return result;
}

LANES1(mov, u32, u32, a)
LANES1(not_, u32, u32, ~a)
LANES1(brev, u32, u32, reverse(a))
LANES1(ffbh_u32, u32, u32, a ? (u32)__builtin_clz(a) : ~0u)
LANES1(ffbl, u32, u32, a ? (u32)__builtin_ctz(a) : ~0u)
LANES1(ffbh_i32, u32, i32, a == 0 || a == -1 ? ~0u : (u32)__builtin_clz((u32)(a < 0 ? ~a : a)))
LANES2(add, u32, u32, u32, limit_u32((i64)a + b, CLAMP))
LANES2(sub, u32, u32, u32, limit_u32((i64)a - b, CLAMP))
LANES2(subrev, u32, u32, u32, limit_u32((i64)b - a, CLAMP))
LANES2(add_i32, u32, i32, i32, limit_i32((i64)a + b, CLAMP))
LANES2(sub_i32, u32, i32, i32, limit_i32((i64)a - b, CLAMP))
LANES2(and_, u32, u32, u32, a &b)
LANES2(or_, u32, u32, u32, a | b)
LANES2(xor_, u32, u32, u32, a ^ b)
LANES2(xnor, u32, u32, u32, ~(a ^ b))
LANES2(lshlrev, u32, u32, u32, b << (a & 31))
LANES2(lshrrev, u32, u32, u32, b >> (a & 31))
LANES2(ashrrev, u32, u32, i32, b >> (a & 31))
LANES2(mul_lo, u32, u32, u32, a *b)
LANES2(mul_hi_u32, u32, u32, u32, (u64)a *b >> 32)
LANES2(mul_hi_i32, u32, i32, i32, (i64)a *b >> 32)
LANES2(mul_u24, u32, u32, u32, u24(a) * u24(b))
LANES2(mul_i24, u32, u32, u32, i24(a) * i24(b))
LANES2(mul_hi_u24, u32, u32, u32, (u64)u24(a) * u24(b) >> 32)
LANES2(mul_hi_i24, u32, u32, u32, (i64)i24(a) * i24(b) >> 32)
LANES2(max_u, u32, u32, u32, a > b ? a : b)
LANES2(min_u, u32, u32, u32, a < b ? a : b)
LANES2(max_i, i32, i32, i32, a > b ? a : b)
LANES2(min_i, i32, i32, i32, a < b ? a : b)
LANES2(bfm, u32, u32, u32, ((1u << (a & 31)) - 1) << (b & 31))
LANES2(bcnt, u32, u32, u32, (u32)__builtin_popcount(a) + b)
LANES3(mad_u24, u32, u32, u32, u32, u24(a) * u24(b) + c)
LANES3(mad_i24, u32, u32, u32, u32, (u32)(i24(a) * i24(b)) + c)
LANES3(max3_u, u32, u32, u32, u32, a > b ? (a > c ? a : c) : (b > c ? b : c))
LANES3(min3_u, u32, u32, u32, u32, a < b ? (a < c ? a : c) : (b < c ? b : c))
LANES3(max3_i, i32, i32, i32, i32, a > b ? (a > c ? a : c) : (b > c ? b : c))
LANES3(min3_i, i32, i32, i32, i32, a < b ? (a < c ? a : c) : (b < c ? b : c))
LANES3(maxmin_u, u32, u32, u32, u32, (a > b ? a : b) < c ? (a > b ? a : b) : c)
LANES3(minmax_u, u32, u32, u32, u32, (a < b ? a : b) > c ? (a < b ? a : b) : c)
LANES3(maxmin_i, i32, i32, i32, i32, (a > b ? a : b) < c ? (a > b ? a : b) : c)
LANES3(minmax_i, i32, i32, i32, i32, (a < b ? a : b) > c ? (a < b ? a : b) : c)
LANES3(med3_u, u32, u32, u32, u32, med3_u32(a, b, c))
LANES3(med3_i, i32, i32, i32, i32, med3_i32(a, b, c))
LANES3(lshl_add, u32, u32, u32, u32, (a << (b & 31)) + c)
LANES3(add_lshl, u32, u32, u32, u32, (a + b) << (c & 31))
LANES3(lshl_or, u32, u32, u32, u32, a << (b & 31) | c)
LANES3(and_or, u32, u32, u32, u32, (a & b) | c)
LANES3(or3, u32, u32, u32, u32, a | b | c)
LANES3(xor3, u32, u32, u32, u32, a ^ b ^ c)
LANES3(add3, u32, u32, u32, u32, a + b + c)
LANES3(xad, u32, u32, u32, u32, (a ^ b) + c)
LANES3(bfi, u32, u32, u32, u32, (a & b) | (~a & c))
LANES3(bfe_u, u32, u32, u32, u32, bit_field(a, b, c))
LANES3(bfe_i, i32, u32, u32, u32, signed_field(a, b, c))
LANES3(alignbit, u32, u32, u32, u32, (u32)((b | (u64)a << 32) >> (c & 31)))
LANES3(alignbyte, u32, u32, u32, u32, (u32)((b | (u64)a << 32) >> 8 * (c & 3)))
LANES3(perm, u32, u32, u32, u32, perm_one(a, b, c))
LANES3(sad, u32, u32, u32, u32, sad_u8(a, b, c))
LANES3(sad_u32, u32, u32, u32, u32, (a > b ? a - b : b - a) + c)
LANES3(cndmask, u32, u32, u32, u32, c ? b : a)
LANES3(cndmask_16, u32, u32, u32, u32, c ? b : a)
LANES3(bitop, u32, u32, u32, u32, bitop3(a, b, c, args->inst->imm))
LANES1(mov_64, u64, u64, a)
LANES2(lshlrev_64, u64, u32, u64, b << (a & 63))
LANES2(lshrrev_64, u64, u32, u64, b >> (a & 63))
LANES2(ashrrev_64, i64, u32, i64, b >> (a & 63))
LANES3(lshl_add_64, u64, u64, u32, u64, (a << (b & 7)) + c)
LANES2(add_64, u64, u64, u64, a + b)
LANES2(sub_64, u64, u64, u64, a - b)

#define U TYPE_B32
#define ONE(K) run_vector, K, U, {U}, CLASS_VALU, 0
#define TWO(K) run_vector, K, U, {U, U}, CLASS_VALU, 0
#define THREE(K) run_vector, K, U, {U, U, U}, CLASS_VALU, 0

static const Semantics entries[] = {
    {"v_mov_b32", ONE(mov)},
    {"v_not_b32", ONE(not_)},
    {"v_bfrev_b32", ONE(brev)},
    {"v_ffbh_u32 v_clz_i32_u32", ONE(ffbh_u32)},
    {"v_ffbl_b32 v_ctz_i32_b32", ONE(ffbl)},
    {"v_ffbh_i32 v_cls_i32", ONE(ffbh_i32)},
    {"v_add_u32 v_add_nc_u32", TWO(add)},
    {"v_sub_u32 v_sub_nc_u32", TWO(sub)},
    {"v_subrev_u32 v_subrev_nc_u32", TWO(subrev)},
    {"v_add_i32 v_add_nc_i32", TWO(add_i32)},
    {"v_sub_i32 v_sub_nc_i32", TWO(sub_i32)},
    {"v_and_b32", TWO(and_)},
    {"v_or_b32", TWO(or_)},
    {"v_xor_b32", TWO(xor_)},
    {"v_xnor_b32", TWO(xnor)},
    {"v_lshlrev_b32", TWO(lshlrev)},
    {"v_lshrrev_b32", TWO(lshrrev)},
    {"v_ashrrev_i32", TWO(ashrrev)},
    {"v_mul_lo_u32", TWO(mul_lo)},
    {"v_mul_hi_u32", TWO(mul_hi_u32)},
    {"v_mul_hi_i32", TWO(mul_hi_i32)},
    {"v_mul_u32_u24", TWO(mul_u24)},
    {"v_mul_i32_i24", TWO(mul_i24)},
    {"v_mul_hi_u32_u24", TWO(mul_hi_u24)},
    {"v_mul_hi_i32_i24", TWO(mul_hi_i24)},
    {"v_max_u32", TWO(max_u)},
    {"v_min_u32", TWO(min_u)},
    {"v_max_i32", TWO(max_i)},
    {"v_min_i32", TWO(min_i)},
    {"v_bfm_b32", TWO(bfm)},
    {"v_bcnt_u32_b32", TWO(bcnt)},
    {"v_mad_u32_u24", THREE(mad_u24)},
    {"v_mad_i32_i24", THREE(mad_i24)},
    {"v_max3_u32", THREE(max3_u)},
    {"v_min3_u32", THREE(min3_u)},
    {"v_max3_i32", THREE(max3_i)},
    {"v_min3_i32", THREE(min3_i)},
    {"v_maxmin_u32", THREE(maxmin_u)},
    {"v_minmax_u32", THREE(minmax_u)},
    {"v_maxmin_i32", THREE(maxmin_i)},
    {"v_minmax_i32", THREE(minmax_i)},
    {"v_med3_u32", THREE(med3_u)},
    {"v_med3_i32", THREE(med3_i)},
    {"v_lshl_add_u32", THREE(lshl_add)},
    {"v_add_lshl_u32", THREE(add_lshl)},
    {"v_lshl_or_b32", THREE(lshl_or)},
    {"v_and_or_b32", THREE(and_or)},
    {"v_or3_b32", THREE(or3)},
    {"v_xor3_b32", THREE(xor3)},
    {"v_add3_u32", THREE(add3)},
    {"v_xad_u32", THREE(xad)},
    {"v_bfi_b32", THREE(bfi)},
    {"v_bfe_u32", THREE(bfe_u)},
    {"v_bfe_i32", THREE(bfe_i)},
    {"v_alignbit_b32", THREE(alignbit)},
    {"v_alignbyte_b32", THREE(alignbyte)},
    {"v_perm_b32", THREE(perm)},
    {"v_sad_u8", THREE(sad)},
    {"v_sad_u32", THREE(sad_u32)},
    {"v_cndmask_b32", run_vector, cndmask, U, {TYPE_B32, TYPE_B32, TYPE_LANES}, CLASS_VALU, 0},
    {"v_cndmask_b16", run_vector, cndmask_16, TYPE_B16, {TYPE_B16, TYPE_B16, TYPE_LANES}, CLASS_VALU, 0},
    {"v_bitop3_b32", THREE(bitop)},
    {"v_bitop3_b16", run_vector, bitop, TYPE_B16, {TYPE_B16, TYPE_B16, TYPE_B16}, CLASS_VALU, 0},
    {"v_mov_b64", run_vector, mov_64, TYPE_B64, {TYPE_B64}, CLASS_VALU, 0},
    {"v_lshlrev_b64", run_vector, lshlrev_64, TYPE_B64, {U, TYPE_B64}, CLASS_VALU, 0},
    {"v_lshrrev_b64", run_vector, lshrrev_64, TYPE_B64, {U, TYPE_B64}, CLASS_VALU, 0},
    {"v_ashrrev_i64", run_vector, ashrrev_64, TYPE_B64, {U, TYPE_B64}, CLASS_VALU, 0},
    {"v_lshl_add_u64", run_vector, lshl_add_64, TYPE_B64, {TYPE_B64, U, TYPE_B64}, CLASS_VALU, 0},
    {"v_add_nc_u64", run_vector, add_64, TYPE_B64, {TYPE_B64, TYPE_B64}, CLASS_VALU, 0},
    {"v_sub_nc_u64", run_vector, sub_64, TYPE_B64, {TYPE_B64, TYPE_B64}, CLASS_VALU, 0},
};
const SemanticsTable integer_table = {entries, COUNT_OF(entries)};
