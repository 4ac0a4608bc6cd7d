"""Writes one target's artifact and the manifest of a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from amdnfs_runtime.bundle import (
    EntryPoint,
    FileEntry,
    LayerCacheEntry,
    Manifest,
    ModelEntry,
    TargetEntry,
)
from amdnfs_runtime.errors import LoweringError
from amdnfs_targets.detect import X86_64_V3_FEATURES, cpu_features
from amdnfs_targets.target import Target, TargetKind

from amdnfs_compile.frontend.checkpoint import read_special_tokens
from amdnfs_compile.frontend.huggingface import ImportedModel
from amdnfs_compile.identity import compiler_id
from amdnfs_compile.lower import Lowered
from amdnfs_compile.plan import CompilePlan

_ISA_FEATURES = (
    "abm",
    "adx",
    "aes",
    "amx",
    "avx",
    "bmi",
    "f16c",
    "fma",
    "gfni",
    "movbe",
    "popcnt",
    "sha",
    "sse",
    "ssse",
    "vaes",
    "vpclmul",
)
_AMDHSA_TARGET = re.compile(rb"-amd-amdhsa-[a-z]*-(gfx[0-9a-f]+)")
"""The value of `amdhsa.target` in a code object's note: what the loader compares with the GPU."""


def check_code_object(lowered: Lowered, target: Target) -> None:
    """Looks for the processor's name in the code object, where the loader will look for it too.

    Raises:
        LoweringError: If IREE made a program for another processor.
    """
    if target.gfx is None:
        return
    found = {match.decode() for match in _AMDHSA_TARGET.findall(lowered.vmfb)}
    if found != {target.gfx}:
        raise LoweringError(
            f"the program for {target.name} must hold code objects for {target.gfx} alone, but holds some for "
            f"{', '.join(sorted(found)) or 'nothing'}"
        )


def write_artifact(folder: Path, target: Target, imported: ImportedModel, lowered: Lowered, key: str) -> TargetEntry:
    """Writes program.vmfb and facts.json of `target` into the bundle at `folder`; `key` says when they are stale."""
    place = folder / "artifacts" / target.name
    place.mkdir(parents=True)
    (place / "program.vmfb").write_bytes(lowered.vmfb)
    points = tuple(
        EntryPoint(name=shape.name, kind=shape.kind, batch=shape.batch, tokens=shape.tokens)
        for shape in imported.shapes
    )
    facts = {
        "compiler": compiler_id(),
        "compile_key": key,
        "flags": list(lowered.flags),
        "passes": [{"name": item.pass_name, "rewrites": item.rewrites} for item in (*imported.passes, *lowered.passes)],
        "refusals": [
            {"pass": refusal.pass_name, "operation": refusal.operation, "reason": refusal.reason}
            for item in (*imported.passes, *lowered.passes)
            for refusal in item.refusals
        ],
        "layers": {
            "in_model": len(imported.caches),
            "traced": imported.num_traced_layers,
            "compiled": imported.num_distinct_layers,
        },
        "checks": ["verify-pool-in-place"] + (["code-object-gfx"] if target.gfx else []),
        "workarounds": [item.name for item in target.workarounds],
        "dispatches": lowered.program_facts.dispatches,
        "code_objects": lowered.program_facts.code_objects,
        "kernels": lowered.program_facts.kernels,
    }
    (place / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return TargetEntry(
        kind=str(target.kind),
        gfx=target.gfx,
        program=f"artifacts/{target.name}/program.vmfb",
        facts=f"artifacts/{target.name}/facts.json",
        entry_points=points,
        cpu_features=_required_features(target),
    )


def _required_features(target: Target) -> tuple[str, ...]:
    """The processor features that a cpu program may use."""
    if target.kind is not TargetKind.CPU:
        return ()
    if target.architecture == "host":
        return tuple(sorted(name for name in cpu_features() if name.startswith(_ISA_FEATURES)))
    return tuple(sorted(X86_64_V3_FEATURES))


def make_manifest(
    plan: CompilePlan, digest: str, targets: Mapping[str, TargetEntry], files: Mapping[str, FileEntry]
) -> Manifest:
    """The manifest of a bundle with these targets and files."""
    config = plan.checkpoint.config.get_text_config()
    bos, eos = read_special_tokens(plan.checkpoint)
    return Manifest(
        model=ModelEntry(
            name=plan.checkpoint.name,
            architecture=plan.checkpoint.architecture,
            model_type=plan.checkpoint.config.model_type,
            dtype=plan.dtype,
            quantization=plan.quantization,
            vocab_size=int(config.vocab_size),
            context_tokens=plan.context_tokens,
            digest=digest,
        ),
        page_tokens=plan.options.page_tokens,
        cache_dtype=plan.cache_dtype,
        layers=tuple(
            LayerCacheEntry(kind="paged", kv_heads=cache.kv_heads, head_dim=cache.head_dim, window=cache.window)
            for cache in plan.skeleton.caches
        ),
        bos_token_id=bos,
        eos_token_ids=eos,
        weights=tuple(sorted(name for name in files if name.startswith("weights/"))),
        targets=dict(sorted(targets.items())),
        files=files,
    )
