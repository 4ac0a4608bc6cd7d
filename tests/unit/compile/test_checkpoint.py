"""Model folders that are incomplete, damaged, quantised or not there: each is refused with what to do about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from amdnfs_runtime.errors import ModelError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from amdnfs_compile.frontend.checkpoint import odd_tokens, open_checkpoint, read_special_tokens

INDEX = "model.safetensors.index.json"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def refusal(folder: Path | str, **options: Any) -> str:
    with pytest.raises(ModelError) as error:
        open_checkpoint(str(folder), **options)
    assert error.value.exit_code == 3
    return str(error.value)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def split_into_shards(folder: Path) -> dict[str, str]:
    """Writes the weights as two shards with an index; returns the index's map."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = names[: len(names) // 2], names[len(names) // 2 :]
    for shard, part in zip(SHARDS, parts, strict=True):
        save_file({name: tensors[name] for name in part}, folder / shard)
    files = {name: shard for shard, part in zip(SHARDS, parts, strict=True) for name in part}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def test_a_sound_folder_is_read_by_its_headers(twin: Path) -> None:
    checkpoint = open_checkpoint(str(twin))
    assert checkpoint.name == "twin"
    assert checkpoint.shards == ("model.safetensors",)
    assert checkpoint.tensors["model.embed_tokens.weight"].shape == (128, 64)
    assert checkpoint.majority_dtype() == "f32"


@pytest.mark.parametrize("name", ["no/such/folder", "./folder", "../folder", "~/no-such-folder-at-all"])
def test_a_missing_folder(name: str) -> None:
    assert refusal(name) == f"no folder at {name}"


def test_a_file_given_instead_of_its_folder(twin: Path) -> None:
    path = twin / "model.safetensors"
    assert refusal(path) == f"{path} is a file; give the folder that holds config.json (GGUF and ONNX are not read yet)"


def test_a_revision_is_for_hub_ids_only(twin: Path) -> None:
    assert refusal(twin, revision="main") == f"--revision main is for a hub id, but {twin} is a folder"


def test_a_hub_id_offline_that_the_cache_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert refusal("some-owner/some-model", offline=True) == (
        "some-owner/some-model is neither a folder nor in the hub's local cache; "
        "repeat without --offline to download it"
    )


def test_a_name_that_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    message = refusal("my model", offline=True)
    assert message.startswith("my model was not found as a folder or on the hub: Repo id must use alphanumeric chars")


def test_config_missing(fresh_twin: Path) -> None:
    (fresh_twin / "config.json").unlink()
    assert refusal(fresh_twin) == f"{fresh_twin}: config.json is missing, so this is not a Hugging Face model folder"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{nope", "not JSON: Expecting property name"),
        (b"", "not JSON: Expecting value"),
        (b"\xff\xfe{}", "not JSON: 'utf-8' codec can't decode"),
        (b"[1]", "holds a list, not the settings of a model"),
        (b"null", "holds null, not the settings of a model"),
        (b"{}", "names no model_type, so this is not a Hugging Face model"),
    ],
)
def test_config_that_is_not_one(fresh_twin: Path, content: bytes, message: str) -> None:
    path = fresh_twin / "config.json"
    path.write_bytes(content)
    assert refusal(fresh_twin).startswith(f"{path}: {message}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 15}, "RoPE requires an even rotary dimension, but got `head_dim`=15"),
        ({"hidden_size": "64"}, "Field 'hidden_size' expected int, got str (value: '64')"),
        ({"eos_token_id": "end"}, "eos_token_id"),
    ],
)
def test_config_that_transformers_refuses(fresh_twin: Path, changes: dict[str, Any], message: str) -> None:
    change_config(fresh_twin, **changes)
    found = refusal(fresh_twin)
    assert found.startswith(f"{fresh_twin / 'config.json'}: transformers refuses this configuration of a llama model: ")
    assert message in found
    assert "\n" not in found


def test_unknown_model_type(fresh_twin: Path) -> None:
    change_config(fresh_twin, model_type="zorglub")
    message = refusal(fresh_twin)
    assert message.startswith(f"{fresh_twin / 'config.json'}: transformers ")
    assert message.endswith(" does not know the model type 'zorglub'")


def test_code_that_a_model_brings_is_never_run_nor_asked_for(
    fresh_twin: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (fresh_twin / "configuration_own.py").write_text("raise SystemExit('this must not run')\n")
    change_config(fresh_twin, model_type="own", auto_map={"AutoConfig": "configuration_own.OwnConfig"})
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asks on the terminal"))
    assert refusal(fresh_twin).endswith(
        "does not know the model type 'own'; the model brings code of its own, which is never run"
    )
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("setting", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
        ({"quantization_config": {"bits": 4}}, "an unnamed method"),
        ({"quantization_config": "awq"}, "awq"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
    ],
)
def test_a_quantised_checkpoint(fresh_twin: Path, setting: dict[str, Any], method: str) -> None:
    change_config(fresh_twin, **setting)
    assert refusal(fresh_twin) == (
        f"{fresh_twin}: the checkpoint is quantised with {method}, which is not read yet; "
        "compile the unquantised checkpoint it was made from; --quantize quantises it again"
    )


@pytest.mark.parametrize(("value", "kind"), [([], "a list"), ("", "a text"), (0, "a number"), (False, "a number")])
def test_settings_of_quantisation_that_are_none(fresh_twin: Path, value: object, kind: str) -> None:
    change_config(fresh_twin, quantization_config=value)
    assert refusal(fresh_twin) == (
        f"{fresh_twin / 'config.json'}: quantization_config holds {kind}, not settings by name; "
        "remove it if the checkpoint is not quantised"
    )


def test_tokenizer_missing(fresh_twin: Path) -> None:
    (fresh_twin / "tokenizer.json").unlink()
    message = refusal(fresh_twin)
    assert message.startswith(
        f"{fresh_twin}: tokenizer.json is missing, so text cannot be turned into tokens; save one"
    )
    assert "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)" in message


def test_tokenizer_damaged(fresh_twin: Path) -> None:
    (fresh_twin / "tokenizer.json").write_text("{")
    message = refusal(fresh_twin)
    assert message.startswith(f"{fresh_twin / 'tokenizer.json'}: cannot be read: EOF while parsing")
    assert "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)" in message


def test_weights_missing(fresh_twin: Path) -> None:
    (fresh_twin / "model.safetensors").unlink()
    assert refusal(fresh_twin) == f"{fresh_twin}: no *.safetensors file"


def test_pickled_weights_only(fresh_twin: Path) -> None:
    (fresh_twin / "model.safetensors").rename(fresh_twin / "pytorch_model.bin")
    assert refusal(fresh_twin) == f"{fresh_twin}: no *.safetensors file; convert pytorch_model.bin to safetensors first"


@pytest.mark.parametrize("num_bytes", [0, 4, 1000, 100_000])
def test_weights_truncated(fresh_twin: Path, num_bytes: int) -> None:
    path = fresh_twin / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])
    message = refusal(fresh_twin)
    assert message.startswith(f"{path}: truncated or damaged (")
    assert message.endswith(f"; {num_bytes} bytes on disk); download it again")


def test_weights_not_fetched_by_git_lfs(fresh_twin: Path) -> None:
    path = fresh_twin / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 314712\n")
    assert refusal(fresh_twin) == f"{path}: a pointer of git-lfs, not the weights; run: git lfs pull"


def test_weights_stored_twice_are_read_once(fresh_twin: Path) -> None:
    shutil.copyfile(fresh_twin / "model.safetensors", fresh_twin / "consolidated.safetensors")
    assert open_checkpoint(str(fresh_twin)).shards == ("model.safetensors",)


def test_a_tensor_in_two_files_without_an_index(fresh_twin: Path) -> None:
    shutil.copyfile(fresh_twin / "model.safetensors", fresh_twin / "b.safetensors")
    (fresh_twin / "model.safetensors").rename(fresh_twin / "a.safetensors")
    assert refusal(fresh_twin) == f"{fresh_twin}: the tensor lm_head.weight is in a.safetensors and in b.safetensors"


def test_shards_are_found_by_the_index(fresh_twin: Path) -> None:
    files = split_into_shards(fresh_twin)
    shutil.copyfile(fresh_twin / SHARDS[0], fresh_twin / "left-over.safetensors")
    checkpoint = open_checkpoint(str(fresh_twin))
    assert checkpoint.shards == SHARDS
    assert {name: header.file for name, header in checkpoint.tensors.items()} == files


def test_a_missing_shard(fresh_twin: Path) -> None:
    split_into_shards(fresh_twin)
    (fresh_twin / SHARDS[1]).unlink()
    assert refusal(fresh_twin) == f"{fresh_twin}: 1 of 2 shards are missing, first {SHARDS[1]}; download it again"


def test_a_truncated_shard(fresh_twin: Path) -> None:
    split_into_shards(fresh_twin)
    path = fresh_twin / SHARDS[1]
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(fresh_twin).startswith(f"{path}: truncated or damaged (")


def test_an_index_that_names_a_tensor_that_is_not_there(fresh_twin: Path) -> None:
    files = split_into_shards(fresh_twin)
    (fresh_twin / INDEX).write_text(json.dumps({"weight_map": {**files, "model.layers.9.w": SHARDS[0]}}))
    assert refusal(fresh_twin) == (
        f"{fresh_twin}: the index names tensor model.layers.9.w in {SHARDS[0]}, which does not hold it"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError("),
        ("{}", "KeyError('weight_map')"),
        ("[]", "TypeError("),
        ('{"weight_map": []}', "AttributeError("),
        ('{"weight_map": {"a": 1}}', "1 is not the name of a file beside it"),
        ('{"weight_map": {"a": ""}}', "'' is not the name of a file beside it"),
        ('{"weight_map": {"a": "../model.safetensors"}}', "'../model.safetensors' is not the name of a file beside it"),
    ],
)
def test_a_damaged_index(fresh_twin: Path, content: str, message: str) -> None:
    split_into_shards(fresh_twin)
    (fresh_twin / INDEX).write_text(content)
    found = refusal(fresh_twin)
    assert found.startswith(f"{fresh_twin / INDEX}: damaged: {message}")
    assert found.endswith("; download it again")


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8])
def test_weights_of_types_that_are_not_taken(fresh_twin: Path, dtype: torch.dtype) -> None:
    path = fresh_twin / "model.safetensors"
    save_file({name: value.to(dtype) for name, value in load_file(path).items()}, path)
    name = {torch.float64: "F64", torch.int8: "I8"}[dtype]
    with pytest.raises(ModelError) as error:
        open_checkpoint(str(fresh_twin)).majority_dtype()
    assert str(error.value) == f"{fresh_twin}: weights have type {name}; supported are BF16, F16, F32"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda folder: None, (1, (2,))),
        (lambda folder: change_config(folder, eos_token_id=[2, 5]), (1, (2, 5))),
        (lambda folder: change_config(folder, eos_token_id=None, bos_token_id=None), (1, (2,))),
    ],
)
def test_begin_and_end_tokens_of_the_config(
    fresh_twin: Path, edit: Callable[[Path], None], expected: tuple[int, tuple[int, ...]]
) -> None:
    (fresh_twin / "generation_config.json").unlink()
    edit(fresh_twin)
    assert read_special_tokens(open_checkpoint(str(fresh_twin))) == expected


def test_generation_config_goes_before_config(fresh_twin: Path) -> None:
    (fresh_twin / "generation_config.json").write_text('{"eos_token_id": [7, 9], "bos_token_id": null}')
    assert read_special_tokens(open_checkpoint(str(fresh_twin))) == (1, (7, 9))


@pytest.mark.parametrize(
    ("file", "name", "token", "expected"),
    [
        ("config.json", "bos_token_id", -1, (None, (2,))),
        ("config.json", "eos_token_id", 128, (1, ())),
        ("generation_config.json", "eos_token_id", [2, 128], (1, (2,))),
        ("generation_config.json", "bos_token_id", 999, (None, (2,))),
    ],
)
def test_begin_and_end_tokens_outside_the_vocabulary_are_named_and_left_out(
    fresh_twin: Path, file: str, name: str, token: int | list[int], expected: tuple[int | None, tuple[int, ...]]
) -> None:
    (fresh_twin / "generation_config.json").write_text("{}")
    (fresh_twin / file).write_text(json.dumps({**json.loads((fresh_twin / file).read_text()), name: token}))
    checkpoint = open_checkpoint(str(fresh_twin))
    assert read_special_tokens(checkpoint) == expected
    wrong = token[-1] if isinstance(token, list) else token
    assert odd_tokens(checkpoint) == (
        f"{fresh_twin / file}: {name} {wrong} is outside the model's vocabulary of 128 tokens and is left out",
    )


def test_a_tokenizer_with_more_tokens_than_the_model(fresh_twin: Path) -> None:
    assert odd_tokens(open_checkpoint(str(fresh_twin))) == ()
    path = fresh_twin / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["<later>", "<image>"])
    tokenizer.save(str(path))
    checkpoint = open_checkpoint(str(fresh_twin))
    assert checkpoint.extra_tokens == ((128, "<later>"), (129, "<image>"))
    assert odd_tokens(checkpoint) == (
        f"{path}: 2 token(s) are outside the model's vocabulary of 128 tokens, first '<later>' (128); "
        "a prompt that holds one will be refused",
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["LlamaForCausalLM", "Other"], "LlamaForCausalLM"),
        ("LlamaForCausalLM", "LlamaForCausalLM"),
        (None, "LlamaConfig"),
        ([], "LlamaConfig"),
        ("", "LlamaConfig"),
        ([5], "LlamaConfig"),
        (7, "LlamaConfig"),
    ],
)
def test_the_architecture_in_every_form_in_which_configs_give_it(
    fresh_twin: Path, given: object, expected: str
) -> None:
    change_config(fresh_twin, architectures=given)
    assert open_checkpoint(str(fresh_twin)).architecture == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "generation_config.json: not JSON: "),
        ("[]", "generation_config.json: holds a list, not settings by name"),
        ('{"eos_token_id": "</s>"}', "generation_config.json: eos_token_id: '</s>' is not a token id"),
        ('{"eos_token_id": [[2]]}', "generation_config.json: eos_token_id: [2] is not a token id"),
    ],
)
def test_a_damaged_generation_config(fresh_twin: Path, content: str, message: str) -> None:
    (fresh_twin / "generation_config.json").write_text(content)
    checkpoint = open_checkpoint(str(fresh_twin))
    with pytest.raises(ModelError) as error:
        read_special_tokens(checkpoint)
    assert message in str(error.value)
