"""An application behind a queue, whose handlers wait until the test lets them go on."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware

from .queue_client import Queue, connected


class GatedService(ABC):
    """`work` handles every path below the root and awaits `go`. The queue runs one request at a time by default."""

    def __init__(self, database: Path, **options: Any) -> None:
        self.go = asyncio.Event()
        routes = [Route("/{path:path}", self.work, methods=["GET", "POST"])]
        options = {"min_free_disk": 0, "shutdown_timeout": 0.2, "concurrency": 1, **options}
        self.app = QueueMiddleware(Starlette(routes=routes), database=database, **options)

    @abstractmethod
    async def work(self, request: Request) -> Response:
        """The handler."""

    @asynccontextmanager
    async def queue(self) -> AsyncIterator[Queue]:
        """The running queue. Handlers that still run at the end are released."""
        async with connected(self.app) as queue:
            try:
                yield queue
            finally:
                self.go.set()
