"""Keys and values stored as fp8: every number as torch rounds it, on the CPU and by the kernels on an emulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.unit.passes.amd_programs import EmulatedModule, needs_emulator
from tests.unit.passes.cpu_programs import Array, build, function, vt

FORMATS: dict[str, tuple[Any, float]] = {
    "f8E4M3FN": (ml_dtypes.float8_e4m3fn, 448.0),
    "f8E4M3FNUZ": (ml_dtypes.float8_e4m3fnuz, 240.0),
}
KV_HEADS, HEAD_DIM, PAGE = 8, 64, 16


def program(batch: int) -> str:
    """One token a request is written, and is all that its queries see: the result is its value, as it was stored."""
    kv, q = vt((batch, KV_HEADS, 1, HEAD_DIM), "f16"), vt((batch, KV_HEADS, 1, HEAD_DIM), "f16")
    y, pool = vt((batch, 1, KV_HEADS, HEAD_DIM), "f16"), vt(("?", 2, PAGE, KV_HEADS, HEAD_DIM), "si8")
    table, count = vt((batch, "?"), "si32"), vt((batch,), "si64")
    body = f"""%none = torch.constant.none
  %scale = torch.constant.float 1.0
  %zero = torch.constant.int 0
  %cap = torch.constant.float 0.0
  %y1 = torch.operator "torch.amdnfs.kv_write"(%3, %1, %2, %4, %5, %6) :
    ({pool}, {kv}, {kv}, {table}, {count}, {count}) -> {pool}
  %y0 = torch.operator "torch.amdnfs.paged_attention"(%0, %y1, %4, %5, %6, %none, %none, %scale, %zero, %cap) :
    ({q}, {pool}, {table}, {count}, {count}, !torch.none, !torch.none, !torch.float, !torch.int, !torch.float) -> {y}"""
    return function("f", [q, kv, kv, pool, table, count, count], [y, pool], body)


def inputs(values: Array) -> list[Array]:
    """Arguments that write `values` `[batch, kv_heads, 1, head_dim]` and their negatives as values and keys."""
    batch = len(values)
    pool = np.zeros((batch + 1, 2, PAGE, KV_HEADS, HEAD_DIM), np.int8)
    table = np.arange(1, batch + 1, dtype=np.int32)[:, None]
    start, valid = np.zeros(batch, np.int64), np.ones(batch, np.int64)
    return [np.zeros_like(values), -values, values, pool, table, start, valid]


def check(results: list[Array], values: Array, name: str) -> None:
    kind, largest = FORMATS[name]
    wanted = np.clip(values.astype(np.float32), -largest, largest).astype(kind)
    got, pool = results
    np.testing.assert_array_equal(got[:, 0], wanted[:, :, 0].astype(np.float16))
    stored = pool[1:, 1, 0].view(kind).astype(np.float32)
    np.testing.assert_array_equal(stored, wanted[:, :, 0].astype(np.float32))
    np.testing.assert_array_equal(pool[1:, 0, 0].view(kind).astype(np.float32), -stored)
    assert not pool[0].any()


def every_f16() -> Array:
    """All finite numbers, and infinities, `[requests, kv_heads, 1, head_dim]`."""
    numbers = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    numbers = np.where(np.isnan(numbers), np.float16(1), numbers)
    return numbers.reshape(-1, KV_HEADS, 1, HEAD_DIM)


@pytest.mark.parametrize("name", FORMATS)
def test_cpu_rounds_every_number_as_torch_does(tmp_path: Path, name: str) -> None:
    values = every_f16()
    module = build(tmp_path, program(len(values)), f"lower-kv-write{{fp8={name}}},lower-paged-attention{{fp8={name}}}")
    results = [item.to_host() for item in module["f"](*inputs(values))]
    check(results, values, name)


@needs_emulator
@pytest.mark.emulator
def test_kernels_round_as_torch_does(rng: np.random.Generator) -> None:
    edges = np.array([0.0, 448.0, 464.0, 480.0, 1e4, np.inf, 2.0**-9, 2.0**-10, 1.5 * 2.0**-9, 2.0**-6, 17.0, 19.0])
    numbers = rng.permutation(every_f16().ravel())[: 4 * KV_HEADS * HEAD_DIM].copy()
    numbers[: len(edges)] = edges.astype(np.float16)
    values = numbers.reshape(-1, KV_HEADS, 1, HEAD_DIM)
    module = EmulatedModule(program(len(values)), "gfx1201", 4, ("dispatch-kv-write", "dispatch-paged-attention"))
    check(module.call("f", *inputs(values)), values, "f8E4M3FN")
