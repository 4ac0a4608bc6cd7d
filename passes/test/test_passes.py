"""What holds for every pass: names, tests, examples, idempotence; and the text form of passes."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from amdnfs_passes import registry
from amdnfs_passes.attention.dispatch_paged_attention import DispatchPagedAttentionPass
from amdnfs_passes.base import ModulePass, PassError, Refusal
from amdnfs_passes.ir import MLIRError, Module, parse_module
from amdnfs_passes.kernels.kernel_pass import KernelPass
from amdnfs_passes.kvcache.dispatch_kv_write import DispatchKvWritePass
from amdnfs_passes.lower.dispatch_linear import DispatchLinearPass
from amdnfs_passes.lower.dispatch_top_logits import DispatchTopLogitsPass
from amdnfs_passes.lower.hoist_allocations import HoistAllocationsPass
from amdnfs_passes.pipeline_text import (
    PassOptionError,
    check_order,
    list_passes,
    parse_passes,
    run_opt,
    split_parts,
)
from amdnfs_passes.registry import PASSES, UnknownPassError, get_pass
from amdnfs_passes.testing import CheckFailed, check_example, check_run, read_example, read_run_lines
from amdnfs_targets.registry import TARGETS
from amdnfs_targets.target import TargetKind

from amdnfs_compile.pipeline import build_pipeline, takes_kernels

VERBS = {
    *("normalize", "fold", "fuse", "split", "convert", "lower", "decompose", "cancel"),
    *("hoist", "annotate", "dispatch", "verify"),
}
FOLDER = Path(__file__).parent
TEST_FILES = sorted(FOLDER.glob("*.mlir"))
each_pass = pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.pass_name())


@dataclass(frozen=True, kw_only=True)
class SplitNothingPass(ModulePass):
    """Has an option of every type, and does nothing."""

    requires: ClassVar[tuple[str, ...]] = ("fuse-rotary",)
    count: int
    is_deep: bool = False
    label: str = "none"
    tile_sizes: tuple[int, ...] = (8, 16)

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class ConvertToNonsensePass(ModulePass):
    """Leaves a module that does not verify."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        del module.body.operations[0].operation.attributes["function_type"]
        return 1


@dataclass(frozen=True, kw_only=True)
class ConvertFromNonsensePass(ModulePass):
    """Makes text that does not parse."""

    def run(self, module: Module, refusals: list[Refusal]) -> int:
        Module.parse("func.func @f(", module.context)
        return 1


@pytest.fixture
def with_option_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._TABLE, "split-nothing", SplitNothingPass)


@each_pass
def test_file_class_command_line_and_test_have_one_stem(cls: type[ModulePass]) -> None:
    stem = cls.__module__.rpartition(".")[2]
    assert cls.__name__ == "".join(word.capitalize() for word in stem.split("_")) + "Pass"
    assert cls.pass_name() == stem.replace("_", "-")
    assert stem.split("_")[0] in VERBS
    path = FOLDER / f"{stem}.mlir"
    assert path in TEST_FILES
    assert all(item.pass_name() == cls.pass_name() for run in read_run_lines(path) for item in run.passes)


def test_every_test_file_belongs_to_a_pass() -> None:
    assert {path.stem for path in TEST_FILES} == {cls.pass_name().replace("-", "_") for cls in PASSES}


def test_every_pass_of_the_packages_is_registered() -> None:
    package = Path(sys.modules[ModulePass.__module__].__file__ or "").parent
    defined = {
        match
        for path in package.glob("*/*.py")
        for match in re.findall(r"^class (\w+)\((?:ModulePass|KernelPass)\)", path.read_text(), re.M)
    }
    assert defined - {KernelPass.__name__} == {cls.__name__ for cls in PASSES}


@each_pass
def test_docstring_example_holds(cls: type[ModulePass]) -> None:
    check_example(cls)


@each_pass
def test_docstring_says_what_is_left_alone_and_where_it_is_from(cls: type[ModulePass]) -> None:
    doc = sys.modules[cls.__module__].__doc__ or ""
    assert "\nLeaves alone:" in doc
    assert "\nSource:" in doc


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_second_application_changes_nothing(path: Path) -> None:
    passes = read_run_lines(path)[0].passes
    num_rewrites = 0
    for part in split_parts(path.read_text(encoding="utf-8")):
        module = parse_module(part)
        for item in passes:
            try:
                num_rewrites += item.apply(module).rewrites
            except PassError:
                continue
            first = str(module)
            assert item.apply(module).rewrites == 0
            assert str(module) == first
    assert num_rewrites or all(item.pass_name().startswith("verify-") for item in passes)


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_no_rewrites_means_no_change(path: Path) -> None:
    for part in split_parts(path.read_text(encoding="utf-8")):
        for item in read_run_lines(path)[0].passes:
            module = parse_module(part)
            before = str(module)
            try:
                rewrites = item.apply(module).rewrites
            except PassError:
                rewrites = 0
            assert (rewrites == 0) == (str(module) == before)


def test_registry_refuses_two_passes_of_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PASSES", (*PASSES, PASSES[0]))
    with pytest.raises(ValueError, match=f"two passes are called {PASSES[0].pass_name()}"):
        registry._by_name()


def test_unknown_pass_names_the_closest() -> None:
    with pytest.raises(UnknownPassError, match="unknown pass 'lower-liner': the closest are lower-linear, "):
        get_pass("lower-liner")
    with pytest.raises(UnknownPassError, match="unknown pass 'fuse-rotery': the closest are fuse-rotary, "):
        parse_passes("lower-linear,fuse-rotery")


@pytest.mark.parametrize("cls", PASSES, ids=lambda cls: cls.pass_name())
def test_description_is_what_the_command_line_takes(cls: type[ModulePass]) -> None:
    assert parse_passes(cls().describe()) == (cls(),)


@pytest.mark.usefixtures("with_option_pass")
def test_options_are_the_fields_of_a_pass() -> None:
    text = "fuse-rotary, split-nothing{count=-3 is-deep=true label=a/b tile-sizes=1,2,3},lower-linear{}"
    assert parse_passes(text)[1] == SplitNothingPass(count=-3, is_deep=True, label="a/b", tile_sizes=(1, 2, 3))
    default = SplitNothingPass(count=1)
    assert parse_passes(f"fuse-rotary,{default.describe()}")[1] == default
    assert parse_passes("") == parse_passes("  ") == ()


@pytest.mark.usefixtures("with_option_pass")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lower-linear,", "no pass after the last ',' of 'lower-linear,'"),
        (",lower-linear", "cannot read ',lower-linear': write name{key=value}, with ',' between passes"),
        ("lower-linear fuse-rotary", "cannot read 'lower-linear fuse-rotary'"),
        ("verify-pool-in-place{first-pool-argument=1", "cannot read 'verify-pool-in-place{first-pool-argument=1'"),
        ("fuse-rotary{tile=4}", "pass fuse-rotary takes no options, not 'tile'"),
        ("verify-pool-in-place{first-pool=1}", "has no option 'first-pool': did you mean first-pool-argument?"),
        ("verify-pool-in-place{first-pool-argument}", "cannot read 'first-pool-argument': write key=value, with ' '"),
        ("verify-pool-in-place{first-pool-argument=four}", "first-pool-argument must be a whole number, not 'four'"),
        ("split-nothing{count=1 count=2}", "pass split-nothing: option count is given twice"),
        ("split-nothing{count=1 is-deep=2}", "option is-deep must be true or false, not '2'"),
        ("split-nothing{count=1 tile-sizes=8,x}", "tile-sizes must be whole numbers with ',' between, not '8,x'"),
        ("split-nothing{label=a}", "pass split-nothing needs the option count"),
        ("split-nothing{count=1}", "pass split-nothing must come after fuse-rotary, which is missing"),
        ("split-nothing{count=1},fuse-rotary", "must come after fuse-rotary, which stands later"),
    ],
)
def test_bad_text_is_explained(text: str, message: str) -> None:
    with pytest.raises(PassOptionError, match=re.escape(message)):
        parse_passes(text)


@pytest.mark.parametrize("name", TARGETS)
def test_pipeline_order_holds(name: str) -> None:
    passes = [item for phase in build_pipeline(TARGETS[name]) for item in phase.passes]
    check_order(passes)
    kernels = {DispatchKvWritePass, DispatchLinearPass, DispatchPagedAttentionPass, DispatchTopLogitsPass}
    missing = set() if takes_kernels(TARGETS[name]) else kernels
    if TARGETS[name].kind not in (TargetKind.HIP, TargetKind.CUDA):
        missing = {*missing, HoistAllocationsPass}
    assert {type(item) for item in passes} == set(PASSES) - missing
    assert parse_passes(",".join(item.describe() for item in passes)) == tuple(passes)


def test_list_shows_every_pass_and_its_options() -> None:
    text = list_passes()
    assert re.findall(r"^\S.*", text, re.M) == [cls.pass_name() for cls in PASSES]
    assert "lower-linear\n    Lower `aten.linear`" in text
    assert "\n    first-pool-argument=4 (int)" in text


def test_parts_are_run_apart_and_joined() -> None:
    part = "func.func @f() {\n  return\n}\n"
    result = run_opt(f"{part}// -----\n{part}", parse_passes("lower-linear,lower-argmax"))
    module = f"module {{\n  {part.replace(chr(10), chr(10) + '  ').rstrip()}\n}}\n"
    assert result.text == f"{module}// -----\n{module}"
    assert [item.pass_name for item in result.results] == ["lower-linear", "lower-argmax"] * 2


def test_parse_errors_name_the_line_of_the_whole_text() -> None:
    with pytest.raises(MLIRError, match='"-":3:1'):
        run_opt("\n// -----\nnonsense\n", ())


@pytest.mark.parametrize(
    "item", [ConvertToNonsensePass(), ConvertFromNonsensePass()], ids=lambda item: item.pass_name()
)
def test_broken_pass_is_named(item: ModulePass) -> None:
    with pytest.raises(PassError, match=f"pass {item.pass_name()}: "):
        run_opt("func.func @f() {\n  return\n}\n", (item,))


RUN = "// RUN: amdnfs-opt --passes='lower-linear' %s | filecheck %s\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no line with '// RUN: amdnfs-opt ...'"),
        ("// RUN: mlir-opt %s | filecheck %s\n", r":1: a RUN line is '\[not\] amdnfs-opt"),
        ("\n// RUN: amdnfs-opt %s | filecheck %s\n", ":2: amdnfs-opt takes one --passes=..."),
        ("// RUN: amdnfs-opt --passes='lower-linea' %s | filecheck %s\n", ":1: unknown pass 'lower-linea'"),
        (
            RUN + "// CHECK: call\nfunc.func @f() {\n  return\n}\n",
            '(?s)Couldn\'t match "call".*output of the passes:\nmodule',
        ),
        (RUN.replace("amdnfs", "not amdnfs").replace("|", "2>&1 |") + "// CHECK: x\n", "no pass refused the program"),
        (RUN + "func.func @f() {\n  return\n}\n", "No check strings found"),
    ],
)
def test_bad_test_files_fail(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lower_linear.mlir"
    path.write_text(text)
    with pytest.raises(CheckFailed, match=message):
        check_run(read_run_lines(path)[0])


BLOCKS = "Before::\n\n    {before}\n\nAfter{note}::\n\n    {after}\n"
MM = (
    "func.func @f(%x: !torch.vtensor<[2,2],f32>) -> !torch.vtensor<[2,2],f32> { return %x : !torch.vtensor<[2,2],f32> }"
)


@pytest.mark.parametrize(
    ("doc", "message"),
    [
        ("No example.", "needs a 'Before::' and an 'After::'"),
        ("Before::\n\nAfter::\n\n    module {}\n", "'Before::' must end with '::' and be followed by indented code"),
        (BLOCKS.format(before="func.func @f(", note="", after=MM), "the docstring's Before does not parse"),
        (BLOCKS.format(before=MM, note="", after=MM), "the pass leaves the docstring's Before as it is"),
        (BLOCKS.format(before=MM, note=" (the call; more)", after=MM), r"must show one 'func.call @name'"),
    ],
)
def test_bad_examples_fail(monkeypatch: pytest.MonkeyPatch, doc: str, message: str) -> None:
    cls = get_pass("lower-linear")
    monkeypatch.setattr(sys.modules[cls.__module__], "__doc__", doc)
    with pytest.raises(CheckFailed, match=message):
        check_example(cls)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("lower-argmax", "@amdnfs.argmax.2x8xf32", "@amdnfs.argmax.4x8xf32", "no call of @amdnfs.argmax.4x8xf32"),
        ("fuse-rotary", "constant.bool false", "constant.bool true", "but After is:"),
        (
            "lower-argmax",
            "After (the call; the called",
            "After (nothing changes; the",
            "says that nothing changes, but",
        ),
        ("cancel-pool-reshapes", "Before::", "After (nothing changes): none.\n\nBefore::", "needs a 'Before::' and"),
    ],
)
def test_wrong_examples_fail(monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str, message: str) -> None:
    cls = get_pass(name)
    doc = sys.modules[cls.__module__].__doc__ or ""
    assert old in doc
    monkeypatch.setattr(sys.modules[cls.__module__], "__doc__", doc.replace(old, new))
    with pytest.raises(CheckFailed, match=message):
        check_example(cls)


def test_examples_are_of_all_three_kinds() -> None:
    examples = [read_example(cls) for cls in PASSES]
    assert any(example.after for example in examples)
    assert any(example.callee_prefix for example in examples)
    assert any(not example.after and not example.callee_prefix for example in examples)
