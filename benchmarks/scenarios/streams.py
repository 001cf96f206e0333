"""Status streams: memory of each listener, and the time from the handler's return to the event."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT
from benchmarks.load import percentile
from benchmarks.processor_time import resident_bytes
from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.servers import Server, queue_server

_MANY = 1000
_REPEATS = 20
"""Requests of one measurement with a single listener."""
_SETTLED = 0.1
"""A stream pauses after each event, and the end of a request shall not fall into the pause after its start."""


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    many = conditions.count(_MANY, 200)
    yield {"one listener": partial(_one, conditions.folder), "1,000 listeners": partial(_many, conditions.folder, many)}


async def _one(folder: Path) -> Metrics:
    with _server(folder / "one-listener.sqlite3") as server:
        events = [(await _listen(server, 1))["event p50"] for _ in range(_REPEATS)]
    return {"event p50": statistics.median(events), "event p99": max(events)}


async def _many(folder: Path, listeners: int) -> Metrics:
    """Starts a server of its own: memory that earlier streams have freed would be used again, and would not grow."""
    with _server(folder / "many-listeners.sqlite3") as server:
        await _listen(server, listeners // 100)
        return await _listen(server, listeners)


def _server(database: Path) -> AbstractContextManager[Server]:
    return queue_server(database, "benchmarks.apps:gated_queue")


async def _listen(server: Server, listeners: int) -> Metrics:
    """Let so many clients follow one request, then let it end."""
    async with AsyncExitStack() as stack:
        control = await stack.enter_async_context(Connection.open(server.port))
        submitted = await control.request("POST", SUBMIT, BODY)
        path = f"/fal/queue/requests/{submitted['request_id']}"
        before = resident_bytes(server.pid)
        streams = [
            (await stack.enter_async_context(Connection.open(server.port))).events(f"{path}/status/stream")
            for _ in range(listeners)
        ]
        await asyncio.gather(*map(_until_it_runs, streams))
        grown = resident_bytes(server.pid) - before
        await asyncio.sleep(_SETTLED)
        ends = asyncio.gather(*map(_time_of_end, streams))
        await control.request("POST", "/open")
        arrived = await ends
        returned = await control.request("GET", f"{path}/response")
    milliseconds = sorted((at - returned) / 1e6 for at in arrived)
    return {
        "event p50": percentile(milliseconds, 0.5),
        "event p99": percentile(milliseconds, 0.99),
        "memory": grown / listeners / 1000,
    }


async def _until_it_runs(events: AsyncIterator[dict[str, object]]) -> None:
    while (await anext(events))["status"] != "IN_PROGRESS":
        pass


async def _time_of_end(events: AsyncIterator[dict[str, object]]) -> int:
    while (await anext(events))["status"] != "COMPLETED":
        pass
    return time.monotonic_ns()


SCENARIO = Scenario(
    name="streams",
    title="listeners of status streams",
    open=_open,
    figures=(
        Figure("streams.one", "from the handler's return to the event, one listener", "one listener", "event p50", unit="ms"),
        Figure("streams.many", "the same, p99 of 1,000 listeners", "1,000 listeners", "event p99", unit="ms"),
        Figure("streams.memory", "memory of a listener", "1,000 listeners", "memory", unit="kB"),
    ),
    columns={
        "event p50": "event p50, ms",
        "event p99": "event p99, ms (one listener: the longest of 20)",
        "memory": "memory of a listener, kB",
    },
    seconds=90,
    note=(
        "All listeners follow the same request.",
        "The handler responds with the time at which it returns, and each listener compares it with the time of its event.",
        "For one listener, p99 is the longest of 20 requests.",
        "Between them are the commit of the result and the event itself.",
    ),
)
