"""Linear layers for `test_kernel_values.py`: their programs, their inputs, and what they must give."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tests.unit.passes.amd_programs import DTYPES, ROUND, TINY, EmulatedModule, uniform
from tests.unit.passes.cpu_programs import SUM, Array, assert_within, function, vt

TORCH_CODES = {"f16": 5, "bf16": 15, "f32": 6}


@dataclass(frozen=True, kw_only=True)
class Linear:
    name: str
    targets: tuple[str, ...]
    rows: tuple[int, ...]
    depth: int
    columns: tuple[int, ...]
    element: str = "f16"
    gate: str = ""
    gain_offset: float | None = None
    """Of an RMS normalisation before; None: there is none."""
    has_bias: bool = False
    has_residual: bool = False

    @property
    def argument_shapes(self) -> list[tuple[int, ...]]:
        """Shapes of x, the weights, the gain, the biases and the residual, as far as they are there."""
        shapes: list[tuple[int, ...]] = [(*self.rows, self.depth), *((size, self.depth) for size in self.columns)]
        shapes += [(self.depth,)] if self.gain_offset is not None else []
        shapes += [(size,) for size in self.columns] if self.has_bias else []
        return shapes + ([(*self.rows, self.columns[0])] if self.has_residual else [])

    def text(self) -> str:
        kinds = [vt(shape, self.element) for shape in self.argument_shapes]
        ys = [vt((*self.rows, size), self.element) for size in self.columns]
        later = iter(range(1 + len(self.columns), len(kinds)))
        lines = ["%none = torch.constant.none", "%one = torch.constant.int 1"]
        x, names = "%0", [f"%y{i}" for i in range(len(ys))]
        if self.gain_offset is not None:
            lines.append(norm_text(kinds[0], self.rows, self.depth, f"%{next(later)}", self.gain_offset))
            x = "%normed"
        for i, y in enumerate(ys):
            bias, bias_kind = "%none", "!torch.none"
            if self.has_bias:
                bias = f"%{(place := next(later))}"
                bias_kind = kinds[place]
            name = f"%linear{i}" if self.gate or self.has_residual else names[i]
            lines.append(
                f"{name} = torch.aten.linear {x}, %{i + 1}, {bias} : {kinds[0]}, {kinds[i + 1]}, {bias_kind} -> {y}"
            )
        y, last = ys[0], "%linear0"
        if self.gate:
            lines += [line.format(y=y) for line in GATES[self.gate]]
            last = "%gated" if self.has_residual else "%y0"
            lines.append(f"{last} = torch.aten.mul.Tensor %act, %linear1 : {y}, {y} -> {y}")
            ys = [y]
        if self.has_residual:
            lines.append(f"%y0 = torch.aten.add.Tensor %{next(later)}, {last}, %one : {y}, {y}, !torch.int -> {y}")
        return function(self.name, kinds, ys, "\n  ".join(lines))


GATES = {
    "silu": ("%act = torch.aten.silu %linear0 : {y} -> {y}",),
    "relu": ("%act = torch.aten.relu %linear0 : {y} -> {y}",),
    "gelu": ('%how = torch.constant.str "none"', "%act = torch.aten.gelu %linear0, %how : {y}, !torch.str -> {y}"),
    "gelu_tanh": ('%how = torch.constant.str "tanh"', "%act = torch.aten.gelu %linear0, %how : {y}, !torch.str -> {y}"),
}
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * np.vectorize(math.erfc)(-x / math.sqrt(2)) / 2,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}
EPS = 2.0**-10


def norm_text(kind: str, rows: Sequence[int], depth: int, gain: str, offset: float) -> str:
    """`%normed`, the RMS normalisation of %0: as in llama, or with an offset as in gemma."""
    element = kind.rpartition(",")[2].removesuffix(">")
    narrow = kind
    wide, one = vt((*rows, depth), "f32"), vt((*rows, 1), "f32")
    g, gw = vt((depth,), element), vt((depth,), "f32")
    end = f"""%narrow = torch.prims.convert_element_type %scaled, %code : {wide}, !torch.int -> {narrow}
  %normed = torch.aten.mul.Tensor {gain}, %narrow : {g}, {narrow} -> {narrow}"""
    if offset:
        end = f"""%wide_gain = torch.prims.convert_element_type {gain}, %f32 : {g}, !torch.int -> {gw}
  %offset = torch.constant.float {offset}
  %shifted = torch.aten.add.Scalar %wide_gain, %offset, %one : {gw}, !torch.float, !torch.int -> {gw}
  %gained = torch.aten.mul.Tensor %scaled, %shifted : {wide}, {gw} -> {wide}
  %normed = torch.prims.convert_element_type %gained, %code : {wide}, !torch.int -> {narrow}"""
    return f"""%last = torch.constant.int -1
  %two = torch.constant.int 2
  %true = torch.constant.bool true
  %f32 = torch.constant.int {TORCH_CODES["f32"]}
  %code = torch.constant.int {TORCH_CODES[element]}
  %eps = torch.constant.float {EPS}
  %wide = torch.prims.convert_element_type %0, %f32 : {narrow}, !torch.int -> {wide}
  %square = torch.aten.pow.Tensor_Scalar %wide, %two : {wide}, !torch.int -> {wide}
  %axes = torch.prim.ListConstruct %last : (!torch.int) -> !torch.list<int>
  %mean = torch.aten.mean.dim %square, %axes, %true, %none
    : {wide}, !torch.list<int>, !torch.bool, !torch.none -> {one}
  %more = torch.aten.add.Scalar %mean, %eps, %one : {one}, !torch.float, !torch.int -> {one}
  %root = torch.aten.rsqrt %more : {one} -> {one}
  %scaled = torch.aten.mul.Tensor %wide, %root : {wide}, {one} -> {wide}
  {end}"""


LINEARS = [
    Linear(name="one_row", targets=("gfx90a", "gfx1100"), rows=(1, 1), depth=264, columns=(40,)),
    Linear(
        name="three_with_bias",
        targets=("gfx942", "gfx1151"),
        rows=(1,),
        depth=128,
        columns=(48, 24, 8),
        element="bf16",
        has_bias=True,
    ),
    Linear(name="two_odd", targets=("gfx950", "gfx1201"), rows=(5,), depth=72, columns=(33, 17)),
    Linear(
        name="norm_silu",
        targets=("gfx90a", "gfx1201"),
        rows=(5,),
        depth=200,
        columns=(56, 56),
        element="bf16",
        gate="silu",
        gain_offset=0.0,
        has_residual=True,
    ),
    Linear(
        name="norm_gelu_tanh",
        targets=("gfx942", "gfx1100"),
        rows=(2, 8),
        depth=136,
        columns=(100, 100),
        gate="gelu_tanh",
        gain_offset=1.0,
    ),
    Linear(
        name="gelu_with_bias",
        targets=("gfx950", "gfx1151"),
        rows=(40,),
        depth=64,
        columns=(70, 70),
        gate="gelu",
        has_bias=True,
    ),
    Linear(
        name="relu",
        targets=("gfx90a", "gfx1151"),
        rows=(1, 40),
        depth=104,
        columns=(90, 90),
        element="bf16",
        gate="relu",
        has_residual=True,
    ),
    Linear(name="residual", targets=("gfx942", "gfx1201"), rows=(130,), depth=136, columns=(200,), has_residual=True),
    Linear(
        name="three_tall",
        targets=("gfx950", "gfx1100"),
        rows=(130,),
        depth=88,
        columns=(130, 40, 40),
        element="bf16",
        has_bias=True,
    ),
    Linear(
        name="norm_three", targets=("gfx942", "gfx1201"), rows=(16,), depth=512, columns=(64, 32, 32), gain_offset=0.0
    ),
    Linear(
        name="bias_and_residual",
        targets=("gfx90a", "gfx1100"),
        rows=(40,),
        depth=96,
        columns=(72,),
        element="bf16",
        has_bias=True,
        has_residual=True,
    ),
    # More row tiles than the eight of a band, of whatever height.
    Linear(name="two_bands", targets=("gfx950", "gfx1151"), rows=(1100,), depth=40, columns=(24,)),
]


def check_linear(program: EmulatedModule, rng: np.random.Generator, case: Linear) -> None:
    inputs = [uniform(rng, shape, case.element) for shape in case.argument_shapes]
    if case.has_residual:
        inputs[-1] = (16 * inputs[-1].astype(np.float32)).astype(DTYPES[case.element])
    got = program.call(case.name, *inputs)
    x, *rest = [value.astype(np.float64) for value in inputs]
    weights, rest = rest[: len(case.columns)], rest[len(case.columns) :]
    # Sums of depth products and a bias in f32; a normalised input is rounded, and its factor is off by a few units.
    relative = (case.depth + 1) * SUM
    if case.gain_offset is not None:
        x = x * (rest.pop(0) + case.gain_offset) / np.sqrt((x**2).mean(-1, keepdims=True) + EPS)
        relative += ROUND[case.element] + (case.depth + 4) * SUM
    biases = [rest.pop(0) if case.has_bias else np.zeros(size) for size in case.columns]
    wanted = [x @ weight.T + bias for weight, bias in zip(weights, biases, strict=True)]
    bounds = [
        relative * (np.abs(x) @ np.abs(weight).T + np.abs(bias)) for weight, bias in zip(weights, biases, strict=True)
    ]
    if case.gate:
        (gate, up), (gate_bound, up_bound) = wanted, bounds
        active = ACTIVATIONS[case.gate](gate)
        # No activation is steeper than 1.13; each is computed to a few units of its argument.
        active_bound = 1.13 * gate_bound + 16 * SUM * np.abs(gate)
        wanted, bounds = [active * up], [active_bound * (np.abs(up) + up_bound) + np.abs(active) * up_bound]
    if case.has_residual:
        wanted, bounds = [wanted[0] + rest[0]], [bounds[0] + SUM * np.abs(wanted[0])]
    for result, value, bound in zip(got, wanted, bounds, strict=True):
        assert result.dtype == DTYPES[case.element]
        assert_within(result, value, bound + ROUND[case.element] * np.abs(value) + TINY[case.element])
