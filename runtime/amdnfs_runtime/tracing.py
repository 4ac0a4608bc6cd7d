"""Runs a program with traces, and keeps the tensors that they show: what dispatches read and wrote.

IREE calls back with the key of a trace and the tensors named there. Programs of bundles hold no traces; those that a
comparison of dispatches runs are made for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from iree import runtime as rt

from amdnfs_runtime.bundle import Manifest
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE, cache_dtype
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.transfers import Transfers

Tensors = Mapping[str, Sequence[npt.NDArray[Any]]]
"""Traced tensors by the key of their trace."""


class TracedSteps:
    """A program with traces, on the stand-in HIP library that the environment names."""

    def __init__(self, bundle: Path, manifest: Manifest, target: str, program: Path, num_pages: int) -> None:
        """Loads `program` with the weights of the bundle, and makes zeroed pools.

        Raises:
            ArtifactError: If the device refuses the program.
        """
        self.tensors: dict[str, list[npt.NDArray[Any]]] = {}
        """What the last step traced."""
        try:
            rt.flags.parse_flags(f"--hip_dylib_path={os.environ[HIP_DYLIB_VARIABLE]}")
            device = rt.get_device("hip")
            instance, index = rt.VmInstance(), rt.ParameterIndex()
            for path in manifest.weights:
                index.load(str(bundle / path))
            module = rt.VmModule.copy_buffer(instance, program.read_bytes())
            sink = rt.HalModuleDebugSink(self._keep)
            hal = rt.create_hal_module(instance, device, debug_sink=sink)
            weights = rt.create_io_parameters_module(instance, index.create_provider(scope="model"))
            self._context = rt.VmContext(instance, [hal, weights, module])
            points = manifest.targets[target].entry_points
            self._functions = {item.name: module.lookup_function(item.name) for item in points}
        except (RuntimeError, ValueError, OSError) as error:
            raise ArtifactError(f"the device refuses the program with traces for {target}: {error}") from error
        self._device, self._transfers = device, Transfers(device)
        shape = (num_pages, 2, manifest.page_tokens)
        dtype = cache_dtype(manifest.cache_dtype)
        self._pools: list[Any] = [
            rt.asdevicearray(device, np.zeros((*shape, layer.kv_heads, layer.head_dim), dtype))._buffer_view
            for layer in manifest.layers
        ]

    def _keep(self, key: str, views: Sequence[Any]) -> None:
        self.tensors[key] = [_array(view) for view in views]

    def step(self, name: str, arguments: Arguments) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """See `execution.Steps.step`.

        Raises:
            ArtifactError: If the device fails.
        """
        self.tensors = {}
        try:
            views = [*self._transfers.upload(arguments), *self._pools]
            greedy, logits, *self._pools = self._transfers.call(self._context, self._functions[name], views)
            return self._read(greedy), self._read(logits)
        except (RuntimeError, ValueError) as error:
            raise ArtifactError(f"the program with traces failed in {name}: {error}") from error

    def _read(self, view: Any) -> npt.NDArray[Any]:
        return self._transfers.download(rt.DeviceArray(self._device, view))


def _array(view: Any) -> npt.NDArray[Any]:
    """A copy of a traced tensor. numpy knows bf16 and fp8 through ml_dtypes, which the bindings import."""
    content = np.array(view.map(), np.uint8)
    dtype = np.dtype(rt.HalElementType.map_to_dtype(view.element_type))
    shape = [int(size) for size in view.shape]
    array: npt.NDArray[Any] = content[: int(np.prod(shape)) * dtype.itemsize].view(dtype).reshape(shape)
    return array
