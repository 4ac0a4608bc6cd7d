"""Measures what the check `order` costs where several streams run beside each other.

    python benchmarks/emulator_streams.py

In each round every stream runs a kernel that reads one shared buffer and writes a buffer of its own; then the first
stream waits for all and overwrites the shared one, and the others wait for it. Printed is the time of the fastest round
with the check, as a multiple of that without, for several numbers of streams.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
from ctypes import byref, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.unit.hipemu.machine import Machine, assemble, kernel_text

GROUPS, LANES, REPEATS = 64, 256, 16
LANE_BYTES = 32
BODY = "\n".join(
    [f"v_mov_b32_e32 v{12 + i}, v{4 + i}" for i in range(8)]
    + ["s_mul_i32 s2, s2, 0x2000", "v_add_u32_e32 v1, s2, v1", "v_lshl_add_u32 v2, v0, 4, s2"]
    + ["global_load_dwordx4 v[12:15], v2, s[4:5]\ns_waitcnt vmcnt(0)", *["v_fma_f32 v16, v12, v13, v16"] * 16] * REPEATS
)
"""Each workgroup loads its part again and again, and multiplies what it loads."""


class Streams(Machine):
    """One kernel, run by several streams."""

    def __call__(self, name: str, *arguments: object) -> None:
        """Calls HIP."""
        self._check(getattr(self._hip, name)(*arguments))

    def time(self, num_streams: int, rounds: int) -> float:
        """Seconds of the fastest round."""
        code = assemble("gfx942", kernel_text("gfx942", BODY, wave=64).replace(*WITH_GROUP))
        module, kernel = c_void_p(), c_void_p()
        self("hipModuleLoadData", byref(module), code)
        self("hipModuleGetFunction", byref(kernel), module, b"k")
        size = c_size_t(GROUPS * LANES * LANE_BYTES)
        buffers = [c_void_p() for _ in range(num_streams + 1)]
        streams, events = ([c_void_p() for _ in range(num_streams)] for _ in range(2))
        for buffer in buffers:
            self("hipMalloc", byref(buffer), size)
            self("hipMemset", buffer, c_int(0), size)
        for stream, event in zip(streams, events, strict=True):
            self("hipStreamCreateWithFlags", byref(stream), c_uint(1))
            self("hipEventCreate", byref(event))
        best = float("inf")
        for _ in range(rounds):
            began = time.perf_counter()
            for i, stream in enumerate(streams):
                pointers = (c_void_p * 2)(ctypes.addressof(buffers[0]), ctypes.addressof(buffers[i + 1]))
                self("hipModuleLaunchKernel", kernel, GROUPS, 1, 1, LANES, 1, 1, 0, stream, pointers, None)
                self("hipEventRecord", events[i], stream)
                self("hipStreamWaitEvent", streams[0], events[i], c_uint(0))
            self("hipMemsetAsync", buffers[0], c_int(0), size, streams[0])
            self("hipEventRecord", events[0], streams[0])
            for stream in streams:
                self("hipStreamWaitEvent", stream, events[0], c_uint(0))
            best = min(best, time.perf_counter() - began)
        return best


WITH_GROUP = (
    ".amdhsa_kernarg_size 16",
    ".amdhsa_kernarg_size 16\n  .amdhsa_system_sgpr_workgroup_id_x 1",
)
"""The workgroup's number comes in s2, after the address of the arguments."""


def main() -> None:
    """Prints a table; with --one, the seconds of one setting, for which this script calls itself."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--one", nargs=2, metavar=("STREAMS", "CHECKS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            machine = Streams(Path(folder), {"CHECKS": options.one[1]})
            print(machine.time(int(options.one[0]), options.rounds))
        return
    print("| streams | time with `order` |\n|---|---|")
    for num_streams in options.streams:
        plain, checked = (
            min(seconds(num_streams, checks, options.rounds) for _ in range(3)) for checks in ("", "order")
        )
        print(f"| {num_streams} | {checked / plain:.2f} |", flush=True)


def seconds(num_streams: int, checks: str, rounds: int) -> float:
    """The fastest round in a process of its own."""
    command = [sys.executable, __file__, "--rounds", str(rounds), "--one", str(num_streams), checks]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main()
