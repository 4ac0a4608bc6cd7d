"""Flips single bits in the machine code of the shipped model's program, and asks whether executing it finds out.

    python benchmarks/emulator_mutations.py --target gfx942 --flips 300

Each flip is in a place that was chosen at random in the code of one entry point's kernels (seeded, so that a run can be
repeated). The altered program computes a prompt and two more tokens on the emulator, with all its checks. A flip is
caught by a fault (the emulator stops the program and says why), by wrong logits (beyond the tolerance of `amdnfs
verify`), or because the program does not end. Of the others it is said where the bit lies: code that this execution
does not reach, waits and hints that have no effect on values, or instructions whose results do not change enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amdnfs_hipemu import library_folder
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.errors import AmdnfsError
from amdnfs_runtime.execution import EmulatedSteps, Emulation
from amdnfs_runtime.report.code_objects import CodeObject, find_code_objects

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.listing import Line, list_code
from amdnfs_compile.verify import tolerance_of

MODEL = Path(__file__).parents[1] / "examples" / "demo_model"
PROMPT_TOKENS = 11
SETTINGS = {"AMDNFS_EMULATE_CHECKS": "all", "AMDNFS_EMULATE_THREADS": "1"}
WAITS = ("s_waitcnt", "s_wait_", "s_nop", "s_delay_alu", "s_clause", "s_sleep", "s_sethalt", "s_setprio", "s_code_end")
"""Instructions without effect on values where execution is in order."""
PLANTED = {"gfx9": 0xBF920001, "gfx1": 0xBF900001}
"""`s_trap 1`, by the first characters of the processor (ISA documents, SOPP): stops a wave that reaches it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A bit of an instruction."""

    kernel: str
    """Kernel that the instruction belongs to."""
    byte: int
    """Byte of the program."""
    bit: int
    """Bit of that byte."""
    line: Line
    """The instruction."""
    begin: int
    """First byte of the instruction in the program."""


def main() -> None:
    """Runs the flips and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="gfx942")
    parser.add_argument("--flips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--bundle", type=Path, help="with prefill_16 and decode_1; else the shipped model")
    parser.add_argument("--json", type=Path, help="write every flip and what became of it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sizes = CompileOptions(prefill_chunks=(16,), decode_batches=(1,))
        bundle = options.bundle or compile_model(MODEL, [options.target], Path(folder) / "plain.amdnfs", sizes)
        rows = run(bundle, options.target, options.flips, options.seed, options.jobs)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))
    print_table(rows, options.target)


def run(bundle: Path, target: str, num_flips: int, seed: int, jobs: int) -> list[dict[str, Any]]:
    """Flips bits one at a time; one row a flip."""
    manifest = read_manifest(bundle)
    program = (bundle / manifest.targets[target].program).read_bytes()
    emulation = Emulation(library=library_folder(), settings=SETTINGS)
    wanted, limits = measure(bundle, manifest, target, emulation)
    emulation = dataclasses.replace(emulation, settings={**SETTINGS, **limits}, timeout_s=60.0)
    places = list(choose(program, target, num_flips, seed))
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        jobs_done = pool.map(lambda place: judge(bundle, manifest, target, emulation, program, place, wanted), places)
        rows = []
        for place, (fate, detail) in zip(places, jobs_done, strict=True):
            text = place.line.text
            rows.append({"kernel": place.kernel, "instruction": text, "fate": fate, "detail": detail, "bit": place.bit})
            print(f"{len(rows):4} {fate:<44} {text[:60]}", flush=True)
    return rows


def measure(
    bundle: Path, manifest: Manifest, target: str, emulation: Emulation
) -> tuple[list[np.ndarray], dict[str, str]]:
    """The logits of the right program, and the limit of instructions of a wave: ten times what it needs."""
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        settings = {**emulation.settings, "AMDNFS_EMULATE_COUNTERS": str(lines)}
        wanted = logits_of(bundle, manifest, target, dataclasses.replace(emulation, settings=settings))
        most = max(
            sum(values["instructions"].values()) // max(1, values["waves"])
            for values in map(json.loads, lines.read_text().splitlines())
        )
    return wanted, {"AMDNFS_EMULATE_BUDGET": str(max(100_000, 20 * most))}


def choose(program: bytes, target: str, num_flips: int, seed: int) -> Iterator[Place]:
    """Random bits in the instructions of kernels that the entry points run, each byte as likely as another."""
    rng = np.random.default_rng(seed)
    found = [
        (item, name, line)
        for item in find_code_objects(program)
        for name in item.kernels
        for line in lines_of(program, item, name, target)
    ]
    weights = np.array([line.num_bytes for *_, line in found], float)
    for index in rng.choice(len(found), num_flips, p=weights / weights.sum()):
        item, name, line = found[index]
        offset, bit = int(rng.integers(line.num_bytes)), int(rng.integers(8))
        begin = item.offset + line.offset
        yield Place(kernel=name, byte=begin + offset, bit=bit, line=line, begin=begin)


def lines_of(program: bytes, item: CodeObject, name: str, target: str) -> Iterator[Line]:
    """The instructions of a kernel."""
    image = program[item.offset : item.offset + item.num_bytes]
    return list_code(image, *item.functions[name], target)


def judge(
    bundle: Path,
    manifest: Manifest,
    target: str,
    emulation: Emulation,
    program: bytes,
    place: Place,
    wanted: list[np.ndarray],
) -> tuple[str, str]:
    """What becomes of a flip, and the emulator's message or the error of the logits."""
    altered = bytearray(program)
    altered[place.byte] ^= 1 << place.bit
    try:
        got = altered_logits(bundle, manifest, target, emulation, bytes(altered))
    except AmdnfsError as error:
        text = str(error)
        return ("caught: does not end" if "was stopped" in text or "budget" in text else "caught: fault"), text
    error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(got, wanted, strict=True))
    if not error <= tolerance_of(manifest):
        return "caught: wrong logits", f"{error:.1e}"
    if error > 0:
        return "not caught: logits differ within the tolerance", f"{error:.1e}"
    if place.line.text.startswith(WAITS):
        return "harmless: a wait, a hint or padding", ""
    if not is_reached(bundle, manifest, target, emulation, program, place):
        return "harmless: not reached by this execution", ""
    return "harmless: reached, all logits bit for bit the same", ""


def is_reached(
    bundle: Path, manifest: Manifest, target: str, emulation: Emulation, program: bytes, place: Place
) -> bool:
    """Whether any wave executes an instruction: with a trap in its place, the program stops."""
    altered = bytearray(program)
    altered[place.begin : place.begin + 4] = PLANTED[target[:4]].to_bytes(4, "little")
    try:
        altered_logits(bundle, manifest, target, emulation, bytes(altered))
    except AmdnfsError:
        return True
    return False


def altered_logits(
    bundle: Path, manifest: Manifest, target: str, emulation: Emulation, program: bytes
) -> list[np.ndarray]:
    """The logits of a bundle with another program; weights and all else are shared with the bundle."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "altered.amdnfs"
        shutil.copytree(bundle.resolve(), copy, copy_function=lambda source, place: Path(place).symlink_to(source))
        path = copy / manifest.targets[target].program
        path.unlink()
        path.write_bytes(program)
        return logits_of(copy, manifest, target, emulation)


def logits_of(bundle: Path, manifest: Manifest, target: str, emulation: Emulation) -> list[np.ndarray]:
    """A prompt that ends within a page, and two tokens behind it."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, manifest.model.vocab_size, PROMPT_TOKENS + 2)
    table = np.array([[1, 2]], np.int32)
    padded = np.zeros((1, 16), np.int64)
    padded[0, :PROMPT_TOKENS] = tokens[:PROMPT_TOKENS]
    calls: list[tuple[str, Arguments]] = [("prefill_16", (padded, whole(0), whole(PROMPT_TOKENS), table[:, :1]))]
    for at in range(PROMPT_TOKENS, PROMPT_TOKENS + 2):
        calls.append(("decode_1", (tokens[None, at : at + 1], whole(at), whole(1), table[:, :1])))
    with EmulatedSteps(bundle, target, 3, emulation) as steps:
        return [steps.step(name, arguments)[1] for name, arguments in calls]


def whole(value: int) -> np.ndarray:
    """`[value]` as an argument of an entry point."""
    return np.array([value], np.int64)


def print_table(rows: list[dict[str, Any]], target: str) -> None:
    """Counts and shares by fate; of the faults, the kinds."""
    counts = Counter(row["fate"] for row in rows)
    print(f"\n| {target}, {len(rows)} flips | number | share |\n|---|---|---|")
    for fate, number in sorted(counts.items()):
        print(f"| {fate} | {number} | {number / len(rows):.0%} |")
    caught = sum(number for fate, number in counts.items() if fate.startswith("caught"))
    effective = len(rows) - sum(number for fate, number in counts.items() if fate.startswith("harmless"))
    print(f"\ncaught: {caught / len(rows):.0%} of all flips, {caught / max(1, effective):.1%} of those with an effect")


if __name__ == "__main__":
    main()
