"""Memory of the server for each request that waits: in the queue, and in a handler."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.jobs import SUBMIT
from benchmarks.load import hammer, post
from benchmarks.processor_time import resident_bytes
from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.servers import queue_server

_WARM_UP = 1000
"""Submissions after which caches and connections have their final size."""


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(10_000, 2_000)
    yield {
        "queued": partial(_measure, conditions.folder, 1, count),
        "running": partial(_measure, conditions.folder, count + _WARM_UP, count),
    }


async def _measure(folder: Path, slots: int, count: int) -> Metrics:
    """Kilobytes for each request, on a server of its own: memory that was freed is used again, and does not grow."""
    database = folder / f"memory-{slots}.sqlite3"
    for file in folder.glob(f"{database.name}*"):
        file.unlink()
    with queue_server(database, "benchmarks.apps:blocked", concurrency=slots) as server:
        await hammer(server.port, post(SUBMIT, BODY), _WARM_UP)
        before = resident_bytes(server.pid)
        await hammer(server.port, post(SUBMIT, BODY), count)
        return {"memory": (resident_bytes(server.pid) - before) / count / 1000}


SCENARIO = Scenario(
    name="memory",
    title="memory of a waiting request",
    open=_open,
    figures=(
        Figure("memory.queued", "memory of a queued request", "queued", "memory", unit="kB"),
        Figure("memory.running", "memory of a running request that waits in its handler", "running", "memory", unit="kB"),
    ),
    columns={"memory": "memory, kB"},
    seconds=120,
    note=("The growth of the server's resident memory, divided by the number of 1 KiB requests.",),
)
