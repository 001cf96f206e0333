"""The service that the acceptance tests run under real servers. Its queue is set up by `QUEUE_*` in the environment.

What it does is written down in files of `SERVICE_DIRECTORY`, because that outlives a killed process.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware, current_job

DIRECTORY = Path(os.environ["SERVICE_DIRECTORY"])


def let_the_wall_clock_be_set() -> None:
    """Where a test has laid a file for it, the wall clock of this process is off by as many seconds as stand there."""
    with (DIRECTORY / "wall-clock").open("r+b") as file:
        shift = mmap.mmap(file.fileno(), 8)
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + struct.unpack("q", shift[:8])[0]
    time.time_ns = lambda: right_ns() + struct.unpack("q", shift[:8])[0] * 10**9


if (DIRECTORY / "wall-clock").exists():
    let_the_wall_clock_be_set()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """A worker shows that it is there, and that it went in good order."""
    sign = DIRECTORY / "workers" / str(os.getpid())
    sign.touch()
    yield
    sign.unlink(missing_ok=True)
    note("closed", str(os.getpid()))


def note(name: str, line: str) -> None:
    """Append a line; appends of this size do not mix, whoever else is writing."""
    with (DIRECTORY / name).open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


async def square(request: Request) -> Response:
    """Honest little work: it takes `seconds`, and its answer depends on its question."""
    question = await request.json()
    note("runs", str(question["n"]))
    note("runners", f"{question['n']} {os.getpid()}")
    await asyncio.sleep(question.get("seconds", 0))
    return JSONResponse({"n": question["n"], "square": question["n"] ** 2})


class Gate:
    """A file that somebody will make. One task looks for it, however many wait."""

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
    """Waits until somebody opens the gate."""
    note("entered", request.headers["x-fal-request-id"])
    note("attempts", request.headers.get("x-fal-attempt", "1"))
    try:
        await gate.pass_through()
    except asyncio.CancelledError:
        note("tidied", request.headers["x-fal-request-id"])
        raise
    return PlainTextResponse("through")


async def busy(request: Request) -> Response:
    """Has no time at its first attempt, and wants to be asked again in an hour."""
    attempt = request.headers.get("x-fal-attempt", "1")
    note("busy", attempt)
    if attempt == "1":
        return PlainTextResponse("later", 503, {"retry-after": "3600"})
    return PlainTextResponse(f"attempt {attempt}")


async def handed_over(request: Request) -> Response:
    """Somebody else will finish it."""
    note("handed_over", f"{current_job.id} {current_job.callback_url}")
    return Response(status_code=202)


async def blocking(request: Request) -> Response:
    """Holds up its event loop, as no handler should."""
    note("blocking", request.headers["x-fal-request-id"])
    time.sleep((await request.json())["seconds"])
    return PlainTextResponse("blocked")


async def exiting(request: Request) -> Response:
    """Ends its process in its first step, without a word to anything."""
    note("exiting", request.headers["x-fal-request-id"])
    os._exit(1)


async def crashing(request: Request) -> Response:
    """Ends its process each time that it runs, after `seconds`, by `how`."""
    question = await request.json()
    note("crashing", request.headers["x-fal-request-id"])
    await asyncio.sleep(question.get("seconds", 0))
    if question["how"] == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()
    if question["how"] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(1)


async def in_a_thread(request: Request) -> Response:
    """Waits for the gate in one of the threads that its event loop lends."""
    request_id, attempt = request.headers["x-fal-request-id"], request.headers.get("x-fal-attempt", "1")

    def wait() -> None:
        note("in_a_thread", request_id)
        while not (DIRECTORY / "gate").exists():
            time.sleep(0.02)

    await asyncio.to_thread(wait)
    return PlainTextResponse(f"attempt {attempt}")


async def health(request: Request) -> Response:
    return PlainTextResponse("well")


inner = Starlette(
    routes=[
        Route("/square", square, methods=["POST"]),
        Route("/gated", gated, methods=["POST"]),
        Route("/busy", busy, methods=["POST"]),
        Route("/handed-over", handed_over, methods=["POST"]),
        Route("/blocking", blocking, methods=["POST"]),
        Route("/crashing", crashing, methods=["POST"]),
        Route("/exiting", exiting, methods=["POST"]),
        Route("/in-a-thread", in_a_thread, methods=["POST"]),
        Route("/health", health),
    ],
    lifespan=lifespan,
)
app = QueueMiddleware(inner)
