// The chips, and the generated opcode tables.
#include "isa.h"

#include "opcode_tables.inc"

enum { TABLE_CDNA, TABLE_CDNA2, TABLE_RDNA2, TABLE_RDNA3, TABLE_RDNA4 };

// Sources: LLVM AMDGPUUsage, "AMDGPU EF_AMDGPU_MACH Values"; LDS sizes and fp8 formats: the chips' ISA documents, "Local
// Data Share" and "Data types".
static const Chip chips[] = {
    {"gfx90a", GFX9, 0x3f, TABLE_CDNA2, 65536, false, 110},  {"gfx942", GFX9, 0x4c, TABLE_CDNA, 65536, true, 304},
    {"gfx950", GFX9, 0x4f, TABLE_CDNA, 163840, false, 256},  {"gfx1030", GFX10, 0x36, TABLE_RDNA2, 65536, false, 80},
    {"gfx1100", GFX11, 0x41, TABLE_RDNA3, 65536, false, 96}, {"gfx1101", GFX11, 0x46, TABLE_RDNA3, 65536, false, 60},
    {"gfx1102", GFX11, 0x47, TABLE_RDNA3, 65536, false, 32}, {"gfx1103", GFX11, 0x44, TABLE_RDNA3, 65536, false, 12},
    {"gfx1150", GFX11, 0x43, TABLE_RDNA3, 65536, false, 16}, {"gfx1151", GFX11, 0x4a, TABLE_RDNA3, 65536, false, 40},
    {"gfx1152", GFX11, 0x55, TABLE_RDNA3, 65536, false, 8},  {"gfx1153", GFX11, 0x58, TABLE_RDNA3, 65536, false, 8},
    {"gfx1200", GFX12, 0x48, TABLE_RDNA4, 65536, false, 32}, {"gfx1201", GFX12, 0x4e, TABLE_RDNA4, 65536, false, 64},
};

const Chip *chip_by_name(const char *name) {
  for (size_t i = 0; i < COUNT_OF(chips); i++)
    if (!strcmp(chips[i].name, name)) return &chips[i];
  return NULL;
}

const Chip *chip_by_machine(u32 elf_machine) {
  for (size_t i = 0; i < COUNT_OF(chips); i++)
    if (chips[i].elf_machine == elf_machine) return &chips[i];
  return NULL;
}

const char *mnemonic(const Chip *chip, Format format, u32 opcode) {
  return opcode < COUNT_OF(opcode_names[0][0]) ? opcode_names[chip->opcode_table][format][opcode] : NULL;
}
