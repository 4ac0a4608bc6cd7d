from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from amdnfs_targets import (
    TARGETS,
    ComputeDtype,
    Fp8Format,
    MatrixOp,
    SkinnyMatmulDefect,
    Target,
    TargetKind,
    UnsupportedTargetError,
    Workaround,
    WorkaroundScope,
    get_target,
    require_supported,
)


def make_workaround(flag: str, scope: WorkaroundScope) -> Workaround:
    return Workaround(name=flag, iree_versions=("3.13.0",), flags=(flag,), scope=scope, reason="r", test="t")


def test_targets_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        get_target("cpu").name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("name", ["", "GFX942"])
def test_name_must_be_lower_case(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower case and not empty"):
        replace(get_target("gfx942"), name=name)


@pytest.mark.parametrize(("name", "gfx"), [("cpu", "gfx942"), ("gfx942", None)])
def test_gfx_belongs_to_hip_targets(name: str, gfx: str | None) -> None:
    with pytest.raises(ValueError, match=r"gfx is .*, but is set for kind 'hip' and for no other"):
        replace(get_target(name), gfx=gfx)


def test_figures_need_a_source() -> None:
    with pytest.raises(ValueError, match="sources must name where the figures come from"):
        replace(get_target("cpu"), sources=())


def test_matrix_op_needs_a_shape() -> None:
    op = get_target("gfx942").matrix_ops[0]
    with pytest.raises(ValueError, match="m, n, k must be at least 1, got 16, 0, 16"):
        replace(op, n=0)


def test_workaround_flags_follow_their_scope() -> None:
    base = get_target("gfx942")
    target = replace(
        base,
        workarounds=(
            make_workaround("--a", WorkaroundScope.ALWAYS),
            make_workaround("--b", WorkaroundScope.ON_FAILURE),
            make_workaround("--c", WorkaroundScope.ALWAYS),
        ),
    )
    assert target.compile_flags == (*base.iree_flags, "--a", "--c")
    assert target.fallback_flags == ("--b",)
    assert base.compile_flags == base.iree_flags
    assert base.fallback_flags == ()


def test_require_supported_returns_the_target_or_says_why_not() -> None:
    target = get_target("gfx942")
    assert require_supported(target) is target
    refused = replace(target, unsupported="IREE 3.13.0 does not know it.")
    with pytest.raises(UnsupportedTargetError, match=r"cannot compile for gfx942: IREE 3\.13\.0 does not know it\."):
        require_supported(refused)


def test_matrix_ops_are_found_by_operand_type() -> None:
    assert [op.name for op in get_target("gfx942").matrix_ops_for("f16")] == [
        "mfma_f32_16x16x16_f16",
        "mfma_f32_32x32x8_f16",
    ]
    assert get_target("gfx1030").matrix_ops_for("f16") == ()
    assert [op.k for op in get_target("gfx950").matrix_ops_for("f16")] == [32, 16, 16, 8]


@pytest.mark.parametrize(
    ("dtype", "m", "n", "k", "expected"),
    [
        *(("f16", 5, 512, 128, True), ("f16", 8, 512, 4096, True), ("f16", 4, 65, 128, False)),
        *(("f16", 4, 64, 128, True), ("f16", 1, 64, 128, False), ("f16", 9, 512, 128, False)),
        *(("f16", 8, 512, 320, False), ("f32", 8, 512, 128, False), ("bf16", 8, 512, 128, False)),
    ],
)
def test_skinny_matmul_defect_applies_to(dtype: str, m: int, n: int, k: int, expected: bool) -> None:
    defect = get_target("gfx90a").skinny_matmul_defect
    assert defect is not None
    assert defect.applies_to(dtype=dtype, m=m, n=n, k=k) is expected


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_values_agree_with_each_other(target: Target) -> None:
    assert target.iree_flags
    assert target.products
    assert ComputeDtype.F32 in target.dtypes
    names = [op.name for op in target.matrix_ops]
    assert len(names) == len(set(names))
    fp8_types = {op.a_type for op in target.matrix_ops if op.a_type.startswith("f8")}
    assert fp8_types <= {target.fp8_format}
    assert fp8_types or not target.fp8_format or target.name == "cuda-sm_90", "IREE compiles for sm_80 there"
    for op in target.matrix_ops:
        assert op.name == f"{op.name.split('_' + op.c_type)[0]}_{op.c_type}_{op.m}x{op.n}x{op.k}_{op.a_type.lower()}"
        assert op.a_type == op.b_type
    if target.kind is TargetKind.HIP:
        assert target.gfx == target.name
        assert target.wave_size in (32, 64)
        assert any(target.name in flag for flag in target.iree_flags)


@pytest.mark.parametrize(
    ("name", "fp8"),
    [
        *(("gfx90a", None), ("gfx942", Fp8Format.E4M3FNUZ), ("gfx950", Fp8Format.E4M3FN)),
        *(("gfx1030", None), ("gfx1100", None), ("gfx1151", None), ("gfx1200", Fp8Format.E4M3FN)),
        *(("cuda-sm_86", None), ("cuda-sm_89", Fp8Format.E4M3FN), ("cuda-sm_90", Fp8Format.E4M3FN)),
    ],
)
def test_fp8_format_is_that_of_the_family(name: str, fp8: Fp8Format | None) -> None:
    assert get_target(name).fp8_format == fp8


@pytest.mark.parametrize("kind", [Target, MatrixOp, Workaround, SkinnyMatmulDefect])
def test_every_field_is_documented(kind: type) -> None:
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    documented = {
        field.target.id
        for field, text in zip(body.body, body.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }
    assert documented == {field.name for field in fields(kind)}
