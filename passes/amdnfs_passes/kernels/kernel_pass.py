"""What passes have in common that dispatch to kernels compiled for a target."""

from __future__ import annotations

from dataclasses import dataclass

from amdnfs_passes.base import ModulePass, Refusal
from amdnfs_passes.ir import Operation
from amdnfs_passes.kernels.provider import KernelTarget, has_triton


@dataclass(frozen=True, kw_only=True)
class KernelPass(ModulePass):
    """A pass whose options name the target of its kernels."""

    backend: str = "hip"
    """`hip` or `cuda`."""
    processor: str = "gfx942"
    """LLVM processor or compute capability."""
    wave_size: int = 64
    """Lanes of a wave."""
    lds_bytes: int = 65536
    """Largest shared memory of a workgroup, in bytes."""
    num_compute_units: int = 304
    """Compute units to fill."""

    @property
    def kernel_target(self) -> KernelTarget:
        """The target, as the kernels' builders take it."""
        return KernelTarget(
            backend=self.backend,
            processor=self.processor,
            wave_size=self.wave_size,
            lds_bytes=self.lds_bytes,
            num_compute_units=self.num_compute_units,
        )

    def can_compile(self, refusals: list[Refusal], op: Operation) -> bool:
        """Whether kernels can be compiled here; if not, says so for `op`."""
        if has_triton():
            return True
        self.refuse(refusals, op, "the compiler's extra amdnfs[triton] is not installed")
        return False
