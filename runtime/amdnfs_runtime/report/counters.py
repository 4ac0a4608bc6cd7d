"""What the emulator counted while it executed dispatches: one JSON line a dispatch, sums of them, and shares.

The lines are those of `AMDNFS_EMULATE_COUNTERS`. They are counts of an execution, not of a text: a loop counts as often
as it ran. They say nothing of time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amdnfs_runtime.errors import ArtifactError

LINE_BYTES = 128
"""Bytes of a line of memory, in which lines are counted."""
SCALAR_CLASSES = frozenset({"salu", "scalar-memory", "branch", "barrier", "wait"})
"""Classes of instructions that have no lanes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Executed:
    """Sums over dispatches that were executed."""

    num_dispatches: int
    """How many there were."""
    num_waves: int
    """Waves that ran."""
    instructions: Mapping[str, int]
    """Wave instructions by class: `valu`, `transcendental`, `matrix`, `salu`, `scalar-memory`, `vector-memory`,
    `scratch`, `lds`, `branch`, `barrier`, `wait`."""
    vector_lanes: int
    """Lanes that were enabled, over all vector instructions."""
    vector_slots: int
    """Lanes of the waves, over the same instructions."""
    matrix_flops: int
    """Multiplications and additions of matrix and dot instructions, padding included."""
    loaded_bytes: Mapping[str, int]
    """Bytes that lanes loaded from memory, by bytes a lane."""
    stored_bytes: Mapping[str, int]
    """Bytes that lanes stored to memory, by bytes a lane."""
    scalar_loaded_bytes: int
    """Bytes that scalar instructions loaded."""
    atomic_operations: int
    """Lanes that did an atomic operation on memory."""
    loaded_lines: int
    """Distinct lines that each dispatch loaded, summed over the dispatches."""
    stored_lines: int
    """Distinct lines that each dispatch stored to, summed over the dispatches."""
    lds_loaded_bytes: int
    """Bytes loaded from shared memory."""
    lds_stored_bytes: int
    """Bytes stored to shared memory."""
    lds_bank_conflicts: int
    """Extra cycles of shared memory, because lanes that are served together met in a bank."""
    scratch_loaded_bytes: int
    """Bytes loaded from private memory."""
    scratch_stored_bytes: int
    """Bytes stored to private memory."""

    @property
    def num_instructions(self) -> int:
        """Wave instructions of all classes."""
        return sum(self.instructions.values())

    @property
    def asked_bytes(self) -> int:
        """Bytes that instructions asked memory for, loads and stores."""
        return sum(self.loaded_bytes.values()) + sum(self.stored_bytes.values()) + self.scalar_loaded_bytes

    @property
    def moved_bytes(self) -> int:
        """Bytes that move if a dispatch fetches each line that it touches once, and writes each once."""
        return LINE_BYTES * (self.loaded_lines + self.stored_lines)

    @property
    def scratch_bytes(self) -> int:
        """Traffic of private memory, in bytes."""
        return self.scratch_loaded_bytes + self.scratch_stored_bytes

    @property
    def active_lanes(self) -> float | None:
        """Share of the lanes that were enabled in vector instructions; None if there were none."""
        return self.vector_lanes / self.vector_slots if self.vector_slots else None


@dataclass(frozen=True, kw_only=True, slots=True)
class CountedDispatch:
    """One dispatch."""

    symbol: str
    """Name of its kernel in the code object."""
    code_object: str
    """FNV-1a-64 of the code object's image, 16 hexadecimal digits."""
    counts: Executed
    """What was counted."""


_NUMBERS = (
    "vector_lanes",
    "vector_slots",
    "matrix_flops",
    "scalar_loaded_bytes",
    "atomic_operations",
    "loaded_lines",
    "stored_lines",
    "lds_loaded_bytes",
    "lds_stored_bytes",
    "lds_bank_conflicts",
    "scratch_loaded_bytes",
    "scratch_stored_bytes",
)
_SUMS = ("num_dispatches", "num_waves", *_NUMBERS)
_BY_NAME = ("instructions", "loaded_bytes", "stored_bytes")


def read_lines(text: str) -> list[CountedDispatch]:
    """Reads the emulator's lines.

    Raises:
        ArtifactError: If a line is damaged, or tells of a fault; the message is that of the fault.
    """
    return [_read_line(line) for line in text.splitlines()]


def _read_line(line: str) -> CountedDispatch:
    try:
        values: Mapping[str, Any] = json.loads(line)
        fault = values["fault"]
        numbers: dict[str, Any] = {name: int(values[name]) for name in _NUMBERS}
        for name in _BY_NAME:
            numbers[name] = {key: int(number) for key, number in values[name].items()}
        counts = Executed(num_dispatches=1, num_waves=int(values["waves"]), **numbers)
        counted = CountedDispatch(symbol=values["kernel"], code_object=values["code_object"], counts=counts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(
            f"the emulator's counters cannot be read: {error!r} in {line[:80]!r}; is AMDNFS_HIP_DYLIB another library "
            "than the one that comes with amdnfs?"
        ) from error
    if fault is not None:
        raise ArtifactError(f"the emulator stopped {counted.symbol}: {fault['message']}")
    return counted


def add_up(parts: Iterable[Executed]) -> Executed:
    """The sums of several counts."""
    items = list(parts)
    sums: dict[str, Any] = {name: sum(getattr(item, name) for item in items) for name in _SUMS}
    for name in _BY_NAME:
        sums[name] = _add_names(getattr(item, name) for item in items)
    return Executed(**sums)


def _add_names(parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            found[name] = found.get(name, 0) + number
    return found


def image_digest(image: bytes) -> str:
    """FNV-1a-64 of a code object, as the emulator names it.

    >>> image_digest(b""), image_digest(b"a")
    ('cbf29ce484222325', 'af63dc4c8601ec8c')

    Source: "The FNV Non-Cryptographic Hash Algorithm", RFC 9923, section 2.
    """
    digest = 0xCBF29CE484222325
    for byte in image:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"
