"""Linear layers written in vectors, the CPU's form: every float type, 8 and 16 lanes, and products of pairs of bf16."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from amdnfs_targets.detect import cpu_features

from tests.unit.passes.cpu_programs import SUM, Array, assert_within, build, call, function
from tests.unit.passes.test_quantized_values import Case, store
from tests.unit.passes.test_values import Linear

PASSES = ("lower-quantized-linear", "lower-linear")
FORMS = {
    "vectors16": "{vector-lanes=16 vector-registers=32}",
    "vectors8": "{vector-lanes=8 vector-registers=16}",
    "pairs": "{vector-lanes=16 vector-registers=32 bf16-pairs=true}",
}
ROUND = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
TINY = {"f32": 0.0, "f16": 2.0**-25, "bf16": 0.0}
LINEARS = [
    Linear(op="linear", rows=(1, 1), depth=256, columns=96, element="bf16"),
    Linear(op="linear", rows=(1, 1), depth=320, columns=70, element="f32", bias=(70,)),
    Linear(op="linear", rows=(1, 5), depth=64, columns=24, element="bf16", bias=(24,)),
    Linear(op="linear", rows=(8,), depth=96, columns=128, element="bf16"),
    Linear(op="linear", rows=(2, 1, 3), depth=33, columns=7, element="f32", bias=(7,)),
    Linear(op="linear", rows=(3,), depth=300, columns=16, element="f16", bias=(16,)),
    Linear(op="linear", rows=(2, 35), depth=128, columns=192, element="bf16"),
    Linear(op="linear", rows=(67,), depth=64, columns=50, element="f16"),
    Linear(op="linear", rows=(64,), depth=172, columns=32, element="f32"),
]
QUANTIZED = [
    Case(spelling="i8-channel-rows-f32", rows=(1, 1), depth=384, columns=70, element="bf16", has_bias=True),
    Case(spelling="i8-channel-zp-rows-f32", rows=(5,), depth=96, columns=64, element="bf16"),
    Case(spelling="i8-g32-rows-f32", rows=(11,), depth=256, columns=24, element="bf16"),
    Case(spelling="i8-g128-zp-rows-f32", rows=(1, 1), depth=256, columns=24, element="bf16"),
    Case(spelling="i4-g32-zp-rows-f32", rows=(9,), depth=128, columns=32, element="bf16", has_bias=True),
    Case(spelling="i4-g128-rows-f32", rows=(1, 1), depth=384, columns=5, element="bf16"),
    Case(spelling="i4-g64-zp-rows-f32", rows=(1, 1), depth=256, columns=70, element="bf16", has_bias=True),
    Case(spelling="i4-g128-rows-f32", rows=(8,), depth=256, columns=24, element="bf16"),
    Case(spelling="i4-g64-zp-rows-f32", rows=(37,), depth=128, columns=64, element="bf16"),
    Case(spelling="i4-channel-rows-f32", rows=(5,), depth=192, columns=9, element="bf16"),
    Case(spelling="i4-channel-rows-f32", rows=(3,), depth=22, columns=6, element="bf16"),
    Case(spelling="f8E4M3FN-channel-rows-f32", rows=(2,), depth=64, columns=8, element="bf16"),
]


def in_f32(text: str) -> str:
    """`text`, and a function that takes and gives f32 for it: numpy has no bf16."""
    head = text.splitlines()[0]
    name, kinds, result = re.search(r"@(\S+?)\((.*)\) -> \((.*)\) \{", head).groups()  # type: ignore[union-attr]
    given = re.findall(r"%\d+: (.*?>)", kinds)
    tail = "!torch.int, !torch.bool, !torch.bool, !torch.none"
    lines = ["%none = torch.constant.none", "%no = torch.constant.bool false", "%single = torch.constant.int 6"]
    lines.append(f"%own = torch.constant.int {15 if 'bf16' in head else 5}")
    names = []
    for index, kind in enumerate(given):
        is_narrow = kind.endswith("f16>") and (result.endswith("bf16>") <= kind.endswith("bf16>"))
        names.append(f"%n{index}" if is_narrow else f"%{index}")
        if is_narrow:
            wide = re.sub("b?f16", "f32", kind)
            lines.append(f"%n{index} = torch.aten.to.dtype %{index}, %own, %no, %no, %none : {wide}, {tail} -> {kind}")
    lines.append(f"%y = func.call @{name}({', '.join(names)}) : ({', '.join(given)}) -> {result}")
    wide = re.sub("b?f16", "f32", result)
    lines.append(f"%y0 = torch.aten.to.dtype %y, %single, %no, %no, %none : {result}, {tail} -> {wide}")
    outer = [re.sub("b?f16", "f32", kind) for kind in given]
    return text.replace("func.func @", "func.func private @", 1) + function(
        f"f32_{name}", outer, [wide], "\n".join(lines)
    )


def representable(rng: np.random.Generator, shape: tuple[int, ...], element: str) -> Array:
    """Random f32 that `element` holds exactly."""
    values = rng.uniform(-2, 2, shape).astype(np.float32)
    if element == "f16":
        return values.astype(np.float16).astype(np.float32)
    if element == "bf16":
        return (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    return values


@pytest.fixture(scope="module", params=FORMS)
def module(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "pairs" and "avx512_bf16" not in cpu_features():
        pytest.skip("this processor has no AVX512-BF16")
    if "avx512f" not in cpu_features() and request.param == "vectors16":
        pytest.skip("this processor has no AVX-512")
    text = "".join(in_f32(case.text()) for case in (*LINEARS, *QUANTIZED))
    passes = ",".join(name + FORMS[request.param] for name in PASSES)
    return build(tmp_path_factory.mktemp(request.param), text, passes)


@pytest.mark.parametrize("case", LINEARS, ids=lambda case: f"{case.name}_{case.depth}")
def test_linear(module: Any, rng: np.random.Generator, case: Linear) -> None:
    x = representable(rng, (*case.rows, case.depth), case.element)
    w = representable(rng, case.weight_shape, case.element)
    bias = [] if case.bias is None else [representable(rng, case.bias, case.element)]
    got = call(module, f"f32_{case.name}", x, w, *bias)
    check(got, x, w.astype(np.float64), bias, case.element)


@pytest.mark.parametrize("case", QUANTIZED, ids=lambda case: case.name)
def test_quantized_linear(module: Any, rng: np.random.Generator, case: Case) -> None:
    stored = store(rng, case)
    x = representable(rng, (*case.rows, case.depth), case.element)
    bias = [representable(rng, (case.columns,), case.element)] if case.has_bias else []
    check(call(module, f"f32_{case.name}", x, *stored.operands, *bias), x, stored.weight, bias, case.element)


def test_words_keep_what_is_small(module: Any, rng: np.random.Generator) -> None:
    """Rows in int16: exact down to 1/128 of the power of two below a group's largest, else wrong by half a unit."""
    case = next(case for case in QUANTIZED if case.spelling == "i8-g32-rows-f32")
    stored = store(rng, case)
    x = representable(rng, (*case.rows, case.depth), "bf16")
    x *= np.exp2(-rng.integers(0, 24, case.depth)).astype(np.float32)
    x[0], x[1, :32] = 0, 2.0**-120
    groups = np.abs(x).reshape(*case.rows, -1, 32)
    power = np.exp2(np.floor(np.log2(np.maximum(groups.max(-1, keepdims=True), 2.0**-100))))
    half_unit = np.where(groups < power / 128, power * 2.0**-15, 0).reshape(x.shape)
    check(call(module, f"f32_{case.name}", x, *stored.operands), x, stored.weight, [], "bf16", half_unit)


def test_words_pass_on_what_is_no_number(module: Any, rng: np.random.Generator) -> None:
    case = next(case for case in QUANTIZED if case.spelling == "i8-g32-rows-f32")
    stored, x = store(rng, case), representable(rng, (*case.rows, case.depth), "bf16")
    x[2, 40], x[5, 0] = np.nan, np.inf
    got = call(module, f"f32_{case.name}", x, *stored.operands)
    assert not np.isfinite(got[[2, 5]]).any()
    assert np.isfinite(np.delete(got, [2, 5], 0)).all()


def check(got: Array, x: Array, weight: Array, bias: list[Array], element: str, wrong: Array | float = 0.0) -> None:
    """Compares with float64: products are summed in f32, then the sum is rounded once; `x` may be `wrong` by that."""
    x64, b64 = x.astype(np.float64), (bias[0] if bias else np.zeros(1)).astype(np.float64)
    wanted, sizes = x64 @ weight.T + b64, np.abs(x64) @ np.abs(weight.T) + np.abs(b64)
    bound = (x.shape[-1] + 4) * SUM * sizes + ROUND[element] * np.abs(wanted) + TINY[element]
    assert_within(got, wanted, bound + (np.zeros_like(x64) + wrong) @ np.abs(weight.T) * (1 + ROUND[element]))
