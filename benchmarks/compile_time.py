"""Compile time, program size and peak memory by number of layers, and for the shapes of real models.

    python benchmarks/compile_time.py layers    one shape with 2, 8, 32 and 80 layers, for cpu and gfx942
    python benchmarks/compile_time.py shapes    1.1b and 8b, headers only: the weights are a hole in a file

Every compile is a process of its own (`amdnfs-compile`), one at a time, with two entry points (prefill 128, decode 8).
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from shapes import SHAPES, make_model

_COMPILE = Path(sysconfig.get_path("scripts")) / "amdnfs-compile"


def compile_once(model: Path, target: str, folder: Path) -> dict[str, float]:
    """Seconds, sizes in kB and peak memory in MB of one compile."""
    keep = folder / "keep"
    flags = ["--prefill-chunks", "128", "--decode-batches", "8", "--keep-intermediates", str(keep), "--json"]
    command = [str(_COMPILE), str(model), "--target", target, "-o", str(folder / "out.amdnfs"), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = json.loads(done.stdout)
    size = {path.name: path.stat().st_size / 1e3 for path in (keep / target).iterdir()}
    return {
        "seconds": values["seconds"],
        "linalg kB": size["0-linalg.mlirbc"],
        "stream kB": size["4-stream-verified.mlirbc"],
        "vmfb kB": size["program.vmfb"],
        "RSS MB": values["peak_rss_bytes"]["amdnfs"] / 1e6,
        "iree RSS MB": values["peak_rss_bytes"]["iree_compile"] / 1e6,
    }


def main() -> None:
    """Prints Markdown rows."""
    by_layers = sys.argv[1:] != ["shapes"]
    cases = [(f"{n} layers", dataclasses.replace(SHAPES["tiny"], layers=n)) for n in (2, 8, 32, 80)]
    if not by_layers:
        cases = [(name, SHAPES[name]) for name in ("1.1b", "8b")]
    is_first = True
    for label, shape in cases:
        for target in ("cpu", "gfx942"):
            with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as name:
                folder = Path(name)
                model = make_model(folder / "model", shape, "F16", random=False)
                values = compile_once(model, target, folder)
            if is_first:
                print("| model | target | " + " | ".join(values) + " |\n|---|---|" + "---|" * len(values))
                is_first = False
            print(f"| {label} | {target} | " + " | ".join(f"{v:.1f}" for v in values.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
