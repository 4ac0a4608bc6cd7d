"""What is made of reports: budgets, comparisons, the page, the tables."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.errors import ArtifactError, BudgetError, UsageError
from amdnfs_runtime.report.budget import budget_text, check_budget, read_budget
from amdnfs_runtime.report.build import make_report
from amdnfs_runtime.report.compare import compare_reports
from amdnfs_runtime.report.html import report_page
from amdnfs_runtime.report.text import comparison_text, report_text
from rich.console import Console, RenderableType

from tests.report_bundle import GROUPS, cost, group, make_bundle


def limits(tmp_path: Path, **changes: Any) -> Path:
    """A budget with one limit, or with other keys."""
    values = {
        "format": "amdnfs-budget",
        "version": 1,
        "context_tokens": 64,
        "targets": {"gfx942": {"prefill_16": {"dispatches": 5}}},
        **changes,
    }
    path = tmp_path / "budget.json"
    path.write_text(json.dumps(values))
    return path


def test_a_bundle_is_within_its_own_budget(tmp_path: Path) -> None:
    report = make_report(make_bundle(tmp_path / "b"), context_tokens=64)
    path = tmp_path / "budget.json"
    path.write_text(budget_text(report))
    budget = read_budget(path)
    assert budget.context_tokens == 64
    assert budget.targets["gfx942"]["prefill_16"] == {
        "dispatches": 5,
        "dispatches_per_layer": 2,
        "flops": 2 * 65536 + 2 * 64 * 64,
        "bytes": 2 * 8000 + 2 * (1000 + 512 * 4) + 100 + 500,
        "matrix_share": 1,
        "spilled_registers": 0,
        "scratch_bytes": 0,
        "cache_gathers": 0,
        "masks": 0,
        "upcasts": 0,
        "not_counted": 0,
    }
    assert check_budget(report, budget) == 11


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"groups": [*GROUPS, GROUPS[2]]}, "gfx942, prefill_16: dispatches is 6, was 5"),
        ({"kernels": {"linear": {"vgpr_spills": 2}}}, "gfx942, prefill_16: spilled_registers is 2, was 0"),
        ({"counts": {"attend": {"matrix_instructions": 0}}}, r"gfx942, prefill_16: matrix_share is 0\.94\d*, was 1"),
    ],
)
def test_what_got_worse_is_named(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    good = make_report(make_bundle(tmp_path / "good"), context_tokens=64)
    path = tmp_path / "budget.json"
    path.write_text(budget_text(good))
    worse = make_report(make_bundle(tmp_path / "worse", **changes), context_tokens=64)
    with pytest.raises(BudgetError, match=rf"(?s)worse: \d figure\(s\) worse than .*{text}.*--write-budget") as caught:
        check_budget(worse, read_budget(path))
    assert caught.value.exit_code == 7


def test_what_got_better_is_no_fault(tmp_path: Path) -> None:
    budget = read_budget(limits(tmp_path, targets={"gfx942": {"prefill_16": {"dispatches": 9, "matrix_share": 0.5}}}))
    assert check_budget(make_report(make_bundle(tmp_path / "b"), context_tokens=64), budget) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "budget of version 2, but this amdnfs reads version 1; write it anew with"),
        ({"version": None}, "budget of version None"),
        ({"format": "other"}, "not a budget"),
        ({"context_tokens": "many"}, 'damaged budget: context_tokens is "many"; allowed are whole numbers from 1'),
        ({"context_tokens": 512.9}, r"context_tokens is 512\.9; allowed are whole"),
        ({"context_tokens": True}, "context_tokens is true; allowed are whole"),
        ({"context_tokens": 0}, "context_tokens is 0; allowed are whole"),
        ({"context_tokens": math.inf}, "context_tokens is Infinity; allowed are whole"),
        ({"context_tokens": None}, "context_tokens is missing; allowed are whole"),
        ({"targets": {"gfx942": {"prefill_16": {"speed": 1}}}}, "unknown figure 'speed'; known are dispatches, "),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": "1"}}}}, 'bytes is "1", not a number'),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": math.nan}}}}, "bytes is NaN, not a number that is finite"),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": math.inf}}}}, "bytes is Infinity, not a number that is fin"),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": 10**400}}}}, r"bytes is 10{39}\.\.\., not a number"),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": -1}}}}, "bytes is -1, not a number that is finite and not n"),
        ({"targets": {"gfx942": {"prefill_16": {"bytes": True}}}}, "bytes is true, not a number"),
        ({"targets": {"gfx942": 3}}, "damaged budget: targets, gfx942 is 3; allowed is an object of entry points"),
        ({"targets": {"gfx942": {}}}, "targets, gfx942 is {}; allowed is an object of entry points .*, at least one"),
        ({"targets": {"gfx942": {"prefill_16": {}}}}, "targets, gfx942, prefill_16 is {}; allowed is an object of fig"),
        ({"targets": []}, r"targets is \[\]; allowed is an object of targets with their entry points, at least one"),
        ({"targets": {}}, "targets is {}; allowed is an object of targets"),
        ({"targets": None}, "targets is missing; allowed is an object of targets"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=rf"budget\.json: .*{message}"):
        read_budget(limits(tmp_path, **changes))


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = limits(tmp_path)
    path.write_text(path.read_text().rstrip("}") + '}}}, "targets": {}}')
    with pytest.raises(UsageError, match=r"budget\.json: damaged budget: the key 'targets' is there twice in one obj"):
        read_budget(path)


def test_a_budget_that_is_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"deep\.json: cannot be read as JSON \(lists or objects within each other"):
        read_budget(tmp_path / "deep.json")


def test_a_budget_that_is_no_json_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no budget at .*; write one with"):
        read_budget(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read as JSON"):
        read_budget(tmp_path / "text.json")


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"gfx950": {"prefill_16": {"dispatches": 1}}}, "has limits for gfx950, but the report is on gfx942"),
        ({"gfx942": {"decode_1": {"dispatches": 1}}}, "has limits for decode_1 of gfx942, which has prefill_16"),
    ],
)
def test_a_budget_for_something_else_is_told(tmp_path: Path, targets: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        check_budget(make_report(make_bundle(tmp_path / "b")), read_budget(limits(tmp_path, targets=targets)))


def test_a_limit_on_a_figure_that_does_not_exist_is_told(tmp_path: Path) -> None:
    budget = read_budget(limits(tmp_path, targets={"cpu": {"prefill_16": {"spilled_registers": 0}}}))
    report = make_report(make_bundle(tmp_path / "b", target="cpu", kind="cpu"))
    with pytest.raises(ArtifactError, match="limits spilled_registers of cpu, prefill_16, but the figure does not exi"):
        check_budget(report, budget)


def test_two_bundles_are_compared_figure_by_figure(tmp_path: Path) -> None:
    before = make_report(make_bundle(tmp_path / "old", kernels={"linear": {"vgpr_spills": 2}}))
    groups = [*GROUPS[:2], group("norm", "model.norm", cost(0), cost(900), kind="reduction", count=1)]
    after = make_report(make_bundle(tmp_path / "new", groups=groups))
    found = compare_reports(before, after)
    verdicts = {item.figure: item.verdict for item in found.changes}
    assert verdicts["spilled_registers"] == "better"
    assert verdicts["bytes"] == "worse"
    assert verdicts["flops"] == "same"
    (first, second) = found.operations
    assert (first.op, first.before["vgpr_spills"], first.after["vgpr_spills"]) == ("mlp.up_proj", 2, 0)
    assert (second.op, second.before["bytes"], second.after["bytes"]) == ("model.norm", 100, 900)
    text = printed(comparison_text(found))
    assert re.search(r"prefill_16 +bytes +\d+ +\d+ +worse", text)
    assert "gfx942 prefill_16 mlp.up_proj: vgpr_spills 2 -> 0" in text
    assert "flops" not in text


def test_equal_bundles_have_nothing_to_tell(tmp_path: Path) -> None:
    reports = [make_report(make_bundle(tmp_path / name)) for name in ("a", "b")]
    assert "all 11 figures are the same" in printed(comparison_text(compare_reports(*reports)))


def test_different_models_are_told(tmp_path: Path) -> None:
    before, after = (make_report(make_bundle(tmp_path / name)) for name in ("a", "b"))
    assert compare_reports(before, after).differences == ()
    other = dataclasses.replace(after, model="another", dtype="bf16", quantization="int4-g128")
    found = compare_reports(before, other)
    assert found.differences == ("model hand-made -> another", "dtype f16 -> bf16", "quantization none -> int4-g128")
    assert "not the same: dtype f16 -> bf16\n" in printed(comparison_text(found))


def test_shares_of_warnings_with_one_text_are_summed(tmp_path: Path) -> None:
    """Two matmuls of 40% each without matrix instructions are one warning of 80%."""
    groups = [group(name, "attention", cost(flops), cost(8)) for name, flops in (("a", 4e5), ("b", 4e5), ("c", 2e5))]
    counts = {name: {"matrix_instructions": 0, "matrix": {}} for name in ("a", "b")}
    (target,) = make_report(make_bundle(tmp_path / "b", groups=groups, counts=counts)).targets
    texts = [warning.text for warning in target.warnings if warning.kind == "no-matrix"]
    assert texts == ["no matrix instructions, although 16 rows share a factor; 80% of FLOPs"]


def test_bundles_without_anything_in_common_are_refused(tmp_path: Path) -> None:
    first = make_report(make_bundle(tmp_path / "a"))
    second = make_report(make_bundle(tmp_path / "b", target="cpu", kind="cpu"))
    with pytest.raises(UsageError, match="no entry point of a target in common: the first is for gfx942, the second"):
        compare_reports(first, second)


def test_an_operation_that_one_bundle_lacks_is_told(tmp_path: Path) -> None:
    before = make_report(make_bundle(tmp_path / "old"))
    after = make_report(make_bundle(tmp_path / "new", groups=GROUPS[:2]))
    text = printed(comparison_text(compare_reports(before, after)))
    assert "gfx942 prefill_16 model.norm: only in old, 1 dispatch(es)" in text


def printed(item: RenderableType, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(item)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    return stream.getvalue()


def test_the_tables_show_what_was_found(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", kernels={"linear": {"vgpr_spills": 9}})
    text = printed(report_text(make_report(bundle, context_tokens=64), with_dispatches=True))
    assert re.search(r"prefill_16 +5 +2 +139 k +100% ", text)
    assert re.search(r"mlp\.up_proj \(matmul\) +0-1 +2 +131 k +16\.0 kB +8 +40 +0 +22 +4096 +0 +9 +8 +16x3 2x1", text)
    assert "spills: prefill_16: mlp.up_proj: 9 vector and 0 scalar registers spilled" in text
    assert "no measured times and no estimates" in text


@pytest.mark.parametrize("width", [40, 60, 80])
def test_narrow_tables_lose_no_digits(tmp_path: Path, width: int) -> None:
    report = make_report(make_bundle(tmp_path / "b", kernels={"linear": {"vgpr_spills": 9}}), context_tokens=64)
    wide, narrow = (printed(report_text(report, with_dispatches=True), columns) for columns in (1000, width))
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= width
    assert "\u2026" not in narrow
    assert narrow.count("entry point") > 1  # broken
    numbers = re.compile(r"(?<![\w.])\d[\d.]* (?:[kMGT]?B|[kMGT]|ms|us)(?!\w)|\d[\d.]*%|\d+x\d+")
    assert Counter(numbers.findall(narrow)) == Counter(numbers.findall(wide))


class _Page(HTMLParser):
    """Collects what a browser would load, run or follow, and checks that tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "line", "wbr", "link", "img"):
            self.open.append(tag)
        if tag in ("script", "link", "img", "iframe", "object", "embed", "form"):
            self.loads.append(tag)
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_stands_alone(tmp_path: Path) -> None:
    text = report_page(make_report(make_bundle(tmp_path / "b")))
    page = _Page()
    page.feed(text)
    assert page.loads == []
    assert page.open == []
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_the_page_has_plot_bars_ledger_and_warnings(tmp_path: Path) -> None:
    bundle = make_bundle(
        tmp_path / "b",
        kernels={"linear": {"vgpr_spills": 9}},
        counts={"attend": {"matrix_instructions": 0}},
        refusals=[{"pass": "dispatch-linear", "operation": "%5", "reason": "f32 has no kernel"}],
    )
    text = report_page(make_report(bundle, context_tokens=64))
    assert 'aria-label="Roofline of AMD Instinct MI300X"' in text
    assert len(re.findall(r'<rect class="mark', text)) == 1  # the matmul
    assert len(re.findall(r'<circle class="mark c0 hollow"', text)) == 1  # attention, on vector units
    assert '<i class="matrix" style="width:100.0%"></i>' in text
    assert re.search(r'<i class="vector" style="width:\d', text)
    assert '<span class="tag">spills</span>prefill_16: mlp.up_proj: 9 vector' in text
    assert "f32 has no kernel" in text
    assert "They are no\nmeasured times and no estimates." in text


def test_names_cannot_break_the_page(tmp_path: Path) -> None:
    groups = [group("linear", "<script>alert(1)</script>", cost(65536), cost(8000))]
    text = report_page(make_report(make_bundle(tmp_path / "b", groups=groups)))
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_a_page_of_a_cpu_program_has_neither_plot_nor_registers(tmp_path: Path) -> None:
    text = report_page(make_report(make_bundle(tmp_path / "b", target="cpu", kind="cpu")))
    assert "<svg" not in text
    assert "<th>VGPR</th>" not in text
    assert "exist for hip programs only" in text


def test_the_page_is_the_same_every_time(tmp_path: Path) -> None:
    pages = {report_page(make_report(make_bundle(tmp_path / str(i) / "b"))) for i in range(2)}
    assert len(pages) == 1


# Why no kernel of our own, and what could not be counted


def why_not_ours(folder: Path, **options: Any) -> set[str]:
    report = make_report(
        make_bundle(folder, groups=[group("linear", "mlp.up_proj", cost(65536), cost(8000))], **options)
    )
    (row,) = report.targets[0].ledger.rows
    assert row.why_not_ours in report_page(report).replace("<wbr>", "")
    assert f"no kernel of our own: {row.op} (0-1): " in on_the_terminal(report) or not row.why_not_ours
    return {row.taken_by, row.why_not_ours}


def on_the_terminal(report: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=400).print(report_text(report, with_dispatches=True))
    return out.getvalue()


def test_each_layer_without_a_kernel_of_ours_has_its_reason(tmp_path: Path) -> None:
    passes = {"passes": [{"name": "dispatch-linear", "rewrites": 1}, {"name": "lower-linear", "rewrites": 1}]}
    lowered = "lower-linear: kernel by IREE"
    misses = [{"pass": "dispatch-linear", "operation": "x", "reason": "no tiling fits"}] * 2
    assert why_not_ours(tmp_path / "a", changes=passes, refusals=misses) == {
        lowered,
        "dispatch-linear refused: no tiling fits",
    }
    others = [{"pass": "lower-linear", "operation": "x", "reason": "a bias of rows"}]
    assert "lower-linear refused: a bias of rows" in why_not_ours(tmp_path / "b", changes=passes, refusals=others)
    unknown = "it has no form or type that dispatch-linear takes, and nothing was refused"
    assert unknown in why_not_ours(tmp_path / "c", changes=passes)
    assert "dispatch-linear does not run for this target: our kernels are for GPUs with matrix units" in why_not_ours(
        tmp_path / "d", changes={"passes": []}
    )
    ours = why_not_ours(tmp_path / "e", changes=passes, counts={"linear": {"made_by": "triton"}})
    assert ours == {"dispatch-linear: kernel linear", ""}


def test_quantised_layers_in_loops_are_in_the_ledger(tmp_path: Path) -> None:
    item = group("linear", "mlp.up_proj", cost(65536), cost(8000), quantized=True)
    item["contractions"][0]["operation"] = "loops in vectors"
    changes = {"passes": [{"name": name, "rewrites": 1} for name in ("lower-linear", "lower-quantized-linear")]}
    bundle = make_bundle(tmp_path / "b", groups=[item], changes=changes, target="cpu", kind="cpu")
    (row,) = make_report(bundle).targets[0].ledger.rows
    assert row.taken_by == "lower-quantized-linear: loops in vectors, kernel by IREE"


def test_what_was_not_counted_is_no_number(tmp_path: Path) -> None:
    bundle = make_bundle(
        tmp_path / "b",
        groups=[
            group("linear", "mlp.up_proj", cost(65536), cost(8000)),
            group("norm", "mlp.norm", cost(0), cost(100), unknown=["scf.for: the arithmetic in it"]),
        ],
    )
    report = make_report(bundle)
    assert not report.targets[0].entries[0].is_counted
    lines = [" ".join(line.split()) for line in on_the_terminal(report).splitlines()]
    assert any(line.startswith("prefill_16 4 2 > 131 k 100% > 16.7 kB") for line in lines)
    assert any("mlp.norm (matmul) 0-1 2 unknown > 200 B" in line for line in lines)
    assert "&gt; 131 k" in report_page(report)


def test_waves_that_are_no_whole_number_are_explained(tmp_path: Path) -> None:
    note = "Waves that are no whole number are an average"
    odd = make_report(make_bundle(tmp_path / "odd", kernels={"linear": {"lds_bytes": 20000, "workgroup_threads": 192}}))
    assert odd.targets[0].kernels["linear"].waves_per_simd == 2.25  # three workgroups of three waves on four SIMDs
    even = make_report(make_bundle(tmp_path / "even"))
    for report, is_told in ((odd, True), (even, False)):
        assert (note in on_the_terminal(report)) is is_told
        assert (note in report_page(report)) is is_told


def test_the_widest_table_breaks_its_last_column(tmp_path: Path) -> None:
    """Beside 14 other columns, that with the loads is what a window of 1300 pixels had no room for."""
    page = report_page(make_report(make_bundle(tmp_path / "b")))
    assert '<td class="l loads">16x3 2x1</td>' in page
    assert re.search(r"td\.loads, th\.loads \{ white-space: normal;", page)
    assert page.count('<div class="scroll"><table') == page.count("<table")
