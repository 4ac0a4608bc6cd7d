"""Executes each entry point of a report's hip programs once on the emulator, and puts what was counted beside it.

    report  +  one call an entry point, at the report's context  ->  the same report with `executed` filled in

Pools are zeroed and tokens random: neither changes how much work there is, but in models with experts.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from amdnfs_runtime.bundle import EntryPoint, Manifest, read_manifest, verify_files
from amdnfs_runtime.calls import Arguments
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.execution import EmulatedSteps, Emulation
from amdnfs_runtime.report.code_objects import find_code_objects
from amdnfs_runtime.report.counters import CountedDispatch, Executed, add_up, image_digest, read_lines
from amdnfs_runtime.report.facts import read_facts
from amdnfs_runtime.report.model import EntryReport, GroupReport, Report, TargetReport

EXECUTED_CONTEXT_TOKENS = 64
"""Context of an execution if none is named, in tokens; less if the model takes less. An emulator is slow."""
COUNTERS_VARIABLE = "AMDNFS_EMULATE_COUNTERS"
_PARTS = ("head", "layer", "tail")


def execute_report(
    report: Report, bundle: Path, emulation: Emulation, on_entry: Callable[[str], None] = lambda _name: None
) -> Report:
    """Executes every entry point of the hip programs in a report.

    Args:
        report: From `make_report`, for the same bundle.
        bundle: The bundle.
        emulation: How to emulate.
        on_entry: Told of each entry point before it is executed.

    Raises:
        UsageError: If the report has no hip program.
        ArtifactError: If the bundle is damaged, the emulator refuses or stops a program, or it counts nothing.
    """
    if not any(target.kind == "hip" for target in report.targets):
        raise UsageError(
            f"--execute runs hip programs, and the report is on {', '.join(item.name for item in report.targets)}; "
            "choose another --target"
        )
    manifest = read_manifest(bundle)
    verify_files(bundle, manifest, manifest.weights)
    targets = tuple(
        _target(target, bundle, manifest, emulation, on_entry) if target.kind == "hip" else target
        for target in report.targets
    )
    return dataclasses.replace(report, targets=targets)


def _target(
    report: TargetReport, bundle: Path, manifest: Manifest, emulation: Emulation, on_entry: Callable[[str], None]
) -> TargetReport:
    exports = _exports(bundle, manifest, report.name)
    points = {point.name: point for point in manifest.targets[report.name].entry_points}
    pages = 1 + max(entry.batch * -(-entry.context_tokens // manifest.page_tokens) for entry in report.entries)
    entries = []
    with tempfile.TemporaryDirectory(prefix="amdnfs-") as folder:
        lines = Path(folder) / "counters.jsonl"
        settings = {**emulation.settings, COUNTERS_VARIABLE: str(lines)}
        with EmulatedSteps(bundle, report.name, pages, dataclasses.replace(emulation, settings=settings)) as steps:
            seen = _size(lines)  # what ran while the program was loaded belongs to no entry point
            for entry in report.entries:
                on_entry(f"{report.name} {entry.name}")
                steps.step(entry.name, _arguments(manifest, points[entry.name], entry.context_tokens))
                counted = read_lines(_text(lines, emulation)[seen:])
                seen = _size(lines)
                entries.append(_entry(entry, _by_export(counted, exports)))
    return dataclasses.replace(report, entries=tuple(entries))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _text(path: Path, emulation: Emulation) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{emulation.library}: this HIP library counts nothing; unset AMDNFS_HIP_DYLIB to use the one that comes "
            "with amdnfs"
        ) from error


def _exports(bundle: Path, manifest: Manifest, target: str) -> dict[tuple[str, str], str]:
    """The keys of kernels by what the emulator calls them: digest of the code object, and symbol."""
    entry = manifest.targets[target]
    program = (bundle / entry.program).read_bytes()
    digests = {
        item.sha256: image_digest(program[item.offset : item.offset + item.num_bytes])
        for item in find_code_objects(program)
    }
    kernels = read_facts(bundle / entry.facts).kernels
    return {(digests[item["object"]], item["symbol"]): key for key, item in kernels.items() if "object" in item}


def _arguments(manifest: Manifest, point: EntryPoint, context: int) -> Arguments:
    """Random new tokens at the end of a context; every request has pages of its own."""
    tokens = np.random.default_rng(0).integers(0, manifest.model.vocab_size, (point.batch, point.tokens), np.int64)
    start = np.full(point.batch, context - point.tokens, np.int64)
    valid = np.full(point.batch, point.tokens, np.int64)
    width = -(-context // manifest.page_tokens)
    table = 1 + np.arange(point.batch * width, dtype=np.int32).reshape(point.batch, width)
    return tokens, start, valid, table


def _by_export(counted: Iterable[CountedDispatch], exports: Mapping[tuple[str, str], str]) -> dict[str, list[Executed]]:
    """Counts of an entry point's dispatches by kernel, in the order in which they ran."""
    found: dict[str, list[Executed]] = {}
    for item in counted:
        export = exports.get((item.code_object, item.symbol))
        if export is None:
            raise ArtifactError(
                f"the emulator ran {item.symbol} of the code object {item.code_object}, which facts.json does not "
                "describe; compile the target again"
            )
        found.setdefault(export, []).append(item.counts)
    return found


def _entry(entry: EntryReport, counted: Mapping[str, Sequence[Executed]]) -> EntryReport:
    """An entry point with its counts; every dispatch of the report must have run, and no other.

    Raises:
        ArtifactError: If a kernel ran more or less often than the facts say.
    """
    owners = _owners(entry.groups)
    for export in [*owners, *(name for name in counted if name not in owners)]:
        ran, expected = len(counted.get(export, ())), len(owners.get(export, ()))
        if ran != expected:
            raise ArtifactError(
                f"{entry.name} ran {export} {ran} time(s), but facts.json has {expected} dispatch(es) of it; compile "
                "the target again"
            )
    parts: dict[int, list[Executed]] = {}
    for export, indices in owners.items():
        for index, counts in zip(indices, counted[export], strict=True):
            parts.setdefault(index, []).append(counts)
    groups = tuple(
        dataclasses.replace(group, executed=add_up(parts.get(index, ()))) for index, group in enumerate(entry.groups)
    )
    everything = add_up(counts for items in counted.values() for counts in items)
    return dataclasses.replace(entry, groups=groups, executed=everything)


def _owners(groups: Sequence[GroupReport]) -> dict[str, list[int]]:
    """For each kernel the indices of the groups whose dispatches run it, in program order: layer after layer."""
    places: dict[str, list[tuple[int, int, int]]] = {}
    for index, group in enumerate(groups):
        for number in range(group.count):
            layer = group.layers[number * len(group.layers) // group.count] if group.layers else 0
            places.setdefault(group.export, []).append((_PARTS.index(group.part), layer, index))
    return {export: [index for _, _, index in sorted(items)] for export, items in places.items()}
