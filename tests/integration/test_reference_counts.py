"""The objects of an attempt are freed when it ends, without the garbage collector, whose pauses would delay all requests."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from queue_middleware import current_job
from queue_middleware.asgi.cancellation import CancellableCall
from queue_middleware.asgi.replay import Replay
from queue_middleware.instrumentation import Instrumentation
from queue_middleware.observability.sentry import SentryObserver
from queue_middleware.worker.executor import JobExecutor
from queue_middleware.worker.job_context import ActiveJob
from queue_middleware.worker.log_buffer import LogBuffer
from queue_middleware.worker.task_session import TaskSession
from tests.support.queue_client import eventually, serving
from tests.support.sentry import reporting


async def plain(request: Request) -> Response:
    return PlainTextResponse(await request.body())


def in_a_thread(request: Request) -> Response:
    return PlainTextResponse("from a thread")


async def raising(request: Request) -> Response:
    raise LookupError("nothing here")


async def refusing(request: Request) -> Response:
    return PlainTextResponse("no", 422)


async def streaming(request: Request) -> Response:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"x" * 300_000

    return StreamingResponse(pieces())


async def with_log_lines(request: Request) -> Response:
    current_job.log("at work")
    current_job.report_progress(0.5, "halfway")
    return PlainTextResponse("done")


async def with_background_task(request: Request) -> Response:
    return PlainTextResponse("done", background=BackgroundTask(asyncio.sleep, 0))


async def bare(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"done"})


TRACEBACKS = pytest.mark.skipif(
    sys.version_info >= (3, 12),
    reason="there, a traceback keeps its callers' frames, also those of the queue",
)
HANDLERS = [
    plain,
    in_a_thread,
    pytest.param(raising, marks=TRACEBACKS),
    refusing,
    pytest.param(streaming, marks=TRACEBACKS),
    with_log_lines,
    with_background_task,
]


OURS = (JobExecutor, ActiveJob, CancellableCall, LogBuffer, Replay, TaskSession)
_earlier: list[object] = []
"""Exclude objects of earlier tests: frameworks keep contexts of their threads, and with them the `ActiveJob` of a call."""


def left(*kinds: type) -> list[str]:
    """The kinds of the objects that this test created and that still exist."""
    # By `type`: proxies, such as Django's settings, would be asked for their class.
    found = [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]
    return [type(thing).__name__ for thing in found if not any(thing is old for old in _earlier)]


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    _earlier.extend(thing for thing in gc.get_objects() if issubclass(type(thing), OURS))
    yield
    _earlier.clear()
    gc.enable()


async def test_nothing_is_left_to_the_garbage_collector(database: Path, without_collector: None) -> None:
    async with serving(bare, database) as queue:
        for _ in range(3):
            await queue.run("POST", "/", content=b"x" * 1000)
        await eventually(lambda: left(JobExecutor, ActiveJob, CancellableCall, LogBuffer, Replay, TaskSession) == [])


@pytest.mark.parametrize("handler", HANDLERS)
async def test_objects_that_a_framework_leaves_refer_to_nothing_of_the_queue(
    database: Path, without_collector: None, handler: Callable[[Request], Any]
) -> None:
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    async with serving(app, database) as queue:
        for _ in range(3):
            await queue.run("POST", "/", content=b"x" * 1000)
        await eventually(lambda: left(JobExecutor) == [])


@TRACEBACKS
async def test_nothing_of_a_cancelled_attempt_is_left_to_the_garbage_collector(database: Path, without_collector: None) -> None:
    began = asyncio.Event()

    async def waiting(request: Request) -> Response:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("it is cancelled")

    async with serving(Starlette(routes=[Route("/", waiting, methods=["POST"])]), database) as queue:
        request_id = await queue.submit("POST", "/")
        await began.wait()
        assert left(JobExecutor) == ["JobExecutor"]
        await queue.cancel(request_id)
        await eventually(lambda: left(JobExecutor) == [])


@pytest.mark.parametrize("handler", [pytest.param(raising, marks=TRACEBACKS), with_log_lines])
async def test_nothing_is_left_with_an_instrumentation(handler: Any, database: Path, without_collector: None) -> None:
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    async with serving(app, database, observers=[Instrumentation()]) as queue:
        for _ in range(3):
            await queue.run("POST", "/")
        await eventually(lambda: left(JobExecutor) == [])


@pytest.mark.parametrize("handler", [pytest.param(raising, marks=TRACEBACKS), with_log_lines, in_a_thread])
async def test_nothing_is_left_with_sentry(handler: Any, database: Path, without_collector: None) -> None:
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    with reporting() as sent:
        async with serving(app, database, observers=[SentryObserver()]) as queue:
            for _ in range(3):
                await queue.run("POST", "/")
            await eventually(lambda: left(JobExecutor) == [])
    assert len(sent.transactions("queue.process")) == 3
