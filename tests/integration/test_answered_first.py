"""A submission receives its response before its handler runs, because a handler may block the event loop or end the process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

from queue_middleware import QueueMiddleware
from queue_middleware.stores.common import submissions
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.worker import starts
from queue_middleware.worker.early_end import AbortReason
from tests.support.queue_client import DEADLINE, connected, eventually, first_claim_is_over, stored_jobs
from tests.support.raw_asgi import App, Message, Receive, Send, call, http_only, http_scope, respond

pytestmark = pytest.mark.usefixtures("brisk", "course")


class Events:
    """Events in order: `answered` for each response that was passed to a server, `began` for each handler."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def app(self) -> App:
        @http_only
        async def handler(scope: Message, receive: Receive, send: Send) -> None:
            self.seen.append("began")
            time.sleep(0.02)
            await respond(send)

        return handler

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.seen.append("answered")


def make_queue(app: App, database: Path, **options: Any) -> QueueMiddleware:
    return QueueMiddleware(app, database=database, **{"min_free_disk": 0, "shutdown_timeout": 2, **options})


def receiving(body: bytes = b"") -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    return receive


TASK = b'{"targetUrl": "/work"}'
ROUTES = {
    "gateway": ("POST", b"/fal/queue/submit/work", b""),
    "by a link": ("GET", b"/fal/queue/submit/work", b""),
    "queue form": ("POST", b"/fal/queue/run/owner/alias", b"{}"),
    "queue form at a host": ("POST", b"/owner/alias/path", b"{}"),
    "a task": ("POST", b"/fal/queue/v1/tasks", TASK),
}


@pytest.mark.parametrize("route", ROUTES)
async def test_on_an_idle_queue_the_response_comes_first(database: Path, route: str) -> None:
    events, (method, path, body) = Events(), ROUTES[route]
    queue = make_queue(events.app(), database, fal_hosts="service.test" if path.startswith(b"/owner") else ())
    async with queue.running():
        await queue(http_scope(method, path), receiving(body), events.send)
        await eventually(lambda: "began" in events.seen)
    assert events.seen == ["answered", "began"]


@pytest.mark.parametrize("concurrency", [8, 2], ids=["all are claimed at once", "some are claimed later"])
async def test_all_responses_of_one_commit_come_before_their_handlers(database: Path, concurrency: int) -> None:
    events = Events()
    queue = make_queue(events.app(), database, concurrency=concurrency)
    async with queue.running():
        await first_claim_is_over(queue)  # until then it reserves slots
        writer, holding, together = queue._runtime.services.stores.jobs._writer, threading.Event(), threading.Event()
        writer.submit(lambda transaction, _: [holding.set() or together.wait(DEADLINE)], None)
        await eventually(holding.is_set)  # all submissions join the next transaction
        async with asyncio.TaskGroup() as clients:
            for _ in range(8):
                clients.create_task(queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), events.send))
            await eventually(lambda: sum(one.operation is submissions.submit for one in writer._pending) == 8)
            together.set()
        await eventually(lambda: events.seen.count("began") == 8)
    assert events.seen == ["answered"] * 8 + ["began"] * 8


def layered(app: App, layer: Callable[[App], App], layers: int) -> App:
    for _ in range(layers):
        app = layer(app)
    return app


async def _onwards(request: Any, call_next: Any) -> Any:
    return await call_next(request)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize(
    "layer",
    [lambda app: BaseHTTPMiddleware(app, _onwards), lambda app: GZipMiddleware(app, minimum_size=1)],
    ids=["base", "gzip"],
)
async def test_with_middleware_that_forwards_the_response(database: Path, layer: Callable[[App], App], layers: int) -> None:
    events = Events()
    queue = make_queue(events.app(), database)
    async with queue.running():
        await layered(queue, layer, layers)(http_scope("POST", b"/fal/queue/submit/work"), receiving(), events.send)
        await eventually(lambda: "began" in events.seen)
    assert events.seen == ["answered", "began"]


# --- the handler runs in any case


async def test_the_job_runs_if_the_connection_breaks_during_the_response(database: Path) -> None:
    async def broken(message: Message) -> None:
        raise OSError("the client has gone")

    events = Events()
    queue = make_queue(events.app(), database)
    async with queue.running():
        with pytest.raises(OSError, match="gone"):
            await queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), broken)
        await eventually(lambda: events.seen == ["began"], starts.MAX_HOLD * 0.8)


async def test_the_job_runs_if_its_submission_is_cancelled_in_the_commit(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = Events()
    queue = make_queue(events.app(), database)
    submitting: list[asyncio.Task[Any]] = []
    submit = SQLiteStore.submit

    def cancelled(self: SQLiteStore, *arguments: Any, **options: Any) -> Any:
        asyncio.get_running_loop().call_soon(submitting[0].cancel)
        return submit(self, *arguments, **options)

    monkeypatch.setattr(SQLiteStore, "submit", cancelled)
    async with queue.running():
        one = asyncio.create_task(queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), events.send))
        submitting.append(one)
        with pytest.raises(asyncio.CancelledError):
            await one
        await eventually(lambda: events.seen == ["began"], starts.MAX_HOLD * 0.8)
    assert stored_jobs(database, "state = 'completed'") == 1


async def test_a_client_that_does_not_read_occupies_no_slot(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MAX_HOLD", 0.1)

    async def unread(message: Message) -> None:
        await asyncio.Event().wait()

    events = Events()
    queue = make_queue(events.app(), database, concurrency=1, request_timeout=5)
    async with connected(queue) as other:
        blocked = asyncio.create_task(queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), unread))
        await eventually(lambda: events.seen == ["began"])
        assert (await other.run("POST", "/work")).text == "ok"
        blocked.cancel()


async def test_a_request_can_be_cancelled_while_its_response_is_unread(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "MAX_HOLD", 60.0)
    headers: dict[bytes, bytes] = {}
    gate = asyncio.Event()

    async def unread(message: Message) -> None:
        headers.update(message.get("headers", ()))
        await gate.wait()

    events = Events()
    queue = make_queue(events.app(), database)
    async with connected(queue) as other:
        blocked = asyncio.create_task(queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), unread))
        await eventually(lambda: headers)
        request_id = headers[b"x-fal-request-id"].decode()
        assert (await other.cancel(request_id)).status_code == 202
        (attempt,) = queue._runtime.services.worker._slots.running.values()
        await eventually(lambda: attempt.abort_reason is AbortReason.CANCELLED)
        gate.set()
        await blocked
        ended = await other.reaches(request_id, "COMPLETED")
    assert ended["error_type"] == "client_cancelled"
    assert events.seen == []


@pytest.mark.slow
async def test_jobs_not_begun_at_shutdown_are_left_for_the_next_process(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starts, "MAX_HOLD", 60.0)
    sending = asyncio.Event()

    async def unread(message: Message) -> None:
        sending.set()
        await asyncio.Event().wait()

    events = Events()
    queue = make_queue(events.app(), database, shutdown_timeout=0)
    async with queue.running():
        blocked = asyncio.create_task(queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), unread))
        await sending.wait()
    assert stored_jobs(database, "state = 'queued' AND attempt = 0") == 1
    blocked.cancel()
    async with queue.running():
        await eventually(lambda: events.seen == ["began"])


async def test_the_lease_is_renewed_while_the_response_is_unread(database: Path) -> None:
    tokens: list[int] = []

    async def look(message: Message) -> None:
        tokens[:] = queue._runtime.services.worker.tokens()

    queue = make_queue(Events().app(), database)
    async with queue.running():
        await call(queue, http_scope("GET", b"/fal/queue/openapi.json"))
        await queue(http_scope("POST", b"/fal/queue/submit/work"), receiving(), look)
    assert len(tokens) == 1
