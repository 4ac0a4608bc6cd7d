"""Opens the bundle of a draft: whether it can guess for a model, before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from amdnfs_runtime.bundle import Manifest, read_manifest, verify_files
from amdnfs_runtime.calls import ProgramNames
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.device import Program, choose_target, inspect_host
from amdnfs_runtime.drafts import Draft
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.prompts import load_tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftBundle:
    """A bundle that was checked, and not loaded yet."""

    folder: Path
    """Where it is."""
    manifest: Manifest
    """What it holds."""
    target_name: str
    """Which of its programs runs here."""

    @property
    def kind(self) -> str:
        """The kind of the target: whose memory is taken."""
        return self.manifest.targets[self.target_name].kind

    def load(self, num_pages: int) -> Draft:
        """Loads the program.

        Args:
            num_pages: Pages of the draft's pool.

        Raises:
            ArtifactError: If the device refuses the program.
        """
        program = Program(self.folder, self.manifest, self.target_name)
        return Draft(program=program, manifest=self.manifest, target_name=self.target_name, num_pages=num_pages)


def open_draft(path: Path, target_name: str) -> DraftBundle:
    """Reads the manifest of a draft, and finds its program: for the same target, else the best for this machine.

    Raises:
        ArtifactError: If it is no bundle, or none of its programs runs here.
    """
    try:
        manifest = read_manifest(path)
        wanted = target_name if target_name in manifest.targets else None
        name = choose_target(manifest, inspect_host(), wanted)
        ProgramNames(manifest.targets[name], name)
    except ArtifactError as error:
        raise ArtifactError(f"the draft {path}: {error}") from error
    return DraftBundle(folder=path, manifest=manifest, target_name=name)


def check_draft(draft: DraftBundle, manifest: Manifest, tokenizer: Tokenizer, *, check_files: bool) -> None:
    """Checks that a draft speaks in the tokens of a model.

    The embeddings may differ in length, as some are padded, and one of the two may have added tokens that the other
    lacks; `DraftSource` minds both.

    Args:
        draft: The draft.
        manifest: The model's bundle.
        tokenizer: The model's tokenizer.
        check_files: Compare the draft's files with its manifest, too.

    Raises:
        ArtifactError: If a file of the draft is missing or altered.
        UsageError: If a token that both models have is another one in the draft.
    """
    if check_files:
        others = [item for name, item in draft.manifest.targets.items() if name != draft.target_name]
        skipped = {item.program for item in others} | {item.facts for item in others}
        verify_files(draft.folder, draft.manifest, [item for item in draft.manifest.files if item not in skipped])
    num_shared = min(manifest.model.vocab_size, draft.manifest.model.vocab_size)
    differing = _first_difference(tokenizer, load_tokenizer(draft.folder), num_shared)
    if differing is not None:
        number, text, other = differing
        raise UsageError(
            f"the draft {draft.folder} has another vocabulary than {manifest.model.name}: token {number} is {other!r} "
            f"there, and {text!r} here; take a draft of the same family of models"
        )


def check_can_guess(names: ProgramNames, config: EngineConfig, bundle: Path, target_name: str) -> None:
    """Checks that the guesses of a draft are of use.

    Raises:
        ArtifactError: If the program checks no guesses.
        UsageError: If the configuration wants no guesses.
    """
    if not config.speculate:
        raise UsageError("a draft guesses, but speculate is False: leave out the draft, or set speculate to True")
    if not names.verify_tokens:
        raise ArtifactError(
            f"{bundle}: the program for {target_name} checks no guesses, so a draft is of no use; compile it again "
            f"with: amdnfs-compile MODEL --target {target_name} --speculate 4"
        )


def _first_difference(ours: Tokenizer, theirs: Tokenizer, num_shared: int) -> tuple[int, str | None, str | None] | None:
    """The first token id below `num_shared` that stands for different texts, and the texts; None if there is none.

    A token that was added to one tokenizer, and for which the other has none, is no difference.
    """
    texts, others = (
        {number: text for text, number in item.get_vocab(with_added_tokens=True).items()} for item in (ours, theirs)
    )
    basic = {number for item in (ours, theirs) for number in item.get_vocab(with_added_tokens=False).values()}
    for number in sorted(texts.keys() | others.keys()):
        text, other = texts.get(number), others.get(number)
        is_other = text != other and (number in basic or None not in (text, other))
        if number < num_shared and is_other:
            return number, text, other
    return None
