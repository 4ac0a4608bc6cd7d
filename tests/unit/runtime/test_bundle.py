"""The manifest: what it says is read exactly, and whatever is wrong is refused by name with what to do."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import amdnfs_runtime
import pytest
from amdnfs_runtime.bundle import FORMAT_VERSION, file_entry, read_manifest, verify_files
from amdnfs_runtime.errors import ArtifactError

PROGRAM = "artifacts/cpu/program.vmfb"
TOKENIZER = "tokenizer/tokenizer.json"
WEIGHTS = "weights/model.safetensors"
FILES = {PROGRAM: b"a program", "artifacts/cpu/facts.json": b"{}", TOKENIZER: b"{}", WEIGHTS: b"0123456789"}
GOOD: dict[str, Any] = {
    "format": "amdnfs-bundle",
    "format_version": 1,
    "model": {
        "name": "m",
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "dtype": "f16",
        "vocab_size": 128,
        "context_tokens": 64,
        "digest": "0" * 64,
        "quantization": "none",
    },
    "page_tokens": 16,
    "cache_dtype": "f16",
    "layers": [{"kind": "paged", "kv_heads": 2, "head_dim": 16, "window": 0}] * 3,
    "bos_token_id": None,
    "eos_token_ids": [2, 5],
    "weights": [WEIGHTS],
    "targets": {
        "cpu": {
            "kind": "cpu",
            "gfx": None,
            "program": PROGRAM,
            "facts": "artifacts/cpu/facts.json",
            "entry_points": [
                {"name": "prefill_16", "kind": "prefill", "batch": 1, "tokens": 16},
                {"name": "decode_4", "kind": "decode", "batch": 4, "tokens": 1},
            ],
            "cpu_features": ["avx2"],
        }
    },
}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A bundle of files that only look like one."""
    entries = {}
    for name, content in FILES.items():
        path = tmp_path / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        entry = file_entry(path)
        entries[name] = {"size": entry.size, "sha256": entry.sha256}
    (tmp_path / "small" / "manifest.json").write_text(json.dumps({**GOOD, "files": entries}))
    return tmp_path / "small"


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / "manifest.json").read_text())
    edit(values)
    (folder / "manifest.json").write_text(json.dumps(values))


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ArtifactError) as error:
        call()
    assert error.value.exit_code == 6
    return str(error.value)


def at(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """An edit that sets one field."""

    def edit(values: dict[str, Any]) -> None:
        for part in path[:-1]:
            values = values[part]
        values[path[-1]] = copy.deepcopy(value)

    return edit


def without(*path: Any) -> Callable[[dict[str, Any]], None]:
    """An edit that removes one field."""

    def edit(values: dict[str, Any]) -> None:
        for part in path[:-1]:
            values = values[part]
        del values[path[-1]]

    return edit


def test_a_manifest_is_read_exactly(small: Path) -> None:
    manifest = read_manifest(small)
    assert manifest.format_version == FORMAT_VERSION
    assert (manifest.model.vocab_size, manifest.bos_token_id, manifest.eos_token_ids) == (128, None, (2, 5))
    assert manifest.targets["cpu"].entry_points[1].batch == 4
    assert manifest.targets["cpu"].cpu_features == ("avx2",)
    assert manifest.files[WEIGHTS].size == 10
    assert manifest.page_bytes == 3 * 2 * 16 * 2 * 16 * 2
    assert json.loads(manifest.to_json()) == json.loads((small / "manifest.json").read_text())


def test_the_text_of_a_manifest_is_sorted_and_stable(bundle: Path) -> None:
    text = (bundle / "manifest.json").read_text()
    assert read_manifest(bundle).to_json() == text
    assert json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n" == text


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(lambda: read_manifest(tmp_path / "absent")) == (
        f"no bundle at {tmp_path / 'absent'}: no such folder; make one with: amdnfs-compile MODEL --target cpu"
    )


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    assert refusal(lambda: read_manifest(tmp_path)) == (
        f"{tmp_path} is not a bundle: it has no manifest.json; make one with: amdnfs-compile MODEL --target cpu"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_manifest_that_is_not_json(small: Path, content: bytes) -> None:
    (small / "manifest.json").write_bytes(content)
    message = refusal(lambda: read_manifest(small))
    assert message.startswith(f"{small / 'manifest.json'}: cannot be read as JSON (")
    assert message.endswith("); compile the bundle again")


@pytest.mark.parametrize("content", ["[]", "3", '{"format": "other"}', "{}"])
def test_json_of_another_format(small: Path, content: str) -> None:
    (small / "manifest.json").write_text(content)
    assert refusal(lambda: read_manifest(small)) == (
        f"{small / 'manifest.json'}: not a manifest of a bundle (its format is not 'amdnfs-bundle')"
    )


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, "1", None, True])
def test_another_version_of_the_format(small: Path, version: object) -> None:
    change(small, at("format_version", value=version))
    assert refusal(lambda: read_manifest(small)) == (
        f"{small / 'manifest.json'}: format version {version!r}, but this runtime reads 1 to 1; "
        "install a newer amdnfs, or compile the bundle again with this one"
    )


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (without("model"), "it lacks 'model'"),
        (without("model", "digest"), "model lacks 'digest'"),
        (without("targets", "cpu", "kind"), "targets['cpu'] lacks 'kind'"),
        (at("colour", value=1), "it has the unknown field 'colour'"),
        (at("layers", 1, "colour", value=1), "layers[1] has the unknown field 'colour'"),
        (at("model", value="m"), "model is 'm', not of type dict"),
        (at("page_tokens", value="16"), "page_tokens is '16', not of type int"),
        (at("page_tokens", value=16.0), "page_tokens is 16.0, not of type int"),
        (at("page_tokens", value=True), "page_tokens is True, not of type int"),
        (at("bos_token_id", value="<s>"), "bos_token_id is '<s>', not of type int"),
        (at("eos_token_ids", value=2), "eos_token_ids is 2, not of type list"),
        (at("eos_token_ids", value=[2, "x"]), "eos_token_ids[1] is 'x', not of type int"),
        (at("weights", value=WEIGHTS), f"weights is '{WEIGHTS}', not of type list"),
        (at("targets", value=[]), "targets is [], not of type dict"),
        (at("files", WEIGHTS, "size", value="10"), f"files['{WEIGHTS}'].size is '10', not of type int"),
        (
            at("targets", "cpu", "entry_points", 0, "tokens", value=None),
            "targets['cpu'].entry_points[0].tokens is None, not of type int",
        ),
        (at("page_tokens", value=0), "page_tokens is 0, but must be at least 1"),
        (at("layers", value=[]), "number of layers is 0, but must be at least 1"),
        (at("layers", 0, "kv_heads", value=-1), "kv_heads or head_dim is -1, but must be at least 1"),
        (at("model", "context_tokens", value=0), "model.context_tokens is 0, but must be at least 1"),
        (at("model", "vocab_size", value=0), "model.vocab_size is 0, but must be at least 1"),
        (
            at("targets", "cpu", "entry_points", 1, "batch", value=0),
            "batch or tokens of an entry point is 0, but must be at least 1",
        ),
        (at("cache_dtype", value="f64"), "cache_dtype is 'f64'; known are bf16, f16, f32, fp8"),
        (
            at("model", "quantization", value="i3-weird"),
            "model.quantization: 'i3-weird' is no layout of a quantised weight: 'i3' is not a valid ElementType",
        ),
        (
            at("model", "quantization", value=""),
            "model.quantization: '' is no layout of a quantised weight: list index out of range",
        ),
        (at("layers", 2, "kind", value="recurrent"), "layers[2].kind is 'recurrent'; known is 'paged'"),
        (without("files", PROGRAM), f"it does not list the file '{PROGRAM}'"),
        (without("files", TOKENIZER), f"it does not list the file '{TOKENIZER}'"),
        (at("weights", value=["weights/other"]), "it does not list the file 'weights/other'"),
        (at("weights", value=["../model/w"]), "it does not list the file '../model/w'"),
        (at("targets", "cpu", "program", value="/lib/x.vmfb"), "it does not list the file '/lib/x.vmfb'"),
        (at("targets", "cpu", "facts", value="../f"), "it does not list the file '../f'"),
    ],
)
def test_a_damaged_manifest(small: Path, edit: Callable[[dict[str, Any]], None], problem: str) -> None:
    change(small, edit)
    assert refusal(lambda: read_manifest(small)) == (
        f"{small / 'manifest.json'}: damaged manifest: {problem}; compile the bundle again"
    )


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "..\\x", ".."])
def test_a_path_that_leaves_the_bundle(small: Path, name: str) -> None:
    change(small, at("files", name, value={"size": 1, "sha256": "0"}))
    assert refusal(lambda: read_manifest(small)) == (
        f"{small / 'manifest.json'}: damaged manifest: the path {name!r} leaves the bundle; compile the bundle again"
    )


def test_sound_files_are_accepted_and_further_files_tolerated(small: Path) -> None:
    (small / "weights" / "README").write_text("not ours")
    verify_files(small, read_manifest(small))


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_missing_file(small: Path, name: str) -> None:
    (small / name).unlink()
    assert refusal(lambda: verify_files(small, read_manifest(small))) == (
        f"{small}: the file {name} is missing; copy the whole bundle, or compile it again"
    )


def test_a_truncated_file(small: Path) -> None:
    (small / WEIGHTS).write_bytes(b"012345678")
    assert refusal(lambda: verify_files(small, read_manifest(small))) == (
        f"{small}: the file {WEIGHTS} was altered: 9 bytes, the manifest says 10; "
        "copy the bundle again, or compile it again"
    )


@pytest.mark.parametrize("name", sorted(FILES))
def test_an_altered_file_of_the_same_size(small: Path, name: str) -> None:
    content = (small / name).read_bytes()
    (small / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert refusal(lambda: verify_files(small, read_manifest(small))) == (
        f"{small}: the file {name} was altered: its sha256 is not the manifest's; "
        "copy the bundle again, or compile it again"
    )


def test_only_the_files_asked_for_are_looked_at(small: Path) -> None:
    (small / WEIGHTS).unlink()
    verify_files(small, read_manifest(small), [PROGRAM])
    assert refusal(lambda: verify_files(small, read_manifest(small), ["weights/other"])) == (
        f"{small}: weights/other is not listed in the manifest; compile the bundle again"
    )


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS, TOKENIZER])
def test_a_damaged_bundle_is_not_loaded(fresh_bundle: Path, name: str) -> None:
    content = (fresh_bundle / name).read_bytes()
    (fresh_bundle / name).unlink()
    assert f"the file {name} is missing" in refusal(lambda: amdnfs_runtime.load(fresh_bundle))
    (fresh_bundle / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert f"the file {name} was altered" in refusal(lambda: amdnfs_runtime.load(fresh_bundle))
    (fresh_bundle / name).write_bytes(content)
    assert amdnfs_runtime.load(fresh_bundle).target_name == "cpu"


@pytest.mark.parametrize("name", [PROGRAM, WEIGHTS, TOKENIZER])
@pytest.mark.parametrize("content", [None, b"", b"garbage" * 100], ids=["missing", "empty", "garbage"])
def test_without_the_check_damage_is_still_refused_where_it_shows(
    fresh_bundle: Path, name: str, content: bytes | None
) -> None:
    (fresh_bundle / name).unlink()
    if content is not None:
        (fresh_bundle / name).write_bytes(content)
    message = refusal(lambda: amdnfs_runtime.load(fresh_bundle, check=False))
    refused = f"{fresh_bundle / name}: the tokenizer" if name == TOKENIZER else f"{fresh_bundle}: the device refuses"
    assert message.startswith(refused)


def test_damage_to_a_target_that_is_not_used_does_no_harm(fresh_bundle: Path) -> None:
    other = {"size": 1, "sha256": "0" * 64}
    values = json.loads((fresh_bundle / "manifest.json").read_text())
    files = {f"artifacts/gfx942/{name}": other for name in ("program.vmfb", "facts.json")}
    values["files"].update(files)
    paths = dict(zip(("program", "facts"), files, strict=True))
    values["targets"]["gfx942"] = {**values["targets"]["cpu"], **paths, "kind": "hip", "gfx": "gfx942"}
    (fresh_bundle / "manifest.json").write_text(json.dumps(values))
    assert amdnfs_runtime.load(fresh_bundle, target="cpu").generate("abc", max_tokens=1)
