"""Programs with kernels of our own, compiled for an AMD target and run on a stand-in HIP device, as machine code."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from amdnfs_passes.ir import parse_module
from amdnfs_passes.kernels.provider import has_triton
from amdnfs_passes.pipeline_text import parse_passes
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.transfers import Transfers
from amdnfs_targets.registry import TARGETS
from iree import runtime as rt

from amdnfs_compile.lower import lower_module
from amdnfs_compile.pipeline import convert_torch_to_linalg
from tests.unit.passes.cpu_programs import Array

DTYPES: dict[str, Any] = {"f16": np.float16, "bf16": ml_dtypes.bfloat16}
ROUND = {"f16": 2.0**-11, "bf16": 2.0**-8}  # what storing can change, relative to the value
TINY = {"f16": 2.0**-25, "bf16": 0.0}  # and for numbers too small for that

needs_emulator = pytest.mark.skipif(
    not (os.environ.get(HIP_DYLIB_VARIABLE) and has_triton()),
    reason=f"{HIP_DYLIB_VARIABLE} does not name a folder with a stand-in libamdhip64.so, or triton is not installed",
)


def pass_options(target: str, num_compute_units: int) -> str:
    """What the dispatch passes are told of a target, as on the command line."""
    facts = TARGETS[target]
    return (
        f"{{backend=hip processor={facts.gfx} wave-size={facts.wave_size} lds-bytes={facts.lds_bytes} "
        f"num-compute-units={num_compute_units}}}"
    )


def uniform(rng: np.random.Generator, shape: Sequence[int], element: str) -> Array:
    return rng.uniform(-2, 2, shape).astype(DTYPES[element])


class EmulatedModule:
    """A compiled module on the stand-in device."""

    def __init__(self, text: str, target: str, num_compute_units: int, passes: Sequence[str]) -> None:
        """Compiles `text`; every one of `passes` must rewrite something and refuse nothing.

        Args:
            text: A module of the torch dialect.
            target: An AMD target.
            num_compute_units: How many compute units the kernels shall fill: few of them want large tiles and few
                splits, so that small problems meet both.
            passes: Names of dispatch passes.
        """
        module = parse_module(text)
        options = pass_options(target, num_compute_units)
        for item in parse_passes(",".join(name + options for name in passes)):
            result = item.apply(module)
            assert result.rewrites, f"{result.pass_name} rewrites nothing"
            assert not result.refusals, result.refusals
        convert_torch_to_linalg(module)
        bytecode = io.BytesIO()
        module.operation.write_bytecode(bytecode)
        program = lower_module(bytecode.getvalue(), TARGETS[target]).vmfb
        rt.flags.parse_flags(f"--hip_dylib_path={os.environ[HIP_DYLIB_VARIABLE]}")
        self._device = rt.get_device("hip")
        instance = rt.VmInstance()
        self._module = rt.VmModule.copy_buffer(instance, program)
        self._context = rt.VmContext(instance, [rt.create_hal_module(instance, self._device), self._module])

    def call(self, name: str, *inputs: Array) -> list[Array]:
        """Runs a function and gives all its results."""
        transfers = Transfers(self._device)
        views = [rt.asdevicearray(self._device, item)._buffer_view for item in inputs]
        results = transfers.call(self._context, self._module.lookup_function(name), views)
        return [transfers.download(rt.DeviceArray(self._device, view)) for view in results]
