"""Tells of a bisection, and leaves what belongs to it in a folder: operands, results, the kernel's code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.report.code_objects import CodeObject, find_code_objects
from amdnfs_runtime.report.facts import read_facts

from amdnfs_compile.bisect import Bisection, Finding, TensorPair
from amdnfs_compile.listing import list_code
from amdnfs_compile.traced import TracedProgram

LISTING, CODE_OBJECT, SUMMARY = "kernel.txt", "kernel.hsaco", "finding.json"
"""Files of a bisection."""
_MAX_LINES, _PADDING = 24, "  s_nop()"


def write_bisection(bisection: Bisection, folder: Path) -> list[str]:
    """Writes what was found into `folder`, and gives the lines to print.

    Raises:
        ArtifactError: If the program cannot be read.
    """
    lines = list(bisection.notes)
    finding = bisection.finding
    if finding is None:
        return [*lines, "no dispatch differs"]
    for pair in (*finding.operands, *finding.results):
        stem = pair.name.split(",", maxsplit=1)[0].replace(" ", "-")
        for side, array in (("got", pair.got), ("wanted", pair.wanted)):
            np.save(folder / f"{stem}-{side}.npy", _plain(array))
    (folder / SUMMARY).write_text(json.dumps(finding_values(finding), indent=1) + "\n", encoding="utf-8")
    listing = _write_code(finding, bisection.program, folder)
    lines += _story(finding)
    lines += [f"  code of {finding.dispatch.export}, {len(listing)} instructions (all: {folder / LISTING}):"]
    lines += [f"    {line}" for line in listing if not line.endswith(_PADDING)][:_MAX_LINES]
    return [*lines, f"  operands, results and code object: {folder}"]


def finding_values(finding: Finding) -> dict[str, Any]:
    """A finding as plain values, without the tensors."""
    return {
        "target": finding.target,
        "beside": finding.other,
        "entry_point": finding.dispatch.entry,
        "dispatch": finding.dispatch.index,
        "kernel": finding.dispatch.export,
        "op": finding.op,
        "layer": finding.layer,
        "call": finding.call,
        "allowed": finding.allowed,
        "operands": [_values(pair) for pair in finding.operands],
        "results": [_values(pair) for pair in finding.results],
    }


def _values(pair: TensorPair) -> dict[str, Any]:
    error = pair.error if np.isfinite(pair.error) else None
    return {"name": pair.name, "error": error, "num_different": pair.num_different, "num_elements": pair.wanted.size}


def _story(finding: Finding) -> Iterator[str]:
    where = f"{finding.op} of layer {finding.layer}" if finding.layer is not None else finding.op or "a dispatch"
    dispatch = finding.dispatch
    yield f"first dispatch that differs: {where}, dispatch {dispatch.index} of {dispatch.entry}"
    yield f"  {finding.target} beside {finding.other}, in {finding.call}; allowed is {finding.allowed:.1e}"
    for pair in (*finding.operands, *finding.results):
        if np.isnan(pair.error):
            shapes = f"{list(pair.got.shape)} and {list(pair.wanted.shape)}"
            yield f"  {pair.name}: cannot be compared, {shapes}: the fault may lie in the dispatch that made it"
            continue
        verdict = "agrees" if not pair.num_different else f"{pair.num_different} of {pair.wanted.size} elements DIFFER"
        yield f"  {pair.name}: error {pair.error:.1e}, {_range(pair.wanted)}: {verdict}"
        if pair.num_different:
            yield f"    {_worst(pair)}"


def _range(array: npt.NDArray[Any]) -> str:
    values = array.astype(np.float64)
    values = values[np.isfinite(values)]
    return f"{values.min():.4g} to {values.max():.4g}" if values.size else "no numbers"


def _worst(pair: TensorPair) -> str:
    got, wanted = pair.got.astype(np.float64), pair.wanted.astype(np.float64)
    with np.errstate(invalid="ignore"):
        distance = np.nan_to_num(np.abs(got - wanted), nan=np.inf, posinf=np.inf)
    distance[np.isnan(got) & np.isnan(wanted)] = 0
    place = tuple(int(item) for item in np.unravel_index(int(distance.argmax()), distance.shape))
    return f"worst at {list(place)}: {got[place]:.6g} instead of {wanted[place]:.6g}"


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As files of numpy can hold it, which know neither bf16 nor fp8: such tensors become f32."""
    return array if array.dtype.kind in "iufb" else array.astype(np.float32)


def _write_code(finding: Finding, program: TracedProgram, folder: Path) -> list[str]:
    """Writes the kernel's code object and its listing; returns the listing."""
    content = program.program.read_bytes()
    symbol, home = _home(finding, program, content)
    if home is None:
        return []
    image = content[home.offset : home.offset + home.num_bytes]
    begin, end = home.functions.get(symbol, (0, 0))
    listing = [f"{line.offset:06x}  {line.text}" for line in list_code(image, begin, end, home.gfx)]
    (folder / CODE_OBJECT).write_bytes(image)
    (folder / LISTING).write_text("\n".join(listing) + "\n", encoding="utf-8")
    return listing


def _home(finding: Finding, program: TracedProgram, content: bytes) -> tuple[str, CodeObject | None]:
    """The kernel's symbol, and the code object of the program with traces that holds it."""
    manifest = read_manifest(program.bundle)
    facts = read_facts(program.bundle / manifest.targets[program.target].facts)
    kernel = facts.kernels[finding.dispatch.export]
    objects = find_code_objects(content)
    same = [item for item in objects if item.sha256 == kernel["object"]]
    symbol = str(kernel["symbol"])
    return symbol, next((item for item in [*same, *objects] if symbol in item.kernels), None)
