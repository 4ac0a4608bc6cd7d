// MessagePack, as far as code object metadata uses it. Source: msgpack specification, "Formats".
#include "image.h"

static u64 take(MsgReader *r, u32 bytes) {
  if (r->failed || r->from.bytes - r->at < bytes) {
    r->failed = true;
    return 0;
  }
  u64 value = 0;
  for (u32 i = 0; i < bytes; i++) value = value << 8 | r->from.data[r->at++];
  return value;
}

static u32 container(MsgReader *r, u8 fixed, u8 wide16) {
  u8 head = (u8)take(r, 1);
  if ((head & 0xf0) == fixed) return head & 15;
  if (head == wide16) return (u32)take(r, 2);
  if (head == wide16 + 1) return (u32)take(r, 4);
  r->failed = true;
  return 0;
}

u32 msg_map(MsgReader *r) { return container(r, 0x80, 0xde); }
u32 msg_array(MsgReader *r) { return container(r, 0x90, 0xdc); }

Bytes msg_string(MsgReader *r) {
  u8 head = (u8)take(r, 1);
  u64 bytes = 0;
  if ((head & 0xe0) == 0xa0) bytes = head & 31;
  else if (head >= 0xd9 && head <= 0xdb) bytes = take(r, 1u << (head - 0xd9));
  else r->failed = true;
  if (r->failed || r->from.bytes - r->at < bytes) {
    r->failed = true;
    return (Bytes){0};
  }
  Bytes text = {r->from.data + r->at, bytes};
  r->at += bytes;
  return text;
}

u64 msg_uint(MsgReader *r) {
  u8 head = (u8)take(r, 1);
  if (head <= 0x7f) return head;
  if (head >= 0xcc && head <= 0xcf) return take(r, 1u << (head - 0xcc));
  if (head >= 0xd0 && head <= 0xd3) return take(r, 1u << (head - 0xd0));
  if (head == 0xc3) return 1;
  if (head != 0xc2) r->failed = true;
  return 0;
}

#define MAX_DEPTH 32   // of code objects: 5

static void skip_value(MsgReader *r, u32 depth) {
  if (r->failed || r->at >= r->from.bytes || depth == MAX_DEPTH) {
    r->failed = true;
    return;
  }
  u8 head = r->from.data[r->at];
  if ((head & 0xf0) == 0x80 || head == 0xde || head == 0xdf) {
    for (u32 n = msg_map(r); n > 0 && !r->failed; n--) {
      skip_value(r, depth + 1);
      skip_value(r, depth + 1);
    }
  } else if ((head & 0xf0) == 0x90 || head == 0xdc || head == 0xdd) {
    for (u32 n = msg_array(r); n > 0 && !r->failed; n--) skip_value(r, depth + 1);
  } else if ((head & 0xe0) == 0xa0 || (head >= 0xd9 && head <= 0xdb)) {
    msg_string(r);
  } else if (head == 0xca || head == 0xcb) {
    take(r, head == 0xca ? 5 : 9);
  } else if (head == 0xc0 || head >= 0xe0) {
    take(r, 1);
  } else {
    msg_uint(r);
  }
}

void msg_skip(MsgReader *r) { skip_value(r, 0); }

bool bytes_equal(Bytes text, const char *other) {
  return text.bytes == strlen(other) && !memcmp(text.data, other, text.bytes);
}
