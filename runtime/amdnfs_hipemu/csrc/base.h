// Integer and float names, bit casts and limits that every file of the emulator uses.
#pragma once
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t i8;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
typedef float f32;
typedef double f64;

// Lanes of the widest wave. Registers of 32-lane waves use the first half of each row, so that rows have one stride.
#define MAX_LANES 64
// CDNA: 256 vector registers and 256 accumulation registers in one file; RDNA uses the first 256.
#define MAX_VGPRS 512
#define VECTOR_ALIGNED __attribute__((aligned(64)))
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))
#define UNUSED __attribute__((unused))

static inline f32 f32_of(u32 bits) {
  f32 value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline u32 bits_of(f32 value) {
  u32 bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static inline f64 f64_of(u64 bits) {
  f64 value;
  memcpy(&value, &bits, 8);
  return value;
}
static inline u64 bits_of_f64(f64 value) {
  u64 bits;
  memcpy(&bits, &value, 8);
  return bits;
}
static inline i64 sign_extend(u64 value, int bits) { return (i64)(value << (64 - bits)) >> (64 - bits); }
static inline u32 field(u64 word, int low, int bits) { return (u32)(word >> low & ((1ull << bits) - 1)); }
