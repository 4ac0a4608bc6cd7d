"""Merging bundles: a union of targets, or a refusal that changes nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import amdnfs_runtime
import pytest
from amdnfs_runtime.bundle import read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError, UsageError

from amdnfs_compile.merge import merge_bundles


def renamed_target(bundle: Path, output: Path, name: str) -> Path:
    """A copy of a bundle whose cpu program goes by another name."""
    shutil.copytree(bundle, output)
    (output / "artifacts" / "cpu").rename(output / "artifacts" / name)
    text = (output / "manifest.json").read_text().replace("artifacts/cpu/", f"artifacts/{name}/")
    values = json.loads(text)
    values["targets"] = {name: values["targets"].pop("cpu")}
    (output / "manifest.json").write_text(json.dumps(values))
    return output


def edit(bundle: Path, **model: str) -> None:
    path = bundle / "manifest.json"
    values = json.loads(path.read_text())
    values["model"].update(model)
    path.write_text(json.dumps(values))


def test_targets_are_united_and_files_shared(bundle: Path, tmp_path: Path) -> None:
    other = renamed_target(bundle, tmp_path / "b.amdnfs", "cpu-x86-64-v3")
    merged = merge_bundles([other, bundle], tmp_path / "all.amdnfs")
    manifest = read_manifest(merged)
    verify_files(merged, manifest)
    assert list(manifest.targets) == ["cpu", "cpu-x86-64-v3"]
    assert os.stat(merged / "weights" / "model.safetensors").st_nlink > 1
    for name in manifest.targets:
        assert amdnfs_runtime.load(merged, target=name).generate("abc", max_tokens=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.amdnfs", "b.amdnfs"]


def test_a_bundle_may_be_extended_in_place(bundle: Path, fresh_bundle: Path, tmp_path: Path) -> None:
    other = renamed_target(bundle, tmp_path / "b.amdnfs", "cpu-x86-64-v3")
    merge_bundles([fresh_bundle, other], fresh_bundle)
    verify_files(fresh_bundle, read_manifest(fresh_bundle))
    assert list(read_manifest(fresh_bundle).targets) == ["cpu", "cpu-x86-64-v3"]


def test_the_order_of_the_bundles_does_not_matter(bundle: Path, tmp_path: Path) -> None:
    other = renamed_target(bundle, tmp_path / "b.amdnfs", "cpu-x86-64-v3")
    first = merge_bundles([bundle, other], tmp_path / "1.amdnfs")
    second = merge_bundles([other, bundle], tmp_path / "2.amdnfs")
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_bundles_of_different_models(bundle: Path, fresh_bundle: Path, tmp_path: Path) -> None:
    edit(fresh_bundle, digest="0" * 64)
    with pytest.raises(UsageError) as error:
        merge_bundles([bundle, fresh_bundle], tmp_path / "all.amdnfs")
    assert str(error.value) == (
        f"{fresh_bundle} is of another model, or was compiled with other options, than {bundle}; "
        "only bundles of one model can be merged"
    )
    assert not (tmp_path / "all.amdnfs").exists()


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_damaged_bundle(bundle: Path, fresh_bundle: Path, tmp_path: Path, damage: str) -> None:
    path = fresh_bundle / "artifacts" / "cpu" / "program.vmfb"
    content = path.read_bytes()
    path.unlink()
    if damage == "altered":
        path.write_bytes(content[:-1] + b"?")
    with pytest.raises(ArtifactError, match=rf"the file artifacts/cpu/program.vmfb (was|is) {damage}"):
        merge_bundles([bundle, fresh_bundle], tmp_path / "all.amdnfs")
    assert not (tmp_path / "all.amdnfs").exists()


def test_different_programs_for_one_target(bundle: Path, fresh_bundle: Path, tmp_path: Path) -> None:
    path = fresh_bundle / "manifest.json"
    values = json.loads(path.read_text())
    program = fresh_bundle / "artifacts" / "cpu" / "program.vmfb"
    program.write_bytes(b"another program")
    from amdnfs_runtime.bundle import file_entry

    entry = file_entry(program)
    values["files"]["artifacts/cpu/program.vmfb"] = {"size": entry.size, "sha256": entry.sha256}
    path.write_text(json.dumps(values))
    with pytest.raises(UsageError) as error:
        merge_bundles([bundle, fresh_bundle], tmp_path / "all.amdnfs")
    assert str(error.value) == (
        f"{fresh_bundle}: artifacts/cpu/program.vmfb differs from that of an earlier bundle; keep only one of them"
    )


def test_one_target_described_in_two_ways(bundle: Path, fresh_bundle: Path, tmp_path: Path) -> None:
    path = fresh_bundle / "manifest.json"
    values = json.loads(path.read_text())
    values["targets"]["cpu"]["cpu_features"] = []
    path.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match="target cpu is described differently in an earlier bundle"):
        merge_bundles([bundle, fresh_bundle], tmp_path / "all.amdnfs")


def test_an_output_that_exists(bundle: Path, fresh_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        merge_bundles([bundle, bundle], fresh_bundle)
    assert str(error.value) == f"{fresh_bundle} exists; remove it, or choose another place with -o"


def test_a_folder_that_is_no_bundle(bundle: Path, twin: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"is not a bundle: it has no manifest\.json"):
        merge_bundles([bundle, twin], tmp_path / "all.amdnfs")
    with pytest.raises(ArtifactError, match="no such folder"):
        merge_bundles([bundle, tmp_path / "absent"], tmp_path / "all.amdnfs")
