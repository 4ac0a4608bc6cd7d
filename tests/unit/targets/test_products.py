"""Products, their peaks, and the register files of their compute units."""

from __future__ import annotations

import pytest
from amdnfs_targets import TARGETS, TargetKind
from amdnfs_targets.products import PRODUCTS, UnknownProductError, get_product, products_of
from amdnfs_targets.register_files import REGISTER_FILES

TERA = 1e12


@pytest.mark.parametrize(
    ("name", "element_type", "published"),
    [
        ("mi210", "f16", 181.0),
        ("mi250x", "f16", 383.0 / 2),
        ("mi300x", "f16", 1307.4),
        ("mi300x", "f8E4M3FNUZ", 2614.9),
        ("mi300x", "i8", 2614.9),
        ("mi300x", "f32", 163.4),
        ("mi300a", "bf16", 980.6),
        ("mi325x", "f16", 1307.4),
        ("mi355x", "f8E4M3FN", 5033.2),
        ("mi355x", "f32", 157.3),
        ("rx7900xtx", "f16", 122.9),
        ("rx9070xt", "f8E4M3FN", 389.3),
        ("radeon-8060s", "f16", 59.4),
        ("a100", "f16", 312.0),
        ("rtx4090", "f16", 165.2),
    ],
)
def test_peaks_are_those_of_the_data_sheets(name: str, element_type: str, published: float) -> None:
    assert get_product(name).peak_flops(element_type) / TERA == pytest.approx(published, rel=1e-3)


def test_every_product_belongs_to_a_target_and_names_its_sources() -> None:
    for name, product in PRODUCTS.items():
        assert product.target in TARGETS
        assert product.name == name == name.lower()
        assert product.sources
        assert all("https://" in source for source in product.sources)
        assert product in products_of(product.target)


def test_every_hip_target_has_a_product_and_a_register_file() -> None:
    for name, target in TARGETS.items():
        if target.kind is TargetKind.HIP:
            assert products_of(name), name
            assert target.gfx in REGISTER_FILES


def test_the_lds_of_register_files_is_that_of_the_targets() -> None:
    for gfx, registers in REGISTER_FILES.items():
        assert registers.lds_bytes >= (TARGETS[gfx].lds_bytes or 0)
        assert registers.wave_size == TARGETS[gfx].wave_size


def test_no_product_has_more_compute_units_than_its_target_claims() -> None:
    for product in PRODUCTS.values():
        assert product.num_compute_units <= (TARGETS[product.target].num_compute_units or 0)


def test_an_unknown_product_is_told_with_the_closest_one() -> None:
    for other, target in (("mi308x", "gfx942"), ("RX7900GRE", "gfx1100"), ("h100", "cuda-sm_90")):
        text = (
            rf"{other.lower()} is known, and runs programs for {target}, but its peaks are not listed: they are for mi2"
        )
        with pytest.raises(UnknownProductError, match=text):
            get_product(other)
    with pytest.raises(UnknownProductError, match=r"unknown product 'mi355': known are mi210, .*did you mean mi355x\?"):
        get_product("mi355")
