"""Which program a verification looks at, and what it is compared with."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.errors import ArtifactError, UsageError

from amdnfs_compile.replay import default_tokens, make_texts, num_pages
from amdnfs_compile.verify import cpu_target, target_to_run
from tests.report_bundle import make_bundle


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A bundle with the targets gfx942, gfx1100 and cpu."""
    manifest = read_manifest(make_bundle(tmp_path / "b"))
    hip = manifest.targets["gfx942"]
    cpu = dataclasses.replace(hip, kind="cpu", gfx=None)
    return dataclasses.replace(manifest, targets={"gfx942": hip, "gfx1100": hip, "cpu": cpu})


def without(manifest: Manifest, *names: str) -> Manifest:
    return dataclasses.replace(
        manifest, targets={name: item for name, item in manifest.targets.items() if name not in names}
    )


def test_an_emulation_needs_a_hip_target(manifest: Manifest) -> None:
    assert target_to_run(manifest, "mi300x", is_emulated=True) == "gfx942"
    assert target_to_run(without(manifest, "gfx942"), None, is_emulated=True) == "gfx1100"
    message = (
        r"^--emulate runs hip programs; name one of the bundle's gfx targets with --target: it has gfx942, gfx1100$"
    )
    for wanted in (None, "cpu"):
        with pytest.raises(UsageError, match=message):
            target_to_run(manifest, wanted, is_emulated=True)
    with pytest.raises(UsageError, match=r"it has none$"):
        target_to_run(without(manifest, "gfx942", "gfx1100"), None, is_emulated=True)
    with pytest.raises(ArtifactError, match="the bundle has no target gfx90a; it holds gfx942, gfx1100, cpu"):
        target_to_run(manifest, "gfx90a", is_emulated=True)


def test_the_cpu_program_to_compare_with(manifest: Manifest) -> None:
    assert cpu_target(manifest) == "cpu"
    with pytest.raises(
        UsageError, match="no CPU program to compare with: the bundle has no cpu target; amdnfs-compile"
    ):
        cpu_target(without(manifest, "cpu"))
    strange = dataclasses.replace(manifest.targets["cpu"], cpu_features=("no-such-feature",))
    with pytest.raises(UsageError, match="cpu was compiled for a CPU with no-such-feature; amdnfs-compile MODEL"):
        cpu_target(dataclasses.replace(manifest, targets={"cpu": strange}))


@pytest.mark.parametrize(("num_tokens", "shared"), [(40, 16), (80, 32), (20, 16), (16, 0), (5, 0)])
def test_the_last_text_begins_with_whole_pages_of_the_second(manifest: Manifest, num_tokens: int, shared: int) -> None:
    texts = make_texts(manifest, num_tokens, seed=1)
    assert texts.shape == (4, num_tokens)
    same = texts[3] == texts[1]
    assert same[:shared].all()
    assert not same[shared:].all()
    assert num_pages(manifest, num_tokens) == 1 + 4 * -(-num_tokens // 16)
    assert default_tokens(manifest) == 40
