"""Linear layers in fp8 (w8a8-fp8) as AMD machine code: rows rounded to fp8, fp8 x fp8 on matrix units.

Few rows are rounded by every tile of the layer's kernel, many by a kernel before it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import ml_dtypes
import numpy as np
import pytest
from amdnfs_targets.registry import TARGETS

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.cpu_programs import SUM, Array, assert_within, function, vt
from tests.unit.passes.linear_cases import EPS, norm_text

pytestmark = [needs_emulator, pytest.mark.emulator]

DEPTH, COLUMNS = 160, 40
ROWS = (20, 100)
FORMATS = {"f8E4M3FN": (ml_dtypes.float8_e4m3fn, 448), "f8E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, 224)}


def layer(rows: int, name: str, spelling: str, weight: int, bias: str, result: str) -> str:
    is_tensor = "tensor" in spelling
    x, w, s = vt((rows, DEPTH), "f16"), vt((COLUMNS, DEPTH), "si8"), vt((1 if is_tensor else COLUMNS, 1), "f16")
    b = "!torch.none" if bias == "%none" else vt((COLUMNS,), "f16")
    operands = f"%0, %{weight}, %{weight + 1}, %none, {bias}, %layout"
    return (
        f'%{name} = torch.operator "torch.amdnfs.quantized_linear"({operands})'
        f" : ({x}, {w}, {s}, !torch.none, {b}, !torch.str) -> {result}"
    )


def program(flavour: str, rows: int) -> str:
    """A layer with a bias and one scale for all, and a gate with its partner."""
    x, w, s, b = vt((rows, DEPTH), "f16"), vt((COLUMNS, DEPTH), "si8"), vt((COLUMNS, 1), "f16"), vt((COLUMNS,), "f16")
    one, y = vt((1, 1), "f16"), vt((rows, COLUMNS), "f16")
    tensor, channel = f"{flavour}-tensor-rows-f16-af8", f"{flavour}-channel-rows-f16-af8"
    start = '%none = torch.constant.none\n%layout = torch.constant.str "{}"\n'
    gate = "\n".join(
        [
            layer(rows, "gate", channel, 1, "%none", y),
            layer(rows, "up", channel, 3, "%none", y),
            f"%act = torch.aten.silu %gate : {y} -> {y}",
            f"%y0 = torch.aten.mul.Tensor %act, %up : {y}, {y} -> {y}",
        ]
    )
    normed = norm_text(x, (rows,), DEPTH, "%1", 0.0).replace("%none", "%nothing")
    normed = "%nothing = torch.constant.none\n%one = torch.constant.int 1\n" + normed + "\n"
    normed += layer(rows, "y0", channel, 2, "%none", y).replace("(%0,", "(%normed,")
    plain = start.format(tensor) + layer(rows, "y0", tensor, 1, "%3", y)
    return (
        function("plain", [x, w, one, b], [y], plain)
        + function("gated", [x, w, s, w, s], [y], start.format(channel) + gate)
        + function("normed", [x, vt((DEPTH,), "f16"), w, s], [y], start.format(channel) + normed)
    )


@pytest.fixture(scope="module")
def programs() -> Callable[[str, int], EmulatedModule]:
    """The program of a target, compiled when it is first asked for."""

    @cache
    def build(target: str, rows: int) -> EmulatedModule:
        return EmulatedModule(program(str(TARGETS[target].fp8_format), rows), target, 4, ("dispatch-linear",))

    return build


def awkward_rows(rng: np.random.Generator, rows: int) -> Array:
    """Rows of usual size, of zeros, of the largest and the least numbers, and with one element far above the others."""
    x = rng.normal(size=(rows, DEPTH))
    x[3] = 0  # its scale would be a division by zero
    x[4] *= 65504 / np.abs(x[4]).max()
    x[5] *= 2.0**-22  # only subnormal numbers of f16
    x[6, 7] = 6000  # what is left of the others is subnormal in fp8, or a zero that had a sign
    x[7, 7] = -3000
    return x.astype(np.float16)


def rounded(x: Array, flavour: str) -> Array:
    """The rows in fp8 with a scale of their own each, in float64: what is to be multiplied."""
    kind, most = FORMATS[flavour]
    wide = x.astype(np.float32)
    largest = np.abs(wide).max(1, keepdims=True)
    steps = (wide * (np.float32(most) / np.maximum(largest, np.float32(1e-30)))).astype(kind).astype(np.float64)
    assert np.isfinite(steps).all()
    rows: Array = steps * largest.astype(np.float64) / most
    return rows


def weight(rng: np.random.Generator, flavour: str) -> tuple[Array, Array]:
    """Random bytes, and what they mean in float64."""
    data = rng.integers(-128, 128, (COLUMNS, DEPTH), np.int8)
    data[(data & 127) == 127] = 1  # NaN in one flavour; the byte -128 is that of the other
    data[data == -128] = 0
    return data, data.view(FORMATS[flavour][0]).astype(np.float64)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("target", ["gfx942", "gfx950", "gfx1201"])
def test_rows_are_rounded_to_the_nearest_and_sums_are_those_of_f32(
    programs: Callable[[str, int], EmulatedModule], rng: np.random.Generator, target: str, rows: int
) -> None:
    flavour = str(TARGETS[target].fp8_format)
    x, (data, values) = awkward_rows(rng, rows), weight(rng, flavour)
    scale, bias = np.array([[2.0**-12]], np.float16), rng.normal(size=COLUMNS).astype(np.float16)
    (got,) = programs(target, rows).call("plain", x, data, scale, bias)
    kept, weights = rounded(x, flavour), values * 2.0**-12
    wanted = kept @ weights.T + bias.astype(np.float64)
    sizes = np.abs(kept) @ np.abs(weights.T) + np.abs(bias.astype(np.float64))
    assert_within(got, wanted, (DEPTH + 4) * SUM * sizes + 2.0**-11 * np.abs(wanted) + 2.0**-25)
    np.testing.assert_array_equal(got[3], bias)
    # Of the unrounded rows' result: an element is off by half a step, 2^-4 of its size; steps end at 2^-10 of the last.
    floats = x.astype(np.float64) @ weights.T + bias.astype(np.float64)
    most = np.abs(x).max(1, keepdims=True).astype(np.float64)
    off = np.maximum(np.abs(x.astype(np.float64)) * 2.0**-4, most / FORMATS[flavour][1] * 2.0**-10)
    assert_within(got, floats, off @ np.abs(weights.T) + 2.0**-10 * np.abs(floats) + 2.0**-24)
    assert np.abs(got - floats).mean() > 4 * np.abs(got - wanted).mean()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("target", ["gfx942", "gfx950", "gfx1201"])
def test_a_gate_and_a_scale_for_each_column(
    programs: Callable[[str, int], EmulatedModule], rng: np.random.Generator, target: str, rows: int
) -> None:
    flavour = str(TARGETS[target].fp8_format)
    x = rng.normal(size=(rows, DEPTH)).astype(np.float16)
    (gate, gate_values), (up, up_values) = weight(rng, flavour), weight(rng, flavour)
    scales = rng.uniform(1, 2, (2, COLUMNS, 1)).astype(np.float16) / np.float16(4096)
    (got,) = programs(target, rows).call("gated", x, gate, scales[0], up, scales[1])
    kept = rounded(x, flavour)
    first, second = (
        kept @ (values * scale.astype(np.float64)).T
        for values, scale in zip((gate_values, up_values), scales, strict=True)
    )
    first_off, second_off = (
        (DEPTH + 4) * SUM * (np.abs(kept) @ np.abs(values * scale.astype(np.float64)).T)
        for values, scale in zip((gate_values, up_values), scales, strict=True)
    )
    wanted = first / (1 + np.exp(-first)) * second
    slope = 1.1  # the steepest slope of silu
    bound = slope * first_off * (np.abs(second) + second_off) + np.abs(first) * (second_off + 16 * SUM * np.abs(second))
    assert_within(got, wanted, bound + 2.0**-11 * np.abs(wanted) + 2.0**-25)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("target", ["gfx942", "gfx950", "gfx1201"])
def test_rows_are_normalised_first(
    programs: Callable[[str, int], EmulatedModule], rng: np.random.Generator, target: str, rows: int
) -> None:
    """A normalised element may be rounded to the next f16, and that to the next fp8: rarely, and by one step."""
    flavour = str(TARGETS[target].fp8_format)
    x, (data, values) = rng.normal(size=(rows, DEPTH)).astype(np.float16), weight(rng, flavour)
    gain, scales = rng.uniform(0.5, 2, DEPTH).astype(np.float16), np.full((COLUMNS, 1), 2.0**-12, np.float16)
    (got,) = programs(target, rows).call("normed", x, gain, data, scales)
    wide = x.astype(np.float64)
    narrow = (wide / np.sqrt((wide**2).mean(1, keepdims=True) + EPS)).astype(np.float16).astype(np.float64)
    normed = (narrow * gain.astype(np.float64)).astype(np.float16)
    kept, weights = rounded(normed, flavour), values * 2.0**-12
    wanted, sizes = kept @ weights.T, np.abs(kept) @ np.abs(weights.T)
    most = np.abs(normed.astype(np.float64)).max(1, keepdims=True)
    step = 2 * np.maximum(np.abs(kept) * 2.0**-4, most / FORMATS[flavour][1] * 2.0**-10)
    few = np.sort(step, axis=1)[:, -8:].sum(1, keepdims=True) * np.abs(weights).max()
    assert_within(got, wanted, few + (DEPTH + 4) * SUM * sizes + 2.0**-10 * np.abs(wanted) + 2.0**-25)
    assert np.abs(got - wanted).mean() < 0.02 * np.abs(wanted).mean()
