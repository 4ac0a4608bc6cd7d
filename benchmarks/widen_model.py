"""Makes a model slower without changing what it writes: its MLPs get rows and columns of zeros.

    python benchmarks/widen_model.py examples/demo_model OUT --times 80

For `guesses.py`: a draft only pays for a model that takes much longer than the draft.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file


def widen(model: Path, out: Path, times: int) -> None:
    """Writes the folder of a Llama whose MLPs are `times` as wide."""
    shutil.copytree(model, out)
    config = json.loads((model / "config.json").read_text())
    more = config["intermediate_size"] * (times - 1)
    config["intermediate_size"] += more
    (out / "config.json").write_text(json.dumps(config, indent=2))
    tensors = load_file(model / "model.safetensors")
    for name, values in tensors.items():
        if ".mlp." in name:
            axis = 1 if "down_proj" in name else 0
            tensors[name] = np.pad(values, [(0, more if axis == index else 0) for index in range(2)])
    (out / "model.safetensors").unlink()  # it may be one file with the other model's
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--times", type=int, default=80)
    options = parser.parse_args()
    widen(options.model, options.out, options.times)


if __name__ == "__main__":
    main()
