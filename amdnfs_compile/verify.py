"""Compares a bundle's program with transformers, and with the bundle's CPU program, on random texts.

The reference of transformers is the model's own code in f32 on the weights as the bundle stores them (rounded to its
type, or quantised, then widened), with the whole text in one call and no cache: nothing of ours takes part in it. The
CPU program shares the import and the passes with the program that it is compared with, but neither kernels nor code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from amdnfs_runtime.bundle import Manifest, read_manifest
from amdnfs_runtime.device import choose_target, inspect_host
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.execution import EmulatedSteps, Emulation, LocalSteps, Steps
from amdnfs_targets.aliases import ALIASES
from amdnfs_targets.quantized_layout import Activations, QuantizedLayout

from amdnfs_compile.replay import Observation, make_texts, num_checked_tokens, num_pages, replay

TOLERANCE = {"f32": 2e-4, "f16": 2e-2, "bf16": 1.2e-1}
"""Largest allowed difference of logits, as a share of the largest reference logit.

f32 differs by the order of sums. f16 and bf16 have 11 and 8 bits of mantissa: activations are rounded about ten times
a layer, and each rounding is 2^-12 or 2^-9 of the value.
"""

ROUNDED_TOLERANCE = {"f32": 4e-2, "f16": 1.5e-1, "bf16": 3e-1}
"""The same where activations, or keys and values, are rounded to 8 bits: a difference in the last bit of an activation
can move it to the next of 255 steps, or of fp8 numbers. In f32 that happens to few, and most errors are below 1e-5; in
16 bits it happens to many in each layer.
"""

TRANSFORMERS, CPU = "transformers", "cpu"
"""What a program can be compared with."""
DISTANCE = "distance from the unquantised model"
"""Name of the comparison that says what quantisation costs; it has no tolerance."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One comparison."""

    name: str
    """What was compared."""
    against: str
    """With what: `transformers`, or `cpu`, the bundle's own program."""
    error: float
    """Largest difference of a logit, as a share of the largest reference logit."""
    same_argmax: float
    """Share of rows whose greatest logit is at the same token."""
    tolerance: float
    """Allowed `error`."""

    @property
    def is_right(self) -> bool:
        """Whether the error is within the tolerance; NaN never is."""
        return self.error <= self.tolerance


def verify_bundle(
    bundle: Path,
    model: Path | None,
    target: str | None = None,
    *,
    seed: int = 0,
    num_tokens: int = 0,
    emulation: Emulation | None = None,
    with_cpu: bool = False,
) -> list[Check]:
    """Runs prefill in one go and in chunks, decode over page borders, reuse of pages, a batch, and guessed tokens.

    Args:
        bundle: The bundle.
        model: Folder of the model it was made from; None leaves transformers out.
        target: Target to run; the best for this machine by default.
        seed: Of the random texts.
        num_tokens: Length of each text; by default two pages and a half.
        emulation: Run the program in a process of its own on this stand-in HIP library.
        with_cpu: Compare with the bundle's CPU program too.

    Raises:
        ModelError: If transformers cannot load the model, or it is not the one the bundle was made from.
        ArtifactError: If the bundle cannot be run.
        UsageError: If the text does not fit the context, there is nothing to compare with, or the target to emulate is
            no hip target.
    """
    manifest = read_manifest(bundle)
    name = target_to_run(manifest, target, is_emulated=emulation is not None)
    length = num_tokens or 2 * manifest.page_tokens + manifest.page_tokens // 2
    if length > manifest.model.context_tokens:
        raise UsageError(f"{length} tokens do not fit the context of {manifest.model.context_tokens}")
    checked = num_checked_tokens(manifest, name)
    if checked and length < checked + 2:
        raise UsageError(f"{length} tokens are too few to check {checked - 1} guesses: {checked + 2} are the least")
    if model is None and not with_cpu:
        raise UsageError("nothing to compare with: give the model's folder, or compare with the CPU program")
    texts = make_texts(manifest, length, seed)
    checks: list[Check] = []
    tolerance = tolerance_of(manifest)
    reference = None
    if model is not None:
        original, reference = _reference(model, bundle, manifest, texts, name)
        if original is not reference:
            checks.append(_compare(DISTANCE, TRANSFORMERS, reference, original, math.inf))
    observed = _observe(bundle, manifest, name, texts, emulation)
    if reference is not None:
        wanted = [np.stack([reference[row] for row in item.rows]) for item in observed]
        checks += _checks(TRANSFORMERS, observed, wanted, tolerance)
    if with_cpu:
        beside = _observe(bundle, manifest, cpu_target(manifest), texts, None, one_by_one=checked)
        checks += _checks(CPU, observed, [_same_rows(item, beside) for item in observed], tolerance)
    return checks


def target_to_run(manifest: Manifest, wanted: str | None, *, is_emulated: bool) -> str:
    """The target whose program is looked at: a hip target if it is emulated, else the best for this machine.

    Raises:
        ArtifactError: If the bundle lacks it, or it cannot run here.
        UsageError: If it is to be emulated but is no hip target, or several are there and none was named.
    """
    if not is_emulated:
        return choose_target(manifest, inspect_host(), wanted)
    hip = [name for name, entry in manifest.targets.items() if entry.kind == "hip"]
    if wanted is not None:
        wanted = ALIASES.get(wanted.strip().lower(), wanted)
        if wanted not in manifest.targets:
            raise ArtifactError(f"the bundle has no target {wanted}; it holds {', '.join(manifest.targets)}")
        if wanted in hip:
            return wanted
    elif len(hip) == 1:
        return hip[0]
    raise UsageError(
        "--emulate runs hip programs; name one of the bundle's gfx targets with --target: "
        f"it has {', '.join(hip) or 'none'}"
    )


def tolerance_of(manifest: Manifest) -> float:
    """Largest allowed difference of logits, as a share of the largest reference logit."""
    quantization = manifest.model.quantization
    layout = None if quantization == "none" else QuantizedLayout.parse(quantization)
    is_rounded = layout is not None and layout.activations is not Activations.FLOAT
    if is_rounded or manifest.cache_dtype == "fp8":
        return ROUNDED_TOLERANCE[manifest.model.dtype]
    return TOLERANCE[manifest.model.dtype]


def cpu_target(manifest: Manifest) -> str:
    """The bundle's CPU program that runs on this machine.

    Raises:
        UsageError: If there is none; says why.
    """
    host = inspect_host()
    reasons = ["the bundle has no cpu target"]
    for name, entry in manifest.targets.items():
        if entry.kind == "cpu":
            reason = host.why_not(name, entry)
            if reason is None:
                return name
            reasons.append(reason)
    raise UsageError(
        f"there is no CPU program to compare with: {reasons[-1]}; amdnfs-compile MODEL --target cpu adds one"
    )


@contextmanager
def open_steps(
    bundle: Path, manifest: Manifest, target: str, pages: int, emulation: Emulation | None
) -> Iterator[Steps]:
    """A program of the bundle, in this process or on the emulator.

    Raises:
        ArtifactError: If the device, or the emulator, refuses the program.
    """
    if emulation is None:
        yield LocalSteps(bundle, manifest, target, pages)
        return
    with EmulatedSteps(bundle, target, pages, emulation) as steps:
        yield steps


def _reference(
    model: Path, bundle: Path, manifest: Manifest, texts: npt.NDArray[np.int64], target: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    # torch and transformers: only where they are asked for
    from amdnfs_compile.reference import check_model, reference_logits

    check_model(model, manifest)
    return reference_logits(model, bundle, manifest, texts, target)


def _same_rows(item: Observation, beside: Sequence[Observation]) -> npt.NDArray[np.float32]:
    """Logits of the same rows from another program, used in the same way; guessed tokens it has decoded one by one."""
    found = next((other for other in beside if other.name == item.name), beside[-1])
    if found.rows != item.rows:
        raise AssertionError(f"{item.name} has other rows than {found.name}")
    return found.logits


def _observe(
    bundle: Path,
    manifest: Manifest,
    target: str,
    texts: npt.NDArray[np.int64],
    emulation: Emulation | None,
    one_by_one: int | None = None,
) -> list[Observation]:
    pages = num_pages(manifest, texts.shape[1])
    with open_steps(bundle, manifest, target, pages, emulation) as steps:
        return list(replay(steps, manifest, target, texts, one_by_one=one_by_one))


def _checks(
    against: str, observed: Sequence[Observation], wanted: Sequence[npt.NDArray[np.float32]], tolerance: float
) -> list[Check]:
    pairs = zip(observed, wanted, strict=True)
    return [_compare(item.name, against, item.logits, logits, tolerance) for item, logits in pairs]


def _compare(
    label: str, against: str, got: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], tolerance: float
) -> Check:
    return Check(
        name=label,
        against=against,
        error=float(np.abs(got - wanted).max() / np.abs(wanted).max()),
        same_argmax=float((got.argmax(-1) == wanted.argmax(-1)).mean()),
        tolerance=tolerance,
    )
