"""Compiles our Triton kernels for a target and picks, of the ways to run one, the first that keeps in the registers.

Triton is an extra of the compiler and never needed at run time: what comes out is a code object. It needs no GPU.
The choice of a `Tiling` is made by evidence: candidates are compiled in the order given and the first one without
spilled registers, without scratch memory and within the target's shared memory is taken; what was measured goes into
the artifact's facts.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from amdnfs_passes.kernels.code_object import KernelFacts, read_amd_facts, set_lds_bytes, use_older_ptx

TRITON_VERSION = "3.9.0"
"""The release that is measured; part of every compile key."""

_ALIGNED = [["tt.divisibility", 16]]


class KernelError(Exception):
    """No candidate of a kernel compiles for a target; the message says what each one met."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTarget:
    """What Triton needs to know of a target."""

    backend: str
    """`hip` or `cuda`."""
    processor: str
    """LLVM processor (`gfx942`) or compute capability (`sm_80`)."""
    wave_size: int
    """Lanes of a wave."""
    lds_bytes: int
    """Largest shared memory of a workgroup, in bytes."""
    num_compute_units: int
    """Compute units to fill; used for the number of splits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """One way to run a kernel."""

    sizes: tuple[tuple[str, int], ...]
    """Compile-time sizes by name, e.g. `(("ROWS", 16), ("KEYS", 64))`."""
    num_waves: int
    """Waves of a workgroup."""
    num_stages: int
    """Depth of the software pipeline; 1 is none."""

    def describe(self) -> str:
        """One word for facts and messages, e.g. `ROWS=16,KEYS=64,waves=4,stages=2`."""
        parts = [f"{name}={size}" for name, size in self.sizes]
        return ",".join([*parts, f"waves={self.num_waves}", f"stages={self.num_stages}"])


@dataclass(frozen=True, kw_only=True, slots=True)
class CompiledKernel:
    """A kernel as a code object, and how to launch it."""

    entry: str
    """Symbol of the kernel in the code object."""
    code: bytes
    """An AMD code object, or PTX text."""
    threads: int
    """Threads of a workgroup."""
    dynamic_lds_bytes: int
    """Shared memory that the launch must ask for, in bytes; 0 where the code object says it itself."""
    tiling: Tiling
    """The candidate that was taken."""
    facts: KernelFacts
    """Counted from its code."""


def has_triton() -> bool:
    """Whether the Triton release that we measured can be imported."""
    if importlib.util.find_spec("triton") is None:
        return False
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("triton") == TRITON_VERSION
    except PackageNotFoundError:
        return False


def compile_kernel(
    kernel: str,
    target: KernelTarget,
    arguments: Mapping[str, str],
    constants: Mapping[str, Any],
    candidates: Sequence[Tiling],
) -> CompiledKernel:
    """Compiles `kernel` for `target` with the first of `candidates` that keeps in registers and shared memory.

    Args:
        kernel: Name of a kernel of this package: its file and its function.
        target: What to compile for.
        arguments: Types of the run-time arguments in order, as Triton writes them (`*fp16`, `i32`). Pointers are
            taken to be aligned to 16 bytes; pointers of the kernel that are not here are None in it.
        constants: Values of the compile-time arguments that do not depend on the tiling.
        candidates: Ways to run it, best first.

    Raises:
        KernelError: If no candidate does.
    """
    met = []
    for tiling in candidates:
        made = _compile_one(
            kernel,
            target,
            tuple(arguments.items()),
            tuple(sorted({**constants, **dict(tiling.sizes)}.items())),
            tiling,
        )
        if isinstance(made, CompiledKernel):
            return made
        met.append(f"{tiling.describe()}: {made}")
    raise KernelError(f"kernel {kernel} for {target.processor}: no tiling fits; {'; '.join(met)}")


@lru_cache(maxsize=512)
def _compile_one(
    kernel: str,
    target: KernelTarget,
    arguments: tuple[tuple[str, str], ...],
    constants: tuple[tuple[str, Any], ...],
    tiling: Tiling,
) -> CompiledKernel | str:
    """The kernel with one tiling, or why that does not do."""
    from amdnfs_passes.kernels.triton_stages import KernelSource, run_stages

    source = KernelSource(name=kernel, arguments=dict(arguments), constants=dict(constants))
    try:
        made = run_stages(
            source, target.backend, target.processor, target.wave_size, tiling.num_waves, tiling.num_stages
        )
    except Exception as error:  # Triton raises whatever its passes raise; the next candidate may do
        return f"{type(error).__name__}: {_shorten(str(error))}"
    is_amd = target.backend == "hip"
    facts = read_amd_facts(made.text, made.lds_bytes) if is_amd else KernelFacts.of_ptx(made.text, made.lds_bytes)
    if facts.num_spills or facts.scratch_bytes:
        return f"{facts.num_spills} spilled registers, {facts.scratch_bytes} bytes of scratch memory"
    if facts.lds_bytes > target.lds_bytes:
        return f"{facts.lds_bytes} bytes of shared memory"
    return CompiledKernel(
        entry=made.entry,
        code=set_lds_bytes(made.code, made.lds_bytes) if is_amd else use_older_ptx(made.text).encode(),
        threads=tiling.num_waves * target.wave_size,
        dynamic_lds_bytes=0 if is_amd else made.lds_bytes,
        tiling=tiling,
        facts=facts,
    )


def _shorten(message: str) -> str:
    r"""The first line of a message of Triton; where that is only a place in a source, the last one, too.

    >>> _shorten("at 23:36:\n  x = f(y)\n      ^\ny must be a power of two\n")
    'at 23:36: y must be a power of two'
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    return (f"{lines[0]} {lines[-1]}" if lines[0].endswith(":") and len(lines) > 1 else lines[0])[:200]


def element_name(element: str) -> str:
    """Triton's name of an MLIR element type.

    >>> element_name("f16"), element_name("bf16"), element_name("i64")
    ('fp16', 'bf16', 'i64')
    """
    return re.sub(r"^f(\d+)$", r"fp\1", element)
