"""Runs bundles: needs neither torch nor the compiler.

import amdnfs_runtime
llm = amdnfs_runtime.load("model.amdnfs")
for piece in llm.stream("Once upon a time", max_tokens=64):
    print(piece, end="")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.errors import AmdnfsError
from amdnfs_runtime.request import FinishReason, GenerationResult, SamplingParams

if TYPE_CHECKING:
    from amdnfs_runtime.async_engine import AsyncEngine
    from amdnfs_runtime.llm import LLM, load, load_engine

__all__ = [
    "LLM",
    "AmdnfsError",
    "AsyncEngine",
    "EngineConfig",
    "FinishReason",
    "GenerationResult",
    "SamplingParams",
    "load",
    "load_engine",
]


def __getattr__(name: str) -> Any:
    """Loads the device layer on first use, so that the compiler can read bundles without it."""
    if name in ("LLM", "load", "load_engine"):
        from amdnfs_runtime import llm

        return getattr(llm, name)
    if name == "AsyncEngine":
        from amdnfs_runtime import async_engine

        return async_engine.AsyncEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
