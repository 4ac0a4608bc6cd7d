// Instruction sets: the chips, the encodings, and what the generated tables say of an opcode.
#pragma once
#include "base.h"

// Generations that share encodings. CDNA 2-4 are GFX9 encodings, RDNA2 is GFX10, RDNA3 and 3.5 GFX11, RDNA4 GFX12.
typedef enum { GFX9, GFX10, GFX11, GFX12 } Family;

// Instruction formats by the names of the ISA documents ("Microcode Formats"). VFLAT, VGLOBAL, VSCRATCH and VBUFFER of
// RDNA4 are the formats of the older names here.
typedef enum {
  FORMAT_SOP1,
  FORMAT_SOP2,
  FORMAT_SOPC,
  FORMAT_SOPK,
  FORMAT_SOPP,
  FORMAT_SMEM,
  FORMAT_VOP1,
  FORMAT_VOP2,
  FORMAT_VOPC,
  FORMAT_VOP3,
  FORMAT_VOP3SD,
  FORMAT_VOP3P,
  FORMAT_VOPD,
  FORMAT_DS,
  FORMAT_FLAT,
  FORMAT_GLOBAL,
  FORMAT_SCRATCH,
  FORMAT_MUBUF,
  NUM_FORMATS
} Format;

// One processor that code objects can be for.
typedef struct {
  const char *name;     // gfx942
  Family family;
  u32 elf_machine;      // EF_AMDGPU_MACH of the ELF header's flags (LLVM AMDGPUUsage)
  u32 opcode_table;     // index into the generated tables
  u32 lds_bytes;        // most LDS of a workgroup
  bool is_fnuz;         // fp8 in the FNUZ encodings (CDNA3)
  u32 compute_units;    // what the device properties report
} Chip;

// NULL if no chip has this name / this EF_AMDGPU_MACH.
const Chip *chip_by_name(const char *name);
const Chip *chip_by_machine(u32 elf_machine);

// Lower-case mnemonic without `_e32`/`_e64` of an opcode, as the chip's document spells it; NULL if there is none.
const char *mnemonic(const Chip *chip, Format format, u32 opcode);
