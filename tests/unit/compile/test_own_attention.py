"""Models with attention code of their own: what their cache refuses, and what their positions must follow from."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from amdnfs_runtime.errors import ModelError

from amdnfs_compile import CompileOptions
from amdnfs_compile.frontend.cached_attention import CacheDiscovery
from amdnfs_compile.frontend.positions import check_positions
from amdnfs_compile.plan import plan_compile
from tests.twins import make_twin

KEYS = torch.zeros(1, 2, 3, 8)


def test_discovery_notes_each_layer_once() -> None:
    cache = CacheDiscovery()
    cache.update(KEYS, KEYS, 1)
    assert (cache.caches[1].kv_heads, cache.caches[1].head_dim) == (2, 8)
    with pytest.raises(ModelError, match="layer 1 updates its cache twice; only one attention a layer is supported"):
        cache.update(KEYS, KEYS, 1)


@pytest.mark.parametrize("values", [torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 8)])
def test_keys_and_values_of_different_shapes(values: torch.Tensor) -> None:
    with pytest.raises(ModelError, match=r"layer 0: keys \[1, 2, 3, 8\] and values .* must have one shape"):
        CacheDiscovery().update(KEYS, values, 0)


def test_a_layer_that_calls_the_interface_among_others() -> None:
    with pytest.raises(ModelError, match="layer 3 calls transformers' attention interface, and other layers do not"):
        CacheDiscovery().attend(3)


class Lookup(torch.nn.Module):
    """An embedding looked up at what `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(16, 4)
        self.register_buffer("table", torch.arange(16), persistent=False)
        self.kind = kind

    def forward(self, tokens: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        count = torch.arange(tokens.shape[1])
        indices = {
            "counted": count + 2,
            "stored": self.table[: tokens.shape[1]],
            "types": torch.zeros_like(count),
            "positions": start[:, None] + count,
            "tokens": tokens,
        }[self.kind]
        return self.embedding(indices) + start


def export(kind: str) -> torch.export.ExportedProgram:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        inputs = (torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
        return torch.export.export(Lookup(kind), inputs, strict=False).run_decompositions({})


@pytest.mark.parametrize(("kind", "seen"), [("counted", r"\[2, 3, 4\]"), ("stored", r"\[0, 1, 2\]")])
def test_positions_that_a_model_counts_itself_are_refused(kind: str, seen: str) -> None:
    message = rf"embedding.weight is looked up at positions {seen}\.\.\. whatever the positions of the call are"
    with pytest.raises(ModelError, match=message):
        check_positions(export(kind))


@pytest.mark.parametrize("kind", ["types", "positions", "tokens"])
def test_other_lookups_are_not(kind: str) -> None:
    check_positions(export(kind))


def test_context_of_a_model_that_names_it_otherwise(tmp_path: Path) -> None:
    model = make_twin("bloom", tmp_path / "model", max_position_embeddings=None, seq_length=96)
    plan = plan_compile(str(model), ("cpu",), CompileOptions())
    assert plan.context_tokens == 96
    assert plan.skeleton.has_own_attention
