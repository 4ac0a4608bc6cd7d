"""Runs Triton's compiler from a kernel's source to the code of one target, in memory.

`triton.compile` would do more than we want: it keeps what it makes in a folder under the user's home (which may not be
writable, and would hide from a compile that its input changed), reads dozens of switches from the environment (which
would change the code but not the compile key), and assembles PTX that the driver is to assemble anyway. Only the stages
are called here. They are no public interface of Triton: `TRITON_VERSION` in `provider.py` is the release that has them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_SWITCHES = ("TRITON_", "AMDGCN_", "DISABLE_", "LLVM_", "MLIR_", "NVPTX_", "PTXAS_", "ALLOW_LHS_", "USE_IR_LOC")
"""What names of variables begin with that Triton's Python or C++ reads."""

_SET = {
    # No paths of this machine in the code.
    "TRITON_DISABLE_LINE_INFO": "1",
    # Multiply and add may fuse, as they do in IREE's own kernels.
    "TRITON_DEFAULT_FP_FUSION": "1",
}

_LAST_STAGE = {"hip": "hsaco", "cuda": "ptx"}
_TEXT_STAGE = {"hip": "amdgcn", "cuda": "ptx"}


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelSource:
    """A kernel and the types and constants that it is compiled for."""

    name: str
    """Its file in `sources` and its function."""
    arguments: Mapping[str, str]
    """Types of the run-time arguments, as Triton writes them (`*fp16`, `i32`)."""
    constants: Mapping[str, Any]
    """Values of compile-time arguments. Arguments that are neither here nor above are None in the kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelCode:
    """What Triton made."""

    entry: str
    """Symbol of the kernel."""
    text: str
    """AMD assembly, or PTX."""
    code: bytes
    """An AMD code object; for NVIDIA the PTX again."""
    lds_bytes: int
    """Shared memory of a workgroup, in bytes."""


def run_stages(
    source: KernelSource, backend: str, processor: str, wave_size: int, num_waves: int, num_stages: int
) -> KernelCode:
    """Compiles `source`; pointers are taken to be aligned to 16 bytes.

    Args:
        source: The kernel.
        backend: `hip` or `cuda`.
        processor: LLVM processor (`gfx942`) or compute capability (`sm_80`).
        wave_size: Lanes of a wave.
        num_waves: Waves of a workgroup.
        num_stages: Depth of the software pipeline; 1 is none.

    Raises:
        Exception: Whatever Triton's passes raise.
    """
    with _known_environment():
        from triton._C.libtriton import ir
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource, make_backend

        architecture = processor if backend == "hip" else int(processor.removeprefix("sm_"))
        target = GPUTarget(backend, architecture, wave_size)
        compiler = make_backend(target)
        options = compiler.parse_options({"num_warps": num_waves, "num_stages": num_stages})
        tree = ASTSource(**_source_arguments(source))
        context = ir.context()
        ir.load_dialects(context)
        compiler.load_dialects(context)
        stages: dict[str, Any] = {}
        compiler.add_stages(stages, options, tree.language)
        metadata: dict[str, Any] = dict(options.__dict__)
        module = tree.make_ir(
            target, options, compiler.get_codegen_implementation(options), compiler.get_module_map(), context
        )
        made: dict[str, Any] = {}
        for name, stage in stages.items():
            module = made[name] = stage(module, metadata)
            if name == _LAST_STAGE[backend]:
                break
    text: str = made[_TEXT_STAGE[backend]]
    code = made[_LAST_STAGE[backend]]
    return KernelCode(
        entry=metadata["name"],
        text=text,
        code=code if isinstance(code, bytes) else code.encode(),
        lds_bytes=int(metadata["shared"]),
    )


def _source_arguments(source: KernelSource) -> dict[str, Any]:
    function = getattr(importlib.import_module(f"amdnfs_passes.kernels.sources.{source.name}"), source.name)
    absent = [name for name in function.arg_names if name not in source.arguments and name not in source.constants]
    signature = {name: source.arguments.get(name, "constexpr") for name in function.arg_names}
    is_aligned = [["tt.divisibility", 16]]
    return {
        "fn": function,
        "signature": signature,
        "constexprs": {**dict.fromkeys(absent), **source.constants},
        "attrs": {(i,): is_aligned for i, name in enumerate(signature) if signature[name].startswith("*")},
    }


@contextlib.contextmanager
def _known_environment() -> Iterator[None]:
    """The environment without Triton's switches, and with ours."""
    found = {key: value for key, value in os.environ.items() if key.startswith(_SWITCHES)}
    for key in found:
        del os.environ[key]
    os.environ.update(_SET)
    try:
        yield
    finally:
        for key in _SET:
            os.environ.pop(key, None)
        os.environ.update(found)
