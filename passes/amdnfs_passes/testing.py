"""How passes are tested: FileCheck tests in `<pass_name>.mlir` files, and the examples in the docstrings of passes.

A test file says in `RUN` lines, in lit's form, which passes run on it and that their output goes to `filecheck`:

    // RUN: amdnfs-opt --passes='lower-linear' %s | filecheck %s
    // RUN: amdnfs-opt --passes='lower-linear' --why %s | filecheck %s             near misses as comments
    // RUN: not amdnfs-opt --passes='verify-pool-in-place' %s 2>&1 | filecheck %s   the passes must refuse

The command is not started: passes run in this process, and the matcher of the `filecheck` package reads their output.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options
from filecheck.parser import Parser, pattern_for_opts

from amdnfs_passes.base import ModulePass, PassError
from amdnfs_passes.ir import MLIRError, Module, Operation, PassManager, has_uses, parse_module, walk
from amdnfs_passes.pipeline_text import parse_passes, run_opt

_RUN = re.compile(r"^\s*//\s*RUN:\s*(?P<command>.*?)\s*$")
_HEADING = re.compile(r"^(?P<word>Before|After)(?: \((?P<note>[^)]*)\))?(?P<colons>:{1,2})", re.MULTILINE)
_BLOCK = re.compile(r"\n\n(?P<body>(?:(?: {4}.*)?\n)+)")
_HEX = re.compile(r"0x[0-9A-F]{80,}")
"""The bytes of a kernel: nobody reads them in a message."""
_CALLEE = re.compile(r"^func\.call @(?P<prefix>[A-Za-z0-9_.]+?)(?:\.\.\.)?$")


class CheckFailed(AssertionError):  # noqa: N818 - a finding, not an error of the checker
    """A test file or an example that does not hold; the message is all a reader needs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunLine:
    """One `RUN` line of a test file."""

    path: Path
    """The file."""
    line_number: int
    """Of the line, from 1."""
    command: str
    """As written."""
    passes: tuple[ModulePass, ...]
    """What runs."""
    why: bool
    """Whether near misses are added to the output."""
    is_refused: bool
    """Whether the passes must refuse (`not`); the message is then what is checked."""
    filecheck_options: tuple[str, ...]
    """Options of `filecheck`, e.g. `--check-prefix=WHY`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """The example in the docstring of a pass: a program, and one of three things that become of it."""

    before: str
    """A module."""
    after: str | None = None
    """The module that it becomes, up to `canonicalize,cse`."""
    callee_prefix: str | None = None
    """Or: what the name of a function begins with that it calls afterwards."""


def read_run_lines(path: Path) -> list[RunLine]:
    """The `RUN` lines of a test file.

    Raises:
        CheckFailed: If there is none, or one has another form than those above.
    """
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
    found = [_run_line(path, number, match["command"]) for number, line in lines if (match := _RUN.match(line))]
    if not found:
        raise CheckFailed(f"{path}: no line with '// RUN: amdnfs-opt ...'")
    return found


def check_run(run: RunLine) -> None:
    """Runs the passes of `run` on its file and matches the output with the file's `CHECK` lines.

    Raises:
        CheckFailed: With filecheck's message and the whole output.
    """
    text = run.path.read_text(encoding="utf-8")
    try:
        output = run_opt(text, run.passes, why=run.why).text
    except PassError as error:
        if not run.is_refused:
            raise CheckFailed(f"{run.path}:{run.line_number}: {run.command}\n{error}") from error
        output = f"error: {error}\n"
    else:
        if run.is_refused:
            raise CheckFailed(f"{run.path}:{run.line_number}: {run.command}\nno pass refused the program:\n{output}")
    message = match_output(output, run.path, run.filecheck_options)
    if message:
        shown = _HEX.sub("0x...", output)
        raise CheckFailed(f"{run.path}:{run.line_number}: {run.command}\n{message}\noutput of the passes:\n{shown}")


def match_output(output: str, check_file: Path, options: tuple[str, ...] = ()) -> str:
    """Matches `output` with the check lines of a file.

    Returns:
        Why they do not match; empty if they do.
    """
    parsed = parse_argv_options(["filecheck", str(check_file), *options])
    checks = Parser(parsed, io.StringIO(check_file.read_text(encoding="utf-8")), *pattern_for_opts(parsed))
    matcher = Matcher(parsed, FInput("output", output), checks)
    matcher.stderr = io.StringIO()
    status = matcher.run()
    text: str = matcher.stderr.getvalue()
    return (text or f"filecheck ends with status {status}") if status else ""


def read_example(cls: type[ModulePass]) -> Example:
    """Reads the example in the docstring of the module of a pass.

    Raises:
        CheckFailed: If a block is missing, or an `After (the call; ...)` does not show one call.
    """
    name = cls.pass_name()
    doc = sys.modules[cls.__module__].__doc__ or ""
    headings = list(_HEADING.finditer(doc))
    if [heading["word"] for heading in headings] != ["Before", "After"]:
        raise CheckFailed(f"{name}: the docstring needs a 'Before::' and an 'After::'")
    before, note = _block(name, doc, headings[0]), headings[1]["note"] or ""
    if note.startswith("nothing changes"):
        return Example(before=before)
    after = _block(name, doc, headings[1])
    if not note.startswith("the call"):
        return Example(before=before, after=after)
    call = _CALLEE.match(after.strip())
    if call is None:
        raise CheckFailed(f"{name}: 'After (the call; ...)' must show one 'func.call @name'")
    return Example(before=before, callee_prefix=call["prefix"])


def check_example(cls: type[ModulePass]) -> None:
    """Runs a pass, with its default options, on the example in its docstring.

    Raises:
        CheckFailed: If an example does not parse, or the pass does something else than it shows.
    """
    name, example = cls.pass_name(), read_example(cls)
    module = _parse(name, "Before", example.before)
    original = str(module)
    result = cls().apply(module)
    if example.after is None and example.callee_prefix is None:
        if result.rewrites or str(module) != original:
            raise CheckFailed(f"{name}: the docstring says that nothing changes, but this comes out:\n{module}")
        return
    if not result.rewrites:
        raise CheckFailed(f"{name}: the pass leaves the docstring's Before as it is; near misses: {result.refusals}")
    if example.callee_prefix is not None:
        callees = [_callee(op) for op in walk(module.operation) if op.name == "func.call"]
        if not any(callee.startswith(example.callee_prefix) for callee in callees):
            raise CheckFailed(
                f"{name}: no call of @{example.callee_prefix}..., only of {', '.join(callees) or 'nothing'}"
            )
        return
    got, wanted = _simplified(module), _simplified(_parse(name, "After", example.after or ""))
    if got != wanted:
        raise CheckFailed(f"{name}: Before becomes, up to canonicalize and cse:\n{got}\nbut After is:\n{wanted}")


def _run_line(path: Path, line_number: int, command: str) -> RunLine:
    def bad(reason: str) -> CheckFailed:
        return CheckFailed(f"{path}:{line_number}: {reason}: // RUN: {command}")

    is_refused = command.startswith("not ")
    opt, pipe, check = command.removeprefix("not ").partition("2>&1 |" if is_refused else "|")
    words, check_words = shlex.split(opt), shlex.split(check)
    if not pipe or words[:1] != ["amdnfs-opt"] or check_words[:1] != ["filecheck"] or "%s" not in check_words:
        raise bad("a RUN line is '[not] amdnfs-opt --passes=... %s [2>&1] | filecheck %s'")
    passes = [word.removeprefix("--passes=") for word in words if word.startswith("--passes=")]
    others = [word for word in words[1:] if not word.startswith("--passes=")]
    if len(passes) != 1 or others not in (["%s"], ["--why", "%s"]):
        raise bad("amdnfs-opt takes one --passes=..., then --why or not, then %s")
    try:
        parsed = parse_passes(passes[0])
    except ValueError as error:
        raise bad(str(error)) from error
    return RunLine(
        path=path,
        line_number=line_number,
        command=command,
        passes=parsed,
        why="--why" in others,
        is_refused=is_refused,
        filecheck_options=tuple(word for word in check_words[1:] if word != "%s"),
    )


def _block(name: str, doc: str, heading: re.Match[str]) -> str:
    block = _BLOCK.match(doc, heading.end())
    if heading["colons"] != "::" or block is None or not block["body"].strip():
        raise CheckFailed(f"{name}: '{heading[0]}' must end with '::' and be followed by indented code")
    return textwrap.dedent(block["body"])


def _parse(name: str, word: str, text: str) -> Module:
    try:
        return parse_module(text)
    except MLIRError as error:
        raise CheckFailed(f"{name}: the docstring's {word} does not parse: {error}") from error


def _simplified(module: Module) -> str:
    # The compiler knows no memory effects of torch operations, so canonicalize keeps those that nothing uses.
    for op in reversed(list(walk(module.operation))):
        if op.name.startswith(("torch.aten.", "torch.prim.ListConstruct")) and not has_uses(op):
            op.erase()
    with module.context:
        PassManager.parse("builtin.module(canonicalize,cse)").run(module.operation)
    return str(module)


def _callee(call: Operation) -> str:
    return str(call.attributes["callee"]).removeprefix("@").strip('"')
