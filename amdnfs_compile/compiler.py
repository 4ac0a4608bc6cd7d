"""`compile_model`: from a model and a list of targets to a bundle. Read top to bottom, this is the whole compile."""

from __future__ import annotations

import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from amdnfs_runtime.bundle import (
    FileEntry,
    Manifest,
    TargetEntry,
    read_manifest,
)
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_targets.target import Target

from amdnfs_compile.artifact import check_code_object, make_manifest, write_artifact
from amdnfs_compile.frontend.checkpoint import TOKENIZER_FILES, Checkpoint
from amdnfs_compile.frontend.huggingface import Binding, ImportedModel, Traces, import_model
from amdnfs_compile.identity import compile_key, key_of, model_digest
from amdnfs_compile.locks import locked_output
from amdnfs_compile.lower import lower_module
from amdnfs_compile.options import CompileOptions
from amdnfs_compile.pipeline import build_pipeline
from amdnfs_compile.plan import CompilePlan, plan_compile
from amdnfs_compile.processes import CompilerProcesses
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
    for text in plan.warnings:
        report("plan", f"warning: {text}")
    final = Path(output) if output is not None else Path(f"{plan.checkpoint.name}.amdnfs")
    final = final.resolve() if final.is_symlink() else final
    require_bundle_place(final)
    with locked_output(final):
        is_new = _bring_up_to_date(final, plan, report, intermediates)
    if is_new:
        report("done", f"{final} in {time.perf_counter() - begin:.1f} s")
    return final


def _bring_up_to_date(final: Path, plan: CompilePlan, report: Progress, intermediates: Path | None) -> bool:
    """Compiles the targets that the bundle at `final` lacks; says whether there were any."""
    report("weights", f"digest of {len(plan.checkpoint.shards)} file(s), {plan.checkpoint.num_bytes >> 20} MiB")
    digest = model_digest(plan)
    old = _existing(final, digest)
    keys = {target.name: compile_key(plan, target, digest) for target in plan.targets}
    damaged = set() if old is None else _damaged(final, old, plan)
    keep_shared = old is not None and all(name.startswith("artifacts/") for name in damaged)
    todo = [
        target
        for target in plan.targets
        if not keep_shared
        or key_of(final, old, target.name) != keys[target.name]
        or any(name.startswith(f"artifacts/{target.name}/") for name in damaged)
    ]
    for target in plan.targets:
        if target not in todo:
            report("lower", f"{target.name}: up to date, kept")
    if old is not None and not todo:
        return False
    with staged_folder(final) as folder:
        _fill(folder, final, plan, old, keep_shared, todo, keys, digest, report, intermediates)
    return True


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
        _place_weights(plan, bindings, folder / "weights", report)
        _copy_tokenizer(plan.checkpoint, folder / "tokenizer")

    processes = CompilerProcesses()

    def work(target: Target) -> TargetEntry:
        report("lower", f"{target.name}: compiling {len(imported[target.name].shapes)} entry points")
        begin = time.perf_counter()
        keep = intermediates / target.name if intermediates else None
        lowered = lower_module(imported[target.name].bytecode, target, keep, processes)
        check_code_object(lowered, target)
        report("lower", f"{target.name}: {len(lowered.vmfb) >> 10} KiB in {time.perf_counter() - begin:.1f} s")
        return write_artifact(folder, target, imported[target.name], lowered, keys[target.name])

    entries = _work_on_all(todo, work, processes, plan.options.jobs)
    targets = dict(old.targets) if old is not None else {}
    targets.update({target.name: entry for target, entry in zip(todo, entries, strict=True)})
    report("bundle", "digests and manifest")
    files = list_files(folder, known)
    write_manifest(folder, make_manifest(plan, digest, targets, files))


def _work_on_all(
    todo: Sequence[Target], work: Callable[[Target], TargetEntry], processes: CompilerProcesses, jobs: int
) -> list[TargetEntry]:
    """Does `work` on every target, `jobs` at a time. The first that fails, or an interrupt, ends all the others."""
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(work, target) for target in todo]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            processes.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]


def _import_all(plan: CompilePlan, todo: Sequence[Target], report: Progress) -> dict[str, ImportedModel]:
    """Traces the model once for each set of entry points, and rewrites it once for each set of passes."""
    known: dict[tuple[object, ...], ImportedModel] = {}
    traces: Traces = {}
    result = {}
    for target in todo:
        shapes, skeleton = plan.shapes(target), plan.skeleton_for(target)
        key = (shapes, skeleton.layout, build_pipeline(target)[0])
        if key not in known:
            known[key] = import_model(
                plan.checkpoint,
                skeleton,
                shapes,
                plan.options.page_tokens,
                target,
                lambda text: report("import", text),
                traces,
            )
        result[target.name] = known[key]
    return result


def _place_weights(plan: CompilePlan, bindings: Mapping[str, Binding], folder: Path, report: Progress) -> None:
    """Puts the weights into the bundle; tells what quantisation did."""
    quantized = plan.quantized_weights()
    if quantized is None:
        report("weights", "linking or copying into the bundle")
        place_weights(plan.checkpoint, bindings, folder)
        return
    report("weights", f"quantising {len(quantized.linears)} weights to {quantized.layout.spelling}")
    place_weights(plan.checkpoint, bindings, folder, quantized)
    report("weights", quantized.summary())


def _existing(final: Path, digest: str) -> Manifest | None:
    if not (final / "manifest.json").is_file():
        return None
    try:
        manifest = read_manifest(final)
    except ArtifactError as error:
        raise ArtifactError(f"{error}\n  remove {final} first, or choose another place with -o") from error
    if manifest.model.digest != digest:
        model = manifest.model
        stored = model.dtype if model.quantization == "none" else f"{model.dtype}, quantised as {model.quantization}"
        raise UsageError(
            f"{final} holds another model or other options ({model.name}, {stored}, pages of "
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


def _copy_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    folder.mkdir()
    for name in TOKENIZER_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)


def peak_rss_bytes() -> tuple[int, int]:
    """Largest resident size so far, in bytes: of this process, and of any compiler process it ran."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return own * 1024, children * 1024
