"""A database that is away for longer than a lease, while handlers run: no process takes that for its death."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from queue_middleware import QueueMiddleware
from queue_middleware.events import ClaimLost, Recovered, Rescued, ServiceError
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.sqlite import SQLiteStore, clocks
from tests.support.descriptors import no_files_left
from tests.support.doubles import Memory
from tests.support.queue_client import Queue, connected, eventually, stored_jobs

LEASE = 0.5
OUTAGE = 1.5


class Handler:
    """Runs until it is told to end."""

    def __init__(self) -> None:
        self.runs = 0
        self.go_on = asyncio.Event()
        self.app = Starlette(routes=[Route("/work", self._work, methods=["POST"])])

    async def _work(self, request: Request) -> Response:
        self.runs += 1
        await self.go_on.wait()
        return PlainTextResponse("done")


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """By a program that is none of ours."""
    with closing(sqlite3.connect(database, isolation_level=None)) as stranger:
        stranger.execute("BEGIN IMMEDIATE")
        yield
        stranger.execute("ROLLBACK")


@contextmanager
def exhausted(database: Path) -> Iterator[None]:
    with no_files_left():
        yield


@contextmanager
def renamed(database: Path) -> Iterator[None]:
    elsewhere = database.with_name("elsewhere")
    database.rename(elsewhere)
    yield
    elsewhere.rename(database)


OUTAGES: list[Callable[[Path], Any]] = [locked, exhausted, renamed]


@asynccontextmanager
async def a_queue(app: Any, database: Path, ear: Memory, **options: Any) -> AsyncIterator[Queue]:
    given = {"database": database, "min_free_disk": 0, "shutdown_timeout": 2, "lease": LEASE, **options}
    wrapped = QueueMiddleware(app, observers=[ear], **given)
    async with connected(wrapped) as queue:
        yield queue


@pytest.mark.slow
@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("processes", [1, 2])
async def test_an_outage_longer_than_the_lease_costs_no_attempt(
    database: Path, outage: Callable[[Path], Any], processes: int
) -> None:
    handler, idle, ear = Handler(), Handler(), Memory()
    async with a_queue(handler.app, database, ear, on_crash="fail") as queue:
        request_id = await queue.submit("POST", "/work")
        await eventually(lambda: handler.runs)
        async with a_queue(idle.app, database, ear, on_crash="fail") if processes == 2 else a_pause():
            await asyncio.sleep(2 * LEASE)  # until its calm is over
            with outage(database):
                await asyncio.sleep(OUTAGE)
            await asyncio.sleep(2 * LEASE)
            handler.go_on.set()
            answer = await queue.response(request_id)
    assert (answer.status_code, answer.text, handler.runs, idle.runs) == (200, "done", 1, 0)
    assert ear.of(Rescued) == ear.of(ClaimLost) == []


@asynccontextmanager
async def a_pause() -> AsyncIterator[None]:
    yield


@pytest.mark.slow
async def test_a_database_that_is_removed_is_told_of_and_nothing_more_is_accepted(database: Path) -> None:
    handler, ear = Handler(), Memory()
    handler.go_on.set()
    async with a_queue(handler.app, database, ear) as queue:
        kept = await queue.submit("POST", "/work")
        await queue.response(kept)
        database.rename(database.with_name("elsewhere"))
        refused = await queue.client.post("/fal/queue/submit/work")
        assert refused.status_code == 503, "at once"
        assert "was removed or renamed while the queue runs" in refused.text
        assert "retry-after" in refused.headers
        await eventually(lambda: [event for event in ear.of(ServiceError) if event.where == "database"])
        await asyncio.sleep(3 * LEASE)
        assert not database.exists()
        assert len([event for event in ear.of(ServiceError) if event.where == "database"]) == 1
        assert (await queue.status(kept))["status"] == "COMPLETED", "what can be read is answered"
        database.with_name("elsewhere").rename(database)
        await eventually(lambda: [event for event in ear.of(Recovered) if event.where == "database"])
        again = await queue.submit("POST", "/work")
        await queue.response(again)
    assert stored_jobs(database) == 2


@pytest.mark.slow
async def test_another_file_under_its_name_is_not_written_to(database: Path) -> None:
    handler, ear = Handler(), Memory()
    async with a_queue(handler.app, database, ear) as queue:
        await queue.submit("POST", "/work")
        database.rename(database.with_name("elsewhere"))
        other = database.with_name("other")
        with closing(sqlite3.connect(other)) as connection:
            connection.execute("CREATE TABLE mine (x)")
        other.replace(database)
        for _ in range(2):
            refused = await queue.client.post("/fal/queue/submit/work")
            assert refused.status_code == 503
            assert "was replaced while the queue runs" in refused.text
            await asyncio.sleep(2 * LEASE)
        handler.go_on.set()
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]


@pytest.mark.parametrize("end", ["-wal", "-shm", ".lock"])
async def test_a_companion_that_is_replaced_is_as_bad(database: Path, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("queue_middleware.stores.sqlite.file_watch._CHECK_INTERVAL", 0.02)
    handler, ear = Handler(), Memory()
    handler.go_on.set()
    async with a_queue(handler.app, database, ear) as queue:
        await queue.run("POST", "/work")
        companion = database.with_name(f"{database.name}{end}")
        elsewhere = companion.with_name("elsewhere")
        companion.rename(elsewhere)
        await eventually(lambda: ear.of(ServiceError))
        refused = await queue.client.post("/fal/queue/submit/work")
        assert refused.status_code == 503
        assert f"{database.name}{end} was removed or renamed" in refused.text
        elsewhere.rename(companion)
        await eventually(lambda: ear.of(Recovered))
        assert (await queue.run("POST", "/work")).status_code == 200


async def test_a_process_of_an_older_release_leaves_the_work_to_the_newer(database: Path) -> None:
    """What it runs is stopped and handed over uncharged; it takes nothing more, and says why."""
    old, ear = Handler(), Memory()
    async with a_queue(old.app, database, ear, on_crash="fail") as queue:
        await queue.submit("POST", "/work")
        await eventually(lambda: old.runs)
        with closing(sqlite3.connect(database, isolation_level=None)) as newer:
            newer.execute("BEGIN IMMEDIATE")
            newer.execute("ALTER TABLE job ADD COLUMN novelty TEXT")
            newer.execute("PRAGMA user_version = 9999")
            newer.execute("COMMIT")
        refused = await queue.client.post("/fal/queue/submit/work")
        assert refused.status_code == 503
        assert "schema version 9999 by now" in refused.text
        assert "restart this process" in refused.text
        await eventually(lambda: stored_jobs(database, "state = 'queued' AND attempt = 0 AND owner IS NULL") == 1)
        await eventually(lambda: ear.of(ClaimLost))
        await asyncio.sleep(2 * LEASE)
        assert stored_jobs(database, "state = 'queued'") == 1, "it does not take it again"
        assert [event.where for event in ear.of(ServiceError) if event.where == "database"] == ["database"]


async def test_a_clock_that_was_back_for_a_moment_delays_no_repetition(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for is looked at again, also when no one says that the clock is right."""
    monkeypatch.setattr("queue_middleware.worker.worker.LONGEST_WAIT", 0.05)
    offset = 0
    monkeypatch.setattr(clocks, "system_clock", lambda: time.time_ns() // 1_000_000 + offset)
    monkeypatch.setattr("queue_middleware.worker.completer.exponential", lambda attempt: 3.0)
    looks = 0
    next_due = SQLiteStore.next_due

    async def counted(self: SQLiteStore, topic: Topic) -> float | None:
        nonlocal looks
        looks += topic is Topic.WORK
        return await next_due(self, topic)

    monkeypatch.setattr(SQLiteStore, "next_due", counted)
    runs = 0

    async def work(request: Request) -> Response:
        nonlocal runs
        runs += 1
        return PlainTextResponse("", status_code=503 if runs == 1 else 200)

    app = Starlette(routes=[Route("/work", work, methods=["POST"])])
    async with a_queue(app, database, Memory(), lease=60) as queue:  # or each beat would wake it
        request_id = await queue.submit("POST", "/work")
        await eventually(lambda: stored_jobs(database, "state = 'delayed'"))
        offset = -3_600_000
        seen = looks
        await eventually(lambda: looks > seen + 1)  # by now it waits for an hour
        seen, claims = looks, runs
        await eventually(lambda: looks > seen + 3)
        assert runs == claims, "a look is no more than a read"
        offset = 3_000
        assert (await queue.response(request_id)).status_code == 200
