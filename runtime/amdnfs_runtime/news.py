"""What goes into an engine, and what its steps bring."""

from __future__ import annotations

from collections.abc import Sequence

from amdnfs_runtime.generation import Generation
from amdnfs_runtime.request import Output, SamplingParams
from amdnfs_runtime.scheduler import Job


class Request:
    """A prompt with its samples, checked and ready to start."""

    def __init__(self, request_id: str, params: SamplingParams, generations: Sequence[Generation]) -> None:
        """Called by `Engine.prepare`."""
        self.request_id = request_id
        self.params = params
        self.generations = tuple(generations)
        self.jobs: tuple[Job, ...] = ()


News = Generation | Output
"""A sample that went on, or what is to be told."""


def tell(news: Sequence[News]) -> list[Output]:
    """The outputs of a step: makes the text of samples that went on."""
    return [item if isinstance(item, Output) else item.take_output() for item in news]
