"""Each workaround is needed (the compile fails without its flags) and enough (it passes with them).

The compiler runs in a process of its own, because one of the defects is a crash. When a newer IREE makes a
``test_compile_fails_...`` fail, the workaround or defect that it names can be removed from ``amdnfs_targets``.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from amdnfs_targets import TARGETS, ComputeDtype, SkinnyMatmulDefect, Target, get_target

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("iree") is None or importlib.util.find_spec("iree.compiler") is None,
    reason="iree-base-compiler is not installed",
)

WITH_WORKAROUND = [name for name, target in TARGETS.items() if target.workarounds]
WITH_DEFECT = [name for name, target in TARGETS.items() if target.skinny_matmul_defect]
K = 128
WIDE_N = 96


def matmul(m: int, dtype: str, n: int = WIDE_N) -> str:
    return f"""
func.func @f(%a: tensor<{m}x{K}x{dtype}>, %b: tensor<{K}x{n}x{dtype}>) -> tensor<{m}x{n}xf32> {{
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<{m}x{n}xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<{m}x{n}xf32>) -> tensor<{m}x{n}xf32>
  %out = linalg.matmul ins(%a, %b : tensor<{m}x{K}x{dtype}>, tensor<{K}x{n}x{dtype}>)
                       outs(%init : tensor<{m}x{n}xf32>) -> tensor<{m}x{n}xf32>
  return %out : tensor<{m}x{n}xf32>
}}
"""


def padded_matmul(m: int, pad_m: int, dtype: str, barrier: bool) -> str:
    wide = f"tensor<{pad_m}x{WIDE_N}xf32>"
    out = f"util.optimization_barrier %product : {wide}" if barrier else f"tensor.cast %product : {wide} to {wide}"
    return f"""
func.func @f(%a: tensor<{m}x{K}x{dtype}>, %b: tensor<{K}x{WIDE_N}x{dtype}>) -> tensor<{m}x{WIDE_N}xf32> {{
  %zero = arith.constant 0.0 : f32
  %fill = arith.constant 0.0 : {dtype}
  %padded = tensor.pad %a low[0, 0] high[{pad_m - m}, 0] {{
  ^bb0(%i: index, %j: index):
    tensor.yield %fill : {dtype}
  }} : tensor<{m}x{K}x{dtype}> to tensor<{pad_m}x{K}x{dtype}>
  %empty = tensor.empty() : {wide}
  %init = linalg.fill ins(%zero : f32) outs(%empty : {wide}) -> {wide}
  %product = linalg.matmul ins(%padded, %b : tensor<{pad_m}x{K}x{dtype}>, tensor<{K}x{WIDE_N}x{dtype}>)
                           outs(%init : {wide}) -> {wide}
  %wide = {out}
  %slice = tensor.extract_slice %wide[0, 0] [{m}, {WIDE_N}] [1, 1] : {wide} to tensor<{m}x{WIDE_N}xf32>
  return %slice : tensor<{m}x{WIDE_N}xf32>
}}
"""


def compiles(module: str, flags: tuple[str, ...], folder: Path) -> bool:
    source = folder / "f.mlir"
    source.write_text(module)
    command = [sys.executable, "-m", "iree.compiler.tools.scripts.iree_compile", str(source), "-o", "/dev/null"]
    command.append("--iree-opt-level=O2")
    return subprocess.run([*command, *flags], capture_output=True, cwd=folder, check=False).returncode == 0


def defect_of(target: Target) -> SkinnyMatmulDefect:
    assert target.skinny_matmul_defect is not None
    return target.skinny_matmul_defect


def all_flags(target: Target) -> tuple[str, ...]:
    return target.compile_flags + target.fallback_flags


@pytest.mark.parametrize("name", WITH_WORKAROUND)
def test_compile_fails_without_the_flags(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    assert not compiles(matmul(8, "f16"), target.iree_flags, tmp_path), (
        f"{name} compiles without {', '.join(item.name for item in target.workarounds)}: the workaround can go"
    )


@pytest.mark.parametrize("name", WITH_WORKAROUND)
def test_compile_passes_with_the_flags(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    for dtype in defect_of(target).dtypes:
        assert compiles(matmul(8, dtype), all_flags(target), tmp_path), dtype


@pytest.mark.parametrize("name", WITH_DEFECT)
def test_defect_begins_and_ends_where_stated(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    defect = defect_of(target)
    shapes = [
        *((defect.m_begin - 1, WIDE_N), (defect.m_begin, WIDE_N), (defect.m_end - 1, WIDE_N), (defect.m_end, WIDE_N)),
        *((defect.narrow_m_begin - 1, defect.narrow_n_max), (defect.narrow_m_begin, defect.narrow_n_max)),
        (defect.narrow_m_begin, defect.narrow_n_max + 1),
    ]
    dtype = defect.dtypes[-1]
    failing = [(m, n) for m, n in shapes if not compiles(matmul(m, dtype, n), target.iree_flags, tmp_path)]
    stated = [(m, n) for m, n in shapes if defect.applies_to(dtype=dtype, m=m, n=n, k=K)]
    assert failing == stated, f"update skinny_matmul_defect of {name}"


def test_other_dtypes_are_free_of_the_defect(tmp_path: Path) -> None:
    assert defect_of(get_target("gfx90a")).dtypes == (ComputeDtype.F16,)
    assert compiles(matmul(8, "bf16"), get_target("gfx90a").iree_flags, tmp_path)


@pytest.mark.parametrize("name", WITH_DEFECT)
def test_padding_behind_a_barrier_avoids_the_defect(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    pad_m = defect_of(target).pad_m
    assert compiles(padded_matmul(8, pad_m, "f16", barrier=True), target.iree_flags, tmp_path)
    assert not compiles(padded_matmul(8, pad_m, "f16", barrier=False), target.iree_flags, tmp_path), (
        f"{name}: IREE no longer folds the padding away, so the barrier can go"
    )
