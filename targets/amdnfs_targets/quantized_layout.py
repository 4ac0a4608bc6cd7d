"""How a quantised weight lies in memory, as a type: what the op, the passes, the archive and the kernels agree on.

A layout is never guessed from shapes. It travels as text, in the last operand of `amdnfs.quantized_linear`:

    i4-g128-zp-rows-f16     int4, groups of 128, zero points, f16 scales
    i8-channel-rows-f16     int8, one scale an output channel
    f8E4M3FN-tensor-rows-f32    fp8, one scale for all
    i8-channel-rows-f16-a8  int8, and activations in int8 too, one scale a row of them
    f8E4M3FN-channel-rows-f16-af8   fp8, and activations in fp8 of the same flavour, one scale a row of them

The tensors of a weight `[columns, depth]` (columns of the result, elements of a sum), order `rows`:

    data     [columns, depth * bits / 8]  int8    element k of a row follows element k - 1; of two int4 in a byte the
                                                  lower nibble comes first, which is how tensor<..xi4> is read
    scales   [columns, groups]  scale type        channel: [columns, 1]; tensor: [1, 1]
    zeros    [columns, groups]  int8              only with zero points; in the range of the element type

    weight[n, k] = (data[n, k] - zeros[n, k / group]) * scales[n, k / group]
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GROUP_SIZES = (32, 64, 128)
"""Elements of a row that may share a scale."""


class ElementType(StrEnum):
    """What one stored element is, under its MLIR type name."""

    I4 = "i4"
    """-8 to 7, two's complement."""
    I8 = "i8"
    """-128 to 127."""
    E4M3FN = "f8E4M3FN"
    """The OCP format, largest value 448."""
    E4M3FNUZ = "f8E4M3FNUZ"
    """The format of CDNA3: the bits of `E4M3FN` mean half as much; no negative zero."""


class Grouping(StrEnum):
    """Which elements share a scale."""

    GROUP = "group"
    """Neighbours in a row."""
    CHANNEL = "channel"
    """A row: one output channel."""
    TENSOR = "tensor"
    """All."""


class ScaleType(StrEnum):
    """Type of the scales, under its MLIR type name: the storage type of the model."""

    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"


class StorageOrder(StrEnum):
    """Where an element is."""

    ROWS = "rows"
    """Output channel by output channel."""


class Activations(StrEnum):
    """How the other operand enters the contraction."""

    FLOAT = "float"
    """As it is; the weight is widened."""
    ROW_I8 = "a8"
    """Rounded to int8 with one scale a row (a token), found anew in each call; the contraction is in integers."""
    ROW_F8 = "af8"
    """The same with fp8: rounded to the element type of the weight; sums are in f32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedLayout:
    """See the module docstring.

    >>> QuantizedLayout.parse("i4-g128-zp-rows-f16").group_size
    128
    >>> QuantizedLayout(element=ElementType.I8, scale=ScaleType.F32).spelling
    'i8-channel-rows-f32'
    """

    element: ElementType
    """Type of a stored element."""
    scale: ScaleType
    """Type of the scales."""
    grouping: Grouping = Grouping.CHANNEL
    """Which elements share a scale."""
    group_size: int = 0
    """Elements of a group: 32, 64 or 128 for `GROUP`, else 0."""
    has_zeros: bool = False
    """Whether there are zero points; integers in groups or channels only."""
    order: StorageOrder = StorageOrder.ROWS
    """Where an element is."""
    activations: Activations = Activations.FLOAT
    """How the other operand enters; `ROW_I8` goes with int8 a channel without zero points only, `ROW_F8` with fp8."""

    def __post_init__(self) -> None:
        """Refuses combinations that no kernel knows.

        Raises:
            ValueError: Naming the field, its value and what is allowed.
        """
        allowed = GROUP_SIZES if self.grouping is Grouping.GROUP else (0,)
        if self.group_size not in allowed:
            raise ValueError(f"group_size {self.group_size} of grouping {self.grouping}: allowed are {allowed}")
        if self.has_zeros and (self.is_float or self.grouping is Grouping.TENSOR):
            raise ValueError(f"has_zeros of {self.element} with grouping {self.grouping}: integers by group or channel")
        if self.is_float and self.grouping is Grouping.GROUP:
            raise ValueError(f"grouping {self.grouping} of {self.element}: allowed are channel and tensor")
        is_plain_int8 = self.element is ElementType.I8 and self.grouping is Grouping.CHANNEL and not self.has_zeros
        if self.activations is Activations.ROW_I8 and not is_plain_int8:
            raise ValueError(
                f"activations {self.activations} of {self.spelling}: only with i8, channel, no zero points"
            )
        if self.activations is Activations.ROW_F8 and not self.is_float:
            raise ValueError(f"activations {self.activations} of {self.spelling}: only with fp8")

    @property
    def is_float(self) -> bool:
        """Whether elements are fp8."""
        return self.element in (ElementType.E4M3FN, ElementType.E4M3FNUZ)

    @property
    def largest_activation(self) -> float:
        """What the element of largest size in a row of activations becomes; 0 where they are not rounded.

        Of the 240 of `E4M3FNUZ`, 224 are used: then a row has the same bytes in both flavours, as a weight has, and
        programs for all targets multiply the same numbers. A float loses no digits by that.
        """
        if self.activations is Activations.FLOAT:
            return 0.0
        return {ElementType.E4M3FN: 448.0, ElementType.E4M3FNUZ: 224.0}.get(self.element, 127.0)

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return 4 if self.element is ElementType.I4 else 8

    @property
    def spelling(self) -> str:
        """The layout as text; `parse` reads it."""
        group = f"g{self.group_size}" if self.grouping is Grouping.GROUP else str(self.grouping)
        parts = [str(self.element), group, "zp" if self.has_zeros else "", str(self.order), str(self.scale)]
        parts.append("" if self.activations is Activations.FLOAT else str(self.activations))
        return "-".join(part for part in parts if part)

    @classmethod
    def parse(cls, text: str) -> QuantizedLayout:
        """The layout that `text` spells.

        Raises:
            ValueError: If it spells none.
        """
        parts = text.split("-")
        has_zeros = "zp" in parts[2:3]
        activations = next((item for item in Activations if parts[-1:] == [str(item)]), Activations.FLOAT)
        rest = parts[3:] if has_zeros else parts[2:]
        try:
            group = parts[1]
            is_group = group[:1] == "g" and group[1:].isdigit()
            layout = cls(
                element=ElementType(parts[0]),
                grouping=Grouping.GROUP if is_group else Grouping(group),
                group_size=int(group[1:]) if is_group else 0,
                has_zeros=has_zeros,
                order=StorageOrder(rest[0]),
                scale=ScaleType(rest[1]),
                activations=activations,
            )
        except (ValueError, IndexError) as error:
            raise ValueError(f"{text!r} is no layout of a quantised weight: {error}") from error
        if layout.spelling != text:
            raise ValueError(f"{text!r} is no layout of a quantised weight; the closest is {layout.spelling!r}")
        return layout

    def groups(self, depth: int) -> int:
        """Number of groups in a row of `depth` elements.

        Raises:
            ValueError: If groups do not divide it, or it does not fill whole bytes.
        """
        if depth * self.bits % 8:
            raise ValueError(f"a row of {depth} elements of {self.bits} bits does not fill whole bytes")
        if self.grouping is not Grouping.GROUP:
            return 1
        if depth % self.group_size:
            raise ValueError(f"groups of {self.group_size} do not divide a row of {depth} elements")
        return depth // self.group_size

    def data_shape(self, columns: int, depth: int) -> tuple[int, int]:
        """Shape of the data in bytes, `[columns, depth * bits / 8]`."""
        return columns, depth * self.bits // 8

    def scales_shape(self, columns: int, depth: int) -> tuple[int, int]:
        """Shape of the scales, and of the zero points: `[columns, groups]`, or `[1, 1]` by tensor."""
        return (1, 1) if self.grouping is Grouping.TENSOR else (columns, self.groups(depth))
