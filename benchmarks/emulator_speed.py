"""Measures how fast the emulator executes decode steps of the shipped model, and what its checks cost.

    python benchmarks/emulator_speed.py --target gfx942
    python benchmarks/emulator_speed.py --target gfx942 --shape 135m --checks "" --steps 1

With --shape the model has random weights and the sizes of one in shapes.py. Each setting has a process of its own; they
run in turns, so that what else the machine does hits all alike. Printed is the best round of each: wave instructions in
a second of the dispatches' wall time, with all threads of the emulator, and the time from a token to the next, with
everything. The first step, which also decodes the instructions, is told apart.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amdnfs_hipemu import library_folder
from amdnfs_runtime.execution import EmulatedSteps, Emulation
from shapes import SHAPES, make_model

from amdnfs_compile import CompileOptions, compile_model

MODEL = Path(__file__).parents[1] / "examples" / "demo_model"
LINE = re.compile(r" (\d+) wave instructions in ([\d.]+) ms")
ENTRY = "decode_1"


@dataclass(frozen=True, kw_only=True)
class Round:
    """What some steps took."""

    instructions: int
    """Wave instructions executed."""
    dispatch_s: float
    """Wall time of the dispatches, in seconds."""
    step_s: float
    """From the arguments of a step to its logits, in seconds."""


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="gfx942")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="decode steps of a round")
    parser.add_argument("--checks", nargs="*", default=["", "order", "all"], help="settings to compare")
    model = parser.add_mutually_exclusive_group()
    model.add_argument("--bundle", type=Path, help="with decode_1; else the shipped model")
    model.add_argument("--shape", choices=list(SHAPES), help="a model of random weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or make_bundle(options.shape, options.target, Path(folder))
        first, best = measure(bundle, options.target, options.checks, options.rounds, options.steps, Path(folder))
    print("| checks | million wave instructions | of them a second | time | seconds a token | the first |")
    print("|---|---|---|---|---|---|")
    plain_s = next(iter(best.values())).dispatch_s
    for checks, found in best.items():
        count = found.instructions / 1e6
        cells = [f"{count / options.steps:.1f}", f"{count / found.dispatch_s:.1f}", f"{found.dispatch_s / plain_s:.2f}"]
        cells += [f"{found.step_s / options.steps:.2f}", f"{first[checks]:.2f}"]
        print("| " + " | ".join([checks or "ranges only", *cells]) + " |")


def make_bundle(shape: str | None, target: str, folder: Path) -> Path:
    """The shipped model, or one of a shape, compiled for `target`."""
    model = make_model(folder / "model", SHAPES[shape]) if shape else MODEL
    sizes = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
    return compile_model(model, [target], folder / "plain.amdnfs", sizes)


def measure(
    bundle: Path, target: str, settings: list[str], rounds: int, steps: int, folder: Path
) -> tuple[dict[str, float], dict[str, Round]]:
    """Seconds of each setting's first step, and its fastest round."""
    first: dict[str, float] = {}
    best: dict[str, Round] = {}
    with ExitStack() as stack:
        running = []
        for i, checks in enumerate(settings):
            log = folder / f"log{i}"
            environment = {"AMDNFS_EMULATE_LOG": str(log), "AMDNFS_EMULATE_CHECKS": checks}
            emulation = Emulation(library=library_folder(), settings=environment)
            program = stack.enter_context(EmulatedSteps(bundle, target, 2, emulation))
            running.append((checks, log, program))
            first[checks] = decode(program, log, 1).step_s
        for _ in range(rounds):
            for checks, log, program in running:
                found = decode(program, log, steps)
                if checks not in best or found.dispatch_s < best[checks].dispatch_s:
                    best[checks] = found
    return first, best


def decode(program: EmulatedSteps, log: Path, steps: int) -> Round:
    """Decodes the first tokens of a page."""
    done = log.stat().st_size if log.exists() else 0
    began_s = time.perf_counter()
    for at in range(steps):
        start, valid = np.array([at], np.int64), np.array([1], np.int64)
        program.step(ENTRY, (np.array([[at + 3]], np.int64), start, valid, np.array([[1]], np.int32)))
    step_s = time.perf_counter() - began_s
    found = LINE.findall(log.read_text()[done:])
    return Round(
        instructions=sum(int(count) for count, _ in found),
        dispatch_s=sum(float(ms) for _, ms in found) / 1e3,
        step_s=step_s,
    )


if __name__ == "__main__":
    main()
