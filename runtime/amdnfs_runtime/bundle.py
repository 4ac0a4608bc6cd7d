"""The bundle: a directory with a manifest, shared weights, a tokenizer and one program a target.

    manifest.json                       this file's `Manifest`; every other file by relative path, size and sha256
    weights/*.safetensors               shared by all targets
    tokenizer/                          tokenizer.json and the settings beside it
    artifacts/<target>/program.vmfb     the program
    artifacts/<target>/facts.json       how it was made

The standard library and the spelling of layouts only: the compiler and the runtime both read it, and neither needs the
other. Writing a bundle is the compiler's job; this module knows the format and checks it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from amdnfs_targets.quantized_layout import QuantizedLayout

from amdnfs_runtime.errors import ArtifactError

FORMAT = "amdnfs-bundle"
FORMAT_VERSION = 1
MIN_FORMAT_VERSION = 1
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer/tokenizer.json"
"""Path of the tokenizer."""
CACHE_BYTES: Mapping[str, int] = types.MappingProxyType({"f32": 4, "f16": 2, "bf16": 2, "fp8": 1})
"""Size of one element of a pool, in bytes, by element type. `fp8` is e4m3 in the flavour of the target."""
_HASH_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """What a file must be."""

    size: int
    """Length in bytes."""
    sha256: str
    """Digest of the content, 64 lower-case hexadecimal digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCacheEntry:
    """The cache of one layer: pages `[num_pages, 2, page_tokens, kv_heads, head_dim]`, index 0 keys, 1 values."""

    kind: str
    """`paged` (the only kind in format 1)."""
    kv_heads: int
    """Key/value heads."""
    head_dim: int
    """Size of one key."""
    window: int
    """Sliding window in tokens; 0 is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPoint:
    """One function of a program."""

    name: str
    """Function name in the vmfb."""
    kind: str
    """`prefill`, `decode`, or `verify`: a decode that takes guessed tokens, too, and tells what follows each."""
    batch: int
    """Requests a call."""
    tokens: int
    """New tokens a request."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TargetEntry:
    """One target's artifact."""

    kind: str
    """`cpu`, `hip`, `cuda` or `vulkan`."""
    gfx: str | None
    """AMD architecture of a hip program."""
    program: str
    """Path of the vmfb."""
    facts: str
    """Path of the facts."""
    entry_points: tuple[EntryPoint, ...]
    """Functions, prefill first, by growing size."""
    cpu_features: tuple[str, ...]
    """Features (as in /proc/cpuinfo) that a cpu program was compiled for; empty for other kinds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelEntry:
    """What was compiled."""

    name: str
    """Name of the source folder or hub id."""
    architecture: str
    """Class name in transformers."""
    model_type: str
    """Family in transformers."""
    dtype: str
    """Storage type: `f32`, `f16` or `bf16`."""
    vocab_size: int
    """Length of a row of logits."""
    context_tokens: int
    """Longest prompt plus generated text."""
    digest: str
    """sha256 over configuration, weight digests and cache geometry; equal digests may share a bundle."""
    quantization: str = "none"
    """How the weights of the decoder layers are stored, as `amdnfs_targets.quantized_layout` spells it; or `none`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """The content of manifest.json."""

    model: ModelEntry
    """What was compiled."""
    page_tokens: int
    """Tokens of a page."""
    cache_dtype: str
    """Element type of the pools."""
    layers: tuple[LayerCacheEntry, ...]
    """Each layer's cache."""
    bos_token_id: int | None
    """Token that begins a text, if the model has one."""
    eos_token_ids: tuple[int, ...]
    """Tokens that end a text."""
    weights: tuple[str, ...]
    """Paths of the weight archives; tensor names are unique over all of them."""
    targets: Mapping[str, TargetEntry]
    """Artifacts by target name."""
    files: Mapping[str, FileEntry] = field(default_factory=dict)
    """Every file of the bundle but the manifest itself."""
    format_version: int = FORMAT_VERSION
    """Version of this format."""

    @property
    def page_bytes(self) -> int:
        """Size of one page over all layers, in bytes."""
        element = CACHE_BYTES[self.cache_dtype]
        return sum(2 * self.page_tokens * layer.kv_heads * layer.head_dim * element for layer in self.layers)

    def to_json(self) -> str:
        """The manifest as text: sorted keys, no time stamps, no absolute paths."""
        values = {"format": FORMAT, **dataclasses.asdict(self)}
        return json.dumps(values, indent=1, sort_keys=True) + "\n"


def file_entry(path: Path) -> FileEntry:
    """Size and digest of a file, read in chunks."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileEntry(size=size, sha256=digest.hexdigest())


def read_manifest(folder: Path) -> Manifest:
    """Reads and validates the manifest of the bundle in `folder`; looks at no other file.

    Raises:
        ArtifactError: If it is missing, not JSON, of another format or version, or a field is missing, unknown, of
            another type or out of range.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(f"no bundle at {folder}: no such folder; make one with: amdnfs-compile MODEL --target cpu")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder} is not a bundle: it has no {MANIFEST}; make one with: amdnfs-compile MODEL --target cpu"
        ) from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be read as JSON ({error}); compile the bundle again") from error
    return _from_json(values, path)


def _from_json(values: Any, path: Path) -> Manifest:
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ArtifactError(f"{path}: not a manifest of a bundle (its format is not {FORMAT!r})")
    version = values.get("format_version")
    if type(version) is not int or not MIN_FORMAT_VERSION <= version <= FORMAT_VERSION:
        raise ArtifactError(
            f"{path}: format version {version!r}, but this runtime reads {MIN_FORMAT_VERSION} to {FORMAT_VERSION}; "
            "install a newer amdnfs, or compile the bundle again with this one"
        )
    try:
        manifest = _read(Manifest, {name: value for name, value in values.items() if name != "format"}, "")
        _check_sense(manifest)
    except ValueError as error:
        raise ArtifactError(f"{path}: damaged manifest: {error}; compile the bundle again") from error
    return typing.cast(Manifest, manifest)


def _read(kind: Any, value: Any, where: str) -> Any:
    """`value` of the JSON as a `kind`: a dataclass, `tuple[x, ...]`, `Mapping[str, x]`, `x | None`, or a plain type.

    Raises:
        ValueError: Naming the field (`where`) that is missing, unknown or of another type.
    """
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return None if value is None else _read(arguments[0], value, where)
    origin = typing.get_origin(kind)
    is_record = dataclasses.is_dataclass(kind)
    wanted: Any = list if origin is tuple else dict if origin or is_record else kind
    if not isinstance(value, wanted) or isinstance(value, bool):
        raise ValueError(f"{where} is {value!r:.60}, not of type {wanted.__name__}")
    if origin is tuple:
        return tuple(_read(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is collections.abc.Mapping:
        return {name: _read(arguments[1], item, f"{where}[{name!r}]") for name, item in value.items()}
    return _read_record(kind, value, where) if is_record else value


def _read_record(kind: Any, value: dict[str, Any], where: str) -> Any:
    names = [item.name for item in dataclasses.fields(kind)]
    for problem, found in (("lacks", set(names) - set(value)), ("has the unknown field", set(value) - set(names))):
        if found:
            raise ValueError(f"{where or 'it'} {problem} {sorted(found)[0]!r}")
    kinds = typing.get_type_hints(kind)
    return kind(**{name: _read(kinds[name], value[name], f"{where}.{name}".lstrip(".")) for name in names})


def _check_sense(manifest: Manifest) -> None:
    """Checks what the runtime relies on.

    Raises:
        ValueError: Naming the first field that makes no sense.
    """
    for name in manifest.files:
        parts = PurePosixPath(name)
        if parts.is_absolute() or ".." in parts.parts or "\\" in name:
            raise ValueError(f"the path {name!r} leaves the bundle")
    programs = [path for target in manifest.targets.values() for path in (target.program, target.facts)]
    for name in (*manifest.weights, TOKENIZER, *programs):
        if name not in manifest.files:
            raise ValueError(f"it does not list the file {name!r}")
    if manifest.cache_dtype not in CACHE_BYTES:
        raise ValueError(f"cache_dtype is {manifest.cache_dtype!r}; known are {', '.join(sorted(CACHE_BYTES))}")
    if manifest.model.quantization != "none":
        try:
            QuantizedLayout.parse(manifest.model.quantization)
        except ValueError as error:
            raise ValueError(f"model.quantization: {error}") from error
    for index, layer in enumerate(manifest.layers):
        if layer.kind != "paged":
            raise ValueError(f"layers[{index}].kind is {layer.kind!r}; known is 'paged'")
    model, points = manifest.model, [point for target in manifest.targets.values() for point in target.entry_points]
    counts = [("page_tokens", manifest.page_tokens), ("number of layers", len(manifest.layers))]
    counts += [("model.vocab_size", model.vocab_size), ("model.context_tokens", model.context_tokens)]
    counts += [("kv_heads or head_dim", min(layer.kv_heads, layer.head_dim)) for layer in manifest.layers]
    counts += [("batch or tokens of an entry point", min(point.batch, point.tokens)) for point in points]
    for label, count in counts:
        if count < 1:
            raise ValueError(f"{label} is {count}, but must be at least 1")


def verify_files(folder: Path, manifest: Manifest, names: Iterable[str] | None = None) -> None:
    """Compares files with the manifest: presence, size, digest.

    Args:
        folder: The bundle.
        manifest: Its manifest.
        names: Files to look at; all by default.

    Raises:
        ArtifactError: Naming the first file that is missing or altered.
    """
    for name in sorted(manifest.files if names is None else names):
        expected = manifest.files.get(name)
        path = folder / name
        if expected is None:
            raise ArtifactError(f"{folder}: {name} is not listed in the manifest; compile the bundle again")
        if not path.is_file():
            raise ArtifactError(f"{folder}: the file {name} is missing; copy the whole bundle, or compile it again")
        size = path.stat().st_size
        if size != expected.size:
            raise ArtifactError(
                f"{folder}: the file {name} was altered: {size} bytes, the manifest says {expected.size}; "
                "copy the bundle again, or compile it again"
            )
        if file_entry(path).sha256 != expected.sha256:
            raise ArtifactError(
                f"{folder}: the file {name} was altered: its sha256 is not the manifest's; "
                "copy the bundle again, or compile it again"
            )
