"""Responses that no server could send are failures, and the memory for large submissions is limited."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from queue_middleware import QueueMiddleware
from queue_middleware.errors import UnknownRequest
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.stores.sqlite.clocks import system_clock
from queue_middleware.web import router
from tests.support.queue_client import client_of, connected, eventually, serving

pytestmark = pytest.mark.usefixtures("course")


def responding_with(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


@pytest.mark.parametrize(
    ("status", "headers", "body", "code"),
    [
        (200, [(b"content-length", b"50000")], b"short", 502),
        (200, [(b"content-length", b"2")], b"too long", 502),
        (200, [(b"content-length", b"two")], b"xx", 502),
        (200, [(b"x-split", b"a\r\nset-cookie: b")], b"", 500),
        (200, [(b"bad name", b"a")], b"", 500),
        (101, [], b"", 500),
        (100, [], b"", 500),
    ],
)
async def test_responses_that_no_server_could_send_are_failures(
    database: Path, status: int, headers: list[tuple[bytes, bytes]], body: bytes, code: int
) -> None:
    async with serving(responding_with(status, headers, body), database, max_attempts=1) as queue:
        response = await queue.run("GET", "/")
        assert response.status_code == code
        assert response.json()["error_type"] == ("runner_incomplete_response" if code == 502 else "runner_server_error")


@pytest.mark.parametrize("status", [204, 304])
async def test_the_body_of_a_status_without_body_is_dropped(database: Path, status: int) -> None:
    async with serving(responding_with(status, [(b"etag", b'"x"')], b"nobody may see this"), database) as queue:
        response = await queue.run("GET", "/")
        assert (response.status_code, response.content, response.headers["etag"]) == (status, b"", '"x"')


async def test_headers_of_the_servers_connection_are_not_stored(database: Path) -> None:
    headers = [(b"connection", b"x-hop"), (b"x-hop", b"1"), (b"x-kept", b"2"), (b"x-fal-request-id", b"forged")]
    async with serving(responding_with(200, headers, b"ok"), database) as queue:
        request_id = await queue.submit("GET", "/")
        response = await queue.response(request_id)
        assert "x-hop" not in response.headers
        assert response.headers["x-kept"] == "2"
        assert response.headers.get_list("x-fal-request-id") == [request_id]


async def test_unstored_large_submissions_share_one_limit(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router, "MAX_SUBMISSION_BYTES", 1000)
    app = QueueMiddleware(responding_with(200, [], b""), database=database, min_free_disk=0, max_request_body=400)
    async with connected(app) as queue:
        runtime = app._runtime
        gate, inside = asyncio.Event(), 0
        submit = runtime.submit

        async def held(new: Any) -> Any:
            nonlocal inside
            inside += 1
            await gate.wait()
            return await submit(new)

        monkeypatch.setattr(runtime, "submit", held)
        first = [asyncio.create_task(queue.submit("POST", "/", content=b"x" * 400)) for _ in range(2)]
        await eventually(lambda: inside == 2)
        refused = await queue.client.post("/fal/queue/submit/", content=b"x" * 400)
        assert refused.status_code == 503
        assert 5 <= int(refused.headers["retry-after"]) <= 8
        gate.set()
        await asyncio.gather(*first)
        await queue.submit("POST", "/", content=b"x" * 400)
        assert app._queue._fal._submit_endpoint._bodies._held == 0


async def test_a_client_without_a_port_is_replayed_without_an_address(database: Path) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        seen.append((scope["client"], scope["server"]))
        await responding_with(200, [], b"")(scope, receive, send)

    queued = QueueMiddleware(app, database=database, min_free_disk=0)

    async def behind_a_socket(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope = {**scope, "client": ("/run/client.sock", None), "server": ("/run/server.sock", None)}
        await queued(scope, receive, send)

    async with connected(behind_a_socket) as queue:
        assert (await queue.run("GET", "/")).status_code == 200
        assert seen == [(None, ("/run/server.sock", None))]


async def test_a_response_that_cannot_be_read_completely_is_not_started_again(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = QueueMiddleware(responding_with(200, [], b"x" * 1_000_000), database=database, min_free_disk=0)
    async with connected(app) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.response(request_id)
        output = app._runtime.response_chunk

        async def pruned(key: int, number: int) -> bytes:
            if number > 1:
                raise UnknownRequest("gone")
            return await output(key, number)

        monkeypatch.setattr(app._runtime, "response_chunk", pruned)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message["type"])

        path = f"/fal/queue/requests/{request_id}/response"
        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "scheme": "http"}
        with pytest.raises(RuntimeError, match="cannot be completed"):
            await app(scope, None, send)  # type: ignore[arg-type]
        assert sent.count("http.response.start") == 1


async def test_error_responses_contain_the_request_id(database: Path) -> None:
    gate = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError
        await gate.wait()
        await responding_with(200, [], b"")(scope, receive, send)

    async with serving(app, database) as queue:
        request_id = await queue.submit("GET", "/")
        early = await queue.client.get(f"/fal/queue/requests/{request_id}/response")
        assert (early.status_code, early.headers["x-fal-request-id"]) == (400, request_id)
        gate.set()


async def test_returned_urls_start_with_public_url(database: Path) -> None:
    async with serving(responding_with(200, [], b""), database, public_url="https://api.example.com/v2") as queue:
        response = (await queue.client.post("/fal/queue/submit/x")).json()
        base = f"https://api.example.com/v2/fal/queue/requests/{response['request_id']}"
        assert (response["status_url"], response["response_url"], response["cancel_url"]) == (
            f"{base}/status",
            f"{base}/response",
            f"{base}/cancel",
        )


async def test_an_application_whose_startup_raises_is_reported(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise RuntimeError("cannot reach the model server")
        await responding_with(200, [], b"")(scope, receive, send)

    with caplog.at_level(logging.WARNING, "queue_middleware"):
        async with serving(app, database):
            pass
    assert "RuntimeError: cannot reach the model server" in caplog.text


async def test_a_content_length_of_five_thousand_digits_is_refused(database: Path) -> None:
    app = QueueMiddleware(responding_with(200, [], b""), database=database, min_free_disk=0)
    async with connected(app):
        async with client_of(app) as client:
            response = await client.post("/fal/queue/submit/x", headers={"content-length": "9" * 5000}, content=b"x")
        assert response.status_code == 413


async def test_a_no_store_response_is_kept_for_an_hour(database: Path) -> None:
    app = QueueMiddleware(responding_with(200, [], b"private"), database=database, min_free_disk=0)
    async with connected(app) as queue:
        private = await queue.submit("POST", "/", headers={"x-fal-store-io": "0"})
        other = await queue.submit("POST", "/", headers={"x-fal-store-io": "1"})
        assert (await queue.response(private)).content == (await queue.response(other)).content == b"private"
        later = SQLiteStore(app.settings, clock=lambda: system_clock() + 3_600_000)
        await later.open()
        await later.prune(10)
        await later.close()
        gone = await queue.client.get(f"/fal/queue/requests/{private}/response")
        assert (gone.status_code, gone.json()) == (404, {"status": "NOT_FOUND"})
        assert (await queue.status(private))["status"] == "COMPLETED"
        assert (await queue.response(other)).content == b"private"
