// Bank conflicts of the LDS.
#pragma once
#include "wave.h"

// Extra cycles of an access: see counters.h.
u64 bank_conflicts(const Wave *w, const u32 *address, u64 active, u32 bytes);
