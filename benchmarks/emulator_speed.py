"""Measures how fast the emulator executes decode steps of the shipped model, and what its checks cost.

    python benchmarks/emulator_speed.py --target gfx942

Each setting has a process of its own; they run in turns, so that what else the machine does hits all alike. Printed is
the best round of each: wave instructions in a second of the dispatches' wall time, with all threads of the emulator.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from amdnfs_hipemu import library_folder
from amdnfs_runtime.execution import EmulatedSteps, Emulation

from amdnfs_compile import CompileOptions, compile_model

MODEL = Path(__file__).parents[1] / "examples" / "demo_model"
LINE = re.compile(r" (\d+) wave instructions in ([\d.]+) ms")
ENTRY = "decode_1"


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="gfx942")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="decode steps of a round")
    parser.add_argument("--checks", nargs="*", default=["", "order", "all"], help="settings to compare")
    parser.add_argument("--bundle", type=Path, help="with decode_1; else the shipped model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
        bundle = options.bundle or compile_model(MODEL, [options.target], Path(folder) / "plain.amdnfs", sizes)
        best = measure(bundle, options.target, options.checks, options.rounds, options.steps, Path(folder))
    print("| checks | million wave instructions a second | time |\n|---|---|---|")
    for checks, (instructions, seconds) in best.items():
        first = next(iter(best.values()))[1]
        print(f"| {checks or 'ranges only'} | {instructions / seconds / 1e6:.1f} | {seconds / first:.2f} |")


def measure(
    bundle: Path, target: str, settings: list[str], rounds: int, steps: int, folder: Path
) -> dict[str, tuple[int, float]]:
    """Wave instructions and seconds of each setting's fastest round."""
    best: dict[str, tuple[int, float]] = {}
    with ExitStack() as stack:
        running = []
        for i, checks in enumerate(settings):
            log = folder / f"log{i}"
            environment = {"AMDNFS_EMULATE_LOG": str(log), "AMDNFS_EMULATE_CHECKS": checks}
            emulation = Emulation(library=library_folder(), settings=environment)
            running.append((checks, log, stack.enter_context(EmulatedSteps(bundle, target, 2, emulation))))
        for number in range(rounds + 1):  # the first makes tables, and is not counted
            for checks, log, program in running:
                done = log.stat().st_size if log.exists() else 0
                for at in range(steps):
                    start, valid = np.array([at], np.int64), np.array([1], np.int64)
                    program.step(ENTRY, (np.array([[at + 3]], np.int64), start, valid, np.array([[1]], np.int32)))
                found = LINE.findall(log.read_text()[done:])
                got = sum(int(count) for count, _ in found), sum(float(ms) for _, ms in found) / 1e3
                if number == 1 or (number and got[1] < best[checks][1]):
                    best[checks] = got
    return best


if __name__ == "__main__":
    main()
