"""What a compile refuses before it traces anything: targets, kinds of models, contexts, tensors that do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from amdnfs_runtime.errors import AmdnfsError, ModelError, UsageError
from safetensors.torch import load_file, save_file

from amdnfs_compile import CompileOptions, Dtype
from amdnfs_compile.frontend.huggingface import bind_parameters
from amdnfs_compile.plan import CompilePlan, plan_compile

QUERY = "model.layers.1.self_attn.q_proj.weight"
BERT = {"model_type": "bert", "num_attention_heads": 2, "intermediate_size": 32}
MAMBA = {"model_type": "mamba"}
MAMBA2 = {"model_type": "mamba2", "num_heads": 4, "head_dim": 16, "n_groups": 1}
T5 = {"model_type": "t5", "d_model": 32, "num_layers": 2, "num_heads": 2}
VIT = {"model_type": "vit", "num_attention_heads": 2, "intermediate_size": 32}


def plan(folder: Path, *targets: str, **options: Any) -> CompilePlan:
    return plan_compile(str(folder), targets or ("cpu",), CompileOptions(**options))


def refusal(kind: type[AmdnfsError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def test_a_plan_of_a_sound_model(twin: Path) -> None:
    found = plan(twin, "CPU", "mi300x", "gfx942", prefill_chunks=(16, 32), decode_batches=(1, 4))
    assert [target.name for target in found.targets] == ["cpu", "gfx942"]
    assert (found.dtype, found.context_tokens, found.skeleton.num_layers) == ("f32", 128, 2)
    names = [shape.name for shape in found.shapes(found.targets[0])]
    assert names == ["prefill_16", "prefill_32", "decode_1", "decode_4"]


def test_chunks_longer_than_the_context_are_left_out_but_one(twin: Path) -> None:
    found = plan(twin, context_tokens=20, prefill_chunks=(16, 32), decode_batches=(1,))
    assert [shape.name for shape in found.shapes(found.targets[0])] == ["prefill_16", "decode_1"]
    found = plan(twin, context_tokens=8, prefill_chunks=(16, 32), decode_batches=(1,))
    assert [shape.name for shape in found.shapes(found.targets[0])] == ["prefill_16", "decode_1"]


def test_each_decode_program_has_a_twin_that_checks_guesses(fresh_twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amdnfs_compile.plan.has_triton", lambda: False)
    found = plan(fresh_twin, "cpu", "gfx90a", dtype=Dtype.F16, decode_batches=(1, 4), speculate=3)
    names = [[shape.name for shape in found.shapes(target) if shape.is_verify] for target in found.targets]
    # Without kernels 4 rows meet a defect of gfx90a; 12 rows, of 3 requests, do not.
    assert names == [["verify_1x4", "verify_4x4"], ["verify_3x4", "verify_16x4"]]
    assert {shape.kind for shape in found.shapes(found.targets[0])} == {"prefill", "decode", "verify"}


@pytest.mark.parametrize(("has_kernels", "batches"), [(True, [1, 4, 8]), (False, [1, 16])])
def test_without_kernels_decode_batches_step_over_the_shapes_a_target_cannot_compile(
    has_kernels: bool, batches: list[int], fresh_twin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("amdnfs_compile.plan.has_triton", lambda: has_kernels)
    found = plan(fresh_twin, "gfx90a", "gfx942", dtype=Dtype.F16, decode_batches=(1, 4, 8))
    seen = [[shape.batch for shape in found.shapes(target) if shape.tokens == 1] for target in found.targets]
    assert seen == [batches, [1, 4, 8]]


def test_without_triton_a_compile_says_what_it_gives_up(fresh_twin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = plan(fresh_twin, "gfx942", "cpu", dtype=Dtype.F16)
    assert not any("triton" in warning for warning in found.warnings)
    monkeypatch.setattr("amdnfs_compile.plan.has_triton", lambda: False)
    warning = next(warning for warning in found.warnings if "triton" in warning)
    assert warning.startswith("triton 3.9.0 is not installed: attention for gfx942 uses no matrix cores")
    assert warning.endswith("install it with: pip install 'amdnfs[triton]'")


def test_an_unknown_target_names_the_closest(twin: Path) -> None:
    message = refusal(UsageError, lambda: plan(twin, "gfx941"))
    assert message.startswith("unknown target 'gfx941': known are cpu, ")
    assert message.endswith("did you mean gfx942 (mi300x)?")


def test_targets_are_checked_before_the_model(tmp_path: Path) -> None:
    assert refusal(UsageError, lambda: plan(tmp_path / "nothing", "zzzz")).startswith("unknown target 'zzzz'")


def test_no_target(twin: Path) -> None:
    assert refusal(UsageError, lambda: plan_compile(str(twin), (), CompileOptions())) == (
        "no target given; name at least one with --target, e.g. --target gfx942"
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (T5, "t5: not a causal language model that transformers knows"),
        (VIT, "vit: not a causal language model that transformers knows"),
        (BERT, "bert: the attention mask is neither causal nor a causal sliding window"),
        (MAMBA, "mamba: layers [0, 1] do not call transformers' attention interface, nor do they ask their cache for "),
        (MAMBA2, "mamba2: running the model's own code on shapes failed: RuntimeError: "),
    ],
)
def test_models_of_other_kinds(fresh_twin: Path, config: dict[str, Any], message: str) -> None:
    common = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 128}
    (fresh_twin / "config.json").write_text(json.dumps({**common, **config}))
    found = refusal(ModelError, lambda: plan(fresh_twin))
    assert found.startswith(message)
    assert "not supported" in found or "not a causal" in found
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 0}, "llama: found no list of 0 decoder layers in the model"),
        ({"hidden_act": "zorg"}, "llama: transformers cannot build this model: KeyError: 'zorg'"),
    ],
)
def test_configurations_that_cannot_be_built(fresh_twin: Path, changes: dict[str, Any], message: str) -> None:
    change_config(fresh_twin, **changes)
    assert refusal(ModelError, lambda: plan(fresh_twin)).startswith(message)


@pytest.mark.parametrize("rope_type", ["dynamic", "longrope"])
def test_rotary_tables_that_change_with_the_length(fresh_twin: Path, rope_type: str) -> None:
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 64}
    rope = {"rope_type": rope_type, "rope_theta": 1e4, "factor": 2.0, **factors}
    change_config(fresh_twin, rope_parameters=rope)
    message = refusal(ModelError, lambda: plan(fresh_twin))
    assert f": rope_type '{rope_type}' changes the rotary table with the length of a text" in message


def test_a_context_too_short_for_anything(twin: Path) -> None:
    assert refusal(UsageError, lambda: plan(twin, context_tokens=1)) == (
        "--context 1: too short, it must hold a prompt and one more token"
    )


def test_a_type_that_vulkan_cannot_compute_in(twin: Path) -> None:
    assert refusal(UsageError, lambda: plan(twin, "cpu", "vulkan", dtype=Dtype.BF16)) == (
        "vulkan has no bf16; it computes in f16, f32: add --dtype f16, or leave out vulkan"
    )
    assert plan(twin, "vulkan", dtype=Dtype.F16).dtype == "f16"


def test_the_context_is_the_models_own_limit_or_less(twin: Path) -> None:
    assert plan(twin, context_tokens=100).context_tokens == 100
    message = refusal(UsageError, lambda: plan(twin, context_tokens=129))
    assert message == "--context 129: the model's own limit is 128 tokens"


def test_a_config_without_a_limit_has_that_of_its_family(fresh_twin: Path) -> None:
    change_config(fresh_twin, max_position_embeddings=None)
    assert plan(fresh_twin).context_tokens == 2048


def test_a_model_that_knows_no_limit_needs_one(fresh_twin: Path) -> None:
    change_config(fresh_twin, max_position_embeddings=0)
    assert refusal(UsageError, lambda: plan(fresh_twin)) == (
        f"{fresh_twin} does not say how long its context is; add --context TOKENS"
    )
    assert plan(fresh_twin, context_tokens=500).context_tokens == 500


def test_the_type_is_the_configurations_else_that_of_most_weights(fresh_twin: Path) -> None:
    change_config(fresh_twin, dtype="bfloat16")
    assert plan(fresh_twin).dtype == "bf16"
    assert plan(fresh_twin, dtype=Dtype.F16).dtype == "f16"
    change_config(fresh_twin, dtype=None)
    assert plan(fresh_twin).dtype == "f32"


def test_a_damaged_generation_config_is_found_before_the_compile(fresh_twin: Path) -> None:
    (fresh_twin / "generation_config.json").write_text("{")
    assert refusal(ModelError, lambda: plan(fresh_twin)).startswith(
        f"{fresh_twin / 'generation_config.json'}: not JSON"
    )


def binding_refusal(folder: Path) -> str:
    return refusal(ModelError, lambda: plan(folder))


def test_warnings_are_of_the_model_and_of_the_targets(fresh_twin: Path) -> None:
    assert plan(fresh_twin, "cpu", "gfx942").warnings == ()
    change_config(fresh_twin, eos_token_id=500)
    (fresh_twin / "generation_config.json").unlink()
    odd, slow = plan(fresh_twin, "cpu", "gfx1030", dtype=Dtype.BF16).warnings
    assert odd.startswith(f"{fresh_twin / 'config.json'}: eos_token_id 500 is outside the model's vocabulary of 128")
    assert slow == "gfx1030 does not compute in bf16 itself; it will be slow there"


def test_every_parameter_of_a_sound_model_has_its_tensor(twin: Path) -> None:
    found = plan(twin, dtype=Dtype.F16)
    bindings = bind_parameters(found.checkpoint, found.skeleton)
    assert bindings.keys() == found.skeleton.parameters.keys()
    assert (bindings[QUERY].tensor, bindings[QUERY].dtype) == (QUERY, "F16")


def test_a_missing_tensor(fresh_twin: Path) -> None:
    change_tensors(fresh_twin, lambda tensors: {name: value for name, value in tensors.items() if name != QUERY})
    assert binding_refusal(fresh_twin) == (
        f"{fresh_twin}: 1 of 21 parameters have no tensor: {QUERY}; the checkpoint is incomplete, or stored under "
        "other names than transformers uses"
    )


def test_more_missing_tensors_than_are_named(fresh_twin: Path) -> None:
    change_config(fresh_twin, num_hidden_layers=3)
    message = binding_refusal(fresh_twin)
    assert message.startswith(
        f"{fresh_twin}: 9 of 30 parameters have no tensor: model.layers.2.self_attn.q_proj.weight"
    )
    assert ", ...; the checkpoint is incomplete" in message


def test_a_tensor_of_another_shape(fresh_twin: Path) -> None:
    change_tensors(fresh_twin, lambda tensors: {**tensors, QUERY: tensors[QUERY][:32].clone()})
    assert binding_refusal(fresh_twin) == (
        f"{fresh_twin}: tensor {QUERY} has shape [32, 64], but the configuration asks for [64, 64]; "
        "config.json and the weights are not of one model"
    )


@pytest.mark.parametrize("vocab_size", [100, 200])
def test_a_vocabulary_of_another_size_than_the_embedding(fresh_twin: Path, vocab_size: int) -> None:
    change_config(fresh_twin, vocab_size=vocab_size)
    assert binding_refusal(fresh_twin).startswith(
        f"{fresh_twin}: tensor model.embed_tokens.weight has shape [128, 64], but the configuration asks for "
        f"[{vocab_size}, 64]"
    )


@pytest.mark.parametrize(
    ("dtype", "name"), [(torch.int8, "I8"), (torch.float64, "F64"), (torch.float8_e4m3fn, "F8_E4M3")]
)
def test_a_tensor_of_a_type_that_is_not_taken(fresh_twin: Path, dtype: torch.dtype, name: str) -> None:
    change_tensors(fresh_twin, lambda tensors: {**tensors, QUERY: tensors[QUERY].to(dtype)})
    assert binding_refusal(fresh_twin) == (
        f"{fresh_twin}: tensor {QUERY} has type {name}; supported are BF16, F16, F32"
    )
