"""Submit, replay, stored result behind uvicorn, against a bare application with the same 1 KiB POST."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

from benchmarks.apps import BODY
from benchmarks.jobs import COLUMNS, SUBMIT, run_jobs, run_requests
from benchmarks.load import hammer, post, traced
from benchmarks.processor_time import processor_time
from benchmarks.scenario import Conditions, Figure, Measure, Metrics, Missing, Scenario, Variants
from benchmarks.servers import Server, queue_server, uvicorn

CONCURRENCY = 256
_WARM_UP = 2000


@asynccontextmanager
async def _open(conditions: Conditions) -> AsyncIterator[Variants]:
    count, database = conditions.count(20_000, 2_000), conditions.folder / "queue.sqlite3"
    submissions, requests = traced(SUBMIT, BODY, count), traced("/x", BODY, count)
    with ExitStack() as stack:
        plain = stack.enter_context(uvicorn("benchmarks.apps:bare", None, "--lifespan", "off"))
        queue = stack.enter_context(queue_server(database, concurrency=CONCURRENCY))
        bare = partial(run_requests, plain, requests, count)
        stored = partial(run_jobs, [queue], database, submissions, count)
        other_routes = partial(run_requests, queue, requests, count)
        variants: dict[str, Measure | Missing] = {"bare": bare, "stored": stored, "other routes": other_routes}
        if not conditions.quick:
            variants = {
                "bare": bare,
                "stored": stored,
                "before": _version_before(stack, conditions, submissions),
                "prototype": _prototype(stack, conditions, submissions),
                "other routes": other_routes,
                "submitted": _submissions(stack, conditions, submissions),
                "bare, identical headers": partial(run_requests, plain, post("/x", BODY), count),
                "stored, identical headers": partial(run_jobs, [queue], database, post(SUBMIT, BODY), count),
            }
        await hammer(plain.port, post("/x", BODY), _WARM_UP)
        await run_jobs([queue], database, submissions, _WARM_UP)
        yield variants


def _submissions(stack: ExitStack, conditions: Conditions, requests: list[bytes]) -> Measure:
    """Submissions to a queue whose only slot is taken."""
    database = conditions.folder / "full.sqlite3"
    server = stack.enter_context(queue_server(database, "benchmarks.apps:blocked", concurrency=1))
    return partial(run_requests, server, requests, len(requests))


def _version_before(stack: ExitStack, conditions: Conditions, requests: list[bytes]) -> Measure | Missing:
    """The same jobs by another checkout."""
    if conditions.before is None:
        return Missing("it needs --before")
    database, path = conditions.folder / "before.sqlite3", {"PYTHONPATH": str(conditions.before / "src")}
    server = stack.enter_context(queue_server(database, environ=path, concurrency=CONCURRENCY))
    return partial(run_jobs, [server], database, requests, len(requests))


def _prototype(stack: ExitStack, conditions: Conditions, requests: list[bytes]) -> Measure | Missing:
    """The same jobs by a prototype. Its applications import a payload from a module that it does not contain."""
    if conditions.prototype is None:
        return Missing("it needs --prototype")
    folder, module = conditions.folder, conditions.prototype
    (folder / "common.py").write_text("PAYLOAD_BYTES = b'{}'\n")
    environ = {
        "PYTHONPATH": str(folder),
        "BENCH_SQLITE": str(folder / "prototype.sqlite3"),
        "QP_ID": "int",
        "QP_CONC": str(CONCURRENCY),
    }
    arguments = ("--lifespan", "off", "--app-dir", str(module.parent))
    server = stack.enter_context(uvicorn(f"{module.stem}:app", environ, *arguments))
    return partial(_run_prototype, server, requests, len(requests))


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
    columns=COLUMNS,
    seconds=400,
    quick=True,
    note=(
        "64 connections send a 1 KiB POST, and the next one as soon as the response is there.",
        "A job counts when its result is stored and fsynced.",
        '"Submitted" counts submissions to a queue whose only slot is taken.',
        "Each request has a trace id of its own in its headers, except in the variants with identical headers.",
        "CPU is the user and system time of the server's process for each request or job.",
    ),
)
