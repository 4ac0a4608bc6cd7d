"""MLIR text that carries a compiled kernel in a program, until `lower-kernel-objects` gives it the device's target.

While the program is linalg on tensors, nothing names the device yet, so the code object waits in an attribute of a
`hal.executable.source`. The kernel's facts ride along for the artifact's facts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from amdnfs_passes.kernels.provider import CompiledKernel

OBJECT_ATTRIBUTE = "amdnfs.object"
"""Attribute with the bytes of the code object, a dense tensor of i8."""
PATH_ATTRIBUTE = "amdnfs.object_path"
"""Attribute with the file name that the code object has in IREE's messages."""
FACTS_ATTRIBUTE = "amdnfs.facts"
"""Attribute of an executable with what is known about its kernel."""
COST_ATTRIBUTE = "amdnfs.cost"
"""Attribute of a dispatch with its work."""

_SPARE_CONSTANTS = 3
"""Triton appends two pointers of its own that these kernels do not use. The launch still reads a place for each."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Work of one dispatch as a linear function of the context length (in tokens)."""

    flops: tuple[int, int]
    """Multiplications and additions: constant part, part for each token of context."""
    num_bytes: tuple[int, int]
    """Least bytes moved: constant part, part for each token of context."""
    element: str | None = None
    """MLIR type of the factors; None: that of the dispatch's first tensor of floats."""


def executable_symbol(kernel: CompiledKernel) -> str:
    """Name of the kernel's executable in a module: the same code has the same name, so that it is carried once."""
    return f"amdnfs.{kernel.entry}.{hashlib.sha256(kernel.code).hexdigest()[:12]}"


def executable_text(kernel: CompiledKernel, *, operation: str, reads: int, writes: int, constants: int) -> str:
    """A private executable with one export, the kernel; its workload is the number of workgroups in x, y and z.

    Args:
        kernel: The compiled kernel.
        operation: What the kernel does, for reports: `paged_attention`.
        reads: Number of leading pointer arguments that are only read.
        writes: Number of pointer arguments after them that are written.
        constants: Number of 32-bit arguments after the pointers.
    """
    symbol = executable_symbol(kernel)
    bindings = ["#hal.pipeline.binding<storage_buffer, ReadOnly>"] * reads
    bindings += ["#hal.pipeline.binding<storage_buffer>"] * writes
    lds = f", workgroup_local_memory = {kernel.dynamic_lds_bytes}" if kernel.dynamic_lds_bytes else ""
    extension = "ptx" if kernel.code.lstrip().startswith(b"//") else "hsaco"
    return f"""hal.executable.source private @"{symbol}" attributes {{
    {PATH_ATTRIBUTE} = "{symbol}.{extension}",
    {OBJECT_ATTRIBUTE} = dense<"0x{kernel.code.hex()}"> : tensor<{len(kernel.code)}xi8>,
    {FACTS_ATTRIBUTE} = {_facts(kernel, operation)}}} {{
  hal.executable.export public @{kernel.entry} ordinal(0) layout(#hal.pipeline.layout<
      constants = {constants + _SPARE_CONSTANTS}, bindings = [{", ".join(bindings)}]>)
      count(%device: !hal.device, %x: index, %y: index, %z: index) -> (index, index, index) {{
    hal.return %x, %y, %z : index, index, index
  }} <workgroup_size = [{kernel.threads} : index, 1 : index, 1 : index]{lds}>
}}
"""


def dispatch_text(
    result: str,
    kernel: CompiledKernel,
    grid: Sequence[int],
    operands: Sequence[tuple[str, str]],
    results: Sequence[str],
    cost: Cost,
) -> str:
    """Lines that dispatch a kernel; need `%spare = arith.constant 0 : i32` before them.

    Args:
        result: Name of the result, `%part` or `%part:2`; names of constants are made from it.
        kernel: The kernel.
        grid: Workgroups in x, y and z.
        operands: Name and type of each operand, tensors first. A dynamic type carries its sizes: `tensor<?xf32>{%n}`.
        results: Types of the results; a tied one is written `%operand as type`.
        cost: Work of this dispatch.
    """
    stem = result.partition(":")[0]
    x, y, z = (*grid, 1, 1)[:3]
    names = [name for name, _ in operands] + ["%spare"] * _SPARE_CONSTANTS
    types = [kind for _, kind in operands] + ["i32"] * _SPARE_CONSTANTS
    flops, moved = (f"[{part[0]}, {part[1]}]" for part in (cost.flops, cost.num_bytes))
    kind = f', type = "{cost.element}"' if cost.element is not None else ""
    return f"""    {stem}_x = arith.constant {x} : index
    {stem}_y = arith.constant {y} : index
    {stem}_z = arith.constant {z} : index
    {result} = flow.dispatch @"{executable_symbol(kernel)}"::@{kernel.entry}[{stem}_x, {stem}_y, {stem}_z](
        {", ".join(names)}) {{{COST_ATTRIBUTE} = {{flops = {flops}, bytes = {moved}{kind}}}}}
        : ({", ".join(types)}) -> ({", ".join(results)})
"""


def _facts(kernel: CompiledKernel, operation: str) -> str:
    figures = kernel.facts
    numbers = {
        "matrix_instructions": figures.matrix_instructions,
        "spills": figures.num_spills,
        "scratch_bytes": figures.scratch_bytes,
        "lds_bytes": figures.lds_bytes,
        **({"vgprs": figures.vgprs} if figures.vgprs is not None else {}),
        **({"sgprs": figures.sgprs} if figures.sgprs is not None else {}),
    }
    widths = {"loads": figures.load_widths, "stores": figures.store_widths}
    inner = [f"{key} = {value} : i64" for key, value in numbers.items()]
    for key, pairs in widths.items():
        counts = ", ".join(f'"{width}" = {count} : i64' for width, count in pairs)
        inner.append(f"{key} = {{{counts}}}")
    return (
        f'{{op = "{operation}", entry = "{kernel.entry}", tiling = "{kernel.tiling.describe()}", '
        f"kernel = {{{', '.join(inner)}}}}}"
    )
