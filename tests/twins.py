"""Tiny random models of many families: the same code and the same kinds of layers as the real ones, small sizes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

VOCAB = 128


@dataclass(frozen=True, kw_only=True)
class Twin:
    """How to make a family's twin."""

    model_type: str
    """Family in transformers."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Configuration beyond the common sizes; None removes a common one."""
    note: str = ""
    """What it shows."""
    has_own_attention: bool = False
    """Whether its code bypasses transformers' attention interface, so that `fuse-attention` must recognise it."""


_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_GPT2 = {
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")),
    **dict.fromkeys(("num_key_value_heads", "max_position_embeddings")),
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
}
_OWN_HEADS = dict.fromkeys(("intermediate_size", "num_key_value_heads", "head_dim"))
_BLOOM = {
    **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "max_position_embeddings")),
    **_OWN_HEADS,
    "n_layer": 2,
    "n_head": 4,
    "seq_length": 128,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

TWINS: dict[str, Twin] = {
    "llama": Twin(model_type="llama"),
    "llama-tied": Twin(model_type="llama", changes={"tie_word_embeddings": True}, note="tied head"),
    "llama3": Twin(model_type="llama", changes={"rope_parameters": _LLAMA3_ROPE}, note="rope scaling"),
    "mistral": Twin(model_type="mistral", changes={"sliding_window": 12}, note="sliding window"),
    "qwen2": Twin(model_type="qwen2", note="biases on q, k, v"),
    "qwen3": Twin(model_type="qwen3", note="norms on q and k"),
    "phi3": Twin(model_type="phi3", changes={"head_dim": None}, note="fused qkv and gate/up"),
    "gemma": Twin(model_type="gemma"),
    "gemma2": Twin(
        model_type="gemma2",
        changes={"sliding_window": 12, "attn_logit_softcapping": 5.0, "query_pre_attn_scalar": 32},
        note="softcap, alternating windows",
    ),
    "gemma3_text": Twin(
        model_type="gemma3_text",
        changes={"sliding_window": 12, "num_hidden_layers": 7, "query_pre_attn_scalar": 32},
        note="five windows to one full layer, two rotary tables",
    ),
    "gpt2": Twin(model_type="gpt2", changes=_GPT2, note="learned positions, LayerNorm, Conv1D"),
    "gpt_neox": Twin(
        model_type="gpt_neox",
        changes={"head_dim": None, "num_key_value_heads": None},
        note="partial rotary, parallel residual",
    ),
    "olmo2": Twin(model_type="olmo2", changes={"head_dim": None}, note="norm after the block"),
    "granite": Twin(
        model_type="granite",
        changes={"head_dim": None, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5},
        note="multipliers",
    ),
    "smollm3": Twin(model_type="smollm3", changes={"num_hidden_layers": 5}, note="layers without rotary"),
    "starcoder2": Twin(
        model_type="starcoder2", changes={"head_dim": None, "sliding_window": 12}, note="biases, window"
    ),
    "cohere": Twin(model_type="cohere", changes={"head_dim": None}, note="interleaved rotary, parallel block"),
    "cohere2": Twin(
        model_type="cohere2",
        changes={"head_dim": None, "sliding_window": 12, "num_hidden_layers": 4},
        note="windows with rotary, full layers without",
    ),
    "glm4": Twin(model_type="glm4", note="partial interleaved rotary, sandwich norms"),
    "gpt_oss": Twin(
        model_type="gpt_oss",
        changes={"sliding_window": 12, "num_local_experts": 4, "num_experts_per_tok": 2},
        note="attention sinks, experts",
    ),
    "phi": Twin(model_type="phi", changes={"head_dim": None}, note="partial rotary"),
    "olmo": Twin(model_type="olmo", changes={"head_dim": None}, note="LayerNorm without weights"),
    "olmo3": Twin(model_type="olmo3", changes={"head_dim": None, "sliding_window": 12, "num_hidden_layers": 4}),
    "stablelm": Twin(model_type="stablelm", changes={"head_dim": None}, note="partial rotary"),
    "nemotron": Twin(model_type="nemotron", note="squared ReLU"),
    "exaone4": Twin(model_type="exaone4", changes={"sliding_window": 12, "num_hidden_layers": 4}),
    "helium": Twin(model_type="helium"),
    "ernie4_5": Twin(model_type="ernie4_5", note="interleaved rotary"),
    "seed_oss": Twin(model_type="seed_oss"),
    "arcee": Twin(model_type="arcee"),
    "ministral": Twin(model_type="ministral", changes={"sliding_window": 12}),
    "opt": Twin(
        model_type="opt",
        changes={
            **dict.fromkeys(("intermediate_size", "head_dim", "num_key_value_heads")),
            "ffn_dim": 96,
            "word_embed_proj_dim": 64,
        },
    ),
    "gpt_bigcode": Twin(model_type="gpt_bigcode", changes={**_GPT2, "multi_query": True}, note="one KV head"),
    "ctrl": Twin(model_type="ctrl", changes={**_GPT2, "dff": 96}, note="sinusoidal positions"),
    "biogpt": Twin(model_type="biogpt", changes=dict.fromkeys(("num_key_value_heads", "head_dim"))),
    "bloom": Twin(model_type="bloom", changes=_BLOOM, has_own_attention=True, note="ALiBi"),
    "mpt": Twin(
        model_type="mpt",
        changes={
            **dict.fromkeys(("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings")),
            **_OWN_HEADS,
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 128,
        },
        has_own_attention=True,
        note="ALiBi to the last key, boolean mask",
    ),
    "falcon": Twin(model_type="falcon", changes=_OWN_HEADS, has_own_attention=True, note="one KV head"),
    "falcon-40b": Twin(
        model_type="falcon",
        changes={**_OWN_HEADS, "new_decoder_architecture": True, "num_kv_heads": 2},
        has_own_attention=True,
        note="two norms, shared keys stored for each head",
    ),
    "gptj": Twin(
        model_type="gptj", changes={**_GPT2, "rotary_dim": 8}, has_own_attention=True, note="interleaved partial rotary"
    ),
    "codegen": Twin(
        model_type="codegen", changes={**_GPT2, "rotary_dim": 8}, has_own_attention=True, note="mask before the scale"
    ),
    "gpt_neox_japanese": Twin(
        model_type="gpt_neox_japanese", changes=_OWN_HEADS, has_own_attention=True, note="scores from baddbmm"
    ),
    "xglm": Twin(
        model_type="xglm",
        changes={
            **dict.fromkeys(("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")),
            **_OWN_HEADS,
            "d_model": 64,
            "ffn_dim": 96,
            "num_layers": 2,
            "attention_heads": 4,
        },
        has_own_attention=True,
        note="scaled queries, clamped scores",
    ),
}
"""By name; several twins may show one family."""

REQUIRED = (
    "llama",
    "llama-tied",
    "llama3",
    "mistral",
    "qwen2",
    "qwen3",
    "phi3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_neox",
    "olmo2",
    "granite",
    "smollm3",
    "starcoder2",
    "cohere",
    "glm4",
    "gpt_oss",
)
"""Twins that must work; the others are here because they do."""


def make_twin(name: str, folder: Path, dtype: torch.dtype = torch.float32, *, seed: int = 0, **sizes: Any) -> Path:
    """Writes the twin `name` as a Hugging Face folder; `sizes` override its configuration."""
    twin = TWINS[name]
    values = {**_COMMON, **twin.changes, **sizes}
    values = {key: value for key, value in values.items() if value is not None}
    config = CONFIG_MAPPING[twin.model_type](**values)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for key, parameter in model.named_parameters():
        if parameter.ndim > 1:
            scale = 1.0 if "embed" in key else parameter.shape[-1] ** -0.5
            parameter.data = torch.randn_like(parameter) * scale
        elif "norm" in key or "ln" in key:
            parameter.data = parameter.data + 0.1 * torch.randn_like(parameter)
        else:
            parameter.data = 0.1 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Writes a tokenizer with one token a byte below `VOCAB`."""
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2} | {chr(code): code for code in range(3, VOCAB)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
