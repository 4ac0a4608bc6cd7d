"""`amdnfs bench`: figures that follow from times and costs, real calls on this CPU, refusals."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest
from amdnfs_runtime.bench import BenchOptions, run_bench
from amdnfs_runtime.device import HIP_DYLIB_VARIABLE
from amdnfs_runtime.errors import UsageError
from amdnfs_runtime.report.build import make_report

from tests.conftest import RunCli


def test_figures_follow_from_times_and_costs(bundle: Path) -> None:
    ticks = itertools.count()
    bench = run_bench(bundle, "cpu", None, BenchOptions(context_tokens=40, seconds=20), clock=lambda: next(ticks) * 0.5)
    costs = {entry.name: entry for entry in make_report(bundle, "cpu", None, 40).targets[0].entries}
    assert [row.name for row in bench.rows] == list(costs)
    for row in bench.rows:
        entry = costs[row.name]
        assert (row.num_calls, row.median_ms, row.p10_ms, row.p90_ms) == (40, 500, 500, 500)
        assert row.context_tokens == 48  # whole pages
        assert row.tokens_per_s == 2 * entry.batch * entry.tokens
        assert row.flops_per_s == 2 * entry.flops
        assert row.bytes_per_s == 2 * entry.least_bytes
        assert row.flops_share is None
        assert row.floor_ms is None


def test_command_prints_a_table_and_json(bundle: Path, run_cli: RunCli) -> None:
    shown = run_cli("amdnfs", "bench", str(bundle), "--seconds", "0.01")
    assert shown.code == 0, shown.err
    assert "decode_4" in shown.out
    assert "tokens/s" in shown.out
    assert "measuring decode_1" in shown.err
    values = json.loads(run_cli("amdnfs", "bench", str(bundle), "--seconds", "0.01", "--json").out)
    assert values["target"] == "cpu"
    assert all(0 < row["p10_ms"] <= row["median_ms"] <= row["p90_ms"] for row in values["rows"])
    assert all(row["num_calls"] >= 5 for row in values["rows"])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--seconds", "0"], "seconds must be a finite number > 0"),
        (["--context", "0"], "context must be an integer >= 1"),
        (["--context", "99999999"], "context 99999999"),
        (["--product", "mi300x"], "mi300x runs programs for gfx942"),
        (["--product", "mi9"], "mi9"),
        (["--target", "gfx941"], "gfx941"),
    ],
)
def test_bad_options_are_named(bundle: Path, run_cli: RunCli, arguments: list[str], text: str) -> None:
    outcome = run_cli("amdnfs", "bench", str(bundle), *arguments)
    assert outcome.code == 2, outcome.err
    assert text in outcome.err


def test_a_stand_in_is_not_timed(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    manifest = bundle / "manifest.json"
    values = json.loads(manifest.read_text())
    values["targets"]["gfx942"] = {**values["targets"]["cpu"], "kind": "hip", "gfx": "gfx942"}
    folder = tmp_path / "hip.amdnfs"
    folder.mkdir()
    (folder / "manifest.json").write_text(json.dumps(values))
    monkeypatch.setenv(HIP_DYLIB_VARIABLE, "somewhere")
    with pytest.raises(UsageError, match=r"stand-in .*somewhere.* times say nothing of a GPU; unset"):
        run_bench(folder, "gfx942")
