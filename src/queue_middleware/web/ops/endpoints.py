"""The endpoints of `routes`. Those of health checks need no authentication, and are served while the queue does not run."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import Headers
from queue_middleware.runtime.readiness import Readiness
from queue_middleware.web.request import Endpoint, QueueRequest

from .metrics import MetricsPage
from .routes import OpsOperation, find_ops_route

Request = QueueRequest[OpsOperation]

_NO_STORE: Headers = ((b"cache-control", b"no-store"),)


class OpsEndpoints:
    """The health checks and the metrics of one queue."""

    def __init__(self, readiness: Readiness, metrics: MetricsPage) -> None:
        self._readiness = readiness
        handlers: dict[OpsOperation, Callable[[Request], Awaitable[None]]] = {
            OpsOperation.LIVE: self._live,
            OpsOperation.READY: self._ready,
        }
        self._endpoints = {
            operation: Endpoint(handler, changes=False, is_public=True, needs_queue=False)
            for operation, handler in handlers.items()
        }
        self._endpoints[OpsOperation.METRICS] = Endpoint(metrics.serve, changes=False, is_public=True)

    def match(self, request: Request) -> Endpoint:
        """Find the endpoint. Raises `MethodNotAllowed`."""
        request.route = operation = find_ops_route(request.scope["method"], request.split_path.rest)
        return self._endpoints[operation]

    def error_response(self, request: Request, error: QueueError) -> tuple[int, bytes, Headers]:
        """A refusal: `{"detail": …}`."""
        return error.status, json.dumps({"detail": error.detail}).encode("ascii"), error.headers

    async def _live(self, request: Request) -> None:
        """The event loop responds."""
        await request.respond(200, b'{"live": true}', _NO_STORE)

    async def _ready(self, request: Request) -> None:
        reasons = await self._readiness.reasons()
        body = {"ready": False, "because": reasons} if reasons else {"ready": True}
        await request.respond(503 if reasons else 200, json.dumps(body).encode("ascii"), _NO_STORE)
