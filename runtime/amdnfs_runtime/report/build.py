"""Makes a report on a bundle: reads manifest, facts and code objects, and works out costs for a length of context."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from amdnfs_targets.products import PRODUCTS, Product, products_of
from amdnfs_targets.registry import TARGETS
from amdnfs_targets.target import TargetKind

from amdnfs_runtime.bundle import CACHE_BYTES, EntryPoint, LayerCacheEntry, Manifest, read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.report.facts import DispatchGroup, Facts, read_facts
from amdnfs_runtime.report.findings import find_warnings
from amdnfs_runtime.report.kernels import KernelReport, read_kernels
from amdnfs_runtime.report.ledger import make_ledger
from amdnfs_runtime.report.model import EntryReport, GroupReport, Report, TargetReport
from amdnfs_runtime.report.roofline import Work, floor_of

DEFAULT_CONTEXT_TOKENS = 2048
"""Context that costs are for if none is named, in tokens; less if the model takes less."""
_NO_KERNEL_FIGURES = "registers, LDS, scratch memory, spills, waves and load widths exist for hip programs only"


def make_report(
    bundle: Path, target: str | None = None, product: Product | None = None, context_tokens: int | None = None
) -> Report:
    """Looks at the programs of a bundle; runs nothing.

    Args:
        bundle: The bundle.
        target: Canonical name of the one target to look at; all by default.
        product: Take floors for this product alone, and look at its target alone; default: all products of a target.
        context_tokens: Context of each request, in tokens.

    Raises:
        ArtifactError: If the bundle is damaged, or facts and program disagree.
        UsageError: If the bundle lacks the target, or the context is out of range.
    """
    manifest = read_manifest(bundle)
    names = _targets_asked(bundle, manifest, target, product)
    if context_tokens is None:
        context_tokens = min(DEFAULT_CONTEXT_TOKENS, manifest.model.context_tokens)
    if not 1 <= context_tokens <= manifest.model.context_tokens:
        raise UsageError(
            f"--context {context_tokens}: {manifest.model.name} takes 1 to {manifest.model.context_tokens}"
        )
    left_out = tuple(sorted(set(manifest.targets).difference(names)))
    reports = tuple(_target(bundle, manifest, name, product, context_tokens) for name in names)
    if product is not None and target is None and left_out:  # nobody asked for that in so many words
        text = f"{product.name} runs the program for {names[0]}; not looked at: {', '.join(left_out)}"
        reports = tuple(dataclasses.replace(item, missing=(text, *item.missing)) for item in reports)
    used = {floor.product for item in reports for entry in item.entries for floor in entry.floors}
    return Report(
        bundle=bundle.resolve().name,
        model=manifest.model.name,
        architecture=manifest.model.architecture,
        dtype=manifest.model.dtype,
        page_tokens=manifest.page_tokens,
        context_tokens=context_tokens,
        products=tuple(name for name in PRODUCTS if name in used),
        targets=reports,
        quantization=manifest.model.quantization,
        left_out=left_out,
    )


def _targets_asked(bundle: Path, manifest: Manifest, target: str | None, product: Product | None) -> list[str]:
    """The targets to look at: the one that is named or that a product runs, else all."""
    if product is not None and target is None and product.target in manifest.targets:
        target = product.target
    if target is not None and target not in manifest.targets:
        raise UsageError(f"{bundle} has no program for {target}; it has {', '.join(sorted(manifest.targets))}")
    names = sorted(manifest.targets) if target is None else [target]
    if product is not None and not any(_runs(product, name) for name in names):
        raise UsageError(
            f"{product.name} runs programs for {product.target}, but the report is on {', '.join(names)}; "
            "choose another --product or --target"
        )
    return names


def _runs(product: Product, target: str) -> bool:
    """Whether a product runs programs for a target; Vulkan programs run on any GPU."""
    return product.target == target or TARGETS[target].kind is TargetKind.VULKAN


def _target(bundle: Path, manifest: Manifest, name: str, product: Product | None, context: int) -> TargetReport:
    entry = manifest.targets[name]
    verify_files(bundle, manifest, [entry.program, entry.facts])
    facts = read_facts(bundle / entry.facts)
    kernels = read_kernels(bundle / entry.program, facts, entry.gfx)
    products = products_of(name) if product is None else (product,) if _runs(product, name) else ()
    entries = tuple(_entry(manifest, point, facts, kernels, products, context) for point in entry.entry_points)
    missing = [] if entry.gfx else [f"{name}: {_NO_KERNEL_FIGURES}"]
    if any(item.matrix_share is None for item in entries):
        missing.append(f"{name}: the share of FLOPs on matrix units is not known")
    if not products and TARGETS[name].kind is TargetKind.VULKAN:
        missing.append(f"{name}: no floors, because its program runs on many products; name one with --product")
    elif not products:
        missing.append(f"{name}: no floors, because the peaks of its processors are not listed")
    inexact = [kernel.symbol for kernel in kernels.values() if kernel.assembly_differs_in]
    if inexact:
        missing.append(
            f"{name}: of {len(inexact)} kernel(s) the assembly, in which instructions are counted, differs in "
            f"registers from the code object, so the counts may be off by a few: {', '.join(inexact)}"
        )
    return TargetReport(
        name=name,
        kind=entry.kind,
        entries=entries,
        kernels=kernels,
        ledger=make_ledger(entries, kernels, facts),
        warnings=find_warnings(entries, kernels, name),
        missing=tuple(missing),
    )


def _entry(
    manifest: Manifest,
    point: EntryPoint,
    facts: Facts,
    kernels: Mapping[str, KernelReport],
    products: Sequence[Product],
    context: int,
) -> EntryReport:
    found = facts.entries.get(point.name)
    if found is None:
        raise ArtifactError(f"facts.json says nothing of the entry point {point.name}; compile the target again")
    page = manifest.page_tokens
    tokens = -(-max(context, point.tokens) // page) * page
    groups = tuple(_group(item, kernels, tokens, page) for item in found.groups)
    by_type = _by_type(groups)
    weights = found.weight_bytes.at(tokens, page)
    cache = float(point.batch * sum(_live_bytes(layer, manifest, point, tokens) for layer in manifest.layers))
    copied = found.copied_bytes.at(tokens, page)
    works = [(Work(flops=item.flops_by_type, num_bytes=item.num_bytes), item.count) for item in groups]
    least = Work(flops=by_type, num_bytes=weights + cache)
    return EntryReport(
        name=point.name,
        kind=point.kind,
        batch=point.batch,
        tokens=point.tokens,
        context_tokens=tokens,
        num_dispatches=sum(item.count for item in groups),
        dispatches_per_layer=sum(item.count for item in groups if item.part == "layer") / len(manifest.layers),
        flops=sum(by_type.values()),
        flops_by_type=by_type,
        matrix_share=_matrix_share(groups),
        num_bytes=sum(item.num_bytes * item.count for item in groups) + copied,
        least_bytes=weights + cache,
        weight_bytes=weights,
        cache_bytes=cache,
        copied_bytes=copied,
        floors=tuple(floor_of(product, least, works, copied) for product in products),
        groups=groups,
    )


def _group(group: DispatchGroup, kernels: Mapping[str, KernelReport], tokens: int, page: int) -> GroupReport:
    flops: dict[str, float] = {}
    for item in group.contractions:
        flops[item.element_type] = flops.get(item.element_type, 0) + item.flops.at(tokens, page)
    kernel = kernels.get(group.export)
    return GroupReport(
        op=group.op,
        part=group.part,
        kind=group.kind,
        layers=group.layers,
        count=group.count,
        flops=group.flops.at(tokens, page),
        flops_by_type=flops,
        num_bytes=group.num_bytes.at(tokens, page),
        sizes=tuple(
            " ".join([item.element_type, ", ".join(f"{k} {v}" for k, v in item.sizes.items())])
            for item in group.contractions
        ),
        rows=max((item.rows.at(tokens, page) for item in group.contractions), default=0),
        habits=group.habits,
        unknown=group.unknown,
        export=group.export,
        uses_matrix_units=kernel.uses_matrix_units if kernel else None,
        operations=tuple(dict.fromkeys(item.operation for item in group.contractions)),
        is_quantized=group.is_quantized,
    )


def _by_type(groups: Sequence[GroupReport]) -> dict[str, float]:
    found: dict[str, float] = {}
    for group in groups:
        for name, flops in group.flops_by_type.items():
            found[name] = found.get(name, 0) + flops * group.count
    return dict(sorted(found.items()))


def _matrix_share(groups: Sequence[GroupReport]) -> float | None:
    """None as soon as one dispatch with arithmetic has a kernel that nobody could look into."""
    working = [group for group in groups if group.flops]
    if not working or any(group.uses_matrix_units is None for group in working):
        return None
    total = sum(group.flops * group.count for group in working)
    return sum(group.flops * group.count for group in working if group.uses_matrix_units) / total


def _live_bytes(layer: LayerCacheEntry, manifest: Manifest, point: EntryPoint, context: int) -> int:
    """Bytes of one request's keys and values that attention of a layer can see: the whole context, or the window."""
    if layer.kind != "paged":
        raise ArtifactError(f"a layer has a cache of kind {layer.kind!r}; this report knows 'paged'")
    seen = context if not layer.window else min(context, layer.window + point.tokens - 1)
    return 2 * seen * layer.kv_heads * layer.head_dim * CACHE_BYTES[manifest.cache_dtype]
