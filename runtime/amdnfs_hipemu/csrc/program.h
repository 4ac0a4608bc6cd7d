// A code object after decoding: what the interpreter runs. Made once for each loaded module and never changed after.
#pragma once
#include "isa.h"

typedef struct Wave Wave;
typedef struct Inst Inst;
typedef struct Module Module;

// Element types of operands and results. They say how a register is read into an array of lanes before the arithmetic:
//   32-bit types  u32[lanes], straight from the register file where there is no modifier
//   16-bit types  u32[lanes], zero- or sign-extended; F16 and BF16 as f32[lanes]
//   64-bit types  u64[lanes], two registers put together
//   TYPE_LANES    u32[lanes] of 0 or 1, from a lane mask in SGPRs
typedef enum {
  TYPE_NONE,
  TYPE_B32,
  TYPE_F32,
  TYPE_B16,
  TYPE_I16,
  TYPE_F16,
  TYPE_BF16,
  TYPE_B64,
  TYPE_F64,
  TYPE_LANES,
} Type;

typedef enum {
  OPERAND_NONE,
  OPERAND_VGPR,
  OPERAND_SGPR,    // 0-127 in the numbering of SSRC fields, with M0 at 125 and NULL at 124 on all chips
  OPERAND_VALUE,   // inline constant or literal
  OPERAND_SCC,
  OPERAND_VCCZ,
  OPERAND_EXECZ,
} OperandKind;

#define SGPR_VCC 106
#define SGPR_TTMP0 108
#define SGPR_NULL 124
#define SGPR_M0 125
#define SGPR_EXEC 126

typedef struct {
  u8 kind;              // OperandKind
  u8 type;              // Type
  u16 reg;              // VGPR (accumulation registers from 256 on) or SGPR index
  u16 count;            // registers that the operand spans
  bool neg, abs;        // input modifiers; for packed operations of the low half
  bool neg_hi;          // packed operations: of the high half
  bool half;            // OP_SEL: read or write bits 31:16
  bool half_hi;         // OP_SEL_HI of packed operations
  u8 select;            // SDWA: 0 none, 1-4 byte 0-3, 5-6 word 0-1
  bool sign_extend;     // SDWA
  bool is_plain;        // no modifier, DPP or SDWA: read in place
  u64 value;            // of OPERAND_VALUE, in the operand's type
} Operand;

// Where the source lanes of a DPP operand come from; resolved from DPP_CTRL at decode time.
typedef struct {
  i8 source[MAX_LANES];   // lane to read, or -1: none
  u64 writable;           // lanes that the row and bank masks let through
  bool bound_ctrl;        // read 0 from invalid lanes instead of leaving the result unwritten
  bool fetch_inactive;    // read lanes that EXEC disables
} Dpp;

// Instruction classes of the counters.
typedef enum {
  CLASS_VALU,
  CLASS_TRANSCENDENTAL,
  CLASS_MATRIX,
  CLASS_SALU,
  CLASS_SCALAR_MEMORY,
  CLASS_VECTOR_MEMORY,   // global, flat, buffer
  CLASS_SCRATCH,
  CLASS_LDS,
  CLASS_BRANCH,
  CLASS_BARRIER,
  CLASS_WAIT,            // s_waitcnt, s_wait_*, s_nop, s_delay_alu
  NUM_CLASSES
} InstClass;

// Computes all lanes of one operation: `out` and `in` are arrays in the representation of their Type.
typedef struct {
  void *out;
  const void *in[4];
  int lanes;              // 32 or 64
  const Inst *inst;
  Wave *wave;
} LaneArgs;
typedef void LaneKernel(const LaneArgs *args);

// Executes one instruction for a wave.
typedef void Execute(Wave *wave, const Inst *inst);

// What an instruction does, by name. Tables of these stand at the end of each ops_*.c; names that documents of other
// generations use for the same operation stand beside it, separated by blanks.
typedef struct {
  const char *names;
  Execute *execute;
  LaneKernel *kernel;    // of run_vector, else NULL
  u8 out;                // Type of the result
  u8 in[3];              // Types of the sources
  u8 inst_class;         // InstClass
  u32 detail;            // of the executor: comparison code, sizes, number of a variant
} Semantics;

// The semantics of a mnemonic, or NULL if the emulator has none.
const Semantics *semantics_of(const char *name);

// Registers that an instruction reads or writes; for the checks of waits.
typedef struct {
  u16 first;             // VGPR index, or 1024 + SGPR index
  u16 count : 15;
  u16 is_write : 1;
} RegisterUse;
#define USE_SGPR 1024
#define MAX_USES 8

// Memory counters that a wait instruction waits for, in the order of RDNA4's document. Older chips: VM = LOAD, LGKM =
// DS and KM together, VSCNT = STORE.
typedef enum { COUNTER_LOAD, COUNTER_STORE, COUNTER_DS, COUNTER_KM, COUNTER_EXP, NUM_WAIT_COUNTERS } WaitCounter;
#define WAIT_NONE 0xffff

struct Inst {
  Execute *execute;
  const Semantics *semantics;   // NULL: unknown instruction, stops when reached
  const char *name;             // mnemonic, or NULL if not even the encoding is known
  u32 pc;                       // byte offset in the loaded image
  u32 next_pc;                  // offset of the instruction that follows
  u32 target;                   // index of a branch's target in Kernel.insts, or UINT32_MAX
  u32 word;                     // first dword, for messages
  Operand dst, dst2;            // dst2: carry-out, or the second result
  Operand src[4];
  u8 format;                    // Format
  u8 inst_class;                // InstClass
  bool clamp;
  u8 omod;                      // 0 none, 1 *2, 2 *4, 3 /2
  bool keep_dst_half;           // a 16-bit result leaves the other half as it is
  u8 dst_select, dst_unused;    // SDWA: as Operand.select; 0 pad, 1 sign-extend, 2 keep
  const Dpp *dpp;               // NULL: none
  // Memory: bytes of a lane's access, and how
  i32 offset;                   // immediate offset in bytes; DS with two offsets: the first, scaled
  i32 offset2;                  // DS with two offsets: the second, scaled
  u8 size;                      // bytes a lane
  bool is_store, is_signed, is_d16, is_d16_hi, to_lds;
  bool offen, idxen;            // buffer: which VGPRs give offset and index
  bool returns;                 // atomics: the old value is returned
  u32 imm;                      // SIMM16, comparison, matrix control and the like
  u8 cbsz, abid, blgp;          // MFMA: broadcast and format controls; VOP3P: OP_SEL and such are in the operands
  const Inst *dual;             // VOPD: the second operation; both read before either writes
  u16 waits[NUM_WAIT_COUNTERS]; // wait instructions: highest count left, or WAIT_NONE
  RegisterUse uses[MAX_USES];
  u8 num_uses;
};

// One explicit or hidden argument of a kernel (metadata `.args`).
typedef struct {
  u32 offset, size;
} KernelArg;

// Hidden arguments that the runtime fills in, in the order of HIDDEN_NAMES in elf.c; offset UINT32_MAX: not there.
#define NUM_HIDDEN 10
#define MAX_ARGS 128

typedef struct {
  const Module *module;
  char *name;
  u32 entry;                    // byte offset in the image
  u32 code_bytes;
  u32 lds_bytes;                // group_segment_fixed_size
  u32 scratch_bytes;            // private_segment_fixed_size: of a lane
  u32 kernarg_bytes;
  u32 rsrc1, rsrc2, rsrc3;      // compute_pgm_rsrc1-3 of the kernel descriptor
  u32 properties;               // kernel_code_properties
  u32 preload;                  // kernarg_preload: length in dwords in bits 6:0, offset in 15:7
  u32 lanes;                    // of a wave
  u32 used_vgprs, used_accs;    // one more than the highest vector and accumulation register that the code names
  Inst *insts;
  u32 num_insts;
  u32 *inst_of_pc;              // by (pc - entry) / 4; UINT32_MAX: no instruction begins there
  KernelArg args[MAX_ARGS];
  u32 num_args;                 // explicit ones
  u32 hidden[NUM_HIDDEN];
} Kernel;

struct Module {
  const Chip *chip;
  u8 *image;                    // loaded segments; page-aligned
  u64 image_bytes;
  Kernel *kernels;
  u32 num_kernels;
  u64 digest;                   // FNV-1a of the ELF image; names the code object in the counters
};

// Reads and decodes an ELF code object. NULL with a text in `message` if it is damaged or for an unknown chip.
Module *module_load(const void *elf, u64 max_bytes, char *message, size_t message_bytes);
void module_free(Module *module);
Kernel *module_find(Module *module, const char *name);

// Decodes the kernel's code into `insts`. Instructions without semantics are kept: they stop a wave that reaches them.
bool decode_kernel(Kernel *kernel, char *message, size_t message_bytes);
