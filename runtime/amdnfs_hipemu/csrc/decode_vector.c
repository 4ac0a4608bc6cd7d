// Vector formats: VOP1, VOP2, VOPC, VOP3, VOP3SD, VOP3P and VOPD, with their DPP and SDWA forms.
#include <stdlib.h>

#include "decode.h"

#define CODE_DPP8 233
#define CODE_DPP8_FETCH_INACTIVE 234
#define CODE_SDWA 249
#define CODE_DPP16 250

static bool is_16_bit(u8 type) { return type == TYPE_B16 || type == TYPE_I16 || type == TYPE_F16 || type == TYPE_BF16; }

// "DPP_CTRL Enumerations": the lane that lane `l` reads, or -1.
static int dpp_source(u32 control, int l, int lanes) {
  int row = l & ~15, at = l & 15, n = control & 15;
  if (control < 0x100) return (l & ~3) | (control >> 2 * (l & 3) & 3);
  if (control > 0x100 && control <= 0x10f) return at + n > 15 ? -1 : l + n;
  if (control > 0x110 && control <= 0x11f) return at - n < 0 ? -1 : l - n;
  if (control > 0x120 && control <= 0x12f) return row + ((at - n) & 15);
  switch (control) {
    case 0x130: return l + 1 < lanes ? l + 1 : -1;
    case 0x134: return (l + 1) % lanes;
    case 0x138: return l - 1;
    case 0x13c: return (l + lanes - 1) % lanes;
    case 0x140: return row + 15 - at;
    case 0x141: return (l & ~7) | (7 - (l & 7));
    case 0x142: return l < 16 ? -1 : row - 1;
    case 0x143: return l < 32 ? -1 : 31;
  }
  if ((control & 0x1f0) == 0x150) return row + n;
  if ((control & 0x1f0) == 0x160) return row + (at ^ n);
  return -1;
}

// The DPP dword: control 8:0, FI 10 (RDNA), BOUND_CTRL 11, modifiers 15:12, bank mask 19:16... counted from its bit 0.
static void read_dpp16(Decoder *d, u32 dword) {
  Inst *inst = d->inst;
  Dpp *dpp = calloc(1, sizeof(Dpp));
  if (!dpp) return;
  u32 control = field(dword, 8, 9), bank_mask = field(dword, 24, 4), row_mask = field(dword, 28, 4);
  for (int l = 0; l < MAX_LANES; l++) {
    dpp->source[l] = (i8)dpp_source(control, l, (int)d->kernel->lanes);
    if ((row_mask >> (l >> 4) & 1) && (bank_mask >> ((l & 15) >> 2) & 1)) dpp->writable |= 1ull << l;
  }
  dpp->fetch_inactive = d->family != GFX9 && field(dword, 18, 1);
  dpp->bound_ctrl = field(dword, 19, 1);
  inst->dpp = dpp;
  inst->src[0].neg |= field(dword, 20, 1), inst->src[0].abs |= field(dword, 21, 1);
  inst->src[1].neg |= field(dword, 22, 1), inst->src[1].abs |= field(dword, 23, 1);
}

// "DPP8": eight 3-bit selects, one for each lane of a group of eight.
static void read_dpp8(Decoder *d, u32 dword, bool fetch_inactive) {
  Dpp *dpp = calloc(1, sizeof(Dpp));
  if (!dpp) return;
  for (int l = 0; l < MAX_LANES; l++) dpp->source[l] = (i8)((l & ~7) | field(dword, 8 + 3 * (l & 7), 3));
  dpp->writable = ~0ull;
  dpp->fetch_inactive = fetch_inactive;
  dpp->bound_ctrl = true;  // "DPP8: disabled lanes read as zero"
  d->inst->dpp = dpp;
}

static u32 source_with_dpp(Decoder *d, u32 code, int dpp_word, bool allows_sdwa) {
  bool is_dpp = code == CODE_DPP16 || (d->family != GFX9 && (code == CODE_DPP8 || code == CODE_DPP8_FETCH_INACTIVE));
  if (!is_dpp && !(allows_sdwa && code == CODE_SDWA && d->family <= GFX10)) return code;
  d->num_words = (u32)dpp_word + 1;
  return 256 + (d->word[dpp_word] & 0xff);
}

static void apply_dpp(Decoder *d, u32 code, int dpp_word) {
  if (code == CODE_DPP16) read_dpp16(d, d->word[dpp_word]);
  else if (code == CODE_DPP8 || code == CODE_DPP8_FETCH_INACTIVE)
    read_dpp8(d, d->word[dpp_word], code == CODE_DPP8_FETCH_INACTIVE);
}

// "SDWA": selects 0-3 byte, 4-5 word, 6 dword. Bit 23 and 31 say that a source is an SGPR.
static void read_sdwa(Decoder *d, Format format) {
  u32 dword = d->word[1];
  Inst *inst = d->inst;
  for (int k = 0; k < 2; k++) {
    if (inst->src[k].kind == OPERAND_NONE) continue;
    int at = 16 + 8 * k;
    if (field(dword, at + 7, 1)) {
      u32 code = k == 0 ? field(dword, 0, 8) : bits_at(d, 9, 8);
      inst->src[k] = source_operand(d, code, inst->src[k].type);
    }
    u32 select = field(dword, at, 3);
    inst->src[k].select = select == 6 ? 0 : (u8)(select + 1);
    inst->src[k].sign_extend = field(dword, at + 3, 1);
    inst->src[k].neg = field(dword, at + 4, 1), inst->src[k].abs = field(dword, at + 5, 1);
  }
  if (format == FORMAT_VOPC) {
    inst->dst = lane_mask(d, field(dword, 15, 1) ? field(dword, 8, 7) : SGPR_VCC);
    return;
  }
  u32 select = field(dword, 8, 3);
  inst->dst_select = select == 6 ? 0 : (u8)(select + 1);
  inst->dst_unused = (u8)field(dword, 11, 2);
  inst->clamp = field(dword, 13, 1), inst->omod = (u8)field(dword, 14, 2);
}

// 16-bit operands of RDNA3 and 4 in VOP1, VOP2 and VOPC: bit 7 of the register selects the high half ("True16").
static void split_true16(const Decoder *d, Operand *operand) {
  if (d->family < GFX11 || operand->kind != OPERAND_VGPR || !is_16_bit(operand->type) || operand->reg < 128) return;
  operand->reg -= 128;
  operand->half = true;
}

static bool has_suffix_dst_sgpr(const char *name) {
  return !strncmp(name, "v_readlane", 10) || !strncmp(name, "v_readfirstlane", 15) || !strncmp(name, "v_s_", 4);
}

static Operand vector_destination(Decoder *d, u32 code) {
  u8 type = d->inst->semantics->out;
  Operand operand;
  if (type == TYPE_LANES) operand = lane_mask(d, code);
  else if (has_suffix_dst_sgpr(d->inst->name)) operand = scalar_register(d, code, 1);
  else operand = vector_register(code, registers_of(type));
  operand.type = type;
  return operand;
}

static bool reads_destination(const char *name) {
  return strstr(name, "fmac") || strstr(name, "v_mac_") || strstr(name, "v_dot2c") || strstr(name, "v_dot4c") ||
         strstr(name, "v_dot8c") || strstr(name, "dot2acc") || !strcmp(name, "v_swap_b32");
}

// The third source of the short formats: the destination, a literal, or VCC.
static void implied_source(Decoder *d) {
  Inst *inst = d->inst;
  u8 type = inst->semantics->in[2];
  if (type == TYPE_NONE) return;
  if (type == TYPE_LANES) inst->src[2] = lane_mask(d, SGPR_VCC);
  else if (reads_destination(inst->name)) inst->src[2] = inst->dst;
  else inst->src[2] = source_operand(d, 255, type);
  inst->src[2].type = type;
}

static void finish_operands(Inst *inst) {
  for (int k = 0; k < 3; k++) {
    Operand *o = &inst->src[k];
    o->is_plain = o->kind == OPERAND_VGPR && (o->type == TYPE_B32 || o->type == TYPE_F32) && !o->neg && !o->abs &&
                  !o->select && !(inst->dpp && k == 0);
  }
  inst->dst.is_plain = inst->dst.kind == OPERAND_VGPR && (inst->dst.type == TYPE_B32 || inst->dst.type == TYPE_F32) &&
                       !inst->clamp && !inst->omod && !inst->dst_select && !inst->dpp;
}

static void decode_short(Decoder *d, Format format) {
  Inst *inst = d->inst;
  const Semantics *semantics = inst->semantics;
  u32 code = bits_at(d, 0, 9);
  inst->src[0] = source_operand(d, source_with_dpp(d, code, 1, true), semantics->in[0]);
  if (semantics->in[0] == TYPE_NONE) inst->src[0].kind = OPERAND_NONE;
  split_true16(d, &inst->src[0]);
  if (format != FORMAT_VOP1) {
    bool is_swapped = strstr(inst->name, "amk_") || strstr(inst->name, "admk_");  // v_fmamk: the literal is in the middle
    Operand second = source_operand(d, 256 + bits_at(d, 9, 8), semantics->in[1]);
    split_true16(d, &second);
    inst->src[is_swapped ? 2 : 1] = second;
    if (is_swapped) inst->src[1] = source_operand(d, 255, semantics->in[1]);
  }
  if (format == FORMAT_VOPC) {
    bool is_cmpx = !strncmp(inst->name, "v_cmpx", 6);
    inst->dst = lane_mask(d, is_cmpx && d->family != GFX9 ? SGPR_EXEC : SGPR_VCC);
    if (is_cmpx && d->family == GFX9) inst->dst2 = lane_mask(d, SGPR_EXEC);
  } else {
    inst->dst = vector_destination(d, bits_at(d, 17, 8));
    split_true16(d, &inst->dst);
    if (inst->src[2].kind == OPERAND_NONE) implied_source(d);
    if (strstr(inst->name, "_co_")) inst->dst2 = lane_mask(d, SGPR_VCC);
  }
  if (code == CODE_SDWA && d->family <= GFX10) read_sdwa(d, format);
  else apply_dpp(d, code, 1);
}

// Registers of a lane that a scaled conversion reads and writes; see valu_scaled.c.
void scaled_registers(Inst *inst);

static void decode_vop3(Decoder *d, bool has_sdst) {
  Inst *inst = d->inst;
  const Semantics *semantics = inst->semantics;
  u32 code = bits_at(d, 32, 9), op_sel = has_sdst ? 0 : bits_at(d, 11, 4);
  bool is_bitop = strstr(inst->name, "bitop3") != NULL;
  for (int k = 0; k < 3; k++) {
    if (semantics->in[k] == TYPE_NONE) continue;
    u32 source = bits_at(d, 32 + 9 * k, 9);
    if (k == 0 && d->family >= GFX11) source = source_with_dpp(d, source, 2, false);
    inst->src[k] = source_operand(d, source, semantics->in[k]);
    inst->src[k].neg = !is_bitop && bits_at(d, 61 + k, 1);
    inst->src[k].abs = !is_bitop && !has_sdst && bits_at(d, 8 + k, 1);
    inst->src[k].half = is_16_bit(semantics->in[k]) && (op_sel >> k & 1);
  }
  if (is_bitop) inst->imm = bits_at(d, 59, 2) << 6 | bits_at(d, 8, 3) << 3 | bits_at(d, 61, 3);
  inst->clamp = bits_at(d, 15, 1);
  inst->omod = is_bitop ? 0 : (u8)bits_at(d, 59, 2);
  inst->dst = vector_destination(d, bits_at(d, 0, 8));
  if (is_16_bit(semantics->out)) inst->dst.half = op_sel >> 3 & 1;
  inst->abid = (u8)op_sel;
  if (has_sdst) inst->dst2 = lane_mask(d, bits_at(d, 8, 7));
  bool is_cmpx = !strncmp(inst->name, "v_cmpx", 6);
  if (is_cmpx && d->family != GFX9) inst->dst = lane_mask(d, SGPR_EXEC);
  if (is_cmpx && d->family == GFX9) inst->dst2 = lane_mask(d, SGPR_EXEC);
  if (semantics->in[2] && reads_destination(inst->name)) {
    inst->src[2] = inst->dst;
    inst->src[2].neg = bits_at(d, 63, 1), inst->src[2].abs = bits_at(d, 10, 1);
  }
  if (d->family >= GFX11) apply_dpp(d, code, 2);
  if (!strncmp(inst->name, "v_cvt_scalef32", 14)) scaled_registers(inst);
}

// VOP3P-MAI: ACC (60:59) makes sources 0 and 1, ACC_CD (15) makes source 2 and the result accumulation registers.
static void read_matrix(Decoder *d, int base) {
  Inst *inst = d->inst;
  for (int k = 0; k < 3; k++) {
    inst->src[k] = source_operand(d, bits_at(d, base + 32 + 9 * k, 9), TYPE_B32);
    bool is_acc = k < 2 ? bits_at(d, base + 59 + k, 1) : bits_at(d, base + 15, 1) && !strstr(inst->name, "smfmac");
    if (is_acc && inst->src[k].kind == OPERAND_VGPR) inst->src[k].reg += 256;
  }
  inst->dst = vector_register(bits_at(d, base, 8) + (bits_at(d, base + 15, 1) ? 256 : 0), 1);
  inst->cbsz = (u8)bits_at(d, base + 8, 3), inst->abid = (u8)bits_at(d, base + 11, 4);
  inst->blgp = (u8)bits_at(d, base + 61, 3);
}

// Registers of a lane that hold each operand of a matrix instruction; see matrix.c.
void matrix_registers(Inst *inst, u32 lanes);

static void decode_vop3p(Decoder *d) {
  Inst *inst = d->inst;
  const Semantics *semantics = inst->semantics;
  bool is_mfma = !strncmp(inst->name, "v_mfma", 6) || !strncmp(inst->name, "v_smfmac", 8);
  if (is_mfma || !strncmp(inst->name, "v_accvgpr", 9)) {
    read_matrix(d, 0);
    if (is_mfma) matrix_registers(inst, d->kernel->lanes);
    // The moves set both ACC bits whatever they move: their names say which side is an accumulation register.
    else if (strstr(inst->name, "write")) inst->dst.reg |= 256, inst->src[0].reg &= 255;
    else inst->src[0].reg |= 256, inst->dst.reg &= 255;
    if (!is_mfma) inst->src[1].kind = inst->src[2].kind = OPERAND_NONE;
    return;
  }
  u32 code = bits_at(d, 32, 9), op_sel = bits_at(d, 11, 3), op_sel_hi = bits_at(d, 59, 2) | bits_at(d, 14, 1) << 2;
  for (int k = 0; k < 3; k++) {
    if (semantics->in[k] == TYPE_NONE) continue;
    u32 source = bits_at(d, 32 + 9 * k, 9);
    if (k == 0 && d->family >= GFX11) source = source_with_dpp(d, source, 2, false);
    Operand *o = &inst->src[k];
    // Mixed precision: constants are halves where OP_SEL_HI says that the source is one.
    bool is_half = strstr(inst->name, "_mix") && (op_sel_hi >> k & 1);
    *o = source_operand(d, source, is_half ? TYPE_F16 : semantics->in[k]);
    // Pairs of f32: a constant is an f32.
    if (o->kind == OPERAND_VALUE && semantics->in[k] == TYPE_B64) *o = source_operand(d, source, TYPE_B32);
    if (source == 255) o->value = d->literal;  // packed operations read both halves of it
    o->neg = bits_at(d, 61 + k, 1), o->neg_hi = bits_at(d, 8 + k, 1);
    o->half = op_sel >> k & 1, o->half_hi = op_sel_hi >> k & 1;
  }
  inst->clamp = bits_at(d, 15, 1);
  inst->dst = vector_register(bits_at(d, 0, 8), registers_of(semantics->out));
  inst->dst.type = semantics->out;
  if (!strncmp(inst->name, "v_wmma", 6)) {
    inst->abid = d->family == GFX11;
    matrix_registers(inst, d->kernel->lanes);
  }
  if (d->family >= GFX11) apply_dpp(d, code, 2);
}

// VOP3PX2 of CDNA4: 64 bits that name the scales, then a matrix instruction.
static void decode_scaled(Decoder *d) {
  Inst *inst = d->inst;
  d->num_words = 4;
  u32 opcode = bits_at(d, 80, 7);
  if (!name_inst(d, FORMAT_VOP3P, opcode)) return;
  read_matrix(d, 64);
  matrix_registers(inst, d->kernel->lanes);
  inst->src[3] = source_operand(d, bits_at(d, 32, 9), TYPE_B32);
  inst->dst2 = source_operand(d, bits_at(d, 41, 9), TYPE_B32);  // the scale of source 1: read, not written
  inst->is_signed = true;                                        // it is scaled
  inst->omod = (u8)bits_at(d, 11, 2), inst->dst_select = (u8)bits_at(d, 59, 2);
}

static bool name_vop3(Decoder *d) {
  const char *with_sdst = mnemonic(d->chip, FORMAT_VOP3SD, bits_at(d, 16, 10));
  return name_inst(d, with_sdst ? FORMAT_VOP3SD : FORMAT_VOP3, bits_at(d, 16, 10));
}

// A literal follows an unknown instruction if one of its sources says so.
static void skip_literal(Decoder *d, Format format) {
  bool has_literal = bits_at(d, format <= FORMAT_VOPC ? 0 : 32, 9) == 255;
  bool has_extra = format <= FORMAT_VOPC && (bits_at(d, 0, 9) == CODE_SDWA || bits_at(d, 0, 9) == CODE_DPP16);
  if (format > FORMAT_VOPC) has_literal |= bits_at(d, 41, 9) == 255 || bits_at(d, 50, 9) == 255;
  d->num_words += has_literal || has_extra;
}

void decode_vector(Decoder *d, Format format) {
  if (format == FORMAT_VOP3P && d->family == GFX9 && bits_at(d, 16, 7) == 44 && bits_at(d, 87, 9) == 0x1a7) {
    decode_scaled(d);
    return;
  }
  static const u8 low[] = {9, 25, 17}, bits[] = {8, 6, 8};
  bool is_known = format == FORMAT_VOP3    ? name_vop3(d)
                  : format == FORMAT_VOP3P ? name_inst(d, format, bits_at(d, 16, 7))
                  : name_inst(d, format, bits_at(d, low[format - FORMAT_VOP1], bits[format - FORMAT_VOP1]));
  if (!is_known) {
    skip_literal(d, format);
    return;
  }
  if (format == FORMAT_VOP3) decode_vop3(d, d->inst->format == FORMAT_VOP3SD);
  else if (format == FORMAT_VOP3P) decode_vop3p(d);
  else decode_short(d, format);
  // RDNA keeps the other half of a register when it writes 16 bits; CDNA zeroes it but for these.
  d->inst->keep_dst_half = d->family != GFX9 || d->inst->dst.half || !strcmp(d->inst->name, "v_fma_f16") ||
                           !strcmp(d->inst->name, "v_mad_u16") || !strcmp(d->inst->name, "v_mad_i16");
  if (!strncmp(d->inst->name, "v_mfma", 6) || !strncmp(d->inst->name, "v_wmma", 6)) return;
  finish_operands(d->inst);
}

static Inst *dual_half(Decoder *d, u32 opcode, u32 vdst, u32 src0, u32 vsrc1) {
  Inst *inst = d->inst;
  if (!name_inst(d, FORMAT_VOPD, opcode)) return NULL;
  const Semantics *semantics = inst->semantics;
  inst->src[0] = source_operand(d, src0, semantics->in[0]);
  inst->dst = vector_destination(d, vdst);
  if (semantics->in[1]) {
    bool is_swapped = strstr(inst->name, "amk_") != NULL;
    inst->src[is_swapped ? 2 : 1] = source_operand(d, 256 + vsrc1, semantics->in[is_swapped ? 2 : 1]);
    if (is_swapped) inst->src[1] = source_operand(d, 255, semantics->in[1]);
  }
  if (inst->src[2].kind == OPERAND_NONE) implied_source(d);
  finish_operands(inst);
  return inst;
}

void run_dual(Wave *w, const Inst *inst);

// VOPD: "OPX: opx 25:22, srcx0 8:0, vsrcx1 16:9, vdstx 63:56; OPY: opy 21:17, srcy0 40:32, vsrcy1 48:41, vdsty 55:49;
// the low bit of VDSTY is the inverse of that of VDSTX".
void decode_dual(Decoder *d) {
  Inst *x = d->inst;
  Inst *y = calloc(1, sizeof(Inst));
  if (!y) return;
  *y = *x;
  u32 vdstx = bits_at(d, 56, 8), vdsty = bits_at(d, 49, 7) << 1 | (~vdstx & 1);
  Inst *first = dual_half(d, bits_at(d, 22, 4), vdstx, bits_at(d, 0, 9), bits_at(d, 9, 8));
  d->inst = y;
  Inst *second = dual_half(d, bits_at(d, 17, 5), vdsty, bits_at(d, 32, 9), bits_at(d, 41, 8));
  d->inst = x;
  x->dual = y;
  if (!first || !second) {
    if (first) x->name = y->name;
    x->semantics = NULL;
    return;
  }
  x->execute = run_dual;
  note_uses(x);
  for (int k = 0; k < 3; k++) note_use(x, &y->src[k], false);
  note_use(x, &y->dst, true);
}
