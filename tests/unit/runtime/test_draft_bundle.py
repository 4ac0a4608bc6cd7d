"""Which bundles can be drafts, what room they get, and compiled ones that guess for the shipped model."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from amdnfs_runtime.bundle import TOKENIZER, FileEntry, Manifest, read_manifest
from amdnfs_runtime.calls import ProgramNames
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.draft_bundle import DraftBundle, check_draft, open_draft
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.llm import load, pool_sizes
from amdnfs_runtime.request import SamplingParams
from click.testing import CliRunner
from tokenizers import Tokenizer, models

from amdnfs_compile.cli.generate import generate_command
from tests.unit.runtime.fakes import make_manifest


def tokenizer_of(words: Sequence[str]) -> Tokenizer:
    return Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))


def write_bundle(
    folder: Path, manifest: Manifest, words: Sequence[str] = "abcdefghijk", added: Sequence[str] = ()
) -> Path:
    """A bundle without programs: what is looked at before one is loaded."""
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer = tokenizer_of(words)
    tokenizer.add_special_tokens(list(added))
    tokenizer.save(str(folder / TOKENIZER))
    entry = FileEntry(size=0, sha256="")
    files = {path: entry for target in manifest.targets.values() for path in (target.program, target.facts)}
    files[TOKENIZER] = entry
    (folder / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    return folder


def test_a_draft_must_have_a_program_for_this_machine(tmp_path: Path) -> None:
    entry = make_manifest().targets["cpu"]
    strange = dataclasses.replace(entry, cpu_features=("no_such_feature",))
    folder = write_bundle(tmp_path / "d", dataclasses.replace(make_manifest(), targets={"cpu-y": strange}))
    with pytest.raises(ArtifactError, match=r"the draft .*: no program of the bundle runs here") as error:
        open_draft(folder, "cpu")
    assert error.value.exit_code == 6
    targets = {"cpu-y": strange, "cpu-x": entry}
    folder = write_bundle(tmp_path / "e", dataclasses.replace(make_manifest(), targets=targets))
    assert open_draft(folder, "cpu").target_name == "cpu-x"
    bare = dataclasses.replace(entry, entry_points=entry.entry_points[:2])
    folder = write_bundle(tmp_path / "f", dataclasses.replace(make_manifest(), targets={"cpu": bare}))
    with pytest.raises(ArtifactError, match=r"the draft .*: cpu has no prefill or no decode entry point"):
        open_draft(folder, "cpu")
    with pytest.raises(ArtifactError, match=r"the draft .*none: no bundle at"):
        open_draft(tmp_path / "none", "cpu")


def check_words(folder: Path, manifest: Manifest, words: str) -> None:
    """Checks a draft with these tokens for a model with the tokens `abcdefghijk`."""
    draft = open_draft(write_bundle(folder, manifest, words), "cpu")
    check_draft(draft, make_manifest(), tokenizer_of("abcdefghijk"), check_files=False)


def test_a_draft_must_have_the_same_tokens(tmp_path: Path) -> None:
    check_words(tmp_path / "same", make_manifest(), "abcdefghijk")
    with pytest.raises(
        UsageError, match=r"another vocabulary than m: token 2 is 'd' there, and 'c' here; take"
    ) as error:
        check_words(tmp_path / "other", make_manifest(), "abdcefghijk")
    assert error.value.exit_code == 2
    with pytest.raises(UsageError, match="token 10 is None there, and 'k' here"):
        check_words(tmp_path / "smaller", make_manifest(), "abcdefghij")
    with pytest.raises(UsageError, match="token 11 is 'l' there, and None here"):
        draft = open_draft(write_bundle(tmp_path / "wide", make_manifest(vocab=16), "abcdefghijkl"), "cpu")
        check_draft(draft, make_manifest(vocab=12), tokenizer_of("abcdefghijk"), check_files=False)
    draft = open_draft(tmp_path / "same", "cpu")
    with pytest.raises(ArtifactError, match="is missing; copy the whole bundle"):
        check_draft(draft, make_manifest(), tokenizer_of("abcdefghijk"), check_files=True)


def test_padded_embeddings_and_added_tokens_are_no_other_vocabulary(tmp_path: Path) -> None:
    check_words(tmp_path / "padded", make_manifest(vocab=64), "abcdefghijk")
    check_words(tmp_path / "short", make_manifest(vocab=8), "abcdefghijk")
    check_words(tmp_path / "beyond", make_manifest(vocab=64), "abcdefghijkl")
    draft = open_draft(write_bundle(tmp_path / "added", make_manifest(vocab=64), "abcdefghijk", ["<x>"]), "cpu")
    model, ours = make_manifest(vocab=32), tokenizer_of("abcdefghijk")
    check_draft(draft, model, ours, check_files=False)
    ours.add_special_tokens(["<y>"])
    with pytest.raises(UsageError, match="token 11 is '<x>' there, and '<y>' here"):
        check_draft(draft, model, ours, check_files=False)


@pytest.fixture(scope="module")
def plain_bundle(guessing_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model without the programs that check guesses."""
    folder = tmp_path_factory.mktemp("plain") / "plain.amdnfs"
    shutil.copytree(guessing_bundle, folder)
    manifest = read_manifest(folder)
    entry = manifest.targets["cpu"]
    points = tuple(point for point in entry.entry_points if point.kind != "verify")
    assert len(points) < len(entry.entry_points)
    manifest = dataclasses.replace(manifest, targets={"cpu": dataclasses.replace(entry, entry_points=points)})
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder


def test_the_model_must_check_guesses(plain_bundle: Path, guessing_bundle: Path) -> None:
    with pytest.raises(
        ArtifactError, match=r"checks no guesses, so a draft is of no use; compile it again with: amdnfs"
    ):
        load(plain_bundle, draft=guessing_bundle, check=False)
    with pytest.raises(UsageError, match="a draft guesses, but speculate is False: leave out the draft"):
        load(guessing_bundle, draft=plain_bundle, check=False, config=EngineConfig(speculate=False))


@pytest.fixture(scope="module")
def noisy_bundle(guessing_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model with noise in its weights."""
    from safetensors.numpy import load_file, save_file

    folder = tmp_path_factory.mktemp("noisy") / "noisy.amdnfs"
    shutil.copytree(guessing_bundle, folder)
    rng = np.random.default_rng(0)
    for path in (folder / "weights").glob("*.safetensors"):
        tensors = load_file(path)
        noisy = {name: (1.5 * rng.permutation(item.reshape(-1)).reshape(item.shape)) for name, item in tensors.items()}
        path.unlink()  # it may be one file with the other bundle's
        save_file({name: item.astype(tensors[name].dtype) for name, item in noisy.items()}, path)
    return folder


@pytest.mark.parametrize("options", [{}, {"temperature": 0.8, "seed": 3}], ids=str)
def test_compiled_drafts(
    guessing_bundle: Path, noisy_bundle: Path, plain_bundle: Path, options: dict[str, Any]
) -> None:
    prompts = ["One day, a small bird met", "3 + 4 = 7\n5 + 6 =", "The cat", "I like to"]
    params = SamplingParams(max_tokens=40, ignore_eos=True, **options)
    plain = load(guessing_bundle, config=EngineConfig(speculate=False, kv_pages=100), check=False)
    expected = [result.token_ids for result in plain.generate(prompts, params)]
    shares = []
    for draft in (guessing_bundle, plain_bundle, noisy_bundle):
        llm = load(guessing_bundle, draft=draft, num_pages=100, check=False)
        assert [result.token_ids for result in llm.generate(prompts, params)] == expected
        llm.engine.check_integrity()
        assert llm.engine.draft is not None
        assert llm.engine.draft.pool.num_used == 0
        counts = llm.engine.stats().guesses["draft"]
        shares.append(counts.num_right / counts.num_guessed)
    assert shares[2] < 0.2 < shares[1]
    if params.is_greedy:
        assert min(shares[:2]) > 0.9


def test_generate_with_a_draft(guessing_bundle: Path) -> None:
    arguments = [str(guessing_bundle), "--prompt", "17 + 25 =", "--max-tokens", "8", "--no-check", "--kv-pages", "40"]
    plain = CliRunner().invoke(generate_command, arguments, catch_exceptions=False)
    drafted = CliRunner().invoke(
        generate_command, [*arguments, "--draft", str(guessing_bundle)], catch_exceptions=False
    )
    assert (drafted.exit_code, drafted.output) == (0, plain.output)
    assert plain.output.startswith("17 + 25 = 42.")


def test_a_draft_on_another_device_is_sized_by_itself(tmp_path: Path) -> None:
    entry = make_manifest().targets["cpu"]
    names = ProgramNames(entry, "cpu")
    for kind, expected in (("cpu", (9, 9)), ("vulkan", (9, 1 + 4 * 16))):
        manifest = dataclasses.replace(make_manifest(), targets={"x": dataclasses.replace(entry, kind=kind)})
        draft = DraftBundle(folder=tmp_path, manifest=manifest, target_name="x")
        assert pool_sizes(make_manifest(), "cpu", names, EngineConfig(kv_pages=9), draft) == expected
    assert pool_sizes(make_manifest(), "cpu", names, EngineConfig(kv_pages=9), None) == (9, 0)


def test_a_bundle_is_its_own_draft(guessing_bundle: Path) -> None:
    draft = open_draft(guessing_bundle, "cpu")
    assert isinstance(draft, DraftBundle)
    assert (draft.target_name, draft.kind) == ("cpu", "cpu")
