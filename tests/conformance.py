"""Prints the table family x (traces, CPU equals transformers, AMD targets compile, AMD code equals transformers).

    python tests/conformance.py [--write docs/conformance.md] [--only NAME ...] [--columns cpu|amd|emulator ...]
        [--emulate gfx1100 ...] [--keep FOLDER]

Twins of tests/twins.py: tiny random models with the code and the kinds of layers of the real ones. The emulator's
columns, one a target, are filled with AMDNFS_HIP_DYLIB (a folder with a stand-in libamdhip64.so) or else with our own
emulator, with all its checks on; without a C compiler they say "not run". With --only, --columns or --emulate the other
cells of an existing document are kept, if the tools are the same. With --keep models and bundles are left in FOLDER,
and those that lie there are taken as they are.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1]))

from amdnfs_hipemu import EmulatorError, library_folder
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import AmdnfsError
from amdnfs_targets.registry import GROUPS

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.verify import verify_bundle
from tests.twins import REQUIRED, TWINS, make_twin

EMULATED = GROUPS["all-amd"]
"""Targets whose code is executed."""
COMPILED_HEADS = ["twin", "transformers type", "traces, compiles for cpu", "cpu f32 error", "AMD targets compile (f16)"]
HEADS = [*COMPILED_HEADS, *EMULATED]
NOT_RUN = "not run"
CHECKS_VARIABLE = "AMDNFS_EMULATE_CHECKS"
OPTIONS = CompileOptions(prefill_chunks=(16,), decode_batches=(4,))
SHORT = 20
SEEDS = {"gpt_oss": 1}
"""Of the random texts, where it is not 0. In a text of seed 0 two experts of gpt_oss are 6e-4 apart for one token (the
router's logits spread over 1): f16 takes another than f32, on the CPU as on gfx942, and that token's logits differ."""


def outcome(call: object, *arguments: object) -> str:
    """`yes`, or the first line of the error."""
    try:
        call(*arguments)  # type: ignore[operator]
    except AmdnfsError as error:
        return str(error).splitlines()[0][:80]
    return "yes"


def numerics(bundle: Path, model: Path, target: str, num_tokens: int = 0) -> str:
    """The largest error of all checks, as a share of the largest logit; or what stopped the program."""
    try:
        checks = verify_bundle(bundle, model, target, seed=SEEDS.get(model.parent.name, 0), num_tokens=num_tokens)
    except AmdnfsError as error:
        return f"STOPPED: {str(error).splitlines()[0]}"
    worst = max(check.error for check in checks)
    return f"{worst:.0e}" if all(check.is_right for check in checks) else f"WRONG ({worst:.0e})"


def check_cpu(cells: list[str], folder: Path) -> None:
    """Fills the CPU columns."""
    model, bundle = make_twin(cells[0], folder / "f32"), folder / "f32.amdnfs"
    cells[2] = outcome(compile_model, model, ["cpu"], bundle, OPTIONS)
    cells[3] = numerics(bundle, model, "cpu") if cells[2] == "yes" else "-"


def check_amd(cells: list[str], folder: Path) -> None:
    """Fills the column of AMD compiles."""
    targets = GROUPS["all-amd"]
    half = make_twin(cells[0], folder / "f16", torch.float16)
    compiled = outcome(compile_model, half, list(targets), folder / "f16.amdnfs", OPTIONS)
    cells[4] = f"all {len(targets)}" if compiled == "yes" else compiled


def check_emulator(cells: list[str], folder: Path, targets: Sequence[str] = EMULATED) -> None:
    """Fills the emulator's columns of `targets`."""
    model, bundle = folder / "f16", folder / "f16.amdnfs"
    if not model.exists():
        make_twin(cells[0], model, torch.float16)
    compiled = "yes" if bundle.exists() else outcome(compile_model, model, list(targets), bundle, OPTIONS)
    for target in targets:
        cells[HEADS.index(target)] = numerics(bundle, model, target, SHORT) if compiled == "yes" else compiled


CHECKS: dict[str, Callable[[list[str], Path], None]] = {"cpu": check_cpu, "amd": check_amd, "emulator": check_emulator}
"""In this order: what is cheap first."""


def can_check(check: str, name: str) -> bool:
    """Whether a check is made for a twin: AMD columns are for the required ones."""
    return check == "cpu" or (name in REQUIRED and (check == "amd" or bool(os.environ.get(HIP_DYLIB_VARIABLE))))


def let_it_emulate() -> None:
    """Takes our own emulator unless another library is named, if it can be built."""
    if not os.environ.get(HIP_DYLIB_VARIABLE):
        try:
            os.environ[HIP_DYLIB_VARIABLE] = str(library_folder())
        except EmulatorError as error:
            print(f"nothing is executed on the emulator: {error}", file=sys.stderr)
        os.environ.setdefault(CHECKS_VARIABLE, "all")


def table(rows: list[list[str]], heads: list[str]) -> str:
    """The columns `heads` of rows as Markdown."""
    columns = [HEADS.index(head) for head in heads]
    cells = [heads, ["---"] * len(heads), *([row[column] for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def tools() -> str:
    """What the results depend on besides this project."""
    return ", ".join(f"{name} {version(name)}" for name in ("iree-base-compiler", "torch", "transformers", "triton"))


def kept_rows(path: Path | None) -> dict[str, list[str]]:
    """Rows of a document by twin, with the columns of today; none if it was written with other tools."""
    if path is None or not path.is_file() or tools() not in " ".join(path.read_text(encoding="utf-8").split()):
        return {}
    found: dict[str, dict[str, str]] = {}
    heads: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split(" | ")] if line.startswith("| ") else []
        if cells[:1] == HEADS[:1]:
            heads = cells
        elif cells and cells[0] in TWINS:
            found.setdefault(cells[0], {}).update(zip(heads, cells, strict=True))
    return {name: [cells.get(head, NOT_RUN) for head in HEADS] for name, cells in found.items()}


def document(rows: list[list[str]]) -> str:
    """docs/conformance.md."""
    written = f"Written by `make conformance` with {tools()}."
    executed = (
        f"Errors of machine code for these targets, in f16 and with texts of {SHORT} tokens, executed on the emulator "
        "with all its checks on ([emulator.md](emulator.md)): what these find ends a program, and the cell says so. "
        "Nobody has run these programs on AMD hardware. Each was compiled with the entry points prefill_16 and "
        "decode_4. Cells are filled one by one, so they may be of different versions of this project. `make test` "
        "executes the shipped model and a two-layer twin of gemma2 as code of all AMD "
        "targets, and one of llama in bf16 for those that have bf16."
    )
    names = f'"AMD targets compile" means {", ".join(GROUPS["all-amd"])}.'
    required = [cells for cells in rows if cells[0] in REQUIRED]
    return f"""# Conformance

{textwrap.fill(written, 120)}

Each row is a tiny random twin of a family (`tests/twins.py`): transformers' own modelling code, small sizes. Errors are
the largest difference of a logit from transformers in f32, as a share of the largest logit, over prefill in one go and
in chunks, decode over page borders and a batch of different lengths. Allowed: 2e-4 in f32, 2e-2 in f16.

{textwrap.fill(names, 120)}

{table(rows, COMPILED_HEADS)}

"not run": this command compiles for AMD targets only the families that are required, or it was not asked to.

## AMD code, executed

{textwrap.fill(executed, 120)}

{table(required, [HEADS[0], *EMULATED])}

The texts of gpt_oss are of another seed than the others': in one of seed 0 a token is so near a tie between experts
that f16 takes another one than f32.
"""


def main() -> None:
    """Runs the twins and prints or writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="write the document here")
    parser.add_argument("--only", nargs="*", choices=list(TWINS), default=list(TWINS), metavar="NAME")
    parser.add_argument("--columns", nargs="*", choices=list(CHECKS), default=list(CHECKS))
    parser.add_argument("--emulate", nargs="*", choices=EMULATED, default=EMULATED, help="targets to execute code for")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where models and bundles are kept and looked for")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    let_it_emulate()
    chosen = (arguments.only, arguments.columns, arguments.emulate)
    is_part = any(
        len(some) < len(everything) for some, everything in zip(chosen, (TWINS, CHECKS, EMULATED), strict=True)
    )
    kept = kept_rows(arguments.write) if is_part else {}
    rows = [kept.get(name, [name, TWINS[name].model_type, *([NOT_RUN] * (len(HEADS) - 2))]) for name in TWINS]
    checks = {**CHECKS, "emulator": partial(check_emulator, targets=arguments.emulate)}
    rows.sort(key=lambda cells: cells[0] not in REQUIRED)
    with tempfile.TemporaryDirectory(prefix="amdnfs-conformance-") as scratch:
        folder = arguments.keep or Path(scratch)
        for column in (name for name in CHECKS if name in arguments.columns):
            for cells in rows:
                if cells[0] not in arguments.only or not can_check(column, cells[0]):
                    continue
                place = folder / cells[0]
                place.mkdir(parents=True, exist_ok=True)
                checks[column](cells, place)
                print("| " + " | ".join(cells) + " |", flush=True)
                if arguments.write:
                    arguments.write.parent.mkdir(exist_ok=True)
                    arguments.write.write_text(document(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
