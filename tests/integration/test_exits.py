"""What the submitter and the operator see of the end of a request, and handlers that end the process."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from pathlib import Path

import pytest

from queue_middleware import QueueMiddleware
from queue_middleware.events import Finished
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.outcomes import Outcome
from tests.support.doubles import EventRecorder
from tests.support.queue_client import connected, eventually, serving
from tests.support.raw_asgi import Message, Receive, Send, http_only, respond

pytestmark = pytest.mark.usefixtures("brisk")


@http_only
async def by_path(scope: Message, receive: Receive, send: Send) -> None:
    """Responds with the status that the path names; `/raise` raises, `/hang` hangs."""
    name = scope["path"].strip("/")
    if name == "raise":
        raise LookupError("nothing here")
    if name == "hang":
        await asyncio.Event().wait()
    await respond(send, status=int(name))


async def test_the_operator_sees_the_number_of_jobs_by_outcome(database: Path) -> None:
    memory = EventRecorder()
    app = QueueMiddleware(by_path, database=database, min_free_disk=0, observers=[memory], concurrency=1, shutdown_timeout=0)
    async with connected(app) as queue:
        for name in ("200", "201", "404", "500", "raise"):
            await queue.reaches(await queue.submit("GET", f"/{name}"), "COMPLETED")
        running, waiting = await queue.submit("GET", "/hang"), await queue.submit("GET", "/200")
        await queue.cancel(waiting)
        await queue.reaches(running, "IN_PROGRESS")
        await queue.cancel(running)
        await queue.reaches(running, "COMPLETED")
        counts = await app.counts()
    assert counts.outcomes == {
        Outcome.SUCCESS: 2, Outcome.CLIENT_ERROR: 1, Outcome.SERVER_ERROR: 1, Outcome.FAILED: 1, Outcome.CANCELLED: 2,
    }  # fmt: skip
    assert counts.jobs == {JobState.COMPLETED: 4, JobState.FAILED: 1, JobState.CANCELLED: 2}
    outcomes = [event.outcome for event in memory.of(Finished)]
    assert sorted(outcomes) == sorted([*["2xx"] * 2, "4xx", "5xx", "failed", *["cancelled"] * 2])


@pytest.mark.parametrize(
    ("status", "headers", "line"),
    [
        (503, [], "attempt 1 of 3 ended with status 503; next attempt in "),
        (503, [(b"retry-after", b"7")], "attempt 1 of 3 ended with status 503; next attempt in 7 s"),
        (429, [(b"retry-after", b"40")], "attempt 1 of 3 ended with status 429; next attempt in 40 s"),
        (0, [], "attempt 1 of 3 failed: the application returned without a response; next attempt in "),
        (-1, [], "attempt 1 of 3 failed: the attempt took longer than 0.1 s; next attempt in "),
    ],
)
async def test_the_log_of_a_request_that_waits_for_a_retry_contains_the_reason(
    database: Path, status: int, headers: list[tuple[bytes, bytes]], line: str
) -> None:
    @http_only
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if status < 0:
            await asyncio.Event().wait()
        if status:
            await respond(send, status=status, headers=headers)

    async with serving(app, database, request_timeout=0.1 if status < 0 else 60) as queue:
        request_id = await queue.submit("GET", "/")
        first = (await eventually(lambda: queue.logs(request_id)))[0]
    assert first["message"].startswith(line)
    assert (first["level"], first["labels"]["attempt"]) == ("WARN", "1")


RAISING = """
import asyncio, sys
from pathlib import Path
from fastapi import FastAPI
from queue_middleware import QueueMiddleware
from tests.support.raw_asgi import call, http_scope

app = FastAPI()

@app.post("/coroutine")
async def coroutine():
    raise KeyboardInterrupt

@app.post("/thread")
def thread():
    raise KeyboardInterrupt

@app.post("/task")
async def task():
    async with asyncio.TaskGroup() as group:
        group.create_task(coroutine())

def wsgi(environ, start_response):
    raise KeyboardInterrupt

from a2wsgi import WSGIMiddleware
app.mount("/wsgi", WSGIMiddleware(wsgi))

async def main():
    queue = QueueMiddleware(app, database=Path(sys.argv[1]), min_free_disk=0)
    async with queue.running():
        await call(queue, http_scope("POST", b"/fal/queue/submit" + sys.argv[2].encode()))
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("path", ["/coroutine", "/thread", "/wsgi/"])
@pytest.mark.slow
async def test_a_handler_that_ends_the_process_is_charged_an_attempt(database: Path, path: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", RAISING, str(database), path, stdout=PIPE, stderr=PIPE
    )
    _, complained = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in complained, complained
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT state, attempt FROM job").fetchall() == [("delayed", 1)]
        assert connection.execute("SELECT reason FROM suspect").fetchall() == [("exit",)]


@pytest.mark.slow
async def test_a_handler_that_ends_the_process_in_another_task_is_counted(database: Path) -> None:
    """The event loop ends before the queue can react: the attempt is charged, left to the rescue, or handed back."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "ignore", "-c", RAISING, str(database), "/task", stdout=PIPE, stderr=PIPE
    )
    await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode != 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        counted = connection.execute("SELECT count(*) FROM release_count").fetchone() == (1,)
        assert connection.execute("SELECT state, attempt FROM job").fetchone() in [
            ("delayed", 1),
            ("running", 1),
            *[("queued", 0)] * counted,
        ]
