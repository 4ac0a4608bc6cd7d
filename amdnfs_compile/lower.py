"""From a module of linalg on tensors to a `.vmfb`: the only place that runs IREE's compiler.

IREE runs in a process of its own, one phase at a time: a crash in it becomes a `LoweringError`, its memory is given
back, and between the phases our passes see the program.

    linalg --iree--> flow --fold-layer-calls--> flow --iree--> stream --verify-pool-in-place--> stream --iree--> vmfb
"""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amdnfs_passes.base import PassResult
from amdnfs_passes.ir import Context, Location, Module, walk
from amdnfs_runtime.errors import LoweringError
from amdnfs_targets.target import Target

from amdnfs_compile.kernel_facts import ASSEMBLY_FLAG, ProgramFacts, measure_program
from amdnfs_compile.pipeline import FLOW_PHASE, STREAM_PHASE, has_queue, run_phase
from amdnfs_compile.processes import CompilerProcesses

COMMON_FLAGS = ("--iree-opt-level=O2", "--iree-vm-bytecode-module-strip-source-map=true")
"""Flags for every target."""

_QUEUED_FLAGS = ("--iree-execution-model=async-external",)
"""For GPUs: a call is put on a queue and returns; two fences, its last arguments, say when it begins and has ended."""

_MAX_DIAGNOSTICS = 4
_MAX_LINE = 200
_LEAST_SIGNAL_STATUS = 256 - 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Lowered:
    """A compiled program and what happened on the way."""

    vmfb: bytes
    """The program."""
    flags: tuple[str, ...]
    """Flags of iree-compile."""
    passes: tuple[PassResult, ...]
    """Our passes at the flow and stream phases."""
    peak_rss_bytes: int
    """Largest resident size of any of IREE's processes, in bytes."""
    program_facts: ProgramFacts = field(default_factory=ProgramFacts)
    """What its dispatches do and what their code is, for the report."""


def lower_module(
    module_bytecode: bytes, target: Target, work: Path | None = None, processes: CompilerProcesses | None = None
) -> Lowered:
    """Compiles `module_bytecode` (linalg on tensors) for `target`; tries its fallback flags if that fails.

    Args:
        module_bytecode: MLIR bytecode after our torch-level passes.
        target: What to compile for.
        work: Folder for intermediate files; kept if given, else temporary.
        processes: Runs IREE's processes; may be stopped by another thread.

    Raises:
        LoweringError: If IREE fails; carries its first diagnostics.
        PassFailed: If one of our passes refuses the program.
        CompileStopped: If `processes` was stopped.
    """
    processes = processes or CompilerProcesses()
    try:
        return _lower_once(module_bytecode, target, work, (), processes)
    except LoweringError:
        if not target.fallback_flags:
            raise
        return _lower_once(module_bytecode, target, work, target.fallback_flags, processes)


def _lower_once(
    module_bytecode: bytes,
    target: Target,
    work: Path | None,
    extra_flags: tuple[str, ...],
    processes: CompilerProcesses,
) -> Lowered:
    with tempfile.TemporaryDirectory(prefix="amdnfs-") as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        flags = (*_flags(target), *extra_flags)
        source = folder / "0-linalg.mlirbc"
        source.write_bytes(module_bytecode)

        def iree(source: Path, output_name: str, *phase: str) -> Path:
            return _iree(folder, source, output_name, target, [*flags, *phase], processes)

        flow = iree(source, "1-flow.mlirbc", "--compile-to=flow")
        flow, flow_results = _our_phase(flow, FLOW_PHASE, target, folder / "2-flow-folded.mlirbc")
        stream = iree(flow, "3-stream.mlirbc", "--compile-from=flow", "--compile-to=stream")
        stream, stream_results = _our_phase(stream, STREAM_PHASE, target, folder / "4-stream-verified.mlirbc")
        assembly = _fresh(folder / "assembly") if target.gfx else None
        dump = () if assembly is None else (f"{ASSEMBLY_FLAG}{assembly.name}",)
        vmfb = iree(stream, "program.vmfb", "--compile-from=stream", *dump)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
        program = vmfb.read_bytes()
        return Lowered(
            vmfb=program,
            flags=flags,
            passes=(*flow_results, *stream_results),
            peak_rss_bytes=peak,
            program_facts=measure_program(flow, program, assembly),
        )


def compile_from_flow(flow: Path, target: Target, output_name: str) -> Path:
    """Compiles a module of the flow phase that is not for a bundle; no checks of a compile are made.

    Args:
        flow: The module, as bytecode.
        target: What to compile for.
        output_name: Of the `.vmfb`, in the folder of `flow`.

    Raises:
        LoweringError: If IREE fails.
    """
    flags = (*_flags(target), "--compile-from=flow")
    return _iree(flow.parent, flow, output_name, target, flags, CompilerProcesses())


def _flags(target: Target) -> tuple[str, ...]:
    queued = _QUEUED_FLAGS if has_queue(target) else ()
    return (*COMMON_FLAGS, *queued, *target.compile_flags)


def _fresh(folder: Path) -> Path:
    """`folder`, without what an earlier compile left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _our_phase(path: Path, phase: str, target: Target, output: Path) -> tuple[Path, list[PassResult]]:
    module = Module.parse(path.read_bytes(), Context())
    results = run_phase(phase, module, target)
    if phase == STREAM_PHASE:
        _locate_dispatches(module)
    write_bytecode(module, output)
    return output, results


def _locate_dispatches(module: Module) -> None:
    """Gives all dispatches the same made-up place in a file, so that the same program gives the same bytes.

    IREE 3.13.0 writes a source line for each dispatch of a cpu program; for one without a place it is whatever was in
    memory (`SourceLocation::line` in LLVMCPU's LibraryBuilder.h is never set). Can go when
    `test_the_same_bytes_wherever_and_in_whatever_steps` passes without it.
    """
    with module.context:
        place = Location.file("program", 1, 1)
    for operation in walk(module.operation):
        if operation.name == "stream.executable.export":
            operation.location = place


def write_bytecode(module: Module, path: Path) -> None:
    """Writes `module` as MLIR bytecode."""
    with path.open("wb") as file:
        module.operation.write_bytecode(file)


def _iree(
    folder: Path,
    source: Path,
    output_name: str,
    target: Target,
    flags: Sequence[str],
    processes: CompilerProcesses,
) -> Path:
    output = folder / output_name
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    binary = "--emit-mlir-bytecode" if output.suffix == ".mlirbc" else "--output-format=vm-bytecode"
    command = [str(compiler), source.name, binary, *flags, "-o", output.name]
    try:
        done = processes.run(command, folder, _environment())
        if done.returncode != 0:
            raise LoweringError(_failure(target, command, source, done.returncode, done.stderr))
    except BaseException:
        # In a folder that is kept, neither half a program may stay nor that of an earlier compile.
        output.unlink(missing_ok=True)
        raise
    return output


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("IREE_", "PYTHON"))}


def _failure(target: Target, command: Sequence[str], source: Path, code: int, stderr: str) -> str:
    found = [line.strip()[:_MAX_LINE] for line in stderr.splitlines() if "error:" in line]
    lines = [line for line in dict.fromkeys(found) if "failed to run translation" not in line]
    # The script that starts the compiler passes a status of -11 on, which then is 256 - 11.
    number = -code if code < 0 else 256 - code if code >= _LEAST_SIGNAL_STATUS else 0
    if number:
        lines = [f"iree-compile was killed by signal {number} (it crashed or ran out of memory)", *lines]
    reason = "\n  ".join(lines[:_MAX_DIAGNOSTICS]) or f"exit status {code}"
    return (
        f"IREE cannot lower the program for {target.name}\n  {reason}\n"
        f"  while running: iree-compile {shlex.join(command[1:])}\n"
        f"  to keep the input {source.name}, repeat with --keep-intermediates DIR"
    )
