"""Makes the graphs of this folder: attention as exporters write it.

Run where `onnx` 1.23.2 and `onnxscript` 0.7.2 can be imported beside the versions of `requirements.txt`; the project
itself needs neither:

    python passes/test/exported/make.py

`gptj_onnx.mlir` is transformers' own `GPTJAttention` with random weights through `torch.onnx.export`, IREE's importer
and torch-mlir's conversion to the torch dialect. `gqa_export.mlir` is the function below through `torch.export`. The
lines of a file in front of its module are kept.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import torch
from iree.compiler.extras.fx_importer import FxImporter
from transformers import GPTJConfig
from transformers.models.gptj.modeling_gptj import GPTJAttention

HERE = Path(__file__).parent
TOOLS = Path(sysconfig.get_path("scripts"))


class RotaryBlock(torch.nn.Module):
    """GPT-J's attention over hidden states `[1, 4, 16]`, with an additive mask and positions as inputs."""

    def __init__(self) -> None:
        super().__init__()
        config = GPTJConfig(n_embd=16, n_head=2, rotary_dim=4, n_positions=8)
        self.attention = GPTJAttention(config, layer_idx=0).eval()

    def forward(self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return self.attention(x, attention_mask=mask, position_ids=positions)[0]


class GroupedQueries(torch.nn.Module):
    """Two query heads share a key head; a boolean mask is true where a key is seen."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = (q @ repeat_kv(k, 2).transpose(-1, -2)) * q.shape[-1] ** -0.5
        weights = torch.softmax(scores.masked_fill(~mask, float("-inf")), -1, dtype=torch.float32).to(q.dtype)
        return (weights @ repeat_kv(v, 2)).transpose(1, 2)


def repeat_kv(x: torch.Tensor, count: int) -> torch.Tensor:
    batch, heads, tokens, dim = x.shape
    return x[:, :, None].expand(batch, heads, count, tokens, dim).reshape(batch, heads * count, tokens, dim)


def through_onnx(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        torch.onnx.export(model, inputs, f"{folder}/graph.onnx", dynamo=True, external_data=False, opset_version=18)
        run("iree-import-onnx", f"{folder}/graph.onnx", "-o", f"{folder}/onnx.mlir")
        convert = "--pass-pipeline=builtin.module(func.func(convert-torch-onnx-to-torch,canonicalize))"
        run("iree-opt", convert, f"{folder}/onnx.mlir", "-o", f"{folder}/torch.mlir")
        return Path(folder, "torch.mlir").read_text()


def through_export(model: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> str:
    importer = FxImporter()
    program = torch.export.export(model, inputs, strict=False).run_decompositions({})
    importer.import_frozen_program(program, func_name="main_graph")
    return f"{importer.module}\n"


def run(tool: str, *arguments: str) -> None:
    subprocess.run([str(TOOLS / tool), *arguments], check=True, stdout=sys.stderr)


def replace_module(name: str, text: str) -> None:
    path = HERE / name
    head = path.read_text().partition("\nmodule")[0] if path.exists() else ""
    path.write_text(f"{head}\n{text}")


if __name__ == "__main__":
    torch.manual_seed(0)
    hidden = (torch.randn(1, 4, 16), torch.zeros(1, 1, 4, 4), torch.arange(4)[None])
    replace_module("gptj_onnx.mlir", through_onnx(RotaryBlock(), hidden))
    heads = (torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8))
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    replace_module("gqa_export.mlir", through_export(GroupedQueries(), (*heads, mask)))
