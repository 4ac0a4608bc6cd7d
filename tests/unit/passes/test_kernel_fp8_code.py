"""Which instructions multiply where weights and activations are fp8 (w8a8-fp8): those of the matrix units for fp8."""

from __future__ import annotations

import re

import pytest
from amdnfs_passes.kernels import triton_stages
from amdnfs_passes.kernels.linear_kernels import LinearShape, build_linear
from amdnfs_passes.kernels.provider import KernelTarget, has_triton
from amdnfs_passes.kernels.triton_stages import KernelCode, KernelSource, run_stages
from amdnfs_targets.quantized_layout import QuantizedLayout
from amdnfs_targets.registry import TARGETS
from amdnfs_targets.target import TargetKind

pytestmark = pytest.mark.skipif(not has_triton(), reason="the compiler's extra amdnfs[triton] is not installed")

MATRIX = re.compile(r"^\s*(v_mfma_\w+|v_wmma_\w+|mma\.sync\S+|wgmma\.mma_async\S+)", re.MULTILINE)
"""Any matrix instruction."""


@pytest.mark.parametrize(
    ("target", "num_rows", "instruction"),
    [
        ("gfx942", 4, r"v_mfma_f32_16x16x32_fp8_fp8"),
        ("gfx950", 4, r"v_mfma_f32_16x16x128_f8f6f4"),
        ("gfx1200", 4, r"v_wmma_f32_16x16x16_fp8_fp8"),
        ("gfx1201", 512, r"v_wmma_f32_16x16x16_fp8_fp8"),
        ("cuda-sm_89", 4, r"mma\.sync\.aligned\.m16n8k32\.row\.col\.f32\.e4m3\.e4m3\.f32"),
        # Up to 32 rows Triton widens fp8 to f16 for sm_90, which loses nothing.
        ("cuda-sm_90", 64, r"wgmma\.mma_async\.sync\.aligned\.m64n\d+k32\.f32\.e4m3\.e4m3"),
    ],
)
def test_the_matrix_units_multiply_fp8(
    target: str, num_rows: int, instruction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[KernelCode] = []

    def spy(source: KernelSource, *how: object) -> KernelCode:
        made.append(run_stages(source, *how))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(triton_stages, "run_stages", spy)
    facts = TARGETS[target]
    shape = LinearShape(
        num_rows=num_rows,
        depth=768,
        columns=(520,),  # of no other test: what was compiled before would not be compiled again
        element="bf16",
        gate="",
        eps=None,
        gain_offset=0.0,
        has_bias=False,
        has_residual=False,
        layout=QuantizedLayout.parse(f"{facts.fp8_format}-channel-rows-bf16-af8"),
    )
    processor = KernelTarget(
        backend="hip" if facts.kind is TargetKind.HIP else "cuda",
        processor=target.removeprefix("cuda-"),
        wave_size=facts.wave_size or 0,
        lds_bytes=facts.lds_bytes or 0,
        num_compute_units=4,
    )
    build_linear(shape, processor)
    found = MATRIX.findall(made[-1].text)
    assert found
    assert all(re.fullmatch(instruction, name) for name in found), found
