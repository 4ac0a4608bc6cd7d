"""Joins bundles of one model that were made for different targets, perhaps on different machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from amdnfs_runtime.bundle import FileEntry, Manifest, TargetEntry, read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError

from amdnfs_compile.staging import link_tree, staged_folder, write_manifest


def merge_bundles(bundles: Sequence[Path], output: Path) -> Path:
    """Writes a bundle with all targets of `bundles`.

    Raises:
        ArtifactError: If a bundle is damaged.
        UsageError: If they are not of one model, or hold different programs for one target.
    """
    if output.exists() and output.resolve() not in {bundle.resolve() for bundle in bundles}:
        raise UsageError(f"{output} exists; remove it, or choose another place with -o")
    manifests = [read_manifest(bundle) for bundle in bundles]
    first = manifests[0]
    targets: dict[str, TargetEntry] = {}
    files: dict[str, FileEntry] = {}
    for bundle, manifest in zip(bundles, manifests, strict=True):
        if manifest.model.digest != first.model.digest:
            raise UsageError(
                f"{bundle} is of another model, or was compiled with other options, than {bundles[0]}; "
                "only bundles of one model can be merged"
            )
        verify_files(bundle, manifest)
        _add(bundle, manifest, targets, files)
    with staged_folder(output) as folder:
        placed: set[str] = set()
        for bundle, manifest in zip(bundles, manifests, strict=True):
            link_tree(bundle, folder, [name for name in manifest.files if name not in placed])
            placed.update(manifest.files)
        write_manifest(
            folder,
            dataclasses.replace(first, targets=dict(sorted(targets.items())), files=dict(sorted(files.items()))),
        )
    return output


def _add(bundle: Path, manifest: Manifest, targets: dict[str, TargetEntry], files: dict[str, FileEntry]) -> None:
    for name, entry in manifest.files.items():
        if files.setdefault(name, entry) != entry:
            raise UsageError(f"{bundle}: {name} differs from that of an earlier bundle; keep only one of them")
    for name, target in manifest.targets.items():
        if targets.setdefault(name, target) != target:
            raise ArtifactError(f"{bundle}: target {name} is described differently in an earlier bundle")
