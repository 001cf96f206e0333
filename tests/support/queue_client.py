"""How tests talk to the queue: wrap an application, submit, wait for the end, read the answer. Every wait is in here."""

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
"""Seconds after which a wait is a failure. Nothing here takes a tenth of it on an idle machine."""


async def eventually(condition: Callable[[], Awaitable[Any] | Any], seconds: float = DEADLINE) -> Any:
    """Ask until the answer is true, and return it. Asks often at first: most of what is waited for takes milliseconds."""
    pause = 0.0005
    with anyio.fail_after(seconds):
        while True:
            answer = condition()
            if isinstance(answer, Awaitable):
                answer = await answer
            if answer:
                return answer
            await anyio.sleep(pause)
            pause = min(pause * 2, 0.02)


def client_of(app: Any, **options: Any) -> httpx.AsyncClient:
    """A client in process that keeps no cookies, and gets an answer also where the application raises after it."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    jar = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(transport=transport, base_url="http://service.test", cookies=jar, timeout=DEADLINE, **options)


def mounting(path: str, inner: QueueMiddleware) -> Starlette:
    """An application that starts the queue of another one which it mounts: `Mount` forwards no lifespan."""

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
        """The id of the stored request."""
        answer = await self.client.request(method, f"{self.prefix}/submit{target}", **request)
        assert answer.status_code == 200, answer.text
        return answer.json()["request_id"]

    async def status(self, request_id: str) -> dict[str, Any]:
        """Where the request stands; 202 and 200 as the contract wants them."""
        answer = await self.client.get(f"{self.prefix}/requests/{request_id}/status")
        told = answer.json()
        assert answer.status_code == (200 if told.get("status") == "COMPLETED" else 202), answer.text
        return told

    async def logs(self, request_id: str) -> list[dict[str, Any]]:
        """The log entries that its status has now."""
        answer = await self.client.get(f"{self.prefix}/requests/{request_id}/status?logs=1")
        return answer.json()["logs"]

    async def reaches(self, request_id: str, status: str, seconds: float = DEADLINE) -> dict[str, Any]:
        """Wait until the request has this status; the end is a failure unless it was waited for."""

        async def arrived() -> dict[str, Any] | None:
            told = await self.status(request_id)
            assert told["status"] in (status, "IN_QUEUE", "IN_PROGRESS"), told
            return told if told["status"] == status else None

        return await eventually(arrived, seconds)

    async def response(self, request_id: str) -> httpx.Response:
        """The stored answer, once there is one."""
        await self.reaches(request_id, "COMPLETED")
        return await self.client.get(f"{self.prefix}/requests/{request_id}/response")

    async def run(self, method: str, target: str, **request: Any) -> httpx.Response:
        """Submit, wait, and read the answer."""
        return await self.response(await self.submit(method, target, **request))

    async def cancel(self, request_id: str) -> httpx.Response:
        """Ask for the end."""
        return await self.client.put(f"{self.prefix}/requests/{request_id}/cancel")


def _with_own_state(app: Any) -> Any:
    """Each request gets a copy of the lifespan's state, as from every real server; asgi-lifespan hands out the same one."""

    async def server(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan" and "state" in scope:
            scope["state"] = dict(scope["state"])
        await app(scope, receive, send)

    return server


@asynccontextmanager
async def connected(app: Any) -> AsyncIterator[Queue]:
    """An application that has a queue somewhere, with its lifespan, in process."""
    lifespan = LifespanManager(_with_own_state(app), startup_timeout=DEADLINE, shutdown_timeout=DEADLINE)
    await lifespan.__aenter__()
    try:
        async with client_of(lifespan.app) as client:
            yield Queue(client)
    finally:
        # In good order also after a failed test: told of the error, asgi-lifespan would only cancel, and leave things open.
        await lifespan.__aexit__(None, None, None)


@asynccontextmanager
async def serving(app: Any, database: Path, **options: Any) -> AsyncIterator[Queue]:
    """The application, wrapped. `min_free_disk`: how full the developer's disk is is not what is tested."""
    async with connected(
        QueueMiddleware(app, database=database, **{"min_free_disk": 0, "shutdown_timeout": 2, **options})
    ) as queue:
        yield queue


def stored_jobs(database: Path, where: str = "true") -> int:
    """How many jobs the file holds, asked behind the middleware's back."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT count(*) FROM job WHERE {where}").fetchone()[0]
