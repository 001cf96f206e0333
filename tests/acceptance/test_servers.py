"""The queue on every supported server: from a submission to a signed webhook and a regular shutdown."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from queue_middleware.verify import WebhookVerifier
from tests.support.queue_client import eventually
from tests.support.webhook_receiver import receiving

from .servers import Command, Server, gunicorn, has_gunicorn_asgi, hypercorn, serving, uvicorn, uvicorn_worker

pytestmark = pytest.mark.slow

needs_asgi_worker = pytest.mark.skipif(not has_gunicorn_asgi(), reason="this gunicorn has no ASGI worker of its own")

UVICORN_WORKER = ("--worker-class", uvicorn_worker())
ASGI_WORKER = ("--worker-class", "asgi")

SERVERS = [
    pytest.param(uvicorn(), 1, id="uvicorn"),
    pytest.param(uvicorn("--loop", "asyncio", "--http", "h11"), 1, id="uvicorn-pure-python"),
    pytest.param(uvicorn("--workers", "2"), 2, id="uvicorn-2-workers"),
    pytest.param(gunicorn(*UVICORN_WORKER), 1, id="gunicorn-uvicorn"),
    pytest.param(gunicorn(*UVICORN_WORKER, "--workers", "2", "--preload"), 2, id="gunicorn-uvicorn-preload"),
    pytest.param(gunicorn(*ASGI_WORKER), 1, id="gunicorn-asgi", marks=needs_asgi_worker),
    pytest.param(gunicorn(*ASGI_WORKER, "--workers", "2", "--preload"), 2, id="gunicorn-asgi-preload", marks=needs_asgi_worker),
    pytest.param(hypercorn(), 1, id="hypercorn"),
    pytest.param(hypercorn("--workers", "2"), 2, id="hypercorn-2-workers"),
]
ENDED_BY_FIRST = {"hypercorn-2-workers"}
"""Servers that end all workers as soon as one has ended, whatever the others do (docs/how-to/servers.md)."""


@pytest.mark.parametrize(("command", "workers"), SERVERS)
async def test_from_a_submission_to_a_regular_shutdown(
    command: Command, workers: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with (
        receiving() as receiver,
        serving(command, tmp_path, workers) as server,
        server.queue() as queue,
    ):
        request_id = await queue.submit("POST", f"/square?fal_webhook={receiver.url}/hook", json={"n": 12})
        response = await queue.response(request_id)
        assert (response.status_code, response.json()) == (200, {"n": 12, "square": 144})
        assert response.headers["x-fal-request-id"] == request_id
        (webhook,) = await eventually(lambda: receiver.webhooks_for(request_id))
        verified = await WebhookVerifier(f"{server.url}/fal/queue/.well-known/jwks.json").verify(webhook.headers, webhook.body)
        assert verified.request_id == request_id
        assert verified.json()["payload"] == {"n": 12, "square": 144}

        pids = server.workers()
        assert len(pids) == workers
        began = time.monotonic()
        # uvicorn raises the signal once more when it is done, as well-behaved programs do.
        assert await server.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < 8
        closed = sorted(map(int, server.lines("closed")))
        if request.node.callspec.id in ENDED_BY_FIRST:
            assert closed
            assert set(closed) <= set(pids)
        else:
            assert closed == pids
        assert server.complaints() == []


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(uvicorn("--timeout-graceful-shutdown", "5"), id="uvicorn"),
        pytest.param(gunicorn(*ASGI_WORKER), id="gunicorn-asgi", marks=needs_asgi_worker),
        pytest.param(hypercorn(), id="hypercorn"),
    ],
)
async def test_sigterm_hands_running_attempts_back(command: Command, tmp_path: Path) -> None:
    async with serving(command, tmp_path, shutdown_timeout="500ms") as server:
        async with server.queue() as queue:
            request_id = await queue.submit("POST", "/gated")
            await eventually(lambda: server.lines("entered"))
        assert await server.stop() in (0, -signal.SIGTERM)
        (tmp_path / "gate").touch()
        await server.start()
        async with server.queue() as queue:
            assert (await queue.response(request_id)).text == "through"
        assert server.lines("entered") == [request_id, request_id]
        assert server.lines("tidied") == [request_id]  # its `finally` blocks have run
        assert server.lines("attempts") == ["1", "1"]  # and no attempt was charged


async def test_a_worker_that_hypercorn_ends_early_loses_nothing(tmp_path: Path) -> None:
    """The idle worker ends first, and then hypercorn ends the other one in the middle of its request."""
    async with serving(hypercorn("--workers", "2"), tmp_path, workers=2, shutdown_timeout="20s") as server:
        async with server.queue() as queue:
            request_id = await queue.submit("POST", "/gated")
            await eventually(lambda: server.lines("entered"))
        await server.stop()
        (tmp_path / "gate").touch()
        await server.start()
        async with server.queue() as queue:
            assert (await queue.response(request_id)).text == "through"
        assert server.lines("entered") == [request_id, request_id]


async def test_handlers_that_occupy_all_threads_block_neither_the_keys_nor_the_shutdown(tmp_path: Path) -> None:
    threads = min(32, (os.cpu_count() or 1) + 4)  # as many as the event loop's executor has
    async with serving(uvicorn(), tmp_path, shutdown_timeout="200ms", concurrency=2 * threads) as server:
        async with server.queue() as queue:
            ids = [await queue.submit("POST", "/in-a-thread") for _ in range(threads + 2)]
            await eventually(lambda: len(server.lines("in_a_thread")) == threads)
            assert (await queue.client.get("/fal/queue/.well-known/jwks.json")).status_code == 200
        assert await server.stop() in (0, -signal.SIGTERM)
        (tmp_path / "gate").touch()
        await server.start()
        async with server.queue() as queue:
            for request_id in ids:
                assert (await queue.response(request_id)).text == "attempt 1"  # handed back, and not charged


async def test_a_second_sigint_ends_the_process_at_once(tmp_path: Path) -> None:
    """It makes uvicorn skip the lifespan's shutdown; no thread of the queue may keep the process alive then."""
    async with serving(uvicorn(), tmp_path) as server, server.queue() as queue:
        request_id = await queue.submit("POST", "/gated")
        await eventually(lambda: server.lines("entered"))
        began = time.monotonic()
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)
        await eventually(lambda: "Shutting down" in server.output)
        server.process.send_signal(signal.SIGINT)
        await server.ended(5)
        assert time.monotonic() - began < 5
        (tmp_path / "gate").touch()
        await server.start()
        async with server.queue() as again:
            assert (await again.response(request_id)).text == "through"


@pytest.mark.parametrize("options", [["--lifespan", "off"], ["--lifespan", "off", "--workers", "2"]], ids=["one", "two"])
async def test_without_lifespan_the_queue_reports_why_it_does_not_run(options: list[str], tmp_path: Path) -> None:
    # Without lifespan the workers record nothing, so there is nothing to wait for.
    async with serving(uvicorn(*options), tmp_path, workers=0) as server, server.client() as client:
        refused = await client.post("/fal/queue/submit/square", json={"n": 1})
        assert refused.status_code == 503
        assert "lifespan" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert (await client.post("/square", json={"n": 2})).json() == {"n": 2, "square": 4}
        assert not server.database.exists()


async def test_a_database_that_cannot_be_opened_stops_the_start_with_a_message(tmp_path: Path) -> None:
    server = Server(uvicorn(), tmp_path)
    server.database.write_bytes(b"this is not SQLite, this is a text file\n" * 100)
    with pytest.raises(AssertionError, match="the server ended with 3"):
        await server.start()
    assert f"the database {server.database} cannot be opened" in server.output


async def test_a_folder_at_the_path_of_the_database_is_refused_at_construction(tmp_path: Path) -> None:
    server = Server(uvicorn(), tmp_path)
    server.database.mkdir()
    with pytest.raises(AssertionError, match="the server ended with 1"):
        await server.start()
    assert f"database: {server.database} is a folder; write the path of a file" in server.output
