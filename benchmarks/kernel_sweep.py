"""Compiles our kernels for every AMD target and many shapes, and prints what each became. Needs no GPU.

    python benchmarks/kernel_sweep.py                          everything: about an hour
    python benchmarks/kernel_sweep.py --targets gfx942 gfx1151 --kernels attention
    python benchmarks/kernel_sweep.py --json sweep.json        the figures as data, too

A row that ends in `!` breaks a rule: no tiling fits, no matrix instructions, registers or memory spilled, more LDS than
there is, or keys, values and weights read in less than 16 bytes at a time. The last line counts them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from amdnfs_passes.attention.lower_paged_attention import PagedAttention
from amdnfs_passes.kernels.attention_kernels import build_attention
from amdnfs_passes.kernels.linear_kernels import LinearShape, build_linear
from amdnfs_passes.kernels.provider import CompiledKernel, KernelError, KernelTarget
from amdnfs_targets.registry import TARGETS
from amdnfs_targets.target import Target, TargetKind

from amdnfs_compile.pipeline import takes_kernels

ELEMENTS = ("f16", "bf16")
HEAD_DIMS = (64, 80, 96, 128, 256)
PAGES = (16, 32, 64)
ROWS = (1, 8, 16, 64, 512, 2048)
_LOAD_BYTES = 16
_WIDE_LOADS = ("dwordx4", "b128", "dwordx4_lds")
_ELEMENT_BYTES = 2
_MAX_NORM_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Model:
    """Sizes of a model's linear layers."""

    hidden: int
    """Width of the hidden state."""
    queries: int
    """Columns of the query projection."""
    keys: int
    """Columns of the key and of the value projection."""
    intermediate: int
    """Width between gate and down projection."""
    vocab: int
    """Columns of the head."""


MODELS = {
    "llama-1.1b": Model(hidden=2048, queries=2048, keys=256, intermediate=5632, vocab=32000),
    "qwen3-0.6b": Model(hidden=1024, queries=2048, keys=1024, intermediate=3072, vocab=151936),
    "llama-3.1-8b": Model(hidden=4096, queries=4096, keys=1024, intermediate=14336, vocab=128256),
}
"""TinyLlama 1.1B, Qwen3 0.6B and Llama 3.1 8B, from their configurations."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One kernel of one target."""

    target: str
    """Name of the target."""
    kernel: str
    """What runs: `decode`, `prefill` or a linear layer of a model."""
    shape: str
    """Its sizes, for people."""
    element: str
    """`f16` or `bf16`."""
    tiling: str
    """The candidate that was taken; empty if there is none."""
    matrix_instructions: int
    """In the text of the kernel."""
    vgprs: int
    """Vector registers of a lane."""
    sgprs: int
    """Scalar registers of a wave."""
    lds_bytes: int
    """Shared memory of a workgroup, in bytes."""
    loads: Mapping[str, int]
    """Memory loads in the text by width."""
    seconds: float
    """What the compile took, with the candidates that did not fit."""
    broken: str
    """Which rule the kernel breaks; empty if none."""


def kernel_targets() -> dict[str, Target]:
    """The AMD targets that take kernels of our own."""
    return {
        name: target
        for name, target in TARGETS.items()
        if target.kind is TargetKind.HIP and takes_kernels(target) and target.unsupported is None
    }


def kernel_target(target: Target) -> KernelTarget:
    """What a kernel is compiled for, as the pipeline says it."""
    assert target.gfx is not None
    assert target.wave_size is not None
    return KernelTarget(
        backend="hip",
        processor=target.gfx,
        wave_size=target.wave_size,
        lds_bytes=target.lds_bytes or 0,
        num_compute_units=target.num_compute_units or 0,
    )


def attention_shapes(element: str) -> Iterator[tuple[str, PagedAttention]]:
    """All attentions of the sweep: a decode step of 8 requests and a chunk of 512 tokens, 8 KV heads of 4 heads."""
    for head_dim, page_tokens, (name, batch, tokens) in itertools.product(
        HEAD_DIMS, PAGES, (("decode", 8, 1), ("prefill", 1, 512))
    ):
        yield (
            name,
            PagedAttention(
                batch=batch,
                heads=32,
                tokens=tokens,
                kv_heads=8,
                head_dim=head_dim,
                page_tokens=page_tokens,
                element=element,
                scale=0.125,
                window=0,
                softcap=0.0,
                has_sinks=False,
                has_slopes=False,
            ),
        )


def linear_shapes(element: str, num_rows: int) -> Iterator[tuple[str, LinearShape]]:
    """All linear layers of the sweep with a number of rows, with what stands around them."""

    def layer(depth: int, *columns: int, gate: str = "", has_norm: bool = False, adds: bool = False) -> LinearShape:
        return LinearShape(
            num_rows=num_rows,
            depth=depth,
            columns=columns,
            element=element,
            gate=gate,
            eps=1e-5 if has_norm and num_rows <= _MAX_NORM_ROWS else None,
            gain_offset=0.0,
            has_bias=False,
            has_residual=adds,
        )

    for name, m in MODELS.items():
        yield f"{name} qkv", layer(m.hidden, m.queries, m.keys, m.keys, has_norm=True)
        yield f"{name} out", layer(m.queries, m.hidden, adds=True)
        yield f"{name} gate", layer(m.hidden, m.intermediate, m.intermediate, gate="silu", has_norm=True)
        yield f"{name} down", layer(m.intermediate, m.hidden, adds=True)
        if num_rows <= _MAX_NORM_ROWS:  # logits are made for one token of a request
            yield f"{name} head", layer(m.hidden, m.vocab, has_norm=True)


def compile_attention(target: Target, name: str, shape: PagedAttention) -> Row:
    """Compiles one attention."""
    text = f"d{shape.head_dim} p{shape.page_tokens}"
    padded = 1 << (shape.head_dim - 1).bit_length()
    begin = time.perf_counter()
    try:
        kernel: CompiledKernel | str = build_attention(shape, kernel_target(target)).attention
    except KernelError as error:
        kernel = str(error)
    streamed = 0 if isinstance(kernel, str) else 2 * dict(kernel.tiling.sizes)["KEYS"] * padded
    return _row(target, name, text, shape.element, kernel, streamed, time.perf_counter() - begin)


def compile_linear(target: Target, name: str, shape: LinearShape) -> Row:
    """Compiles one linear layer."""
    text = f"{shape.num_rows} rows"
    begin = time.perf_counter()
    try:
        kernel: CompiledKernel | str = build_linear(shape, kernel_target(target)).kernel
    except KernelError as error:
        kernel = str(error)
    streamed = 0
    if not isinstance(kernel, str):
        sizes = dict(kernel.tiling.sizes)
        streamed = (2 if shape.gate else 1) * sizes["COLUMNS"] * sizes["DEPTHS"]
    return _row(target, name, text, shape.element, kernel, streamed, time.perf_counter() - begin)


def _row(
    target: Target, name: str, shape: str, element: str, kernel: CompiledKernel | str, streamed: int, seconds: float
) -> Row:
    """A row of the table; `streamed` is the number of elements that a step of the kernel's loop reads from memory."""
    if isinstance(kernel, str):
        return Row(
            target=target.name,
            kernel=name,
            shape=shape,
            element=element,
            tiling="",
            matrix_instructions=0,
            vgprs=0,
            sgprs=0,
            lds_bytes=0,
            loads={},
            seconds=seconds,
            broken=kernel,
        )
    facts = kernel.facts
    loads = dict(facts.load_widths)
    wanted = streamed * _ELEMENT_BYTES / (kernel.threads * _LOAD_BYTES)
    rules = {
        "no matrix instructions": not facts.matrix_instructions,
        f"{facts.num_spills} spilled registers": facts.num_spills > 0,
        f"{facts.scratch_bytes} bytes of scratch memory": facts.scratch_bytes > 0,
        f"more LDS than {target.lds_bytes} bytes": facts.lds_bytes > (target.lds_bytes or 0),
        f"less than {wanted:g} loads of 16 bytes": sum(loads.get(width, 0) for width in _WIDE_LOADS) < wanted,
        "less than 16 bytes a lane": wanted < 1,
    }
    return Row(
        target=target.name,
        kernel=name,
        shape=shape,
        element=element,
        tiling=kernel.tiling.describe(),
        matrix_instructions=facts.matrix_instructions,
        vgprs=facts.vgprs or 0,
        sgprs=facts.sgprs or 0,
        lds_bytes=facts.lds_bytes,
        loads=loads,
        seconds=seconds,
        broken="; ".join(rule for rule, is_broken in rules.items() if is_broken),
    )


def sweep(targets: Sequence[str], kernels: Sequence[str]) -> Iterator[Row]:
    """All rows, target by target."""
    known = kernel_targets()
    for name, element in itertools.product(targets, ELEMENTS):
        if "attention" in kernels:
            for kind, attention in attention_shapes(element):
                yield compile_attention(known[name], kind, attention)
        if "linear" in kernels:
            for num_rows in ROWS:
                for layer, linear in linear_shapes(element, num_rows):
                    yield compile_linear(known[name], layer, linear)


def describe(row: Row) -> str:
    """A line of the table."""
    loads = " ".join(f"{width}:{count}" for width, count in row.loads.items())
    figures = f"{row.matrix_instructions:>4} {row.vgprs:>4} {row.sgprs:>4} {row.lds_bytes:>6} {row.seconds:>5.1f}"
    end = f"  ! {row.broken}" if row.broken else ""
    return f"{row.target:<8} {row.kernel:<18} {row.shape:<9} {row.element:<4} {row.tiling:<48} {figures}  {loads}{end}"


def main() -> int:
    """Prints the table; gives 1 if a row breaks a rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(kernel_targets()), default=list(kernel_targets()))
    parser.add_argument("--kernels", nargs="+", choices=("attention", "linear"), default=("attention", "linear"))
    parser.add_argument("--json", type=Path, help="file for the rows as data")
    options = parser.parse_args()
    heads = f"{'target':<8} {'kernel':<18} {'shape':<9} {'type':<4} {'tiling':<48}"
    print(f"{heads} {'mat':>4} {'VGPR':>4} {'SGPR':>4} {'LDS':>6} {'s':>5}  loads")
    rows = []
    for row in sweep(options.targets, options.kernels):
        rows.append(row)
        print(describe(row), flush=True)
    num_broken = sum(1 for row in rows if row.broken)
    print(f"{len(rows)} kernels, {num_broken} break a rule")
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 1 if num_broken else 0


if __name__ == "__main__":
    sys.exit(main())
