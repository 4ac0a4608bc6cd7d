"""Standard output and error of our programs: what cannot be told must not change what is done.

    stream            reader is gone        anything else, such as a full disk
    standard output   the rest is dropped   UsageError, once
    standard error    dropped               dropped: there is nowhere left to say so

Without this, click and rich end the program in the middle of its work when the reader of either stream leaves.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from amdnfs_runtime.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@contextmanager
def careful_streams() -> Iterator[None]:
    """Puts careful streams in the place of `sys.stdout` and `sys.stderr`; leaves alone those without a descriptor."""
    before = sys.stdout, sys.stderr
    sys.stdout = _careful(sys.stdout, holds_results=True)
    sys.stderr = _careful(sys.stderr, holds_results=False)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def has_reader() -> bool:
    """Whether somebody still reads standard output, as far as the last write told."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return not (isinstance(raw, _Careful) and raw.is_lost)


class _Careful(io.FileIO):
    """The descriptor of a stream; outlives it."""

    def __init__(self, descriptor: int, *, holds_results: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._holds_results = holds_results
        self.is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes, or drops what cannot be written.

        Raises:
            UsageError: The first time that results cannot be written although they have a reader.
        """
        size = memoryview(data).nbytes
        if self.is_lost and self._holds_results:
            return size
        try:
            return super().write(data)
        except BrokenPipeError:
            self.is_lost = True
        except OSError as error:
            self.is_lost = True
            if self._holds_results:
                raise UsageError(f"cannot write to standard output: {error.strerror}") from error
        return size


def _careful(stream: TextIO, *, holds_results: bool) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:  # as in a test that captures
        return stream
    stream.flush()
    raw = _Careful(descriptor, holds_results=holds_results)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), stream.encoding, stream.errors, line_buffering=stream.line_buffering
    )
