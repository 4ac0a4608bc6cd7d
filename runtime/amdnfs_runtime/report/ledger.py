"""The fusion ledger: which pass took each attention and each matmul, or which precondition failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from amdnfs_runtime.report.facts import Facts
from amdnfs_runtime.report.kernels import KernelReport
from amdnfs_runtime.report.model import EntryReport, GroupReport, Ledger, LedgerRow, NearMiss

_IREE = "kernel by IREE"
_VECTOR_LOOPS = "loops in vectors"
_TAKERS = {"attention": "dispatch-paged-attention", "matmul": "dispatch-linear"}
_LOWERINGS = {
    "attention": ("fuse-attention", "lower-attention", "lower-paged-attention"),
    "matmul": ("lower-linear", "lower-quantized-linear"),
}
"""Passes whose refusals tell, too, why no kernel of ours takes it."""


def make_ledger(entries: Sequence[EntryReport], kernels: Mapping[str, KernelReport], facts: Facts) -> Ledger:
    """The ledger of one target."""
    active = [name for name, rewrites in facts.passes if rewrites]
    misses = Counter((item["pass"], item["reason"]) for item in facts.refusals)
    examples = {(item["pass"], item["reason"]): item["operation"] for item in reversed(facts.refusals)}
    return Ledger(
        rows=tuple(row for entry in entries for row in _rows(entry, kernels, active, facts)),
        passes=facts.passes,
        near_misses=tuple(
            NearMiss(pass_name=name, reason=reason, count=count, example=examples[name, reason])
            for (name, reason), count in misses.items()
        ),
    )


def _rows(
    entry: EntryReport, kernels: Mapping[str, KernelReport], passes: Sequence[str], facts: Facts
) -> list[LedgerRow]:
    """One row for each matmul, and one for all parts of an attention that the same layers have."""
    together: dict[tuple[str, tuple[int, ...]], list[GroupReport]] = {}
    for group in entry.groups:
        if (group.flops and group.kind in ("matmul", "attention")) or group.op == "attention":
            together.setdefault((group.op, group.layers), []).append(group)
    return [
        LedgerRow(
            entry=entry.name,
            op=op,
            layers=layers,
            taken_by=_taken_by(op, groups, kernels, passes),
            uses_matrix_units=_uses_matrix_units(groups),
            why_not_ours=""
            if _is_ours(groups, kernels)
            else _why_not_ours("attention" if op == "attention" else "matmul", facts),
        )
        for (op, layers), groups in together.items()
    ]


def _taken_by(
    op: str, groups: Sequence[GroupReport], kernels: Mapping[str, KernelReport], passes: Sequence[str]
) -> str:
    makers = [(group, _maker(group, kernels, passes)) for group in groups]
    worked = [name for group, name in makers if group.flops]
    names = list(dict.fromkeys(worked or [name for _, name in makers]))
    if op != "attention" or any(not name.endswith(_IREE) for name in names):
        return "; ".join(names)
    steps = ", ".join(f"{count} {kind}" for kind, count in Counter(group.kind for group in groups).items())
    lowered = "lower-paged-attention: " if "lower-paged-attention" in passes else ""
    return f"{lowered}{len(groups)} dispatches ({steps}), {_IREE}"


def _maker(group: GroupReport, kernels: Mapping[str, KernelReport], passes: Sequence[str]) -> str:
    kernel = kernels.get(group.export)
    if kernel is not None and kernel.made_by != "iree":
        stem = kernel.symbol.replace("_", "-")
        taker = next((name for name in passes if name == f"dispatch-{stem}"), "a pass of ours")
        return f"{taker}: kernel {kernel.symbol}" + (f" ({kernel.tiling})" if kernel.tiling else "")
    lowering = "lower-quantized-linear" if group.is_quantized else "lower-linear"
    taker = f"{lowering}: " if lowering in passes and group.kind == "matmul" else ""
    loops = f"{_VECTOR_LOOPS}, " if _VECTOR_LOOPS in group.operations else ""
    return f"{taker}{loops}{_IREE}"


def _is_ours(groups: Sequence[GroupReport], kernels: Mapping[str, KernelReport]) -> bool:
    """Whether kernels of our own do all of the arithmetic."""
    worked = [kernels.get(group.export) for group in groups if group.flops]
    return bool(worked) and all(kernel is not None and kernel.made_by != "iree" for kernel in worked)


def _why_not_ours(kind: str, facts: Facts) -> str:
    """Why no kernel of our own took an attention or a matmul: what the passes that could have done it refused."""
    taker = _TAKERS[kind]
    if taker not in {name for name, _ in facts.passes}:
        return f"{taker} does not run for this target: our kernels are for GPUs with matrix units"
    for names in ((taker,), _LOWERINGS[kind]):
        refused = dict.fromkeys((item["pass"], item["reason"]) for item in facts.refusals if item["pass"] in names)
        if refused:
            return "; or ".join(f"{name} refused: {reason}" for name, reason in refused)
    return f"it has no form or type that {taker} takes, and nothing was refused"


def _uses_matrix_units(groups: Sequence[GroupReport]) -> bool | None:
    known = [group.uses_matrix_units for group in groups if group.flops]
    if None in known or not known:
        return None
    return all(known)
