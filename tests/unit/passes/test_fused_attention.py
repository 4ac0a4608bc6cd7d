"""Attention in the ways people write it: recognised, lowered, and as exact on the CPU as torch in float64.

All ways are functions of one module, so that the compiler starts once. The exported graphs are those of
`passes/test/exported`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from amdnfs_passes.fuse.fuse_attention import FuseAttentionPass
from iree.compiler.extras.fx_importer import FxImporter

from tests.unit.passes.cpu_programs import build, call, uniform, vt

Tensors = dict[str, torch.Tensor]
B, H, K, T, S, D, V = 2, 4, 2, 3, 5, 8, 6
EXPORTED = Path(__file__).parents[3] / "passes/test/exported"
PASSES = "fuse-attention,lower-attention"
LOWEST = torch.finfo(torch.float32).min
SLOPES = torch.tensor([0.5, 0.25, 0.125, 0.0625])


def each_head(x: torch.Tensor) -> torch.Tensor:
    return x[:, :, None].expand(B, K, H // K, *x.shape[2:]).reshape(B, H, *x.shape[2:])


def tokens_and_keys() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(T)[:, None], torch.arange(S)[None]


def heads_merged(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """baddbmm over heads merged into the batch, with ALiBi as what is added (bloom)."""
    bias = (SLOPES[:, None, None] * torch.arange(S)).repeat(B, 1, 1).to(q.dtype)
    k, v = each_head(k).reshape(B * H, S, D), each_head(v).reshape(B * H, S, V)
    scores = bias.baddbmm(q.reshape(B * H, T, D), k.transpose(1, 2), alpha=0.3)
    return torch.bmm(torch.softmax(scores, -1), v).view(B, H, T, V)


def heads_interleaved(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """repeat_interleave, and keys that were stored [batch, keys, heads, dim]."""
    k = k.transpose(1, 2).contiguous().permute(0, 2, 3, 1)
    scores = (q / math.sqrt(D)) @ k.repeat_interleave(2, 1)
    return torch.softmax(scores, 3) @ v.repeat_interleave(2, dim=1)


def one_key_head(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Broadcasting instead of a repetition (falcon)."""
    return torch.softmax(q @ k[:, :1].transpose(-1, -2), -1) @ v[:, :1]


def causal_by_choice(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A mask made of positions, chosen in before the scale (codegen)."""
    tokens, keys = tokens_and_keys()
    scores = torch.where(keys <= tokens, q @ each_head(k).mT, torch.tensor(LOWEST)) / 2.0
    return torch.softmax(scores, -1) @ each_head(v)


def causal_by_sum(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A mask of ones that is turned into numbers to add, with a softcap before (old style)."""
    tokens, keys = tokens_and_keys()
    hidden = (1.0 - (tokens >= keys).to(torch.float32)) * -10000.0
    scores = 3.0 * torch.tanh(q @ each_head(k).mT * 0.3 / 3.0)
    return torch.softmax(scores + hidden, -1) @ each_head(v)


def alibi_from_the_last_key(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """A bias counted back from the end of a longer table, and keys that are filled in as hidden (mpt)."""
    bias = (torch.arange(-7, 1).view(1, 1, 8) * SLOPES.view(H, 1, 1))[:, :, 8 - S :]
    tokens, keys = tokens_and_keys()
    scores = (q @ each_head(k).mT * 0.25 + bias).masked_fill(keys > tokens, LOWEST)
    return torch.softmax(scores.float(), -1).to(v.dtype) @ each_head(v)


def biased(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A bias that is given, scaled with the scores, and kept above the lowest number (xglm)."""
    scores = torch.max((q @ each_head(k).mT + bias) * 0.5, torch.tensor(LOWEST))
    return torch.softmax(scores, -1) @ each_head(v)


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A mask that is given, joined with causality; keys are scaled, too."""
    tokens, keys = tokens_and_keys()
    scores = q @ (each_head(k) * 0.7).mT
    scores = scores.masked_fill(~((keys <= tokens) & mask[:, None, None]), -math.inf)
    return torch.softmax(scores, -1) @ each_head(v)


def in_f16(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Scores in f32, everything else in f16 (gptj)."""
    q, k, v = q.half(), k.half(), v.half()
    weights = torch.softmax(q.float() @ each_head(k).float().mT / math.sqrt(D), -1)
    return weights.half() @ each_head(v)


WAYS: dict[str, tuple[Callable[..., torch.Tensor], str | None]] = {
    function.__name__: (function, {"biased": "bias", "masked": "mask"}.get(function.__name__))
    for function in (
        *(heads_merged, heads_interleaved, one_key_head, causal_by_choice, causal_by_sum),
        *(alibi_from_the_last_key, biased, masked, in_f16),
    )
}


class Way(torch.nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.function(*inputs)


def make_inputs(rng: np.random.Generator, extra: str | None) -> list[Any]:
    inputs = [uniform(rng, shape, "f32") for shape in ((B, H, T, D), (B, K, S, D), (B, K, S, V))]
    if extra == "bias":
        inputs.append(uniform(rng, (1, 1, T, S), "f32"))
    if extra == "mask":
        inputs.append(np.concatenate([np.ones((B, 1), bool), rng.integers(0, 2, (B, S - 1)) == 1], axis=1))
    return inputs


def import_ways(names: Iterable[str]) -> FxImporter:
    importer = FxImporter()
    for name in names:
        function, extra = WAYS[name]
        example = tuple(torch.from_numpy(item) for item in make_inputs(np.random.default_rng(0), extra))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own
            program = torch.export.export(Way(function), example, strict=False).run_decompositions({})
        importer.import_frozen_program(program, func_name=name)
    return importer


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Any:
    text = import_ways(WAYS).module.operation.get_asm()
    return build(tmp_path_factory.mktemp("ways"), text, PASSES)


@pytest.mark.parametrize("name", WAYS)
def test_way(ways: Any, rng: np.random.Generator, name: str) -> None:
    function, extra = WAYS[name]
    inputs = make_inputs(rng, extra)
    # Where a way itself asks for f32, the reference is in f32 there, too.
    exact = [torch.from_numpy(item).double() if item.dtype == np.float32 else torch.from_numpy(item) for item in inputs]
    if name == "in_f16":
        exact = [item.half().double() for item in exact]
        function = in_f64
    wanted = function(*exact).numpy()
    got = call(ways, name, *inputs)
    # Scores are sums of D products below 4; a weight is off by the error of its score, and the result by its weights'.
    tolerance = 2e-5 if name != "in_f16" else 4e-3
    np.testing.assert_allclose(got.astype(np.float64), wanted, rtol=0, atol=tolerance * 2)


def in_f64(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return torch.softmax(q @ each_head(k).mT / math.sqrt(D), -1) @ each_head(v)


def test_keys_are_read_before_they_are_repeated() -> None:
    module = import_ways(WAYS).module
    assert FuseAttentionPass().apply(module).rewrites == len(WAYS)
    fused = re.findall(r'"torch\.amdnfs\.attention"\(.*?\) : \((.*?)\) ->', str(module))
    for name, types in zip(WAYS, fused, strict=True):
        heads = 1 if name == "one_key_head" else K
        assert re.findall(r"vtensor<\[([0-9,]*)\]", types)[1] == f"{B},{heads},{S},{D}", name


@pytest.mark.parametrize("name", ["gptj_onnx", "gqa_export"])
def test_exported_graph(tmp_path: Path, rng: np.random.Generator, name: str) -> None:
    """An exported graph gives the same numbers with and without the passes."""
    text = (EXPORTED / f"{name}.mlir").read_text()
    signature = text.rpartition("func.func @main_graph")[2].partition(" -> ")[0]
    shapes = re.findall(r"%arg\d+: !torch\.vtensor<\[([0-9,]*)\],(\w+)>", signature)
    inputs = []
    for sizes, element in shapes:
        shape = [int(size) for size in sizes.split(",")]
        if element == "f32":
            inputs.append(uniform(rng, shape, "f32"))
        elif element == "i1":
            mask = rng.integers(0, 2, shape).astype(bool)
            mask[..., 0] = True
            inputs.append(mask)
        else:
            inputs.append(np.broadcast_to(np.arange(shape[-1]), shape).copy())
    results = []
    for passes in ("", PASSES):
        folder = tmp_path / (passes or "none")
        folder.mkdir()
        results.append(call(build(folder, text, passes), "main_graph", *inputs))
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-5)


def test_gather_reads_zero_past_the_live_context(tmp_path: Path, rng: np.random.Generator) -> None:
    """A NaN that an earlier request left in a page is not read."""
    pool, table, count = vt(("?", 2, 4, K, D), "f32"), vt((B, "?"), "si32"), vt((B,), "si64")
    rows = vt((B, K, "?", D), "f32")
    text = f"""func.func @gather(%pool: {pool}, %table: {table}, %start: {count}, %valid: {count}) -> {rows} {{
      %values = torch.constant.int 1
      %0 = torch.operator "torch.amdnfs.kv_gather"(%pool, %table, %start, %valid, %values)
        : ({pool}, {table}, {count}, {count}, !torch.int) -> {rows}
      return %0 : {rows}
    }}"""
    stored = uniform(rng, (6, 2, 4, K, D), "f32")
    pages, start, valid = np.array([[3, 1], [5, 0]], np.int32), np.array([4, 0]), np.array([2, 1])
    wanted = stored[pages, 1].transpose(0, 3, 1, 2, 4).reshape(B, K, 8, D).copy()
    wanted[0, :, 6:], wanted[1, :, 1:] = 0, 0
    stored[1, 1, 2:], stored[5, 1, 1:], stored[0] = np.nan, np.nan, np.nan
    got = call(build(tmp_path, text, "lower-kv-gather"), "gather", stored, pages, start, valid)
    np.testing.assert_array_equal(got, wanted)
