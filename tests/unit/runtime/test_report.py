"""Reports on bundles that are made by hand: figures, warnings, ledger, floors, and disagreements that must be told."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from amdnfs_runtime.errors import ArtifactError, UsageError
from amdnfs_runtime.report.build import make_report
from amdnfs_runtime.report.model import EntryReport, Report
from amdnfs_targets.products import get_product

from tests.report_bundle import GROUPS, cost, group, make_bundle


def entry_of(report: Report) -> EntryReport:
    return report.targets[0].entries[0]


def warnings_of(report: Report) -> list[tuple[str, str]]:
    return [(item.kind, item.text) for item in report.targets[0].warnings]


def test_costs_are_those_of_the_context(tmp_path: Path) -> None:
    report = make_report(make_bundle(tmp_path / "b"), context_tokens=100)
    entry = entry_of(report)
    assert entry.context_tokens == 112  # whole pages of 16
    assert entry.flops == 2 * 65536 + 2 * 64 * 112
    assert entry.num_bytes == 2 * 8000 + 2 * (1000 + 512 * 7) + 100 + 500
    assert (entry.num_dispatches, entry.dispatches_per_layer) == (5, 2)
    # Layer 0 sees everything, layer 1 a window of 64 tokens for each of 16 new ones.
    assert entry.cache_bytes == 2 * 2 * 8 * 2 * (112 + (64 + 15))
    assert entry.least_bytes == 4000 + entry.cache_bytes
    assert entry.matrix_share == 1


def test_a_chunk_is_part_of_its_context(tmp_path: Path) -> None:
    assert entry_of(make_report(make_bundle(tmp_path / "b"), context_tokens=1)).context_tokens == 16


def test_the_share_of_matrix_units_is_one_of_flops(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", counts={"attend": {"matrix_instructions": 0}})
    entry = entry_of(make_report(bundle, context_tokens=16))
    assert entry.matrix_share == pytest.approx(65536 / (65536 + 64 * 16))


def test_registers_come_from_the_code_object_and_waves_from_them(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", kernels={"attend": {"vgprs": 130, "lds_bytes": 0}})
    kernel = make_report(bundle).targets[0].kernels["attend"]
    assert (kernel.vgprs, kernel.waves_per_simd, kernel.waves_limit) == (130, 3, "VGPRs")


def test_floors_are_the_longer_of_arithmetic_and_least_traffic(tmp_path: Path) -> None:
    product = get_product("mi300x")
    entry = entry_of(make_report(make_bundle(tmp_path / "b"), product=product, context_tokens=16))
    (floor,) = entry.floors
    assert (floor.product, floor.bound) == ("mi300x", "memory")
    assert floor.floor_ms == pytest.approx(entry.least_bytes / 5.3e12 * 1e3)
    assert floor.program_ms == pytest.approx(entry.num_bytes / 5.3e12 * 1e3)  # every dispatch waits for memory
    heavy = [group("linear", "mlp.up_proj", cost(1e12), cost(8000))]
    entry = entry_of(make_report(make_bundle(tmp_path / "c", groups=heavy), product=product, context_tokens=16))
    assert entry.floors[0].bound == "compute"
    assert entry.floors[0].floor_ms == pytest.approx(2e12 / product.peak_flops("f16") * 1e3)


def test_all_products_of_a_target_get_a_floor(tmp_path: Path) -> None:
    report = make_report(make_bundle(tmp_path / "b"))
    assert report.products == ("mi300x", "mi300a", "mi325x")
    assert report.to_json()["peaks"]["mi300x"]["memory_bytes_per_s"] == 5.3e12


@pytest.mark.parametrize(
    ("kernels", "counts", "changes", "kind", "text"),
    [
        (
            {"vgpr_spills": 9, "scratch_bytes": 40},
            {},
            {},
            "spills",
            "9 vector and 0 scalar registers spilled, 40 bytes",
        ),
        ({"scratch_bytes": 40}, {}, {}, "scratch", "40 bytes of scratch memory a lane"),
        ({"vgprs": 300, "workgroup_threads": 1024}, {}, {}, "no-fit", r"does not fit on a compute unit \(VGPRs\)"),
        ({}, {"matrix_instructions": 0}, {}, "no-matrix", "although 16 rows share a factor; 9.% of FLOPs"),
        (
            {},
            {"loads": {"global": {"2": 3, "16": 1}}},
            {},
            "narrow-loads",
            "75% of its loads take 4 bytes a lane or le",
        ),
        ({}, {"f64": 3}, {}, "f64", "3 instructions in double precision"),
        ({}, {}, {"habits": ["cache-gather"]}, "cache-gather", "gathers keys or values into a tensor of their own"),
        ({}, {}, {"habits": ["mask"]}, "mask", "writes a mask to memory"),
        ({}, {}, {"habits": ["upcast f16 to f32"]}, "upcast", "a dispatch of its own for an upcast f16 to f32"),
        ({}, {}, {"unknown": ["linalg.conv: sizes"]}, "unknown", "not counted: linalg.conv: sizes"),
        ({}, {}, {"flops": cost(0), "contractions": []}, "traffic", r"\(matmul\) move 82% of all bytes"),
    ],
)
def test_warnings(
    tmp_path: Path, kernels: dict[str, int], counts: dict[str, Any], changes: dict[str, Any], kind: str, text: str
) -> None:
    groups = [{**GROUPS[0], **changes}, *GROUPS[1:]]
    bundle = make_bundle(tmp_path / "b", groups=groups, kernels={"linear": kernels}, counts={"linear": counts})
    found = make_report(bundle, context_tokens=16).targets[0].warnings
    assert [item.kind for item in found] == [kind]
    assert found[0].where == "prefill_16: mlp.up_proj"
    assert re.search(text, found[0].text)


def test_a_good_program_has_no_warnings(tmp_path: Path) -> None:
    assert warnings_of(make_report(make_bundle(tmp_path / "b"))) == []


def test_the_ledger_says_who_took_what_and_what_was_refused(tmp_path: Path) -> None:
    refusal = {"pass": "dispatch-linear", "operation": "%5 = torch.operator", "reason": "f32 has no kernel"}
    groups = [
        group("linear", "mlp.up_proj", cost(64), cost(8)),
        group("gather", "attention", cost(0), cost(8), kind="gather"),
        group("scores", "attention", cost(64), cost(8)),
    ]
    bundle = make_bundle(
        tmp_path / "b",
        groups=groups,
        counts={"linear": {"made_by": "triton", "tiling": "ROWS=16"}},
        refusals=[refusal, refusal],
    )
    ledger = make_report(bundle).targets[0].ledger
    assert [(row.op, row.taken_by, row.uses_matrix_units) for row in ledger.rows] == [
        ("mlp.up_proj", "dispatch-linear: kernel linear (ROWS=16)", True),
        ("attention", "lower-paged-attention: 2 dispatches (1 gather, 1 matmul), kernel by IREE", True),
    ]
    (miss,) = ledger.near_misses
    assert (miss.pass_name, miss.reason, miss.count) == ("dispatch-linear", "f32 has no kernel", 2)


def test_a_cpu_program_says_which_figures_it_does_not_have(tmp_path: Path) -> None:
    report = make_report(make_bundle(tmp_path / "b", target="cpu", kind="cpu"), context_tokens=16)
    (target,) = report.targets
    assert (entry_of(report).matrix_share, entry_of(report).floors) == (None, ())
    assert entry_of(report).flops == 2 * 65536 + 2 * 64 * 16
    assert "registers, LDS, scratch memory, spills, waves and load widths exist for hip" in target.missing[0]
    assert target.missing[1] == "cpu: the share of FLOPs on matrix units is not known"
    assert target.missing[2] == "cpu: no floors, because the peaks of its processors are not listed"


def test_a_vulkan_program_takes_the_product_that_is_named(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", target="vulkan", kind="vulkan")
    assert "name one with --product" in make_report(bundle).targets[0].missing[2]
    named = make_report(bundle, product=get_product("strix-halo"))
    assert [floor.product for floor in entry_of(named).floors] == ["radeon-8060s"]


def test_a_kernel_that_differs_from_its_facts_is_told(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b", counts={"attend": {"vgprs": 41}})
    with pytest.raises(ArtifactError, match=r"kernel attend has vgprs = 40 in the code object, but 41 in facts\.json"):
        make_report(bundle)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"code_objects": []}, r"its 1 code object\(s\) are not the 0 that facts\.json describes"),
        ({"kernels": {"x": {"symbol": "x", "object": "0"}}}, "the facts describe kernel x, but no code object"),
        ({"kernels": None, "dispatches": None}, r"has no dispatches and no kernels; the target was compiled before"),
        ({"dispatches": {}}, "says nothing of the entry point prefill_16"),
        ({"dispatches": {"prefill_16": {}}}, "dispatches, prefill_16, copies is missing; the file was altered"),
        (
            {"dispatches": {"prefill_16": {"groups": [], "copies": [], "weight_bytes": {"constant": 1, "per_cat": 1}}}},
            'weight_bytes has the unknown part "per_cat"; the file was',
        ),
    ],
)
def test_facts_of_another_program_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        make_report(make_bundle(tmp_path / "b", changes=changes))


def test_a_code_object_for_another_processor_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    text = (bundle / "manifest.json").read_text().replace('"gfx": "gfx942"', '"gfx": "gfx950"')
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match="holds a code object for gfx942, not for gfx950"):
        make_report(bundle)


def test_an_altered_program_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    path = bundle / "artifacts" / "gfx942" / "program.vmfb"
    path.write_bytes(path.read_bytes().replace(b"and after", b"and AFTER"))
    with pytest.raises(ArtifactError, match=r"program\.vmfb was altered"):
        make_report(bundle)


def test_questions_without_an_answer(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "b")
    with pytest.raises(UsageError, match="has no program for gfx950; it has gfx942"):
        make_report(bundle, target="gfx950")
    with pytest.raises(UsageError, match="mi355x runs programs for gfx950, but the report is on gfx942"):
        make_report(bundle, product=get_product("mi355x"))
    with pytest.raises(UsageError, match="--context 5000: hand-made takes 1 to 4096"):
        make_report(bundle, context_tokens=5000)


def test_the_json_form_has_everything(tmp_path: Path) -> None:
    values = json.loads(json.dumps(make_report(make_bundle(tmp_path / "b")).to_json()))
    assert values["report_version"] == 1
    (target,) = values["targets"]
    assert set(target) == {"name", "kind", "entries", "kernels", "ledger", "warnings", "missing"}
    assert target["kernels"]["linear"]["loads"]["global"] == {"16": 3, "2": 1}
    assert target["entries"][0]["groups"][0]["sizes"] == ["f16 m 16, n 64, k 32"]
