"""Reports with counts of an execution: lines of the emulator, whose dispatch is whose, budgets, tables and the page."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.errors import ArtifactError, BudgetError, UsageError
from amdnfs_runtime.execution import Emulation
from amdnfs_runtime.report import execute
from amdnfs_runtime.report.budget import budget_text, check_budget, read_budget
from amdnfs_runtime.report.build import make_report
from amdnfs_runtime.report.compare import compare_reports
from amdnfs_runtime.report.counters import add_up, read_lines
from amdnfs_runtime.report.html import report_page
from amdnfs_runtime.report.model import Report
from amdnfs_runtime.report.text import report_text
from rich.console import Console

from tests.executed_lines import ScriptedSteps, line
from tests.report_bundle import GROUPS, cost, group, make_bundle

EMULATION = Emulation(library=Path("somewhere"))
Execute = Callable[..., Report]


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Execute:
    """Makes a bundle, and a report on it with counts of a scripted execution."""
    folders = iter(range(9))

    def make(
        kernels: tuple[str, ...] | None = None, changes: dict[str, dict[str, Any]] | None = None, **options: Any
    ) -> Report:
        scripted = type("Scripted", (ScriptedSteps,), {"changes": changes or {}})
        if kernels is not None:
            scripted.kernels = kernels
        monkeypatch.setattr(execute, "EmulatedSteps", scripted)
        bundle = make_bundle(tmp_path / f"b{next(folders)}", **options)
        return execute.execute_report(make_report(bundle, context_tokens=64), bundle, EMULATION)

    return make


def test_a_line_is_read_and_lines_are_summed() -> None:
    lines = [line("a", "00", loaded_bytes={"4": 100}), line("b", "00", loaded_bytes={"16": 32}, vector_slots=0)]
    first, second = read_lines("\n".join(lines) + "\n")
    assert (first.symbol, second.symbol, first.code_object) == ("a", "b", "00")
    counts = first.counts
    assert counts.num_instructions == 110
    assert counts.asked_bytes == 100 + 512 + 40
    assert counts.moved_bytes == 128 * 100
    assert counts.active_lanes == 0.5
    assert second.counts.active_lanes is None
    both = add_up([counts, second.counts])
    assert (both.num_dispatches, both.num_waves, both.num_instructions) == (2, 4, 220)
    assert both.loaded_bytes == {"4": 100, "16": 32}
    assert add_up([]).num_instructions == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the emulator's counters cannot be read: JSONDecodeError"),
        ('{"kernel": "a"}', r"the emulator's counters cannot be read: KeyError\('fault'\)"),
        ("[]", "the emulator's counters cannot be read: TypeError"),
        (
            line("a", "00", fault={"kind": "memory-range", "message": "memory-range in a: global_load_dwordx4 ..."}),
            "the emulator stopped a: memory-range in a: global_load_dwordx4",
        ),
    ],
)
def test_lines_that_say_nothing_good_are_told(text: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_lines(text)


def test_counts_stand_beside_the_groups(executed: Execute) -> None:
    entry = executed(changes={"attend": {"matrix_flops": 5}}).targets[0].entries[0]
    assert entry.executed is not None
    assert entry.executed.num_dispatches == 5, "what ran while the program was loaded is left out"
    found = {item.op: item.executed for item in entry.groups}
    assert {op: item and item.num_dispatches for op, item in found.items()} == {
        "mlp.up_proj": 2,
        "attention": 2,
        "model.norm": 1,
    }
    assert found["attention"] is not None
    assert found["attention"].matrix_flops == 2 * 5


def test_groups_that_share_a_kernel_get_their_own_dispatches(
    executed: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer 0 runs gate, then down; layer 1 again: by turns, though both are the same kernel."""
    groups = [
        group("linear", "gate", cost(64), cost(64)),
        group("linear", "down", cost(64), cost(64)),
        group("linear", "head", cost(64), cost(64), part="tail", layers=[], count=1),
    ]
    counts = iter(range(10, 90, 10))
    plain = execute.read_lines
    monkeypatch.setattr(
        execute,
        "read_lines",
        lambda text: [
            dataclasses.replace(item, counts=dataclasses.replace(item.counts, matrix_flops=next(counts)))
            for item in plain(text)
        ],
    )
    entry = executed(("linear",) * 5, groups=groups).targets[0].entries[0]
    assert [item.executed and item.executed.matrix_flops for item in entry.groups] == [10 + 30, 20 + 40, 50]


@pytest.mark.parametrize(
    ("kernels", "message"),
    [
        (("linear", "attend", "linear", "attend"), r"prefill_16 ran norm 0 time\(s\), but facts.json has 1 dispatch"),
        (("linear",) * 3 + ("attend",) * 2 + ("norm",), r"prefill_16 ran linear 3 time\(s\), but facts.json has 2"),
        (("other",), "the emulator ran other of the code object [0-9a-f]{16}, which facts.json does not describe"),
    ],
)
def test_an_execution_that_disagrees_with_the_facts_is_told(
    executed: Execute, kernels: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ArtifactError, match=message):
        executed(kernels)


def test_only_hip_programs_are_executed(executed: Execute) -> None:
    with pytest.raises(UsageError, match="--execute runs hip programs, and the report is on cpu; choose another"):
        executed(target="cpu", kind="cpu")


def test_a_library_that_does_not_count_is_told(executed: Execute, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScriptedSteps, "_write", lambda *_: None)
    with pytest.raises(ArtifactError, match="somewhere: this HIP library counts nothing; unset AMDNFS_HIP_DYLIB"):
        executed()


def test_budgets_hold_what_was_counted(executed: Execute, tmp_path: Path) -> None:
    path, report = tmp_path / "budget.json", executed()
    path.write_text(budget_text(report))
    limits = json.loads(path.read_text())["targets"]["gfx942"]["prefill_16"]
    entry = report.targets[0].entries[0]
    assert limits["bytes_moved_over_least"] == pytest.approx(5 * 100 * 128 / entry.least_bytes)
    assert limits["wave_instructions"] == 550
    assert limits["lds_bank_conflicts"] == 30
    assert check_budget(report, read_budget(path)) == len(limits)
    more_lines = executed(changes={"attend": {"loaded_lines": 91}})
    with pytest.raises(BudgetError, match=r"prefill_16: bytes_moved_over_least is [0-9.]+, was [0-9.]+\n"):
        check_budget(more_lines, read_budget(path))
    fewer = executed(changes={"attend": {"loaded_lines": 1, "lds_bank_conflicts": 0}})
    check_budget(fewer, read_budget(path))
    plain = make_report(make_bundle(tmp_path / "plain"), context_tokens=64)
    with pytest.raises(ArtifactError, match=r"prefill_16, but the program was not executed; add --execute$"):
        check_budget(plain, read_budget(path))


def test_two_executions_are_compared(executed: Execute) -> None:
    changes = compare_reports(executed(), executed(changes={"norm": {"lds_bank_conflicts": 0}})).changes
    assert {item.figure: item.verdict for item in changes if item.verdict != "same"} == {"lds_bank_conflicts": "better"}


def test_the_tables_show_what_was_counted(executed: Execute) -> None:
    console = Console(width=240, file=io.StringIO())
    with console.capture() as capture:
        console.print(report_text(executed(), with_dispatches=True))
    text = re.sub(" +", " ", capture.get())
    assert "Executed on the emulator, one call an entry point: what ran was counted, not timed." in text
    assert "\nprefill_16 1 16 64 550 655 k 4.71 45.0 kB 64.0 kB 5.25 15.4 kB 30 0 B 50%" in text
    assert "\nwave instructions valu matrix salu vector-memory lds wait" in text
    assert "\nattention 0-1 2 220 262 k 32.00 18.0 kB 25.6 kB 4.20 6.14 kB 12 0 B 50%" in text


def test_the_json_form_has_the_counts_and_the_shares(executed: Execute) -> None:
    values = json.loads(json.dumps(executed().to_json()))
    entry = values["targets"][0]["entries"][0]
    assert entry["executed"]["instructions"]["valu"] == 300
    assert (entry["executed"]["moved_bytes"], entry["executed"]["active_lanes"]) == (64000, 0.5)
    assert entry["groups"][0]["executed"]["num_instructions"] == 220


def test_the_page_shows_the_execution_and_no_other_page_does(executed: Execute, tmp_path: Path) -> None:
    page = report_page(executed(changes={"norm": {"scratch_loaded_bytes": 8}}))
    assert "Executed on the emulator" in page
    assert "nothing was run" not in page
    assert page.count('<div class="mix"') == 1 + len(GROUPS)
    assert 'title="vector 300, matrix 40, memory 50, LDS 20, scalar 100, waits 40"' in page
    assert page.count('<td class="bad">8 B</td>') == 2, "scratch traffic of the dispatch and of the entry point"
    plain = report_page(make_report(make_bundle(tmp_path / "plain"), context_tokens=64))
    assert "Executed on the emulator" not in plain
    assert "nothing was run" in plain
