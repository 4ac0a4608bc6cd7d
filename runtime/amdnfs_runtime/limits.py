"""What a step of an engine holds."""

from __future__ import annotations

from amdnfs_runtime.calls import ProgramNames
from amdnfs_runtime.config import EngineConfig
from amdnfs_runtime.scheduler import Limits

MOST_CHECKED_ON_CPU = 32
"""Tokens of a call that checks guesses on a processor. Larger ones are bound by computing, not by reading the weights,
and take more time than right guesses save: twice that of a decode call where 8 requests check 4 guesses each."""


def limits_of(names: ProgramNames, config: EngineConfig, kind: str) -> Limits:
    """What a step holds: what the configuration says, else what the programs hold."""
    max_running, tokens = config.max_running or names.decode_sizes[-1], names.verify_tokens
    sizes = names.verify_sizes
    if kind == "cpu":
        sizes = tuple(size for size in sizes if size * tokens <= MOST_CHECKED_ON_CPU) or sizes[:1]
    return Limits(
        prefill_sizes=names.prefill_sizes,
        decode_sizes=names.decode_sizes,
        verify_sizes=sizes if config.speculate else (),
        verify_tokens=tokens if config.speculate else 0,
        max_running=max_running,
        max_step_tokens=config.max_step_tokens or 2 * names.prefill_sizes[-1] + max_running,
    )
