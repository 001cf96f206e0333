"""Invalid input is refused with a clear response, before anything is stored and before the application is called."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from queue_middleware import QueueMiddleware
from tests.support.queue_client import Queue, connected, eventually, serving, stored_jobs
from tests.support.raw_asgi import Message, RawResponse, Receive, Send, call, http_only, http_scope, respond

UNKNOWN = "0192d3b5-7a4c-7def-8123-456789abcdef"


@dataclass
class Strict:
    """A queue that is expected to refuse everything."""

    app: QueueMiddleware
    queue: Queue
    database: Path
    calls: list[str]

    async def refuses(self, status: int, method: str, path: str, **request: Any) -> httpx.Response:
        with self.untouched():
            refused = await self.queue.client.request(method, path, **request)
        assert refused.status_code == status, refused.text
        assert refused.headers["content-type"] == "application/json"
        assert refused.json().get("detail") or refused.json().get("status"), refused.text
        return refused

    async def refuses_raw(self, status: int, scope: Message, receive: Receive | None = None) -> RawResponse:
        """The same for requests that `httpx` would normalize."""
        with self.untouched():
            refused = await call(self.app, scope, receive)
        assert refused.status == status, refused.body
        return refused

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Check that inside the block nothing is stored and the application is not called."""
        before = stored_jobs(self.database), list(self.calls)
        yield
        assert (stored_jobs(self.database), self.calls) == before


@pytest.fixture(scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Strict]:
    calls: list[str] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        calls.append(scope["path"])
        await respond(send)

    database = tmp_path_factory.mktemp("strict") / "queue.sqlite3"
    wrapped = QueueMiddleware(app, database=database, max_request_body=100_000, min_free_disk=0)
    async with connected(wrapped) as queue:
        yield Strict(wrapped, queue, database, calls)


# --- ids and routes

MALFORMED = ["x", "1", UNKNOWN[:-1], UNKNOWN + "0", "{" + UNKNOWN + "}", UNKNOWN.replace("-", ""), UNKNOWN.replace("a", "g"),
             "%00", "a%20b", "%F0%9F%98%80", "9" * 500, "..%2f..%2fetc", "' OR 1=1 --"]  # fmt: skip
BY_ID = [
    ("GET", "/requests/{id}/status"),
    ("GET", "/requests/{id}/status/?logs=1"),
    ("GET", "/requests/{id}/response"),
    ("PUT", "/requests/{id}/cancel"),
    ("GET", "/{id}/get"),
    ("POST", "/{id}/get"),
    ("GET", "/{id}/status"),
    ("GET", "/{id}/response"),
    ("PUT", "/{id}/cancel"),
    ("POST", "/{id}/cancel"),
]


@pytest.mark.parametrize("request_id", MALFORMED)
@pytest.mark.parametrize(("method", "path"), BY_ID)
async def test_malformed_ids(strict: Strict, method: str, path: str, request_id: str) -> None:
    """An id that cannot exist is handled like an unknown one; a path that matches no route is an unknown route."""
    refused = await strict.queue.client.request(method, "/fal/queue" + path.format(id=request_id))
    assert refused.status_code == 404, refused.text
    assert refused.headers["content-type"] == "application/json"
    assert refused.json() == {"status": "NOT_FOUND"} or "no queue route" in refused.json()["detail"]
    assert "x-fal-request-id" not in refused.headers


@pytest.mark.parametrize("request_id", ["x", UNKNOWN])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        *BY_ID,
        ("GET", "/requests/{id}/status/stream"),
        ("GET", "/run/o/a/requests/{id}"),
        ("GET", "/run/o/a/requests/{id}/response"),
        ("GET", "/run/o/a/requests/{id}/status/"),
        ("POST", "/run/o/a/requests/{id}/status"),
        ("GET", "/run/o/a/requests/{id}/status/stream"),
        ("PUT", "/run/o/a/requests/{id}/cancel"),
    ],
)
async def test_malformed_and_unknown_ids_look_the_same(strict: Strict, method: str, path: str, request_id: str) -> None:
    refused = await strict.queue.client.request(method, "/fal/queue" + path.format(id=request_id))
    assert (refused.status_code, refused.json()) == (404, {"status": "NOT_FOUND"})


@pytest.mark.parametrize(("method", "path"), BY_ID)
async def test_unknown_ids(strict: Strict, method: str, path: str) -> None:
    refused = await strict.refuses(404, method, "/fal/queue" + path.format(id=UNKNOWN))
    assert refused.json()["status"] == "NOT_FOUND"


@pytest.mark.parametrize(
    "path",
    ["", "/", "/nothing", "/submitx", "/requests", "/requests/", f"/requests/{UNKNOWN}/unknown", f"/{UNKNOWN}", f"/{UNKNOWN}/x",
     f"/requests/{UNKNOWN}/status/x", f"/requests/{UNKNOWN}/x/status", "/.well-known/other.json", "/admin"],
)  # fmt: skip
async def test_unknown_paths(strict: Strict, path: str) -> None:
    await strict.refuses(404, "GET", f"/fal/queue{path}")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", f"/requests/{UNKNOWN}/status", "GET"),
        ("DELETE", f"/requests/{UNKNOWN}/response", "GET"),
        ("GET", f"/requests/{UNKNOWN}/cancel", "PUT"),
        ("DELETE", f"/{UNKNOWN}/get", "GET"),
        ("PATCH", "/.well-known/jwks.json", "GET"),
    ],
)
async def test_wrong_methods(strict: Strict, method: str, path: str, allowed: str) -> None:
    refused = await strict.refuses(405, method, f"/fal/queue{path}")
    assert allowed in refused.headers["allow"]


# --- webhooks

BAD_WEBHOOKS = [
    "ftp://example.com/hook",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "example.com/hook",
    "//example.com/hook",
    "https://",
    "https:///hook",
    "https://exa mple.com/hook",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://user:password@example.com/hook",
    "https://user@example.com/hook",
    "https://example.com/hook\r\nx-injected: 1",
    "https://example.com/" + "x" * 2048,
    "http://127.0.0.1:9/hook",
    "https://127.0.0.1/hook",
    "https://127.1/hook",
    "https://0.0.0.0/hook",
    "https://0/hook",
    "https://2130706433/hook",
    "https://0x7f000001/hook",
    "https://0177.0.0.1/hook",
    "https://localhost/hook",
    "https://LOCALHOST./hook",
    "https://10.0.0.1/hook",
    "https://172.16.0.1/hook",
    "https://192.168.1.1/hook",
    "https://100.64.0.1/hook",
    "https://169.254.169.254/latest/meta-data",
    "https://192.0.0.192/opc",
    "https://224.0.0.1/hook",
    "https://255.255.255.255/hook",
    "https://[::1]/hook",
    "https://[::]/hook",
    "https://[fe80::1]/hook",
    "https://[fe80::1%25lo]/hook",
    "https://[fd00::1]/hook",
    "https://[ff02::1]/hook",
    "https://[::ffff:127.0.0.1]/hook",
    "https://[::127.0.0.1]/hook",
    "https://[64:ff9b::7f00:1]/hook",
    "https://[2002:7f00:1::]/hook",
    "https://\u2460\u2461\u2466.0.0.1/hook",
]


@pytest.mark.parametrize("url", BAD_WEBHOOKS, ids=lambda url: url[:50])
async def test_webhook_urls_that_cannot_be_called_are_refused(strict: Strict, url: str) -> None:
    await strict.refuses(422, "POST", f"/fal/queue/submit/x?fal_webhook={quote(url, safe='')}")


async def test_two_webhook_urls_are_refused(strict: Strict) -> None:
    await strict.refuses(
        400, "POST", "/fal/queue/submit/x?fal_webhook=https%3A%2F%2Fa.example%2F&fal_webhook=https%3A%2F%2Fb.example"
    )


# --- numbers in headers and query

NOT_SECONDS = ["abc", "-1", "0", "0.05", "nan", "inf", "-inf", "1e999", "5s", "1,5", "\u0665", "0x10", "1_0"]
NOT_RETRIES = ["{", "[]", "null", "3", '"server_error"', '{"server_error": 3}', '{"server_error": {}}',
               '{"server_error": {"retries": -1}}', '{"timeout": {"retries": "2"}}', '{"connection_error": {"retries": 1.5}}',
               '{"server_error": {"retries": true}}', '{"server_error": {"retries": null}}', "[" * 5000]  # fmt: skip


@pytest.mark.parametrize("value", NOT_SECONDS)
@pytest.mark.parametrize("header", ["x-fal-request-timeout", "x-fal-request-start-timeout"])
async def test_deadlines_that_are_not_a_number_of_seconds(strict: Strict, header: str, value: str) -> None:
    refused = await strict.refuses(400, "POST", "/fal/queue/submit/x", headers={header: value.encode()})
    assert header in refused.json()["detail"].lower()


@pytest.mark.parametrize("value", NOT_RETRIES, ids=lambda value: value[:40])
async def test_invalid_retry_configurations(strict: Strict, value: str) -> None:
    refused = await strict.refuses(400, "POST", "/fal/queue/submit/x", headers={"x-fal-retry-config": value})
    assert "x-fal-retry-config" in refused.json()["detail"].lower()


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "%D9%A5", "1e3", "9" * 400])
async def test_queue_lengths_that_are_not_a_number(strict: Strict, value: str) -> None:
    refused = await strict.refuses(400, "POST", f"/fal/queue/submit/x?fal_max_queue_length={value}")
    assert "fal_max_queue_length" in refused.json()["detail"]


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("x-fal-queue-priority", "urgent"),
        ("x-fal-queue-priority", ""),
        ("x-fal-no-retry", "perhaps"),
        ("x-fal-store-io", "sometimes"),
        ("x-fal-runner-hint", "the red one"),
        ("x-fal-retry-config", '{"weather": {"retries": 1}}'),
        ("x-fal-request-timeout", "30.0"),
        ("x-fal-request-start-timeout", "30"),
        ("x-fal-anything", "\xff"),
    ],
)
async def test_unknown_words_are_ignored(database: Path, header: str, value: str) -> None:
    async with serving(ok, database) as queue:
        assert (await queue.run("POST", "/x", headers={header: value.encode("latin-1")})).status_code == 200


@http_only
async def ok(scope: Message, receive: Receive, send: Send) -> None:
    await respond(send)


# --- bodies


def body_of(strict: Strict, pieces: AsyncIterator[bytes]) -> tuple[Receive, list[int]]:
    """A client that sends one piece after another, and the number of pieces that were read."""
    taken: list[int] = []

    async def receive() -> Message:
        try:
            piece = await anext(pieces)
        except StopAsyncIteration:
            return {"type": "http.disconnect"}
        taken.append(len(piece))
        return {"type": "http.request", "body": piece, "more_body": True}

    return receive, taken


async def forever() -> AsyncIterator[bytes]:
    while True:
        yield b"x" * 10_000


async def a_little() -> AsyncIterator[bytes]:
    yield b"x" * 10_000


async def test_a_body_with_a_too_large_content_length_is_not_read(strict: Strict) -> None:
    receive, taken = body_of(strict, forever())
    scope = http_scope("POST", b"/fal/queue/submit/x", headers=[(b"content-length", b"100001")])
    await strict.refuses_raw(413, scope, receive)
    assert taken == []


@pytest.mark.parametrize("length", [[], [(b"content-length", b"10")]], ids=["chunked", "lying"])
async def test_a_body_that_never_ends_is_cut_off(strict: Strict, length: list[Any]) -> None:
    receive, taken = body_of(strict, forever())
    await strict.refuses_raw(413, http_scope("POST", b"/fal/queue/submit/x", headers=length), receive)
    assert sum(taken) <= 110_000


@pytest.mark.parametrize("length", [b"abc", b"-1", b"1e3", b"+5", b"\xb2"])
async def test_an_invalid_content_length_does_not_lift_the_limit(strict: Strict, length: bytes) -> None:
    """Servers refuse these headers; if one does not, the limit still holds."""
    receive, taken = body_of(strict, forever())
    scope = http_scope("POST", b"/fal/queue/submit/x", headers=[(b"content-length", length)])
    with strict.untouched():
        assert (await call(strict.app, scope, receive)).status in (400, 413)
    assert sum(taken) <= 110_000


async def test_a_client_that_disconnects_during_the_body_submits_nothing(strict: Strict) -> None:
    receive, taken = body_of(strict, a_little())
    scope = http_scope("POST", b"/fal/queue/submit/x", headers=[(b"content-length", b"20000")])
    with anyio.fail_after(5), strict.untouched():
        await call(strict.app, scope, receive)
    assert taken == [10_000]


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_a_submission_cancelled_while_it_is_stored_either_runs_or_is_not_stored(database: Path, concurrency: int) -> None:
    """Servers and time-limit middlewares cancel requests. A job that is stored then must not stay half started forever."""
    wrapped = QueueMiddleware(ok, database=database, concurrency=concurrency, min_free_disk=0)
    async with connected(wrapped) as queue, anyio.create_task_group() as tasks:
        assert (await queue.run("POST", "/before")).status_code == 200  # the worker is idle
        with closing(sqlite3.connect(database, isolation_level=None)) as backup:
            backup.execute("BEGIN IMMEDIATE")  # a backup tool: every commit waits for it
            for number in range(3):
                tasks.start_soon(call, wrapped, http_scope("POST", b"/fal/queue/submit/%d" % number))
            for _ in range(100):
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.01)
            backup.execute("ROLLBACK")
        with anyio.CancelScope(shield=True):
            assert (await queue.run("POST", "/after")).status_code == 200
            await eventually(lambda: stored_jobs(database, "state <> 'completed'") == 0, seconds=5)


async def test_a_body_of_exactly_the_limit_is_accepted(database: Path) -> None:
    async with serving(ok, database, max_request_body=100_000) as queue:
        assert (await queue.run("POST", "/x", content=b"x" * 100_000)).status_code == 200
        assert (await queue.client.post("/fal/queue/submit/x", content=b"x" * 100_001)).status_code == 413


# --- paths

TRICKS = [
    b"/../admin",
    b"/a/../b",
    b"/a/..",
    b"/..",
    b"/./a",
    b"/a/.",
    b"/%2e%2e/admin",
    b"/%2E%2E/admin",
    b"/.%2e/admin",
    b"/a/..%2fb",
    b"/a%2f..%2fb",
    b"/a/%2e/b",
    b"//evil.example",
    b"/a//b",
    b"/a\\b",
    b"/a%5cb",
    b"/..%5c..%5cb",
    b"/a%00b",
    b"/a%0d%0ab",
    b"/a%0ab",
    b"/a%1bb",
    b"/a%7fb",
    b"/a\x00b",
    b"/a\nb",
    b"/fal/queue",
    b"/fal/queue/",
    b"/fal/queue/submit/x",
    b"/fal/queue/requests/x/status",
    b"/fal%2fqueue/submit/x",
    b"/fal%2Fqueue%2Fsubmit/x",
    b"/%66al/queue/submit/x",
    b"/fal/queu%65/submit/x",
]


@pytest.mark.parametrize("path", TRICKS, ids=repr)
async def test_path_tricks(strict: Strict, path: bytes) -> None:
    await strict.refuses_raw(400, http_scope("POST", b"/fal/queue/submit" + path))


@pytest.mark.parametrize("path", [b"/fal/queue/submit/a\x80b", b"/fal/queue/submit/%ff"])
async def test_paths_that_are_not_utf8_do_no_harm(database: Path, path: bytes) -> None:
    """A path that is not UTF-8 is either refused or replayed with the same bytes."""
    seen: list[bytes] = []

    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append(scope["raw_path"])
        await respond(send)

    wrapped = QueueMiddleware(app, database=database, min_free_disk=0)
    async with connected(wrapped):
        submitted = await call(wrapped, http_scope("POST", path, path=path.decode("latin-1")))
        if submitted.status == 200:
            await eventually(lambda: seen == [path.removeprefix(b"/fal/queue/submit")])
        else:
            assert submitted.status == 400


async def test_the_prefix_inside_a_longer_segment_is_an_ordinary_path(database: Path) -> None:
    async with serving(ok, database) as queue:
        for target in ("/fal/queued/x", "/x/fal/queue", "/fal/queue2", "/falqueue"):
            assert (await queue.run("POST", target)).status_code == 200


async def test_paths_that_may_be_queued(database: Path) -> None:
    async with serving(ok, database, paths=["/generate", "/models/*"]) as queue:
        for target in ("/generate", "/models/a", "/models/a?x=1", "/generate"):
            assert (await queue.run("POST", target)).status_code == 200
        for target in ("/admin", "/generate/more", "/generates", "/model", "/", "/admin?/generate", "/admin"):
            refused = await queue.client.post(f"/fal/queue/submit{target}")
            assert refused.status_code == 403, target
        assert stored_jobs(database) == 4


# --- sizes of everything else


@pytest.mark.parametrize("target", ["/" + "x" * 2048, "/x?" + "y" * 2048, "/" + "x" * 1024 + "?" + "y" * 1024])
async def test_urls_that_are_too_long(strict: Strict, target: str) -> None:
    await strict.refuses(414, "POST", f"/fal/queue/submit{target}")


@pytest.mark.parametrize(
    "headers",
    [{"x-one": "y" * 33_000}, {f"x-many-{number}": "y" * 100 for number in range(400)}, {"y" * 33_000: "1"}],
    ids=["one", "many", "name"],
)
async def test_header_blocks_that_are_too_large(strict: Strict, headers: dict[str, str]) -> None:
    await strict.refuses(431, "POST", "/fal/queue/submit/x", headers=headers)


async def test_large_but_not_too_large(database: Path) -> None:
    async with serving(ok, database) as queue:
        assert (await queue.run("POST", "/" + "x" * 1900, headers={"x-one": "y" * 30_000})).status_code == 200


class Blocked:
    """An application whose calls all wait until the gate opens."""

    def __init__(self) -> None:
        self.gate = anyio.Event()
        self.started: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        self.started.append(scope["path"])
        await self.gate.wait()
        await respond(send)


async def test_a_full_queue_refuses_with_503_and_retry_after(database: Path) -> None:
    app = Blocked()
    async with serving(app, database, concurrency=1, max_queued=3) as queue:
        await queue.submit("POST", "/running")
        await eventually(lambda: app.started)
        waiting = [await queue.submit("POST", f"/{number}") for number in range(3)]
        refused = await queue.client.post("/fal/queue/submit/one-too-many")
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert stored_jobs(database) == 4
        app.gate.set()
        for request_id in waiting:
            await queue.reaches(request_id, "COMPLETED")
        assert (await queue.run("POST", "/again")).status_code == 200


async def test_one_client_cannot_fill_the_queue(database: Path) -> None:
    app = Blocked()
    wrapped = QueueMiddleware(app, database=database, concurrency=1, max_queued_per_client=2, min_free_disk=0)
    async with connected(wrapped) as queue:
        await queue.submit("POST", "/running")
        await eventually(lambda: app.started)
        for number in range(2):
            await queue.submit("POST", f"/{number}")
        for headers in ({}, {"x-forwarded-for": "203.0.113.5"}, {"user-agent": "somebody else"}):
            refused = await queue.client.post("/fal/queue/submit/x", headers=headers)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) > 0
        assert stored_jobs(database) == 3
        other = http_scope("POST", b"/fal/queue/submit/other") | {"client": ("203.0.113.5", 4711)}
        assert (await call(wrapped, other)).status == 200
        app.gate.set()
        await eventually(lambda: len(app.started) == 4)


async def test_a_client_can_require_a_short_queue(database: Path) -> None:
    app = Blocked()
    async with serving(app, database, concurrency=1) as queue:
        await queue.submit("POST", "/running?fal_max_queue_length=0")
        await eventually(lambda: app.started)
        await queue.submit("POST", "/waiting?fal_max_queue_length=0")
        refused = await queue.client.post("/fal/queue/submit/x?fal_max_queue_length=0")
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        await queue.submit("POST", "/patient?fal_max_queue_length=1")
        assert stored_jobs(database) == 3
        app.gate.set()
        await eventually(lambda: len(app.started) == 3)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "at-once"])
async def test_a_response_that_is_too_large_fails_the_request(database: Path, streamed: bool) -> None:
    produced: list[int] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                produced.append(1)
                yield b"x" * 10_000

        return StreamingResponse(chunks()) if streamed else Response(b"x" * 100_001)

    app = Starlette(routes=[Route("/", endpoint)])
    async with serving(app, database, max_response_body=100_000, concurrency=1) as queue:
        for _ in range(2):  # the slot is free again
            answered = await queue.run("GET", "/")
            assert answered.status_code == 500
            assert answered.json()["error_type"] == "runner_server_error"
            assert "100000" in answered.json()["detail"].replace(",", "")
    assert len(produced) <= 2 * 12


async def test_a_response_of_exactly_the_limit_is_stored(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        return Response(b"x" * 100_000)

    async with serving(Starlette(routes=[Route("/", endpoint)]), database, max_response_body=100_000) as queue:
        assert len((await queue.run("GET", "/")).content) == 100_000


# --- calls in the wrong order


async def test_the_response_before_the_request_is_completed(database: Path) -> None:
    app = Blocked()
    async with serving(app, database) as queue:
        request_id = await queue.submit("GET", "/")
        for path in (f"requests/{request_id}/response", f"{request_id}/response", f"requests/{request_id}/response/"):
            early = await queue.client.get(f"/fal/queue/{path}")
            assert (early.status_code, early.json()) == (400, {"detail": "Request is still in progress"})
        app.gate.set()
        assert (await queue.response(request_id)).status_code == 200


async def test_a_cancellation_after_the_end_is_refused(database: Path) -> None:
    async with serving(ok, database) as queue:
        request_id = await queue.submit("GET", "/")
        assert (await queue.response(request_id)).content == b"ok"
        late = await queue.cancel(request_id)
        assert (late.status_code, late.json()) == (400, {"status": "ALREADY_COMPLETED"})
        assert (await queue.response(request_id)).content == b"ok"


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", b"/fal/queue/submit/echo"), ("GET", b"/fal/queue/v1/tasks/" + UNKNOWN.encode())],
)
async def test_a_query_of_megabytes_is_not_read(strict: Strict, method: str, path: bytes) -> None:
    """Parsing it would block the event loop for seconds."""
    query = b"&".join(b"fal_%d=1" % number for number in range(400_000))
    began = time.thread_time()
    refused = await strict.refuses_raw(414, http_scope(method, path, query=query))
    assert time.thread_time() - began < 0.3
    assert b"the query is longer than 16384 bytes" in refused.body


@pytest.mark.parametrize("host", [b'"quote"', b"{callback_url}", b"a b", b"user@a", b"a/b", b"a" * 301])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", b"/fal/queue/submit/echo", b"{callback_url}"),
        ("POST", b"/fal/queue/run/owner/app", b""),
        ("POST", b"/fal/queue/v1/tasks", b'{"targetUrl": "/echo", "body": "{callback_url}"}'),
        ("GET", b"/fal/queue/openapi.json", b""),
    ],
)
async def test_an_invalid_host_header_appears_in_no_url(
    strict: Strict, host: bytes, method: str, path: bytes, body: bytes
) -> None:
    """Callback URLs contain the host: a request of two kilobytes with a hundred placeholders would grow to fifty megabytes."""
    scope = {**http_scope(method, path), "headers": [(b"host", host)]}

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    refused = await strict.refuses_raw(400, scope, receive)
    assert b"Host is not a host" in refused.body


@pytest.mark.parametrize("path", ["/submit/x", "/submit", "/run/o/a/x", "/run/o/a"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_misspelled_parameter_submits_nothing(strict: Strict, method: str, path: str) -> None:
    refused = await strict.refuses(400, method, f"/fal/queue{path}?x=1&%66al_webook=https%3A%2F%2Fa.example%2F")
    assert refused.json()["error_type"] == "bad_request"
    assert "did you mean fal_webhook?" in refused.json()["detail"]
