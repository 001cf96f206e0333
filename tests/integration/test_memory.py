"""Long results: each reader uses memory for a few chunks, however many there are and however slowly they read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.jobs.models import CHUNK_SIZE
from tests.support.queue_client import Queue, eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only
from tests.support.webhook_receiver import receiving

SIZE = 24 * CHUNK_SIZE
"""Bytes of the response; as JSON it is six times as long."""
READERS = 8
EACH = 6 * CHUNK_SIZE
"""The bytes of memory for one reader or one webhook: a stored chunk, and a part of it as JSON."""


@http_only
async def app(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for _ in range(3 if scope["path"] == "/short" else SIZE // CHUNK_SIZE):
        await send({"type": "http.response.body", "body": b"\0" * CHUNK_SIZE, "more_body": True})
    await send({"type": "http.response.body", "body": b"the end"})


@contextmanager
def watching() -> Iterator[list[int]]:
    """Measure the peak of allocated memory inside the block, above the level at its start."""
    tracemalloc.start()
    peak = [0]
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        yield peak
        peak[0] = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


class SlowClient:
    """Reads one message of its response, then waits until all other clients have read one."""

    def __init__(self, everybody: list[SlowClient], go_on: asyncio.Event) -> None:
        self._everybody = everybody
        self._go_on = go_on
        self.size = 0
        self.messages = 0
        self.end = b""

    async def receive(self) -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: Message) -> None:
        body = message.get("body", b"")
        self.size += len(body)
        self.end = (self.end + body)[-100:]
        self.messages += 1
        if self.messages == 4:
            if all(client.messages >= 4 for client in self._everybody):
                self._go_on.set()
            await self._go_on.wait()


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Queue]:
    async with serving(app, tmp_path / "queue.sqlite3") as queue:
        yield queue


async def read_slowly(queue: Queue, path: str) -> list[SlowClient]:
    middleware: Any = queue.client._transport.app  # type: ignore[attr-defined]
    clients: list[SlowClient] = []
    go_on = asyncio.Event()
    clients += [SlowClient(clients, go_on) for _ in range(READERS)]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(b"host", b"service.test")], "http_version": "1.1", "scheme": "http", "client": ("192.0.2.1", 1),
        "server": None,
    }  # fmt: skip
    await asyncio.gather(*(middleware(dict(scope), client.receive, client.send) for client in clients))
    return clients


async def test_the_result_of_a_task_is_sent_in_parts(queue: Queue) -> None:
    made = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/work"})
    task_id = made.json()["task"]["id"]
    await queue.reaches(task_id, "COMPLETED")
    with watching() as peak:
        clients = await read_slowly(queue, f"/fal/queue/v1/tasks/{task_id}")
    assert peak[0] <= READERS * EACH
    assert all(client.size > 6 * SIZE and b"the end" in client.end for client in clients)
    whole = await queue.client.get(f"/fal/queue/v1/tasks/{task_id}")
    assert int(whole.headers["content-length"]) == len(whole.content) == clients[0].size
    assert whole.json()["task"]["result"]["body"] == "\0" * SIZE + "the end"


async def test_a_response_is_sent_in_parts(queue: Queue) -> None:
    request_id = await queue.submit("POST", "/work")
    await queue.reaches(request_id, "COMPLETED")
    with watching() as peak:
        clients = await read_slowly(queue, f"/fal/queue/requests/{request_id}/response")
    assert peak[0] <= READERS * EACH
    assert {(client.size, client.end[-7:]) for client in clients} == {(SIZE + 7, b"the end")}


async def test_a_providers_response_is_stored_and_read_in_parts(tmp_path: Path) -> None:
    content = json.dumps({"status": "OK", "text": "x" * (3 * CHUNK_SIZE)}).encode()
    async with serving(app, tmp_path / "queue.sqlite3") as queue:
        made = (
            await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/x?u={callback_url}", "maxWaitTime": 60})
        ).json()
        callback = made["callbackUrl"].replace("http://service.test", "")
        task_id = made["task"]["id"]
        response = await queue.client.post(callback, content=content)
        assert response.status_code == 200
        await queue.reaches(task_id, "COMPLETED")
        task = (await queue.client.get(f"/fal/queue/v1/tasks/{task_id}")).json()["task"]
        assert task["result"]["body"].encode() == content
        assert (await queue.client.get(f"/fal/queue/requests/{task_id}/response")).content == content
        with watching() as peak:
            await read_slowly(queue, f"/fal/queue/requests/{task_id}/response")
        assert peak[0] <= READERS * EACH


async def test_webhooks_with_long_results_are_signed_and_sent_in_parts(tmp_path: Path) -> None:
    secret = "whsec_" + "QUJD" * 8
    async with (
        receiving() as receiver,
        serving(app, tmp_path / "queue.sqlite3", outbound_allow="127.0.0.1", webhook_secret=secret) as queue,
    ):
        made = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/short", "onCompleteUrl": receiver.url})
        task_id = made.json()["task"]["id"]
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task_id))
    assert webhook.content["task"]["result"]["body"] == "\0" * (3 * CHUNK_SIZE) + "the end"
    time, code = webhook.headers["x-asyncqueue-signature"].split(",")
    message = time.removeprefix("t=").encode() + b"." + webhook.body
    assert code == "v1=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()
