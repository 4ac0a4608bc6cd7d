// Reading of code objects: bounds-checked views of the ELF file and of its MessagePack metadata.
#pragma once
#include "base.h"

typedef struct {
  const u8 *data;
  u64 bytes;
} Bytes;

// A position in MessagePack data; `failed` is set by the first read that is not what was asked for.
typedef struct {
  Bytes from;
  u64 at;
  bool failed;
} MsgReader;

// Number of entries of the map or array at the position, which moves into it.
u32 msg_map(MsgReader *reader);
u32 msg_array(MsgReader *reader);
// The string at the position; not terminated.
Bytes msg_string(MsgReader *reader);
u64 msg_uint(MsgReader *reader);
// Moves past one value of any type.
void msg_skip(MsgReader *reader);
bool bytes_equal(Bytes text, const char *other);
