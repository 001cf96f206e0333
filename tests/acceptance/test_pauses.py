"""Four processes on one file: what is paused in another process starts in none of them, also after kills and restarts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from queue_middleware.jobs.pauses import ALL_ROUTES, Pause
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from tests.support.queue_client import Queue, eventually

from .servers import Server, serving, uvicorn

pytestmark = pytest.mark.slow


@asynccontextmanager
async def operating(server: Server) -> AsyncIterator[SQLiteStore]:
    """The database of a server as one more process has it."""
    store = SQLiteStore(Settings.load({"database": str(server.database), "min_free_disk": 0}, {}))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def submit(queue: Queue, numbers: range) -> list[str]:
    return [await queue.submit("POST", "/square", json={"n": number}) for number in numbers]


async def test_a_pause_holds_in_every_process_over_kills_and_restarts(tmp_path: Path) -> None:
    async with serving(uvicorn("--workers", "4"), tmp_path, workers=4) as server, server.queue() as queue:
        async with operating(server) as store:
            await store.operations.pause(Pause(ALL_ROUTES, "carol", "", 0))
            ids = await submit(queue, range(40))  # each process starts a request at once if it can
            server.kill_worker(server.workers()[0])
            ids += await submit(queue, range(40, 50))
        assert [(await queue.status(request_id))["queue_position"] for request_id in ids] == list(range(50))
        await server.stop()
        await server.start(workers=4)
        ids += await submit(queue, range(50, 60))
        assert server.lines("runs") == []

        async with operating(server) as store:
            assert [pause.route for pause in await store.operations.pauses()] == [ALL_ROUTES]
            await store.operations.resume(ALL_ROUTES, "carol")
        for request_id in ids:
            assert (await queue.response(request_id)).status_code == 200
        assert sorted(map(int, server.lines("runs"))) == list(range(60))


async def test_the_processes_that_run_are_listed(tmp_path: Path) -> None:
    async with serving(uvicorn("--workers", "4"), tmp_path, workers=4, concurrency=3) as server, operating(server) as store:

        async def listed() -> list[int]:
            return sorted(process.pid for process in await store.operations.processes())

        async def all_are_listed() -> bool:
            return await listed() == server.workers()

        await eventually(all_are_listed)  # the application of a worker starts before its queue
        assert {process.concurrency for process in await store.operations.processes()} == {3}
        killed = server.workers()[0]
        server.kill_worker(killed)
        await eventually(lambda: killed not in server.workers())

        async def others_are_listed() -> bool:
            found = await listed()
            return killed not in found and set(found) == set(server.workers()) and len(found) >= 3

        await eventually(others_are_listed)
        await server.stop()
        assert await listed() == []
