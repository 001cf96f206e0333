"""Submitted requests may contain credentials: they stay in the file only while they are needed, however the job ends."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.test_tasks import Tasks, tasking
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import eventually, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, respond

PLANTED = "planted-4f1c9e0b77"
HEADERS = {"authorization": f"Bearer {PLANTED}", "cookie": f"session={PLANTED}", "x-key": PLANTED}
LARGE = (PLANTED + " ").encode() * 20_000
"""More than one part of a body."""


def tables_with(database: Path, secret: str) -> set[str]:
    """The tables and columns that contain the secret; the queue stores nothing compressed."""
    found = set()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if any(secret in repr(row) for row in connection.execute(f"SELECT * FROM {table}")):
                found.add(table)
    return found


class Service:
    """An application whose responses contain nothing of the request."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.running = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert PLANTED.encode() in dict(scope["headers"])[b"authorization"]
        assert len((await receive())["body"]) in (0, len(LARGE))
        self.running += 1
        await self.may_answer.wait()
        if scope["path"] == "/raises":
            raise RuntimeError("broken")
        await respond(send, b"{}", 202)


async def submit(tasks: Tasks, path: str, **headers: str) -> str:
    return await tasks.queue.submit("POST", path, headers={**HEADERS, **headers}, content=LARGE)


async def response(tasks: Tasks, service: Service, first: str) -> None:
    service.may_answer.set()


async def cancellation(tasks: Tasks, service: Service, first: str) -> None:
    await tasks.queue.cancel(first)


async def callback_timeout(tasks: Tasks, service: Service, first: str) -> None:
    service.may_answer.set()


@pytest.mark.parametrize(
    ("path", "end"),
    [
        ("/answers", response),
        ("/raises", response),
        ("/answers", cancellation),
        ("/answers?hook={callback_url}&fal_callback_timeout=0.2", callback_timeout),
    ],
)
async def test_credentials_are_erased_at_the_end(
    path: str, end: Callable[[Tasks, Service, str], Awaitable[None]], database: Path
) -> None:
    service = Service()
    async with tasking(database, service) as tasks:
        first = await submit(tasks, path)
        await eventually(lambda: service.running)
        assert tables_with(database, PLANTED) >= {"payload", "request_chunk"}
        await end(tasks, service, first)
        await tasks.queue.reaches(first, "COMPLETED")
        assert tables_with(database, PLANTED) == set()


@pytest.mark.parametrize("end", ["cancelled", "too late"])
async def test_the_credentials_of_a_request_that_never_ran_are_erased(end: str, database: Path) -> None:
    service = Service()
    async with tasking(database, service, concurrency=1) as tasks:
        first = await submit(tasks, "/answers")
        await eventually(lambda: service.running)
        deadline = {"x-fal-request-start-timeout": "0.2"} if end == "too late" else {}
        second = await submit(tasks, "/answers", **deadline)
        if end == "cancelled":
            await tasks.queue.cancel(second)
        await tasks.queue.reaches(second, "COMPLETED")
        service.may_answer.set()
        await tasks.queue.reaches(first, "COMPLETED")
        assert service.running == 1
        assert tables_with(database, PLANTED) == set()


async def test_an_awaiting_job_keeps_only_what_it_still_needs(database: Path) -> None:
    service = Service()
    service.may_answer.set()
    async with tasking(database, service) as tasks:
        first = await submit(tasks, "/answers?hook={callback_url}")
        await eventually(lambda: stored_jobs(database, "state = 'awaiting'"))
        assert tables_with(database, PLANTED) == set()
        await tasks.queue.cancel(first)


@pytest.mark.parametrize("end", ["done", "broken", "cancelled"])
async def test_the_credentials_of_a_polled_task_are_erased_at_its_end(end: str, database: Path) -> None:
    may_end = asyncio.Event()

    async def provider_says(call: Call) -> Reply:
        assert call.headers["authorization"] == f"Bearer {PLANTED}"
        if call.method == "POST":
            return Reply(200)
        return Reply(200, json.dumps({"status": end if may_end.is_set() else "busy"}).encode())

    poll = {"urlTemplate": "/status", "statusPath": "status", "doneValues": ["done"], "failValues": ["broken"], "interval": 0.1}
    async with tasking(database) as tasks, providing(provider_says) as provider:
        created = await tasks.create(f"{provider.url}/start", headers=HEADERS, body=LARGE.decode(), pollConfig=poll)
        task_id = created["task"]["id"]
        await eventually(lambda: len(provider.calls) >= 3)
        assert tables_with(database, PLANTED) == {"task"}  # the next poll needs it
        may_end.set()
        if end == "cancelled":
            await tasks.call("POST", f"/tasks/{task_id}/cancel", 200)
        await tasks.reaches(task_id, {"done": "completed", "broken": "failed"}.get(end, end))
        assert tables_with(database, PLANTED) == set()
        assert PLANTED not in json.dumps(await tasks.read(task_id))
