"""Latency when one request is made at a time."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.connection import Connection
from benchmarks.jobs import SUBMIT, until_all_have_ended
from benchmarks.load import percentile
from benchmarks.scenario import Conditions, Figure, Metrics, Scenario, Variants
from benchmarks.servers import Server, queue_server, uvicorn

_CHECK_INTERVAL = 0.0002


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(500, 100)
    database = conditions.folder / "low-load.sqlite3"
    with ExitStack() as stack:
        plain = stack.enter_context(uvicorn("benchmarks.apps:bare", None, "--lifespan", "off"))
        queue = stack.enter_context(queue_server(database))
        await _respond(plain, "/x", None, count // 4)
        await _respond(queue, SUBMIT, database, count // 4)
        yield {
            "bare": partial(_respond, plain, "/x", None, count),
            "queue": partial(_respond, queue, SUBMIT, database, count),
        }


async def _respond(server: Server, path: str, database: Path | None, count: int) -> Metrics:
    """Milliseconds until the response, and until the result is stored if there is a database."""
    responses, results = [], []
    async with Connection.open(server.port) as connection:
        for _ in range(count):
            began = time.perf_counter()
            await connection.request("POST", path, BODY)
            responses.append((time.perf_counter() - began) * 1000)
            if database:
                await until_all_have_ended(database, _CHECK_INTERVAL)
                results.append((time.perf_counter() - began) * 1000)
    return {**_percentiles("response", responses), **(_percentiles("result", results) if results else {})}


def _percentiles(name: str, values: list[float]) -> Metrics:
    ordered = sorted(values)
    return {f"{name} p50": percentile(ordered, 0.5), f"{name} p99": percentile(ordered, 0.99)}


SCENARIO = Scenario(
    name="low-load",
    title="latency with one request at a time",
    open=_open,
    figures=(
        Figure("low-load.response", "response to a submission, p50", "queue", "response p50", unit="ms"),
        Figure("low-load.result", "from the submission to the stored result, p50", "queue", "result p50", unit="ms"),
    ),
    columns={
        "response p50": "response p50, ms",
        "response p99": "p99, ms",
        "result p50": "result stored p50, ms",
        "result p99": "p99, ms",
    },
    seconds=60,
    note=("The next request is sent when the result of the one before is stored.", "Both figures include the fsyncs."),
)
