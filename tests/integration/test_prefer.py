"""`Prefer: wait=N`: a client waits for the status, the response or the receipt instead of polling (RFC 7240)."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
import pytest
from asgi_lifespan import LifespanManager
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from queue_middleware.errors import StoreBusy
from tests.support.gated_service import GatedService
from tests.support.queue_client import Queue, client_of, eventually, stored_jobs
from tests.support.raw_asgi import Message, RawResponse, http_scope

GATEWAY = "/fal/queue/requests"
QUEUE_FORM = "/fal/queue/run/acme/studio/requests"
KEYS = {"api_keys": "alice:0123456789,bob:0123456789"}


class Service(GatedService):
    def __init__(self, database: Path, **options: Any) -> None:
        super().__init__(database, **options)
        self.status = 200
        self.calls: list[Request] = []

    async def work(self, request: Request) -> Response:
        self.calls.append(request)
        await self.go.wait()
        return JSONResponse({"done": True}, self.status, {"retry-after": "60"} if self.status == 503 else None)

    @property
    def followed(self) -> int:
        """The number of subscriptions to states."""
        feed = self.app._runtime.services.status_feed
        return sum(followed.states_only for followed in feed._followed.values())

    async def waiting(self, count: int = 1) -> None:
        """Return when this many clients wait."""
        await eventually(lambda: self.followed == count)


@pytest.fixture
def service(database: Path) -> Service:
    return Service(database)


def wait(seconds: int | str = 60) -> dict[str, str]:
    return {"Prefer": f"wait={seconds}"}


def get(queue: Queue, path: str, seconds: int | str = 60, **headers: str) -> asyncio.Task[httpx.Response]:
    """Send a request that waits."""
    return asyncio.create_task(queue.client.get(path, headers={**wait(seconds), **headers}))


def applied(response: httpx.Response) -> str | None:
    return response.headers.get("preference-applied")


def without_wait(response: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What must not depend on whether the client waited."""
    headers = {name: value for name, value in response.headers.items() if name not in ("preference-applied", "vary")}
    return response.status_code, response.content, headers


# --- status


@pytest.mark.parametrize("place", [GATEWAY, QUEUE_FORM])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_status_is_sent_at_each_change(service: Service, place: str, method: str) -> None:
    async with service.queue() as queue:
        first = await queue.submit("POST", "/first")
        second = await queue.submit("POST", "/second")
        url = f"{place}/{second}/status"
        for expected in ("IN_PROGRESS", "COMPLETED"):
            poll = asyncio.create_task(queue.client.request(method, url, headers=wait()))
            await service.waiting()
            assert not poll.done()
            if expected == "IN_PROGRESS":
                await queue.cancel(first)
            else:
                service.go.set()
            response = await poll
            assert (response.json()["status"], applied(response)) == (expected, "wait=60")
            assert response.headers["vary"] == "prefer"
            assert without_wait(response) == without_wait(await queue.client.request(method, url))
        assert service.followed == 0


async def test_a_new_position_is_not_a_change(service: Service) -> None:
    async with service.queue() as queue:
        await queue.reaches(await queue.submit("POST", "/first"), "IN_PROGRESS")
        second, third = [await queue.submit("POST", f"/{number}") for number in range(2)]
        poll = get(queue, f"{GATEWAY}/{third}/status", 1)
        await service.waiting()
        await queue.cancel(second)
        response = await poll
        assert (response.json()["status"], response.json()["queue_position"]) == ("IN_QUEUE", 0)
        assert (response.status_code, applied(response)) == (202, "wait=1")


async def test_a_completed_request_is_not_waited_for(service: Service) -> None:
    service.go.set()
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "COMPLETED")
        for url in (f"{GATEWAY}/{request_id}/status", f"{GATEWAY}/{request_id}/response", f"{QUEUE_FORM}/{request_id}"):
            response = await queue.client.get(url, headers=wait())
            assert (response.status_code, applied(response)) == (200, "wait=60")
            assert without_wait(response) == without_wait(await queue.client.get(url))


@pytest.mark.parametrize("preference", ["wait=0", "wait=0, respond-async", "wait = 00"])
async def test_no_seconds_at_all_are_a_preference_too(service: Service, preference: str) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        response = await queue.client.get(f"{GATEWAY}/{request_id}/status", headers={"Prefer": preference})
        assert (response.status_code, applied(response)) == (202, "wait=0")


@pytest.mark.parametrize("preference", ["", "wait", "wait=soon", "wait=-1", "respond-async", "handling=lenient", 'wait="'])
async def test_other_and_malformed_preferences_change_nothing(service: Service, preference: str) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
        for end in ("status", "response"):
            url = f"{GATEWAY}/{request_id}/{end}"
            response = await queue.client.get(url, headers={"Prefer": preference})
            plain = await queue.client.get(url)
            assert (response.status_code, response.content, response.headers) == (
                plain.status_code, plain.content, plain.headers
            )  # fmt: skip


async def test_longer_waits_are_cut(service: Service) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        poll = get(queue, f"{GATEWAY}/{request_id}/response", 3600)
        await service.waiting()
        service.go.set()
        assert applied(await poll) == "wait=60"


# --- response


@pytest.mark.parametrize("path", [f"{GATEWAY}/{{}}/response", f"{QUEUE_FORM}/{{}}", "/fal/queue/{}/response"])
@pytest.mark.parametrize("status", [200, 500])
async def test_the_response_is_sent_at_the_end(service: Service, path: str, status: int) -> None:
    service.status = status
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        poll = get(queue, path.format(request_id))
        await service.waiting()
        service.go.set()
        response = await poll
        assert (response.status_code, response.json(), applied(response)) == (status, {"done": True}, "wait=60")
        assert "prefer" in response.headers["vary"]
        assert without_wait(response) == without_wait(await queue.client.get(path.format(request_id)))


async def test_a_start_does_not_end_the_wait_for_the_response(service: Service) -> None:
    async with service.queue() as queue:
        first = await queue.submit("POST", "/first")
        second = await queue.submit("POST", "/second")
        poll = get(queue, f"{GATEWAY}/{second}/response")
        await service.waiting()
        await queue.cancel(first)
        await queue.reaches(second, "IN_PROGRESS")
        assert not poll.done()
        service.go.set()
        assert (await poll).json() == {"done": True}


async def test_after_the_wait_the_response_is_what_it_is_without_waiting(service: Service) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        url = f"{GATEWAY}/{request_id}/response"
        response, plain = await get(queue, url, 1), await queue.client.get(url)
        assert (response.status_code, response.content, applied(response)) == (400, plain.content, "wait=1")
        assert without_wait(response) == without_wait(plain)
        assert response.headers["vary"] == plain.headers["vary"] == "prefer"


async def test_head_waits_too(service: Service) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        poll = asyncio.create_task(queue.client.head(f"{GATEWAY}/{request_id}/response", headers=wait()))
        await service.waiting()
        service.go.set()
        response = await poll
        assert (response.status_code, applied(response)) == (200, "wait=60")


@pytest.mark.parametrize("end", ["cancelled", "cancelled while queued", "expired", "deleted"])
@pytest.mark.parametrize("kind", ["status", "response"])
async def test_every_end_ends_the_wait(service: Service, database: Path, end: str, kind: str) -> None:
    async with service.queue() as queue:
        if end != "cancelled":
            await queue.reaches(await queue.submit("POST", "/first"), "IN_PROGRESS")
        options = {"x-fal-request-start-timeout": "0.5"} if end == "expired" else {}
        request_id = await queue.submit("POST", "/x", headers=options)
        if end == "cancelled":
            await queue.reaches(request_id, "IN_PROGRESS")
        poll = get(queue, f"{GATEWAY}/{request_id}/{kind}")
        await eventually(lambda: service.followed or poll.done())
        if end.startswith("cancelled"):
            await queue.cancel(request_id)
        elif end == "deleted":
            with sqlite3.connect(database, isolation_level=None) as connection:
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("DELETE FROM job WHERE state = 'queued'")
            connection.close()
            await queue.submit("POST", "/other")  # a commit of the queue itself is noticed at once
        response = await poll
        if end == "deleted":
            assert (response.status_code, applied(response)) == (404, None)
            return
        assert (applied(response), response.headers["vary"]) == ("wait=60", "prefer")
        plain = await queue.client.get(f"{GATEWAY}/{request_id}/{kind}")
        assert without_wait(response) == without_wait(plain)
        if kind == "status":
            assert (response.json()["status"], bool(response.json()["error"])) == ("COMPLETED", True)
        else:
            assert response.status_code >= 400
            assert response.headers["x-fal-request-id"] == request_id


async def test_an_unknown_request_is_not_waited_for(service: Service) -> None:
    async with service.queue() as queue:
        for request_id in ("0192f0c0-0000-7000-8000-000000000000", "nonsense"):
            for kind in ("status", "response"):
                response = await queue.client.get(f"{GATEWAY}/{request_id}/{kind}", headers=wait())
                assert (response.status_code, applied(response)) == (404, None)


async def test_a_request_of_another_submitter_is_not_waited_for(database: Path) -> None:
    service = Service(database, **KEYS)
    alice, bob = {"x-api-key": "alice:0123456789"}, {"x-api-key": "bob:0123456789"}
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x", headers=alice)
        for kind in ("status", "response"):
            response = await queue.client.get(f"{GATEWAY}/{request_id}/{kind}", headers={**bob, **wait()})
            assert (response.status_code, applied(response)) == (404, None)
        poll = get(queue, f"{GATEWAY}/{request_id}/response", **alice)
        await service.waiting()
        service.go.set()
        assert (await poll).status_code == 200


# --- several waits, several processes


async def test_all_waits_for_one_request_end_together(service: Service) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
        polls = [get(queue, f"{GATEWAY}/{request_id}/{kind}") for kind in ("status", "status", "response", "response")]
        await service.waiting(4)
        service.go.set()
        assert [(await poll).status_code for poll in polls] == [200] * 4
        assert service.followed == 0


async def test_changes_by_another_process_end_the_wait(database: Path) -> None:
    """Two queues on one file do not share memory, even in one process."""
    working, waiting = Service(database), Service(database)
    async with working.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
        async with waiting.queue() as other:
            polls = [get(other, f"{GATEWAY}/{request_id}/{kind}") for kind in ("status", "response")]
            await waiting.waiting(2)
            working.go.set()
            responses = [await poll for poll in polls]
            assert [response.status_code for response in responses] == [200, 200]
            assert (responses[0].json()["status"], responses[1].json()) == ("COMPLETED", {"done": True})
        assert waiting.calls == []


async def test_waiting_reads_nothing_while_nothing_changes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async with service.queue() as queue:
        await queue.submit("POST", "/first")
        ids = [await queue.submit("POST", f"/{number}") for number in range(20)]
        polls = [get(queue, f"{GATEWAY}/{request_id}/status", 2) for request_id in ids]
        await service.waiting(20)
        store, reads = service.app._runtime.services.stores.jobs, []
        with monkeypatch.context() as patch:
            for name in ("job", "changed", "snapshots", "result"):
                patch.setattr(store, name, reads.append)
            done, _ = await asyncio.wait(polls, timeout=1)
            assert (done, reads) == (set(), [])
        await queue.cancel(ids[0])
        assert (await polls[0]).json()["status"] == "COMPLETED"
        assert {(await poll).json()["status"] for poll in polls[1:]} == {"IN_QUEUE"}


# --- the end of the process, of the connection, of the patience with one client


async def test_a_termination_signal_ends_waits_with_the_present_status(service: Service) -> None:
    def server(number: int, frame: FrameType | None) -> None:
        """What a server does at a signal."""

    before = signal.signal(signal.SIGTERM, server)
    try:
        async with service.queue() as queue:
            request_id = await queue.submit("POST", "/x")
            await queue.reaches(request_id, "IN_PROGRESS")
            status, response = get(queue, f"{GATEWAY}/{request_id}/status"), get(queue, f"{GATEWAY}/{request_id}/response")
            submitting = asyncio.create_task(queue.client.post("/fal/queue/submit/y", headers=wait()))
            await service.waiting(3)
            signal.raise_signal(signal.SIGTERM)
            assert ((await status).status_code, (await status).json()["status"]) == (202, "IN_PROGRESS")
            assert (await response).status_code == 400
            receipt = await submitting
            assert (receipt.status_code, receipt.json()["status"], receipt.json()["queue_position"]) == (200, "IN_QUEUE", 0)
            assert {applied(each) for each in (await status, await response, receipt)} == {None}
            # Until the lifespan ends, requests are served as usual, without waiting.
            late = await queue.client.get(f"{GATEWAY}/{request_id}/status", headers=wait())
            assert (late.status_code, late.json()["status"], applied(late)) == (202, "IN_PROGRESS", None)
            receipt = await queue.client.post("/fal/queue/submit/z", headers=wait())
            assert (receipt.status_code, receipt.json()["status"], applied(receipt)) == (200, "IN_QUEUE", None)
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_the_end_of_the_lifespan_ends_waits(service: Service) -> None:
    manager = LifespanManager(service.app, shutdown_timeout=20)
    await manager.__aenter__()
    async with client_of(service.app) as client:
        queue = Queue(client)
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
        poll = get(queue, f"{GATEWAY}/{request_id}/status")
        await service.waiting()
        closing = asyncio.create_task(manager.__aexit__(None, None, None))
        response = await poll
        assert (response.status_code, response.json()["status"]) == (202, "IN_PROGRESS")
        assert not closing.done()
        await closing


class Connection:
    """One request over a connection that the test closes."""

    def __init__(self, app: Any, method: str, path: str, *headers: tuple[bytes, bytes], body: bytes = b"") -> None:
        self.response = RawResponse()
        self._gone = asyncio.Event()
        self._body = [{"type": "http.request", "body": body, "more_body": False}]
        self.task = asyncio.create_task(app(http_scope(method, path.encode(), headers=headers), self._receive, self._send))

    async def _receive(self) -> Message:
        if self._body:
            return self._body.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.response.messages.append(message)

    def close(self) -> None:
        self._gone.set()


@pytest.mark.parametrize("kind", ["status", "response", "receipt", "task"])
async def test_nothing_remains_of_a_client_that_has_gone(service: Service, kind: str) -> None:
    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await eventually(lambda: service.calls)
        before = asyncio.all_tasks()
        method, path = "GET", f"{GATEWAY}/{request_id}/{kind}"
        if kind == "receipt":
            method, path = "POST", "/fal/queue/submit/y"
        elif kind == "task":
            path = f"/fal/queue/v1/tasks/{await created_task(queue)}"
        connection = Connection(service.app, method, path, (b"prefer", b"wait=60"))
        await service.waiting()
        connection.close()
        await connection.task
        assert connection.response.messages == []
        assert service.followed == 0
        await eventually(lambda: asyncio.all_tasks() <= before)
        service.go.set()
        await queue.reaches(request_id, "COMPLETED")
        expected = 1 if kind in ("status", "response") else 2
        await eventually(lambda: len(service.calls) == expected)  # only the receipt is lost


@pytest.mark.parametrize("kind", ["status", "receipt"])
async def test_a_receive_that_repeats_the_body_does_not_stop_the_event_loop(service: Service, kind: str) -> None:
    """Middlewares that read the body first often pass on a `receive` that returns it again and again, without waiting."""
    calls = 0

    async def receive() -> Message:
        nonlocal calls
        calls += 1
        assert calls < 1000, "called again and again"
        return {"type": "http.request", "body": b"", "more_body": False}

    async with service.queue() as queue:
        request_id = await queue.submit("POST", "/x")
        await queue.reaches(request_id, "IN_PROGRESS")
        method, path = ("GET", f"{GATEWAY}/{request_id}/status") if kind == "status" else ("POST", "/fal/queue/submit/y")
        response = RawResponse()

        async def send(message: Message) -> None:
            response.messages.append(message)

        scope = http_scope(method, path.encode(), headers=((b"prefer", b"wait=60"),))
        serving = asyncio.create_task(service.app(scope, receive, send))
        await eventually(lambda: service.followed or serving.done())
        await queue.cancel(request_id)
        service.go.set()
        await serving
        assert json.loads(response.body)["status"] == "COMPLETED"


async def created_task(queue: Queue) -> str:
    created = await queue.client.post("/fal/queue/v1/tasks", json={"targetUrl": "/work"})
    return str(created.json()["task"]["id"])


async def test_one_client_cannot_wait_any_number_of_times(database: Path) -> None:
    service = Service(database, max_queued_per_client=2, **KEYS)
    alice, bob = {"x-api-key": "alice:0123456789"}, {"x-api-key": "bob:0123456789"}
    async with service.queue() as queue:
        mine = await queue.submit("POST", "/x", headers=alice)
        await eventually(lambda: service.calls)
        other = await queue.submit("POST", "/y", headers=bob)
        polls = [get(queue, f"{GATEWAY}/{mine}/{kind}", **alice) for kind in ("status", "response")]
        await service.waiting(2)
        refused = await queue.client.get(f"{GATEWAY}/{mine}/status", headers={**alice, **wait()})
        assert (refused.status_code, refused.json()["status"], applied(refused)) == (202, "IN_PROGRESS", None)
        polls.append(get(queue, f"{GATEWAY}/{other}/response", **bob))
        await service.waiting(3)
        service.go.set()
        assert [applied(await poll) for poll in polls] == ["wait=60"] * 3
        # The places are free again.
        again = await queue.submit("POST", "/x", headers=alice)
        assert applied(await queue.client.get(f"{GATEWAY}/{again}/response", headers={**alice, **wait()})) == "wait=60"


# --- receipts


@pytest.mark.parametrize("path", ["/fal/queue/submit/x", "/fal/queue/run/acme/studio/x"])
async def test_the_receipt_has_the_status_at_the_end(service: Service, path: str) -> None:
    async with service.queue() as queue:
        submitting = asyncio.create_task(queue.client.post(path, headers=wait(), json={"size": 2}))
        await eventually(lambda: service.calls)  # the attempt does not wait for the receipt
        await service.waiting()
        assert not submitting.done()
        service.go.set()
        receipt = await submitting
        assert (receipt.status_code, applied(receipt), receipt.headers["vary"]) == (200, "wait=60", "prefer")
        value = receipt.json()
        assert (value["status"], value["gateway_request_id"]) == ("COMPLETED", value["request_id"])
        assert receipt.headers["x-fal-request-id"] == value["request_id"]
        assert (await queue.client.get(value["response_url"])).json() == {"done": True}
        plain = (await queue.client.post(path)).json()
        assert value.keys() | {"queue_position"} == plain.keys()


async def test_after_the_wait_the_receipt_has_the_present_status(service: Service) -> None:
    async with service.queue() as queue:
        receipts = await asyncio.gather(*[queue.client.post("/fal/queue/submit/x", headers=wait(1)) for _ in range(2)])
        assert sorted(receipt.json()["status"] for receipt in receipts) == ["IN_PROGRESS", "IN_QUEUE"]
        assert {applied(receipt) for receipt in receipts} == {"wait=1"}
        assert [receipt.json().get("queue_position") for receipt in receipts if receipt.json()["status"] == "IN_QUEUE"] == [0]


@pytest.mark.parametrize(
    ("preference", "expected"),
    [
        ("respond-async", "respond-async"),
        ("respond-async, wait=0", "respond-async, wait=0"),
        ("wait=0", "wait=0"),
        ("wait=soon", None),
        ("wait=soon, respond-async", "respond-async"),
        ("handling=lenient", None),
    ],
)
async def test_a_receipt_that_is_sent_at_once(service: Service, preference: str, expected: str | None) -> None:
    async with service.queue() as queue:
        receipt = await queue.client.post("/fal/queue/submit/x", headers={"Prefer": preference})
        assert (receipt.status_code, applied(receipt)) == (200, expected)
        assert receipt.json()["status"] in ("IN_QUEUE", "IN_PROGRESS")
        assert service.followed == 0


@pytest.mark.parametrize("preference", ["respond-async", "wait=0", "wait=soon"])
async def test_an_attempt_begins_after_a_receipt_that_is_sent_at_once(database: Path, preference: str) -> None:
    """Decision 0021: a handler may block the event loop, or end the process, in its first step."""
    service = Service(database, concurrency=4)  # so that slots are free while the worker looks for queued requests
    began_before: list[int] = []

    async def send(message: Message) -> None:
        for _ in range(500):  # turns of the event loop
            await asyncio.sleep(0)
        began_before.append(len(service.calls))

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async with service.queue():
        scope = http_scope("POST", b"/fal/queue/submit/x", headers=((b"prefer", preference.encode()),))
        await service.app(scope, receive, send)
        assert began_before == [0, 0]
        await eventually(lambda: service.calls)


async def test_asynchronous_unless_it_is_quick(service: Service) -> None:
    """RFC 7240 §4.3: both together."""
    service.go.set()
    async with service.queue() as queue:
        receipt = await queue.client.post("/fal/queue/submit/x", headers={"Prefer": "respond-async, wait=10"})
        assert (receipt.json()["status"], applied(receipt)) == ("COMPLETED", "respond-async, wait=10")


async def test_the_application_receives_only_other_preferences(service: Service) -> None:
    service.go.set()
    async with service.queue() as queue:
        sent = [
            ("Prefer", 'wait=5, handling=lenient;x="a, wait=1"'),
            ("Prefer", "respond-async"),
            ("Prefer", "return=minimal ,  timezone=UTC"),
        ]
        receipt = await queue.client.post("/fal/queue/submit/x", headers=sent)
        assert receipt.json()["status"] == "COMPLETED"
        assert service.calls[0].headers.getlist("prefer") == [
            'handling=lenient;x="a, wait=1"',
            "return=minimal ,  timezone=UTC",
        ]
        await queue.client.post("/fal/queue/submit/x", headers=wait(5))
        assert "prefer" not in service.calls[1].headers


async def test_a_database_that_fails_during_the_wait_does_not_make_the_submission_fail(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error would make the client submit again."""
    async with service.queue() as queue:
        submitting = asyncio.create_task(queue.client.post("/fal/queue/submit/x", headers=wait()))
        await service.waiting()

        async def busy(request_id: str) -> None:
            raise StoreBusy("busy", 5)

        monkeypatch.setattr(service.app._runtime.services.stores.jobs, "job", busy)
        service.go.set()
        receipt = await submitting
        assert (receipt.status_code, receipt.json()["status"], applied(receipt)) == (200, "IN_QUEUE", None)
        monkeypatch.undo()
        await queue.reaches(receipt.json()["request_id"], "COMPLETED")


@pytest.mark.parametrize("begins", [False, True], ids=["queued", "begun"])
async def test_the_body_is_not_in_memory_while_its_receipt_waits(database: Path, begins: bool) -> None:
    """Nor that of a request that begins at once, when its attempt has ended; here each waits for its next one."""
    size, count = 2**20, 16
    service = Service(database, concurrency=count, max_attempts=2)
    service.status = 503
    async with service.queue() as queue:
        if begins:
            service.go.set()
        else:
            for _ in range(count):
                await queue.submit("POST", "/first")
            await eventually(lambda: len(service.calls) == count)
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            connections = [
                Connection(service.app, "POST", "/fal/queue/submit/x", (b"prefer", b"wait=60"), body=b"x" * size)
                for _ in range(count)
            ]
            await service.waiting(count)
            await eventually(lambda: stored_jobs(database, f"state = '{'delayed' if begins else 'queued'}'") == count)
            service.calls.clear()
            await eventually(lambda: tracemalloc.get_traced_memory()[0] - before < 4 * size)
        finally:
            tracemalloc.stop()
        for connection in connections:
            connection.close()
            await connection.task


async def test_a_repeated_submission_waits_for_the_same_request(service: Service) -> None:
    headers = {"Idempotency-Key": "once", **wait()}
    async with service.queue() as queue:
        first = asyncio.create_task(queue.client.post("/fal/queue/submit/x", headers=headers))
        await service.waiting()
        again = asyncio.create_task(queue.client.post("/fal/queue/submit/x", headers=headers))
        await service.waiting(2)
        service.go.set()
        receipts = await first, await again
        assert {receipt.json()["status"] for receipt in receipts} == {"COMPLETED"}
        assert len({receipt.json()["request_id"] for receipt in receipts}) == len(service.calls) == 1
        assert [receipt.headers.get("idempotency-replayed") for receipt in receipts] == [None, "true"]


# --- tasks


async def test_a_task_is_sent_at_each_change(service: Service) -> None:
    async with service.queue() as queue:
        first = await queue.submit("POST", "/first")
        task_id = await created_task(queue)
        url = f"/fal/queue/v1/tasks/{task_id}"
        changes: list[tuple[Callable[[], Awaitable[Any]], str]] = [
            (lambda: queue.cancel(first), "processing"),
            (lambda: queue.client.post(f"{url}/cancel"), "cancelled"),
        ]
        for change, expected in changes:
            poll = get(queue, url)
            await service.waiting()
            await change()
            response = await poll
            assert (response.json()["task"]["status"], applied(response)) == (expected, "wait=60")
            assert response.headers["vary"] == "prefer"
        at_once = await queue.client.get(url, headers=wait())
        assert (at_once.json()["task"]["status"], applied(at_once)) == ("cancelled", "wait=60")


async def test_the_header_goes_before_the_parameter_of_a_task(service: Service) -> None:
    async with service.queue() as queue:
        await queue.submit("POST", "/first")
        url = f"/fal/queue/v1/tasks/{await created_task(queue)}"
        response = await queue.client.get(f"{url}?wait=20", headers=wait(0))
        assert (response.json()["task"]["status"], applied(response)) == ("pending", "wait=0")
        polled = await queue.client.get(f"{url}?wait=1")
        assert (polled.json()["task"]["status"], applied(polled)) == ("pending", None)


# --- browsers


async def test_pages_of_configured_origins_may_wait(database: Path) -> None:
    service = Service(database, cors_origins="https://page.example")
    service.go.set()
    async with service.queue() as queue:
        origin = {"Origin": "https://page.example"}
        preflight = await queue.client.options(
            "/fal/queue/submit/x", headers={**origin, "Access-Control-Request-Method": "POST"}
        )
        assert "prefer" in preflight.headers["access-control-allow-headers"].split(", ")
        receipt = await queue.client.post("/fal/queue/submit/x", headers={**origin, **wait()})
        assert "preference-applied" in receipt.headers["access-control-expose-headers"].split(", ")
        status = await queue.client.get(f"{GATEWAY}/{receipt.json()['request_id']}/status", headers={**origin, **wait()})
        assert set(status.headers["vary"].split(", ")) == {"prefer", "origin"}
