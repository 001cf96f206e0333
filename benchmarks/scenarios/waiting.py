"""Clients that wait with `Prefer: wait=N`: time from another process's commit to the response, memory, and time at shutdown."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT
from benchmarks.load import percentile
from benchmarks.processor_time import resident_bytes
from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.seeding import store_of
from benchmarks.servers import Server, queue_server
from queue_middleware.jobs.models import Claim, StoredResponse
from queue_middleware.stores.sqlite import SQLiteStore

_MANY = 1000
_PAUSE = 0.01
"""Seconds between two commits of the other process."""
_WAIT = "Prefer: wait=60\r\n"
_RESPONSE = StoredResponse(200, ((b"content-type", b"application/json"),), b"{}")
_NAME = "benchmarks"


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    many = conditions.count(_MANY, 200)
    yield {"one client": partial(_measure, conditions.folder, 1), "1,000 clients": partial(_measure, conditions.folder, many)}


async def _measure(folder: Path, clients: int) -> Metrics:
    """Another process ends the requests of half of the clients, which then wait for others; with all waiting, it is stopped."""
    database = folder / f"waiting-{clients}.sqlite3"
    with queue_server(database, "benchmarks.apps:blocked", {"QUEUE_NAME": _NAME}, concurrency=1) as server:
        ids = await _submit(server, clients + _ended(clients))
        worker = store_of(database, name=_NAME)
        await worker.open()
        try:
            claims = {claim.request_id: claim for _ in range(clients // 50 + 1) for claim in await worker.claim(200)}
            return await _wait(server, worker, clients, [claims[request_id] for request_id in ids])
        finally:
            await worker.close()


async def _submit(server: Server, count: int) -> list[str]:
    """Submit requests behind one that occupies the only slot of the server."""
    async with Connection.open(server.port) as control:
        await control.request("POST", SUBMIT, BODY)
        return [str((await control.request("POST", SUBMIT, BODY))["request_id"]) for _ in range(count)]


def _ended(clients: int) -> int:
    """For how many of the clients a request ends; for a single one, several times."""
    return max(clients // 2, 20)


async def _wait(server: Server, worker: SQLiteStore, clients: int, claims: Sequence[Claim]) -> Metrics:
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(Connection.open(server.port)) for _ in range(clients)]
        before = resident_bytes(server.pid)
        waiting = [
            (connection, asyncio.create_task(_arrival(connection, claim)))
            for connection, claim in zip(connections, claims, strict=False)
        ]
        await asyncio.sleep(1)  # until all of them wait, which nothing shows from outside
        memory = (resident_bytes(server.pid) - before) / clients / 1000
        delays = []
        for ended, following in zip(claims, claims[clients:], strict=False):
            connection, response = waiting.pop(0)
            await worker.complete(ended, _RESPONSE)
            delays.append(asyncio.create_task(_delay(time.monotonic_ns(), response)))
            waiting.append((connection, asyncio.create_task(_arrival(connection, following, response))))
            await asyncio.sleep(_PAUSE)
        ordered = sorted(await asyncio.gather(*delays))
        os.kill(server.pid, signal.SIGTERM)
        began = time.monotonic_ns()
        ends = [await _delay(began, response) for _, response in waiting]
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99), "memory": memory, "end": max(ends)}


async def _arrival(connection: Connection, claim: Claim, previous: Awaitable[int] | None = None) -> int:
    """The time at which the status arrives, which is asked for after the previous response of the connection."""
    if previous is not None:
        await previous
    await connection.request("GET", f"/fal/queue/requests/{claim.request_id}/status", headers=_WAIT)
    return time.monotonic_ns()


async def _delay(began: int, arrival: Awaitable[int]) -> float:
    """Milliseconds."""
    return (await arrival - began) / 1e6


SCENARIO = Scenario(
    name="waiting",
    title="clients that wait with `Prefer: wait=60`",
    open=_open,
    figures=(
        Figure("waiting.one", "from the commit of another process to the response, one client", "one client", "p50", unit="ms"),
        Figure("waiting.many", "the same, 1,000 clients", "1,000 clients", "p50", unit="ms"),
        Figure("waiting.end", "from SIGTERM to the last response, 1,000 clients", "1,000 clients", "end", unit="ms"),
        Figure("waiting.memory", "memory of a client that waits", "1,000 clients", "memory", unit="kB"),
    ),
    columns={
        "p50": "response p50, ms",
        "p99": "response p99, ms",
        "end": "all responses after SIGTERM, ms",
        "memory": "memory of a client, kB",
    },
    seconds=120,
    note=(
        "Each client waits for the status of a request of its own.",
        "Another process ends requests one after the other, about a hundred a second, and notes when it learns of each commit.",
        "The client then waits for another request, so that the number of those that wait is always the same.",
        "At the end the process is stopped, and responds to all of them with the present status.",
    ),
)
