"""Rounding of weights: every scheme against its definition in float64, on fresh random weights and awkward ones."""

from __future__ import annotations

import secrets

import numpy as np
import pytest
import torch
from amdnfs_targets.quantized_layout import ElementType, Grouping, QuantizedLayout

from amdnfs_compile.quantize import numerics
from amdnfs_compile.quantize.numerics import QuantizedTensor, dequantize, fnuz_scales, pack_int4, quantize, unpack_int4

SPELLINGS = [
    *(f"i{bits}-g{group}{zeros}-rows-f16" for bits in (4, 8) for group in (32, 64, 128) for zeros in ("", "-zp")),
    *("i8-channel-rows-f32", "i8-channel-zp-rows-bf16", "i4-channel-rows-bf16", "i8-channel-rows-f16-a8"),
    *("f8E4M3FN-channel-rows-f16", "f8E4M3FN-tensor-rows-bf16", "f8E4M3FNUZ-channel-rows-f32"),
    *("f8E4M3FNUZ-tensor-rows-f16", "f8E4M3FN-channel-rows-f16-af8", "f8E4M3FNUZ-tensor-rows-bf16-af8"),
]
ROUND = {"f32": 2.0**-23, "f16": 2.0**-10, "bf16": 2.0**-7}  # what rounding a scale away from zero can change


@pytest.fixture
def weight() -> torch.Tensor:
    seed = secrets.randbits(32)
    print(f"torch.manual_seed({seed}) repeats this")
    torch.manual_seed(seed)
    # Scales below the normal numbers of f16 have fewer digits; they have a test of their own.
    return torch.randn(24, 256) * (0.02 + torch.rand(24, 1))


def stored(weight: torch.Tensor, spelling: str) -> tuple[QuantizedLayout, QuantizedTensor, torch.Tensor]:
    layout = QuantizedLayout.parse(spelling)
    found = quantize(weight, layout)
    return layout, found, dequantize(found.data, found.scales, found.zeros, layout)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_element_is_further_off_than_half_a_step(weight: torch.Tensor, spelling: str) -> None:
    layout, found, back = stored(weight, spelling)
    assert found.data.shape == layout.data_shape(24, 256)
    assert found.scales.shape == layout.scales_shape(24, 256)
    assert back.dtype == torch.float64
    error = (back - weight.double()).abs()
    groups = found.scales.shape[1]
    steps = found.scales.double().abs()[..., None].expand(-1, -1, 256 // groups).reshape(len(found.scales), 256)
    if layout.is_float:  # three bits of mantissa: half a step is 1/16 of a normal number, 2^-10 of a scale below
        bound = torch.maximum(weight.double().abs() / 16, steps * 2.0**-10)
    elif layout.element is ElementType.I4 and not layout.has_zeros:
        is_end = (weight.double() / steps).abs() >= 7.5  # the end without a step of its own
        assert found.num_saturated <= int(is_end.sum())
        bound = torch.where(is_end, steps, steps / 2)
    else:
        assert found.num_saturated == 0 or layout.has_zeros
        bound = steps / 2 * (1 if not layout.has_zeros else 2)  # the zero point is rounded, too
    assert bool((error <= bound * (1 + ROUND[layout.scale])).all())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_largest_elements_use_the_whole_range(weight: torch.Tensor, spelling: str) -> None:
    layout, found, _ = stored(weight, spelling)
    data = unpack_int4(found.data) if layout.bits == 4 else found.data
    if layout.is_float:
        values = data.view(torch.float8_e4m3fn).float().abs()
        assert float(values.max()) == 448
        return
    grouped = data.reshape(24, found.scales.shape[1], -1).short()
    extremes = {(4, False): (-8, 7), (4, True): (-8, 7), (8, False): (-127, 127), (8, True): (-128, 127)}
    low, high = extremes[layout.bits, layout.has_zeros]
    assert int(grouped.amin()) >= low
    assert int(grouped.amax()) <= high
    if layout.has_zeros:
        # Rounding both ends and the zero point costs up to one and a half; whole numbers lose two at most.
        assert bool(((grouped.amax(-1) - grouped.amin(-1)) >= (high - low) * (1 - ROUND[layout.scale]) - 2).all())
    else:
        assert bool((grouped.abs().amax(-1) >= -low - (layout.bits == 4)).all())


def test_int4_bytes_are_low_nibble_first() -> None:
    data = torch.tensor([[0, 1, 7, -8, -1, 2]], dtype=torch.int8)
    packed = pack_int4(data)
    assert packed.view(torch.uint8).tolist() == [[0x10, 0x87, 0x2F]]
    assert torch.equal(unpack_int4(packed), data)


def test_symmetric_int4_gives_the_largest_element_all_bits() -> None:
    row = torch.zeros(1, 32)
    row[0, :4] = torch.tensor([0.8, -0.4, 0.7, -0.8])
    _, found, back = stored(row, "i4-g32-rows-f32")
    assert unpack_int4(found.data)[0, :4].tolist() == [-8, 4, -7, 7]  # the scale is negative
    assert found.num_saturated == 1
    assert back[0, 0].item() == pytest.approx(0.8)


def test_zero_points_of_groups_of_one_sign() -> None:
    row = torch.linspace(0.5, 2.0, 32)[None]
    for weight in (row, -row):
        _, found, back = stored(weight, "i4-g32-zp-rows-f32")
        assert found.zeros is not None
        assert found.zeros.item() in (-8, 7)
        assert float((back - weight.double()).abs().max()) <= 2.0 / 15 / 2 * 1.001


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_rows_of_zeros_stay_zeros(spelling: str) -> None:
    _, found, back = stored(torch.zeros(3, 256), spelling)
    assert bool((back == 0).all())
    assert found.num_saturated == 0


@pytest.mark.parametrize("kind", ["f16", "bf16"])
def test_scales_are_rounded_away_from_zero(weight: torch.Tensor, kind: str) -> None:
    layout, found, _ = stored(weight, f"i8-channel-rows-{kind}")
    exact = weight.abs().amax(-1, keepdim=True) / 127
    assert bool((found.scales.float() >= exact).all())
    assert bool((found.scales.float() <= exact * (1 + ROUND[layout.scale])).all())


def test_tiny_weights_do_not_leave_the_range() -> None:
    """A scale below the normal numbers of f16 is off by much; rounded up, it costs accuracy but no element."""
    for value in (1e-9, 3e-7, 5e-6):
        _, found, _ = stored(torch.full((1, 64), value), "f8E4M3FN-channel-rows-f16")
        assert found.num_saturated == 0
        assert float(found.scales) > 0


def test_scales_that_do_not_fit_are_refused() -> None:
    weight = torch.full((1, 64), 1e7)
    with pytest.raises(ValueError, match="a scale does not fit float16"):
        quantize(weight, QuantizedLayout.parse("i8-channel-rows-f16"))
    with pytest.raises(ValueError, match="a scale does not fit float16"):
        fnuz_scales(torch.tensor([[40000.0]], dtype=torch.float16))
    assert quantize(weight, QuantizedLayout.parse("i8-channel-rows-bf16")).num_saturated == 0


def test_groups_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="groups of 128 do not divide a row of 192 elements"):
        quantize(torch.ones(2, 192), QuantizedLayout.parse("i8-g128-rows-f16"))


@pytest.mark.parametrize("grouping", ["channel", "tensor"])
def test_both_fp8_formats_share_bytes_without_minus_zero(weight: torch.Tensor, grouping: str) -> None:
    weight[0, :8] = torch.tensor([-1e-7, 1e-7, -0.0, 0.0, -1e-9, -1e-4, 1e-4, -1e-3])
    _, fn, value = stored(weight, f"f8E4M3FN-{grouping}-rows-f16")
    _, fnuz, same = stored(weight, f"f8E4M3FNUZ-{grouping}-rows-f16")
    assert torch.equal(fn.data, fnuz.data)
    assert torch.equal(fnuz.scales, fn.scales * 2)
    assert torch.equal(value, same)
    assert bool((fn.data != -128).all())
    read = fnuz.data.view(torch.float8_e4m3fnuz).double() * fnuz.scales.double()
    assert torch.equal(read, value)  # torch's own reading of that format


@pytest.mark.parametrize("spelling", ["i4-g32-zp-rows-f16", "i8-channel-rows-f16", "f8E4M3FN-tensor-rows-f16"])
def test_slabs_change_nothing(weight: torch.Tensor, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, whole, _ = stored(weight, spelling)
    monkeypatch.setattr(numerics, "_SLAB_ELEMENTS", 5 * 256)
    _, parts, _ = stored(weight, spelling)
    assert torch.equal(whole.data, parts.data)
    assert torch.equal(whole.scales, parts.scales)
    assert whole.num_saturated == parts.num_saturated
    if whole.zeros is not None and parts.zeros is not None:
        assert torch.equal(whole.zeros, parts.zeros)


def test_saturated_elements_are_counted() -> None:
    """An element beyond the range of fp8 that the scale of a type too narrow leaves there."""
    weight = torch.tensor([[500.0, 464.0, 463.9, -470.0, 1.0, 0.0]])
    largest = torch.tensor([[448.0]])
    found = numerics._quantize_rows(weight, QuantizedLayout.parse("f8E4M3FN-tensor-rows-f32"), largest)
    assert found.num_saturated == 3
    assert found.data.view(torch.float8_e4m3fn).float().tolist() == [[448.0, 448.0, 448.0, -448.0, 1.0, 0.0]]


def test_errors_shrink_with_groups_and_bits(weight: torch.Tensor) -> None:
    """What a user expects of the choices."""

    def error(spelling: str) -> float:
        return float((stored(weight, spelling)[2] - weight.double()).square().mean())

    assert error("i4-g32-rows-f16") < error("i4-g64-rows-f16") < error("i4-g128-rows-f16")
    assert error("i8-g32-rows-f16") < error("i8-channel-rows-f16") < error("i4-g32-zp-rows-f16")
    assert error("f8E4M3FN-channel-rows-f16") < error("i4-g32-rows-f16")


def test_layouts_spell_and_parse() -> None:
    for spelling in SPELLINGS:
        layout = QuantizedLayout.parse(spelling)
        assert layout.spelling == spelling
        assert QuantizedLayout.parse(layout.spelling) == layout
    assert QuantizedLayout.parse("i4-g64-zp-rows-bf16").grouping is Grouping.GROUP


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no layout of a quantised weight"),
        ("i4", "is no layout of a quantised weight: list index out of range"),
        ("i5-channel-rows-f16", "'i5' is not a valid ElementType"),
        ("i4-g16-rows-f16", r"group_size 16 of grouping group: allowed are \(32, 64, 128\)"),
        ("i4-g032-rows-f16", "the closest is 'i4-g32-rows-f16'"),
        ("i4-g32-rows-f16-a8", "activations a8 of i4-g32-rows-f16-a8: only with i8, channel, no zero points"),
        ("i8-channel-rows-f16-af8", "activations af8 of i8-channel-rows-f16-af8: only with fp8"),
        ("f8E4M3FN-channel-rows-f16-a8", "only with i8, channel, no zero points"),
        ("f8E4M3FN-g32-rows-f16", "grouping group of f8E4M3FN: allowed are channel and tensor"),
        ("f8E4M3FN-channel-zp-rows-f16", "has_zeros of f8E4M3FN with grouping channel: integers by group or channel"),
        ("i8-channel-columns-f16", "'columns' is not a valid StorageOrder"),
        ("i8-channel-rows-f16-", "the closest is 'i8-channel-rows-f16'"),
    ],
)
def test_bad_spellings_are_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuantizedLayout.parse(text)


def test_bytes_are_what_numpy_reads(weight: torch.Tensor) -> None:
    """The packed archive, read without torch."""
    layout, found, back = stored(weight, "i4-g32-zp-rows-f16")
    assert found.zeros is not None
    bytes_read = found.data.numpy().view(np.uint8)
    nibbles = np.stack((bytes_read & 15, bytes_read >> 4), -1).reshape(24, 256).astype(np.int64)
    signed = (np.where(nibbles > 7, nibbles - 16, nibbles)).reshape(24, layout.groups(256), 32)
    points, scales = found.zeros.numpy()[..., None], found.scales.numpy().astype(np.float64)[..., None]
    np.testing.assert_array_equal(((signed - points) * scales).reshape(24, 256), back.numpy())
