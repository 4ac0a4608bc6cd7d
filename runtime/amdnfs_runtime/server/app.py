"""The application: which path is answered by what."""

from __future__ import annotations

from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from amdnfs_runtime.server.chat import answer_chat
from amdnfs_runtime.server.completions import answer_completion
from amdnfs_runtime.server.endpoint import Endpoint, Handler
from amdnfs_runtime.server.errors import ApiError
from amdnfs_runtime.server.exchange import REQUEST_ID
from amdnfs_runtime.server.fields import (
    ChatFields,
    CompletionFields,
    DetokenizeFields,
    EmbeddingFields,
    Fields,
    TokenizeFields,
)
from amdnfs_runtime.server.gate import Gate
from amdnfs_runtime.server.hosts import hosts_of
from amdnfs_runtime.server.info import Info
from amdnfs_runtime.server.page.routes import Page
from amdnfs_runtime.server.responses import answer_response
from amdnfs_runtime.server.responses_fields import ResponseFields
from amdnfs_runtime.server.service import Service
from amdnfs_runtime.server.tokens import answer_detokenize, answer_embeddings, answer_tokenize

_MAX_AGE_S = 600
_F = TypeVar("_F", bound=Fields)


def make_app(service: Service, bound: str | None = None) -> Starlette:
    """An ASGI application; its owner starts and closes the service and its engine.

    Args:
        service: The model.
        bound: The address that the server listens at; None if that is not known.
    """
    routes = _routes(service)
    paths = frozenset(route.path for route in routes if isinstance(route, Route))
    middleware = [
        Middleware(
            Gate,
            config=service.config,
            hosts=hosts_of(service.config, bound),
            metrics=service.metrics,
            tracing=service.tracing,
            paths=paths,
        )
    ]
    if service.config.cors_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(service.config.cors_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After"],
            max_age=_MAX_AGE_S,
        )
        middleware.insert(0, cors)  # outside: a browser asks first, and without a key
    app = Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: _refuse})
    app.router.redirect_slashes = False
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    """What the router says of paths and methods, as an error that the gate tells."""
    assert isinstance(error, HTTPException)
    messages = {404: "there is no such path", 405: "the path has no such method"}
    raise ApiError(error.status_code, messages.get(error.status_code, error.detail), headers=error.headers)


def _routes(service: Service) -> list[BaseRoute]:
    info, page = Info(service), Page(service)

    def post(path: str, fields: type[_F], handler: Handler[_F], *, generates: bool = False) -> Route:
        return Route(path, Endpoint(service, fields, handler, generates=generates), methods=["POST"])

    return [
        post("/v1/chat/completions", ChatFields, answer_chat, generates=True),
        post("/v1/completions", CompletionFields, answer_completion, generates=True),
        post("/v1/responses", ResponseFields, answer_response, generates=True),
        post("/v1/embeddings", EmbeddingFields, answer_embeddings),
        post("/tokenize", TokenizeFields, answer_tokenize),
        post("/detokenize", DetokenizeFields, answer_detokenize),
        Route("/v1/models", info.models),
        Route("/v1/models/{name:path}", info.model),
        Route("/health", info.ready),
        Route("/health/live", info.live),
        Route("/health/ready", info.ready),
        Route("/v2/health/live", info.kserve_live),
        Route("/v2/health/ready", info.kserve_ready),
        Route("/metrics", info.metrics),
        Route("/metrics.json", page.numbers),
        Route("/openapi.json", info.openapi),
        Route("/", page.index),
    ]
