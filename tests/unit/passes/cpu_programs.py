"""Programs of a few torch operations, lowered by named passes, compiled for this CPU, and called from the tests."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from amdnfs_passes.ir import parse_module
from amdnfs_passes.pipeline_text import parse_passes
from iree import runtime as rt

from amdnfs_compile.pipeline import convert_torch_to_linalg

Array = np.ndarray[Any, Any]
DTYPES = {"f32": np.float32, "f16": np.float16}
SUM = 2.0**-24  # what one addition in f32 can change, relative to the sizes of its terms
ROUND = {"f32": 2.0**-24, "f16": 2.0**-11}  # what storing can change, relative to the value
TINY = {"f32": 0.0, "f16": 2.0**-25}  # and for numbers too small for that
FLAGS = (
    *("--iree-hal-target-device=local", "--iree-hal-local-target-device-backends=llvm-cpu"),
    *("--iree-llvmcpu-target-cpu=host", "--iree-opt-level=O2"),
)


def vt(shape: Sequence[int | str], element: str) -> str:
    return f"!torch.vtensor<[{','.join(str(size) for size in shape)}],{element}>"


def function(name: str, arguments: Sequence[str], results: Sequence[str], body: str) -> str:
    """A function whose arguments are %0, %1, ... and whose `body` defines its results, %y0, %y1, ..."""
    signature = ", ".join(f"%{index}: {kind}" for index, kind in enumerate(arguments))
    names, kinds = ", ".join(f"%y{index}" for index in range(len(results))), ", ".join(results)
    return f"func.func @{name}({signature}) -> ({kinds}) {{\n{body}\nreturn {names} : {kinds}\n}}\n"


def build(folder: Path, text: str, passes: str) -> Any:
    """Lowers `text` by `passes`, compiles it for this CPU, and loads it."""
    return rt.load_vm_flatbuffer(compiled(folder, text, passes, FLAGS), driver="local-sync")


def compiled(folder: Path, text: str, passes: str, flags: Sequence[str]) -> bytes:
    """Lowers `text` by `passes`, and compiles it."""
    module = parse_module(text)
    results = [item.apply(module) for item in parse_passes(passes)]
    assert all(result.rewrites and not result.refusals for result in results)
    convert_torch_to_linalg(module)
    source, output = folder / "module.mlirbc", folder / "module.vmfb"
    with source.open("wb") as file:
        module.operation.write_bytecode(file)
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    command = [compiler, source, "--output-format=vm-bytecode", *flags, "-o", output]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return output.read_bytes()


def call(module: Any, name: str, *inputs: Array) -> Any:
    results = module[name](*inputs)
    return tuple(item.to_host() for item in results) if isinstance(results, tuple) else results.to_host()


def uniform(rng: np.random.Generator, shape: Sequence[int], element: str) -> Array:
    return rng.uniform(-2, 2, shape).astype(DTYPES[element])


def rounding(element: str, wanted: Array) -> Array:
    return ROUND[element] * np.abs(wanted) + TINY[element]


def assert_within(got: Array, wanted: Array, bound: Array) -> None:
    """Checks |got - wanted| <= bound everywhere; NaN is not."""
    wrong = ~(np.abs(got.astype(np.float64) - wanted) <= bound)
    at = tuple(np.argwhere(wrong)[0]) if wrong.any() else ()
    assert not wrong.any(), f"{wrong.sum()} wrong values, first at {at}: {got[at]}, not {wanted[at]} +- {bound[at]}"
