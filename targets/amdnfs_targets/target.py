"""What a compile target is: the capabilities that passes ask for and the flags that IREE needs.

This file holds no values. The values are in ``cdna.py``, ``rdna.py``, ``host.py``, ``cuda.py`` and ``vulkan.py``;
names other than the canonical one are in ``aliases.py``. Standard library only, because the serving runtime imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class TargetKind(StrEnum):
    """Which IREE device a target's programs run on."""

    HIP = "hip"
    CPU = "cpu"
    CUDA = "cuda"
    VULKAN = "vulkan"


class Fp8Format(StrEnum):
    """The 8-bit float with 3 mantissa bits that the matrix units read, under its MLIR type name."""

    E4M3FNUZ = "f8E4M3FNUZ"
    """No infinities, no negative zero, largest value 240. CDNA3."""

    E4M3FN = "f8E4M3FN"
    """The OCP format: no infinities, largest value 448. CDNA4, RDNA4, NVIDIA sm_89."""


class ComputeDtype(StrEnum):
    """A float type of activations and weights, under its MLIR type name."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


class WorkaroundScope(StrEnum):
    """When the flags of a workaround are given to the compiler."""

    ALWAYS = "always"
    """In every compile: the flags cost little."""

    ON_FAILURE = "on-failure"
    """Only in a second attempt after a failed compile: the flags cost speed or break other programs."""


class UnsupportedTargetError(ValueError):
    """A known target for which the pinned IREE cannot make programs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MatrixOp:
    """One matrix instruction: ``c[m, n] += a[m, k] * b[k, n]`` by one wave.

    >>> MatrixOp(name="wmma_f32_16x16x16_f16", iree_intrinsic="WMMAR3_F32_16x16x16_F16",
    ...          m=16, n=16, k=16, a_type="f16", b_type="f16", c_type="f32").num_flops
    8192
    """

    name: str
    """Lower-case name, ``<unit>_<c type>_<m>x<n>x<k>_<a type>``, for example ``mfma_f32_16x16x16_f16``."""

    iree_intrinsic: str
    """The enumerator of IREE's ``#iree_gpu.mma_layout`` for it, for example ``MFMA_F32_16x16x16_F16``."""

    m: int
    """Rows of the result, at least 1."""

    n: int
    """Columns of the result, at least 1."""

    k: int
    """Length of the reduction, at least 1."""

    a_type: str
    """MLIR element type of the left operand; ``i8`` is signed."""

    b_type: str
    """MLIR element type of the right operand."""

    c_type: str
    """MLIR element type of the accumulator."""

    def __post_init__(self) -> None:
        """Refuse an empty shape."""
        if min(self.m, self.n, self.k) < 1:
            raise ValueError(f"MatrixOp {self.name}: m, n, k must be at least 1, got {self.m}, {self.n}, {self.k}")

    @property
    def num_flops(self) -> int:
        """Multiplications and additions of one instruction, counted separately."""
        return 2 * self.m * self.n * self.k


@dataclass(frozen=True, kw_only=True, slots=True)
class SkinnyMatmulDefect:
    """Static matmul shapes that crash the compiler unless a pass or a workaround steps in.

    The defect is met by a contraction whose element type is in ``dtypes`` and whose K is a multiple of ``k_multiple``,
    with these static sizes::

        N                     M
        above narrow_n_max    m_begin        <= M < m_end
        up to narrow_n_max    narrow_m_begin <= M < m_end

    A pass avoids it, and keeps the matrix units, by padding M to ``pad_m`` with ``tensor.pad``, and by putting a
    ``util.optimization_barrier`` between the wide result and the slice that cuts it back: without the barrier IREE
    (at ``--iree-opt-level=O2``) folds the padding away and fails as before.
    """

    dtypes: tuple[ComputeDtype, ...]
    """Element types of the operands that meet the defect."""

    m_begin: int
    """Smallest static M (product of all M dimensions) that fails."""

    m_end: int
    """First static M above it that compiles again."""

    narrow_m_begin: int
    """Smallest static M that fails in a contraction of one M, N and K dimension whose N is narrow."""

    narrow_n_max: int
    """Largest N that is narrow: the wave size, above which IREE treats ``2 <= M <= 4`` like a matvec."""

    k_multiple: int
    """K (product of all K dimensions) must be a multiple of this for the failure to show."""

    pad_m: int
    """M that such a matmul is to be padded to."""

    def applies_to(self, *, dtype: str, m: int, n: int, k: int) -> bool:
        """Whether a static ``[m, k] x [k, n]`` matmul of that element type meets the defect."""
        m_begin = self.narrow_m_begin if n <= self.narrow_n_max else self.m_begin
        return dtype in self.dtypes and m_begin <= m < self.m_end and k % self.k_multiple == 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Workaround:
    """Compiler flags that a defect of IREE makes necessary, and how to know when they can go."""

    name: str
    """Short name in kebab case."""

    iree_versions: tuple[str, ...]
    """IREE releases that were measured to need it. Never a guess about others."""

    flags: tuple[str, ...]
    """Flags for ``iree-compile``."""

    scope: WorkaroundScope
    """Whether the flags are always given, or only after a failure."""

    reason: str
    """What fails without the flags, and what the flags cost, as measured."""

    test: str
    """The test (pytest id) that fails as soon as the workaround can go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """What one program is compiled for: a gfx, ``cpu``, ``cuda-sm_XX`` or ``vulkan``.

    Passes ask for capabilities; they never compare names.
    """

    name: str
    """Canonical name: lower case, unique, the folder name under ``artifacts/`` in a bundle."""

    kind: TargetKind
    """The IREE device that runs it."""

    architecture: str
    """Family of the chip: ``cdna3``, ``rdna3.5``, ``ampere``, ``x86-64-v3``, ..."""

    gfx: str | None = None
    """LLVM processor name, for example ``gfx942``. Set for HIP targets only."""

    wave_size: int | None = None
    """Lanes of a wave as IREE compiles it. None: no waves (CPU), or known only at load time (Vulkan)."""

    lds_bytes: int | None = None
    """Largest shared memory of one workgroup in bytes. None where the notion does not apply."""

    num_compute_units: int | None = None
    """Compute units of the largest device with this name (one GCD of an MI250X): for choosing tile counts only.

    The device at hand may have fewer. None where no figure would mean anything.
    """

    matrix_ops: tuple[MatrixOp, ...] = ()
    """Dense matrix instructions that IREE can emit, operands of one type, in IREE's order of preference.

    Left out: f64, block (``4x4x4x16B``), scaled (``mfma_scale``), 5-exponent-bit fp8. Empty: no matrix units.
    """

    fp8_format: Fp8Format | None = None
    """The fp8 that the matrix units read. None: fp8 weights are only storage."""

    dtypes: tuple[ComputeDtype, ...] = (ComputeDtype.F32,)
    """Float types computed by the hardware. Others may compile, but through emulation: slow, at times very slow."""

    iree_flags: tuple[str, ...]
    """What tells ``iree-compile`` of the pinned release about this target, without any workaround."""

    workarounds: tuple[Workaround, ...] = ()
    """Known defects of the pinned IREE on this target."""

    skinny_matmul_defect: SkinnyMatmulDefect | None = None
    """Static shapes that a pass must keep away from the compiler. None: no such shapes are known."""

    products: tuple[str, ...] = ()
    """Products with this target, as people write them. Not complete."""

    sources: tuple[str, ...]
    """Where the figures above come from."""

    unsupported: str | None = None
    """Why the pinned IREE cannot compile for it, in one sentence. None: it can."""

    def __post_init__(self) -> None:
        """Check what other parts rely on."""
        if not self.name or self.name != self.name.lower():
            raise ValueError(f"Target name {self.name!r}: must be lower case and not empty")
        if (self.kind is TargetKind.HIP) != (self.gfx is not None):
            raise ValueError(f"Target {self.name}: gfx is {self.gfx!r}, but is set for kind 'hip' and for no other")
        if not self.sources:
            raise ValueError(f"Target {self.name}: sources must name where the figures come from")

    @property
    def compile_flags(self) -> tuple[str, ...]:
        """Flags of a first compile: the target's own and those of its ``ALWAYS`` workarounds."""
        return self.iree_flags + self._workaround_flags(WorkaroundScope.ALWAYS)

    @property
    def fallback_flags(self) -> tuple[str, ...]:
        """Further flags worth a second compile when the first one failed. Empty: nothing known would help."""
        return self._workaround_flags(WorkaroundScope.ON_FAILURE)

    def matrix_ops_for(self, a_type: str) -> tuple[MatrixOp, ...]:
        """The matrix instructions whose operands have this MLIR element type, best first."""
        return tuple(op for op in self.matrix_ops if op.a_type == a_type)

    def _workaround_flags(self, scope: WorkaroundScope) -> tuple[str, ...]:
        return tuple(flag for item in self.workarounds if item.scope is scope for flag in item.flags)


def require_supported(target: Target) -> Target:
    """Return the target if the pinned IREE can compile for it.

    Raises:
        UnsupportedTargetError: The target is known, but cannot be compiled for; the message says why.
    """
    if target.unsupported is not None:
        raise UnsupportedTargetError(f"cannot compile for {target.name}: {target.unsupported}")
    return target
