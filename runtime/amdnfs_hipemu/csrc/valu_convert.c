// Conversions between integers and floats of 16, 32 and 64 bits.
#include "half.h"
#include "lanes.h"
#include "tables.h"

// "V_CVT_I32_F32: out-of-range floating point values (including infinity) saturate. NaN is converted to 0."
static inline i32 to_i32(f64 a) {
  f64 limited = a < -2147483648.0 ? -2147483648.0 : a > 2147483647.0 ? 2147483647.0 : a;
  return a != a ? 0 : (i32)limited;
}
static inline u32 to_u32(f64 a) {
  f64 limited = a < 0.0 ? 0.0 : a > 4294967295.0 ? 4294967295.0 : a;
  return a != a ? 0 : (u32)(i64)limited;
}
static inline i32 to_i16(f32 a) { return a != a ? 0 : a < -32768.0f ? -32768 : a > 32767.0f ? 32767 : (i32)a; }
static inline u32 to_u16(f32 a) { return a != a || a < 0.0f ? 0 : a > 65535.0f ? 65535 : (u32)(i32)a; }
static inline u32 normalised_i16(f32 a) { return (u32)to_i16(__builtin_roundevenf((a < -1.0f ? -1.0f : a > 1.0f ? 1.0f : a) * 32767.0f)) & 0xffff; }
static inline u32 normalised_u16(f32 a) { return to_u16(__builtin_roundevenf((a < 0.0f ? 0.0f : a > 1.0f ? 1.0f : a) * 65535.0f)); }

LANES1(copy_f32, f32, f32, a)
LANES1(f32_from_i32, f32, i32, a)
LANES1(f32_from_u32, f32, u32, a)
LANES1(i32_from_f32, i32, f32, to_i32((f64)a))
LANES1(u32_from_f32, u32, f32, to_u32((f64)a))
LANES1(i32_nearest, i32, f32, to_i32(floor((f64)a + 0.5)))
LANES1(i32_floor, i32, f32, to_i32(floor((f64)a)))
LANES1(f32_from_f64, f32, f64, a)
LANES1(f64_from_f32, f64, f32, a)
LANES1(f64_from_i32, f64, i32, a)
LANES1(f64_from_u32, f64, u32, a)
LANES1(i32_from_f64, i32, f64, to_i32(a))
LANES1(u32_from_f64, u32, f64, to_u32(a))
LANES1(i16_from_f16, i32, f32, to_i16(a))
LANES1(u16_from_f16, u32, f32, to_u16(a))
LANES1(copy_u32, u32, u32, a)
LANES1(byte0, f32, u32, (i32)(a & 255))
LANES1(byte1, f32, u32, (i32)(a >> 8 & 255))
LANES1(byte2, f32, u32, (i32)(a >> 16 & 255))
LANES1(byte3, f32, u32, (i32)(a >> 24))
LANES1(norm_i16, u32, f32, normalised_i16(a))
LANES1(norm_u16, u32, f32, normalised_u16(a))
LANES2(pk_bf16, u32, f32, f32, float_to_bf16(a) | float_to_bf16(b) << 16)
LANES2(pk_norm_i16, u32, f32, f32, normalised_i16(a) | normalised_i16(b) << 16)
LANES2(pk_norm_u16, u32, f32, f32, normalised_u16(a) | normalised_u16(b) << 16)
LANES2(pk_i16_f32, u32, f32, f32, (to_i16(a) & 0xffff) | (u32)to_i16(b) << 16)
LANES2(pk_u16_f32, u32, f32, f32, to_u16(a) | to_u16(b) << 16)
LANES2(pk_u16_u32, u32, u32, u32, (a > 65535 ? 65535 : a) | (b > 65535 ? 65535u : b) << 16)
LANES2(pk_i16_i32, u32, i32, i32, (u32)(a > 32767 ? 32767 : a < -32768 ? -32768 : a) % 65536 |
                                      (u32)(b > 32767 ? 32767 : b < -32768 ? -32768 : b) << 16)
// "V_CVT_PK_U8_F32": one byte of S2 is replaced.
LANES3(pk_u8, u32, f32, u32, u32, (c & ~(255u << 8 * (b & 3))) |
                                      (u32)(a != a || a < 0.0f ? 0 : a > 255.0f ? 255 : (i32)__builtin_roundevenf(a)) << 8 * (b & 3))

// "V_CVT_PKRTZ_F16_F32" rounds to zero, "V_CVT_PK_F16_F32" as MODE says.
static void pk_f16(const LaneArgs *args, Rounding rounding) {
  u32 low[MAX_LANES] VECTOR_ALIGNED, high[MAX_LANES] VECTOR_ALIGNED, *out = args->out;
  floats_to_halves(low, args->in[0], args->lanes, rounding);
  floats_to_halves(high, args->in[1], args->lanes, rounding);
  for (int l = 0; l < args->lanes; l++) out[l] = low[l] | high[l] << 16;
}
static void pk_f16_to_zero(const LaneArgs *args) { pk_f16(args, ROUND_ZERO); }
static void pk_f16_by_mode(const LaneArgs *args) { pk_f16(args, (Rounding)(args->wave->mode >> 2 & 3)); }

// "V_CVT_OFF_F32_I4": a signed 4-bit number over 16.
LANES1(off_i4, f32, u32, (f32)(i32)sign_extend(a & 15, 4) * 0.0625f)

#define F TYPE_F32
#define H TYPE_F16
#define U TYPE_B32
#define D TYPE_F64
#define ONE(OUT, IN, K) run_vector, K, OUT, {IN}, CLASS_VALU, 0
#define PAIR(IN, K) run_vector, K, U, {IN, IN}, CLASS_VALU, 0

static const Semantics entries[] = {
    {"v_cvt_f32_f16", ONE(F, H, copy_f32)},
    {"v_cvt_f16_f32", ONE(H, F, copy_f32)},
    {"v_cvt_f32_bf16", ONE(F, TYPE_BF16, copy_f32)},
    {"v_cvt_f32_i32", ONE(F, U, f32_from_i32)},
    {"v_cvt_f32_u32", ONE(F, U, f32_from_u32)},
    {"v_cvt_i32_f32", ONE(U, F, i32_from_f32)},
    {"v_cvt_u32_f32", ONE(U, F, u32_from_f32)},
    {"v_cvt_rpi_i32_f32 v_cvt_nearest_i32_f32", ONE(U, F, i32_nearest)},
    {"v_cvt_flr_i32_f32 v_cvt_floor_i32_f32", ONE(U, F, i32_floor)},
    {"v_cvt_f32_f64", ONE(F, D, f32_from_f64)},
    {"v_cvt_f64_f32", ONE(D, F, f64_from_f32)},
    {"v_cvt_f64_i32", ONE(D, U, f64_from_i32)},
    {"v_cvt_f64_u32", ONE(D, U, f64_from_u32)},
    {"v_cvt_i32_f64", ONE(U, D, i32_from_f64)},
    {"v_cvt_u32_f64", ONE(U, D, u32_from_f64)},
    {"v_cvt_f16_i16", ONE(H, TYPE_I16, f32_from_i32)},
    {"v_cvt_f16_u16", ONE(H, TYPE_B16, f32_from_u32)},
    {"v_cvt_i16_f16", ONE(TYPE_I16, H, i16_from_f16)},
    {"v_cvt_u16_f16", ONE(TYPE_B16, H, u16_from_f16)},
    {"v_cvt_i32_i16", ONE(U, TYPE_I16, copy_u32)},
    {"v_cvt_u32_u16", ONE(U, TYPE_B16, copy_u32)},
    {"v_cvt_f32_ubyte0", ONE(F, U, byte0)},
    {"v_cvt_f32_ubyte1", ONE(F, U, byte1)},
    {"v_cvt_f32_ubyte2", ONE(F, U, byte2)},
    {"v_cvt_f32_ubyte3", ONE(F, U, byte3)},
    {"v_cvt_off_f32_i4", ONE(F, U, off_i4)},
    {"v_cvt_norm_i16_f16", ONE(TYPE_B16, H, norm_i16)},
    {"v_cvt_norm_u16_f16", ONE(TYPE_B16, H, norm_u16)},
    {"v_cvt_pk_bf16_f32", PAIR(F, pk_bf16)},
    {"v_cvt_pk_f16_f32", PAIR(F, pk_f16_by_mode)},
    {"v_cvt_pkrtz_f16_f32 v_cvt_pk_rtz_f16_f32", PAIR(F, pk_f16_to_zero)},
    {"v_cvt_pknorm_i16_f32 v_cvt_pk_norm_i16_f32", PAIR(F, pk_norm_i16)},
    {"v_cvt_pknorm_u16_f32 v_cvt_pk_norm_u16_f32", PAIR(F, pk_norm_u16)},
    {"v_cvt_pknorm_i16_f16 v_cvt_pk_norm_i16_f16", PAIR(H, pk_norm_i16)},
    {"v_cvt_pknorm_u16_f16 v_cvt_pk_norm_u16_f16", PAIR(H, pk_norm_u16)},
    {"v_cvt_pk_i16_f32", PAIR(F, pk_i16_f32)},
    {"v_cvt_pk_u16_f32", PAIR(F, pk_u16_f32)},
    {"v_cvt_pk_u16_u32", PAIR(U, pk_u16_u32)},
    {"v_cvt_pk_i16_i32", PAIR(U, pk_i16_i32)},
    {"v_cvt_pk_u8_f32", run_vector, pk_u8, U, {F, U, U}, CLASS_VALU, 0},
};
const SemanticsTable convert_table = {entries, COUNT_OF(entries)};
