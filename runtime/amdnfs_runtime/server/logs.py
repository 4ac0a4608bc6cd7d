"""The server's log: one line an event on standard error, JSON for machines or text for a terminal.

Prompts and answers are in it only if the operator asked for that.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
import traceback
from typing import Any, TextIO

from amdnfs_runtime.errors import AmdnfsError
from amdnfs_runtime.server.errors import ApiError
from amdnfs_runtime.server.exchange import Exchange

LOGGER = logging.getLogger("amdnfs.server")
"""Where the server writes."""

_LONGEST_PATH = 200
_QUIET = ("/health", "/v2/health", "/metrics")
_OF_UVICORN = "uvicorn"


class JsonFormatter(logging.Formatter):
    """A line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with time, level, message and the fields that came with it."""
        when = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        values: dict[str, Any] = {
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return json.dumps(values)


class TextFormatter(logging.Formatter):
    """A line for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, message, and the fields as `name=value`."""
        fields = " ".join(f"{name}={value!a}" for name, value in getattr(record, "fields", {}).items())
        line = (
            f"{self.formatTime(record, '%H:%M:%S')} {record.levelname.lower()} {record.getMessage()} {fields}".rstrip()
        )
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure_logs(stream: TextIO | None = None) -> None:
    """Sends the log to a stream, by default standard error; for the program, not for those who embed the server."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if stream.isatty() else JsonFormatter())
    for logger, level in ((LOGGER, logging.INFO), (logging.getLogger(_OF_UVICORN), logging.WARNING)):
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)


def log_exchange(exchange: Exchange, method: str, path: str, status: int) -> None:
    """Writes the line of a request that is done. Who asks how the server is leaves none, unless the answer is bad."""
    if path.startswith(_QUIET) and status < 400:
        return
    fields: dict[str, Any] = {
        "request_id": exchange.request_id,
        "method": method[:_LONGEST_PATH],
        "path": path[:_LONGEST_PATH],
        "status": status,
        "seconds": round(time.perf_counter() - exchange.began_s, 4),
        **exchange.notes,
    }
    if exchange.failure is not None:
        fields["error"] = _failure_text(exchange, exchange.failure, status)
    LOGGER.info("request", extra={"fields": fields})


def log_bug(exchange: Exchange) -> None:
    """Writes where a request failed that ended with status 500."""
    assert exchange.failure is not None
    where = "".join(traceback.format_tb(exchange.failure.__traceback__))
    what = _failure_text(exchange, exchange.failure, 400)
    LOGGER.error(
        "internal error; please report it",
        extra={"fields": {"request_id": exchange.request_id, "error": what, "traceback": where}},
    )


def log_event(message: str, **fields: Any) -> None:
    """Writes what happened to the server itself."""
    LOGGER.info(message, extra={"fields": fields})


def _failure_text(exchange: Exchange, failure: BaseException, status: int) -> str:
    """What went wrong. A message about a client's mistake, or ours, can quote a prompt; one about the device cannot."""
    if exchange.may_log_texts or (status >= 500 and isinstance(failure, (ApiError, AmdnfsError))):
        return f"{type(failure).__name__}: {failure}"
    if isinstance(failure, ApiError):
        return " ".join(filter(None, (failure.code or "invalid", failure.param and failure.param[:_LONGEST_PATH])))
    return type(failure).__name__
