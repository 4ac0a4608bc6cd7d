// Loads code objects: segments, kernel descriptors and metadata. Every offset in the file is held against its end, and
// copied before it is read, because a damaged one need not be aligned.
// Source: ELF-64 object file format; LLVM AMDGPUUsage, "Kernel Descriptor" and "Code Object V5 Metadata".
#include "image.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "program.h"

#define NOTE_METADATA 32
#define DESCRIPTOR_BYTES 64
#define MAX_IMAGE_BYTES (1ull << 28)
#define MAX_KERNARG_BYTES 4096   // as much as hip_launch has room for

static const char *const HIDDEN_NAMES[NUM_HIDDEN] = {
    "hidden_block_count_x", "hidden_block_count_y", "hidden_block_count_z", "hidden_group_size_x",
    "hidden_group_size_y",  "hidden_group_size_z",  "hidden_remainder_x",   "hidden_remainder_y",
    "hidden_remainder_z",   "hidden_grid_dims",
};

typedef struct {
  Bytes file;
  Module *module;
  char *message;
  size_t message_bytes;
} Loader;

static bool refuse(Loader *loader, const char *why) {
  snprintf(loader->message, loader->message_bytes, "damaged code object: %s", why);
  return false;
}

static const void *view(const Loader *loader, u64 offset, u64 bytes) {
  if (offset > loader->file.bytes || loader->file.bytes - offset < bytes) return NULL;
  return loader->file.data + offset;
}

static bool copy_from(const Loader *loader, u64 offset, void *out, u64 bytes) {
  const void *from = view(loader, offset, bytes);
  if (from) memcpy(out, from, bytes);
  return from != NULL;
}

// The HIP call gives no size: it follows from the tables that the header names, if there is that much memory.
static bool find_end(Loader *loader, const Elf64_Ehdr *header) {
  u64 sections = (u64)header->e_shentsize * header->e_shnum, segments = (u64)header->e_phentsize * header->e_phnum;
  if (!view(loader, header->e_shoff, sections)) return refuse(loader, "its section table lies outside the file");
  if (!view(loader, header->e_phoff, segments)) return refuse(loader, "its program headers lie outside the file");
  if (header->e_shentsize != sizeof(Elf64_Shdr) || header->e_phentsize != sizeof(Elf64_Phdr))
    return refuse(loader, "the entries of its tables have another size");
  sections += header->e_shoff, segments += header->e_phoff;
  loader->file.bytes = sections > segments ? sections : segments;
  return true;
}

static bool load_segments(Loader *loader, const Elf64_Ehdr *header) {
  u64 end = 0;
  for (int pass = 0; pass < 2; pass++) {
    for (u32 i = 0; i < header->e_phnum; i++) {
      Elf64_Phdr segment;
      if (!copy_from(loader, header->e_phoff + (u64)i * sizeof segment, &segment, sizeof segment))
        return refuse(loader, "a program header lies outside the file");
      if (segment.p_type != PT_LOAD) continue;
      if (segment.p_vaddr > MAX_IMAGE_BYTES || segment.p_memsz > MAX_IMAGE_BYTES || segment.p_filesz > segment.p_memsz)
        return refuse(loader, "a segment has no sensible size");
      if (pass == 0) {
        if (segment.p_vaddr + segment.p_memsz > end) end = segment.p_vaddr + segment.p_memsz;
        continue;
      }
      if (!copy_from(loader, segment.p_offset, loader->module->image + segment.p_vaddr, segment.p_filesz))
        return refuse(loader, "a segment lies outside the file");
    }
    if (pass == 0) {
      if (end == 0) return refuse(loader, "it has no segment to load");
      loader->module->image_bytes = (end + 4095) & ~4095ull;
      void *image = mmap(NULL, loader->module->image_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (image == MAP_FAILED) return refuse(loader, "its image does not fit into memory");
      loader->module->image = image;
    }
  }
  return true;
}

static bool read_descriptor(Loader *loader, Kernel *kernel, u64 address) {
  Module *module = loader->module;
  if (address > module->image_bytes - DESCRIPTOR_BYTES) return refuse(loader, "a kernel descriptor lies outside");
  const u8 *descriptor = module->image + address;
  i64 entry_offset;
  memcpy(&kernel->lds_bytes, descriptor, 4);
  memcpy(&kernel->scratch_bytes, descriptor + 4, 4);
  memcpy(&kernel->kernarg_bytes, descriptor + 8, 4);
  memcpy(&entry_offset, descriptor + 16, 8);
  memcpy(&kernel->rsrc3, descriptor + 44, 4);
  memcpy(&kernel->rsrc1, descriptor + 48, 4);
  memcpy(&kernel->rsrc2, descriptor + 52, 4);
  kernel->properties = descriptor[56] | descriptor[57] << 8;
  kernel->preload = descriptor[58] | descriptor[59] << 8;
  if (kernel->kernarg_bytes > MAX_KERNARG_BYTES) return refuse(loader, "a kernel has more arguments than fit");
  u64 entry = address + (u64)entry_offset;
  if (entry >= module->image_bytes || entry % 4) return refuse(loader, "a kernel's entry lies outside the image");
  kernel->entry = (u32)entry;
  bool is_wave32 = kernel->properties >> 10 & 1;
  kernel->lanes = module->chip->family != GFX9 && is_wave32 ? 32 : 64;
  return true;
}

// Symbols `NAME.kd` are kernel descriptors; `NAME` itself gives the size of the code.
static bool name_kernels(Loader *loader, const Elf64_Sym *symbols, u64 count, const char *names, const Elf64_Shdr *strings) {
  Module *module = loader->module;
  for (u64 i = 0; i < count; i++) {
    if (symbols[i].st_name >= strings->sh_size || symbols[i].st_shndx == SHN_UNDEF) continue;
    const char *name = names + symbols[i].st_name;
    size_t length = strlen(name);
    if (length < 4 || strcmp(name + length - 3, ".kd")) continue;
    Kernel *kernel = &module->kernels[module->num_kernels++];
    kernel->module = module;
    kernel->name = strndup(name, length - 3);
    if (!kernel->name || !read_descriptor(loader, kernel, symbols[i].st_value)) return false;
    u64 code_bytes = 0;
    for (u64 j = 0; j < count; j++)
      if (symbols[j].st_name < strings->sh_size && !strcmp(names + symbols[j].st_name, kernel->name))
        code_bytes = symbols[j].st_size;
    // Code that is longer than the file would be zeros.
    if (code_bytes == 0 || code_bytes > module->image_bytes - kernel->entry || code_bytes > loader->file.bytes)
      return refuse(loader, "a kernel's code lies outside the image");
    kernel->code_bytes = (u32)code_bytes;
    for (int h = 0; h < NUM_HIDDEN; h++) kernel->hidden[h] = UINT32_MAX;
  }
  return true;
}

static bool find_kernels(Loader *loader, const Elf64_Shdr *table, const Elf64_Shdr *strings) {
  u64 count = table->sh_size / sizeof(Elf64_Sym);
  const char *names = view(loader, strings->sh_offset, strings->sh_size);
  if (!view(loader, table->sh_offset, table->sh_size) || !names || strings->sh_size == 0 || names[strings->sh_size - 1])
    return refuse(loader, "its symbol table lies outside the file");
  Elf64_Sym *symbols = malloc((count + 1) * sizeof(Elf64_Sym));
  loader->module->kernels = calloc(count + 1, sizeof(Kernel));
  bool is_ok = symbols && loader->module->kernels;
  if (!is_ok) refuse(loader, "its symbols do not fit into memory");
  else is_ok = copy_from(loader, table->sh_offset, symbols, count * sizeof(Elf64_Sym)) && name_kernels(loader, symbols, count, names, strings);
  free(symbols);
  return is_ok;
}

static bool read_argument(MsgReader *reader, Kernel *kernel) {
  KernelArg arg = {0, 0};
  Bytes kind = {0};
  for (u32 n = msg_map(reader); n > 0 && !reader->failed; n--) {
    Bytes key = msg_string(reader);
    if (bytes_equal(key, ".offset")) arg.offset = (u32)msg_uint(reader);
    else if (bytes_equal(key, ".size")) arg.size = (u32)msg_uint(reader);
    else if (bytes_equal(key, ".value_kind")) kind = msg_string(reader);
    else msg_skip(reader);
  }
  if (reader->failed || arg.size > 4096 || arg.offset > 65536) return false;
  if (!kernel) return true;
  if (kind.bytes < 7 || memcmp(kind.data, "hidden_", 7)) {
    if (kernel->num_args == MAX_ARGS) return false;
    kernel->args[kernel->num_args++] = arg;
  }
  for (int h = 0; h < NUM_HIDDEN; h++)
    if (bytes_equal(kind, HIDDEN_NAMES[h])) kernel->hidden[h] = arg.offset;
  return true;
}

static Kernel *kernel_of_descriptor(Module *module, Bytes symbol) {
  for (u32 k = 0; k < module->num_kernels; k++) {
    size_t length = strlen(module->kernels[k].name);
    if (symbol.bytes == length + 3 && !memcmp(symbol.data, module->kernels[k].name, length)) return &module->kernels[k];
  }
  return NULL;
}

// A kernel's map is read twice: first for its symbol, then for its arguments.
static bool read_kernel(MsgReader *reader, Module *module) {
  Kernel *kernel = NULL;
  MsgReader start = *reader;
  for (int pass = 0; pass < 2; pass++) {
    *reader = start;
    for (u32 n = msg_map(reader); n > 0 && !reader->failed; n--) {
      Bytes key = msg_string(reader);
      if (pass == 0 && bytes_equal(key, ".symbol")) {
        kernel = kernel_of_descriptor(module, msg_string(reader));
      } else if (pass == 1 && bytes_equal(key, ".args")) {
        for (u32 a = msg_array(reader); a > 0 && !reader->failed; a--)
          if (!read_argument(reader, kernel)) return false;
      } else {
        msg_skip(reader);
      }
    }
  }
  return !reader->failed;
}

static bool read_metadata(Loader *loader, Bytes metadata) {
  MsgReader reader = {metadata, 0, false};
  for (u32 n = msg_map(&reader); n > 0 && !reader.failed; n--) {
    if (!bytes_equal(msg_string(&reader), "amdhsa.kernels")) {
      msg_skip(&reader);
      continue;
    }
    for (u32 k = msg_array(&reader); k > 0 && !reader.failed; k--)
      if (!read_kernel(&reader, loader->module)) return refuse(loader, "its metadata cannot be read");
  }
  return reader.failed ? refuse(loader, "its metadata cannot be read") : true;
}

static bool read_notes(Loader *loader, const Elf64_Shdr *section) {
  u64 at = section->sh_offset, end = section->sh_offset + section->sh_size;
  while (at + sizeof(Elf64_Nhdr) <= end) {
    Elf64_Nhdr note;
    if (!copy_from(loader, at, &note, sizeof note)) return refuse(loader, "a note lies outside the file");
    u64 begin = at + sizeof note + ((note.n_namesz + 3ull) & ~3ull);
    const u8 *text = view(loader, begin, note.n_descsz);
    if (!text) return refuse(loader, "a note lies outside the file");
    if (note.n_type == NOTE_METADATA) return read_metadata(loader, (Bytes){text, note.n_descsz});
    at = begin + ((note.n_descsz + 3ull) & ~3ull);
  }
  return true;
}

static bool read_sections(Loader *loader, const Elf64_Ehdr *header, const Elf64_Shdr *sections) {
  for (u32 i = 0; i < header->e_shnum; i++) {
    if (sections[i].sh_type != SHT_DYNSYM) continue;
    if (sections[i].sh_link >= header->e_shnum) return refuse(loader, "its symbol table has no names");
    if (!find_kernels(loader, &sections[i], &sections[sections[i].sh_link])) return false;
    break;
  }
  if (loader->module->num_kernels == 0) return refuse(loader, "it has no kernel");
  for (u32 i = 0; i < header->e_shnum; i++)
    if (sections[i].sh_type == SHT_NOTE && !read_notes(loader, &sections[i])) return false;
  return true;
}

static bool load_sections(Loader *loader, const Elf64_Ehdr *header) {
  u64 bytes = (u64)header->e_shnum * sizeof(Elf64_Shdr);
  Elf64_Shdr *sections = malloc(bytes + 1);
  if (!sections) return refuse(loader, "its section table does not fit into memory");
  bool is_ok = copy_from(loader, header->e_shoff, sections, bytes);
  is_ok = is_ok ? read_sections(loader, header, sections) : refuse(loader, "its section table lies outside the file");
  free(sections);
  return is_ok;
}

Module *module_load(const void *elf, u64 max_bytes, char *message, size_t message_bytes) {
  Module *module = calloc(1, sizeof(Module));
  Loader loader = {{elf, max_bytes}, module, message, message_bytes};
  Elf64_Ehdr header;
  bool is_ok = module && copy_from(&loader, 0, &header, sizeof header) && !memcmp(header.e_ident, ELFMAG, SELFMAG) &&
               header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_machine == EM_AMDGPU;
  if (!is_ok) refuse(&loader, "it is no ELF file for AMD GPUs");
  else is_ok = find_end(&loader, &header);
  if (!is_ok) {
    free(module);
    return NULL;
  }
  module->chip = chip_by_machine(header.e_flags & 0xff);
  if (!module->chip) {
    snprintf(message, message_bytes, "code object for an unknown chip: EF_AMDGPU_MACH is 0x%x", header.e_flags & 0xff);
    free(module);
    return NULL;
  }
  module->digest = 0xcbf29ce484222325ull;
  for (u64 i = 0; i < loader.file.bytes; i++) module->digest = (module->digest ^ loader.file.data[i]) * 0x100000001b3ull;
  is_ok = load_segments(&loader, &header) && load_sections(&loader, &header);
  for (u32 k = 0; k < module->num_kernels && is_ok; k++) is_ok = decode_kernel(&module->kernels[k], message, message_bytes);
  if (is_ok) return module;
  module_free(module);
  return NULL;
}

void module_free(Module *module) {
  for (u32 k = 0; k < module->num_kernels; k++) {
    Kernel *kernel = &module->kernels[k];
    for (u32 i = 0; i < kernel->num_insts; i++) {
      free((void *)kernel->insts[i].dpp);
      free((void *)kernel->insts[i].dual);
    }
    free(kernel->insts);
    free(kernel->inst_of_pc);
    free(kernel->name);
  }
  free(module->kernels);
  if (module->image) munmap(module->image, module->image_bytes);
  free(module);
}

Kernel *module_find(Module *module, const char *name) {
  for (u32 k = 0; k < module->num_kernels; k++)
    if (!strcmp(module->kernels[k].name, name)) return &module->kernels[k];
  return NULL;
}
