"""`GET {prefix}/metrics`, for Prometheus."""

from __future__ import annotations

import json
from typing import Any

from queue_middleware.background import run_in_thread
from queue_middleware.errors import UnknownRoute
from queue_middleware.observability.metrics.store import StoredNumbers
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.web.admin_access import AdminAccess
from queue_middleware.web.request import QueueRequest

_NOT_INSTALLED = "metrics need prometheus-client: pip install 'queue-middleware[metrics]'"


class MetricsPage:
    """The numbers of all processes of one queue, for operators only unless `metrics_public` is set."""

    def __init__(self, runtime: Runtime, access: AdminAccess) -> None:
        self._runtime = runtime
        self._access = access

    async def serve(self, request: QueueRequest[Any]) -> None:
        """Respond with all metrics; with 501 without the extra. Raises `UnknownRoute`, `Unauthorized`, `RateLimited`."""
        settings = self._runtime.settings
        if not settings.metrics:
            raise UnknownRoute("metrics are off (metrics=False)")
        if not settings.metrics_public:
            await self._access.identify(request.scope)
        numbers = await self._runtime.services.stores.metrics.read()
        accept = b",".join(value for name, value in request.scope["headers"] if name == b"accept").decode("latin-1")
        try:
            body, content_type = await run_in_thread(_expose, numbers, accept)
        except ImportError:
            await request.respond(501, json.dumps({"detail": _NOT_INSTALLED}).encode("ascii"))
            return
        length, kind = b"%d" % len(body), content_type.encode("latin-1")
        await request.start(200, [(b"content-type", kind), (b"content-length", length), (b"cache-control", b"no-store")])
        await request.send({"type": "http.response.body", "body": body})


def _expose(numbers: StoredNumbers, accept: str) -> tuple[bytes, str]:
    # Imported here, because the extra may not be installed.
    from queue_middleware.observability.metrics.exposition import expose

    return expose(numbers, accept)
