// Scalar formats: SOP1, SOP2, SOPC, SOPK, SOPP and SMEM.
#include "decode.h"

static bool starts_with(const char *name, const char *prefix) { return !strncmp(name, prefix, strlen(prefix)); }

// "S_WAITCNT": which bits hold which counter. CDNA: vmcnt 15:14|3:0, expcnt 6:4, lgkmcnt 11:8. RDNA2: lgkmcnt has
// 13:8. RDNA3: vmcnt 15:10, lgkmcnt 9:4, expcnt 2:0.
static void read_waitcnt(Decoder *d, u32 imm) {
  u32 vm, lgkm, expcnt;
  if (d->family == GFX11) {
    vm = field(imm, 10, 6), lgkm = field(imm, 4, 6), expcnt = field(imm, 0, 3);
  } else {
    vm = field(imm, 0, 4) | field(imm, 14, 2) << 4;
    lgkm = field(imm, 8, d->family == GFX9 ? 4 : 6);
    expcnt = field(imm, 4, 3);
  }
  d->inst->waits[COUNTER_LOAD] = (u16)vm;
  d->inst->waits[COUNTER_DS] = d->inst->waits[COUNTER_KM] = (u16)lgkm;
  d->inst->waits[COUNTER_EXP] = (u16)expcnt;
  if (d->family == GFX9) d->inst->waits[COUNTER_STORE] = (u16)vm;
}

static void read_wait(Decoder *d, u32 imm) {
  const char *name = d->inst->name;
  u16 *waits = d->inst->waits;
  if (!strcmp(name, "s_waitcnt")) read_waitcnt(d, imm);
  else if (!strcmp(name, "s_waitcnt_vscnt") || !strcmp(name, "s_wait_storecnt")) waits[COUNTER_STORE] = (u16)(imm & 63);
  else if (!strcmp(name, "s_waitcnt_vmcnt") || !strcmp(name, "s_wait_loadcnt")) waits[COUNTER_LOAD] = (u16)(imm & 63);
  else if (!strcmp(name, "s_waitcnt_lgkmcnt")) waits[COUNTER_DS] = waits[COUNTER_KM] = (u16)(imm & 63);
  else if (!strcmp(name, "s_wait_dscnt")) waits[COUNTER_DS] = (u16)(imm & 63);
  else if (!strcmp(name, "s_wait_kmcnt")) waits[COUNTER_KM] = (u16)(imm & 31);
  else if (!strcmp(name, "s_wait_loadcnt_dscnt") || !strcmp(name, "s_wait_storecnt_dscnt")) {
    waits[COUNTER_DS] = (u16)(imm & 63);
    waits[name[7] == 'l' ? COUNTER_LOAD : COUNTER_STORE] = (u16)(imm >> 8 & 63);
  }
}

static void decode_sopp(Decoder *d, u32 imm) {
  Inst *inst = d->inst;
  if (starts_with(inst->name, "s_branch") || starts_with(inst->name, "s_cbranch"))
    inst->target = inst->pc + 4 + (u32)((i32)(i16)imm * 4);
  else if (starts_with(inst->name, "s_wait")) read_wait(d, imm);
}

static void decode_sopk(Decoder *d, u32 imm) {
  Inst *inst = d->inst;
  inst->dst = scalar_register(d, bits_at(d, 16, 7), inst->semantics->out == TYPE_B64 ? 2 : 1);
  if (starts_with(inst->name, "s_waitcnt")) {
    inst->dst.kind = OPERAND_NONE;
    read_wait(d, imm);
  } else if (starts_with(inst->name, "s_setreg_imm32")) {
    inst->dst.kind = OPERAND_NONE;
    inst->src[0] = source_operand(d, 255, TYPE_B32);
  } else if (starts_with(inst->name, "s_setreg") || starts_with(inst->name, "s_cmpk")) {
    inst->src[0] = inst->dst;
    inst->dst.kind = OPERAND_NONE;
  } else if (starts_with(inst->name, "s_addk") || starts_with(inst->name, "s_mulk") || starts_with(inst->name, "s_cmovk")) {
    inst->src[0] = inst->dst;
  } else if (starts_with(inst->name, "s_call")) {
    inst->target = inst->pc + 4 + (u32)((i32)(i16)imm * 4);
  }
}

void decode_scalar(Decoder *d, Format format) {
  static const u8 opcode_low[] = {8, 23, 16, 23, 16}, opcode_bits[] = {8, 7, 7, 5, 7};
  bool is_known = name_inst(d, format, bits_at(d, opcode_low[format], opcode_bits[format]));
  u32 imm = bits_at(d, 0, 16);
  if (!is_known) {
    // The length must be right all the same, so that what follows is decoded.
    bool uses_sources = format == FORMAT_SOP1 || format == FORMAT_SOP2 || format == FORMAT_SOPC;
    bool has_literal = uses_sources && (bits_at(d, 0, 8) == 255 || (format != FORMAT_SOP1 && bits_at(d, 8, 8) == 255));
    d->num_words += has_literal;
    return;
  }
  const Semantics *semantics = d->inst->semantics;
  d->inst->imm = imm;
  if (format == FORMAT_SOPP) {
    decode_sopp(d, imm);
  } else if (format == FORMAT_SOPK) {
    decode_sopk(d, imm);
  } else {
    if (format != FORMAT_SOPC && semantics->out)
      d->inst->dst = scalar_register(d, bits_at(d, 16, 7), registers_of(semantics->out));
    d->inst->dst.type = semantics->out;
    if (semantics->in[0]) d->inst->src[0] = source_operand(d, bits_at(d, 0, 8), semantics->in[0]);
    if (format != FORMAT_SOP1 && semantics->in[1]) d->inst->src[1] = source_operand(d, bits_at(d, 8, 8), semantics->in[1]);
    if (semantics->in[2]) {  // s_fmac, s_fmaak: the destination or a literal is the third source
      d->inst->src[2] = strstr(d->inst->name, "fmac") ? d->inst->dst : source_operand(d, 255, semantics->in[2]);
      d->inst->src[2].type = semantics->in[2];
    }
  }
}

// SMEM. CDNA: offset 52:32 if IMM (bit 17), SGPR offset 63:57 if SOFFSET_EN (bit 14), else the SGPR number stands in
// the offset field. RDNA2 and 3: offset 52:32, SGPR offset 63:57 (NULL: none). RDNA4: offset 55:32, 24 bits signed.
void decode_scalar_memory(Decoder *d) {
  Inst *inst = d->inst;
  d->num_words = 2;
  u32 opcode = d->family == GFX12 ? bits_at(d, 13, 6) : bits_at(d, 18, 8);
  if (!name_memory_inst(d, FORMAT_SMEM, opcode)) return;
  inst->src[0] = scalar_register(d, bits_at(d, 0, 6) * 2, strstr(inst->name, "buffer") ? 4 : 2);
  inst->dst = scalar_register(d, bits_at(d, 6, 7), inst->size < 4 ? 1 : inst->size / 4);
  u32 soffset = bits_at(d, 57, 7);
  if (d->family == GFX9) {
    bool has_imm = bits_at(d, 17, 1);
    inst->offset = has_imm ? (i32)sign_extend(bits_at(d, 32, 21), 21) : 0;
    if (!has_imm) inst->src[1] = scalar_register(d, bits_at(d, 32, 7), 1);
    else if (bits_at(d, 14, 1)) inst->src[1] = scalar_register(d, soffset, 1);
  } else {
    int offset_bits = d->family == GFX12 ? 24 : 21;
    inst->offset = (i32)sign_extend(bits_at(d, 32, offset_bits), offset_bits);
    inst->src[1] = scalar_register(d, soffset, 1);
    if (inst->src[1].reg == SGPR_NULL) inst->src[1].kind = OPERAND_NONE;
  }
}
