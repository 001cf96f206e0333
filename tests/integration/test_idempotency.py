"""`Idempotency-Key`: a submission or a task that is sent again is not created again."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.requests import HTTPConnection

from queue_middleware import QueueMiddleware
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.tasks.models import TaskRecord
from tests.support.queue_client import Queue, connected, serving, stored_jobs
from tests.support.raw_asgi import Message, Receive, Send, call, http_only, http_scope, respond

KEY = {"idempotency-key": "6f9619ff"}
ALICE, BOB = {"authorization": "Key alice:0123456789"}, {"authorization": "Key bob:0123456789"}
SUBMIT = "/fal/queue/submit/work"
TASKS = "/fal/queue/v1/tasks"
RECEIPT = {"status", "request_id", "response_url", "status_url", "cancel_url", "logs", "metrics", "gateway_request_id"}


class Gate:
    """An application that responds once it is allowed to."""

    def __init__(self) -> None:
        self.calls: list[dict[bytes, bytes]] = []
        self.open = asyncio.Event()
        self.status = 200

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.calls.append(dict(scope["headers"]))
        await self.open.wait()
        await respond(send, b'"done"', self.status, [(b"content-type", b"application/json")])


@asynccontextmanager
async def gated(database: Path, **options: Any) -> AsyncIterator[tuple[Queue, Gate]]:
    gate = Gate()
    async with serving(http_only(gate), database, **options) as queue:
        try:
            yield queue, gate
        finally:
            gate.open.set()


async def post(queue: Queue, url: str = SUBMIT, body: bytes = b"{}", **headers: str) -> httpx.Response:
    return await queue.client.post(url, content=body, headers={**KEY, **headers})


def receipt(response: httpx.Response, *, replayed: bool) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    assert response.headers.get("idempotency-replayed") == ("true" if replayed else None)
    content: dict[str, Any] = response.json()
    assert response.headers["x-fal-request-id"] == content["request_id"] == content["gateway_request_id"]
    return content


@pytest.mark.parametrize("url", [SUBMIT, "/fal/queue/run/owner/app/work"])
async def test_the_receipt_is_repeated_with_the_present_status(database: Path, url: str) -> None:
    async with gated(database, concurrency=1) as (queue, gate):
        await queue.reaches(await queue.submit("POST", "/first"), "IN_PROGRESS")
        first = receipt(await post(queue, url), replayed=False)
        second = receipt(await post(queue, url), replayed=True)
        assert second == first
        assert (second["status"], second["queue_position"]) == ("IN_QUEUE", 0)
        gate.open.set()
        await queue.reaches(first["request_id"], "COMPLETED")
        third = receipt(await post(queue, url), replayed=True)
        assert third["status"] == "COMPLETED"
        assert set(third) == RECEIPT
        assert third["metrics"].keys() == {"inference_time"}
        same = RECEIPT - {"status", "metrics"}
        assert {name: third[name] for name in same} == {name: first[name] for name in same}
        assert (await queue.client.get(third["response_url"])).text == '"done"'
        assert len(gate.calls) == 2


async def test_the_receipt_of_a_running_request(database: Path) -> None:
    async with gated(database) as (queue, gate):
        first = receipt(await post(queue), replayed=False)
        await queue.reaches(first["request_id"], "IN_PROGRESS")
        again = receipt(await post(queue), replayed=True)
        assert (again["status"], again["request_id"]) == ("IN_PROGRESS", first["request_id"])
        assert set(again) == RECEIPT
        gate.open.set()


async def test_the_receipt_of_a_failed_and_of_a_cancelled_request(database: Path) -> None:
    async with gated(database, request_timeout=0.05, max_attempts=1, concurrency=1) as (queue, _):
        first = receipt(await post(queue), replayed=False)
        await queue.reaches(first["request_id"], "COMPLETED")
        failed = receipt(await post(queue), replayed=True)
        assert (failed["status"], failed["error_type"]) == ("COMPLETED", "request_timeout")
        second = receipt(await post(queue, **{"idempotency-key": "second"}), replayed=False)
        await queue.cancel(second["request_id"])
        await queue.reaches(second["request_id"], "COMPLETED")
        cancelled = receipt(await post(queue, **{"idempotency-key": "second"}), replayed=True)
        assert (cancelled["status"], cancelled["error_type"]) == ("COMPLETED", "client_cancelled")


async def test_both_forms_of_the_url_name_the_same_call(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        first = receipt(await post(queue, SUBMIT + "?a=1"), replayed=False)
        again = receipt(await post(queue, "/fal/queue/run/owner/app/work?a=1&fal_max_queue_length=7"), replayed=True)
        assert again["request_id"] == first["request_id"]
        assert "/run/owner/app/" in again["status_url"]


async def test_quoted_and_bare_keys_are_the_same(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        first = receipt(await post(queue, **{"idempotency-key": "abc"}), replayed=False)
        assert receipt(await post(queue, **{"idempotency-key": '"abc"'}), replayed=True)["request_id"] == first["request_id"]


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("PUT", SUBMIT, b"{}"),
        ("POST", SUBMIT + "/more", b"{}"),
        ("POST", SUBMIT + "/", b"{}"),
        ("POST", SUBMIT.replace("work", "w%6frk"), b"{}"),
        ("POST", SUBMIT + "?a=1", b"{}"),
        ("POST", SUBMIT, b"{ }"),
        ("POST", TASKS, b'{"targetUrl": "/work"}'),
    ],
)
async def test_another_request_under_the_key_is_refused(database: Path, method: str, url: str, body: bytes) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        receipt(await post(queue), replayed=False)
        refused = await queue.client.request(method, url, content=body, headers=KEY)
        assert refused.status_code == 422
        text = refused.json()["error" if url == TASKS else "detail"]
        assert text.startswith("the Idempotency-Key '6f9619ff' was sent before with another request")
        assert "idempotency-replayed" not in refused.headers
    assert stored_jobs(database) == 1


async def test_parameters_and_headers_for_the_queue_do_not_distinguish_requests(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        receipt(await post(queue, SUBMIT + "?fal_max_queue_length=5&x=1"), replayed=False)
        again = await post(queue, SUBMIT + "?x=1&fal_max_queue_length=6", **{"x-fal-no-retry": "1", "x-own": "2"})
        receipt(again, replayed=True)


@pytest.mark.parametrize("value", ["", '""', "a b", '"open', "a, b", "x" * 256])
@pytest.mark.parametrize(("url", "field"), [(SUBMIT, "detail"), (TASKS, "error")])
async def test_malformed_keys_are_refused(database: Path, value: str, url: str, field: str) -> None:
    async with gated(database) as (queue, _):
        refused = await post(queue, url, b'{"targetUrl": "/work"}', **{"idempotency-key": value})
        assert refused.status_code == 400
        assert "expected 1 to 255 visible ASCII characters" in refused.json()[field]
        twice = await queue.client.post(url, headers=[("idempotency-key", "a"), ("idempotency-key", "a")])
        assert (twice.status_code, "given 2 times" in twice.text) == (400, True)
    assert stored_jobs(database) == 0


async def test_the_application_receives_the_key(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        await queue.response(receipt(await post(queue), replayed=False)["request_id"])
        assert gate.calls[0][b"idempotency-key"] == b"6f9619ff"


async def test_of_many_at_once_one_is_run(database: Path) -> None:
    async with gated(database, concurrency=2) as (queue, gate):
        responses = await asyncio.gather(*[post(queue) for _ in range(20)])
        assert len({response.json()["request_id"] for response in responses}) == 1
        assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
        # Each of the others has freed the slot that was reserved for it.
        other = await queue.submit("POST", "/other")
        await queue.reaches(other, "IN_PROGRESS")
        gate.open.set()
    assert len(gate.calls) == stored_jobs(database) == 2


async def test_a_long_body_is_compared_too(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        body = b"x" * 3_000_000
        first = receipt(await post(queue, body=body), replayed=False)
        assert receipt(await post(queue, body=body), replayed=True)["request_id"] == first["request_id"]
        assert (await post(queue, body=body[:-1] + b"y")).status_code == 422


async def test_another_client_has_other_keys(database: Path) -> None:
    async with gated(database, api_keys="alice:0123456789,bob:0123456789") as (queue, gate):
        gate.open.set()
        alice = receipt(await post(queue, **ALICE), replayed=False)
        bob = receipt(await post(queue, body=b"other", **BOB), replayed=False)
        assert bob["request_id"] != alice["request_id"]
        assert receipt(await post(queue, **ALICE), replayed=True)["request_id"] == alice["request_id"]
        assert receipt(await post(queue, body=b"other", **BOB), replayed=True)["request_id"] == bob["request_id"]
        task = b'{"targetUrl": "/work"}'
        ids = [(await post(queue, TASKS, task, **{**who, "idempotency-key": "t"})).json()["task"]["id"] for who in (ALICE, BOB)]
        assert len(set(ids)) == 2


async def test_clients_that_the_service_authenticates_itself_have_keys_of_their_own(database: Path) -> None:
    async def authenticate(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-user")

    async with gated(database, authenticate=authenticate) as (queue, gate):
        gate.open.set()
        ids = [receipt(await post(queue, **{"x-user": user}), replayed=False)["request_id"] for user in ("carol", "dave")]
        again = [receipt(await post(queue, **{"x-user": user}), replayed=True)["request_id"] for user in ("carol", "dave")]
        assert again == ids
        assert len(set(ids)) == 2


async def test_without_authentication_the_address_does_not_matter(database: Path) -> None:
    app = QueueMiddleware(http_only(Gate()), database=database, min_free_disk=0, shutdown_timeout=0)
    async with connected(app) as queue:
        first = receipt(await post(queue), replayed=False)
        moved = httpx.ASGITransport(app, client=("192.0.2.99", 1))
        async with httpx.AsyncClient(transport=moved, base_url="http://service.test") as elsewhere:
            again = receipt(await post(Queue(elsewhere)), replayed=True)
        assert again["request_id"] == first["request_id"]


async def test_keys_survive_a_restart(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        first = receipt(await post(queue), replayed=False)
        task = (await post(queue, TASKS, b'{"targetUrl": "/work"}', **{"idempotency-key": "t"})).json()["task"]
        await queue.reaches(first["request_id"], "COMPLETED")
    async with gated(database) as (queue, gate):
        gate.open.set()
        assert receipt(await post(queue), replayed=True)["request_id"] == first["request_id"]
        again = await post(queue, TASKS, b'{"targetUrl": "/work"}', **{"idempotency-key": "t"})
        assert (again.status_code, again.json()["task"]["id"]) == (201, task["id"])
    assert stored_jobs(database) == 2


# --- tasks


async def test_a_task_is_returned_again_with_its_secrets(database: Path) -> None:
    async with gated(database) as (queue, gate):
        body = json.dumps({"targetUrl": "/work?url={callback_url}", "waitForSignal": True}).encode()
        first = await post(queue, TASKS, body)
        assert (first.status_code, first.headers.get("idempotency-replayed")) == (201, None)
        created = first.json()
        assert {"callbackUrl", "signalToken"} <= created.keys()
        again = await post(queue, TASKS, body)
        assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
        assert again.headers["x-fal-request-id"] == created["task"]["id"]
        repeated = again.json()
        assert repeated["task"]["status"] in ("pending", "processing")
        constant = ("id", "callbackId", "targetUrl", "createdAt")
        assert [repeated["task"][name] for name in constant] == [created["task"][name] for name in constant]
        assert (repeated["callbackUrl"], repeated["signalToken"]) == (created["callbackUrl"], created["signalToken"])
        gate.open.set()
    assert stored_jobs(database) == 1


async def test_the_present_status_of_a_task(database: Path) -> None:
    async with gated(database) as (queue, gate):
        body = b'{"targetUrl": "/work"}'
        gate.open.set()
        task = (await post(queue, TASKS, body)).json()["task"]
        status = await queue.client.get(f"{TASKS}/{task['id']}?wait=10")
        assert status.json()["task"]["status"] == "completed"
        again = (await post(queue, TASKS, body)).json()["task"]
        assert (again["id"], again["status"]) == (task["id"], "completed")
        assert "result" not in again
        assert b"idempotency-key" not in gate.calls[0]


async def test_a_task_that_is_deleted_while_it_is_read_is_created_again(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, deleted = Runtime.task, []

    async def delete_and_read(runtime: Runtime, request_id: str) -> TaskRecord:
        if not deleted:
            with closing(sqlite3.connect(database)) as connection, connection:
                connection.execute("PRAGMA foreign_keys = ON")
                deleted.append(connection.execute("DELETE FROM job").rowcount)
        return await read(runtime, request_id)

    async with gated(database) as (queue, gate):
        gate.open.set()
        body = b'{"targetUrl": "/work"}'
        first = (await post(queue, TASKS, body)).json()["task"]["id"]
        assert (await queue.client.get(f"{TASKS}/{first}?wait=10")).json()["task"]["status"] == "completed"
        monkeypatch.setattr(Runtime, "task", delete_and_read)
        again = await post(queue, TASKS, body)
        assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, None)
        assert again.json()["task"]["id"] != first
    assert (deleted, stored_jobs(database)) == ([1], 1)


async def test_the_url_of_tasks_does_not_distinguish_them(database: Path) -> None:
    async with gated(database) as (queue, gate):
        gate.open.set()
        body = b'{"targetUrl": "/work"}'
        responses = [await post(queue, url, body) for url in (TASKS, TASKS + "/", TASKS + "?x=1")]
        assert len({response.json()["task"]["id"] for response in responses}) == 1
        assert [response.headers.get("idempotency-replayed") for response in responses] == [None, "true", "true"]
    assert stored_jobs(database) == 1


@pytest.mark.parametrize("first", ["call", "task"])
async def test_a_task_is_never_the_same_request_as_a_call(database: Path, first: str) -> None:
    """The root path of a call, which may come from a proxy, and its path may together be the path of tasks."""
    body = b'{"targetUrl": "/work"}'
    gate = Gate()
    gate.open.set()
    app = QueueMiddleware(http_only(gate), database=database, min_free_disk=0)

    async def at_root(scope: Message, receive: Receive, send: Send) -> None:
        await app({**scope, "root_path": "/fal"}, receive, send)

    async with connected(app) as queue:
        rooted = httpx.AsyncClient(transport=httpx.ASGITransport(at_root), base_url="http://service.test")
        for kind in (first, "task" if first == "call" else "call"):
            if kind == "task":
                response = await post(queue, TASKS, body)
            else:
                response = await post(Queue(rooted), "/fal/fal/queue/submit/queue/v1/tasks", body)
            assert response.is_success is (kind == first), response.text
        assert response.status_code == 422
        await rooted.aclose()
    assert stored_jobs(database) == 1


async def test_after_a_rotation_of_the_secret_a_task_keeps_its_ids(database: Path) -> None:
    old, new = "1" * 64, "2" * 64
    body = json.dumps({"targetUrl": "/work?url={callback_url}"}).encode()
    urls = []
    for secrets in (old, f"{new},{old}", new):
        async with gated(database, callback_secret=secrets) as (queue, gate):
            gate.open.set()
            urls.append((await post(queue, TASKS, body)).json().get("callbackUrl"))
    assert urls[0] == urls[1] is not None
    assert urls[2] is None


# --- options


async def test_paths_that_need_a_key(database: Path) -> None:
    async with gated(database, require_idempotency_key="/paid/*") as (queue, gate):
        gate.open.set()
        run = "/fal/queue/run/owner/app/paid/x"
        for url, body in (
            (SUBMIT.replace("work", "paid/x"), b"{}"),
            (run, b"{}"),
            (TASKS, b'{"targetUrl": "/paid/x?a=1"}'),
            (TASKS, b'{"targetUrl": "/paid/x#/free"}'),
        ):
            refused = await queue.client.post(url, content=body)
            assert refused.status_code == 400
            assert "submissions to '/paid/x' need the header Idempotency-Key" in refused.text
            key = {"idempotency-key": f"k{hash((url, body))}"}
            assert (await post(queue, url, body, **key)).is_success
        encoded = await queue.client.post("/fal/queue/submit/p%61id/x")
        assert encoded.status_code == 400
        await queue.submit("POST", "/free")
    assert stored_jobs(database) == 5


@pytest.mark.parametrize("path", ["/caf\u00e9/x".encode(), b"/caf%C3%A9/x", b"/c%61f%c3%a9%2Fx"])
async def test_a_path_that_needs_a_key_in_every_spelling(database: Path, path: bytes) -> None:
    """Some servers accept UTF-8 that is not percent-encoded, and the application sees the same path."""
    gate = Gate()
    gate.open.set()
    pattern = "/caf\u00e9/*"
    app = QueueMiddleware(http_only(gate), database=database, min_free_disk=0, paths=pattern, require_idempotency_key=pattern)
    async with connected(app) as queue:
        submitted = await call(app, http_scope("POST", b"/fal/queue/submit" + path))
        task = await queue.client.post(TASKS, json={"targetUrl": path.decode()})
        assert (submitted.status, task.status_code) == (400, 400)
        keyed = await call(app, http_scope("POST", b"/fal/queue/submit" + path, headers=[(b"idempotency-key", b"k")]))
        assert keyed.status == 200
    assert stored_jobs(database) == 1


async def test_headers_that_distinguish_requests(database: Path) -> None:
    async with gated(database, idempotency_headers="Accept, X-Model-*") as (queue, gate):
        gate.open.set()
        receipt(await post(queue, accept="a/b", **{"x-model-size": "1", "x-own": "1"}), replayed=False)
        receipt(await post(queue, accept="a/b", **{"x-own": "2", "x-model-size": "1"}), replayed=True)
        assert (await post(queue, accept="a/c", **{"x-model-size": "1"})).status_code == 422
        assert (await post(queue, accept="a/b", **{"x-model-size": "2"})).status_code == 422
        assert (await post(queue, accept="a/b")).status_code == 422


async def test_clients_that_only_the_application_knows(database: Path) -> None:
    async with gated(database, idempotency_headers="Authorization, Cookie") as (queue, gate):
        gate.open.set()
        for url, body in ((SUBMIT, b"{}"), (TASKS, b'{"targetUrl": "/work"}')):
            key = {"idempotency-key": url.rpartition("/")[2]}
            assert (await post(queue, url, body, cookie="user=carol", **key)).is_success
            refused = await post(queue, url, body, cookie="user=dave", **key)
            assert refused.status_code == 422
            again = await post(queue, url, body, cookie="user=carol", **key)
            assert again.headers["idempotency-replayed"] == "true"
    assert stored_jobs(database) == 2


@pytest.mark.parametrize("retry", [False, True])
async def test_failed_requests_may_begin_anew(database: Path, retry: bool) -> None:
    async with gated(database, idempotency_retry_failed=retry, max_attempts=1) as (queue, gate):
        gate.status = 500
        gate.open.set()
        first = receipt(await post(queue), replayed=False)
        await queue.reaches(first["request_id"], "COMPLETED")
        again = receipt(await post(queue), replayed=not retry)
        assert (again["request_id"] != first["request_id"]) is retry


# --- secrecy


class Recorder:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_event(self, event: Any) -> None:
        self.events.append(event)


async def test_the_key_is_in_no_log_and_in_no_event(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    recorder, gate = Recorder(), Gate()
    events = recorder.events
    gate.open.set()
    app = QueueMiddleware(http_only(gate), database=database, min_free_disk=0, observers=[recorder])
    async with connected(app) as queue:
        first = receipt(await post(queue), replayed=False)
        await queue.reaches(first["request_id"], "COMPLETED")
        submitted = len([event for event in events if type(event).__name__ == "Submitted"])
        receipt(await post(queue), replayed=True)
        assert (await post(queue, body=b"other")).status_code == 422
        await post(queue, TASKS, b'{"targetUrl": "/work"}', **{"idempotency-key": "6f9619ff-task"})
    assert submitted == 1
    assert len([event for event in events if type(event).__name__ == "Submitted"]) == 2
    assert "6f9619ff" not in caplog.text
    assert "6f9619ff" not in repr(events)
