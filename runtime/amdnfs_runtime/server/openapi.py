"""The OpenAPI document. The bodies of requests are the models that check them, so the two cannot disagree."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic.json_schema import models_json_schema

from amdnfs_runtime.server.fields import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    EmbeddingFields,
    Fields,
    TokenizeFields,
)
from amdnfs_runtime.server.responses_fields import ResponseFields

_REF = "#/components/schemas/{model}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_REFUSALS = {
    "400": "A field is wrong; `param` names it.",
    "401": "A key is needed.",
    "403": "The Host header has a name that is not the server's.",
    "404": "There is no such model.",
    "408": "The body came too slowly.",
    "413": "The body is too large.",
    "415": "The body is not `application/json`.",
    "429": "Too many requests of one client.",
    "503": "The server is stopping, has enough to do, or its device hangs.",
    "504": "The request took too long.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Post:
    """An endpoint that takes JSON."""

    fields: type[Fields]
    """The body."""
    summary: str
    """What it does."""
    required: tuple[str, ...]
    """Fields of its answer."""
    streams: bool = False
    """Whether the answer may be server-sent events."""


_POSTS = {
    "/v1/chat/completions": _Post(
        fields=ChatFields,
        summary="Answer in a chat.",
        required=("id", "object", "created", "model", "choices", "usage"),
        streams=True,
    ),
    "/v1/completions": _Post(
        fields=CompletionFields,
        summary="Continue prompts.",
        required=("id", "object", "created", "model", "choices", "usage"),
        streams=True,
    ),
    "/v1/responses": _Post(
        fields=ResponseFields,
        summary="Answer with items.",
        required=("id", "object", "created_at", "model", "output", "status"),
        streams=True,
    ),
    "/v1/embeddings": _Post(fields=EmbeddingFields, summary="No bundle has embeddings yet.", required=()),
    "/tokenize": _Post(
        fields=TokenizeFields, summary="Token ids of a text or a chat.", required=("count", "max_model_len", "tokens")
    ),
    "/detokenize": _Post(fields=DetokenizeFields, summary="Text of token ids.", required=("prompt",)),
}
_GETS = {
    "/v1/models": ("The names of the model.", "application/json", ("200", "401", "429")),
    "/v1/models/{name}": ("One name of the model.", "application/json", ("200", "401", "404", "429")),
    "/health": ("As /health/ready.", "application/json", ("200", "503")),
    "/health/live": ("200 unless only a restart helps.", "application/json", ("200", "503")),
    "/health/ready": ("200 while requests are taken.", "application/json", ("200", "503")),
    "/v2/health/live": ("KServe's form of /health/live.", "application/json", ("200", "503")),
    "/v2/health/ready": ("KServe's form of /health/ready.", "application/json", ("200", "503")),
    "/metrics": ("Numbers for Prometheus.", "text/plain", ("200", "401")),
    "/metrics.json": ("What the page at / shows.", "application/json", ("200", "401")),
    "/openapi.json": ("This document.", "application/json", ("200", "401", "429")),
}
_NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}


def openapi_document() -> dict[str, Any]:
    """The document, as JSON values."""
    models: list[type[Fields]] = [post.fields for post in _POSTS.values()]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    paths: dict[str, Any] = {path: {"post": _post(post)} for path, post in _POSTS.items()}
    paths.update({path: {"get": _get(path, *facts)} for path, facts in _GETS.items()})
    return {
        "openapi": "3.1.0",
        "info": {"title": "AMD-NFS compile", "version": _version()},
        "paths": paths,
        "components": {
            "schemas": {**schemas["$defs"], "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _post(post: _Post) -> dict[str, Any]:
    body = {"schema": {"$ref": _REF.format(model=post.fields.__name__)}}
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object", "required": list(post.required)}}}
    if post.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    good = {"200": {"description": "The answer.", "content": content}} if post.required else {}
    return {
        "summary": post.summary,
        "requestBody": {"required": True, "content": {"application/json": body}},
        "responses": {**good, **{status: _refusal(text) for status, text in _REFUSALS.items()}},
    }


def _get(path: str, summary: str, media_type: str, statuses: tuple[str, ...]) -> dict[str, Any]:
    schema = {"type": "string"} if media_type == "text/plain" else {"type": "object"}
    answer = {"description": summary, "content": {media_type: {"schema": schema}}}
    refusals = {status: _refusal(_REFUSALS[status]) for status in statuses if status not in ("200", "503")}
    same = {status: answer for status in statuses if status in ("200", "503")}
    made: dict[str, Any] = {"summary": summary, "responses": {**same, **refusals}}
    return {**made, "parameters": [_NAME]} if "{name}" in path else made


def _refusal(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"$ref": _REF.format(model="Error")}}}}


def _version() -> str:
    try:
        return version("amdnfs")
    except PackageNotFoundError:
        return "unknown"
