"""The service that the acceptance tests run on real servers. `QUEUE_*` in the environment configures its queue.

It records what it does in files in `SERVICE_DIRECTORY`, because files survive a killed process.
"""

from __future__ import annotations

import asyncio
import gc
import json
import mmap
import os
import signal
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job
from queue_middleware.stores.sqlite import notifier
from queue_middleware.stores.sqlite.sql import SQLiteQueries

DIRECTORY = Path(os.environ["SERVICE_DIRECTORY"])


def make_wall_clock_adjustable() -> None:
    """If the test has written a file for it, the wall clock of this process is off by the seconds in the file."""
    with (DIRECTORY / "wall-clock").open("r+b") as file:
        shift = mmap.mmap(file.fileno(), 8)
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + struct.unpack("q", shift[:8])[0]
    time.time_ns = lambda: right_ns() + struct.unpack("q", shift[:8])[0] * 10**9


if (DIRECTORY / "wall-clock").exists():
    make_wall_clock_adjustable()


if (DIRECTORY / "no-polling").exists():
    notifier._POLL_INTERVAL = 3600.0
_statements: Counter[str] = Counter()


def count_statements() -> None:
    """Count the reads of the database by the names of their queries."""
    for method in ("one", "all", "rows"):
        read = getattr(SQLiteQueries, method)

        def counting(self: SQLiteQueries, name: str, *arguments: object, read: Callable[..., object] = read) -> object:
            _statements[name] += 1
            return read(self, name, *arguments)

        setattr(SQLiteQueries, method, counting)


if (DIRECTORY / "count-statements").exists():
    count_statements()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Records that a worker has started, and that it has shut down regularly."""
    sign = DIRECTORY / "workers" / str(os.getpid())
    sign.touch()
    yield
    sign.unlink(missing_ok=True)
    record("closed", str(os.getpid()))


def record(name: str, line: str) -> None:
    """Append a line; appends of this size are atomic."""
    with (DIRECTORY / name).open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


class RecordingExporter(SpanExporter):
    """Records each span in a line of JSON."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        for span in spans:
            links = [f"{link.context.span_id:x}" for link in span.links]
            parent = None if span.parent is None else f"{span.parent.span_id:x}"
            known = {"name": span.name, "id": f"{span.context.span_id:x}", "parent": parent, "links": links, "pid": os.getpid()}
            record("spans", json.dumps(known))
        return SpanExportResult.SUCCESS


if (DIRECTORY / "record-spans").exists():
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(RecordingExporter()))
    trace.set_tracer_provider(provider)


async def square(request: Request) -> Response:
    """Simple work: it takes `seconds`, and its response depends on the question."""
    question = await request.json()
    record("runs", str(question["n"]))
    record("runners", f"{question['n']} {os.getpid()}")
    await asyncio.sleep(question.get("seconds", 0))
    return JSONResponse({"n": question["n"], "square": question["n"] ** 2})


async def generate(request: Request) -> Response:
    """What the programs on the documentation's pages call."""
    order = await request.json()
    record("generated", order["prompt"])
    if (DIRECTORY / "slow").exists():
        await gate.pass_through()
    return JSONResponse({"picture": f"a picture of {order['prompt']}"})


class Gate:
    """A file that the test creates. One task checks for it, however many handlers wait."""

    def __init__(self) -> None:
        self._looking: asyncio.Task[None] | None = None

    async def pass_through(self) -> None:
        self._looking = self._looking or asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def _look(self) -> None:
        while not (DIRECTORY / "gate").exists():
            await asyncio.sleep(0.02)


gate = Gate()


async def gated(request: Request) -> Response:
    """Waits until the gate is open."""
    record("entered", request.headers["x-fal-request-id"])
    record("attempts", request.headers.get("x-fal-attempt", "1"))
    try:
        await gate.pass_through()
    except asyncio.CancelledError:
        record("tidied", request.headers["x-fal-request-id"])
        raise
    return PlainTextResponse("through")


async def busy(request: Request) -> Response:
    """Responds with 503 at the first attempt, with a `Retry-After` of an hour."""
    attempt = request.headers.get("x-fal-attempt", "1")
    record("busy", attempt)
    if attempt == "1":
        return PlainTextResponse("later", 503, {"retry-after": "3600"})
    return PlainTextResponse(f"attempt {attempt}")


async def handed_over(request: Request) -> Response:
    """An external service will complete the task."""
    record("handed_over", f"{current_job.id} {current_job.callback_url}")
    return Response(status_code=202)


async def blocking(request: Request) -> Response:
    """Blocks its event loop, as no handler should."""
    record("blocking", request.headers["x-fal-request-id"])
    time.sleep((await request.json())["seconds"])
    return PlainTextResponse("blocked")


async def exiting(request: Request) -> Response:
    """Ends its process in its first step, without any cleanup."""
    record("exiting", request.headers["x-fal-request-id"])
    os._exit(1)


async def crashing(request: Request) -> Response:
    """Ends its process in every attempt, after `seconds`, by `how`."""
    question = await request.json()
    record("crashing", request.headers["x-fal-request-id"])
    await asyncio.sleep(question.get("seconds", 0))
    if question["how"] == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    if question["how"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


async def in_a_thread(request: Request) -> Response:
    """Waits for the gate in a thread of the event loop's executor."""
    request_id, attempt = request.headers["x-fal-request-id"], request.headers.get("x-fal-attempt", "1")

    def wait() -> None:
        record("in_a_thread", request_id)
        while not (DIRECTORY / "gate").exists():
            time.sleep(0.02)

    await asyncio.to_thread(wait)
    return PlainTextResponse(f"attempt {attempt}")


async def collector(request: Request) -> Response:
    """What the garbage collector of this process skips, and its threshold."""
    return JSONResponse([gc.get_freeze_count(), gc.get_threshold()[0]])


async def inside(request: Request) -> Response:
    """What a client cannot see: the statements so far, the clients that wait, and the tasks of the event loop."""
    followed = app._runtime.services.status_feed._followed.values()
    waiting = sum(each.states_only for each in followed)
    return JSONResponse({"statements": _statements, "waiting": waiting, "tasks": len(asyncio.all_tasks())})


async def health(request: Request) -> Response:
    return PlainTextResponse("well")


inner = Starlette(
    routes=[
        Route("/square", square, methods=["POST"]),
        Route("/generate", generate, methods=["POST"]),
        Route("/gated", gated, methods=["POST"]),
        Route("/busy", busy, methods=["POST"]),
        Route("/handed-over", handed_over, methods=["POST"]),
        Route("/blocking", blocking, methods=["POST"]),
        Route("/crashing", crashing, methods=["POST"]),
        Route("/exiting", exiting, methods=["POST"]),
        Route("/in-a-thread", in_a_thread, methods=["POST"]),
        Route("/collector", collector),
        Route("/inside", inside),
        Route("/health", health),
    ],
    lifespan=lifespan,
)


class RecordingQueue(QueueMiddleware):
    """Records which process serves a status stream."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path", "").endswith("/status/stream"):
            record("streams", str(os.getpid()))
        await super().__call__(scope, receive, send)


app = RecordingQueue(inner)
