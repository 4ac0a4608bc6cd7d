"""Opens a device and runs programs on it: a thin layer over `iree.runtime`."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from amdnfs_targets.aliases import ALIASES
from amdnfs_targets.detect import cpu_features, detect_amd_gfx, has_nvidia_gpu
from amdnfs_targets.reflection import TOP_LOGITS_KEY
from iree import runtime as rt

from amdnfs_runtime.bundle import Manifest, TargetEntry
from amdnfs_runtime.errors import ArtifactError, CapacityError
from amdnfs_runtime.top_logits import PackedTop, greedy_tokens
from amdnfs_runtime.transfers import Transfers

HIP_DYLIB_VARIABLE = "AMDNFS_HIP_DYLIB"
"""Folder whose `libamdhip64.so` stands in for the driver's: an emulator, in tests."""

_DRIVERS = {"hip": "hip", "cuda": "cuda", "vulkan": "vulkan", "cpu": "local-task"}
_ORDER = ("hip", "cuda", "vulkan", "cpu")
_DEVICE_ERRORS = (RuntimeError, ValueError)
"""What IREE's bindings raise: the latter for what a driver calls an invalid argument."""
_QUEUED_MODEL = "coarse-fences"
"""What IREE's reflection says of functions whose last arguments are the fences to wait for and to signal."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """What this machine can run."""

    amd_gfx: tuple[str, ...]
    """Architectures of the AMD GPUs."""
    has_nvidia: bool
    """Whether there is an NVIDIA GPU."""
    has_vulkan: bool
    """Whether a Vulkan driver shows a device."""
    features: frozenset[str]
    """Features of the processor."""
    hip_stand_in: str | None
    """Folder of a stand-in HIP library, which takes any gfx."""

    def describe(self) -> str:
        """One line for messages."""
        gpus = ", ".join(self.amd_gfx) or "none"
        parts = [f"AMD GPUs: {gpus}", f"NVIDIA GPU: {'yes' if self.has_nvidia else 'no'}"]
        parts.append(f"Vulkan device: {'yes' if self.has_vulkan else 'no'}")
        if self.hip_stand_in:
            parts.append(f"stand-in HIP library: {self.hip_stand_in}")
        return "; ".join(parts)

    def why_not(self, name: str, target: TargetEntry) -> str | None:
        """Why a target's program cannot run here; None if it can."""
        if target.kind == "hip":
            if self.hip_stand_in is None and target.gfx not in self.amd_gfx:
                return f"{name} needs an AMD GPU of architecture {target.gfx}"
        elif target.kind == "cuda":
            return None if self.has_nvidia else f"{name} needs an NVIDIA GPU"
        elif target.kind == "vulkan":
            return None if self.has_vulkan else f"{name} needs a Vulkan driver"
        elif target.kind == "cpu":
            missing = sorted(set(target.cpu_features) - self.features)
            return f"{name} was compiled for a CPU with {', '.join(missing[:4])}" if missing else None
        else:
            return f"{name} is of the unknown kind {target.kind!r}"
        return None


def inspect_host() -> Host:
    """Looks at this machine's devices; opens none but Vulkan's list."""
    return Host(
        amd_gfx=detect_amd_gfx(),
        has_nvidia=has_nvidia_gpu(),
        has_vulkan=_has_vulkan(),
        features=cpu_features(),
        hip_stand_in=os.environ.get(HIP_DYLIB_VARIABLE) or None,
    )


def _has_vulkan() -> bool:
    try:
        return bool(rt.get_driver("vulkan").query_available_devices())
    except (RuntimeError, ValueError):
        return False


def choose_target(manifest: Manifest, host: Host, wanted: str | None = None) -> str:
    """The bundle's best target for this machine: hip, else cuda, else vulkan, else cpu.

    Raises:
        ArtifactError: If the wanted target, or every target, cannot run here; says what there is and what is needed.
    """
    held = ", ".join(manifest.targets) or "no program at all"
    if wanted is not None:
        wanted = ALIASES.get(wanted.strip().lower(), wanted)
        if wanted not in manifest.targets:
            raise ArtifactError(f"the bundle has no target {wanted}; it holds {held}")
        reason = host.why_not(wanted, manifest.targets[wanted])
        if reason is not None:
            raise ArtifactError(f"cannot run {wanted} here: {reason}; this machine has {host.describe()}")
        return wanted
    reasons = []
    kinds = {name: target.kind for name, target in manifest.targets.items()}
    for name in sorted(kinds, key=lambda name: (*_ORDER, kinds[name]).index(kinds[name])):
        reason = host.why_not(name, manifest.targets[name])
        if reason is None:
            return name
        reasons.append(reason)
    raise ArtifactError(
        f"no program of the bundle runs here; this machine has {host.describe()}\n"
        f"  the bundle holds {held}{': ' if reasons else ''}{'; '.join(reasons)}\n"
        "  add a target, e.g.: amdnfs-compile MODEL --target cpu -o BUNDLE"
    )


class Program:
    """A loaded program with its weights; calls its entry points."""

    def __init__(self, folder: Path, manifest: Manifest, target_name: str) -> None:
        """Loads the program of `target_name` and maps its weights.

        Raises:
            ArtifactError: If the device cannot be opened or refuses the program.
        """
        self.target_name = target_name
        target = manifest.targets[target_name]
        self._device = _open_device(target)
        # Where the host sees the memory of the device, nothing is copied.
        self._transfers = None if target.kind == "cpu" else Transfers(self._device)
        try:
            instance = rt.VmInstance()
            index = rt.ParameterIndex()
            for path in manifest.weights:
                index.load(str(folder / path))
            # A context must hold the very module object whose functions are looked up.
            self._module = _map_program(instance, folder / target.program)
            self._context = rt.VmContext(
                instance,
                [
                    rt.create_hal_module(instance, self._device),
                    rt.create_io_parameters_module(instance, index.create_provider(scope="model")),
                    self._module,
                ],
            )
            found = {point.name: self._module.lookup_function(point.name) for point in target.entry_points}
            missing = [name for name, function in found.items() if function is None]
            if missing:
                raise ValueError(f"it has no function {missing[0]}; compile the bundle again")
            self._functions = found
            self._invokers: Mapping[str, Callable[..., Any]] = {
                name: rt.FunctionInvoker(self._context, self._device, function) for name, function in found.items()
            }
            models = {function.reflection.get("iree.abi.model") for function in found.values()}
            self.is_queued = models == {_QUEUED_MODEL}
            """Whether `call` returns before the device has done it."""
            self._num_top = {
                name: int(function.reflection.get(TOP_LOGITS_KEY, "0")) for name, function in found.items()
            }
        except (RuntimeError, ValueError, LookupError, OSError) as error:
            raise ArtifactError(f"{folder}: the device refuses the program for {target_name}: {error}") from error

    def make_pools(self, manifest: Manifest, num_pages: int) -> list[Any]:
        """One zeroed pool a layer: `[num_pages, 2, page_tokens, kv_heads, head_dim]`.

        Raises:
            CapacityError: If the memory does not hold them.
        """
        dtype = cache_dtype(manifest.cache_dtype)
        try:
            return [
                rt.asdevicearray(
                    self._device,
                    np.zeros((num_pages, 2, manifest.page_tokens, layer.kv_heads, layer.head_dim), dtype),
                )
                for layer in manifest.layers
            ]
        except (RuntimeError, ValueError, MemoryError) as error:
            size = num_pages * manifest.page_bytes / 2**30
            raise CapacityError(
                f"the KV pool of {num_pages} pages ({size:.1f} GiB) does not fit the memory of {self.target_name}; "
                f"load with fewer pages ({error})"
            ) from error

    def call(
        self,
        name: str,
        tokens: np.ndarray,
        start: np.ndarray,
        num_valid: np.ndarray,
        table: np.ndarray,
        pools: Sequence[Any],
    ) -> tuple[Any, Any, list[Any]]:
        """Runs one entry point.

        Args:
            name: The entry point.
            tokens: `[batch, tokens]` int64.
            start: `[batch]` int64, position of the first token.
            num_valid: `[batch]` int64, how many tokens are real; 0 for an unused row.
            table: `[batch, pages]` int32.
            pools: The pools; updated in place, and not to be used again.

        Returns:
            Greedy tokens `[batch]` int64, or a `PackedTop` from a program that finds more than the largest logit, and
            logits `[batch, vocab]` f32, both still on the device and good until the next call, and the pools. If the
            program `is_queued` it may still be at work: what is read next waits for it.

        Raises:
            ArtifactError: If the device fails, or the program wants other arguments than the manifest says.
        """
        inputs = [tokens, start, num_valid, table]
        try:
            if self._transfers is None:
                greedy, logits, *new_pools = self._invokers[name](*inputs, *pools)
            else:
                greedy, logits, *new_pools = self._call_device(self._transfers, name, inputs, pools)
        except _DEVICE_ERRORS as error:
            raise ArtifactError(f"the program for {self.target_name} failed in {name}: {error}") from error
        count = self._num_top[name]
        return PackedTop(greedy, count, logits.shape[-1]) if count else greedy, logits, new_pools

    def _call_device(
        self, transfers: Transfers, name: str, inputs: Sequence[np.ndarray], pools: Sequence[Any]
    ) -> list[Any]:
        views = transfers.upload(inputs)
        if not self.is_queued:
            transfers.wait()
            return list(self._invokers[name](*(rt.DeviceArray(self._device, view) for view in views), *pools))
        views += [pool._buffer_view for pool in pools]
        results = transfers.call(self._context, self._functions[name], views)
        return [rt.DeviceArray(self._device, view) for view in results]

    def wait(self) -> None:
        """Waits for the last call, whose results nobody reads.

        Raises:
            ArtifactError: If the device fails.
        """
        try:
            if self._transfers is not None:
                self._transfers.wait()
        except _DEVICE_ERRORS as error:
            raise ArtifactError(f"the device of {self.target_name} failed: {error}") from error

    def read(self, array: Any) -> np.ndarray:
        """Copies a result to the host; waits for it. Of a `PackedTop` the greedy tokens.

        Raises:
            ArtifactError: If the device fails.
        """
        if isinstance(array, PackedTop):
            return greedy_tokens(self.read(array.array))
        try:
            if self._transfers is None:
                return np.asarray(array.to_host())
            return self._transfers.download(array)
        except _DEVICE_ERRORS as error:
            raise ArtifactError(f"the device of {self.target_name} failed: {error}") from error

    def read_rows(self, array: Any, rows: Sequence[int]) -> np.ndarray:
        """Brings some rows of a result to the host, `[len(rows), ...]`, at least one; waits for it. For reading only.

        Where the host sees the memory of the device (cpu), only these rows are touched. Elsewhere the bindings of
        iree-base-runtime 3.13.0 copy a buffer whole or not at all.

        Raises:
            ArtifactError: If the device fails.
        """
        whole = self.read(array)
        first, last = rows[0], rows[-1]
        is_range = list(rows) == list(range(first, last + 1))
        return whole[first : last + 1] if is_range else whole[list(rows)]


def cache_dtype(name: str) -> np.dtype[Any]:
    """The numpy type of a pool; fp8 numbers are bytes to a program, and zero is zero in both flavours."""
    if name == "fp8":
        return np.dtype(np.int8)
    if name == "bf16":
        from ml_dtypes import bfloat16

        narrow: np.dtype[Any] = np.dtype(bfloat16)
        return narrow
    return np.dtype(np.float16 if name == "f16" else np.float32)


def _map_program(instance: Any, path: Path) -> Any:
    # `VmModule.mmap` opens the file for writing too, and so refuses a bundle that may only be read.
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return rt.VmModule.wrap_buffer(instance, content, close_buffer=True)


def _device_uri(target: TargetEntry) -> str:
    """The driver, and which of several AMD GPUs: the first of the program's architecture."""
    driver = _DRIVERS[target.kind]
    gpus = detect_amd_gfx() if target.kind == "hip" else ()
    if target.gfx not in gpus or gpus.index(target.gfx) == 0:
        return driver
    return f"{driver}://{gpus.index(target.gfx)}"


def _open_device(target: TargetEntry) -> Any:
    if target.kind == "hip" and os.environ.get(HIP_DYLIB_VARIABLE):
        folder = Path(os.environ[HIP_DYLIB_VARIABLE])
        if not (folder / "libamdhip64.so").is_file():
            raise ArtifactError(f"{HIP_DYLIB_VARIABLE}={folder}: that folder has no libamdhip64.so")
        rt.flags.parse_flags(f"--hip_dylib_path={folder}")
    try:
        return rt.get_device(_device_uri(target))
    except (RuntimeError, ValueError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ArtifactError(f"the {target.kind} device cannot be opened: {first}") from error
