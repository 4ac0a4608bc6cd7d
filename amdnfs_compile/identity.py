"""Digests that say whether two bundles are of one model, and whether an artifact is up to date."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import amdnfs_passes
import amdnfs_targets
from amdnfs_passes.kernels.provider import has_triton
from amdnfs_runtime.bundle import (
    Manifest,
    file_entry,
)
from amdnfs_targets.detect import cpu_features
from amdnfs_targets.target import Target

import amdnfs_compile
from amdnfs_compile.frontend.checkpoint import TOKENIZER_FILES
from amdnfs_compile.lower import COMMON_FLAGS
from amdnfs_compile.pipeline import build_pipeline
from amdnfs_compile.plan import CompilePlan
from amdnfs_compile.staging import cached_entry

_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")


def compiler_id() -> dict[str, str]:
    """Versions of everything that decides what a program is."""
    names = ["amdnfs", "iree-base-compiler", "torch", "transformers", *(["triton"] if has_triton() else [])]
    return {name: version(name) for name in names}


@cache
def source_digest() -> str:
    """sha256 over the source of the packages that make programs: a changed pass makes old artifacts stale."""
    digest = hashlib.sha256()
    for package in (amdnfs_compile, amdnfs_passes, amdnfs_targets):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def compile_keys(plan: CompilePlan) -> dict[str, str]:
    """For each target of a plan a text that changes whenever its artifact could: for caches. Reads the weights."""
    digest = model_digest(plan)
    return {target.name: compile_key(plan, target, digest) for target in plan.targets}


def compile_key(plan: CompilePlan, target: Target, digest: str) -> str:
    """Changes whenever the artifact could: model, tools, passes, flags, entry points."""
    passes = [[item.describe() for item in phase.passes] for phase in build_pipeline(target)]
    host = sorted(cpu_features()) if target.architecture == "host" else []
    shapes = [dataclasses.asdict(shape) for shape in plan.shapes(target)]
    flags = [*COMMON_FLAGS, *target.compile_flags, "or", *target.fallback_flags]
    return _digest_of([digest, compiler_id(), source_digest(), passes, flags, shapes, host])


def key_of(final: Path, manifest: Manifest | None, target: str) -> str | None:
    """The compile key of a target of the bundle at `final`; None if it has none that can be read."""
    if manifest is None or target not in manifest.targets:
        return None
    try:
        facts = json.loads((final / manifest.targets[target].facts).read_text(encoding="utf-8"))
        return str(facts["compile_key"])
    except (OSError, ValueError, KeyError):
        return None  # damaged facts: compile this target again


def model_digest(plan: CompilePlan) -> str:
    """sha256 over configuration, weights, tokenizer and cache geometry. Reads the weights, in chunks."""
    config = {key: value for key, value in plan.checkpoint.config.to_dict().items() if key not in _VOLATILE}
    weights = {shard: cached_entry(plan.checkpoint.folder / shard).sha256 for shard in plan.checkpoint.shards}
    tokenizer = {
        name: file_entry(plan.checkpoint.folder / name).sha256
        for name in TOKENIZER_FILES
        if (plan.checkpoint.folder / name).is_file()
    }
    geometry = [plan.dtype, plan.cache_dtype, plan.quantization, plan.options.page_tokens, plan.context_tokens]
    return _digest_of([config, weights, tokenizer, geometry])


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
