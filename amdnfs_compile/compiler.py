"""`compile_model`: from a model and a list of targets to a bundle. Read top to bottom, this is the whole compile."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import resource
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amdnfs_runtime.bundle import (
    EntryPoint,
    FileEntry,
    LayerCacheEntry,
    Manifest,
    ModelEntry,
    TargetEntry,
    file_entry,
    read_manifest,
)
from amdnfs_runtime.errors import ArtifactError, LoweringError, UsageError
from amdnfs_targets.detect import X86_64_V3_FEATURES, cpu_features
from amdnfs_targets.registry import UnknownTargetError, resolve_targets
from amdnfs_targets.target import Target, TargetKind, UnsupportedTargetError, require_supported

from amdnfs_compile.frontend.checkpoint import TOKENIZER_FILES, Checkpoint, open_checkpoint, read_special_tokens
from amdnfs_compile.frontend.huggingface import ImportedModel, import_model, inspect_checkpoint
from amdnfs_compile.frontend.skeleton import Skeleton
from amdnfs_compile.frontend.trace import CallShape
from amdnfs_compile.lower import COMMON_FLAGS, Lowered, lower_module
from amdnfs_compile.options import CompileOptions, Dtype
from amdnfs_compile.pipeline import build_pipeline
from amdnfs_compile.staging import (
    damaged_files,
    link_tree,
    list_files,
    require_bundle_place,
    staged_folder,
    write_manifest,
)
from amdnfs_compile.weights import place_weights

Progress = Callable[[str, str], None]
"""Called with a phase and what it does now; for people to read."""

_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
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
_DTYPE_OF_CONFIG = {"torch.float32": "f32", "torch.float16": "f16", "torch.bfloat16": "bf16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class CompilePlan:
    """What a compile is going to do."""

    checkpoint: Checkpoint
    """The model's headers."""
    skeleton: Skeleton
    """Its layers."""
    targets: tuple[Target, ...]
    """What to compile for."""
    dtype: str
    """Storage type."""
    context_tokens: int
    """Longest prompt plus text."""
    options: CompileOptions
    """As given."""

    def shapes(self, target: Target) -> tuple[CallShape, ...]:
        """Entry points for `target`, without shapes that its compiler cannot take."""
        chunks = [size for size in self.options.prefill_chunks if size <= self.context_tokens]
        shapes = [CallShape(batch=1, tokens=size) for size in chunks or self.options.prefill_chunks[:1]]
        batches = sorted({_sound_batch(target, size, self.dtype) for size in self.options.decode_batches})
        return (*shapes, *(CallShape(batch=size, tokens=1) for size in batches))


def _sound_batch(target: Target, batch: int, dtype: str) -> int:
    """`batch`, or the next size that does not meet the target's skinny-matmul defect."""
    defect = target.skinny_matmul_defect
    if defect is None or dtype not in defect.dtypes or not defect.narrow_m_begin <= batch < defect.m_end:
        return batch
    return defect.pad_m


def plan_compile(model: str, targets: Iterable[str], options: CompileOptions) -> CompilePlan:
    """Reads the model's headers and resolves targets; compiles nothing.

    Raises:
        UsageError: For an unknown target, or one the pinned IREE cannot take.
        ModelError: For a model that cannot be imported.
    """
    try:
        resolved = tuple(require_supported(target) for target in resolve_targets(targets))
    except (UnknownTargetError, UnsupportedTargetError) as error:
        raise UsageError(str(error)) from error
    if not resolved:
        raise UsageError("no target given; name at least one with --target, e.g. --target gfx942")
    checkpoint = open_checkpoint(model, revision=options.revision, offline=options.offline)
    read_special_tokens(checkpoint)  # refuses now what would otherwise fail after the compile
    dtype = _choose_dtype(checkpoint, options)
    skeleton = inspect_checkpoint(checkpoint, dtype)
    limit = int(getattr(checkpoint.config.get_text_config(), "max_position_embeddings", 0) or 0)
    context = options.context_tokens or limit
    if not context:
        raise UsageError(f"{model} does not say how long its context is; add --context TOKENS")
    if limit and context > limit:
        raise UsageError(f"--context {context}: the model's own limit is {limit} tokens")
    return CompilePlan(
        checkpoint=checkpoint,
        skeleton=skeleton,
        targets=resolved,
        dtype=dtype,
        context_tokens=context,
        options=options,
    )


def _choose_dtype(checkpoint: Checkpoint, options: CompileOptions) -> str:
    if options.dtype is not Dtype.AUTO:
        return str(options.dtype)
    named = _DTYPE_OF_CONFIG.get(str(getattr(checkpoint.config.get_text_config(), "dtype", None)))
    return named or checkpoint.majority_dtype()


def compile_model(
    model: str | Path,
    targets: Sequence[str],
    output: str | Path | None = None,
    options: CompileOptions | None = None,
    progress: Progress | None = None,
    intermediates: Path | None = None,
) -> Path:
    """Compiles `model` for `targets` into a bundle.

    A bundle of the same model that is already at `output` is extended: targets that it has, made by the same tools
    with the same options, are kept as they are.

    Args:
        model: Folder or hub id.
        targets: Names, product names or groups, e.g. `["gfx942", "cpu"]`.
        output: The bundle; by default `./<model name>.amdnfs`.
        options: Choices; defaults by default.
        progress: Told about each phase.
        intermediates: Folder that keeps every intermediate program.

    Returns:
        Path of the bundle.

    Raises:
        AmdnfsError: See the error classes; nothing is left behind and an earlier bundle stays as it was.
    """
    options = options or CompileOptions()
    report = progress or (lambda _phase, _text: None)
    begin = time.perf_counter()
    report("plan", f"reading the headers of {model}")
    plan = plan_compile(str(model), targets, options)
    final = Path(output) if output is not None else Path(f"{plan.checkpoint.name}.amdnfs")
    require_bundle_place(final)
    report("weights", f"digest of {len(plan.checkpoint.shards)} file(s), {plan.checkpoint.num_bytes >> 20} MiB")
    digest = _model_digest(plan)
    old = _existing(final, digest)
    keys = {target.name: _compile_key(plan, target, digest) for target in plan.targets}
    for target in plan.targets:
        if plan.dtype not in target.dtypes and target.kind is not TargetKind.CPU:
            report("plan", f"warning: {target.name} does not compute in {plan.dtype} itself; it will be slow there")
    damaged = set() if old is None else _damaged(final, old, plan)
    keep_shared = old is not None and all(name.startswith("artifacts/") for name in damaged)
    todo = [
        target
        for target in plan.targets
        if not keep_shared
        or _key_of(final, old, target.name) != keys[target.name]
        or any(name.startswith(f"artifacts/{target.name}/") for name in damaged)
    ]
    for target in plan.targets:
        if target not in todo:
            report("lower", f"{target.name}: up to date, kept")
    if old is not None and not todo:
        return final
    with staged_folder(final) as folder:
        _fill(folder, final, plan, old, keep_shared, todo, keys, digest, report, intermediates)
    report("done", f"{final} in {time.perf_counter() - begin:.1f} s")
    return final


def _fill(
    folder: Path,
    final: Path,
    plan: CompilePlan,
    old: Manifest | None,
    keep_shared: bool,
    todo: Sequence[Target],
    keys: Mapping[str, str],
    digest: str,
    report: Progress,
    intermediates: Path | None,
) -> None:
    """Puts everything of the new bundle into `folder`."""
    known: dict[str, FileEntry] = {}
    if old is not None:
        replaced = tuple(f"artifacts/{target.name}/" for target in todo)
        replaced += () if keep_shared else ("weights/", "tokenizer/")
        known = {name: entry for name, entry in old.files.items() if not name.startswith(replaced)}
        link_tree(final, folder, list(known))
    imported = _import_all(plan, todo, report)
    if not keep_shared:
        bindings = next(iter(imported.values())).bindings
        report("weights", "linking or copying into the bundle")
        place_weights(plan.checkpoint, bindings, folder / "weights")
        _copy_tokenizer(plan.checkpoint, folder / "tokenizer")

    def work(target: Target) -> TargetEntry:
        report("lower", f"{target.name}: compiling {len(imported[target.name].shapes)} entry points")
        begin = time.perf_counter()
        keep = intermediates / target.name if intermediates else None
        lowered = lower_module(imported[target.name].bytecode, target, keep)
        _check_code_object(lowered, target)
        report("lower", f"{target.name}: {len(lowered.vmfb) >> 10} KiB in {time.perf_counter() - begin:.1f} s")
        return _write_artifact(folder, target, imported[target.name], lowered, keys[target.name])

    with ThreadPoolExecutor(max_workers=plan.options.jobs) as pool:
        entries = list(pool.map(work, todo))
    targets = dict(old.targets) if old is not None else {}
    targets.update({target.name: entry for target, entry in zip(todo, entries, strict=True)})
    report("bundle", "digests and manifest")
    files = list_files(folder, known)
    write_manifest(folder, _manifest(plan, digest, targets, files))


def _import_all(plan: CompilePlan, todo: Sequence[Target], report: Progress) -> dict[str, ImportedModel]:
    """Imports the model once for each set of entry points and passes that some target needs."""
    known: dict[tuple[object, ...], ImportedModel] = {}
    result = {}
    for target in todo:
        shapes = plan.shapes(target)
        key = (shapes, build_pipeline(target)[0])
        if key not in known:
            known[key] = import_model(
                plan.checkpoint,
                plan.skeleton,
                shapes,
                plan.options.page_tokens,
                target,
                lambda text: report("import", text),
            )
        result[target.name] = known[key]
    return result


def _check_code_object(lowered: Lowered, target: Target) -> None:
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


def _write_artifact(folder: Path, target: Target, imported: ImportedModel, lowered: Lowered, key: str) -> TargetEntry:
    place = folder / "artifacts" / target.name
    place.mkdir(parents=True)
    (place / "program.vmfb").write_bytes(lowered.vmfb)
    points = tuple(
        EntryPoint(
            name=shape.name, kind="decode" if shape.tokens == 1 else "prefill", batch=shape.batch, tokens=shape.tokens
        )
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


def compiler_id() -> dict[str, str]:
    """Versions of everything that decides what a program is."""
    return {name: version(name) for name in ("amdnfs", "iree-base-compiler", "torch", "transformers")}


def compile_keys(plan: CompilePlan) -> dict[str, str]:
    """For each target of a plan a text that changes whenever its artifact could: for caches. Reads the weights."""
    digest = _model_digest(plan)
    return {target.name: _compile_key(plan, target, digest) for target in plan.targets}


def _compile_key(plan: CompilePlan, target: Target, digest: str) -> str:
    """Changes whenever the artifact could: model, tools, passes, flags, entry points."""
    passes = [[item.describe() for item in phase.passes] for phase in build_pipeline(target)]
    host = sorted(cpu_features()) if target.kind is TargetKind.CPU else []
    shapes = [dataclasses.asdict(shape) for shape in plan.shapes(target)]
    flags = [*COMMON_FLAGS, *target.compile_flags]
    return _digest_of([digest, compiler_id(), passes, flags, shapes, host])


def _key_of(final: Path, manifest: Manifest | None, target: str) -> str | None:
    if manifest is None or target not in manifest.targets:
        return None
    try:
        facts = json.loads((final / manifest.targets[target].facts).read_text(encoding="utf-8"))
        return str(facts["compile_key"])
    except (OSError, ValueError, KeyError):
        return None  # damaged facts: compile this target again


def _existing(final: Path, digest: str) -> Manifest | None:
    if not (final / "manifest.json").is_file():
        return None
    try:
        manifest = read_manifest(final)
    except ArtifactError as error:
        raise ArtifactError(f"{error}\n  remove {final} first, or choose another place with -o") from error
    if manifest.model.digest != digest:
        raise UsageError(
            f"{final} holds another model or other options ({manifest.model.name}, {manifest.model.dtype}, pages of "
            f"{manifest.page_tokens} tokens); remove it, or choose another place with -o"
        )
    return manifest


def _damaged(final: Path, old: Manifest, plan: CompilePlan) -> set[str]:
    """Files of the bundle to extend that must be made again.

    Raises:
        ArtifactError: If a target that is not asked for is among them.
    """
    damaged = damaged_files(final, old, plan.checkpoint.folder)
    asked = {target.name for target in plan.targets}
    for name in sorted(set(old.targets) - asked):
        lost = sorted(file for file in damaged if file.startswith(f"artifacts/{name}/"))
        if lost:
            raise ArtifactError(f"{final}: {lost[0]} is missing or altered; make it again with --target {name}")
    return damaged


def _model_digest(plan: CompilePlan) -> str:
    config = {key: value for key, value in plan.checkpoint.config.to_dict().items() if key not in _VOLATILE}
    weights = {shard: file_entry(plan.checkpoint.folder / shard).sha256 for shard in plan.checkpoint.shards}
    tokenizer = {
        name: file_entry(plan.checkpoint.folder / name).sha256
        for name in TOKENIZER_FILES
        if (plan.checkpoint.folder / name).is_file()
    }
    geometry = [plan.dtype, plan.options.page_tokens, plan.context_tokens]
    return _digest_of([config, weights, tokenizer, geometry])


def _digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _copy_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)


def _manifest(
    plan: CompilePlan, digest: str, targets: Mapping[str, TargetEntry], files: Mapping[str, FileEntry]
) -> Manifest:
    config = plan.checkpoint.config.get_text_config()
    bos, eos = read_special_tokens(plan.checkpoint)
    architectures = getattr(plan.checkpoint.config, "architectures", None) or [type(plan.checkpoint.config).__name__]
    return Manifest(
        model=ModelEntry(
            name=plan.checkpoint.name,
            architecture=architectures[0],
            model_type=plan.checkpoint.config.model_type,
            dtype=plan.dtype,
            vocab_size=int(config.vocab_size),
            context_tokens=plan.context_tokens,
            digest=digest,
        ),
        page_tokens=plan.options.page_tokens,
        cache_dtype=plan.dtype,
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


def peak_rss_bytes() -> tuple[int, int]:
    """Largest resident size so far, in bytes: of this process, and of any compiler process it ran."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return own * 1024, children * 1024
