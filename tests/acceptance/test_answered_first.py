"""On every server, the response to a submission arrives before the handler can block or end the process."""

from __future__ import annotations

import time
from pathlib import Path

import anyio
import pytest

from tests.support.queue_client import eventually

from .servers import Command, gunicorn, hypercorn, serving, uvicorn
from .test_servers import ASGI_WORKER, UVICORN_WORKER, needs_asgi_worker

pytestmark = pytest.mark.slow

SERVERS = [
    pytest.param(uvicorn("--loop", loop, "--http", http), id=f"uvicorn-{loop}-{http}")
    for loop in ("asyncio", "uvloop")
    for http in ("h11", "httptools")
] + [
    pytest.param(gunicorn(*UVICORN_WORKER), id="gunicorn-uvicorn"),
    pytest.param(gunicorn(*ASGI_WORKER), id="gunicorn-asgi", marks=needs_asgi_worker),
    pytest.param(hypercorn(), id="hypercorn"),
]
BLOCKED = 1.5
"""Seconds for which a handler blocks its event loop; below 2, after which gunicorn closes an unread connection."""


@pytest.mark.parametrize("command", SERVERS)
async def test_a_handler_that_blocks_the_event_loop(command: Command, tmp_path: Path) -> None:
    async with serving(command, tmp_path) as server, server.queue() as queue:
        began = time.monotonic()
        request_id = await queue.submit("POST", "/blocking", json={"seconds": BLOCKED})
        assert time.monotonic() - began < BLOCKED / 2
        assert (await queue.response(request_id)).text == "blocked"


@pytest.mark.parametrize("command", SERVERS)
async def test_submissions_that_are_committed_together(command: Command, tmp_path: Path) -> None:
    async with serving(command, tmp_path) as server, server.queue() as queue:
        ids: list[str] = []

        async def submit() -> None:
            ids.append(await queue.submit("POST", "/gated"))

        async with anyio.create_task_group() as group:
            for _ in range(8):  # the slots are taken, connections are open
                group.start_soon(submit)
        (tmp_path / "gate").touch()
        for request_id in ids:
            await queue.response(request_id)

        took: list[float] = []

        async def measured() -> None:
            began = time.monotonic()
            await queue.submit("POST", "/blocking", json={"seconds": BLOCKED})
            took.append(time.monotonic() - began)

        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(measured)
        # What arrives while a handler blocks is read after it; of two that arrive together, neither waits for both.
        assert min(took) < BLOCKED / 2
        assert max(took) < BLOCKED * 1.5


@pytest.mark.parametrize("command", SERVERS[:4])
async def test_a_handler_that_ends_its_process(command: Command, tmp_path: Path) -> None:
    async with serving(command, tmp_path) as server:
        async with server.queue() as queue:
            request_id = await queue.submit("POST", "/exiting")
        await eventually(lambda: server.lines("exiting") == [request_id])
        await server.ended(5)
