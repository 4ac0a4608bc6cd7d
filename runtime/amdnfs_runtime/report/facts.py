"""The part of an artifact's facts.json that a report reads: what its dispatches cost and what their code is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_runtime.errors import ArtifactError


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
        ArtifactError: If it is damaged, or was written before compiles counted what a report needs.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({error}); compile the target again") from error
    missing = sorted({"dispatches", "kernels", "code_objects"} - set(values))
    if missing:
        raise ArtifactError(
            f"{path}: has no {' and no '.join(missing)}; the target was compiled before reports were made: "
            "compile it again"
        )
    try:
        return Facts(
            entries={name: _entry(item) for name, item in values["dispatches"].items()},
            kernels=values["kernels"],
            code_objects=tuple(item["sha256"] for item in values["code_objects"]),
            passes=tuple((item["name"], int(item["rewrites"])) for item in values["passes"]),
            refusals=tuple(values["refusals"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{path}: damaged facts ({error!r}); compile the target again") from error


def _entry(values: Mapping[str, Any]) -> EntryFacts:
    copies = [_cost(item["bytes"]) for item in values["copies"]]
    return EntryFacts(
        groups=tuple(_group(item) for item in values["groups"]),
        weight_bytes=_cost(values["weight_bytes"]),
        copied_bytes=Cost(
            constant=sum(item.constant for item in copies),
            per_page=sum(item.per_page for item in copies),
            per_context_token=sum(item.per_context_token for item in copies),
        ),
        num_copies=sum(int(item["count"]) for item in values["copies"]),
    )


def _group(values: Mapping[str, Any]) -> DispatchGroup:
    return DispatchGroup(
        export=values["export"],
        part=values["part"],
        op=values["op"],
        kind=values["kind"],
        layers=tuple(values["layers"]),
        count=int(values["count"]),
        flops=_cost(values["flops"]),
        num_bytes=_cost(values["bytes"]),
        contractions=tuple(_contraction(item) for item in values["contractions"]),
        habits=tuple(values.get("habits", ())),
        unknown=tuple(values.get("unknown", ())),
    )


def _contraction(values: Mapping[str, Any]) -> Contraction:
    return Contraction(
        operation=values["operation"],
        element_type=values["type"],
        sizes=values["sizes"],
        rows=_cost(values["rows"]),
        flops=_cost(values["flops"]),
    )


def _cost(values: Mapping[str, float]) -> Cost:
    unknown = sorted(set(values) - {"constant", "per_page", "per_context_token"})
    if unknown:
        raise ValueError(f"a cost has the unknown part {unknown[0]!r}")
    return Cost(
        constant=values["constant"],
        per_page=values.get("per_page", 0),
        per_context_token=values.get("per_context_token", 0),
    )
