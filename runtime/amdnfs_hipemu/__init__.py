"""A stand-in `libamdhip64.so` that executes AMD machine code on the CPU, so that hip artifacts run without a GPU.

`library_folder()` builds the library on first use and returns the folder to name in `AMDNFS_HIP_DYLIB`. What it shows
are values and counts; it does not model time. It is written from AMD's published ISA documents and is not checked
against hardware.

What it leaves out: the order in which matrix units round, the last bit of transcendental functions, cache coherency,
wait states between dependent instructions, waves of different workgroups that wait for each other, flat addresses of
the LDS and of scratch memory, images, SWMMAC. An instruction that it does not know stops the program by name.

Environment of the library (read once, when the program initialises HIP):

| variable | meaning |
|---|---|
| `AMDNFS_EMULATE_TARGET` | gfx of the device, which then takes no other code; default: any |
| `AMDNFS_EMULATE_THREADS` | threads that run workgroups; default: the processors this process may use |
| `AMDNFS_EMULATE_COUNTERS` | file that gets one JSON line a dispatch (fields: `csrc/counters.h`) |
| `AMDNFS_EMULATE_CHECKS` | checks beyond ranges, by commas: `unwritten`, `races`, `waits`, `barriers`, `order`, `all` |
| `AMDNFS_EMULATE_BUDGET` | most instructions of one wave before it is stopped; default 1000000000 |
| `AMDNFS_EMULATE_POISON` | byte that fills fresh device memory; default 255, which makes NaNs |
| `AMDNFS_EMULATE_LOG` | `1` or a file: a line for each launch, module and unsupported call |
"""

from amdnfs_hipemu.build import EmulatorError, library_folder, why_not

__all__ = ["EmulatorError", "library_folder", "why_not"]
