"""Finds a model and reads everything about it but its weights: configuration, tensor headers, tokenizer files."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amdnfs_runtime.errors import ModelError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_LFS_POINTER = b"version https://git-lfs"
_HUB_PATTERNS = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja", "*.txt")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)
"""Files that are copied into a bundle's tokenizer folder where the model has them; the first is required."""
DTYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
"""safetensors names of the storage types we take, to ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorHeader:
    """One tensor of a checkpoint."""

    shape: tuple[int, ...]
    """Sizes."""
    dtype: str
    """Storage type as safetensors names it, e.g. `BF16`."""
    file: str
    """Name of the shard that holds it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A model folder, by its headers."""

    folder: Path
    """Where it is."""
    name: str
    """What the user called it, without a path."""
    config: Any
    """The transformers configuration."""
    shards: tuple[str, ...]
    """Names of the safetensors files."""
    tensors: Mapping[str, TensorHeader]
    """Every tensor."""
    extra_tokens: tuple[tuple[int, str], ...] = ()
    """Id and text of every token of the tokenizer that the model's vocabulary does not reach, by id."""

    @property
    def architecture(self) -> str:
        """Name of the model's class: the first that config.json gives, else that of the configuration's class."""
        given = getattr(self.config, "architectures", None)
        names = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        return next((name for name in names if isinstance(name, str) and name), type(self.config).__name__)

    @property
    def vocab_size(self) -> int | None:
        """Number of tokens the model knows; None if its configuration does not say."""
        size = getattr(self.config.get_text_config(), "vocab_size", None)
        return size if isinstance(size, int) else None

    @property
    def num_bytes(self) -> int:
        """Size of all shards, in bytes."""
        return sum((self.folder / shard).stat().st_size for shard in self.shards)

    def majority_dtype(self) -> str:
        """The storage type of most elements among those we take.

        Raises:
            ModelError: If no tensor has a type we take.
        """
        counts: Counter[str] = Counter()
        for header in self.tensors.values():
            size = 1
            for extent in header.shape:
                size *= extent
            counts[header.dtype] += size
        known = [(count, dtype) for dtype, count in counts.items() if dtype in DTYPES]
        if not known:
            seen = ", ".join(sorted(counts)) or "none"
            raise ModelError(f"{self.folder}: weights have type {seen}; supported are {', '.join(sorted(DTYPES))}")
        return DTYPES[max(known)[1]]


def open_checkpoint(model: str, *, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Finds `model` and reads its configuration and tensor headers.

    Args:
        model: A folder, or an id on the Hugging Face hub.
        revision: Branch, tag or commit of a hub id.
        offline: Use only what the hub's local cache has.

    Raises:
        ModelError: If a part is missing, damaged or of an unsupported kind.
    """
    folder = _locate(model, revision, offline)
    config = _read_config(folder)
    shards = _find_shards(folder)
    tensors: dict[str, TensorHeader] = {}
    for shard in shards:
        for name, header in _read_headers(folder / shard).items():
            if name in tensors:
                raise ModelError(f"{folder}: the tensor {name} is in {tensors[name].file} and in {shard}")
            tensors[name] = header
    _check_index(folder, tensors)
    tokenizer = _read_tokenizer(folder)
    checkpoint = Checkpoint(folder=folder, name=_name_of(model), config=config, shards=shards, tensors=tensors)
    return dataclasses.replace(checkpoint, extra_tokens=_tokens_beyond(tokenizer, checkpoint.vocab_size))


def read_special_tokens(checkpoint: Checkpoint) -> tuple[int | None, tuple[int, ...]]:
    """The begin token and the end tokens: those of generation_config.json, else those of config.json.

    Ids that the vocabulary does not have are left out; `odd_tokens` names them.

    Raises:
        ModelError: If they are not token ids.
    """
    ids = {
        name: tuple(item for item in given if _is_known(checkpoint, item))
        for name, (_, given) in _given(checkpoint).items()
    }
    return next(iter(ids["bos_token_id"]), None), ids["eos_token_id"]


def odd_tokens(checkpoint: Checkpoint) -> tuple[str, ...]:
    """What is odd about the tokens of a model that can be compiled nevertheless, one line each."""
    told = []
    vocab = f"the model's vocabulary of {checkpoint.vocab_size} tokens"
    if checkpoint.extra_tokens:
        token_id, text = checkpoint.extra_tokens[0]
        told.append(
            f"{checkpoint.folder / TOKENIZER_FILES[0]}: {len(checkpoint.extra_tokens)} token(s) are outside {vocab}, "
            f"first {text!r} ({token_id}); a prompt that holds one will be refused"
        )
    for name, (file, ids) in _given(checkpoint).items():
        told += [
            f"{checkpoint.folder / file}: {name} {token_id} is outside {vocab} and is left out"
            for token_id in ids
            if not _is_known(checkpoint, token_id)
        ]
    return tuple(told)


def _is_known(checkpoint: Checkpoint, token_id: int) -> bool:
    return checkpoint.vocab_size is None or 0 <= token_id < checkpoint.vocab_size


def _given(checkpoint: Checkpoint) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For the begin and the end token: the file that says what it is, and the ids it gives.

    Raises:
        ModelError: If they are not token ids.
    """
    config = checkpoint.config.get_text_config()
    values = {name: ("config.json", getattr(config, name, None)) for name in ("bos_token_id", "eos_token_id")}
    path = checkpoint.folder / "generation_config.json"
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ModelError(f"{path}: holds {_kind_of(found)}, not settings by name")
        values.update({name: (path.name, found[name]) for name in values if found.get(name) is not None})
    given = {}
    for name, (file, value) in values.items():
        ids = value if isinstance(value, list) and name == "eos_token_id" else [] if value is None else [value]
        wrong = [token for token in ids if type(token) is not int]
        if wrong:
            raise ModelError(f"{checkpoint.folder / file}: {name}: {wrong[0]!r} is not a token id")
        given[name] = file, tuple(ids)
    return given


def _locate(model: str, revision: str | None, offline: bool) -> Path:
    try:
        path = Path(model).expanduser()
        path.stat()
    except FileNotFoundError:
        pass
    except (OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"no folder at {model[:200]}: {error}") from error
    if path.is_dir():
        if revision is not None:
            raise ModelError(f"--revision {revision} is for a hub id, but {model} is a folder")
        return path
    if path.is_file():
        raise ModelError(f"{model} is a file; give the folder that holds config.json (GGUF and ONNX are not read yet)")
    if model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise ModelError(f"no folder at {model}")
    return _download(model, revision, offline)


def _download(model: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(
            model, revision=revision, local_files_only=offline, allow_patterns=list(_HUB_PATTERNS)
        )
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        if offline and isinstance(error, LocalEntryNotFoundError):
            raise ModelError(
                f"{model} is neither a folder nor in the hub's local cache; repeat without --offline to download it"
            ) from error
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{model} was not found as a folder or on the hub: {reason}") from error
    return Path(found)


def _read_config(folder: Path) -> Any:
    from transformers import CONFIG_MAPPING, AutoConfig, __version__

    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(f"{folder}: config.json is missing, so this is not a Hugging Face model folder")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{path}: not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ModelError(f"{path}: holds {_kind_of(values)}, not the settings of a model")
    for name in ("quantization_config", "compression_config"):
        if not values.get(name) and values.get(name) not in (None, {}):
            raise ModelError(
                f"{path}: {name} holds {_kind_of(values[name])}, not settings by name; "
                "remove it if the checkpoint is not quantised"
            )
    quantised = values.get("quantization_config") or values.get("compression_config")
    if quantised:
        named = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        method = named or "an unnamed method"
        raise ModelError(
            f"{folder}: the checkpoint is quantised with {method}, which is not read yet; "
            "compile the unquantised checkpoint it was made from; --quantize quantises it again"
        )
    try:
        # Without trust_remote_code=False, transformers asks on the terminal whether it may run a model's own code.
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        kind = values.get("model_type")
        if kind in CONFIG_MAPPING:
            reason = " ".join(str(error).split())
            raise ModelError(f"{path}: transformers refuses this configuration of a {kind} model: {reason}") from error
        if kind is None:
            raise ModelError(f"{path}: names no model_type, so this is not a Hugging Face model") from error
        own = "; the model brings code of its own, which is never run" if values.get("auto_map") else ""
        raise ModelError(f"{path}: transformers {__version__} does not know the model type {kind!r}{own}") from error


def _find_shards(folder: Path) -> tuple[str, ...]:
    index = folder / _INDEX
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, LookupError, AttributeError, TypeError) as error:
            raise ModelError(f"{index}: damaged: {error!r}; download it again") from error
        strange = [shard for shard in shards if not isinstance(shard, str) or not shard or Path(shard).name != shard]
        if strange:
            raise ModelError(f"{index}: damaged: {strange[0]!r} is not the name of a file beside it; download it again")
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"{folder}: {len(missing)} of {len(shards)} shards are missing, first {missing[0]}; download it again"
            )
        return tuple(shards)
    if (folder / _SINGLE).is_file():  # what transformers reads; some models hold their weights a second time beside it
        return (_SINGLE,)
    found = tuple(sorted(path.name for path in folder.glob("*.safetensors")))
    if not found:
        hint = "; convert pytorch_model.bin to safetensors first" if list(folder.glob("*.bin")) else ""
        raise ModelError(f"{folder}: no *.safetensors file{hint}")
    return found


def _read_headers(path: Path) -> dict[str, TensorHeader]:
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return {
                name: TensorHeader(shape=tuple(view.get_shape()), dtype=view.get_dtype(), file=path.name)
                for name, view in slices.items()
            }
    except (SafetensorError, OSError) as error:
        with path.open("rb") as file:
            if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
                raise ModelError(f"{path}: a pointer of git-lfs, not the weights; run: git lfs pull") from error
        raise ModelError(
            f"{path}: truncated or damaged ({error}; {path.stat().st_size} bytes on disk); download it again"
        ) from error


def _check_index(folder: Path, tensors: Mapping[str, TensorHeader]) -> None:
    index = folder / _INDEX
    if not index.is_file():
        return
    listed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    missing = sorted(set(listed) - set(tensors))
    if missing:
        raise ModelError(
            f"{folder}: the index names tensor {missing[0]} in {listed[missing[0]]}, which does not hold it"
        )


def _read_tokenizer(folder: Path) -> Tokenizer:
    path = folder / TOKENIZER_FILES[0]
    remedy = "save one with transformers: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)"
    if not path.is_file():
        raise ModelError(f"{folder}: tokenizer.json is missing, so text cannot be turned into tokens; {remedy}")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelError(f"{path}: cannot be read: {error}; {remedy}") from error


def _tokens_beyond(tokenizer: Tokenizer, vocab_size: int | None) -> tuple[tuple[int, str], ...]:
    if vocab_size is None:
        return ()
    return tuple(sorted((token_id, text) for text, token_id in tokenizer.get_vocab().items() if token_id >= vocab_size))


def _kind_of(value: object) -> str:
    return {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")


def _name_of(model: str) -> str:
    path = Path(model).expanduser()
    return path.resolve().name if path.is_dir() else model.rsplit("/", maxsplit=1)[-1]
