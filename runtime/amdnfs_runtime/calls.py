"""From a planned call to the arguments of a program. The page table is as wide as the longest request of the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from amdnfs_runtime.bundle import Manifest, TargetEntry
from amdnfs_runtime.errors import ArtifactError
from amdnfs_runtime.pages import NULL_PAGE
from amdnfs_runtime.scheduler import Call, DecodeCall, PrefillCall, VerifyCall
from amdnfs_runtime.top_logits import PackedTop, TopLogits, greedy_tokens

IntArray = npt.NDArray[np.int64]
TableArray = npt.NDArray[np.int32]
Arguments = tuple[IntArray, IntArray, IntArray, TableArray]
"""Tokens `[batch, tokens]`, start `[batch]`, valid `[batch]`, page table `[batch, pages]`."""


class DeviceProgram(Protocol):
    """What an engine needs of a device: `device.Program`, or a stand-in for tests and simulations."""

    @property
    def is_queued(self) -> bool:
        """Whether `call` returns before the device has done it."""

    def wait(self) -> None:
        """See `device.Program.wait`."""

    def make_pools(self, manifest: Manifest, num_pages: int, /) -> list[Any]:
        """See `device.Program.make_pools`."""

    def call(
        self,
        name: str,
        tokens: IntArray,
        start: IntArray,
        num_valid: IntArray,
        table: TableArray,
        pools: list[Any],
        /,
    ) -> tuple[Any, Any, list[Any]]:
        """See `device.Program.call`."""

    def read(self, array: Any, /) -> npt.NDArray[Any]:
        """See `device.Program.read`."""

    def read_rows(self, array: Any, rows: list[int], /) -> npt.NDArray[Any]:
        """See `device.Program.read_rows`."""


TopOfRow = Callable[[int], TopLogits]
"""The largest logits of a row."""


def read_choices(program: DeviceProgram, greedy: Any) -> tuple[npt.NDArray[np.int64], TopOfRow | None]:
    """The first result of a call: the greedy tokens, and the largest logits of each row where the program finds them.

    Raises:
        ArtifactError: If the device fails.
    """
    if not isinstance(greedy, PackedTop):
        return program.read(greedy), None
    packed = program.read(greedy.array)
    return greedy_tokens(packed), lambda row: greedy.unpack(packed[row])


class ProgramNames:
    """Names of the entry points of a target by their sizes."""

    def __init__(self, target: TargetEntry, where: str) -> None:
        """Reads them.

        Args:
            target: The target.
            where: How a message names it.

        Raises:
            ArtifactError: It has no prefill or no decode entry point.
        """
        points = target.entry_points
        self._prefill = {point.tokens: point.name for point in points if point.kind == "prefill"}
        self._decode = {point.batch: point.name for point in points if point.kind == "decode"}
        self._verify = {point.batch: point.name for point in points if point.kind == "verify"}
        tokens = {point.tokens for point in points if point.kind == "verify"}
        if not self._prefill or not self._decode:
            raise ArtifactError(f"{where} has no prefill or no decode entry point; compile the bundle again")
        self.prefill_sizes = tuple(sorted(self._prefill))
        self.decode_sizes = tuple(sorted(self._decode))
        # Guesses are checked if all programs for it agree, and each decode program has one that is as large.
        is_usable = len(tokens) == 1 and max(self._verify) >= self.decode_sizes[-1]
        self.verify_sizes = tuple(sorted(self._verify)) if is_usable else ()
        self.verify_tokens = max(tokens) if is_usable else 0

    def name(self, call: Call) -> str:
        """The entry point of a call."""
        if isinstance(call, VerifyCall):
            return self._verify[call.size]
        return self._prefill[call.size] if isinstance(call, PrefillCall) else self._decode[call.size]


def arguments_of(call: Call, page_tokens: int) -> Arguments:
    """The arguments of a call; unused rows and entries hold the null page."""
    return _prefill(call, page_tokens) if isinstance(call, PrefillCall) else _decode(call)


def _prefill(call: PrefillCall, page_tokens: int) -> Arguments:
    end = call.begin + call.count
    tokens = np.zeros((1, call.size), np.int64)
    tokens[0, : call.count] = call.job.tokens[call.begin : end]
    table = call.job.pages.first(-(-end // page_tokens))[None].copy()
    return tokens, np.array([call.begin], np.int64), np.array([call.count], np.int64), table


def _decode(call: DecodeCall | VerifyCall) -> Arguments:
    num_jobs, num_tokens = len(call.jobs), call.tokens if isinstance(call, VerifyCall) else 1
    tokens, start = np.zeros((call.size, num_tokens), np.int64), np.zeros(call.size, np.int64)
    valid = np.zeros(call.size, np.int64)
    tokens[:num_jobs, 0] = [job.tokens[job.num_computed] for job in call.jobs]
    start[:num_jobs] = [job.num_computed for job in call.jobs]
    valid[:num_jobs] = 1
    if isinstance(call, VerifyCall):
        for row, guess in enumerate(call.guesses):
            tokens[row, 1 : 1 + len(guess)] = guess
            valid[row] += len(guess)
    rows = [job.pages.all() for job in call.jobs]
    table = np.full((call.size, max(map(len, rows))), NULL_PAGE, np.int32)
    for row, pages in enumerate(rows):
        table[row, : len(pages)] = pages
    return tokens, start, valid, table
