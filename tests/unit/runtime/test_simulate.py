"""Simulated serving: the clock, the costs, and 10,000 requests of which none is lost."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from amdnfs_runtime import simulate as simulation
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.simulate import CostModel, Workload, simulate, simulated_manifest

COST = CostModel(call_s=1e-3, token_s=1e-6, context_token_s=1e-8)
MANIFEST = simulated_manifest((64, 512), (1, 256), 1024)


def test_times_of_one_request_are_those_of_its_calls() -> None:
    cost = CostModel(call_s=1.0, token_s=0.01, context_token_s=0.0)
    workload = Workload(num_requests=1, prompt_tokens=40, output_tokens=30, seed=1)
    result = simulate(workload, cost, MANIFEST, EngineConfig(kv_pages=100))
    assert result.first_token_s == pytest.approx([1.64])
    assert result.between_tokens_s == pytest.approx([1.01] * (result.num_generated_tokens - 1))
    assert result.num_generated_tokens > 2


def test_10000_requests_with_256_at_once_in_seconds() -> None:
    workload = Workload(num_requests=10_000, rate=1e5, prompt_tokens=60, output_tokens=16)
    result = simulate(workload, COST, MANIFEST, EngineConfig(kv_pages=4000, max_running=256, max_step_tokens=8192))
    assert (result.num_requests, result.num_lost, result.num_leaked_pages) == (10_000, 0, 0)
    assert result.num_most_running == 256
    assert result.first_token_s.size == 10_000
    assert result.num_generated_tokens == 10_000 + result.between_tokens_s.size
    assert result.wall_s < 60


def test_a_workload_repeats_and_a_small_pool_costs_time() -> None:
    workload = Workload(num_requests=200, rate=1e4, prompt_tokens=100, output_tokens=50, shared_tokens=64)
    large = EngineConfig(kv_pages=4000)
    first, again = (simulate(workload, COST, MANIFEST, large) for _ in range(2))
    assert np.array_equal(first.between_tokens_s, again.between_tokens_s)
    assert first.cached_share > 0.2
    small = simulate(workload, COST, MANIFEST, dataclasses.replace(large, kv_pages=120))
    assert small.num_preemptions > 0
    assert small.simulated_s > first.simulated_s
    assert small.num_lost == 0


def test_costs_from_the_peaks_of_a_product() -> None:
    cost = CostModel.from_peaks("mi300x", num_parameters=8e9, kv_token_bytes=131072, element_type="bf16", launch_s=0.0)
    # 16 GB at 5.3 TB/s; 16 GFLOP at 1307 TFLOP/s.
    assert cost.call_s == pytest.approx(3.02e-3, rel=0.01)
    assert cost.token_s == pytest.approx(1.22e-5, rel=0.01)
    assert cost.context_token_s == pytest.approx(2.47e-8, rel=0.01)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    simulation.main(["--requests", "50", "--rate", "1000", "--product", "mi300x", "--step-tokens", "700"])
    printed = capsys.readouterr().out
    assert "| requests, lost | 50, 0 |" in printed
    assert "| time to first token, p50 / p90 / p99 |" in printed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_requests": 0}, "num_requests must be an integer >= 1, not 0"),
        ({"rate": 0}, "rate must be a finite number > 0"),
        ({"shared_tokens": -1}, "shared_tokens must be an integer >= 0, not -1"),
    ],
)
def test_workloads_that_make_no_sense(values: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Workload(**values)  # type: ignore[arg-type]
