"""The process that renders chat templates, with bounds on time and memory. It has no part in anything else.

    standard input    length, JSON: first the templates, then one job after the other
    standard output   length, JSON: {"text": ...} or {"error": ...} for each

A length is 4 bytes, big endian. A render that takes too long ends the process: the kernel's timer does it, so that no
template can keep it, and none goes on if the server is gone.
"""

from __future__ import annotations

import json
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

from amdnfs_runtime.chat_template import ChatTemplate, TemplateSource
from amdnfs_runtime.errors import AmdnfsError, UsageError

LENGTH = struct.Struct(">I")
"""Form of a length."""

_COMPILE_S = 10.0


def main() -> None:
    """Serves until the input ends."""
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    first = _read(reader)
    if first is None:
        return
    resource.setrlimit(resource.RLIMIT_AS, (first["memory_bytes"], first["memory_bytes"]))
    timeout_s = first["timeout_s"]
    signal.setitimer(signal.ITIMER_REAL, max(timeout_s, _COMPILE_S))
    try:
        template = ChatTemplate(TemplateSource(**first["source"]))
    except AmdnfsError as error:
        _write(writer, {"error": str(error)})
        return
    signal.setitimer(signal.ITIMER_REAL, 0)
    _write(writer, {"text": ""})
    while (job := _read(reader)) is not None:
        signal.setitimer(signal.ITIMER_REAL, timeout_s)
        answer = _render(template, job)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(writer, answer)


def _render(template: ChatTemplate, job: dict[str, Any]) -> dict[str, str]:
    try:
        return {"text": template.render(**job)}
    except UsageError as error:
        return {"error": str(error)}


def _read(reader: BinaryIO) -> dict[str, Any] | None:
    head = reader.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    value = json.loads(reader.read(LENGTH.unpack(head)[0]))
    assert isinstance(value, dict)
    return value


def _write(writer: BinaryIO, answer: dict[str, str]) -> None:
    # A template may make lone surrogates; ASCII with escapes carries them to where they are refused.
    data = json.dumps(answer).encode("ascii")
    writer.write(LENGTH.pack(len(data)) + data)
    writer.flush()
