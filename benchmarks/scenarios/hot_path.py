"""Submit, replay, stored result behind uvicorn, against a bare application with the same 1 KiB POST."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from benchmarks.apps import BODY
from benchmarks.jobs import SUBMIT, run_jobs, run_requests
from benchmarks.load import hammer, post, traced
from benchmarks.processor_time import processor_time
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Missing, Scenario, Variants
from benchmarks.servers import Server, queue_server, uvicorn

CONCURRENCY = 256
_WARM_UP = 2000


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count = conditions.count(20_000, 2_000)
    submissions, requests = traced(SUBMIT, BODY, count), traced("/x", BODY, count)
    with ExitStack() as stack:
        folder = conditions.folder
        plain = stack.enter_context(uvicorn("benchmarks.apps:bare", None, "--lifespan", "off"))
        database, full = folder / "queue.sqlite3", folder / "full.sqlite3"
        queue = stack.enter_context(queue_server(database, concurrency=CONCURRENCY))
        blocked = stack.enter_context(queue_server(full, "benchmarks.apps:blocked", concurrency=1))
        variants: dict[str, Measure | Missing] = {
            "bare": lambda: run_requests(plain, requests, count),
            "bare, identical headers": lambda: run_requests(plain, post("/x", BODY), count),
            "other routes": lambda: run_requests(queue, requests, count),
            "submitted": lambda: run_requests(blocked, submissions, count),
            "stored": lambda: run_jobs([queue], database, submissions, count),
            "stored, identical headers": lambda: run_jobs([queue], database, post(SUBMIT, BODY), count),
            "before": Missing("it needs --before"),
            "prototype": Missing("it needs --prototype"),
        }
        if conditions.before:
            earlier = folder / "before.sqlite3"
            path = {"PYTHONPATH": str(conditions.before / "src")}
            server = stack.enter_context(queue_server(earlier, environ=path, concurrency=CONCURRENCY))
            variants["before"] = lambda: run_jobs([server], earlier, submissions, count)
        if conditions.prototype:
            yardstick = stack.enter_context(_prototype(conditions.prototype, folder))
            variants["prototype"] = lambda: _run_prototype(yardstick, submissions, count)
        await hammer(plain.port, post("/x", BODY), _WARM_UP)
        await hammer(queue.port, post("/x", BODY), _WARM_UP)
        yield variants


@contextmanager
def _prototype(path: Path, folder: Path) -> Iterator[Server]:
    """Serve the prototype. Its applications import a payload from a module that it does not contain."""
    (folder / "common.py").write_text("PAYLOAD_BYTES = b'{}'\n")
    environ = {
        "PYTHONPATH": str(folder),
        "BENCH_SQLITE": str(folder / "prototype.sqlite3"),
        "QP_ID": "int",
        "QP_CONC": str(CONCURRENCY),
    }
    with uvicorn(f"{path.stem}:app", environ, "--lifespan", "off", "--app-dir", str(path.parent)) as server:
        yield server


async def _run_prototype(server: Server, requests: list[bytes], count: int) -> Metrics:
    stored_before, processor_before = await _stored_by_prototype(server), processor_time([server.pid])
    began = time.perf_counter()
    run = await hammer(server.port, requests, count)
    while await _stored_by_prototype(server) < stored_before + count:
        await asyncio.sleep(0.005)
    seconds = time.perf_counter() - began
    used = processor_time([server.pid]) - processor_before
    return {"per second": count / seconds, **run.metrics(), **used.per(count)}


async def _stored_by_prototype(server: Server) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(post("/bench/stats", b""))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        return int(json.loads(await reader.readexactly(length))["stored"])
    finally:
        writer.close()


def _share(key: str, title: str, variant: str, against: str = "bare", metric: str = "per second") -> Figure:
    return Figure(f"hot-path.{key}", title, variant, metric, (against, metric))


SCENARIO = Scenario(
    name="hot-path",
    title="submit, replay and stored result behind HTTP",
    open=_open,
    figures=(
        _share("stored", "stored jobs ÷ bare requests, varying headers", "stored"),
        _share(
            "stored-identical",
            "stored jobs ÷ bare requests, identical headers",
            "stored, identical headers",
            "bare, identical headers",
        ),
        _share("submitted", "submissions alone ÷ bare requests", "submitted"),
        _share("other-routes", "other routes ÷ bare requests", "other routes"),
        _share("cpu", "CPU for a job ÷ CPU for a bare request", "stored", metric="cpu"),
        _share("prototype", "stored jobs ÷ those of the prototype", "stored", "prototype"),
        _share("before", "stored jobs ÷ those of the version before", "stored", "before"),
        _share("p99-before", "p99 of a submission ÷ that of the version before", "stored", "before", "p99"),
    ),
    columns={
        "per second": "per second",
        "p50": "p50, ms",
        "p99": "p99, ms",
        "cpu": "CPU, µs",
        "cpu main thread": "event loop, µs",
        "cpu other threads": "other threads, µs",
    },
    seconds=400,
    quick=True,
    note=(
        "64 connections send a 1 KiB POST, and the next one as soon as the response is there.",
        "A job counts when its result is stored and fsynced.",
        '"Submitted" counts submissions to a queue whose only slot is taken.',
        "Headers vary by a trace id for each request, unless the variant says otherwise.",
        "CPU is the user and system time of the server's process for each request or job.",
    ),
)
