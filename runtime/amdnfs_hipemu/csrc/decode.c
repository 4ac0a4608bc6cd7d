// Decodes a kernel: finds each instruction's format, and resolves branch targets.
// Source: "Microcode Formats" of AMD's CDNA3, CDNA4, RDNA2, RDNA3 and RDNA4 ISA documents.
#include "decode.h"

#include <stdio.h>
#include <stdlib.h>

u32 bits_at(const Decoder *d, int low, int bits) {
  u64 pair = d->word[low / 32] | (u64)d->word[low / 32 + 1] << 32;
  return field(pair, low % 32, bits);
}

u32 take_literal(Decoder *d) {
  if (!d->has_literal) {
    d->has_literal = true;
    d->literal = d->word[d->num_words++];
  }
  return d->literal;
}

u32 registers_of(Type type) { return type == TYPE_B64 || type == TYPE_F64 ? 2 : 1; }

// CDNA and RDNA2 have M0 at 124 and NULL (RDNA2 only) at 125; from RDNA3 on it is the other way round.
Operand scalar_register(const Decoder *d, u32 code, u32 count) {
  if (d->family <= GFX10 && (code == 124 || code == 125)) code ^= 1;
  return (Operand){.kind = OPERAND_SGPR, .type = TYPE_B32, .reg = (u16)code, .count = (u16)count, .is_plain = true};
}

Operand vector_register(u32 index, u32 count) {
  return (Operand){.kind = OPERAND_VGPR, .type = TYPE_B32, .reg = (u16)index, .count = (u16)count, .is_plain = true};
}

Operand lane_mask(const Decoder *d, u32 code) {
  Operand operand = scalar_register(d, code, d->kernel->lanes == 64 ? 2 : 1);
  operand.type = TYPE_LANES;
  return operand;
}

// "Inline constants": 240-248 are 0.5, -0.5, 1, -1, 2, -2, 4, -4 and 1/(2 pi) in the type of the operand.
static u64 float_constant(u32 code, Type type) {
  static const f64 values[] = {0.5, -0.5, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0};
  static const u16 halves[] = {0x3800, 0xb800, 0x3c00, 0xbc00, 0x4000, 0xc000, 0x4400, 0xc400, 0x3118};
  if (type == TYPE_F16 || type == TYPE_B16 || type == TYPE_I16) return halves[code - 240];
  if (type == TYPE_F64 || type == TYPE_B64) return code == 248 ? 0x3fc45f306dc9c882ull : bits_of_f64(values[code - 240]);
  u32 single = code == 248 ? 0x3e22f983 : bits_of((f32)values[code - 240]);
  return type == TYPE_BF16 ? single >> 16 : single;
}

Operand source_operand(Decoder *d, u32 code, Type type) {
  Operand operand = {.kind = OPERAND_VALUE, .type = (u8)type, .count = (u16)registers_of(type), .is_plain = true};
  if (code >= 256) {
    operand = vector_register(code - 256, registers_of(type));
  } else if (code < 128) {
    operand = type == TYPE_LANES ? lane_mask(d, code) : scalar_register(d, code, registers_of(type));
  } else if (code <= 208) {
    i64 value = code <= 192 ? (i64)code - 128 : 192 - (i64)code;
    operand.value = type == TYPE_B64 || type == TYPE_F64 ? (u64)value : (u32)value;
    if (type == TYPE_B16 || type == TYPE_F16 || type == TYPE_BF16) operand.value &= 0xffff;
  } else if (code >= 240 && code <= 248) {
    operand.value = float_constant(code, type);
  } else if (code == 255) {
    // "Literal constant": for 64-bit floats the high half, for 64-bit integers sign-extended, for 16 bits the low half.
    u32 literal = take_literal(d);
    operand.value = literal;
    if (type == TYPE_F64) operand.value = (u64)literal << 32;
    if (type == TYPE_B64) operand.value = (u64)(i64)(i32)literal;
    if (type == TYPE_B16 || type == TYPE_F16 || type == TYPE_BF16) operand.value &= 0xffff;
    if (type == TYPE_I16) operand.value = (u32)(i32)(i16)literal;
  } else if (code >= 251 && code <= 253) {
    operand.kind = code == 251 ? OPERAND_VCCZ : code == 252 ? OPERAND_EXECZ : OPERAND_SCC;
  } else {
    d->inst->semantics = NULL;  // apertures, LDS direct: nothing here knows them
    operand.kind = OPERAND_NONE;
  }
  operand.type = (u8)type;
  return operand;
}

bool name_inst(Decoder *d, Format format, u32 opcode) {
  d->inst->format = (u8)format;
  d->inst->name = mnemonic(d->chip, format, opcode);
  d->inst->semantics = d->inst->name ? semantics_of(d->inst->name) : NULL;
  if (!d->inst->semantics) return false;
  d->inst->execute = d->inst->semantics->execute;
  d->inst->inst_class = d->inst->semantics->inst_class;
  d->inst->imm = d->inst->semantics->detail;
  return true;
}

static void decode_gfx9_vector(Decoder *d, u32 w) {
  if (w >> 26 == 0x34) {
    d->num_words = 2;
    decode_vector(d, w >> 23 == 0x1a7 ? FORMAT_VOP3P : FORMAT_VOP3);
  } else {
    decode_vector(d, w >> 25 == 0x3f ? FORMAT_VOP1 : w >> 25 == 0x3e ? FORMAT_VOPC : FORMAT_VOP2);
  }
}

static void decode_vector_family(Decoder *d, u32 w) {
  if (w >> 24 == 0xcc) {
    d->num_words = 2;
    decode_vector(d, FORMAT_VOP3P);
  } else if (w >> 26 == 0x35) {
    d->num_words = 2;
    decode_vector(d, FORMAT_VOP3);
  } else if (w >> 26 == 0x32 && d->family >= GFX11) {
    d->num_words = 2;
    decode_dual(d);
  } else if (w >> 31 == 0) {
    decode_vector(d, w >> 25 == 0x3f ? FORMAT_VOP1 : w >> 25 == 0x3e ? FORMAT_VOPC : FORMAT_VOP2);
  }
}

static bool is_memory(Decoder *d, u32 w) {
  u32 major = w >> 26;
  if (major == (d->family == GFX9 ? 0x30u : 0x3du)) decode_scalar_memory(d);
  else if (major == 0x36) decode_lds(d);
  else if (d->family == GFX12 && w >> 24 == 0xec) decode_memory(d, FORMAT_FLAT);
  else if (d->family == GFX12 && w >> 24 == 0xee) decode_memory(d, FORMAT_GLOBAL);
  else if (d->family == GFX12 && w >> 24 == 0xed) decode_memory(d, FORMAT_SCRATCH);
  else if (d->family == GFX12 && major == 0x31) decode_memory(d, FORMAT_MUBUF);
  else if (d->family != GFX12 && major == 0x38) decode_memory(d, FORMAT_MUBUF);
  else if (d->family != GFX12 && major == 0x37) {
    u32 segment = d->family == GFX11 ? field(w, 16, 2) : field(w, 14, 2);
    decode_memory(d, segment == 0 ? FORMAT_FLAT : segment == 1 ? FORMAT_SCRATCH : FORMAT_GLOBAL);
  } else return false;
  return true;
}

static void decode_inst(Decoder *d) {
  u32 w = d->word[0];
  d->num_words = 1;
  d->has_literal = false;
  if (w >> 23 == 0x17d) decode_scalar(d, FORMAT_SOP1);
  else if (w >> 23 == 0x17e) decode_scalar(d, FORMAT_SOPC);
  else if (w >> 23 == 0x17f) decode_scalar(d, FORMAT_SOPP);
  else if (w >> 28 == 0xb) decode_scalar(d, FORMAT_SOPK);
  else if (w >> 30 == 2) decode_scalar(d, FORMAT_SOP2);
  else if (is_memory(d, w)) return;
  else if (d->family == GFX9) decode_gfx9_vector(d, w);
  else decode_vector_family(d, w);
}

static void resolve_targets(Kernel *kernel) {
  for (u32 i = 0; i < kernel->num_insts; i++) {
    Inst *inst = &kernel->insts[i];
    u32 at = (inst->target - kernel->entry) / 4;
    bool is_inside = inst->target != UINT32_MAX && inst->target >= kernel->entry && at < kernel->code_bytes / 4;
    inst->target = is_inside ? kernel->inst_of_pc[at] : UINT32_MAX;
  }
}

static void find_used_registers(Kernel *kernel) {
  kernel->used_vgprs = 3;  // the work-item's ids
  for (u32 i = 0; i < kernel->num_insts; i++) {
    for (u32 k = 0; k < kernel->insts[i].num_uses; k++) {
      RegisterUse use = kernel->insts[i].uses[k];
      u32 end = use.first + use.count;
      if (use.first < 256 && end > kernel->used_vgprs) kernel->used_vgprs = end;
      if (use.first >= 256 && use.first < USE_SGPR && end - 256 > kernel->used_accs) kernel->used_accs = end - 256;
    }
  }
}

// Damaged code can name registers beyond the last; such an instruction stops a wave that reaches it.
static bool has_registers(const Inst *inst) {
  for (u32 k = 0; k < inst->num_uses; k++) {
    u32 end = inst->uses[k].first + inst->uses[k].count;
    if (inst->uses[k].first < USE_SGPR ? end > MAX_VGPRS : end > USE_SGPR + 128) return false;
  }
  return true;
}

bool decode_kernel(Kernel *kernel, char *message, size_t message_bytes) {
  u32 num_words = kernel->code_bytes / 4;
  kernel->insts = calloc(num_words + 1, sizeof(Inst));
  kernel->inst_of_pc = malloc((num_words + 1) * sizeof(u32));
  if (!kernel->insts || !kernel->inst_of_pc) {
    snprintf(message, message_bytes, "kernel %s does not fit into memory", kernel->name);
    return false;
  }
  memset(kernel->inst_of_pc, 0xff, (num_words + 1) * sizeof(u32));
  for (u32 at = 0; at < num_words;) {
    Inst *inst = &kernel->insts[kernel->num_insts];
    Decoder d = {.kernel = kernel, .chip = kernel->module->chip, .family = kernel->module->chip->family, .inst = inst};
    u32 available = num_words - at < 4 ? num_words - at : 4;
    memcpy(d.word, kernel->module->image + kernel->entry + at * 4, available * 4);
    inst->pc = kernel->entry + at * 4;
    inst->word = d.word[0];
    inst->target = UINT32_MAX;
    for (int c = 0; c < NUM_WAIT_COUNTERS; c++) inst->waits[c] = WAIT_NONE;
    decode_inst(&d);
    if (!inst->semantics) inst->execute = NULL;
    inst->next_pc = inst->pc + d.num_words * 4;
    if (inst->semantics && inst->num_uses == 0) note_uses(inst);
    if (!has_registers(inst)) {
      inst->execute = NULL;
      inst->num_uses = 0;
    }
    kernel->inst_of_pc[at] = kernel->num_insts++;
    at += d.num_words;
  }
  resolve_targets(kernel);
  find_used_registers(kernel);
  return true;
}

void note_use(Inst *inst, const Operand *operand, bool is_write) {
  if (operand->count == 0 || inst->num_uses == MAX_USES) return;
  if (operand->kind != OPERAND_VGPR && (operand->kind != OPERAND_SGPR || operand->reg == SGPR_NULL)) return;
  u32 first = operand->kind == OPERAND_VGPR ? operand->reg : USE_SGPR + (u32)operand->reg;
  inst->uses[inst->num_uses++] = (RegisterUse){(u16)first, operand->count & 0x7fff, is_write};
}

void note_uses(Inst *inst) {
  for (int k = 0; k < 4; k++) note_use(inst, &inst->src[k], false);
  note_use(inst, &inst->dst, true);
  note_use(inst, &inst->dst2, true);
}
