"""Defects that once lost a request or stopped the queue."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from queue_middleware import QueueMiddleware, stores
from queue_middleware.errors import DiskFull
from queue_middleware.events import AttemptFailed, ClaimLost, Event
from queue_middleware.runtime.runtime import Runtime
from queue_middleware.settings import Settings
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.stores.sqlite.file_watch import FileWatch
from tests.support.doubles import EventRecorder
from tests.support.factories import make_job
from tests.support.queue_client import connected, eventually, serving, stored_jobs


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


APP = Starlette(routes=[Route("/", ok, methods=["GET", "POST"])])


async def test_refusals_cost_no_slots(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: FileWatch) -> None:
        raise DiskFull("full", 1)

    async with serving(APP, database, concurrency=2) as queue:
        with monkeypatch.context() as patched:
            patched.setattr(FileWatch, "check_accepting", full)
            for _ in range(5):
                assert (await queue.client.get("/fal/queue/submit/")).status_code == 503
        assert (await queue.run("GET", "/")).text == "ok"


async def test_an_observer_that_raises_has_no_effect_on_others(database: Path) -> None:
    class Broken:
        def on_event(self, event: Event) -> None:
            raise ZeroDivisionError

    async with connected(QueueMiddleware(APP, database=database, min_free_disk=0, observers=[Broken()])) as queue:
        for _ in range(3):
            assert (await queue.run("GET", "/")).text == "ok"


INTERRUPTED = """
import asyncio, os, signal, sys
from pathlib import Path
from queue_middleware import QueueMiddleware
from tests.support.raw_asgi import call, http_only, http_scope

async def app(scope, receive, send):
    print("begun", flush=True)
    os.kill(os.getpid(), signal.SIGINT)  # asyncio ends its main task in an orderly way, as soon as it can,
    os.kill(os.getpid(), signal.SIGINT)  # and who cannot wait for that gets this

async def main():
    queue = QueueMiddleware(http_only(app), database=Path(sys.argv[1]), min_free_disk=0)
    async with queue.running():
        await call(queue, http_scope("POST", b"/fal/queue/submit/"))
        await asyncio.Event().wait()

signal.signal(signal.SIGINT, signal.default_int_handler)
asyncio.run(main())
"""


async def test_ctrl_c_during_a_handler_is_not_its_response(database: Path) -> None:
    """It ends the process, and the next process runs the job. It looks like an exception that the handler raises."""
    command = (sys.executable, "-W", "ignore", "-c", INTERRUPTED, str(database))
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    stdout, stderr = await asyncio.wait_for(process.communicate(), 20)
    assert stdout == b"begun\n", stderr
    assert process.returncode == -signal.SIGINT, stderr
    assert stored_jobs(database, "state = 'delayed' AND attempt = 1") == 1


class Full(SQLiteStore):
    """A store whose disk is full when the first failure is to be written."""

    refusals = 1

    def end(self, *arguments: Any) -> None:
        if self.refusals:
            self.refusals -= 1
            raise DiskFull("full", 1)
        super().end(*arguments)


async def test_a_handler_that_ends_at_the_disconnect_is_settled_though_the_disk_was_full(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer that cancels handlers must not cancel the storing of the outcome."""
    monkeypatch.setitem(stores._STORES, "", Full)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.3)  # longer than the wait before the cancellation
    entered = asyncio.Event()

    async def polite(request: Request) -> Response:
        entered.set()
        await eventually(request.is_disconnected)
        return Response()

    async with serving(Starlette(routes=[Route("/", polite)]), database) as queue:
        request_id = await queue.submit("GET", "/")
        await entered.wait()
        await queue.cancel(request_id)
        assert (await queue.response(request_id)).status_code == 499


async def test_a_retry_after_of_five_thousand_digits_is_a_long_delay(database: Path) -> None:
    async def busy(request: Request) -> Response:
        return PlainTextResponse("busy", 503, headers={"retry-after": "9" * 5000})

    async with serving(Starlette(routes=[Route("/", busy)]), database) as queue:
        request_id = await queue.submit("GET", "/", headers={"x-fal-no-retry": "1"})
        assert (await queue.response(request_id)).status_code == 503
        repeated = await queue.submit("GET", "/")
        await eventually(lambda: _attempts(database) == 2)
        assert (await queue.status(repeated))["status"] in ("IN_QUEUE", "IN_PROGRESS")


def _attempts(database: Path) -> int:
    connection = sqlite3.connect(database)
    try:
        return int(connection.execute("SELECT sum(attempt) FROM job").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.usefixtures("at_once")
async def test_a_time_limit_of_the_application_does_not_double_its_bytes(database: Path) -> None:
    async def chunks() -> Any:
        for _ in range(7):
            yield b"x" * 100_000

    async def impatient(scope: Any, receive: Any, send: Any) -> None:
        async def hasty(message: Any) -> None:
            task = asyncio.ensure_future(send(message))
            await asyncio.wait([task], timeout=0.0001)
            if not task.done():
                task.cancel()
                await asyncio.wait([task])

        if scope["type"] != "http":
            raise ValueError
        await StreamingResponse(chunks())(scope, receive, hasty)

    async with serving(impatient, database) as queue:
        response = await queue.run("GET", "/")
        assert len(response.content) <= 700_000


def test_a_queue_starts_in_a_second_event_loop_if_the_first_ended_without_shutdown(database: Path) -> None:
    runtime = Runtime(APP, Settings.load({"database": str(database), "min_free_disk": 0}, {}))

    async def use() -> str:
        await runtime.start()
        runtime.check_running()
        return (await runtime.submit(make_job())).result.request_id

    assert asyncio.run(use()) != asyncio.run(use())


async def test_concurrent_starts_have_the_same_outcome(tmp_path: Path) -> None:
    (tmp_path / "queue.sqlite3").write_bytes(b"not a database" * 100)
    runtime = Runtime(APP, Settings.load({"database": str(tmp_path / "queue.sqlite3"), "min_free_disk": 0}, {}))
    results = await asyncio.gather(runtime.start(), runtime.start(), return_exceptions=True)
    assert ["cannot be opened" in str(result) for result in results] == [True, True]
    (tmp_path / "queue.sqlite3").unlink()
    async with runtime.running():
        runtime.check_running()
        async with runtime.running():
            pass
        runtime.check_running()


async def test_a_time_limit_in_the_last_send_reports_a_retry_once(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 0.0)
    memory, calls = EventRecorder(), 0

    async def hasty(scope: Any, receive: Any, send: Any) -> None:
        nonlocal calls
        if scope["type"] != "http":
            raise ValueError
        calls += 1
        await send({"type": "http.response.start", "status": 503 if calls == 1 else 200, "headers": []})
        last = asyncio.ensure_future(send({"type": "http.response.body", "body": b"x"}))
        await asyncio.sleep(0)
        last.cancel()
        await asyncio.wait([last])

    async with connected(QueueMiddleware(hasty, database=database, min_free_disk=0, observers=[memory])) as queue:
        assert (await queue.run("GET", "/")).status_code == 200
        assert calls == 2
        assert memory.of(ClaimLost) == []
        assert len(memory.of(AttemptFailed)) == 1
