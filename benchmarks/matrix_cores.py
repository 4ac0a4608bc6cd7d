"""What every target's programs are, from their code objects: nothing is run, no GPU is needed.

    python benchmarks/matrix_cores.py SHAPE [--dtype F16|BF16] [--targets T ...] [--prefill 64 2048] [--decode 1 16]

One row a target and entry point: share of FLOPs in dispatches with matrix instructions, dispatches a layer, bytes
against the least possible, and the worst spills and scratch of any dispatch. Weights are a hole in a file.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from amdnfs_runtime.errors import AmdnfsError
from amdnfs_runtime.report.amounts import count, share
from amdnfs_runtime.report.build import make_report
from amdnfs_targets.registry import GROUPS
from shapes import SHAPES, make_model

from amdnfs_compile import CompileOptions, compile_model

HEAD = ("target", "entry point", "FLOPs on matrix units", "dispatches a layer", "bytes x least", "spills", "scratch B")


def rows_of(bundle: Path, target: str) -> list[tuple[str, ...]]:
    """The rows of one target."""
    report = make_report(bundle, target, None, None).targets[0]
    rows = []
    for entry in report.entries:
        kernels = [report.kernels[group.export] for group in entry.groups if group.export in report.kernels]
        spills = [(kernel.vgpr_spills or 0) + (kernel.sgpr_spills or 0) for kernel in kernels]
        worst = max(kernels, key=lambda kernel: (kernel.vgpr_spills or 0) + (kernel.sgpr_spills or 0))
        rows.append(
            (
                target,
                entry.name,
                share(entry.matrix_share),
                count(round(entry.dispatches_per_layer, 2)),
                f"{entry.num_bytes / entry.least_bytes:.2f}",
                "0" if not max(spills) else f"{max(spills)} ({worst.symbol})",
                str(max(kernel.scratch_bytes or 0 for kernel in kernels)),
            )
        )
    return rows


def main() -> None:
    """Compiles target after target and prints a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--dtype", choices=("F16", "BF16"), default="F16")
    parser.add_argument("--targets", nargs="+", default=[name for name in GROUPS["all-amd"] if name != "gfx1030"])
    parser.add_argument("--prefill", nargs="+", type=int, default=[64, 2048])
    parser.add_argument("--decode", nargs="+", type=int, default=[1, 8, 16, 64])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    options = CompileOptions(prefill_chunks=tuple(arguments.prefill), decode_batches=tuple(arguments.decode))
    with tempfile.TemporaryDirectory(prefix="amdnfs-bench-") as name:
        folder = Path(name)
        context = max(4096, *arguments.prefill)
        model = make_model(folder / "model", SHAPES[arguments.shape], arguments.dtype, random=False, context=context)
        print(f"{arguments.shape} {arguments.dtype}\n\n| {' | '.join(HEAD)} | s to compile |")
        print("|" + "---|" * (len(HEAD) + 1), flush=True)
        for target in arguments.targets:
            began_s = time.perf_counter()
            try:
                bundle = compile_model(model, [target], folder / "model.amdnfs", options)
            except AmdnfsError as error:
                print(f"| {target} | {str(error).splitlines()[0][:120]} |", flush=True)
                continue
            took_s = time.perf_counter() - began_s
            for row in rows_of(bundle, target):
                print(f"| {' | '.join(row)} | {took_s:.0f} |", flush=True)


if __name__ == "__main__":
    main()
