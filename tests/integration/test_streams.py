"""The status stream of a real queue: what a client receives from the first event to the end, and what remains afterwards."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sqlite3
import time
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from asgi_lifespan import LifespanManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.web.fal import status_stream
from tests.support.gated_service import GatedService
from tests.support.queue_client import Queue, client_of, connected, eventually, first_claim_is_over
from tests.support.raw_asgi import call, http_scope
from tests.support.sse_client import SSEClient, data_of, open_stream


class Stage(GatedService):
    def __init__(self, database: Path, **options: Any) -> None:
        super().__init__(database, **options)
        self.answers = [200]
        self.on_stage: list[str] = []

    async def work(self, request: Request) -> Response:
        self.on_stage.append(request.path_params["path"])
        await self.go.wait()
        return PlainTextResponse("ünd Schluß", self.answers.pop() if len(self.answers) > 1 else self.answers[0])

    def followers(self) -> int:
        return len(self.app._runtime.services.status_feed._followed)

    def has_listeners(self) -> bool:
        return self.app._runtime.services.stores.jobs._notifier.status_is_wanted


@pytest.fixture
def stage(database: Path) -> Stage:
    return Stage(database)


async def polled(queue: Queue, request_id: str, query: str = "") -> dict[str, Any]:
    return (await queue.client.get(f"/fal/queue/requests/{request_id}/status{query}")).json()


async def test_every_change_of_status_is_an_event(stage: Stage) -> None:
    async with stage.queue() as queue:
        first = await queue.submit("POST", "/first")
        second = await queue.submit("POST", "/second")
        third = await queue.submit("POST", "/third")
        async with open_stream(stage.app, third) as listener:
            event = await listener.event()
            assert (event["status"], event["queue_position"]) == ("IN_QUEUE", 1)
            assert event == await polled(queue, third)
            assert listener.headers == {
                "content-type": "text/event-stream",
                "cache-control": "no-store",
                "x-accel-buffering": "no",
                "x-fal-request-id": third,
            }
            assert listener.start is not None
            assert listener.start["status"] == 200
            await queue.cancel(second)
            event = await listener.event()
            assert (event["status"], event["queue_position"]) == ("IN_QUEUE", 0)
            assert event == await polled(queue, third)
            await queue.cancel(first)
            event = await listener.event()
            assert (event["status"], "queue_position" in event) == ("IN_PROGRESS", False)
            assert event == await polled(queue, third)
            stage.go.set()
            event = await listener.event()
            started = time.monotonic()
            assert event == await polled(queue, third)
            assert event["status"] == "COMPLETED"
            assert await listener.next() == b""
            assert time.monotonic() - started > 0.04
        assert all(write.isascii() for write in listener.writes)
        assert not stage.has_listeners()


async def test_a_completed_request_has_one_event(stage: Stage) -> None:
    stage.go.set()
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "COMPLETED")
        async with open_stream(stage.app, request_id.upper()) as listener:
            assert await listener.event() == await polled(queue, request_id)
            assert await listener.next() == b""
        assert len(listener.writes) == 1
        assert listener.headers["x-fal-request-id"] == request_id


@pytest.mark.parametrize("end", ["cancelled", "failed", "late"])
async def test_every_end_is_an_event(stage: Stage, end: str) -> None:
    stage.answers = [500]
    async with stage.queue() as queue:
        await queue.submit("POST", "/in-front")
        headers = {"x-fal-request-start-timeout": "0.2"} if end == "late" else {}
        request_id = await queue.submit("POST", "/x", headers=headers)
        async with open_stream(stage.app, request_id) as listener:
            await listener.event()
            match end:
                case "cancelled":
                    await queue.cancel(request_id)
                case "failed":
                    stage.go.set()
            event = await listener.until("COMPLETED")
            assert event == await polled(queue, request_id)
            assert event["error"]
            assert await listener.next() == b""


async def test_a_repeated_attempt_goes_back_to_the_queue(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 0.1)
    stage = Stage(database)
    stage.answers = [200, 503]
    stage.go.set()
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        async with open_stream(stage.app, request_id) as listener:
            seen = [(await listener.event())["status"]]
            while seen[-1] != "COMPLETED":
                seen.append((await listener.event())["status"])
        assert seen[-3:] in (
            ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"],
            ["IN_PROGRESS", "IN_QUEUE", "COMPLETED"],
            ["IN_QUEUE", "COMPLETED"],
        )
        assert stage.on_stage == ["x", "x"]


async def test_progress_is_an_event(database: Path) -> None:
    step = asyncio.Event()

    async def work(request: Request) -> Response:
        for number in range(3):
            current_job.report_progress(number / 4, f"stage {number}")
            await step.wait()
            step.clear()
        return PlainTextResponse("")

    app = QueueMiddleware(Starlette(routes=[Route("/", work)]), database=database, min_free_disk=0)
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/")
        async with open_stream(app, request_id) as listener:
            for number in range(3):
                event = await listener.event()
                while event.get("progress") != {"fraction": number / 4, "stage": f"stage {number}"}:
                    event = await listener.event()
                step.set()
            assert (await listener.event())["status"] == "COMPLETED"


async def test_log_lines_come_as_increments(database: Path) -> None:
    step = asyncio.Event()

    async def work(request: Request) -> Response:
        for number in range(4):
            current_job.log(f"{number} one")
            current_job.log(f"{number} two ü")
            await step.wait()
            step.clear()
        current_job.log("last line")
        return PlainTextResponse("")

    app = QueueMiddleware(Starlette(routes=[Route("/", work)]), database=database, min_free_disk=0)
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/")
        async with open_stream(app, request_id, b"logs=1") as listener, open_stream(app, request_id) as other:
            messages: list[str] = []
            for number in range(4):
                while f"{number} two ü" not in messages:
                    messages += [line["message"] for line in (await listener.event())["logs"]]
                step.set()
            await listener.until("COMPLETED")
            await other.until("COMPLETED")
            assert await listener.next() == b""
        lines = [line for event in listener.events for line in event["logs"]]
        assert lines == (await polled(queue, request_id, "?logs=1"))["logs"]
        assert [line["message"] for line in lines] == [f"{n} {text}" for n in range(4) for text in ("one", "two ü")] + [
            "last line"
        ]
        assert all(write.isascii() for write in listener.writes)
        # Clients without `logs` receive no event for new lines.
        assert {event["logs"] for event in other.events} == {None}
        assert len(other.writes) <= 3

        async with open_stream(app, request_id, b"logs=1") as late:
            assert (await late.event())["logs"] == lines


async def test_the_queue_form_has_its_own_urls(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        place = "/fal/queue/run/acme/studio/requests"
        async with open_stream(stage.app, request_id, path=place) as listener:
            event = await listener.event()
            assert event["status_url"] == f"http://service.test{place}/{request_id}/status"
            assert event["response_url"] == f"http://service.test{place}/{request_id}"


async def test_pages_of_configured_origins_can_read_the_stream(database: Path) -> None:
    stage = Stage(database, cors_origins="https://page.example")
    stage.go.set()
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        scope = http_scope(
            "GET", f"/fal/queue/requests/{request_id}/status/stream".encode(), headers=[(b"origin", b"https://page.example")]
        )
        listener = SSEClient()
        await listener.run(stage.app, scope)
        assert listener.headers["access-control-allow-origin"] == "https://page.example"
        assert listener.events[-1]["status"] == "COMPLETED"


async def test_an_unchanged_status_is_not_sent_again(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: stage.on_stage)
        async with open_stream(stage.app, request_id) as listener:
            assert (await listener.event())["status"] == "IN_PROGRESS"
            for _ in range(5):
                await queue.cancel(await queue.submit("POST", "/other"))
            await asyncio.sleep(0.1)
            stage.go.set()
            assert (await listener.event())["status"] == "COMPLETED"
        assert len(listener.writes) == 2


async def test_comments_are_sent_while_there_are_no_events(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert status_stream.PING == 15.0
    monkeypatch.setattr(status_stream, "PING", 0.02)
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: stage.on_stage)
        async with open_stream(stage.app, request_id) as listener:
            await listener.event()
            assert [await listener.next() for _ in range(3)] == [b": ping\n\n"] * 3


async def test_all_clients_of_a_request_receive_the_same_events(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: stage.on_stage)
        async with open_stream(stage.app, request_id) as one, open_stream(stage.app, request_id) as other:
            for listener in (one, other):
                assert (await listener.event())["status"] == "IN_PROGRESS"
            assert stage.followers() == 1
            stage.go.set()
            for listener in (one, other):
                assert (await listener.event())["status"] == "COMPLETED"
        assert one.writes == other.writes


async def test_changes_by_another_process_are_events(database: Path) -> None:
    """Two queues on one file do not share memory, even in one process."""
    working, listened_to = Stage(database), Stage(database, concurrency=1)
    async with working.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: working.on_stage)
        async with listened_to.queue(), open_stream(listened_to.app, request_id) as listener:
            assert (await listener.event())["status"] == "IN_PROGRESS"
            working.go.set()
            assert (await listener.event())["status"] == "COMPLETED"
            assert await listener.next() == b""


# --- no stream


@pytest.mark.parametrize("request_id", ["0192f0c0-0000-7000-8000-000000000000", "nonsense"])
async def test_an_unknown_request_is_a_json_error(stage: Stage, request_id: str) -> None:
    async with stage.queue():
        response = await call(stage.app, http_scope("GET", f"/fal/queue/requests/{request_id}/status/stream".encode()))
        assert (response.status, response.headers[b"content-type"]) == (404, b"application/json")
        assert response.body == b'{"status": "NOT_FOUND"}'
        assert stage.followers() == 0
        assert not stage.has_listeners()


async def test_head_has_the_headers_and_no_events(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        response = await call(stage.app, http_scope("HEAD", f"/fal/queue/requests/{request_id}/status/stream".encode()))
        assert (response.status, response.body) == (200, b"")
        assert response.headers[b"content-type"] == b"text/event-stream"


async def test_other_methods_are_refused(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        response = await queue.client.post(f"/fal/queue/requests/{request_id}/status/stream")
        assert (response.status_code, response.headers["allow"]) == (405, "GET")


# --- the end


async def test_nothing_remains_after_a_client_disconnects(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: stage.on_stage)
        before = asyncio.all_tasks()
        async with open_stream(stage.app, request_id) as listener:
            await listener.event()
            assert (stage.followers(), stage.has_listeners()) == (1, True)
            listener.disconnect()
            await eventually(lambda: listener.ended)
            assert (stage.followers(), stage.has_listeners()) == (0, False)
        await eventually(lambda: asyncio.all_tasks() <= before)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, status_stream.StatusStream)]
        # The queue continues.
        stage.go.set()
        await queue.reaches(request_id, "COMPLETED")


async def test_a_server_that_raises_after_a_disconnect(stage: Stage) -> None:
    """ASGI 2.4 lets `send` raise OSError."""
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                raise ConnectionResetError("gone")

        async with asyncio.timeout(5):
            await stage.app(http_scope("GET", f"/fal/queue/requests/{request_id}/status/stream".encode()), receive, send)
        assert stage.followers() == 0


async def test_a_slow_client_receives_only_the_latest_state(database: Path) -> None:
    stage = Stage(database)
    async with stage.queue() as queue:
        ids = [await queue.submit("POST", f"/{number}") for number in range(12)]
        room = asyncio.Event()
        writes: list[bytes] = []

        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            if message.get("body"):
                writes.append(message["body"])
                if len(writes) == 1:
                    await room.wait()

        scope = http_scope("GET", f"/fal/queue/requests/{ids[-1]}/status/stream".encode())
        listening = asyncio.create_task(stage.app(scope, receive, send))
        await eventually(lambda: writes)
        stage.go.set()
        await queue.reaches(ids[-1], "COMPLETED")
        room.set()
        async with asyncio.timeout(10):
            await listening
        assert len(writes) <= 3  # the first, at most one that was being sent, and the last
        assert b"COMPLETED" in writes[-1]


async def test_deleting_a_request_ends_its_stream(database: Path) -> None:
    """Retention deletes only completed requests, but an operator may delete rows by hand."""
    stage = Stage(database)
    async with stage.queue() as queue:
        await queue.reaches(await queue.submit("POST", "/in-front"), "IN_PROGRESS")
        request_id = await queue.submit("POST", "/x")
        async with open_stream(stage.app, request_id) as listener:
            await listener.event()
            connection = sqlite3.connect(database, isolation_level=None)
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("DELETE FROM job WHERE state = 'queued'")
            connection.close()
            assert await listener.next() == b""


async def test_the_end_of_the_queue_ends_every_stream_at_once(stage: Stage) -> None:
    manager = LifespanManager(stage.app, shutdown_timeout=20)
    await manager.__aenter__()
    await first_claim_is_over(stage.app)
    async with client_of(stage.app) as client:
        request_id = await Queue(client).submit("POST", "/x")
        async with open_stream(stage.app, request_id) as listener:
            await listener.event()
            began = time.monotonic()
            closing = asyncio.create_task(manager.__aexit__(None, None, None))
            assert await listener.next() == b""
            assert time.monotonic() - began < 0.5
            assert listener.ended
            refused = await client.get(f"/fal/queue/requests/{request_id}/status/stream")
            assert refused.status_code == 503
            await closing
    assert len(listener.writes) == 1


async def test_a_termination_signal_ends_streams_before_the_lifespan_ends(stage: Stage) -> None:
    """The server's signal handler runs too, and streams end before the lifespan receives anything."""
    signals: list[int] = []

    def server(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    before = signal.signal(signal.SIGTERM, server)
    try:
        async with stage.queue() as queue:
            request_id = await queue.submit("POST", "/x")
            await eventually(lambda: stage.on_stage)
            assert signal.getsignal(signal.SIGTERM) is server  # unchanged while there are no streams
            async with open_stream(stage.app, request_id) as listener:
                await listener.event()
                began = time.monotonic()
                signal.raise_signal(signal.SIGTERM)
                assert await listener.next() == b""
                assert time.monotonic() - began < 0.5
            assert signals == [signal.SIGTERM]
            response = await queue.client.get(f"/fal/queue/requests/{request_id}/status/stream")
            assert (response.status_code, "retry-after" in response.headers) == (503, True)
            # Everything else continues until the lifespan ends.
            assert (await polled(queue, request_id))["status"] == "IN_PROGRESS"
        assert signal.getsignal(signal.SIGTERM) is server
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_many_listeners_of_many_requests(database: Path) -> None:
    stage = Stage(database, concurrency=2, max_queued_per_client=1000)
    async with stage.queue() as queue:
        ids = [await queue.submit("POST", f"/{number}") for number in range(150)]
        listeners = [SSEClient() for _ in ids]
        calls = [
            asyncio.create_task(
                listener.run(stage.app, http_scope("GET", f"/fal/queue/requests/{request_id}/status/stream".encode()))
            )
            for listener, request_id in zip(listeners, ids, strict=True)
        ]
        for listener in listeners:
            await listener.event()
        stage.go.set()
        await asyncio.gather(*calls)
        for listener, request_id in zip(listeners, ids, strict=True):
            assert listener.events[-1]["status"] == "COMPLETED"
            assert {event["request_id"] for event in listener.events} == {request_id}
            positions = [event["queue_position"] for event in listener.events if "queue_position" in event]
            assert positions == sorted(positions, reverse=True)
        assert not stage.has_listeners()


# --- reconnecting

EVENT_SOURCE = [(b"accept", b"text/event-stream"), (b"cache-control", b"no-cache")]


class Logger:
    """An application whose handler logs two lines at each step."""

    def __init__(self, database: Path) -> None:
        self.step = asyncio.Event()
        self.app = QueueMiddleware(Starlette(routes=[Route("/", self.work)]), database=database, min_free_disk=0)

    async def work(self, request: Request) -> Response:
        for number in range(3):
            current_job.log(f"{number} one")
            current_job.log(f"{number} two")
            await self.step.wait()
            self.step.clear()
        current_job.log("last line")
        return PlainTextResponse("")


async def messages_until(listener: SSEClient, line: str) -> list[str]:
    messages: list[str] = []
    while line not in messages:
        messages += [entry["message"] for entry in json.loads(data_of(await listener.next()))["logs"]]
    return messages


async def test_a_reconnecting_client_receives_no_line_twice(database: Path) -> None:
    talker = Logger(database)
    messages: list[str] = []
    last = b""
    async with connected(talker.app) as queue:
        request_id = await queue.submit("GET", "/")
        for number in range(3):
            headers = [*EVENT_SOURCE, *([(b"last-event-id", last)] if last else [])]
            async with open_stream(talker.app, request_id, b"logs=1", headers=headers) as listener:
                messages += await messages_until(listener, f"{number} two")
                last = listener.ids[-1]
                assert last == b"%d" % (2 * number + 2)
            talker.step.set()
        async with open_stream(talker.app, request_id, b"logs=1", headers=[(b"last-event-id", last)]) as listener:
            messages += await messages_until(listener, "last line")
            while not listener.ended:
                await listener.next()
            last = listener.ids[-1]
            assert last == b"7.end"
        whole = [entry["message"] for entry in await queue.logs(request_id)]
    assert messages == whole == [*(f"{number} {text}" for number in range(3) for text in ("one", "two")), "last line"]


async def test_a_reconnection_after_the_end_is_refused(stage: Stage) -> None:
    stage.go.set()
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        async with open_stream(stage.app, request_id, headers=EVENT_SOURCE) as listener:
            while not listener.ended:
                await listener.next()
        assert listener.events[-1]["status"] == "COMPLETED"
        path = f"/fal/queue/requests/{request_id}/status/stream".encode()
        again = await call(stage.app, http_scope("GET", path, headers=[*EVENT_SOURCE, (b"last-event-id", listener.ids[-1])]))
        assert (again.status, again.body) == (204, b"")
        assert again.headers == {b"cache-control": b"no-store", b"x-fal-request-id": request_id.encode()}
        assert stage.followers() == 0
        for other in (b"0", b"nonsense"):
            response = await call(stage.app, http_scope("GET", path, headers=[(b"last-event-id", other)]))
            assert (response.status, b'"COMPLETED"' in response.body) == (200, True)


async def test_a_reconnection_before_the_end_waits_for_it(stage: Stage) -> None:
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        async with open_stream(stage.app, request_id, headers=[(b"last-event-id", b"0.end")]) as listener:
            await listener.next()
            stage.go.set()
            while not listener.ended:
                await listener.next()
            assert listener.events[-1]["status"] == "COMPLETED"


@pytest.mark.parametrize(
    "headers",
    [[], [(b"accept", b"text/event-stream")], [(b"accept", b"text/event-stream"), (b"cache-control", b"no-store")]],
    ids=["none", "fal-js", "httpx-sse"],
)
async def test_fals_clients_receive_fals_events(stage: Stage, headers: list[tuple[bytes, bytes]]) -> None:
    stage.go.set()
    async with stage.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        async with open_stream(stage.app, request_id, headers=headers) as listener:
            while not listener.ended:
                await listener.next()
        assert all(write.startswith(b"data: {") and write.count(b"\n") == 2 for write in listener.writes)
