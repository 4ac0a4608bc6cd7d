"""Errors as clients get them: a status, and JSON in OpenAI's form.

{"error": {"message": "...", "type": "invalid_request_error", "param": "temperature", "code": null}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from amdnfs_runtime.errors import AmdnfsError, CapacityError, EngineError, UsageError

_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_RETRY_S = "1"
_LONGEST_MESSAGE = 1000
_FIRST_WORD = re.compile(r"[a-z_]+")
_KIND = re.compile(r"^structure \([a-z_]+\)")
_NAME = re.compile(r"^[a-z]+\b|\b[a-z]+(?:_[a-z]+)+\b")  # only at the begin, a word is a name


class ApiError(Exception):
    """A request that gets no answer but this error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Makes an error.

        Args:
            status: HTTP status.
            message: For people.
            param: The field of the request that is wrong.
            code: For programs.
            headers: More headers of the response.
        """
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def to_json(self) -> dict[str, Any]:
        """The body of the response."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        message = str(self)
        if len(message) > _LONGEST_MESSAGE:
            message = message[:_LONGEST_MESSAGE] + "..."
        return {"error": {"message": message, "type": kind, "param": self.param, "code": self.code}}


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """A request that can never work as it is."""
    return ApiError(400, message, param=param, code=code)


def not_supported(param: str, what: str) -> ApiError:
    """A field that is known, but whose value asks for what this server does not have."""
    return bad_request(f"{param}: {what}", param, "not_supported")


def unavailable(message: str, code: str = "unavailable") -> ApiError:
    """A request that may work later, or elsewhere."""
    return ApiError(503, message, code=code, headers={"Retry-After": _RETRY_S})


def api_error(error: AmdnfsError, names: Mapping[str, str | None] | None = None) -> ApiError:
    """What the runtime says, as clients get it.

    Args:
        error: The error; its message begins with the name of the option that it is about.
        names: What the request calls an option; None where it has the same name. The prompt is an option, too.
    """
    message, names = str(error), names or {}
    if isinstance(error, CapacityError):
        return bad_request(message, (names.get("prompt") or "prompt") if names else None, "context_length_exceeded")
    if isinstance(error, UsageError):
        first = _FIRST_WORD.match(message)
        if first is None or first[0] not in names:
            return bad_request(message)
        field = names[first[0]] or first[0]
        return bad_request(in_words_of(message, names), field, "invalid_value")
    if isinstance(error, EngineError):
        return unavailable(message)
    return ApiError(500, message, code="device_error")


def in_words_of(message: str, names: Mapping[str, str | None]) -> str:
    """A message of the runtime with the names that a request has for options, but for what was given."""
    told, given, value = message.partition(", not ")
    told = _KIND.sub("structure", told)
    return _NAME.sub(lambda found: names.get(found[0]) or found[0], told) + given + value


def from_failure(error: BaseException) -> ApiError:
    """Any error that ends a request, as its client gets it; what is nobody's fault but ours says no details."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, AmdnfsError):
        return api_error(error)
    return ApiError(500, "internal error of the server; its log tells more", code="internal_error")
