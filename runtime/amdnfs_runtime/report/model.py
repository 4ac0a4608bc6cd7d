"""The data of a report: what `build.py` fills in and what text, page and JSON show."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amdnfs_targets.products import PRODUCTS, Product

from amdnfs_runtime.report.counters import Executed
from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.roofline import Floor

REPORT_VERSION = 1
"""Version of the JSON form."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupReport:
    """Dispatches of an entry point that differ in their layer only, at one length of context."""

    op: str
    """Where in the model they come from."""
    part: str
    """`head`, `layer` or `tail`."""
    kind: str
    """`matmul`, `attention`, ..."""
    layers: tuple[int, ...]
    """Layers that they belong to."""
    count: int
    """How many there are."""
    flops: float
    """Multiplications and additions of one."""
    flops_by_type: Mapping[str, float]
    """These by type of the factors."""
    num_bytes: float
    """Bytes that one moves at least."""
    sizes: tuple[str, ...]
    """Trip counts of the products in one, e.g. `f16 m 16, n 352, k 128`."""
    rows: float
    """Rows that meet the same second factor; 0 if not known."""
    habits: tuple[str, ...]
    """What costs time."""
    unknown: tuple[str, ...]
    """What could not be counted."""
    export: str
    """Key of the kernel."""
    uses_matrix_units: bool | None
    """Whether its kernel has matrix instructions; None if not known."""
    operations: tuple[str, ...] = ()
    """What the products in one are, as the facts name it, e.g. `linalg.generic`."""
    is_quantized: bool = False
    """Whether one reads a quantised weight."""
    executed: Executed | None = None
    """What the emulator counted, over all of them; None if it did not run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryReport:
    """One entry point at one length of context."""

    name: str
    """Function name."""
    kind: str
    """`prefill` or `decode`."""
    batch: int
    """Requests a call."""
    tokens: int
    """New tokens a request."""
    context_tokens: int
    """Context of each request, new tokens included, filled up to whole pages."""
    num_dispatches: int
    """Dispatches of a call."""
    dispatches_per_layer: float
    """Of these, those that belong to layers, a layer."""
    flops: float
    """Multiplications and additions of matmuls and attention."""
    flops_by_type: Mapping[str, float]
    """These by type of the factors."""
    matrix_share: float | None
    """Share of the FLOPs in dispatches whose kernel has matrix instructions; None if not known."""
    num_bytes: float
    """Bytes that its dispatches and copies move at least."""
    least_bytes: float
    """Weights once and live cache once: what any program must move."""
    weight_bytes: float
    """Of these, weights."""
    cache_bytes: float
    """Of these, keys and values."""
    copied_bytes: float
    """Bytes of copies between dispatches, at most."""
    floors: tuple[Floor, ...]
    """By product."""
    groups: tuple[GroupReport, ...]
    """In program order."""
    executed: Executed | None = None
    """What the emulator counted in one call; None if it did not run."""

    @property
    def is_counted(self) -> bool:
        """Whether all work could be counted; if not, FLOPs and bytes are more than the figures say."""
        return not any(group.unknown for group in self.groups)


@dataclass(frozen=True, kw_only=True, slots=True)
class LedgerRow:
    """How one attention or matmul of an entry point came to its kernel."""

    entry: str
    """Entry point."""
    op: str
    """Where in the model it comes from."""
    layers: tuple[int, ...]
    """Layers that it belongs to."""
    taken_by: str
    """The pass that took it, and what it made of it."""
    uses_matrix_units: bool | None
    """Whether all of its arithmetic is in kernels with matrix instructions; None if not known."""
    why_not_ours: str = ""
    """Why no kernel of our own computes it; empty if one does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NearMiss:
    """A precondition of a pass that failed."""

    pass_name: str
    """The pass that looked."""
    reason: str
    """The precondition."""
    count: int
    """How often."""
    example: str
    """First line of one operation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The fusion ledger of a target."""

    rows: tuple[LedgerRow, ...]
    """Each attention and matmul."""
    passes: tuple[tuple[str, int], ...]
    """Our passes in order, with their rewrites."""
    near_misses: tuple[NearMiss, ...]
    """What was refused, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Warned:
    """Something that costs time, or that the report does not know."""

    kind: str
    """One of `findings.KINDS`."""
    where: str
    """Entry points and operation."""
    text: str
    """What was seen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetReport:
    """One target."""

    name: str
    """Canonical name."""
    kind: str
    """`hip`, `cpu`, `cuda` or `vulkan`."""
    entries: tuple[EntryReport, ...]
    """As in the manifest."""
    kernels: Mapping[str, KernelReport]
    """By `GroupReport.export`."""
    ledger: Ledger
    """Which pass took what, and what was refused."""
    warnings: tuple[Warned, ...]
    """The most expensive kind first."""
    missing: tuple[str, ...]
    """Figures that do not exist for this target, and why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """A bundle."""

    bundle: str
    """Name of its folder."""
    model: str
    """Name of the model."""
    architecture: str
    """Class name in transformers."""
    dtype: str
    """Storage type."""
    page_tokens: int
    """Tokens of a page."""
    context_tokens: int
    """Length of context that was asked for."""
    products: tuple[str, ...]
    """Products that floors are for."""
    targets: tuple[TargetReport, ...]
    """By name."""
    quantization: str = "none"
    """How the weights of the decoder layers are stored, as the manifest has it."""
    left_out: tuple[str, ...] = ()
    """Targets of the bundle that were not looked at, by name."""
    report_version: int = REPORT_VERSION
    """Version of the JSON form."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, with the peaks that the floors are made of."""
        values = dataclasses.asdict(self)
        for target, found in zip(values["targets"], self.targets, strict=True):
            for entry, item in zip(target["entries"], found.entries, strict=True):
                _add_shares(entry, item.executed)
                for group, part in zip(entry["groups"], item.groups, strict=True):
                    _add_shares(group, part.executed)
        values["peaks"] = {name: dict_of(PRODUCTS[name]) for name in self.products}
        return values


def _add_shares(values: dict[str, Any], executed: Executed | None) -> None:
    """Adds what follows from counts to their plain values."""
    if executed is not None:
        names = ("num_instructions", "asked_bytes", "moved_bytes", "active_lanes")
        values["executed"] |= {name: getattr(executed, name) for name in names}


def dict_of(product: Product) -> dict[str, Any]:
    """A product's peaks and their sources, as plain values."""
    return {
        "label": product.label,
        "target": product.target,
        "flops_per_s": {name: product.peak_flops(name) for name in product.flops_per_clock},
        "memory_bytes_per_s": product.memory_bytes_per_s,
        "sources": list(product.sources),
    }
