"""What the products with our targets can do at most: peak arithmetic by element type, and memory bandwidth.

Peaks are products of figures that the sources name: compute units x operations per clock and unit x highest engine
clock, dense, multiplications and additions counted separately. No product reaches them. They make floors of run time,
never estimates. Standard library only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from amdnfs_targets.aliases import ALIASES

_CDNA2_PAPER = (
    "https://www.amd.com/content/dam/amd/en/documents/instinct-business-docs/white-papers/amd-cdna2-white-paper.pdf"
)
_CDNA3_PAPER = (
    "https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs/white-papers/amd-cdna-3-white-paper.pdf"
)
_CDNA4_PAPER = "https://www.amd.com/content/dam/amd/en/documents/instinct-tech-docs/white-papers/amd-cdna-4-architecture-whitepaper.pdf"
_RDNA_RATES = "https://gpuopen.com/learn/using_matrix_core_amd_rdna4/ (operations per clock and compute unit)"
_RADEON = "https://www.amd.com/en/products/specifications/graphics.html (compute units, boost clock, bandwidth)"
_RYZEN = (
    "https://www.amd.com/en/products/specifications/processors.html (compute units, graphics clock, memory), times the "
    "width of the memory bus"
)


class UnknownProductError(ValueError):
    """A name that is no product with known peaks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """One product, as the runtime sees it: one GCD of an MI250X is a device of its own."""

    name: str
    """Name on the command line, lower case, e.g. `mi300x`."""

    label: str
    """Name for people."""

    target: str
    """Canonical name of the target whose programs it runs."""

    num_compute_units: int
    """Compute units (NVIDIA: multiprocessors) of one device."""

    clock_mhz: int
    """Highest engine clock, in MHz."""

    flops_per_clock: Mapping[str, int]
    """Dense operations per clock and compute unit by MLIR element type; `f8` is any 8-bit float. Best of vector and
    matrix units. A type that is absent is computed as f32."""

    memory_gb_s: float
    """Peak memory bandwidth, in 10^9 bytes a second."""

    sources: tuple[str, ...]
    """Where the figures come from."""

    def peak_flops(self, element_type: str) -> float:
        """Peak operations a second for factors of this MLIR element type.

        >>> round(get_product("mi300x").peak_flops("bf16") / 1e12, 1)
        1307.4
        >>> get_product("rx6900xt").peak_flops("bf16") == get_product("rx6900xt").peak_flops("f32")
        True
        """
        key = "f8" if element_type.startswith("f8") else element_type
        rate = self.flops_per_clock.get(key, self.flops_per_clock["f32"])
        return rate * self.num_compute_units * self.clock_mhz * 1e6

    @property
    def memory_bytes_per_s(self) -> float:
        """Peak memory bandwidth, in bytes a second."""
        return self.memory_gb_s * 1e9


_CDNA2 = MappingProxyType({"f32": 256, "f16": 1024, "bf16": 1024, "i8": 1024})
_CDNA3 = MappingProxyType({"f32": 256, "f16": 2048, "bf16": 2048, "i8": 4096, "f8": 4096})
_CDNA4 = MappingProxyType({"f32": 256, "f16": 4096, "bf16": 4096, "i8": 8192, "f8": 8192})
_RDNA2 = MappingProxyType({"f32": 128, "f16": 256, "i8": 512})
_RDNA3 = MappingProxyType({"f32": 256, "f16": 512, "bf16": 512, "i8": 512})
_RDNA4 = MappingProxyType({"f32": 256, "f16": 1024, "bf16": 1024, "i8": 2048, "f8": 2048})
# NVIDIA, products accumulated in f32.
_SM80 = MappingProxyType({"f32": 128, "f16": 2048, "bf16": 2048, "i8": 4096})
_SM86 = MappingProxyType({"f32": 256, "f16": 512, "bf16": 512, "i8": 2048})
_SM90 = MappingProxyType({"f32": 256, "f16": 4096, "bf16": 4096, "i8": 8192, "f8": 8192})
_SM89 = MappingProxyType({"f32": 256, "f16": 512, "bf16": 512, "i8": 2048, "f8": 1024})


def _product(
    name: str, label: str, target: str, size: tuple[int, int], rates: Mapping[str, int], gb_s: float, *sources: str
) -> Product:
    """`size` is compute units and clock in MHz."""
    units, clock = size
    return Product(
        name=name,
        label=label,
        target=target,
        num_compute_units=units,
        clock_mhz=clock,
        flops_per_clock=rates,
        memory_gb_s=gb_s,
        sources=sources,
    )


def _instinct(name: str) -> str:
    return f"https://www.amd.com/en/products/accelerators/instinct/{name}.html (compute units, clock, bandwidth)"


_MI200, _MI300, _MI350 = (_instinct(name) for name in ("mi200", "mi300", "mi350"))

_ALL = (
    _product("mi210", "AMD Instinct MI210", "gfx90a", (104, 1700), _CDNA2, 1638.4, _CDNA2_PAPER, _MI200),
    _product("mi250", "AMD Instinct MI250, one GCD", "gfx90a", (104, 1700), _CDNA2, 1638.4, _CDNA2_PAPER, _MI200),
    _product("mi250x", "AMD Instinct MI250X, one GCD", "gfx90a", (110, 1700), _CDNA2, 1638.4, _CDNA2_PAPER, _MI200),
    _product("mi300x", "AMD Instinct MI300X", "gfx942", (304, 2100), _CDNA3, 5300, _CDNA3_PAPER, _MI300),
    _product("mi300a", "AMD Instinct MI300A", "gfx942", (228, 2100), _CDNA3, 5300, _CDNA3_PAPER, _MI300),
    _product("mi325x", "AMD Instinct MI325X", "gfx942", (304, 2100), _CDNA3, 6000, _CDNA3_PAPER, _MI300),
    _product("mi350x", "AMD Instinct MI350X", "gfx950", (256, 2200), _CDNA4, 8000, _CDNA4_PAPER, _MI350),
    _product("mi355x", "AMD Instinct MI355X", "gfx950", (256, 2400), _CDNA4, 8000, _CDNA4_PAPER, _MI350),
    _product("rx6900xt", "AMD Radeon RX 6900 XT", "gfx1030", (80, 2250), _RDNA2, 512, _RDNA_RATES, _RADEON),
    _product("rx7900xtx", "AMD Radeon RX 7900 XTX", "gfx1100", (96, 2500), _RDNA3, 960, _RDNA_RATES, _RADEON),
    _product("rx7900xt", "AMD Radeon RX 7900 XT", "gfx1100", (84, 2400), _RDNA3, 800, _RDNA_RATES, _RADEON),
    _product("w7900", "AMD Radeon PRO W7900", "gfx1100", (96, 2495), _RDNA3, 864, _RDNA_RATES, _RADEON),
    _product("rx7800xt", "AMD Radeon RX 7800 XT", "gfx1101", (60, 2430), _RDNA3, 624, _RDNA_RATES, _RADEON),
    _product("rx7600", "AMD Radeon RX 7600", "gfx1102", (32, 2655), _RDNA3, 288, _RDNA_RATES, _RADEON),
    _product("radeon-780m", "AMD Radeon 780M, LPDDR5X-7500", "gfx1103", (12, 2700), _RDNA3, 120, _RDNA_RATES, _RYZEN),
    _product("radeon-890m", "AMD Radeon 890M, LPDDR5X-8000", "gfx1150", (16, 2900), _RDNA3, 128, _RDNA_RATES, _RYZEN),
    _product("radeon-8060s", "AMD Radeon 8060S (Strix Halo)", "gfx1151", (40, 2900), _RDNA3, 256, _RDNA_RATES, _RYZEN),
    _product("radeon-860m", "AMD Radeon 860M, LPDDR5X-8000", "gfx1152", (8, 3000), _RDNA3, 128, _RDNA_RATES, _RYZEN),
    _product("rx9060xt", "AMD Radeon RX 9060 XT", "gfx1200", (32, 3130), _RDNA4, 320, _RDNA_RATES, _RADEON),
    _product("rx9070xt", "AMD Radeon RX 9070 XT", "gfx1201", (64, 2970), _RDNA4, 640, _RDNA_RATES, _RADEON),
    _product("rx9070", "AMD Radeon RX 9070", "gfx1201", (56, 2520), _RDNA4, 640, _RDNA_RATES, _RADEON),
    _product("r9700", "AMD Radeon AI PRO R9700", "gfx1201", (64, 2920), _RDNA4, 640, _RDNA_RATES, _RADEON),
    _product(
        "a100",
        "NVIDIA A100 80GB SXM",
        "cuda-sm_80",
        (108, 1410),
        _SM80,
        2039,
        "https://www.nvidia.com/en-us/data-center/a100/",
    ),
    _product(
        "rtx3090",
        "NVIDIA GeForce RTX 3090",
        "cuda-sm_86",
        (82, 1695),
        _SM86,
        936,
        "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.pdf",
    ),
    _product(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        "cuda-sm_89",
        (128, 2520),
        _SM89,
        1008,
        "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf",
    ),
    _product(
        "h200",
        "NVIDIA H200 SXM",
        "cuda-sm_90",
        (132, 1830),
        _SM90,
        4800,
        "https://www.nvidia.com/en-us/data-center/h200/",
        "https://resources.nvidia.com/en-us-tensor-core/gtc22-whitepaper-hopper",
    ),
)

PRODUCTS: Mapping[str, Product] = MappingProxyType({product.name: product for product in _ALL})
"""Every product with known peaks, by name."""

_OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "strix-halo": "radeon-8060s",
        "strix-point": "radeon-890m",
        "krackan-point": "radeon-860m",
        "phoenix": "radeon-780m",
    }
)


def get_product(name: str) -> Product:
    """Finds a product by its name, upper or lower case.

    >>> get_product("Strix-Halo").label
    'AMD Radeon 8060S (Strix Halo)'

    Raises:
        UnknownProductError: If none is called so; the message lists the known names and the closest one. Or if no peaks
            are listed for it, though programs can be compiled for it by this name.
    """
    key = name.strip().lower()
    found = PRODUCTS.get(_OTHER_NAMES.get(key, key))
    if found is None and key in ALIASES:
        raise UnknownProductError(
            f"{key} is known, and runs programs for {ALIASES[key]}, but its peaks are not listed: they are for "
            f"{', '.join(PRODUCTS)}; for figures without floors of {key}: --target {ALIASES[key]}"
        )
    if found is None:
        closest = difflib.get_close_matches(key, [*PRODUCTS, *_OTHER_NAMES], n=1, cutoff=0.6)
        hint = f"; did you mean {closest[0]}?" if closest else ""
        raise UnknownProductError(f"unknown product {name!r}: known are {', '.join(PRODUCTS)}{hint}")
    return found


def products_of(target: str) -> tuple[Product, ...]:
    """The products that run programs for `target` (its canonical name); the best known first.

    >>> [product.name for product in products_of("gfx950")]
    ['mi350x', 'mi355x']
    """
    return tuple(product for product in _ALL if product.target == target)
