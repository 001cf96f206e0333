"""What an application logs while it works on a request is in the request's status, and nothing else is."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from django.utils.safestring import mark_safe
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import current_job, stores
from queue_middleware.errors import StoreBusy
from queue_middleware.stores.sqlite import SQLiteStore
from queue_middleware.worker.job_context import active_job
from queue_middleware.worker.log_buffer import LogBuffer
from tests.support.queue_client import Queue, eventually, serving

from .apps import LOGGING, load

log = logging.getLogger("tests.integration.logs")


def app_of(*endpoints: Callable[[Request], Any]) -> Starlette:
    return Starlette(routes=[Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints])


async def messages(queue: Queue, request_id: str) -> list[str]:
    return [entry["message"] for entry in await queue.logs(request_id)]


async def ran(queue: Queue, target: str) -> list[str]:
    """Run a request to its end and return its log messages."""
    request_id = await queue.submit("GET", target)
    await queue.response(request_id)
    return await messages(queue, request_id)


def rows(database: Path) -> tuple[int, int]:
    """The number of rows and bytes of all log lines, read without the middleware."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT count(*), coalesce(sum(length(lines)), 0) FROM log").fetchone()


# --- which lines are captured


@pytest.mark.parametrize(("service", "target"), LOGGING)
async def test_lines_of_every_framework_are_captured_in_loop_and_threads(service: str, target: str, database: Path) -> None:
    app, _ = load(service)
    async with serving(app, database) as queue:
        await queue.client.get(target)  # a direct call belongs to no job
        request_id = await queue.submit("GET", target)
        assert (await queue.response(request_id)).is_success
        entries = await queue.logs(request_id)
    keeper = {"source": "USER", "logger": "zoo.keeper"}
    shown = [(entry["level"], entry["message"].partition("\n")[0], entry["labels"]) for entry in entries]
    assert shown == [
        ("WARN", "feeding the seals", {"level": "WARN", **keeper}),
        ("INFO", "50% half of the fish", {"level": "INFO", "source": "USER", "progress": "0.5"}),
        ("STDOUT", "no herring left", {"level": "STDOUT", "source": "USER", "bucket": "2"}),
        ("ERROR", "no herring", {"level": "ERROR", **keeper}),
    ]
    assert entries[3]["message"].endswith("KeyError: 'herring'")
    assert all(entry["source"] == "USER" and len(entry["timestamp"]) == 26 for entry in entries)


@pytest.mark.parametrize(("service", "target"), [("flask", "/boom"), ("django-sync", "/sync/boom")])
async def test_a_framework_that_logs_what_was_raised_shows_its_traceback(service: str, target: str, database: Path) -> None:
    app, _ = load(service)
    async with serving(app, database) as queue:
        messages = await ran(queue, target)
    assert any("Traceback" in message and message.endswith("RuntimeError: secret detail") for message in messages)


async def test_lines_from_tasks_and_threads_of_a_handler_are_captured(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        async def log_line(text: str) -> None:
            log.warning("task %s", text)

        async with asyncio.TaskGroup() as group:
            group.create_task(log_line("one"))
        await asyncio.to_thread(log.warning, "asyncio's thread")
        await anyio.to_thread.run_sync(log.warning, "anyio's thread")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(log.warning, "a thread that knows nothing").result()
            pool.submit(contextvars.copy_context().run, log.warning, "a thread with the context").result()
        asyncio.get_running_loop().call_soon(log.warning, "callback")
        await asyncio.sleep(0)
        return Response()

    async with serving(app_of(endpoint), database) as queue:
        assert await ran(queue, "/endpoint") == [
            "task one",
            "asyncio's thread",
            "anyio's thread",
            "a thread with the context",
            "callback",
        ]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_lines_of_a_forked_child_are_ignored_and_do_not_block(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        log.warning("parent")
        attempt = active_job()
        assert attempt is not None
        book = attempt.log_buffer()
        assert isinstance(book, LogBuffer)
        held, over = threading.Event(), threading.Event()

        def write() -> None:
            with book._lock:
                held.set()
                over.wait()

        writing = threading.Thread(target=write)
        writing.start()
        held.wait()
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(5)  # ends the child if it waits for a thread that does not exist there
            log.warning("child")
            current_job.log("child")
            os._exit(0)
        over.set()
        writing.join()
        return PlainTextResponse(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])))

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        assert (await queue.response(request_id)).text == "0"
        assert await messages(queue, request_id) == ["parent"]


async def test_lines_of_concurrent_requests_are_separate(database: Path) -> None:
    meeting = asyncio.Barrier(2)

    async def endpoint(request: Request) -> Response:
        for number in range(5):
            log.warning("%s %d", current_job.id, number)
            await meeting.wait()
        return Response()

    async with serving(app_of(endpoint), database) as queue:
        ids = [await queue.submit("GET", "/endpoint") for _ in range(2)]
        for request_id in ids:
            await queue.response(request_id)
            assert await messages(queue, request_id) == [f"{request_id} {number}" for number in range(5)]


async def test_lines_of_two_queues_in_one_process_are_separate(tmp_path: Path) -> None:
    """They share the application, and one queue's handler calls the other queue's."""
    inner: list[Queue] = []

    async def endpoint(request: Request) -> Response:
        log.warning("outer")
        async with httpx.AsyncClient(transport=inner[0].client._transport, base_url="http://service.test") as client:
            response = await client.get("/fal/queue/submit/leaf")
        log.warning("outer again")
        return PlainTextResponse(response.json()["request_id"])

    async def leaf(request: Request) -> Response:
        log.warning("inner")
        return Response()

    app = app_of(endpoint, leaf)
    one, other = tmp_path / "one.sqlite3", tmp_path / "other.sqlite3"
    async with serving(app, one) as first, serving(app, other) as second:
        inner.append(second)
        request_id = await first.submit("GET", "/endpoint")
        leaf_id = (await first.response(request_id)).text
        assert await messages(first, request_id) == ["outer", "outer again"]
        await second.response(leaf_id)
        assert await messages(second, leaf_id) == ["inner"]
    assert rows(one)[0] == rows(other)[0] == 1


async def test_a_queue_that_captures_nothing_beside_one_that_does(tmp_path: Path) -> None:
    async def endpoint(request: Request) -> Response:
        log.warning("by logging")
        current_job.log("in person")
        return Response()

    app = app_of(endpoint)
    async with (
        serving(app, tmp_path / "deaf.sqlite3", capture_logs=False) as deaf,
        serving(app, tmp_path / "both.sqlite3") as both,
        serving(app, tmp_path / "none.sqlite3", max_logs=0) as none,
    ):
        assert await ran(deaf, "/endpoint") == ["in person"]
        assert await ran(both, "/endpoint") == ["by logging", "in person"]
        assert await ran(none, "/endpoint") == []


async def test_the_queues_own_log_is_not_captured(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        raise LookupError("logged by the queue's journal, in the middle of the replay")

    async with serving(app_of(endpoint), database) as queue:
        assert await ran(queue, "/endpoint") == []


async def test_bad_arguments_do_not_reach_the_handler(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # other logging handlers report errors to stderr as usual

    async def endpoint(request: Request) -> Response:
        log.warning("%d items", "many")
        return PlainTextResponse("fine")

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        assert (await queue.response(request_id)).text == "fine"
        assert await messages(queue, request_id) == ["%d items (its arguments do not fit: ('many',))"]


# --- when lines can be read


class Steps:
    """A handler that goes on when the test says so."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def endpoint(self, request: Request) -> Response:
        log.warning("begun")
        current_job.report_progress(0.25, "early")
        try:
            await self.go.wait()
            log.warning("going on")
        finally:
            log.warning("tidied up")
        return Response()

    @property
    def app(self) -> Starlette:
        return Starlette(routes=[Route("/", self.endpoint)])


async def test_lines_can_be_read_while_the_request_runs(database: Path) -> None:
    steps = Steps()
    async with serving(steps.app, database) as queue:
        request_id = await queue.submit("GET", "/")

        async def begun() -> bool:
            return await messages(queue, request_id) == ["begun", "25% early"]

        await eventually(begun)
        assert (await queue.status(request_id))["progress"] == {"fraction": 0.25, "stage": "early"}
        steps.go.set()
        await queue.response(request_id)
        assert await messages(queue, request_id) == ["begun", "25% early", "going on", "tidied up"]


async def test_without_logs_in_the_query_they_are_null_and_not_read(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    reading = SQLiteStore.logs

    def spied(self: SQLiteStore, key: int, after: int = 0) -> Any:
        reads.append(key)
        return reading(self, key, after)

    monkeypatch.setattr(SQLiteStore, "logs", spied)

    async def endpoint(request: Request) -> Response:
        log.warning("x")
        return Response()

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        assert (await queue.reaches(request_id, "COMPLETED"))["logs"] is None
        assert reads == []
        for query, expected in (("logs=1", 1), ("logs=true", 1), ("logs=0", None), ("logs=false", None)):
            response = (await queue.client.get(f"/fal/queue/requests/{request_id}/status?{query}")).json()
            assert (response["logs"] and len(response["logs"])) == expected
        assert len(reads) == 2


async def test_lines_are_stored_with_the_end_and_no_lines_cost_no_write(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short request stores its lines in the transaction of its end; a request without lines makes no call to store any."""
    calls: list[list[str]] = []
    writing = SQLiteStore.log

    def spied(self: SQLiteStore, claim: Any, lines: Any, progress: Any = None) -> Awaitable[bool]:
        calls.append([line.message for line in lines])
        return writing(self, claim, lines, progress)

    monkeypatch.setattr(SQLiteStore, "log", spied)

    async def silent(request: Request) -> Response:
        return Response()

    async def brief(request: Request) -> Response:
        log.warning("one")
        log.warning("two")
        return Response()

    async with serving(app_of(silent, brief), database) as queue:
        assert await ran(queue, "/silent") == []
        assert calls == []
        for _ in range(20):
            assert await ran(queue, "/brief") == ["one", "two"]
    assert calls == [["one", "two"]] * 20


@pytest.mark.parametrize("how", ["thread", "background task"])
async def test_lines_after_the_end_are_ignored(database: Path, how: str) -> None:
    late = threading.Event()
    logged = threading.Event()
    failed: list[BaseException] = []

    def speak() -> None:
        try:
            assert late.wait(10)
            log.warning("too late")
            current_job.log("too late")
            current_job.report_progress(1.0, "too late")
        except BaseException as error:
            failed.append(error)
        logged.set()

    async def endpoint(request: Request) -> Response:
        log.warning("in time")
        if how == "background task":
            return Response(background=BackgroundTask(speak))
        threading.Thread(target=contextvars.copy_context().run, args=[speak]).start()
        return Response()

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        await queue.response(request_id)
        late.set()
        assert await asyncio.to_thread(logged.wait, 10)
        assert await messages(queue, request_id) == ["in time"]
    assert failed == []


# --- attempts


async def test_lines_of_all_attempts_are_kept_with_their_attempt(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        log.warning("attempt %d", current_job.attempt)
        return Response(status_code=503 if current_job.attempt == 1 else 200, headers={"retry-after": "0"})

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        await queue.response(request_id)
        entries = await queue.logs(request_id)
    assert [(entry["message"], entry["labels"].get("attempt")) for entry in entries] == [
        ("attempt 1", None),
        ("attempt 1 of 3 ended with status 503; next attempt in 0 s", "1"),
        ("attempt 2", "2"),
    ]


async def test_a_cancelled_request_keeps_its_lines(database: Path) -> None:
    steps = Steps()
    async with serving(steps.app, database) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.reaches(request_id, "IN_PROGRESS")
        await eventually(lambda: messages(queue, request_id))
        await queue.cancel(request_id)
        assert (await queue.response(request_id)).status_code == 499
        assert await messages(queue, request_id) == ["begun", "25% early", "tidied up"]


async def test_a_job_handed_back_at_shutdown_keeps_its_lines(database: Path) -> None:
    steps = Steps()
    async with serving(steps.app, database, shutdown_timeout=0) as queue:
        request_id = await queue.submit("GET", "/")
        await queue.reaches(request_id, "IN_PROGRESS")
    steps.go.set()
    async with serving(steps.app, database) as queue:
        await queue.response(request_id)
        lines = await messages(queue, request_id)
    assert lines[:3] == ["begun", "25% early", "tidied up"]
    assert lines[3].startswith("attempt 1 was stopped by the end of its process")
    assert lines[4:] == ["begun", "25% early", "going on", "tidied up"]


async def test_lines_survive_an_outage_of_the_database(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Unavailable(SQLiteStore):
        """A store that is unavailable at first, for log lines and for ends."""

        outages = 3

        def log(self, *arguments: Any) -> Any:
            return self._unavailable() or super().log(*arguments)

        def complete(self, *arguments: Any) -> Any:
            return self._unavailable() or super().complete(*arguments)

        def _unavailable(self) -> Any:
            if Unavailable.outages:
                Unavailable.outages -= 1
                return asyncio.get_running_loop().run_in_executor(None, self._fail)
            return None

        def _fail(self) -> bool:
            raise StoreBusy("out of reach", 1)

    monkeypatch.setitem(stores._STORES, "", Unavailable)
    monkeypatch.setattr("queue_middleware.background.OUTAGE_PAUSE", 0.0)

    async def endpoint(request: Request) -> Response:
        log.warning("one")
        log.warning("two")
        return PlainTextResponse("kept")

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        assert (await queue.response(request_id)).text == "kept"
        # The end may be stored before the lines; they follow.
        await eventually(lambda: messages(queue, request_id))
        assert await messages(queue, request_id) == ["one", "two"]
    assert Unavailable.outages == 0


async def test_string_subclasses_of_frameworks_are_logged_as_text(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        current_job.log(mark_safe("<b>safe</b>"), tag=mark_safe("b"))
        return PlainTextResponse("done")

    async with serving(app_of(endpoint), database) as queue:
        assert await ran(queue, "/endpoint") == ["<b>safe</b>"]


# --- bounds


async def test_a_hundred_thousand_lines_are_bounded_in_memory_and_in_the_file(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        before = sys.getallocatedblocks()
        for number in range(100_000):
            current_job.log(f"line {number}", worker="loop")
        return PlainTextResponse(str(sys.getallocatedblocks() - before))

    async with serving(app_of(endpoint), database) as queue:
        request_id = await queue.submit("GET", "/endpoint")
        blocks = int((await queue.response(request_id)).text)
        lines = await messages(queue, request_id)
    assert lines[:-1] == [f"line {number}" for number in range(10_000)]
    assert lines[-1] == "90000 more lines were dropped: one attempt keeps at most 10000 lines and 1048576 bytes"
    count, size = rows(database)
    assert count < 500
    assert size < 1_500_000
    assert blocks < 10 * 10_000


async def test_the_option_bounds_the_bytes(database: Path) -> None:
    async def endpoint(request: Request) -> Response:
        for _ in range(100):
            current_job.log("x" * 100)
        return Response()

    async with serving(app_of(endpoint), database, max_logs="1 KiB") as queue:
        messages = await ran(queue, "/endpoint")
    assert messages[:-1] == ["x" * 100] * 10
    assert messages[-1] == "90 more lines were dropped: one attempt keeps at most 10000 lines and 1024 bytes"


async def test_many_progress_reports_cause_few_writes_and_few_lines(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    writing = SQLiteStore.log

    def spied(self: SQLiteStore, *arguments: Any) -> Awaitable[bool]:
        nonlocal calls
        calls += 1
        return writing(self, *arguments)

    monkeypatch.setattr(SQLiteStore, "log", spied)
    took = 0.0

    async def endpoint(request: Request) -> Response:
        nonlocal took
        began = asyncio.get_running_loop().time()
        for number in range(10_000):
            current_job.report_progress(number / 10_000, f"step {number}")
            if number % 10 == 0:
                await asyncio.sleep(0)
        took = asyncio.get_running_loop().time() - began
        return Response()

    async with serving(app_of(endpoint), database) as queue:
        messages = await ran(queue, "/endpoint")
    assert messages[-1] == "100% step 9999"
    assert len(messages) <= calls <= took / 0.1 + 2
