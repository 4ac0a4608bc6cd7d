// The tables of semantics, one a file of operations; semantics.c searches them.
#pragma once
#include "program.h"

typedef struct {
  const Semantics *entries;
  size_t count;
} SemanticsTable;

extern const SemanticsTable float_table, double_table, integer_table, short_table, convert_table, small_float_table,
    scaled_table, carry_table, packed_table, dot_table, cross_table, scalar_table, scalar_wide_table, scalar_float_table,
    control_table, lds_table, matrix_table;

// v_cmp_* and v_cmpx_* of all types.
const Semantics *compare_semantics(const char *name);
