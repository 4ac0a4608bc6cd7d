"""Models for measuring, shaped as a Llama or a Qwen3: random weights, or headers over a hole for compiles alone."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models

_ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a Llama or a Qwen3."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int
    is_qwen3: bool = False
    """Qwen3: norms of query and key heads, tied embeddings."""
    is_tied: bool = False
    """A Llama with tied embeddings."""


SHAPES = {
    "tiny": Shape(hidden=256, layers=4, heads=4, kv_heads=2, intermediate=704, vocab=2048, head_dim=64),
    "135m": Shape(
        hidden=576, layers=30, heads=9, kv_heads=3, intermediate=1536, vocab=49152, head_dim=64, is_tied=True
    ),
    "160m": Shape(hidden=768, layers=12, heads=12, kv_heads=4, intermediate=2048, vocab=32000, head_dim=64),
    "1.1b": Shape(hidden=2048, layers=22, heads=32, kv_heads=4, intermediate=5632, vocab=32000, head_dim=64),
    "8b": Shape(hidden=4096, layers=32, heads=32, kv_heads=8, intermediate=14336, vocab=128256, head_dim=128),
    "qwen3-0.6b": Shape(
        hidden=1024, layers=28, heads=16, kv_heads=8, intermediate=3072, vocab=151936, head_dim=128, is_qwen3=True
    ),
}
"""By name; 135m is SmolLM-135M's, 1.1b is TinyLlama's, 8b is that of Llama 3.1 8B."""


def make_model(
    folder: Path, shape: Shape, dtype: str = "F16", *, random: bool = True, context: int = 4096, seed: int = 0
) -> Path:
    """Writes a Hugging Face folder of `shape`.

    Args:
        folder: Where.
        shape: Sizes.
        dtype: Storage type as safetensors names it.
        random: Write normal random weights; else leave a hole in the file, which reads as zeros and takes no disk.
        context: Longest context in tokens.
        seed: Of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["Qwen3ForCausalLM" if shape.is_qwen3 else "LlamaForCausalLM"],
        "model_type": "qwen3" if shape.is_qwen3 else "llama",
        "dtype": {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype],
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab,
        "max_position_embeddings": context,
        "tie_word_embeddings": shape.is_qwen3 or shape.is_tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    vocab = {f"<{index}>": index for index in range(shape.vocab)}
    Tokenizer(models.WordLevel(vocab=vocab, unk_token="<0>")).save(str(folder / "tokenizer.json"))
    write_weights(folder / "model.safetensors", tensor_shapes(shape), dtype, random=random, seed=seed)
    return folder


def tensor_shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor."""
    query, pair = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocab, shape.hidden)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (shape.hidden,),
            prefix + "post_attention_layernorm.weight": (shape.hidden,),
            prefix + "self_attn.q_proj.weight": (query, shape.hidden),
            prefix + "self_attn.k_proj.weight": (pair, shape.hidden),
            prefix + "self_attn.v_proj.weight": (pair, shape.hidden),
            prefix + "self_attn.o_proj.weight": (shape.hidden, query),
            prefix + "mlp.gate_proj.weight": (shape.intermediate, shape.hidden),
            prefix + "mlp.up_proj.weight": (shape.intermediate, shape.hidden),
            prefix + "mlp.down_proj.weight": (shape.hidden, shape.intermediate),
        }
        if shape.is_qwen3:
            shapes |= {prefix + f"self_attn.{name}_norm.weight": (shape.head_dim,) for name in "qk"}
    shapes["model.norm.weight"] = (shape.hidden,)
    return shapes if shape.is_qwen3 or shape.is_tied else shapes | {"lm_head.weight": (shape.vocab, shape.hidden)}


def write_weights(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, *, random: bool, seed: int = 0) -> None:
    """Writes a safetensors file one tensor at a time."""
    header: dict[str, object] = {}
    offset = 0
    for name, sizes in shapes.items():
        size = math.prod(sizes) * _ELEMENT_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(sizes), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % 64)
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        if not random:
            file.truncate(8 + len(text) + offset)
            return
        for name, sizes in shapes.items():
            file.write(_random_tensor(rng, name, sizes, dtype))


def _random_tensor(rng: np.random.Generator, name: str, sizes: tuple[int, ...], dtype: str) -> bytes:
    if len(sizes) == 1:
        values = np.ones(sizes, np.float32)
    else:
        scale = 1.0 if "embed" in name else sizes[-1] ** -0.5
        values = rng.standard_normal(sizes, np.float32) * np.float32(scale)
    if dtype == "BF16":
        return (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    return values.astype({"F32": np.float32, "F16": np.float16}[dtype]).tobytes()
