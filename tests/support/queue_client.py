"""Use a queue in tests: wrap an application, submit, wait for the end, read the response. All waiting is done here."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import anyio
import httpx
from asgi_lifespan import LifespanManager
from starlette.applications import Starlette
from starlette.routing import Mount

from queue_middleware import QueueMiddleware

DEADLINE = 20.0
"""Seconds after which a wait fails. On an idle machine, every wait takes less than a tenth of it."""


async def eventually(condition: Callable[[], Awaitable[Any] | Any], seconds: float = DEADLINE) -> Any:
    """Call `condition` until it returns a true value, and return that. The first pauses are the shortest."""
    pause = 0.0005
    with anyio.fail_after(seconds):
        while True:
            value = condition()
            if isinstance(value, Awaitable):
                value = await value
            if value:
                return value
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.02)


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    """An in-process client without cookies. It returns the response even if the application raises after sending it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(transport=transport, base_url="http://service.test", cookies=jar, timeout=DEADLINE, **options)


def mounting(path: str, inner: QueueMiddleware) -> Starlette:
    """An application that mounts `inner` and starts its queue, because `Mount` forwards no lifespan."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with inner.running():
            yield

    return Starlette(routes=[Mount(path, inner)], lifespan=lifespan)


class Queue:
    """The queue of one service as a client sees it."""

    def __init__(self, client: httpx.AsyncClient, prefix: str = "/fal/queue") -> None:
        self.client = client
        self.prefix = prefix

    async def submit(self, method: str, target: str, **request: Any) -> str:
        """Submit a request and return its id."""
        response = await self.client.request(method, f"{self.prefix}/submit{target}", **request)
        assert response.status_code == 200, response.text
        return str(response.json()["request_id"])

    async def status(self, request_id: str) -> dict[str, Any]:
        """The status of a request. Its HTTP status must be 200 when completed and 202 before, as the protocol says."""
        response = await self.client.get(f"{self.prefix}/requests/{request_id}/status")
        content: dict[str, Any] = response.json()
        assert response.status_code == (200 if content.get("status") == "COMPLETED" else 202), response.text
        return content

    async def logs(self, request_id: str) -> list[dict[str, Any]]:
        """The log entries in the current status."""
        response = await self.client.get(f"{self.prefix}/requests/{request_id}/status?logs=1")
        entries: list[dict[str, Any]] = response.json()["logs"]
        return entries

    async def reaches(self, request_id: str, status: str, seconds: float = DEADLINE) -> dict[str, Any]:
        """Wait until the request has this status. An unexpected final status is a failure."""

        async def arrived() -> dict[str, Any] | None:
            current = await self.status(request_id)
            assert current["status"] in (status, "IN_QUEUE", "IN_PROGRESS"), current
            return current if current["status"] == status else None

        reached: dict[str, Any] = await eventually(arrived, seconds)
        return reached

    async def response(self, request_id: str) -> httpx.Response:
        """Wait for the end and return the stored response."""
        await self.reaches(request_id, "COMPLETED")
        return await self.client.get(f"{self.prefix}/requests/{request_id}/response")

    async def run(self, method: str, target: str, **request: Any) -> httpx.Response:
        """Submit, wait for the end and return the stored response."""
        return await self.response(await self.submit(method, target, **request))

    async def cancel(self, request_id: str) -> httpx.Response:
        """Request cancellation."""
        return await self.client.put(f"{self.prefix}/requests/{request_id}/cancel")


def _with_own_state(app: Any) -> Any:
    """Give each request a copy of the lifespan's state, as real servers do; asgi-lifespan passes the same object to all."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and "state" in scope:
            scope["state"] = dict(scope["state"])
        await app(scope, receive, send)

    return server


async def first_claim_is_over(app: Any) -> None:
    """Wait until a queue that has just started has claimed the jobs that were there.

    Until then the claim reserves half of the slots. If it is the only slot, a job that is submitted meanwhile is queued first.
    """
    running = app._runtime._running if isinstance(app, QueueMiddleware) else None
    if running is not None:
        worker = running.worker
        await eventually(lambda: not worker._slots._reserved and not (worker._may_have_work and worker._slots.free))


@asynccontextmanager
async def connected(app: Any, *, after_first_claim: bool = True) -> AsyncIterator[Queue]:
    """A client of an application that contains a queue, in process, with its lifespan."""
    lifespan = LifespanManager(_with_own_state(app), startup_timeout=DEADLINE, shutdown_timeout=DEADLINE)
    await lifespan.__aenter__()
    try:
        if after_first_claim:
            await first_claim_is_over(app)
        async with client_of(lifespan.app) as client:
            yield Queue(client)
    finally:
        # Shut down in order after a failed test too: given the error, asgi-lifespan would only cancel and leave resources open.
        await lifespan.__aexit__(None, None, None)


@asynccontextmanager
async def serving(app: Any, database: Path, *, after_first_claim: bool = True, **options: Any) -> AsyncIterator[Queue]:
    """A client of the wrapped application. `min_free_disk` is 0 so that a full disk of the developer does not matter."""
    queue = QueueMiddleware(app, database=database, **{"min_free_disk": 0, "shutdown_timeout": 2, **options})
    async with connected(queue, after_first_claim=after_first_claim) as client:
        yield client


def stored_jobs(database: Path, where: str = "true") -> int:
    """The number of jobs in the file, read without the middleware."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM job WHERE {where}").fetchone()[0])
