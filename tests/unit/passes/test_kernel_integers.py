"""Linear layers in integers (w8a8) as AMD machine code: rows rounded to int8, sums in i32.

Few rows are rounded by every tile of the layer's kernel, many by a kernel before it.
"""

from __future__ import annotations

import numpy as np
import pytest
from amdnfs_targets.quantized_layout import QuantizedLayout

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.cpu_programs import Array, assert_within, function, vt

pytestmark = [needs_emulator, pytest.mark.emulator]

LAYOUT = QuantizedLayout.parse("i8-channel-rows-f16-a8")
DEPTH, COLUMNS = 160, 40


def layer(rows: int, name: str, weight: int, bias: str, result: str) -> str:
    x, w, s = vt((rows, DEPTH), "f16"), vt((COLUMNS, DEPTH), "si8"), vt((COLUMNS, 1), "f16")
    b = "!torch.none" if bias == "%none" else vt((COLUMNS,), "f16")
    operands = f"%0, %{weight}, %{weight + 1}, %none, {bias}, %layout"
    return (
        f'%{name} = torch.operator "torch.amdnfs.quantized_linear"({operands})'
        f" : ({x}, {w}, {s}, !torch.none, {b}, !torch.str) -> {result}"
    )


def program(rows: int) -> str:
    """A layer with a bias, and a gate with its partner."""
    x, w, s, b = vt((rows, DEPTH), "f16"), vt((COLUMNS, DEPTH), "si8"), vt((COLUMNS, 1), "f16"), vt((COLUMNS,), "f16")
    y = vt((rows, COLUMNS), "f16")
    start = f'%none = torch.constant.none\n%layout = torch.constant.str "{LAYOUT.spelling}"\n'
    gate = "\n".join(
        [
            layer(rows, "gate", 1, "%none", y),
            layer(rows, "up", 3, "%none", y),
            f"%act = torch.aten.silu %gate : {y} -> {y}",
            f"%y0 = torch.aten.mul.Tensor %act, %up : {y}, {y} -> {y}",
        ]
    )
    plain = function("plain", [x, w, s, b], [y], start + layer(rows, "y0", 1, "%3", y))
    return plain + function("gated", [x, w, s, w, s], [y], start + gate)


def multiply(x: Array, weight: Array, scales: Array) -> tuple[Array, Array]:
    """The product in float64, and what elements halfway between two integers change if rounded the other way."""
    wide = x.astype(np.float32)
    largest = np.abs(wide).max(1, keepdims=True)
    exact = wide * (np.float32(127) / np.maximum(largest, np.float32(1e-30)))
    whole = np.rint(exact).astype(np.int64)
    is_halfway = np.abs(exact - whole) > 0.5 - 1e-4
    step = largest.astype(np.float64) / 127 * scales.astype(np.float64).T
    return whole @ weight.T.astype(np.int64) * step, is_halfway @ np.abs(weight.T.astype(np.int64)) * step


@pytest.mark.parametrize("rows", [20, 100])
@pytest.mark.parametrize("target", ["gfx90a", "gfx1151"])
def test_rows_are_rounded_and_sums_are_whole(rng: np.random.Generator, target: str, rows: int) -> None:
    module = EmulatedModule(program(rows), target, 4, ("dispatch-linear",))
    x = rng.normal(size=(rows, DEPTH)).astype(np.float16)
    x[3] = 0  # its scale would be a division by zero
    weights = rng.integers(-127, 128, (2, COLUMNS, DEPTH)).astype(np.int8)
    scales = rng.uniform(1, 2, (2, COLUMNS, 1)).astype(np.float16) / np.float16(1024)
    bias = rng.normal(size=COLUMNS).astype(np.float16)
    first, error = multiply(x, weights[0], scales[0])
    (got,) = module.call("plain", x, weights[0], scales[0], bias)
    wanted = first + bias.astype(np.float64)
    assert_within(got, wanted, error + 2.0**-10 * np.abs(wanted))
    # Rounding to integers is seen: a product of floats would be further away.
    floats = x.astype(np.float64) @ (weights[0] * scales[0].astype(np.float64)).T + bias.astype(np.float64)
    assert np.abs(got - floats).mean() > 4 * np.abs(got - wanted).mean()
    np.testing.assert_array_equal(got[3], bias)
    second, other = multiply(x, weights[1], scales[1])
    (got,) = module.call("gated", x, weights[0], scales[0], weights[1], scales[1])
    slope = 1.1  # the steepest slope of silu
    bound = slope * error * (np.abs(second) + other) + np.abs(first) * other
    wanted = first / (1 + np.exp(-first)) * second
    assert_within(got, wanted, bound + 2.0**-10 * np.abs(wanted) + 2.0**-20)
