"""The README's table of targets says what `amdnfs targets` says."""

from __future__ import annotations

import re
from pathlib import Path

from amdnfs_compile.states import target_rows

README = Path(__file__).parents[3] / "README.md"
STATES = {
    "compiles": "compiles",
    "executed on the emulator": "emulator",
    "verified on this machine": "this machine",
    "run on a device": "device",
}
"""Columns of the README to those of the command."""

MEANING = {"no": "no", "not yet": "no", "never": "no", "-": "-"}
"""First words of a state to what is compared; everything else is a yes."""


def readme_rows() -> dict[str, dict[str, str]]:
    """The states of each target as the README tells them, by the README's columns."""
    lines = README.read_text(encoding="utf-8").splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("| target | compiles |"))
    columns = [cell.strip() for cell in lines[begin].strip("|").split("|")]
    found: dict[str, dict[str, str]] = {}
    for line in lines[begin + 2 :]:
        if not line.startswith("|"):
            break
        names, *states = [cell.strip() for cell in line.strip("|").split("|")]
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in found, f"{name} is in two rows"
            found[name] = dict(zip(columns[1:], states, strict=True))
    return found


def meaning(state: str) -> str:
    return MEANING.get(re.split("[:,]", state)[0], "yes")


def test_the_table_of_the_readme_has_the_states_of_the_command() -> None:
    told = {row["target"]: {name: meaning(row[column]) for name, column in STATES.items()} for row in target_rows()}
    assert {
        name: {column: meaning(state) for column, state in row.items()} for name, row in readme_rows().items()
    } == told


def test_what_the_readme_adds_is_there_too() -> None:
    written, told = readme_rows(), {row["target"]: row for row in target_rows()}
    assert "NVIDIA H200" in written["cuda-sm_80"]["run on a device"]
    assert told["cuda-sm_80"]["device"] == "NVIDIA H200"
    assert "Mesa's software driver" in written["vulkan"]["verified on this machine"]
    assert "Mesa's software driver" in told["vulkan"]["this machine"]
