"""The part of an artifact's facts.json that a report reads: what its dispatches cost and what their code is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.report.json_fields import Field, FieldError, shown

_KERNEL_COUNTS = (
    "matrix_instructions",
    "vgprs",
    "agprs",
    "sgprs",
    "vgpr_spills",
    "sgpr_spills",
    "lds_bytes",
    "scratch_bytes",
    "workgroup_threads",
    "wave_size",
    "vector_alu",
    "f64",
    "barriers",
    "waits",
)
_MOST_DISPATCHES = 10**6
"""More layers, or dispatches of one kind, has no entry point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Work as a linear form of the context: `constant + per_page * pages + per_context_token * tokens`."""

    constant: float
    """Part that is always the same."""
    per_page: float
    """Part for each page of context of a request."""
    per_context_token: float
    """Part for each token of context of a request."""

    def at(self, context_tokens: int, page_tokens: int) -> float:
        """The work for a context that fills its pages.

        >>> Cost(constant=10, per_page=32, per_context_token=1).at(64, 16)
        202
        """
        return self.constant + self.per_page * (context_tokens // page_tokens) + self.per_context_token * context_tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Contraction:
    """A product of tensors in a dispatch."""

    operation: str
    """The operation of MLIR, or what a kernel of ours does."""
    element_type: str
    """Type of the factors."""
    sizes: Mapping[str, str]
    """Trip counts by `batch`, `m`, `n`, `k`; sizes may name `pages`."""
    rows: Cost
    """Rows that meet the same second factor; 0 if not known."""
    flops: Cost
    """Multiplications and additions."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DispatchGroup:
    """Dispatches of an entry point that differ in their layer only."""

    export: str
    """Key of their kernel."""
    part: str
    """`head`, `layer` or `tail`."""
    op: str
    """Where in the model they come from."""
    kind: str
    """`matmul`, `attention`, `gather`, ..."""
    layers: tuple[int, ...]
    """Layers that they belong to."""
    count: int
    """How many there are."""
    flops: Cost
    """Multiplications and additions of one."""
    num_bytes: Cost
    """Bytes that one moves at least."""
    contractions: tuple[Contraction, ...]
    """Products of tensors in one."""
    habits: tuple[str, ...]
    """What costs time: `cache-gather`, `mask`, `upcast f16 to f32`."""
    unknown: tuple[str, ...]
    """What could not be counted, and why."""
    is_quantized: bool
    """Whether one reads a quantised weight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryFacts:
    """One entry point."""

    groups: tuple[DispatchGroup, ...]
    """In program order."""
    weight_bytes: Cost
    """Bytes of the weights that it needs, each once."""
    copied_bytes: Cost
    """Bytes that copies between dispatches move, at most."""
    num_copies: int
    """How many such copies there are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a report reads of facts.json."""

    entries: Mapping[str, EntryFacts]
    """By entry point."""
    kernels: Mapping[str, Mapping[str, Any]]
    """By `DispatchGroup.export`; see `amdnfs_compile.kernel_facts`."""
    code_objects: tuple[str, ...]
    """Digests of the code objects, in the order in which they lie in the program."""
    passes: tuple[tuple[str, int], ...]
    """Passes in order, with their rewrites."""
    refusals: tuple[Mapping[str, str], ...]
    """Near misses: `pass`, `operation`, `reason`."""


def read_facts(path: Path) -> Facts:
    """Reads facts.json.

    Raises:
        ArtifactError: If it is damaged, or was written before compiles counted what a report needs; names the field,
            what was found, and what is allowed.
    """
    try:
        field = Field(value=json.loads(path.read_text(encoding="utf-8")))
    except RecursionError as error:
        raise ArtifactError(f"{path}: cannot be read as JSON (nested too deep); compile the target again") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({error}); compile the target again") from error
    try:
        missing = sorted({"dispatches", "kernels", "code_objects"} - field.names())
        if missing:
            raise ArtifactError(
                f"{path}: has no {' and no '.join(missing)}; the target was compiled before reports were made: "
                "compile it again"
            )
        return _facts(field)
    except FieldError as error:
        raise ArtifactError(
            f"{path}: {error}; the file was altered, or is of another version of amdnfs: compile the target again"
        ) from error


def _facts(field: Field) -> Facts:
    return Facts(
        entries={name: _entry(item) for name, item in field["dispatches"].items()},
        kernels={name: _kernel(item) for name, item in field["kernels"].items()},
        code_objects=tuple(item["sha256"].text() for item in field["code_objects"].elements()),
        passes=tuple((item["name"].text(), item["rewrites"].whole()) for item in field["passes"].elements()),
        refusals=tuple(
            {name: item[name].text() for name in ("pass", "operation", "reason")}
            for item in field["refusals"].elements()
        ),
    )


def _kernel(field: Field) -> dict[str, Any]:
    """What is noted of a kernel; a figure that is not there, or null, is not known."""
    found: dict[str, Any] = {"symbol": field["symbol"].text()}
    given = {name for name, item in field.items() if item.value is not None}
    found |= {name: field[name].text() for name in ("object", "made_by", "tiling") if name in given}
    found |= {name: field[name].whole() for name in _KERNEL_COUNTS if name in given}
    if "matrix" in given:
        found["matrix"] = field["matrix"].counts()
    for name in ("loads", "stores"):
        if name in given:
            found[name] = {space: item.counts() for space, item in field[name].items()}
    if "assembly_differs_in" in given:
        found["assembly_differs_in"] = field["assembly_differs_in"].texts()
    return found


def _entry(field: Field) -> EntryFacts:
    copies = [(item["count"].whole(most=_MOST_DISPATCHES), _cost(item["bytes"])) for item in field["copies"].elements()]
    return EntryFacts(
        groups=tuple(_group(item) for item in field["groups"].elements()),
        weight_bytes=_cost(field["weight_bytes"]),
        copied_bytes=Cost(
            constant=sum(item.constant for _, item in copies),
            per_page=sum(item.per_page for _, item in copies),
            per_context_token=sum(item.per_context_token for _, item in copies),
        ),
        num_copies=sum(count for count, _ in copies),
    )


def _group(field: Field) -> DispatchGroup:
    return DispatchGroup(
        export=field["export"].text(),
        part=field["part"].one_of("head", "layer", "tail"),
        op=field["op"].text(),
        kind=field["kind"].text(),
        layers=tuple(item.whole(most=_MOST_DISPATCHES) for item in field["layers"].elements()),
        count=field["count"].whole(1, _MOST_DISPATCHES),
        flops=_cost(field["flops"]),
        num_bytes=_cost(field["bytes"]),
        contractions=tuple(_contraction(item) for item in field["contractions"].elements()),
        habits=field.get("habits", []).texts(),
        unknown=field.get("unknown", []).texts(),
        is_quantized=field.get("quantized", False).flag(),
    )


def _contraction(field: Field) -> Contraction:
    return Contraction(
        operation=field["operation"].text(),
        element_type=field["type"].text(),
        sizes={name: item.text() for name, item in field["sizes"].items()},
        rows=_cost(field["rows"]),
        flops=_cost(field["flops"]),
    )


def _cost(field: Field) -> Cost:
    unknown = sorted(field.names() - {"constant", "per_page", "per_context_token"})
    if unknown:
        raise FieldError(f"{field.place} has the unknown part {shown(unknown[0])}")
    return Cost(
        constant=field["constant"].number(),
        per_page=field.get("per_page", 0).number(),
        per_context_token=field.get("per_context_token", 0).number(),
    )
