"""The backup as described in the documentation: made while the queue runs, and used by a new service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from queue_middleware.stores import administer
from tests.support.queue_client import eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond


@pytest.mark.slow
async def test_a_service_continues_from_a_backup_made_while_the_queue_ran(database: Path, tmp_path: Path) -> None:
    gate = asyncio.Event()
    entered: list[bytes] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        entered.append(scope["raw_path"])
        if scope["raw_path"] == b"/slow":
            await gate.wait()
        await respond(send, scope["raw_path"])

    copy = tmp_path / "restored" / "queue.sqlite3"
    copy.parent.mkdir()
    async with serving(app, database, concurrency=1, lease=0.5, shutdown_timeout=0) as queue:
        done = await queue.submit("POST", "/done")
        await queue.response(done)
        slow = await queue.submit("POST", "/slow")
        await eventually(lambda: b"/slow" in entered)
        waiting = await queue.submit("POST", "/waiting")
        made = await asyncio.to_thread(administer(str(database)).back_up, copy)
        assert len(made.files) == 3
        keys = (await queue.client.get("/fal/queue/.well-known/jwks.json")).json()
        # Jobs submitted after the backup are not in it and do not disturb it.
        lost = await queue.submit("POST", "/lost")
    gate.set()
    async with serving(app, copy, concurrency=1, lease=0.5) as queue:
        assert [(await queue.response(one)).text for one in (done, slow, waiting)] == ["/done", "/slow", "/waiting"]
        assert entered.count(b"/done") == 1
        assert (await queue.client.get(f"/fal/queue/requests/{lost}/status")).status_code == 404
        assert (await queue.client.get("/fal/queue/.well-known/jwks.json")).json() == keys
