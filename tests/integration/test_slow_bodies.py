"""Bodies that stop before their end: refused after a time on every route, without effect on other clients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.support.queue_client import DEADLINE, Queue, serving, stored_jobs
from tests.support.raw_asgi import Message, RawResponse, Receive, Send, call, http_only, http_scope, respond

MIB = 2**20


async def well(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send, b"{}")


async def stalled(queue: Queue, path: str, size: int = 0, address: str = "203.0.113.7", **headers: str) -> RawResponse:
    """Send a request whose body stops after `size` bytes; returns at the response."""
    opening: list[Message] = [{"type": "http.request", "body": b"x" * size, "more_body": True}]

    async def receive() -> Message:
        if opening:
            return opening.pop()
        await anyio.sleep_forever()
        raise AssertionError

    scope = http_scope("POST", path.encode(), headers=[(name.encode(), value.encode()) for name, value in headers.items()])
    return await call(queue.client._transport.app, {**scope, "client": (address, 1)}, receive)  # type: ignore[attr-defined]


async def awaiting_task(queue: Queue, **fields: Any) -> dict[str, Any]:
    """A task that is awaiting an external service."""
    response = await queue.client.post(
        "/fal/queue/v1/tasks", json={"targetUrl": "/x?{callback_url}", "maxWaitTime": 60, **fields}
    )
    assert response.status_code == 201
    return response.json()


@pytest.mark.parametrize("size", [0, 10])
@pytest.mark.parametrize("path", ["/submit/x", "/run/o/a/x", "/v1/tasks", "callback", "signal"])
async def test_every_body_has_a_time_limit(database: Path, path: str, size: int) -> None:
    async with serving(http_only(well), database, body_timeout=0.1) as queue:
        task = await awaiting_task(queue, waitForSignal=True)
        before = stored_jobs(database)
        secret = {"callback": task["callbackUrl"].partition("/fal/queue")[2], "signal": f"/v1/signals/{task['signalToken']}"}
        path = secret.get(path, path)
        with anyio.fail_after(DEADLINE):
            response = await stalled(queue, f"/fal/queue{path}", size)
        assert (response.status, response.headers[b"connection"]) == (408, b"close")
        assert list(json.loads(response.body)) == ["error" if "/v1/" in path else "detail"]
        assert stored_jobs(database) == before
        assert (await queue.client.post(task["callbackUrl"], json={})).status_code == 200


@pytest.mark.parametrize("path", ["/fal/queue/submit/x", "/fal/queue/v1/tasks"])
async def test_stalled_bodies_of_one_client_block_no_other_client(database: Path, path: str) -> None:
    async with serving(http_only(well), database) as queue, anyio.create_task_group() as clients:
        task = await awaiting_task(queue)
        for _ in range(25):
            clients.start_soon(stalled, queue, path, 10 * MIB)
        clients.start_soon(stalled, queue, path, 6 * MIB - 1)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            assert (await queue.client.post("/fal/queue/submit/x", content=b"tiny")).status_code == 200
        assert (await queue.client.post("/fal/queue/submit/x", content=bytes(9 * MIB))).status_code == 200
        assert (await queue.client.post(task["callbackUrl"], json={"result": "paid for"})).status_code == 200
        clients.cancel_scope.cancel()


async def test_stalled_callbacks_block_no_submissions_and_no_other_callbacks(database: Path) -> None:
    async with serving(http_only(well), database) as queue, anyio.create_task_group() as clients:
        tasks = [await awaiting_task(queue) for _ in range(2)]
        path = tasks[0]["callbackUrl"].removeprefix("http://service.test")
        for _ in range(10):
            clients.start_soon(stalled, queue, path, 8 * MIB)
        await anyio.wait_all_tasks_blocked()
        assert (await queue.client.post("/fal/queue/submit/x", content=b"tiny")).status_code == 200
        assert (await queue.client.post(tasks[1]["callbackUrl"], json={"result": "paid for"})).status_code == 200
        clients.cancel_scope.cancel()
