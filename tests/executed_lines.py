"""Lines as the emulator writes them, and a stand-in for its process that writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.execution import Emulation
from amdnfs_runtime.report.code_objects import find_code_objects
from amdnfs_runtime.report.counters import image_digest
from amdnfs_runtime.report.execute import COUNTERS_VARIABLE


def line(kernel: str, code_object: str, **changes: Any) -> str:
    """One line: a dispatch of 2 waves with 110 instructions."""
    values = {
        "dispatch": 1,
        "kernel": kernel,
        "target": "gfx942",
        "code_object": code_object,
        "grid": [2, 1, 1],
        "block": [64, 1, 1],
        "waves": 2,
        "seconds": 0.002,
        "instructions": {"valu": 60, "matrix": 8, "salu": 20, "vector-memory": 10, "lds": 4, "wait": 8},
        "vector_lanes": 2624,
        "vector_slots": 5248,
        "matrix_flops": 131072,
        "loaded_bytes": {"4": 256, "16": 8192},
        "stored_bytes": {"2": 512},
        "scalar_loaded_bytes": 40,
        "atomic_operations": 0,
        "loaded_lines": 90,
        "stored_lines": 10,
        "lds_loaded_bytes": 2048,
        "lds_stored_bytes": 1024,
        "lds_bank_conflicts": 6,
        "scratch_loaded_bytes": 0,
        "scratch_stored_bytes": 0,
        "fault": None,
    }
    assert changes.keys() <= values.keys()
    return json.dumps({**values, **changes})


class ScriptedSteps:
    """Instead of `EmulatedSteps`: each call appends lines to the file of counters, as the emulator does."""

    kernels: ClassVar[tuple[str, ...]] = ("linear", "attend", "linear", "attend", "norm")
    """Kernels that a call runs, in order."""
    changes: ClassVar[dict[str, dict[str, Any]]] = {}
    """What differs in the lines of a kernel."""

    def __init__(self, bundle: Path, target: str, num_pages: int, emulation: Emulation) -> None:
        manifest = read_manifest(bundle)
        program = (bundle / manifest.targets[target].program).read_bytes()
        (item,) = find_code_objects(program)
        self._digest = image_digest(program[item.offset : item.offset + item.num_bytes])
        self._lines = Path(emulation.settings[COUNTERS_VARIABLE])
        self._num_pages = num_pages
        self._write(["start-up"])

    def _write(self, kernels: list[str]) -> None:
        with self._lines.open("a") as file:
            for kernel in kernels:
                file.write(line(kernel, self._digest, **self.changes.get(kernel, {})) + "\n")

    def step(self, name: str, arguments: Arguments) -> tuple[np.ndarray, np.ndarray]:
        assert name == "prefill_16"
        tokens, start, valid, table = arguments
        assert tokens.shape == (1, 16)
        assert valid.tolist() == [16]
        assert table.shape == (1, (start[0] + 16) // 16)
        assert table.max() < self._num_pages
        self._write(list(self.kernels))
        return np.zeros(1, np.int64), np.zeros((1, 100), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass
