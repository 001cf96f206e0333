"""Ways in which a replayed call can differ from a direct one without being noticed. Each was a defect once."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import anyio
import flask
import pytest
from a2wsgi import WSGIMiddleware
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.events import Event, Finished
from queue_middleware.worker import early_end
from tests.support.queue_client import DEADLINE, Queue, connected, eventually, mounting, serving
from tests.support.raw_asgi import App, Message, Receive, Send, call, http_only, http_scope, respond
from tests.support.webhook_receiver import receiving

from .apps import ALPHABET, hang_here, load

REPEAT = 25
"""How often a value is read that must not change. Each read is a round trip through the queue's database."""


def reporting(*keys: str) -> App:
    """An application that responds with these parts of its scope."""

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen = {key: scope.get(key) for key in keys}
        await respond(send, json.dumps(seen, default=lambda value: value.decode("latin-1")).encode())

    return app


@pytest.fixture(scope="module")
async def reporter(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Queue]:
    """One queue for all tests that only check what an application receives."""
    keys = ("method", "path", "raw_path", "root_path", "query_string", "headers")
    database = tmp_path_factory.mktemp("reporter") / "queue.sqlite3"
    async with serving(reporting(*keys), database, outbound_allow="127.0.0.1", webhook_schedule="") as queue:
        yield queue


async def seen_headers(queue: Queue, *args: Any, **request: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in (await queue.run(*args, **request)).json()["headers"]]


# --- the two channels


async def test_receive_waits_until_the_response_is_complete_and_then_returns_disconnect(database: Path) -> None:
    seen: list[Any] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(await receive())
        async with anyio.create_task_group() as tasks:

            async def listen() -> None:
                seen.append(await receive())

            tasks.start_soon(listen)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"x" * 300_000, "more_body": True})
            await anyio.wait_all_tasks_blocked()
            seen.append("all but the end was sent")
            await send({"type": "http.response.body", "body": b"end"})
        seen.extend([await receive(), await receive()])

    async with serving(app, database) as queue:
        assert (await queue.run("POST", "/", content=b"in")).content == b"x" * 900_000 + b"end"
        disconnect = {"type": "http.disconnect"}
        body = {"type": "http.request", "body": b"in", "more_body": False}
        await eventually(lambda: len(seen) == 5)
        assert seen == [body, "all but the end was sent", disconnect, disconnect, disconnect]


@pytest.mark.parametrize("refuses", [False, True])
async def test_an_application_may_be_a_plain_function(database: Path, refuses: bool) -> None:
    async def answer(send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    def app(scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http" or refuses:
            raise ValueError(scope["type"])
        return asyncio.ensure_future(answer(send))

    async with serving(app, database) as queue:
        assert (await queue.run("GET", "/")).status_code == (500 if refuses else 200)


async def test_messages_of_concurrent_senders_are_complete(database: Path) -> None:
    """A server takes each message whole, from any task: some streams have a second task that sends keep-alive comments."""
    sent_bytes = b"abcdef"

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

        async def part(byte: int) -> None:
            for _ in range(3):
                await send({"type": "http.response.body", "body": bytes([byte]) * 100_000, "more_body": True})

        async with anyio.create_task_group() as tasks:
            for byte in sent_bytes:
                tasks.start_soon(part, byte)
        await send({"type": "http.response.body", "body": b"end"})

    async with serving(app, database) as queue:
        body = (await queue.run("GET", "/")).content
    assert [body.count(byte) for byte in sent_bytes] == [300_000 + (byte in b"end") for byte in sent_bytes]
    assert body.endswith(b"end")
    assert all(len(set(body[start : start + 100_000])) == 1 for start in range(0, 1_800_000, 100_000))


async def test_a_task_that_sends_during_the_end_leaves_no_data_behind(database: Path) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        async with anyio.create_task_group() as tasks:
            for byte, more in ((b"a", False), (b"b", True), (b"c", True)):
                tasks.start_soon(send, {"type": "http.response.body", "body": byte * 300_000, "more_body": more})

    async with serving(app, database) as queue:
        assert (await queue.run("GET", "/")).content == b"a" * 300_000 + b"b" * 300_000 + b"c" * 300_000
    with closing(sqlite3.connect(database)) as connection:
        assert (
            connection.execute("SELECT count(*) FROM response_chunk").fetchone()
            == connection.execute("SELECT chunks FROM payload").fetchone()
        )


async def test_receive_returns_disconnect_after_a_call_without_response(database: Path) -> None:
    """As with a server. Otherwise the task would wait forever and keep everything that it refers to."""
    listening: list[asyncio.Task[Message]] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        listening.append(asyncio.create_task(receive()))  # type: ignore[arg-type]
        await anyio.wait_all_tasks_blocked()
        raise LookupError

    async with serving(app, database) as queue:
        assert (await queue.run("GET", "/")).status_code == 500
        with anyio.fail_after(5):
            assert await listening[0] == {"type": "http.disconnect"}


async def test_receive_can_be_cancelled(database: Path) -> None:
    """`request.is_disconnected()` and similar functions call it and cancel the call at once."""

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(3):
            with anyio.move_on_after(0) as scope_of_wait:
                await receive()
            assert scope_of_wait.cancelled_caught
        await respond(send, b"patient")

    async with serving(app, database) as queue:
        assert (await queue.run("GET", "/")).content == b"patient"


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)


@pytest.mark.parametrize("middleware", [[], [Middleware(Passing)]], ids=["plain", "BaseHTTPMiddleware"])
async def test_a_stream_is_stored_completely(database: Path, middleware: list[Middleware]) -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(50):
                await anyio.sleep(0)
                yield b"%d " % number

        return StreamingResponse(chunks())

    app = Starlette(routes=[Route("/", stream)], middleware=middleware)
    async with serving(app, database) as queue:
        assert (await queue.run("GET", "/")).text.split() == [str(number) for number in range(50)]


async def test_unknown_messages_and_messages_after_the_end_are_ignored(database: Path) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.debug", "info": {}})
        await send({"type": "http.response.early_hint", "links": [b"</style.css>"]})
        await respond(send, b"body")
        await send({"type": "http.response.trailers", "headers": []})
        await send({"type": "http.response.body", "body": b" and more"})

    async with serving(app, database) as queue:
        answered = await queue.run("GET", "/")
        assert (answered.status_code, answered.content) == (200, b"body")


# --- the scope


def with_extensions(app: App) -> App:
    """A server that supports every extension."""
    names = ["pathsend", "zerocopysend", "trailers", "early_hint", "debug", "push"]

    async def server(scope: Message, receive: Receive, send: Send) -> None:
        scope["extensions"] = {f"http.response.{name}": {} for name in names}
        await app(scope, receive, send)

    return server


async def test_extensions_of_the_submitting_server_are_not_copied(database: Path) -> None:
    async def file(request: Request) -> Response:
        return FileResponse(ALPHABET, headers={"x-extensions": str(len(request.scope.get("extensions") or {}))})

    app = with_extensions(QueueMiddleware(Starlette(routes=[Route("/", file)]), database=database, min_free_disk=0))
    async with connected(app) as queue:
        answered = await queue.run("GET", "/")
        assert answered.content == ALPHABET.read_bytes()
        assert answered.headers["x-extensions"] == "0"


async def test_path_and_raw_path_are_rewritten_together(reporter: Queue) -> None:
    seen = (await reporter.run("GET", "/a%2Fb/gr%C3%BC%C3%9Fe")).json()
    assert (seen["path"], seen["raw_path"], seen["root_path"]) == ("/a/b/grüße", "/a%2Fb/gr%C3%BC%C3%9Fe", "")
    assert (await reporter.run("GET", "/")).json()["raw_path"] == "/"
    assert (await reporter.run("POST", "")).json()["raw_path"] == "/"


async def test_the_root_path_of_a_mount_is_kept(database: Path) -> None:
    inner = QueueMiddleware(reporting("path", "root_path"), database=database, min_free_disk=0)
    async with connected(mounting("/svc", inner)) as outer:
        queue = Queue(outer.client, "/svc/fal/queue")
        direct = (await outer.client.get("/svc/a/b")).json()
        assert (await queue.run("GET", "/a/b")).json() == direct == {"path": "/svc/a/b", "root_path": "/svc"}


async def test_client_server_scheme_and_version_are_taken_from_the_submission(database: Path) -> None:
    keys = ("client", "server", "scheme", "http_version", "method", "type")
    wrapped = QueueMiddleware(reporting(*keys), database=database, min_free_disk=0)
    async with connected(wrapped) as queue:
        scope = http_scope("PATCH", b"/fal/queue/submit/x")
        scope |= {"scheme": "https", "client": ("203.0.113.7", 4711), "server": ("example.com", 8443), "http_version": "2"}
        submitted = json.loads((await call(wrapped, scope)).body)
        assert (await queue.response(submitted["request_id"])).json() == {
            "client": ["203.0.113.7", 4711],
            "server": ["example.com", 8443],
            "scheme": "https",
            "http_version": "2",
            "method": "PATCH",
            "type": "http",
        }


async def test_a_submission_without_addresses_is_replayed_without_them(database: Path) -> None:
    """A UNIX socket has neither."""
    wrapped = QueueMiddleware(reporting("client", "server"), database=database, min_free_disk=0)
    async with connected(wrapped) as queue:
        scope = http_scope("GET", b"/fal/queue/submit/x") | {"client": None, "server": ("/run/app.sock", None)}
        submitted = json.loads((await call(wrapped, scope)).body)
        seen = (await queue.response(submitted["request_id"])).json()
        assert seen == {"client": None, "server": ["/run/app.sock", None]}


async def test_lifespan_state_is_seen_and_each_replay_has_its_own_copy(database: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        yield {"model": ["loaded"], "count": 0}

    async def endpoint(request: Request) -> Response:
        request.state.count += 1
        request.state.model.append("used")
        return JSONResponse({"count": request.state.count, "model": request.state.model})

    async with serving(Starlette(routes=[Route("/", endpoint)], lifespan=lifespan), database) as queue:
        assert (await queue.run("GET", "/")).json() == {"count": 1, "model": ["loaded", "used"]}
        assert (await queue.run("GET", "/")).json() == {"count": 1, "model": ["loaded", "used", "used"]}


submitter: ContextVar[str] = ContextVar("submitter", default="nobody")
deployment: ContextVar[str] = ContextVar("deployment", default="unset")
connection_pool: ContextVar[str] = ContextVar("connection_pool", default="unset")


async def test_the_context_is_that_of_the_startup_and_not_of_the_submission(database: Path) -> None:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connection_pool.set("opened by the application's lifespan")
        yield

    async def endpoint(request: Request) -> Response:
        seen = [submitter.get(), deployment.get(), connection_pool.get()]
        submitter.set("somebody")
        deployment.set("changed by a replay")
        return JSONResponse(seen)

    app = Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)
    wrapped = QueueMiddleware(app, database=database, min_free_disk=0)

    async def logging_in(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            submitter.set("alice")
        await wrapped(scope, receive, send)

    deployment.set("set before the server started")
    async with connected(logging_in) as queue:
        for _ in range(2):
            seen = (await queue.run("GET", "/")).json()
            assert seen == ["nobody", "set before the server started", "opened by the application's lifespan"]


async def test_a_replay_cannot_be_forged(database: Path) -> None:
    """`current_job` works only inside a replay, whatever headers a client sends."""

    async def endpoint(request: Request) -> Response:
        return JSONResponse({"id": current_job.id, "attempt": current_job.attempt, "replayed": bool(current_job)})

    async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
        forged = {"x-fal-request-id": "0192d3b5-0000-7000-8000-000000000000", "x-fal-attempt": "3", "x-fal-endpoint": "/"}
        direct = await queue.client.get("/", headers=forged)
        assert direct.json() == {"id": None, "attempt": None, "replayed": False}
        request_id = await queue.submit("GET", "/", headers=forged)
        assert (await queue.response(request_id)).json() == {"id": request_id, "attempt": 1, "replayed": True}


async def test_current_job_works_in_threads_and_is_unset_afterwards(database: Path) -> None:
    def endpoint(request: Request) -> Response:
        current_job.report_progress(0.5, "halfway")
        return PlainTextResponse(current_job.id)

    async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
        request_id = await queue.submit("GET", "/")
        assert (await queue.response(request_id)).text == request_id
        assert current_job.id is None
        assert not current_job


# --- headers and query


async def test_headers_of_the_connection_are_not_replayed(reporter: Queue) -> None:
    theirs = {
        "connection": "keep-alive, x-private",
        "x-private": "between the two of us",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "trailer": "x-sum",
        "upgrade": "h2c",
        "proxy-authorization": "Basic c2VjcmV0",
        "expect": "100-continue",
        "accept-encoding": "gzip",
        "x_forwarded_for": "127.0.0.1",
        "x-kept": "yes",
        "range": "bytes=0-1",
        "if-none-match": '"v1"',
    }
    request_id = await reporter.submit("GET", "/", headers=theirs)
    seen = dict((await reporter.response(request_id)).json()["headers"])
    assert {name: seen[name] for name in ("x-kept", "range", "if-none-match", "accept-encoding", "x-fal-request-id")} == {
        "x-kept": "yes",
        "range": "bytes=0-1",
        "if-none-match": '"v1"',
        "accept-encoding": "identity",
        "x-fal-request-id": request_id,
    }
    expected = {"host", "accept", "user-agent", "x-kept", "range", "if-none-match", "accept-encoding", "x-fal-request-id"}
    assert set(seen) == expected


async def test_header_values_cannot_break_out(database: Path) -> None:
    wrapped = QueueMiddleware(reporting("headers"), database=database, min_free_disk=0)
    bad = [(b"x-split", b"a\r\nx-injected: 1"), (b"x-nul", b"a\x00b"), (b"x bad name", b"1"), (b"x-good", b"1")]
    async with connected(wrapped) as queue:
        submitted = await call(wrapped, http_scope("GET", b"/fal/queue/submit/", headers=bad))
        if submitted.status == 200:
            seen = (await queue.response(json.loads(submitted.body)["request_id"])).json()["headers"]
            assert not {"x-split", "x-nul", "x bad name"} & {name for name, _ in seen}
            assert ["x-good", "1"] in seen
        else:
            assert submitted.status == 400


async def test_a_chunked_submission_is_replayed_with_its_length(reporter: Queue) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"abc"
        yield b"defg"

    seen = await seen_headers(reporter, "POST", "/", content=pieces())
    assert ("content-length", "7") in seen
    assert "transfer-encoding" not in dict(seen)


async def test_headers_for_the_fal_queue_reach_the_application_too(reporter: Queue) -> None:
    """They are part of the request; only headers that the queue adds belong to the queue."""
    theirs = {"x-fal-queue-priority": "low", "x-fal-object-lifecycle-preference": '{"expiration_duration_seconds": 5}'}
    seen = dict(await seen_headers(reporter, "POST", "/", headers=theirs))
    assert {name: seen.get(name) for name in theirs} == theirs


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ("a=1&fal_webhook=http%3A%2F%2F127.0.0.1%3A9%2F&b=2&a=3", "a=1&b=2&a=3"),
        ("fal_max_queue_length=100&x=%2F+%C3%BC", "x=%2F+%C3%BC"),
        ("fal_jwt_token=secret", ""),
        ("x=fal_webhook&falx=1&&empty=&flag", "x=fal_webhook&falx=1&&empty=&flag"),
    ],
)
async def test_only_the_queues_query_parameters_are_removed(reporter: Queue, sent: str, seen: str) -> None:
    assert (await reporter.run("GET", f"/?{sent}")).json()["query_string"] == seen


async def test_the_attempt_header_is_sent_from_the_second_attempt_on(database: Path) -> None:
    seen: list[tuple[str, str | None]] = []

    async def endpoint(request: Request) -> Response:
        seen.append((request.headers["x-fal-request-id"], request.headers.get("x-fal-attempt")))
        return PlainTextResponse("later", 503 if len(seen) == 1 else 200, headers={"retry-after": "0"})

    async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
        request_id = await queue.submit("GET", "/")
        assert (await queue.response(request_id)).status_code == 200
        assert seen == [(request_id, None), (request_id, "2")]


async def test_response_headers_of_the_connection_are_not_stored(database: Path) -> None:
    own = [(b"Connection", b"close"), (b"transfer-encoding", b"chunked"), (b"X-Kept", b"1"), (b"x-kept", b"2")]

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await respond(send, headers=own)

    async with serving(app, database) as queue:
        headers = (await queue.run("GET", "/")).headers
        assert "connection" not in headers
        assert "transfer-encoding" not in headers
        assert headers.get_list("x-kept") == ["1", "2"]


# --- methods


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "PROPFIND"])
async def test_only_five_methods_are_queued(reporter: Queue, method: str) -> None:
    refused = await reporter.client.request(method, "/fal/queue/submit/x")
    assert refused.status_code == 405
    assert {method.strip() for method in refused.headers["allow"].split(",")} == {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_the_same_method_is_replayed(reporter: Queue, method: str) -> None:
    assert (await reporter.run(method, "/x")).json()["method"] == method


# --- how a call can end


async def test_an_exception_before_the_response_is_a_500_with_only_its_type(database: Path) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise ValueError("the password is swordfish")

    async with serving(app, database, max_attempts=1) as queue:
        answered = await queue.run("GET", "/")
        assert answered.status_code == 500
        assert answered.headers["x-fal-error-type"] == answered.json()["error_type"] == "runner_server_error"
        assert "ValueError" in answered.json()["detail"]
        assert "swordfish" not in answered.text


@pytest.mark.parametrize("raises", [True, False], ids=["raises", "returns"])
async def test_a_response_without_its_end_is_incomplete(database: Path, raises: bool) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        if raises:
            raise ValueError("the password is swordfish")

    async with serving(app, database, max_attempts=1) as queue:
        answered = await queue.run("GET", "/")
        assert answered.status_code == 502
        assert answered.headers["x-fal-error-type"] == answered.json()["error_type"] == "runner_incomplete_response"
        assert "swordfish" not in answered.text
        assert "half" not in answered.text


@pytest.mark.parametrize(
    "start",
    [
        {"status": "200"},
        {"status": None},
        {"status": 0},
        {"status": 99999},
        {"headers": [("content-type", "text/plain")]},
        {"headers": [(b"content-type", "text/plain")]},
        {"headers": [(b"content-length", 2)]},
        {"headers": [(b"one", b"two", b"three")]},
        {"headers": None},
    ],
    ids=repr,
)
async def test_a_response_that_no_server_could_send_is_a_failure(database: Path, start: Any) -> None:
    """The request must not stay running forever either."""

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], **start})
        await send({"type": "http.response.body", "body": b"ok"})

    async with serving(app, database, max_attempts=1) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.reaches(request_id, "COMPLETED", seconds=5)
        answered = await queue.response(request_id)
        assert answered.status_code in (500, 502)
        assert answered.json()["error_type"] in ("runner_server_error", "runner_incomplete_response")


class Unforeseen(BaseException):
    """Some libraries raise one to bypass `except Exception`."""


@pytest.mark.parametrize(
    "error", [Unforeseen, SystemExit, GeneratorExit, asyncio.CancelledError], ids=lambda error: error.__name__
)
async def test_a_handler_that_raises_a_base_exception_ends_its_request(database: Path, error: type[BaseException]) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        raise error

    async with serving(app, database, max_attempts=1, concurrency=1) as queue:
        for _ in range(2):
            request_id = await queue.submit("GET", "/")
            await queue.reaches(request_id, "COMPLETED", seconds=5)
            assert (await queue.response(request_id)).status_code == 500


async def test_a_handler_that_cancels_its_own_task_ends_its_request(database: Path) -> None:
    """The same holds if another task cancels it, such as a library that cancels `asyncio.all_tasks()`."""

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await anyio.sleep_forever()

    async with serving(app, database, max_attempts=1, concurrency=1) as queue:
        for _ in range(2):
            request_id = await queue.submit("GET", "/")
            await queue.reaches(request_id, "COMPLETED", seconds=5)
            assert (await queue.response(request_id)).status_code in (500, 502, 503)


async def test_a_call_without_a_response_has_its_own_error(database: Path) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()

    async with serving(app, database, max_attempts=1) as queue:
        answered = await queue.run("GET", "/")
        assert answered.status_code == 502
        assert "without a response" in answered.json()["detail"]


async def test_the_result_does_not_wait_for_a_background_task_but_its_slot_does(database: Path) -> None:
    gate, ran = anyio.Event(), []

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(gate.wait))

    async def second(request: Request) -> Response:
        ran.append("second")
        return PlainTextResponse("done too")

    app = Starlette(routes=[Route("/", endpoint), Route("/second", second)])
    async with (
        receiving() as receiver,
        serving(app, database, concurrency=1, outbound_allow="127.0.0.1") as queue,
    ):
        first_id = await queue.submit("GET", f"/?fal_webhook={receiver.url}")
        assert (await queue.response(first_id)).text == "done"
        await eventually(lambda: receiver.webhooks_for(first_id))
        second_id = await queue.submit("GET", "/second")
        for _ in range(REPEAT):
            assert (await queue.status(second_id))["status"] == "IN_QUEUE"
        assert ran == []
        gate.set()
        assert (await queue.response(second_id)).text == "done too"


async def test_a_background_task_that_does_not_end_is_cancelled_after_a_time(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_middleware.worker.executor.BACKGROUND_LIMIT", 0.05)  # five minutes are too long for a test
    gate = anyio.Event()

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(gate.wait))

    async with serving(Starlette(routes=[Route("/", endpoint)]), database, concurrency=1) as queue:
        for _ in range(2):
            assert (await queue.run("GET", "/")).text == "done"
        gate.set()


async def test_a_background_task_that_raises_does_not_change_the_result(database: Path) -> None:
    def fail() -> None:
        raise RuntimeError("too late to matter")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("done", background=BackgroundTask(fail))

    async with serving(Starlette(routes=[Route("/", endpoint)]), database, concurrency=1) as queue:
        for _ in range(3):
            assert (await queue.run("GET", "/")).text == "done"


# --- cancelling


async def test_is_disconnected_is_false_while_running_and_true_after_a_cancel(database: Path) -> None:
    seen: list[bool] = []

    async def endpoint(request: Request) -> Response:
        seen.append(await request.is_disconnected())
        try:
            await anyio.sleep_forever()
        finally:
            seen.append(await request.is_disconnected())

    async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        assert (await queue.cancel(request_id)).status_code == 202
        cancelled = await queue.response(request_id)
        assert (cancelled.status_code, cancelled.json()["error_type"]) == (499, "client_cancelled")
        assert cancelled.headers["x-fal-error-type"] == "client_cancelled"
        await eventually(lambda: len(seen) == 2)
        assert seen == [False, True]


async def test_a_handler_that_watches_for_the_disconnect_can_end_on_its_own(database: Path) -> None:
    seen: list[str] = []

    async def endpoint(request: Request) -> Response:
        seen.append("started")
        while not await request.is_disconnected():
            await anyio.sleep(0.001)
        seen.append("left politely")
        return PlainTextResponse("nobody reads this")

    async with serving(Starlette(routes=[Route("/", endpoint)]), database) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        await queue.cancel(request_id)
        assert (await queue.response(request_id)).status_code == 499
        await eventually(lambda: seen == ["started", "left politely"])


async def test_cancelling_stops_an_async_handler_and_lets_it_clean_up(database: Path) -> None:
    seen: list[str] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            for _ in range(10):
                await anyio.sleep(0)
            seen.append("tidied up")

    async with serving(app, database, concurrency=1) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        await queue.cancel(request_id)
        await eventually(lambda: seen == ["started", "tidied up"])
        assert (await queue.response(request_id)).status_code == 499
        again = await queue.submit("GET", "/")
        await eventually(lambda: seen[2:] == ["started"])
        await queue.cancel(again)
        await queue.reaches(again, "COMPLETED")


async def test_a_cancelled_handler_has_time_to_clean_up_before_the_request_ends(database: Path) -> None:
    seen: list[str] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            # A twentieth of the available time, and many times what storing the outcome takes.
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.25)
            seen.append("tidied up")

    class Observer:
        def on_event(self, event: Event) -> None:
            if isinstance(event, Finished):
                seen.append("finished")

    async with connected(QueueMiddleware(app, database=database, min_free_disk=0, observers=[Observer()])) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        await queue.cancel(request_id)
        await queue.reaches(request_id, "COMPLETED")
    assert seen == ["started", "tidied up", "finished"]


async def test_a_cancelled_handler_that_does_not_end_delays_nothing_else(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_end, "CANCEL_GRACE", 0.1)
    seen, may_end = [], asyncio.Event()

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append("started")
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await may_end.wait()

    async with serving(app, database, concurrency=1) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        await queue.cancel(request_id)
        assert (await queue.response(request_id)).status_code == 499
        waiting = await queue.submit("GET", "/")
        assert (await queue.status(waiting))["status"] == "IN_QUEUE"  # its thread is as busy as before
        may_end.set()
        await eventually(lambda: len(seen) == 2)
        await queue.cancel(waiting)
        await queue.reaches(waiting, "COMPLETED")


async def test_a_response_after_the_cancellation_is_discarded(database: Path) -> None:
    seen: list[str] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        seen.append("started")
        await receive()
        await respond(send, b"too late")
        seen.append("answered")

    async with serving(app, database) as queue:
        request_id = await queue.submit("GET", "/")
        await eventually(lambda: seen)
        await queue.cancel(request_id)
        for _ in range(2):
            discarded = await queue.response(request_id)
            assert (discarded.status_code, discarded.json()["error_type"]) == (499, "client_cancelled")


@pytest.mark.parametrize("name", ["fastapi", "starlette", "litestar", "django-async", "quart"])
async def test_cancelling_stops_the_handlers_of_every_framework(database: Path, name: str) -> None:
    app, _ = load(name)
    hang_here.seen.clear()
    async with serving(app, database, concurrency=1) as queue:
        for _ in range(2):
            request_id = await queue.submit("GET", "/hang")
            await eventually(lambda: hang_here.seen[-1:] == ["began"])
            await queue.cancel(request_id)
            assert (await queue.response(request_id)).status_code == 499
            await eventually(lambda: hang_here.seen[-1:] == ["ended"])
        assert hang_here.seen == ["began", "ended"] * 2
        assert (await queue.run("GET", "/text")).status_code == 200


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
async def test_a_sync_endpoint_keeps_its_slot_until_its_thread_is_free(
    database: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("queue_middleware.worker.early_end.CANCEL_GRACE", 0.05)  # five seconds are too long for a test
    entered, gate = threading.Event(), threading.Event()

    def block(request: Request) -> Response:
        entered.set()
        gate.wait(DEADLINE)
        return PlainTextResponse("nobody reads this")

    async def quick(request: Request) -> Response:
        return PlainTextResponse("quick")

    app = Starlette(routes=[Route("/block", block), Route("/quick", quick)])
    limits = {"request_timeout": 0.2, "max_attempts": 1} if how == "timed out" else {}
    async with serving(app, database, concurrency=1, **limits) as queue:
        try:
            blocked = await queue.submit("GET", "/block")
            await eventually(entered.is_set)
            if how == "cancelled":
                await queue.cancel(blocked)
            assert (await queue.response(blocked)).status_code == (499 if how == "cancelled" else 504)
            waiting = await queue.submit("GET", "/quick")
            for _ in range(REPEAT):
                assert (await queue.status(waiting))["status"] == "IN_QUEUE"
        finally:
            gate.set()
        assert (await queue.response(waiting)).text == "quick"


def bare(app: Any) -> Any:
    return app


def mounted(app: Any) -> Any:
    return Starlette(routes=[Mount("/", app)])


@pytest.mark.parametrize("placed", [bare, mounted])
async def test_cancelled_streams_do_not_kill_a_wsgi_application(database: Path, placed: Any) -> None:
    """Cancelling a2wsgi's coroutine leaves its thread blocked forever: three cancellations would block 3 workers."""
    wsgi, gate = flask.Flask("streams"), threading.Event()
    started: list[int] = []
    produced: list[int] = []

    @wsgi.get("/stream")
    def stream() -> flask.Response:
        def chunks() -> Iterator[bytes]:
            started.append(1)
            while not gate.wait(0.001):
                produced.append(1)
                yield b"x" * 100
            yield b"end"

        return flask.Response(chunks())

    @wsgi.get("/alive")
    def alive() -> str:
        return "alive"

    async with serving(placed(WSGIMiddleware(wsgi, workers=3)), database, concurrency=4) as queue:
        try:
            streams = [await queue.submit("GET", "/stream") for _ in range(3)]
            await eventually(lambda: len(started) == 3)
            for request_id in streams:
                await queue.cancel(request_id)
            for request_id in streams:
                assert (await queue.response(request_id)).status_code == 499
            # More than the buffer between a2wsgi's threads and its coroutines: the coroutine still reads what they produce.
            enough = len(produced) + 100
            await eventually(lambda: len(produced) > enough, seconds=5)
        finally:
            gate.set()
        assert (await queue.run("GET", "/alive")).text == "alive"
