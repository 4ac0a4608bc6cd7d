"""What quantisation costs in accuracy, and what a quantised layer costs in time on the CPU.

    python benchmarks/quantization.py accuracy [MODEL]    the shipped model, and the model in a folder
    python benchmarks/quantization.py layer               one layer, [rows, 2048] x [32000, 2048]

Accuracy is that of the compiled programs: their decode steps are fed a text token by token, and every step's logits are
compared with transformers in f32. The text is, for the shipped model, held-out documents of its generator; for another
model, what the model itself samples in f32 (temperature 1): there the perplexity of the unquantised model is the least.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from amdnfs_passes.ir import parse_module
from amdnfs_passes.pipeline_text import parse_passes
from amdnfs_runtime.bundle import read_manifest
from amdnfs_runtime.device import Program
from amdnfs_runtime.errors import AmdnfsError
from amdnfs_targets.host import CPU
from amdnfs_targets.quantized_layout import QuantizedLayout
from iree import runtime as rt
from transformers import AutoModelForCausalLM, AutoTokenizer

from amdnfs_compile import CompileOptions, compile_model
from amdnfs_compile.pipeline import TORCH_PHASE, build_pipeline, convert_torch_to_linalg
from amdnfs_compile.quantize.scheme import GroupSize, Quantize

ROOT = Path(__file__).parents[1]
DEMO_MODEL = ROOT / "examples" / "demo_model"
BATCH, NUM_TEXTS, SAMPLED_TOKENS = 8, 64, 128
MODES: tuple[dict[str, Any], ...] = (
    {},
    {"quantize": Quantize.INT8},
    {"quantize": Quantize.INT8, "group_size": GroupSize.G32},
    {"quantize": Quantize.INT8, "group_size": GroupSize.G32, "zero_points": True},
    {"quantize": Quantize.INT4},
    {"quantize": Quantize.INT4, "group_size": GroupSize.G64},
    {"quantize": Quantize.INT4, "group_size": GroupSize.G32},
    {"quantize": Quantize.INT4, "group_size": GroupSize.G32, "zero_points": True},
    {"quantize": Quantize.INT4, "group_size": GroupSize.CHANNEL},
    {"quantize": Quantize.FP8},
    {"quantize": Quantize.FP8, "group_size": GroupSize.TENSOR},
    {"quantize": Quantize.W8A8},
    {"quantize": Quantize.W8A8_FP8},
    {"quantize": Quantize.W8A8_FP8, "group_size": GroupSize.TENSOR},
)
LAYOUTS = ("i8-channel-rows-f32", "i8-g128-rows-f32", "i4-g128-rows-f32", "i4-g32-zp-rows-f32")
LAYOUTS += ("f8E4M3FN-channel-rows-f32", "i8-channel-rows-f32-a8")
COLUMNS, DEPTH, ROWS, REPEATS = 32000, 2048, (1, 8, 128), 15


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Token rows of one length, padded at the end, with what the model in f32 says of them."""

    ids: np.ndarray
    """`[texts, tokens]`."""
    is_scored: np.ndarray
    """`[texts, tokens - 1]`: whether the token after this one counts."""
    best: np.ndarray
    """`[texts, tokens - 1]`: the f32 model's first choice."""


def pad(rows: list[list[int]], model: torch.nn.Module) -> Texts:
    """Rows of one length, and the f32 model's first choices."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), np.int64)
    is_scored = np.zeros((len(rows), longest - 1), bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        is_scored[index, : len(row) - 1] = True
    with torch.no_grad():
        best = model(input_ids=torch.from_numpy(ids)).logits[:, :-1].argmax(-1).numpy()
    return Texts(ids=ids, is_scored=is_scored, best=best)


def held_out_texts(tokenizer: Any, model: torch.nn.Module) -> Texts:
    """Stories and sums that the shipped model was not trained on, each with its end token."""
    sys.path.insert(0, str(ROOT / "examples"))
    from train_demo_model import EOS_ID, draw_story, list_sums

    rng = random.Random(1)
    documents = [draw_story(rng, held_out=True) for _ in range(NUM_TEXTS // 2)]
    documents += rng.sample(list_sums("+", held_out=True), NUM_TEXTS // 2)
    return pad([[*tokenizer(document)["input_ids"], EOS_ID] for document in documents], model)


def sampled_texts(model: torch.nn.Module, begin: int) -> Texts:
    """What the model writes by itself."""
    torch.manual_seed(0)
    start = torch.full((NUM_TEXTS // 2, 1), begin)
    options = {"max_new_tokens": SAMPLED_TOKENS, "min_new_tokens": SAMPLED_TOKENS, "top_k": 0, "top_p": 1.0}
    with torch.no_grad():
        rows = model.generate(start, do_sample=True, temperature=1.0, pad_token_id=0, **options)
    return pad(rows.tolist(), model)


def score(bundle: Path, texts: Texts) -> tuple[float, float]:
    """Perplexity, and the share of steps whose first choice is the f32 model's, of the bundle's CPU program."""
    manifest = read_manifest(bundle)
    program = Program(bundle, manifest, "cpu")
    width = -(-texts.ids.shape[1] // manifest.page_tokens)
    table = 1 + np.arange(BATCH * width, dtype=np.int32).reshape(BATCH, width)
    losses, agreed = [], []
    for begin in range(0, len(texts.ids), BATCH):
        rows = texts.ids[begin : begin + BATCH]
        pools = program.make_pools(manifest, 1 + BATCH * width)
        for at in range(texts.ids.shape[1] - 1):
            start, valid = np.full(BATCH, at, np.int64), np.ones(BATCH, np.int64)
            step = np.ascontiguousarray(rows[:, at : at + 1])
            _, output, pools = program.call(f"decode_{BATCH}", step, start, valid, table, pools)
            logits = program.read(output).astype(np.float64)
            highest = logits.max(-1)
            all_log = highest + np.log(np.exp(logits - highest[:, None]).sum(-1))
            counts = texts.is_scored[begin : begin + BATCH, at]
            losses.append((all_log - logits[np.arange(BATCH), rows[:, at + 1]])[counts])
            agreed.append((logits.argmax(-1) == texts.best[begin : begin + BATCH, at])[counts])
    return float(np.exp(np.concatenate(losses).mean())), float(np.concatenate(agreed).mean())


def accuracy(folder: Path) -> None:
    """Prints a row for each mode that the model takes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    if folder == DEMO_MODEL:
        texts = held_out_texts(AutoTokenizer.from_pretrained(folder), model)
    else:
        texts = sampled_texts(model, model.config.bos_token_id)
    print(f"\n{folder.name}: {int(texts.is_scored.sum())} tokens in {len(texts.ids)} texts\n")
    print("| weights | archive, kB | perplexity | first choice as in f32 |\n|---|---|---|---|", flush=True)
    for mode in MODES:
        options = CompileOptions(prefill_chunks=(16,), decode_batches=(BATCH,), **mode)
        name = "unquantised" if options.scheme is None else options.scheme.describe()
        with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as place:
            try:
                bundle = compile_model(folder, ["cpu"], Path(place) / "out", options)
            except AmdnfsError as error:
                print(f"| {name} | refused: {str(error).split(': ', 1)[-1]} | | |", flush=True)
                continue
            manifest = read_manifest(bundle)
            size = sum(manifest.files[item].size for item in manifest.weights)
            perplexity, agreement = score(bundle, texts)
        print(f"| {name} | {size / 1e3:.0f} | {perplexity:.4f} | {agreement:.2%} |", flush=True)


def layer_text(rows: int, spelling: str | None) -> str:
    """One linear layer in the torch dialect; of f32 weights without a layout."""
    x, y = f"!torch.vtensor<[{rows},{DEPTH}],f32>", f"!torch.vtensor<[{rows},{COLUMNS}],f32>"
    if spelling is None:
        weight = f"!torch.vtensor<[{COLUMNS},{DEPTH}],f32>"
        return f"""func.func @f(%x: {x}, %w: {weight}) -> {y} {{
  %none = torch.constant.none
  %y = torch.aten.linear %x, %w, %none : {x}, {weight}, !torch.none -> {y}
  return %y : {y}
}}"""
    layout = QuantizedLayout.parse(spelling)
    shapes = [(layout.data_shape(COLUMNS, DEPTH), "si8"), (layout.scales_shape(COLUMNS, DEPTH), str(layout.scale))]
    shapes += [(layout.scales_shape(COLUMNS, DEPTH), "si8")] if layout.has_zeros else []
    kinds = [f"!torch.vtensor<[{shape[0]},{shape[1]}],{element}>" for shape, element in shapes]
    arguments = ", ".join(f"%{index}: {kind}" for index, kind in enumerate(kinds))
    zeros, zeros_kind = ("%2", kinds[2]) if layout.has_zeros else ("%none", "!torch.none")
    return f"""func.func @f(%x: {x}, {arguments}) -> {y} {{
  %none = torch.constant.none
  %layout = torch.constant.str "{spelling}"
  %y = torch.operator "torch.amdnfs.quantized_linear"(%x, %0, %1, {zeros}, %none, %layout)
    : ({x}, {kinds[0]}, {kinds[1]}, {zeros_kind}, !torch.none, !torch.str) -> {y}
  return %y : {y}
}}"""


def compiled(folder: Path, text: str, passes: str | None) -> Any:
    """The function of a layer, lowered by `passes`, or as a compile for the CPU does."""
    module = parse_module(text)
    phase = next(phase for phase in build_pipeline(CPU) if phase.name == TORCH_PHASE)
    for item in phase.passes if passes is None else parse_passes(passes):
        item.apply(module)
    convert_torch_to_linalg(module)
    source, output = folder / "layer.mlir", folder / "layer.vmfb"
    source.write_text(str(module))
    compiler = Path(sysconfig.get_path("scripts")) / "iree-compile"
    subprocess.run([compiler, source, *CPU.compile_flags, "--iree-opt-level=O2", "-o", output], check=True)
    return rt.load_vm_flatbuffer(output.read_bytes(), driver="local-task")


def layer_inputs(rows: int, spelling: str | None) -> list[Any]:
    """Random operands, on the device."""
    rng = np.random.default_rng(0)
    found: list[np.ndarray] = [rng.normal(size=(rows, DEPTH)).astype(np.float32)]
    if spelling is None:
        found.append(rng.normal(size=(COLUMNS, DEPTH)).astype(np.float32))
    else:
        layout = QuantizedLayout.parse(spelling)
        found.append(rng.integers(-100, 100, layout.data_shape(COLUMNS, DEPTH), np.int8))
        found.append(rng.uniform(0.01, 0.02, layout.scales_shape(COLUMNS, DEPTH)).astype(np.float32))
        found += [np.zeros(layout.scales_shape(COLUMNS, DEPTH), np.int8)] if layout.has_zeros else []
    device = rt.get_device("local-task")
    return [rt.asdevicearray(device, item) for item in found]


def layer() -> None:
    """Prints times of one layer beside f32 weights; every call is followed by one of the f32 layer."""
    print(f"\n| weights | form | {' | '.join(f'{rows} rows' for rows in ROWS)} |\n|---|---|{'---|' * len(ROWS)}")
    forms: list[tuple[str | None, str, str | None]] = [(None, "IREE's", None)]
    forms += [(name, "vectors", None) for name in LAYOUTS]
    forms += [(name, "linalg", "lower-quantized-linear") for name in ("i8-channel-rows-f32", "i4-g128-rows-f32")]
    with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as place:
        plain = {rows: (compiled(Path(place), layer_text(rows, None), None), layer_inputs(rows, None)) for rows in ROWS}
        for spelling, form, passes in forms:
            cells = []
            for rows in ROWS:
                module = compiled(Path(place), layer_text(rows, spelling), passes)
                mine, ratio = beside(module, layer_inputs(rows, spelling), *plain[rows])
                cells.append(f"{mine * 1e3:.1f} ms, {ratio:.2f}")
            print(f"| {spelling or 'f32'} | {form} | {' | '.join(cells)} |", flush=True)


def beside(module: Any, inputs: list[Any], plain: Any, plain_inputs: list[Any]) -> tuple[float, float]:
    """Median time of a call, in seconds, and the median of its ratio to the f32 layer's, call by call in turns."""

    def seconds(called: Any, operands: list[Any]) -> float:
        begin = time.perf_counter()
        np.asarray(called["f"](*operands).to_host())
        return time.perf_counter() - begin

    pairs = [(seconds(module, inputs), seconds(plain, plain_inputs)) for _ in range(REPEATS + 2)][2:]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


def main() -> None:
    """Runs what the arguments name."""
    if sys.argv[1:] == ["layer"]:
        layer()
        return
    for folder in (DEMO_MODEL, *(Path(item) for item in sys.argv[2:])):
        accuracy(folder)


if __name__ == "__main__":
    main()
