"""What a user asks for when weights are to be quantised, and the layout that follows from it for a target.

mode       group size                        zero points   stored                    contraction
int8       channel (default), 32, 64, 128    possible      int8                      in the model's type
int4       128 (default), 32, 64, channel    possible      int4, two a byte          in the model's type
fp8        channel (default), tensor         no            e4m3, flavour by target   in the model's type
w8a8       channel                           no            int8                      in int8, rows rounded each call
w8a8-fp8   channel (default), tensor         no            e4m3, flavour by target   in fp8, rows rounded each call
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from amdnfs_runtime.errors import UsageError
from amdnfs_targets.quantized_layout import Activations, ElementType, Grouping, QuantizedLayout, ScaleType
from amdnfs_targets.target import Fp8Format, Target, TargetKind


class Quantize(StrEnum):
    """How the weights of the decoder layers are stored."""

    NONE = "none"
    INT8 = "int8"
    INT4 = "int4"
    FP8 = "fp8"
    W8A8 = "w8a8"
    W8A8_FP8 = "w8a8-fp8"


class GroupSize(StrEnum):
    """Which elements of a weight share a scale."""

    AUTO = "auto"
    G32 = "32"
    G64 = "64"
    G128 = "128"
    CHANNEL = "channel"
    TENSOR = "tensor"


_ALLOWED = {
    Quantize.INT8: (GroupSize.CHANNEL, GroupSize.G32, GroupSize.G64, GroupSize.G128),
    Quantize.INT4: (GroupSize.G128, GroupSize.G32, GroupSize.G64, GroupSize.CHANNEL),
    Quantize.FP8: (GroupSize.CHANNEL, GroupSize.TENSOR),
    Quantize.W8A8: (GroupSize.CHANNEL,),
    Quantize.W8A8_FP8: (GroupSize.CHANNEL, GroupSize.TENSOR),
}
"""Group sizes of each mode, the default first."""
_ELEMENTS = {
    Quantize.INT8: ElementType.I8,
    Quantize.INT4: ElementType.I4,
    Quantize.FP8: ElementType.E4M3FN,
    Quantize.W8A8: ElementType.I8,
    Quantize.W8A8_FP8: ElementType.E4M3FN,
}
_ACTIVATIONS = {Quantize.W8A8: Activations.ROW_I8, Quantize.W8A8_FP8: Activations.ROW_F8}
_FP8_MODES = (Quantize.FP8, Quantize.W8A8_FP8)
_FP8_ELEMENTS = {Fp8Format.E4M3FN: ElementType.E4M3FN, Fp8Format.E4M3FNUZ: ElementType.E4M3FNUZ}
_WITH_ZEROS = (Quantize.INT8, Quantize.INT4)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheme:
    """What a user asks for.

    >>> Scheme(quantize=Quantize.INT4, zero_points=True).describe()
    'int4, groups of 128, zero points'
    """

    quantize: Quantize
    """The mode; not `NONE`."""
    group_size: GroupSize = GroupSize.AUTO
    """Which elements share a scale; `AUTO` takes the mode's default."""
    zero_points: bool = False
    """Whether a group has a zero point."""

    def __post_init__(self) -> None:
        """Refuses what a mode does not have.

        Raises:
            UsageError: Naming the option, its value and what is allowed.
        """
        allowed = _ALLOWED[self.quantize]
        if self.group_size not in (GroupSize.AUTO, *allowed):
            raise UsageError(
                f"--group-size {self.group_size}: --quantize {self.quantize} has {', '.join(allowed)}, "
                f"default {allowed[0]}"
            )
        if self.zero_points and self.quantize not in _WITH_ZEROS:
            raise UsageError(
                f"--zero-points: only --quantize {' and '.join(_WITH_ZEROS)} have them, not {self.quantize}"
            )

    def layout(self, scale: ScaleType, fp8_format: Fp8Format | None = None) -> QuantizedLayout:
        """The layout of the weights.

        Args:
            scale: Type of the scales: the model's.
            fp8_format: The target's fp8; the OCP format by default.
        """
        size = _ALLOWED[self.quantize][0] if self.group_size is GroupSize.AUTO else self.group_size
        is_group = size.isdigit()
        return QuantizedLayout(
            element=_FP8_ELEMENTS[fp8_format or Fp8Format.E4M3FN]
            if self.quantize in _FP8_MODES
            else _ELEMENTS[self.quantize],
            scale=scale,
            grouping=Grouping.GROUP if is_group else Grouping(str(size)),
            group_size=int(size) if is_group else 0,
            has_zeros=self.zero_points,
            activations=_ACTIVATIONS.get(self.quantize, Activations.FLOAT),
        )

    def layout_for(self, target: Target, scale: ScaleType) -> QuantizedLayout:
        """The layout of the weights in a program for `target`."""
        return self.layout(scale, target.fp8_format)

    def require_target(self, target: Target) -> None:
        """Refuses a target that cannot run it.

        Raises:
            UsageError: Naming the target, the reason and what to do.
        """
        remedy = f"use --quantize int8, or leave out {target.name}"
        if self.quantize in _FP8_MODES and target.fp8_format is None and target.kind is not TargetKind.CPU:
            if self.quantize is Quantize.W8A8_FP8:
                others = "int8" if target.kind is TargetKind.VULKAN else "w8a8 or int8"
                lacking = f"{target.name} has no matrix instructions for fp8; use --quantize {others}"
                raise UsageError(f"--quantize w8a8-fp8: {lacking}, or leave out {target.name}")
            raise UsageError(f"--quantize fp8: {target.name} has no fp8; {remedy}")
        if self.quantize in (Quantize.INT4, Quantize.W8A8) and target.kind is TargetKind.VULKAN:
            raise UsageError(f"--quantize {self.quantize}: IREE 3.13.0 cannot lower it for {target.name}; {remedy}")

    def describe(self) -> str:
        """The scheme in words."""
        layout = self.layout(ScaleType.F32)
        groups = {Grouping.CHANNEL: "one scale an output channel", Grouping.TENSOR: "one scale a matrix"}
        parts = [str(self.quantize), groups.get(layout.grouping, f"groups of {layout.group_size}")]
        return ", ".join(parts + (["zero points"] if self.zero_points else []))


def describe_layout(spelling: str) -> str:
    """A layout, as a manifest spells it, in words.

    >>> describe_layout("i8-channel-rows-f16-a8")
    'w8a8, one scale an output channel'
    """
    layout = QuantizedLayout.parse(spelling)
    rounding = {activations: quantize for quantize, activations in _ACTIVATIONS.items()}
    modes = {ElementType.I4: Quantize.INT4, ElementType.I8: Quantize.INT8}
    quantize = rounding.get(layout.activations) or modes.get(layout.element, Quantize.FP8)
    size = str(layout.group_size) if layout.grouping is Grouping.GROUP else str(layout.grouping)
    return Scheme(quantize=quantize, group_size=GroupSize(size), zero_points=layout.has_zeros).describe()
