"""What the server tells about itself: models, health, metrics, the OpenAPI document."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from amdnfs_runtime.async_engine import EngineStatus
from amdnfs_runtime.server.metrics import CONTENT_TYPE
from amdnfs_runtime.server.openapi import openapi_document
from amdnfs_runtime.server.service import Service


class Info:
    """The endpoints that only read."""

    def __init__(self, service: Service) -> None:
        """Makes the OpenAPI document."""
        self._service = service
        self._document = openapi_document()

    async def models(self, _: Request) -> Response:
        """All names of the model."""
        names = self._service.model_names
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, request: Request) -> Response:
        """One name of the model."""
        return JSONResponse(self._model(self._service.check_model(request.path_params["name"])))

    async def live(self, _: Request) -> Response:
        """200 while a restart would change nothing; 503 while the device hangs."""
        health = self._health()
        return JSONResponse(health, 503 if health["status"] == EngineStatus.STUCK else 200)

    async def ready(self, _: Request) -> Response:
        """200 while requests are taken, also after a device call that failed, as the next may work."""
        health = self._health()
        is_ready = health["status"] in (EngineStatus.OK, EngineStatus.FAILING)
        return JSONResponse(health, 200 if is_ready else 503)

    async def kserve_live(self, request: Request) -> Response:
        """As `live`, in KServe's form."""
        status = (await self.live(request)).status_code
        return JSONResponse({"live": status == 200}, status)

    async def kserve_ready(self, request: Request) -> Response:
        """As `ready`, in KServe's form."""
        status = (await self.ready(request)).status_code
        return JSONResponse({"ready": status == 200}, status)

    async def metrics(self, _: Request) -> Response:
        """Numbers for Prometheus."""
        return Response(self._service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _: Request) -> Response:
        """The OpenAPI document."""
        return JSONResponse(self._document)

    def _health(self) -> dict[str, Any]:
        report = self._service.engine.health()
        status = "stopping" if self._service.is_draining else str(report.status)
        if report.status is EngineStatus.STUCK:
            status = str(report.status)
        return {"status": status, "reason": report.reason, "num_failures": report.num_failures}

    def _model(self, name: str) -> dict[str, Any]:
        service = self._service
        return {
            "id": name,
            "object": "model",
            "created": service.created_s,
            "owned_by": "amdnfs",
            "root": service.manifest.model.name,
            "max_model_len": service.manifest.model.context_tokens,
        }
