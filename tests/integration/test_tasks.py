"""AsyncQueue's tasks, against the whole middleware and a provider on loopback."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from queue_middleware import QueueMiddleware, current_job
from tests.support.database_template import create_empty_database
from tests.support.provider_server import Call, Reply, providing
from tests.support.queue_client import Queue, client_of, connected, eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond
from tests.support.webhook_receiver import receiving

ENDED = {"completed", "failed", "timeout", "cancelled"}
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).isoformat()
OPEN = {"outbound_allow": "127.0.0.1", "task_targets": "127.0.0.1"}


class Tasks:
    """The tasks of one service as a client sees them."""

    def __init__(self, queue: Queue, **headers: str) -> None:
        self.queue = queue
        self.headers = headers

    async def call(self, method: str, path: str, status: int, **request: Any) -> dict[str, Any]:
        received = await self.queue.client.request(method, f"/fal/queue/v1{path}", headers=self.headers, **request)
        assert received.status_code == status, received.text
        return received.json()

    async def create(self, target: str, **fields: Any) -> dict[str, Any]:
        return await self.call("POST", "/tasks", 201, json={"targetUrl": target, **fields})

    async def refused(self, status: int = 400, **fields: Any) -> str:
        return (await self.call("POST", "/tasks", status, json=fields))["error"]

    async def read(self, task_id: str) -> dict[str, Any]:
        return (await self.call("GET", f"/tasks/{task_id}", 200))["task"]

    async def reaches(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Wait until the task has one of these statuses; any other final status fails the test."""

        async def arrived() -> dict[str, Any] | None:
            task = await self.read(task_id)
            assert task["status"] in statuses or task["status"] not in ENDED, task
            return task if task["status"] in statuses else None

        return await eventually(arrived)

    async def run(self, target: str, **fields: Any) -> dict[str, Any]:
        created = await self.create(target, **fields)
        return await self.reaches(created["task"]["id"], *ENDED)

    async def call_back(self, url: str, payload: Any, status: int = 200) -> dict[str, Any]:
        received = await self.queue.client.post(urlsplit(url).path, json=payload)
        assert received.status_code == status, received.text
        return received.json()


@asynccontextmanager
async def tasking(database: Path, app: Any = None, **options: Any) -> AsyncIterator[Tasks]:
    async with serving(http_only(app or _echo), database, **{**OPEN, **options}) as queue:
        yield Tasks(queue)


@pytest.fixture(scope="module")
async def refusing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tasks]:
    """One service for the tests in which it refuses everything."""
    async with tasking(create_empty_database(tmp_path_factory.mktemp("refusing") / "queue.sqlite3")) as tasks:
        yield tasks


@pytest.fixture(scope="module")
async def restricted(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tasks]:
    """The same for a service that accepts few paths."""
    database = create_empty_database(tmp_path_factory.mktemp("restricted") / "queue.sqlite3")
    async with tasking(database, paths="/work*, /x*") as tasks:
        yield tasks


async def _echo(scope: Message, receive: Receive, send: Send) -> None:
    """Responds with the call that it received."""
    body = (await receive())["body"]
    headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"].decode()
    received = {"method": scope["method"], "path": scope["path"], "query": query, "headers": headers, "body": body.decode()}
    await respond(send, json.dumps(received).encode(), 200, [(b"content-type", b"application/json")])


# --- targets


async def test_a_task_calls_the_application_itself(database: Path) -> None:
    async with tasking(database) as tasks:
        task = await tasks.run("/work?size=2", body='{"prompt": "cat"}', headers={"X-Own": "1"})
    received = json.loads(task["result"]["body"])
    assert (received["method"], received["path"], received["query"], received["body"]) == (
        "POST",
        "/work",
        "size=2",
        '{"prompt": "cat"}',
    )
    assert (received["headers"]["x-own"], received["headers"]["content-type"]) == ("1", "application/json")
    assert received["headers"]["x-fal-request-id"] == task["id"]
    assert (task["status"], task["error"], task["retryCount"]) == ("completed", None, 0)
    assert (task["result"]["statusCode"], task["result"]["headers"]) == (200, {"content-type": "application/json"})
    assert task["result"]["duration"] >= 0
    assert task["createdAt"] <= task["startedAt"] <= task["completedAt"]


async def test_a_task_calls_an_external_host(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        task = await tasks.run(f"{provider.url}/v1/predictions?a=1", body="{}", headers={"Authorization": "Key secret"})
    (call,) = provider.calls
    assert (call.method, call.target, call.body) == ("POST", "/v1/predictions?a=1", b"{}")
    assert call.headers["authorization"] == "Key secret"
    assert call.headers["content-type"] == "application/json"
    assert call.headers["content-length"] == "2"
    assert call.headers["host"] == urlsplit(provider.url).netloc
    assert not [name for name in call.headers if name.startswith("x-fal")]
    assert json.loads(task["result"]["body"]) == {"id": "p1", "status": "starting"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_methods(database: Path, method: str) -> None:
    async with tasking(database) as tasks, providing() as provider:
        await tasks.run(provider.url, method=method, body='"sent"')
    (call,) = provider.calls
    assert (call.method, call.body) == (method, b"" if method == "GET" else b'"sent"')


@pytest.mark.parametrize("status", [200, 201, 204, 400, 404, 429])
async def test_responses_that_complete_a_task(database: Path, status: int) -> None:
    async with (
        tasking(database) as tasks,
        providing(lambda call: Reply(status, b"" if status == 204 else b"{}")) as provider,
    ):
        task = await tasks.run(provider.url)
    assert (task["status"], task["result"]["statusCode"]) == ("completed", status)
    assert len(provider.calls) == 1


async def test_redirects_are_followed_and_credentials_stay_with_the_first_host(database: Path) -> None:
    async with AsyncExitStack() as stack:
        last = await stack.enter_async_context(providing())
        second = await stack.enter_async_context(
            providing(lambda call: Reply(303, b"", (("location", last.url.replace("127.0.0.1", "localhost") + "/end"),)))
        )
        first = await stack.enter_async_context(
            providing(lambda call: Reply(307, b"", (("location", f"{second.url}/next#x"),)))
        )
        tasks = await stack.enter_async_context(
            tasking(database, task_targets="127.0.0.1, localhost", outbound_allow="127.0.0.0/8, localhost, ::1")
        )
        keys = {"Authorization": "Key secret", "xi-api-key": "secret", "X-Auth-Token": "secret"}
        task = await tasks.run(f"{first.url}/start", body="{}", headers={**keys, "X-Own": "1"})
    assert task["status"] == "completed"
    assert [(call.method, call.target, call.body) for call in (*first.calls, *second.calls, *last.calls)] == [
        ("POST", "/start", b"{}"),
        ("POST", "/next", b"{}"),
        ("GET", "/end", b""),
    ]
    assert "secret" not in str(second.calls[0].headers) + str(last.calls[0].headers)
    assert last.calls[0].headers["x-own"] == "1"
    assert "content-type" not in last.calls[0].headers


@pytest.mark.parametrize(
    "location",
    ["http://elsewhere.test/", "http://10.0.0.1/", "ftp://127.0.0.1/", "http://user@127.0.0.1/", "http://[x", "https://xn--a/"],
)
async def test_a_redirect_to_a_refused_target_fails_the_task_at_once(database: Path, location: str) -> None:
    async with (
        tasking(database) as tasks,
        providing(lambda call: Reply(302, b"", (("location", location),))) as provider,
    ):
        task = await tasks.run(provider.url)
    assert (task["status"], task["result"]) == ("failed", None)
    assert len(provider.calls) == 1


async def test_redirects_are_limited(database: Path) -> None:
    async with (
        tasking(database) as tasks,
        providing(lambda call: Reply(302, b"", (("location", "/again"),))) as provider,
    ):
        task = await tasks.run(provider.url)
    assert (task["status"], task["error"]) == ("failed", "more than 10 redirects")
    assert len(provider.calls) == 11


@pytest.mark.parametrize(
    ("target", "status", "error"),
    [
        ("https://elsewhere.test/", 403, "task_targets"),
        ("http://127.0.0.2/", 403, "task_targets"),
        ("https://127.0.0.1@elsewhere.test/", 400, "user name"),
        ("https://{callback_url}/", 400, "targetUrl"),
        ("/x?a=b c", 400, "percent-encoded"),
        ("/x?a=b\r\nc: d", 400, "percent-encoded"),
        ("/x?a=ä", 400, "percent-encoded"),
        ("ftp://127.0.0.1/", 400, "https://"),
        ("https://xn--a/", 400, "no valid host name"),
        ("127.0.0.1/", 400, "https://"),
        ("https://127.0.0.1/" + "x" * 2048, 400, "longer"),
        ("/../x", 400, "'..'"),
        ("/fal/queue/v1/tasks", 400, "cannot be queued"),
        ("/work\u00f6", 400, "percent-encoded"),
        ("/secret", 403, "paths"),
        ("/" + "x" * 2048, 414, "longer"),
    ],
)
async def test_targets_that_are_refused(restricted: Tasks, target: str, status: int, error: str) -> None:
    assert error in await restricted.refused(status, targetUrl=target)


async def test_without_task_targets_no_host_is_called(database: Path) -> None:
    async with tasking(database, task_targets=()) as tasks, providing() as provider:
        assert "task_targets" in await tasks.refused(403, targetUrl=provider.url)
    assert not provider.calls


async def test_a_target_that_the_guard_refuses(database: Path) -> None:
    async with tasking(database, outbound_allow=()) as tasks:
        assert await tasks.refused(400, targetUrl="https://127.0.0.1/") == (
            "targetUrl names 127.0.0.1, which is not a public address; "
            'the operator allows it with outbound_allow="127.0.0.1" (QUEUE_OUTBOUND_ALLOW=127.0.0.1)'
        )


# --- retries


@pytest.mark.usefixtures("at_once")
async def test_a_5xx_is_retried_and_then_final(database: Path) -> None:
    async with tasking(database) as tasks, providing(lambda call: Reply(500, b"broken")) as provider:
        task = await tasks.run(provider.url, maxRetries=1, retryBackoff="linear")
    assert (task["status"], task["retryCount"], task["error"]) == ("failed", 1, "the target responded with 500")
    assert task["result"]["body"] == "broken"
    assert len(provider.calls) == 2


async def test_retry_after_is_honored(database: Path) -> None:
    responses = [Reply(503, b"", (("retry-after", "0"),)), Reply()]
    async with tasking(database) as tasks, providing(lambda call: responses.pop(0)) as provider:
        task = await tasks.run(provider.url)
    assert (task["status"], task["retryCount"]) == ("completed", 1)


async def test_a_refused_connection(database: Path) -> None:
    async with providing() as provider:
        pass
    async with tasking(database) as tasks:
        task = await tasks.run(provider.url, maxRetries=0)
    assert (task["status"], task["error"]) == ("failed", "the target: no connection: Connection refused")


async def test_an_incomplete_response_fails_the_task(database: Path) -> None:
    async with tasking(database) as tasks, providing(lambda call: Reply(body=b"x" * 100, cut=50)) as provider:
        task = await tasks.run(provider.url, maxRetries=0)
    assert task["status"] == "failed"
    assert "in the middle" in task["error"]


@pytest.mark.parametrize(("option", "requested"), [(1, 0.1), (0.1, 30)], ids=["requested", "the option, if less"])
async def test_the_timeout_of_an_attempt(database: Path, option: float, requested: float) -> None:
    async def never(call: Call) -> Reply:
        await asyncio.Event().wait()
        return Reply()

    async with tasking(database, request_timeout=option) as tasks, providing(never) as provider:
        task = await tasks.run(provider.url, maxRetries=0, timeout=requested)
    assert (task["status"], task["error"]) == ("failed", "the attempt took longer than 0.1 s")


@pytest.mark.usefixtures("at_once")
async def test_an_application_that_raises_is_a_5xx(database: Path) -> None:
    calls: list[int] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        calls.append(1)
        raise ValueError

    async with tasking(database, app) as tasks:
        task = await tasks.run("/work", maxRetries=1, retryBackoff="linear")
    assert (task["status"], task["error"], len(calls)) == ("failed", "the application raised ValueError", 2)


# --- awaiting an external service


async def test_a_callback_completes_a_task(database: Path) -> None:
    async with tasking(database) as tasks, providing() as provider:
        created = await tasks.create(
            f"{provider.url}/run?fal_webhook={{asyncqueue_callback_url}}",
            body='{"hook": "{asyncqueue_callback_url}"}',
            maxWaitTime=60,
        )
        url = created["callbackUrl"]
        assert url == f"http://service.test/fal/queue/v1/callbacks/{created['task']['callbackId']}"
        assert (created["task"]["status"], created["task"]["maxWaitTime"]) == ("pending", 60)
        assert "signalToken" not in created
        task = await tasks.reaches(created["task"]["id"], "waiting")
        assert "callbackId" not in task
        (call,) = provider.calls
        assert call.json()["hook"] == url
        assert dict(httpx.QueryParams(urlsplit(call.target).query))["fal_webhook"] == url
        payload = {"request_id": "r", "status": "OK", "payload": {"images": []}}
        assert await tasks.call_back(url, payload) == {"ok": True}
        task = await tasks.read(created["task"]["id"])
    assert (task["status"], task["error"]) == ("completed", None)
    assert json.loads(task["result"].pop("body")) == payload
    assert task["result"] == {"statusCode": 200, "headers": {"content-type": "application/json"}, "duration": 0}


async def test_a_signal_completes_a_task(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", waitForSignal=True, maxWaitTime=60)
        token = created["signalToken"]
        await tasks.reaches(created["task"]["id"], "waiting")
        assert "status" in (await tasks.call("POST", f"/signals/{token}", 400, json={"status": "perhaps"}))["error"]
        received = await tasks.call("POST", f"/signals/{token}", 200, json={"status": "completed", "approvedBy": "me"})
        assert received == {"ok": True, "task": {"id": created["task"]["id"]}}
        await tasks.call("POST", f"/signals/{token}", 200, json={"status": "failed"})
        task = await tasks.read(created["task"]["id"])
        assert (task["status"], task["waitForSignal"]) == ("completed", True)
        assert json.loads(task["result"]["body"]) == {"status": "completed", "approvedBy": "me"}
        unknown = await tasks.call("POST", f"/signals/{'0' * 64}", 404, json={"status": "completed"})
        assert unknown == {"error": "Invalid or expired signal token"}


async def test_the_token_in_a_signal_is_not_stored(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", waitForSignal=True, maxWaitTime=60)
        token = created["signalToken"]
        await tasks.reaches(created["task"]["id"], "waiting")
        await tasks.call("POST", f"/signals/{token}", 200, json={"status": "completed", "from": f"/v1/signals/{token}"})
        task = await tasks.reaches(created["task"]["id"], "completed")
    assert json.loads(task["result"]["body"])["from"] == f"/v1/signals/{'*' * len(token)}"


async def test_a_signal_fails_a_task(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", waitForSignal=True)
        await tasks.call("POST", f"/signals/{created['signalToken']}", 200, json={"status": "failed", "error": "not approved"})
        task = await tasks.reaches(created["task"]["id"], "failed")
    assert task["error"] == "not approved"


async def test_callback_and_signal_together(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", body="{callback_url}", waitForSignal=True)
        await tasks.reaches(created["task"]["id"], "waiting")
        await tasks.call("POST", f"/signals/{created['signalToken']}", 200, json={"status": "completed"})
        await tasks.call_back(created["callbackUrl"], {}, 409)


async def test_a_task_whose_handler_asks_for_its_callback(database: Path) -> None:
    urls: list[str] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        urls.append(current_job.callback_url or "")
        await respond(send, b"", 202)

    async with tasking(database, app) as tasks:
        created = await tasks.create("/work")
        await tasks.reaches(created["task"]["id"], "waiting")
        await tasks.call_back(urls[0], {"done": 1})
        assert (await tasks.read(created["task"]["id"]))["status"] == "completed"


async def test_a_callback_that_never_arrives(database: Path) -> None:
    async with tasking(database) as tasks:
        task = await tasks.run("/work", body="{callback_url}", maxWaitTime=0.1)
    assert (task["status"], task["error"], task["result"]) == ("timeout", "the external service sent no result in time", None)


# --- time, priority


async def test_a_task_can_be_delayed(database: Path) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    async with tasking(database) as tasks:
        created = await tasks.create("/work", delayUntil=soon.isoformat())
        assert created["task"]["status"] == "delayed"
        task = await tasks.reaches(created["task"]["id"], "completed")
    assert datetime.fromisoformat(task["startedAt"]) >= soon.replace(microsecond=soon.microsecond // 1000 * 1000)


async def test_high_priority_goes_first(database: Path) -> None:
    order: list[str] = []
    hold = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        order.append(scope["path"])
        await hold.wait()
        await respond(send)

    async with tasking(database, app, concurrency=1) as tasks:
        await tasks.create("/first")
        await eventually(lambda: order)
        for name, priority in (("low", 1), ("usual", 5), ("high", 10)):
            await tasks.create(f"/{name}", priority=priority)
        fal = await tasks.queue.submit("POST", "/fal")
        hold.set()
        await tasks.queue.reaches(fal, "COMPLETED")
        await eventually(lambda: len(order) == 5)
    assert order == ["/first", "/high", "/usual", "/fal", "/low"]


# --- reading, cancelling, listing


async def test_cancelling(database: Path) -> None:
    async with tasking(database) as tasks:
        delayed = (await tasks.create("/work", delayUntil=TOMORROW))["task"]["id"]
        waiting = (await tasks.create("/work", waitForSignal=True, maxWaitTime=60))["task"]["id"]
        await tasks.reaches(waiting, "waiting")
        for task_id in (delayed, waiting):
            received = await tasks.call("POST", f"/tasks/{task_id}/cancel", 200)
            assert received["task"]["status"] == "cancelled"
            again = await tasks.call("POST", f"/tasks/{task_id}/cancel", 409)
            assert again == {"error": "the task has already ended: cancelled"}


async def test_cancelling_a_running_call(database: Path) -> None:
    stopped = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with tasking(database, app) as tasks:
        task_id = (await tasks.create("/work"))["task"]["id"]
        await tasks.reaches(task_id, "processing")
        await tasks.call("POST", f"/tasks/{task_id}/cancel", 200)
        await tasks.reaches(task_id, "cancelled")
    assert stopped.is_set()


async def test_unknown_tasks_and_routes(database: Path) -> None:
    async with tasking(database) as tasks:
        for path in ("/tasks/00000000-0000-7000-8000-000000000000", "/tasks/00000000-0000-7000-8000-000000000000/cancel"):
            method = "POST" if path.endswith("cancel") else "GET"
            assert await tasks.call(method, path, 404) == {"error": "Task not found"}
        assert "UUID" in (await tasks.call("GET", "/tasks/7", 400))["error"]
        plain = await tasks.queue.submit("POST", "/work")
        assert await tasks.call("GET", f"/tasks/{plain}", 404) == {"error": "Task not found"}
        for path in ("/", "/nothing", "/tasks/1/2", "/tasks//cancel", "/callbacks/"):
            await tasks.call("GET", path, 404)
        await tasks.call("DELETE", "/tasks", 405)


async def test_a_task_is_a_request_too(database: Path) -> None:
    """Both have one lifecycle, so fal's routes show the task."""
    async with tasking(database) as tasks:
        created = await tasks.create("/work", body="{callback_url}", maxWaitTime=60)
        task_id = created["task"]["id"]
        await tasks.reaches(task_id, "waiting")
        assert (await tasks.queue.status(task_id))["status"] == "IN_PROGRESS"
        await tasks.call_back(created["callbackUrl"], {"done": 1})
        assert (await tasks.queue.response(task_id)).json() == {"done": 1}


async def test_bodies_that_are_not_text(database: Path) -> None:
    async with tasking(database) as tasks, providing(lambda call: Reply(body=b"\x89PNG\xff")) as provider:
        task = await tasks.run(provider.url)
    assert base64.b64decode(task["result"]["body"]) == b"\x89PNG\xff"
    assert task["result"]["bodyEncoding"] == "base64"


async def test_long_responses(database: Path) -> None:
    body = b'"' + b"x" * 3_000_000 + b'"'
    async with (
        tasking(database) as tasks,
        providing(lambda call: Reply(body=body)) as provider,
        receiving() as receiver,
    ):
        task = await tasks.run(provider.url, onCompleteUrl=receiver.url)
        assert task["result"]["body"].encode() == body
        (webhook,) = await eventually(lambda: receiver.webhooks_for(task["id"]))
    assert webhook.content["task"]["result"]["body"].encode() == body


async def test_a_response_above_the_limit(database: Path) -> None:
    async with (
        tasking(database, max_response_body=1000) as tasks,
        providing(lambda call: Reply(body=b"x" * 2000)) as provider,
    ):
        task = await tasks.run(provider.url, maxRetries=0)
    assert (task["status"], task["error"]) == ("failed", "the response is larger than 1000 bytes")


# --- long polls


async def test_a_long_poll_responds_to_a_change(database: Path) -> None:
    async with tasking(database) as tasks:
        created = await tasks.create("/work", body="{callback_url}", maxWaitTime=60)
        task_id = created["task"]["id"]
        await tasks.reaches(task_id, "waiting")
        async with asyncio.TaskGroup() as group:
            polls = [group.create_task(tasks.call("GET", f"/tasks/{task_id}?wait=20", 200)) for _ in range(3)]
            await eventually(lambda: sum(poll.done() for poll in polls) == 0)
            await tasks.call_back(created["callbackUrl"], {"done": 1})
        assert {poll.result()["task"]["status"] for poll in polls} == {"completed"}
        assert (await tasks.call("GET", f"/tasks/{task_id}?wait=20", 200))["task"]["status"] == "completed"


async def test_a_long_poll_without_a_change_responds_with_the_current_state(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_middleware.web.asyncqueue.endpoints.MAX_POLL_SECONDS", 0.05)
    async with tasking(database) as tasks:
        task_id = (await tasks.create("/work", delayUntil=TOMORROW))["task"]["id"]
        assert (await tasks.call("GET", f"/tasks/{task_id}?wait=1", 200))["task"]["status"] == "delayed"
        assert "wait" in (await tasks.call("GET", f"/tasks/{task_id}?wait=soon", 400))["error"]


async def test_a_long_poll_ends_with_the_service(database: Path) -> None:
    middleware = QueueMiddleware(http_only(_echo), database=database, min_free_disk=0, shutdown_timeout=2)
    async with asyncio.timeout(20), client_of(middleware) as client:
        async with connected(middleware) as queue:
            task_id = (await Tasks(queue).create("/work", delayUntil=TOMORROW))["task"]["id"]
            poll = asyncio.create_task(client.get(f"/fal/queue/v1/tasks/{task_id}?wait=25"))
            await eventually(lambda: middleware._runtime.services.status_feed._followed)
        assert (await poll).json()["task"]["status"] == "delayed"


# --- access

KEYS = {"api_keys": "alice:0123456789,bob:0123456789,anonymous-key-without-name"}


async def test_keys(database: Path) -> None:
    async with tasking(database, **KEYS) as tasks, receiving() as receiver:
        refused = await tasks.call("POST", "/tasks", 401, json={"targetUrl": "/work"})
        assert "Authorization" in refused["error"]
        alice, bob = (
            Tasks(tasks.queue, authorization="Bearer alice:0123456789"),
            Tasks(tasks.queue, **{"x-api-key": "bob:0123456789"}),
        )
        wrong = Tasks(tasks.queue, authorization="Key alice:0123456780")
        assert await wrong.call("GET", "/tasks", 401) == {"error": "invalid key credentials"}
        of_alice = await alice.run("/work", onCompleteUrl=receiver.url)
        assert await bob.call("GET", f"/tasks/{of_alice['id']}", 403) == {"error": "this task belongs to another submitter"}
        await bob.call("POST", f"/tasks/{of_alice['id']}/cancel", 403)
        of_bob = (await bob.create("/work", body="{callback_url}"))["callbackUrl"]
        await tasks.call_back(of_bob, {"no key": "needed"})
        assert [task["id"] for task in (await alice.call("GET", "/tasks", 200))["tasks"]] == [of_alice["id"]]
        (webhook,) = await eventually(lambda: receiver.webhooks_for(of_alice["id"]))
        assert webhook.headers["x-fal-webhook-user-id"] == "alice"


async def test_pages(database: Path) -> None:
    async with tasking(database, **KEYS) as tasks:
        alice = Tasks(tasks.queue, authorization="Key alice:0123456789")
        made = [(await alice.create("/work", delayUntil=TOMORROW))["task"]["id"] for _ in range(3)]
        done = await alice.run("/work")
        page = await alice.call("GET", "/tasks?limit=2&offset=1", 200)
        assert [task["id"] for task in page["tasks"]] == [made[2], made[1]]
        assert page["pagination"] == {"total": 4, "limit": 2, "offset": 1, "hasMore": True}
        assert "result" not in page["tasks"][0]
        page = await alice.call("GET", "/tasks?status=completed", 200)
        assert [task["id"] for task in page["tasks"]] == [done["id"]]
        assert page["pagination"] == {"total": 1, "limit": 20, "offset": 0, "hasMore": False}
        for query in ("status=gone", "limit=0", "limit=101", "offset=-1", "limit=x", "offset=" + "0" * 20 + "9" * 5000):
            await alice.call("GET", f"/tasks?{query}", 400)


async def test_without_api_keys_tasks_cannot_be_listed(database: Path) -> None:
    async with tasking(database) as tasks:
        assert "api_keys" in (await tasks.call("GET", "/tasks", 403))["error"]


# --- validation


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, "targetUrl is missing"),
        ({"targetUrl": 7}, "targetUrl must be a string"),
        ({"targetUrl": "/", "method": "HEAD"}, "method is 'HEAD'"),
        ({"targetUrl": "/", "headers": []}, "headers must be"),
        ({"targetUrl": "/", "headers": {"a b": "c"}}, "headers has 'a b'"),
        ({"targetUrl": "/", "headers": {"a": "c\nd"}}, "headers has 'a'"),
        ({"targetUrl": "/", "headers": {"a": 1}}, "headers has 'a'"),
        ({"targetUrl": "/", "body": {"a": 1}}, "body must be a string"),
        ({"targetUrl": "/", "timeout": 0}, "timeout is '0'"),
        ({"targetUrl": "/", "timeout": "30"}, "timeout is '30'"),
        ({"targetUrl": "/", "maxWaitTime": 10**9}, "maxWaitTime is"),
        ({"targetUrl": "/", "delayUntil": "tomorrow"}, "delayUntil is 'tomorrow'"),
        ({"targetUrl": "/", "delayUntil": "9999-12-31T23:59:59-12:00"}, "delayUntil is '9999"),
        ({"targetUrl": "/", "delayUntil": "9999-12-31T00:00:00Z"}, "within the next 2592000 seconds (max_delay)"),
        ({"targetUrl": "/", "maxRetries": 11}, "maxRetries is '11'"),
        ({"targetUrl": "/", "maxRetries": True}, "maxRetries is 'True'"),
        ({"targetUrl": "/", "retryBackoff": "random"}, "retryBackoff is 'random'"),
        ({"targetUrl": "/", "priority": 0}, "priority is '0'"),
        ({"targetUrl": "/", "waitForSignal": "yes"}, "waitForSignal must be"),
        ({"targetUrl": "/", "onCompleteUrl": "http://10.0.0.1/"}, "onCompleteUrl names 10.0.0.1"),
        ({"targetUrl": "/", "provider": "nobody"}, "provider is 'nobody'"),
        ({"targetUrl": "/", "pollConfig": {"urlTemplate": "x"}}, "pollConfig: "),
    ],
)
async def test_invalid_fields_are_named(refusing: Tasks, fields: dict[str, Any], error: str) -> None:
    assert error in await refusing.refused(**fields)


async def test_a_body_that_is_not_a_task(database: Path) -> None:
    async with tasking(database) as tasks:
        assert (await tasks.call("POST", "/tasks", 400, content=b"{"))["error"] == "a task is a JSON object"
        assert (await tasks.call("POST", "/tasks", 400, json=[1]))["error"] == "a task is a JSON object"
    client = httpx.AsyncClient(transport=httpx.ASGITransport(tasks.queue.client._transport.app), base_url="http://service.test")
    async with client:
        received = await client.post("/fal/queue/v1/tasks", json={"targetUrl": "/"})
    assert (received.status_code, list(received.json())) == (503, ["error"])
