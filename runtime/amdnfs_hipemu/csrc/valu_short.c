// Vector integer operations on 16 bits.
#include "lanes.h"
#include "tables.h"

static inline u32 limit_u16(i32 value, bool clamp) {
  i32 limited = value < 0 ? 0 : value > 65535 ? 65535 : value;
  return (u32)(clamp ? limited : value) & 0xffff;
}
static inline u32 limit_i16(i32 value, bool clamp) {
  i32 limited = value < -32768 ? -32768 : value > 32767 ? 32767 : value;
  return (u32)(clamp ? limited : value) & 0xffff;
}
static inline i32 median(i32 a, i32 b, i32 c) {
  i32 low = a < b ? a : b, high = a < b ? b : a, least = high < c ? high : c;
  return low > least ? low : least;
}
#define CLAMP args->inst->clamp

LANES1(mov, u32, u32, a)
LANES1(not_, u32, u32, ~a & 0xffff)
LANES2(add_u, u32, i32, i32, limit_u16(a + b, CLAMP))
LANES2(sub_u, u32, i32, i32, limit_u16(a - b, CLAMP))
LANES2(subrev_u, u32, i32, i32, limit_u16(b - a, CLAMP))
LANES2(add_i, u32, i32, i32, limit_i16(a + b, CLAMP))
LANES2(sub_i, u32, i32, i32, limit_i16(a - b, CLAMP))
LANES2(mul_lo, u32, u32, u32, a *b)
LANES2(and_, u32, u32, u32, a &b)
LANES2(or_, u32, u32, u32, a | b)
LANES2(xor_, u32, u32, u32, a ^ b)
LANES2(lshlrev, u32, u32, u32, b << (a & 15))
LANES2(lshrrev, u32, u32, u32, b >> (a & 15))
LANES2(ashrrev, i32, i32, i32, b >> (a & 15))
LANES2(max_, i32, i32, i32, a > b ? a : b)
LANES2(min_, i32, i32, i32, a < b ? a : b)
LANES3(max3, i32, i32, i32, i32, a > b ? (a > c ? a : c) : (b > c ? b : c))
LANES3(min3, i32, i32, i32, i32, a < b ? (a < c ? a : c) : (b < c ? b : c))
LANES3(med3, i32, i32, i32, i32, median(a, b, c))
LANES3(mad_u, u32, u32, u32, u32, CLAMP && (u64)a * b + c > 65535 ? 65535 : a * b + c)
LANES3(mad_i, u32, i32, i32, i32, limit_i16(a *b + c, CLAMP))
LANES3(mad_u32, u32, u32, u32, u32, a *b + c)
LANES3(mad_i32, i32, i32, i32, i32, a *b + c)
LANES2(pack, u32, u32, u32, a | b << 16)

#define U TYPE_B16
#define I TYPE_I16
#define TWO(T, K) run_vector, K, T, {T, T}, CLASS_VALU, 0
#define THREE(T, K) run_vector, K, T, {T, T, T}, CLASS_VALU, 0

static const Semantics entries[] = {
    {"v_mov_b16", run_vector, mov, U, {U}, CLASS_VALU, 0},
    {"v_not_b16", run_vector, not_, U, {U}, CLASS_VALU, 0},
    {"v_add_u16 v_add_nc_u16", TWO(U, add_u)},
    {"v_sub_u16 v_sub_nc_u16", TWO(U, sub_u)},
    {"v_subrev_u16", TWO(U, subrev_u)},
    {"v_add_i16 v_add_nc_i16", TWO(I, add_i)},
    {"v_sub_i16 v_sub_nc_i16", TWO(I, sub_i)},
    {"v_mul_lo_u16", TWO(U, mul_lo)},
    {"v_and_b16", TWO(U, and_)},
    {"v_or_b16", TWO(U, or_)},
    {"v_xor_b16", TWO(U, xor_)},
    {"v_lshlrev_b16", TWO(U, lshlrev)},
    {"v_lshrrev_b16", TWO(U, lshrrev)},
    {"v_ashrrev_i16", TWO(I, ashrrev)},
    {"v_max_u16", TWO(U, max_)},
    {"v_min_u16", TWO(U, min_)},
    {"v_max_i16", TWO(I, max_)},
    {"v_min_i16", TWO(I, min_)},
    {"v_max3_u16", THREE(U, max3)},
    {"v_min3_u16", THREE(U, min3)},
    {"v_med3_u16", THREE(U, med3)},
    {"v_max3_i16", THREE(I, max3)},
    {"v_min3_i16", THREE(I, min3)},
    {"v_med3_i16", THREE(I, med3)},
    {"v_mad_u16 v_mad_legacy_u16", THREE(U, mad_u)},
    {"v_mad_i16 v_mad_legacy_i16", THREE(I, mad_i)},
    {"v_mad_u32_u16", run_vector, mad_u32, TYPE_B32, {U, U, TYPE_B32}, CLASS_VALU, 0},
    {"v_mad_i32_i16", run_vector, mad_i32, TYPE_B32, {I, I, TYPE_B32}, CLASS_VALU, 0},
    {"v_pack_b32_f16", run_vector, pack, TYPE_B32, {U, U}, CLASS_VALU, 0},
};
const SemanticsTable short_table = {entries, COUNT_OF(entries)};
