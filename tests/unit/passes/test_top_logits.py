"""The kernels that find the largest logits, executed as AMD machine code on an emulator, against numpy in float64."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.cpu_programs import Array

pytestmark = [needs_emulator, pytest.mark.emulator]

COUNT = 64
SHAPES = {"few_parts": (3, 5001), "long_parts": (1, 33000)}
TARGETS = ("gfx942", "gfx1201")


@cache
def program(target: str) -> EmulatedModule:
    text = "".join(
        f"""func.func @{name}(%x: !torch.vtensor<[{rows},{columns}],f32>) -> !torch.vtensor<[{rows}],si64> {{
          %axis = torch.constant.int -1
          %keep = torch.constant.bool false
          %0 = torch.aten.argmax %x, %axis, %keep : !torch.vtensor<[{rows},{columns}],f32>, !torch.int, !torch.bool
              -> !torch.vtensor<[{rows}],si64>
          return %0 : !torch.vtensor<[{rows}],si64>
        }}
        """
        for name, (rows, columns) in SHAPES.items()
        if name == "few_parts" or target == "gfx942"
    )
    return EmulatedModule(text, target, 4, ["dispatch-top-logits"])


def check(name: str, target: str, logits: Array) -> None:
    (got,) = program(target).call(name, logits)
    wide = logits.astype(np.float64)
    # A stable order of what is negated: of equal logits the lowest id comes first.
    order = np.argsort(-wide, axis=-1, kind="stable")[:, :COUNT]
    np.testing.assert_array_equal(got[:, :COUNT], order)
    np.testing.assert_array_equal(got[:, COUNT:-1].view(np.float32), np.take_along_axis(logits, order, -1))
    largest = wide.max(-1)
    mass = largest + np.log(np.exp(wide - largest[:, None]).sum(-1))
    # Sums of f32 in trees, `exp` and `log` of the hardware: some units in the last place of each.
    np.testing.assert_allclose(got[:, -1:].copy().view(np.float32)[:, 0], mass, rtol=2e-6, atol=4e-6)


@pytest.mark.parametrize(
    ("name", "target"), [("few_parts", "gfx942"), ("few_parts", "gfx1201"), ("long_parts", "gfx942")]
)
def test_random_logits(name: str, target: str, rng: np.random.Generator) -> None:
    check(name, target, (8 * rng.standard_normal(SHAPES[name])).astype(np.float32))


@pytest.mark.parametrize("target", TARGETS)
def test_equal_zero_and_infinite_logits(target: str, rng: np.random.Generator) -> None:
    logits = rng.integers(-3, 3, SHAPES["few_parts"]).astype(np.float32)
    logits[(logits == 0) & (rng.random(logits.shape) < 0.5)] = -0.0
    logits[1, 1024:] = -np.inf  # whole parts
    logits[2, 40:] = -np.inf  # fewer than are asked for
    check("few_parts", target, logits)


@pytest.mark.parametrize("target", TARGETS)
def test_no_number_comes_first(target: str, rng: np.random.Generator) -> None:
    logits = rng.standard_normal(SHAPES["few_parts"]).astype(np.float32)
    logits[0, 4000] = np.nan
    logits[1, 3] = np.inf
    (got,) = program(target).call("few_parts", logits)
    assert got[0, 0] == 4000
    assert np.isnan(got[0, COUNT : COUNT + 1].view(np.float32)).all()
    assert got[1, 0] == 3
    assert got[1, COUNT : COUNT + 1].view(np.float32) == np.inf
