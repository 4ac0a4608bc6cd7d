"""Runs benchmarks that need neither a GPU nor a bundle, one after the other. See README.md in this folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).parent
_RUNS = (
    ("compile_time.py", "layers"),
    ("compile_time.py", "shapes"),
    ("cpu_speed.py", "pool"),
    ("cpu_speed.py", "speed", "160m", "1.1b"),
    ("cpu_speed.py", "speed", "1.1b", "--dtype", "bf16", "--quantize", "none", "int8", "int4"),
    ("chat_cache.py",),
    ("serving.py",),
    ("serving.py", "1.1b"),
)


def main() -> None:
    """Prints each command and its table."""
    for script, *arguments in _RUNS:
        print(f"\n$ python benchmarks/{script} {' '.join(arguments)}", flush=True)
        subprocess.run([sys.executable, str(_FOLDER / script), *arguments], check=True)


if __name__ == "__main__":
    main()
