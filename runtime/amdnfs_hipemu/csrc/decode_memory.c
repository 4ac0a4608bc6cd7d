// Memory formats: MUBUF, FLAT, GLOBAL, SCRATCH and DS, whose mnemonics say size, direction and kind of an access.
#include <stdlib.h>

#include "decode.h"
#include "memory_ops.h"

static bool contains(const char *name, const char *part) { return strstr(name, part) != NULL; }

static bool ends_with(const char *name, const char *suffix) {
  size_t length = strlen(name), tail = strlen(suffix);
  return length >= tail && !strcmp(name + length - tail, suffix);
}

// Bytes of a lane's access. Documents before RDNA3 write dword, dwordx2, ubyte; later ones b32, b64, u8.
static u32 access_bytes(const char *name) {
  static const struct {
    const char *part;
    u32 bytes;
  } sizes[] = {
      {"dwordx16", 64}, {"dwordx8", 32}, {"dwordx4", 16}, {"dwordx3", 12}, {"dwordx2", 8}, {"dword", 4}, {"b512", 64},
      {"b256", 32},     {"b128", 16},    {"b96", 12},     {"b64", 8},      {"b32", 4},     {"ubyte", 1}, {"sbyte", 1},
      {"ushort", 2},    {"sshort", 2},   {"byte", 1},     {"short", 2},    {"_u8", 1},     {"_i8", 1},   {"_b8", 1},
      {"_u16", 2},      {"_i16", 2},     {"_b16", 2},
  };
  for (size_t i = 0; i < COUNT_OF(sizes); i++)
    if (contains(name, sizes[i].part)) return sizes[i].bytes;
  return 0;
}

// Operation of an atomic from what follows `atomic_` or `ds_`; its width in `bytes`.
static AtomicOp atomic_of(const char *text, u32 *bytes) {
  static const struct {
    const char *prefix;
    AtomicOp op;
  } table[] = {
      {"pk_add_f16", ATOMIC_PK_ADD_F16}, {"pk_add_rtn_f16", ATOMIC_PK_ADD_F16}, {"pk_add_bf16", ATOMIC_PK_ADD_BF16},
      {"pk_add_rtn_bf16", ATOMIC_PK_ADD_BF16}, {"add_f", ATOMIC_ADD_F}, {"add_rtn_f", ATOMIC_ADD_F},
      {"min_num_f", ATOMIC_MIN_F}, {"max_num_f", ATOMIC_MAX_F}, {"min_num_rtn_f", ATOMIC_MIN_F},
      {"max_num_rtn_f", ATOMIC_MAX_F}, {"min_f", ATOMIC_MIN_F}, {"max_f", ATOMIC_MAX_F}, {"min_rtn_f", ATOMIC_MIN_F},
      {"max_rtn_f", ATOMIC_MAX_F}, {"fmin", ATOMIC_MIN_F}, {"fmax", ATOMIC_MAX_F}, {"add", ATOMIC_ADD},
      {"sub_clamp", ATOMIC_SUB_CLAMP}, {"csub", ATOMIC_SUB_CLAMP}, {"cond_sub", ATOMIC_COND_SUB}, {"sub", ATOMIC_SUB},
      {"rsub", ATOMIC_RSUB}, {"inc", ATOMIC_INC}, {"dec", ATOMIC_DEC}, {"smin", ATOMIC_MIN_I}, {"smax", ATOMIC_MAX_I},
      {"umin", ATOMIC_MIN_U}, {"umax", ATOMIC_MAX_U}, {"min_i", ATOMIC_MIN_I}, {"max_i", ATOMIC_MAX_I},
      {"min_u", ATOMIC_MIN_U}, {"max_u", ATOMIC_MAX_U}, {"min_rtn_i", ATOMIC_MIN_I}, {"max_rtn_i", ATOMIC_MAX_I},
      {"min_rtn_u", ATOMIC_MIN_U}, {"max_rtn_u", ATOMIC_MAX_U}, {"and", ATOMIC_AND}, {"or", ATOMIC_OR},
      {"xor", ATOMIC_XOR}, {"swap", ATOMIC_SWAP}, {"wrxchg", ATOMIC_SWAP}, {"storexchg", ATOMIC_SWAP},
      {"cmpswap", ATOMIC_CMPSWAP}, {"cmpst", ATOMIC_CMPSWAP}, {"cmpstore", ATOMIC_CMPSWAP}, {"mskor", ATOMIC_MSKOR},
  };
  for (size_t i = 0; i < COUNT_OF(table); i++) {
    if (strncmp(text, table[i].prefix, strlen(table[i].prefix))) continue;
    *bytes = ends_with(text, "_x2") || ends_with(text, "64") ? 8 : 4;
    return table[i].op;
  }
  return ATOMIC_NONE;
}

static const Semantics GLOBAL_ACCESS = {"global access", run_global, NULL, 0, {0}, CLASS_VECTOR_MEMORY, 0};
static const Semantics FLAT_ACCESS = {"flat access", run_flat, NULL, 0, {0}, CLASS_VECTOR_MEMORY, 0};
static const Semantics SCRATCH_ACCESS = {"scratch access", run_scratch, NULL, 0, {0}, CLASS_SCRATCH, 0};
static const Semantics BUFFER_ACCESS = {"buffer access", run_buffer, NULL, 0, {0}, CLASS_VECTOR_MEMORY, 0};
static const Semantics GLOBAL_ATOMIC = {"global atomic", run_global_atomic, NULL, 0, {0}, CLASS_VECTOR_MEMORY, 0};
static const Semantics BUFFER_ATOMIC = {"buffer atomic", run_buffer_atomic, NULL, 0, {0}, CLASS_VECTOR_MEMORY, 0};
static const Semantics CACHE_CONTROL = {"cache control", run_cache_control, NULL, 0, {0}, CLASS_WAIT, 0};
static const Semantics SCALAR_LOAD = {"scalar load", run_scalar_load, NULL, 0, {0}, CLASS_SCALAR_MEMORY, 0};
static const Semantics SCALAR_BUFFER = {"scalar buffer", run_scalar_buffer_load, NULL, 0, {0}, CLASS_SCALAR_MEMORY, 0};
static const Semantics LDS_ACCESS = {"lds access", run_lds, NULL, 0, {0}, CLASS_LDS, 0};
static const Semantics LDS_TWO = {"lds pair", run_lds2, NULL, 0, {0}, CLASS_LDS, 0};
static const Semantics LDS_ATOMIC = {"lds atomic", run_lds_atomic, NULL, 0, {0}, CLASS_LDS, 0};
static const Semantics LDS_ADDTID = {"lds addtid", run_lds_addtid, NULL, 0, {0}, CLASS_LDS, 0};

static void set_access(Inst *inst, const Semantics *semantics) {
  const char *name = inst->name;
  inst->semantics = semantics;
  inst->size = (u8)access_bytes(name);
  inst->is_store = contains(name, "store") || contains(name, "_write");
  inst->is_signed = contains(name, "sbyte") || contains(name, "sshort") || contains(name, "_i8") || contains(name, "_i16");
  inst->is_d16 = contains(name, "d16");
  inst->is_d16_hi = contains(name, "d16_hi");
  if (inst->size == 0) inst->semantics = NULL;
}

static const Semantics *access_of(Format format) {
  switch (format) {
    case FORMAT_FLAT: return &FLAT_ACCESS;
    case FORMAT_GLOBAL: return &GLOBAL_ACCESS;
    case FORMAT_SCRATCH: return &SCRATCH_ACCESS;
    default: return &BUFFER_ACCESS;
  }
}

static bool is_cache_control(const char *name) {
  return contains(name, "_inv") || contains(name, "wbl2") || contains(name, "_wb") || contains(name, "prefetch") ||
         contains(name, "dcache") || contains(name, "gl0") || contains(name, "gl1");
}

bool name_memory_inst(Decoder *d, Format format, u32 opcode) {
  Inst *inst = d->inst;
  inst->format = (u8)format;
  const char *name = inst->name = mnemonic(d->chip, format, opcode);
  if (!name) return false;
  const char *atomic = strstr(name, "atomic_");
  bool is_typed = contains(name, "format") || contains(name, "_tr") || contains(name, "addtid");
  if (is_cache_control(name)) {
    inst->semantics = &CACHE_CONTROL;
  } else if (format == FORMAT_SMEM) {
    bool is_load = !strncmp(name, "s_load", 6) || !strncmp(name, "s_buffer_load", 13);
    if (is_load) set_access(inst, contains(name, "buffer") ? &SCALAR_BUFFER : &SCALAR_LOAD);
    else if (!strcmp(name, "s_memtime") || !strcmp(name, "s_memrealtime")) inst->semantics = semantics_of(name);
    if (!is_load) inst->size = 8;
  } else if (atomic && format != FORMAT_SCRATCH) {
    u32 bytes = 4;
    inst->imm = atomic_of(atomic + 7, &bytes);
    inst->size = (u8)bytes;
    if (inst->imm) inst->semantics = format == FORMAT_MUBUF ? &BUFFER_ATOMIC : &GLOBAL_ATOMIC;
  } else if (!is_typed && (contains(name, "load") || contains(name, "store"))) {
    set_access(inst, access_of(format));
    inst->to_lds = contains(name, "lds");
  }
  if (!inst->semantics) inst->semantics = semantics_of(name);
  if (!inst->semantics) return false;
  inst->execute = inst->semantics->execute;
  inst->inst_class = inst->semantics->inst_class;
  return true;
}

static u32 data_registers(const Inst *inst) {
  u32 one = inst->size <= 4 ? 1 : inst->size / 4;
  return inst->imm == ATOMIC_CMPSWAP ? 2 * one : one;
}

static void data_operand(Inst *inst, u32 data, u32 destination, bool is_atomic) {
  u32 count = data_registers(inst), result = inst->size <= 4 ? 1 : inst->size / 4;
  if (inst->is_store || is_atomic) inst->src[1] = vector_register(data, count);
  if (inst->to_lds) return;
  if (!inst->is_store && (!is_atomic || inst->returns)) inst->dst = vector_register(destination, result);
}

// Buffer: VADDR holds the index, the offset, or both (IDXEN, OFFEN); SRSRC four SGPRs; SOFFSET an SGPR or constant.
static void decode_buffer(Decoder *d) {
  Inst *inst = d->inst;
  bool is_gfx12 = d->family == GFX12;
  inst->offen = bits_at(d, is_gfx12 ? 62 : d->family == GFX11 ? 54 : 12, 1);
  inst->idxen = bits_at(d, is_gfx12 ? 63 : d->family == GFX11 ? 55 : 13, 1);
  inst->offset = is_gfx12 ? (i32)sign_extend(bits_at(d, 72, 24), 24) : (i32)bits_at(d, 0, 12);
  u32 data = is_gfx12 ? bits_at(d, 32, 8) : bits_at(d, 40, 8);
  if (d->family == GFX9 && bits_at(d, 55, 1)) data += 256;
  u32 address = is_gfx12 ? bits_at(d, 64, 8) : bits_at(d, 32, 8);
  if (inst->offen || inst->idxen) inst->src[0] = vector_register(address, inst->offen && inst->idxen ? 2 : 1);
  inst->src[2] = scalar_register(d, is_gfx12 ? bits_at(d, 41, 9) : bits_at(d, 48, 5) * 4, 4);
  inst->src[3] = source_operand(d, is_gfx12 ? bits_at(d, 0, 7) : bits_at(d, 56, 8), TYPE_B32);
  if (d->family <= GFX10 && bits_at(d, 16, 1)) inst->to_lds = true;
  bool is_atomic = inst->semantics == &BUFFER_ATOMIC;
  if (is_atomic) inst->returns = is_gfx12 ? bits_at(d, 52, 1) : bits_at(d, 14, 1);
  data_operand(inst, data, data, is_atomic);
}

// FLAT, GLOBAL, SCRATCH. SADDR is NULL (0x7f on CDNA, 0x7d on RDNA2) where there is none. SVE: scratch adds VADDR.
static void decode_segment(Decoder *d, Format format) {
  Inst *inst = d->inst;
  bool is_gfx12 = d->family == GFX12, is_atomic = inst->semantics == &GLOBAL_ATOMIC;
  u32 saddr = is_gfx12 ? bits_at(d, 0, 7) : bits_at(d, 48, 7);
  bool has_saddr = saddr != (d->family == GFX9 ? 0x7fu : d->family == GFX10 ? 0x7du : 124u) &&
                   !(d->family == GFX10 && saddr == 0x7f) && (format != FORMAT_FLAT || is_gfx12);
  if (is_gfx12) inst->offset = (i32)sign_extend(bits_at(d, 72, 24), 24);
  else if (d->family == GFX10) inst->offset = format == FORMAT_FLAT ? (i32)bits_at(d, 0, 11) : (i32)sign_extend(bits_at(d, 0, 12), 12);
  else if (d->family == GFX9 && format == FORMAT_FLAT) inst->offset = (i32)bits_at(d, 0, 12);
  else inst->offset = (i32)sign_extend(bits_at(d, 0, 13), 13);
  u32 address = is_gfx12 ? bits_at(d, 64, 8) : bits_at(d, 32, 8);
  u32 data = is_gfx12 ? bits_at(d, 55, 8) : bits_at(d, 40, 8);
  u32 destination = is_gfx12 ? bits_at(d, 32, 8) : bits_at(d, 56, 8);
  if (d->family == GFX9 && bits_at(d, 55, 1)) data += 256, destination += 256;
  if (format == FORMAT_SCRATCH) {
    bool adds_vaddr = is_gfx12                ? bits_at(d, 49, 1)
                      : d->family == GFX11    ? bits_at(d, 55, 1)
                      : d->chip->elf_machine == 0x3f || d->family == GFX10 ? !has_saddr
                                              : bits_at(d, 13, 1);
    if (d->family == GFX9 && d->chip->elf_machine != 0x3f && !has_saddr && !bits_at(d, 13, 1)) adds_vaddr = false;
    if (adds_vaddr) inst->src[0] = vector_register(address, 1);
    if (has_saddr) inst->src[2] = scalar_register(d, saddr, 1);
  } else {
    inst->src[0] = vector_register(address, has_saddr ? 1 : 2);
    if (has_saddr) inst->src[2] = scalar_register(d, saddr, 2);
  }
  if (d->family == GFX9 || d->family == GFX10) inst->to_lds |= d->family == GFX10 && bits_at(d, 13, 1);
  if (is_atomic) inst->returns = is_gfx12 ? bits_at(d, 52, 1) : bits_at(d, d->family == GFX9 ? 16 : d->family == GFX10 ? 16 : 14, 1);
  data_operand(inst, data, destination, is_atomic);
}

void decode_memory(Decoder *d, Format format) {
  u32 opcode;
  d->num_words = d->family == GFX12 ? 3 : 2;
  if (d->family == GFX12) opcode = bits_at(d, 14, 8);
  else if (d->family == GFX11 && format == FORMAT_MUBUF) opcode = bits_at(d, 18, 8);
  else opcode = bits_at(d, 18, 7);
  if (!name_memory_inst(d, format, opcode) || d->inst->semantics == &CACHE_CONTROL) return;
  if (format == FORMAT_MUBUF) decode_buffer(d);
  else decode_segment(d, format);
}

// DS: two-address forms scale both offsets by the element size, ST64 by 64 elements; others have one 16-bit offset.
static void name_lds(Inst *inst) {
  const char *name = inst->name;
  bool is_plain = !strncmp(name, "ds_read", 7) || !strncmp(name, "ds_load", 7) || !strncmp(name, "ds_write", 8) ||
                  !strncmp(name, "ds_store", 8);
  if (contains(name, "_tr") || contains(name, "xchg2") || contains(name, "xchg_2")) return;
  if (contains(name, "addtid")) {
    set_access(inst, &LDS_ADDTID);
  } else if (contains(name, "xchg") || !is_plain) {
    u32 bytes = 4;
    const char *text = name + 3;
    inst->imm = atomic_of(text, &bytes);
    inst->size = (u8)bytes;
    inst->returns = contains(name, "rtn");
    if (inst->imm) inst->semantics = &LDS_ATOMIC;
  } else {
    bool is_pair = contains(name, "2addr") || contains(name, "read2") || contains(name, "write2");
    set_access(inst, is_pair ? &LDS_TWO : &LDS_ACCESS);
  }
}

void decode_lds(Decoder *d) {
  Inst *inst = d->inst;
  d->num_words = 2;
  inst->format = FORMAT_DS;
  inst->name = mnemonic(d->chip, FORMAT_DS, d->family == GFX9 ? bits_at(d, 17, 8) : bits_at(d, 18, 8));
  if (!inst->name) return;
  inst->semantics = semantics_of(inst->name);
  if (!inst->semantics) name_lds(inst);
  if (!inst->semantics) return;
  inst->execute = inst->semantics->execute;
  inst->inst_class = inst->semantics->inst_class;
  u32 acc = d->family == GFX9 && bits_at(d, 25, 1) ? 256 : 0;
  u32 data0 = bits_at(d, 40, 8) + acc, data1 = bits_at(d, 48, 8) + acc, destination = bits_at(d, 56, 8) + acc;
  inst->offset = (i32)bits_at(d, 0, 16);
  inst->src[0] = vector_register(bits_at(d, 32, 8), 1);
  u32 count = inst->size <= 4 ? 1 : inst->size / 4;
  if (inst->semantics == &LDS_TWO) {
    u32 scale = inst->size * (contains(inst->name, "st64") || contains(inst->name, "stride64") ? 64 : 1);
    inst->offset = (i32)(bits_at(d, 0, 8) * scale), inst->offset2 = (i32)(bits_at(d, 8, 8) * scale);
    if (inst->is_store) inst->src[1] = vector_register(data0, count), inst->src[2] = vector_register(data1, count);
    else inst->dst = vector_register(destination, 2 * count);
  } else if (inst->semantics == &LDS_ATOMIC) {
    inst->src[1] = vector_register(data0, count);
    if (inst->imm == ATOMIC_CMPSWAP || inst->imm == ATOMIC_MSKOR) inst->src[2] = vector_register(data1, count);
    if (inst->returns) inst->dst = vector_register(destination, count);
  } else if (inst->semantics == &LDS_ACCESS || inst->semantics == &LDS_ADDTID) {
    if (inst->is_store) inst->src[1] = vector_register(data0, count);
    else inst->dst = vector_register(destination, count);
    if (inst->semantics == &LDS_ADDTID) inst->src[0].kind = OPERAND_NONE;
  } else {  // permutes and swizzles
    if (inst->semantics->in[1]) inst->src[1] = vector_register(data0, 1);
    if (inst->semantics->out) inst->dst = vector_register(destination, registers_of(inst->semantics->out));
  }
}
