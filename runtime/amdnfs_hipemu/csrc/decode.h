// Between the files of the decoder: the instruction at hand, and how operands are read from its fields.
#pragma once
#include "program.h"

typedef struct {
  const Kernel *kernel;
  const Chip *chip;
  Family family;
  u32 word[5];     // the instruction's dwords; zeros beyond the end of the code
  u32 num_words;   // of the encoding so far; a literal is added by the first operand that needs it
  Inst *inst;
  bool has_literal;
  u32 literal;
} Decoder;

// Bits of the instruction's first 96 bits.
u32 bits_at(const Decoder *d, int low, int bits);

// An operand from a 9-bit SRC field (or an 8-bit SSRC field) read as `type`.
Operand source_operand(Decoder *d, u32 code, Type type);
Operand scalar_register(const Decoder *d, u32 code, u32 count);
Operand vector_register(u32 index, u32 count);
Operand lane_mask(const Decoder *d, u32 code);
u32 registers_of(Type type);
// Takes the literal that follows the encoding, if none was taken yet.
u32 take_literal(Decoder *d);

// Looks the opcode up: sets name, semantics and class. False: the instruction is unknown.
bool name_inst(Decoder *d, Format format, u32 opcode);

void decode_scalar(Decoder *d, Format format);
void decode_scalar_memory(Decoder *d);
void decode_vector(Decoder *d, Format format);
void decode_dual(Decoder *d);
void decode_memory(Decoder *d, Format format);
void decode_lds(Decoder *d);

// Memory instructions by name: what decode_memory.c reads from `global_load_dwordx4` and the like.
bool name_memory_inst(Decoder *d, Format format, u32 opcode);

// Lists the registers that the instruction uses.
void note_uses(Inst *inst);
void note_use(Inst *inst, const Operand *operand, bool is_write);
