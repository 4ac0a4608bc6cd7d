"""Compiles language models ahead of time into bundles.

from amdnfs_compile import compile_model
bundle = compile_model("path/or/id", targets=["gfx942", "cpu"])
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amdnfs_runtime.errors import AmdnfsError

from amdnfs_compile.options import CompileOptions, Dtype

if TYPE_CHECKING:
    from amdnfs_compile.compiler import compile_model

__all__ = ["AmdnfsError", "CompileOptions", "Dtype", "compile_model"]


def __getattr__(name: str) -> Any:
    """Loads torch and the compiler on first use only."""
    if name == "compile_model":
        from amdnfs_compile.compiler import compile_model

        return compile_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
