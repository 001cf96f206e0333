"""Group commit: together where that is possible, alone where one of them is to blame."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

from queue_middleware.errors import DatabaseGone, DiskFull, QueueError, StoreBusy, StoreError, UnknownRequest
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.common import writer as module
from queue_middleware.stores.common.writer import Writer
from queue_middleware.stores.sqlite import locks as module_of_locks
from queue_middleware.stores.sqlite.connection import Connection
from queue_middleware.stores.sqlite.locks import WriteLock
from queue_middleware.stores.sqlite.transaction import BacklogCounters
from queue_middleware.stores.sqlite.transaction import SQLiteTransaction as Transaction


class Bench:
    def __init__(self, connection: Connection, path: Path) -> None:
        self.path = path
        self.groups: list[list[int]] = []
        self.topics: list[set[Topic]] = []
        self.connection = connection
        self.undone = 0
        self.writer = Writer(connection, self.begin, self.topics.append, self.undo)
        self.go_on = threading.Event()
        self.go_on.set()
        self.begun = threading.Event()

    def undo(self) -> None:
        self.undone += 1

    def begin(self, connection: sqlite3.Connection) -> Transaction:
        return Transaction(connection, 0, "owner", 1, 1, BacklogCounters())

    def insert(self, transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        self.begun.set()
        assert self.go_on.wait(10)
        self.groups.append(list(batch))
        for number in batch:
            transaction.connection.execute("INSERT INTO t VALUES (?)", (number,))
        transaction.topics.add(Topic.WORK)
        return list(batch)

    async def blocked(self) -> asyncio.Future[int | QueueError]:
        """Put the writer into a transaction that waits for `go_on`."""
        self.go_on.clear()
        self.begun.clear()
        first = self.writer.submit(self.insert, -1)
        await asyncio.to_thread(self.begun.wait, 10)
        return first

    def rows(self) -> list[int]:
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute("SELECT x FROM t ORDER BY x")]
        finally:
            connection.close()


@pytest.fixture
async def bench(tmp_path: Path, connection: Connection) -> AsyncIterator[Bench]:
    bench = Bench(connection, tmp_path / "file")
    yield bench
    bench.go_on.set()
    await bench.writer.close()


async def test_what_waits_together_is_committed_together(bench: Bench) -> None:
    first = await bench.blocked()
    rest = [bench.writer.submit(bench.insert, number) for number in range(5)]
    bench.go_on.set()
    assert await first == -1
    assert await asyncio.gather(*rest) == [0, 1, 2, 3, 4]
    assert bench.groups == [[-1], [0, 1, 2, 3, 4]]
    assert bench.topics == [{Topic.WORK}, {Topic.WORK}]


async def test_an_answer_comes_after_its_commit(bench: Bench) -> None:
    await bench.writer.submit(bench.insert, 7)
    assert bench.rows() == [7]


async def test_one_that_fails_does_not_sink_its_neighbours(bench: Bench) -> None:
    await bench.writer.submit(bench.insert, 2)
    first = await bench.blocked()
    good, bad, late = (bench.writer.submit(bench.insert, number) for number in (1, 2, 3))
    bench.go_on.set()
    with pytest.raises(StoreError) as failure:
        await bad
    assert isinstance(failure.value.__cause__, sqlite3.IntegrityError)
    assert [await first, await good, await late] == [-1, 1, 3]
    assert bench.undone == 2
    assert bench.rows() == [-1, 1, 2, 3]


async def test_a_refusal_goes_to_its_caller_alone(bench: Bench) -> None:
    def refuse_odd(transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        return [UnknownRequest("odd") if number % 2 else number for number in batch]

    futures = [bench.writer.submit(refuse_odd, number) for number in range(4)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [int, UnknownRequest, int, UnknownRequest]


async def test_it_is_executed_though_its_caller_has_gone(bench: Bench) -> None:
    first = await bench.blocked()
    gone = bench.writer.submit(bench.insert, 8)
    gone.cancel()
    bench.go_on.set()
    await first
    await bench.writer.submit(bench.insert, 9)
    assert bench.rows() == [-1, 8, 9]


async def test_a_stranger_who_holds_the_file_makes_us_busy(bench: Bench) -> None:
    await bench.connection.call(lambda c: c.execute("PRAGMA busy_timeout = 0").fetchall())
    stranger = sqlite3.connect(bench.path, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match="locked by another program"):
        await bench.writer.submit(bench.insert, 1)
    stranger.execute("ROLLBACK")
    stranger.close()
    assert await bench.writer.submit(bench.insert, 1) == 1


async def test_a_full_disk_fails_cleanly(bench: Bench) -> None:
    def fill(transaction: Transaction, batch: Sequence[int]) -> list[int]:
        transaction.connection.execute("INSERT INTO t SELECT value FROM json_each('[' || substr(hex(zeroblob(0)), 1) || '1]')")
        transaction.connection.execute("CREATE TABLE big AS SELECT zeroblob(10000000) AS x")
        return list(batch)

    pages = await bench.connection.call(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await bench.connection.call(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 5}").fetchall())
    with pytest.raises(DiskFull):
        await bench.writer.submit(fill, 0)
    assert await bench.writer.submit(bench.insert, 1) == 1


async def test_who_waits_behind_a_transaction_without_end_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    first = await bench.blocked()
    with pytest.raises(StoreBusy, match="does not answer"):
        await bench.writer.submit(bench.insert, 1)
    bench.go_on.set()
    assert await first == -1
    assert bench.rows() == [-1]


async def test_who_waits_for_a_turn_that_another_process_keeps_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PATIENCE", 0.01)
    with WriteLock(bench.path.with_name("lock")), pytest.raises(StoreBusy, match="does not answer"):
        await bench.writer.submit(bench.insert, 1)
    assert await bench.writer.submit(bench.insert, 2) == 2
    assert bench.rows() == [2]


async def test_close_writes_what_was_begun_and_takes_nothing_more(bench: Bench) -> None:
    await bench.blocked()
    last = bench.writer.submit(bench.insert, 1)
    closing = asyncio.create_task(bench.writer.close())
    bench.go_on.set()
    await closing
    await bench.writer.close()
    assert await last == 1
    with pytest.raises(StoreBusy, match="closed"):
        await bench.writer.submit(bench.insert, 2)


async def test_groups_are_bounded_in_bytes(bench: Bench) -> None:
    first = await bench.blocked()
    rest = [bench.writer.submit(bench.insert, number, 10 * 2**20) for number in range(4)]
    bench.go_on.set()
    await asyncio.gather(first, *rest)
    assert bench.groups == [[-1], [0, 1], [2, 3]]


async def test_a_listener_with_a_defect_keeps_nobody_from_being_told(bench: Bench) -> None:
    told: list[object] = []
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

    def fail(result: object) -> None:
        raise LookupError

    first = await bench.blocked()
    bench.writer.submit(bench.insert, 1, on_result=fail)
    other = bench.writer.submit(bench.insert, 2, on_result=told.append)
    bench.go_on.set()
    assert (await first, await other, told) == (-1, 2, [2])
    assert [type(context["exception"]) for context in complaints] == [LookupError]
    assert await bench.writer.submit(bench.insert, 3) == 3


async def test_a_timer_keeps_nothing_of_who_writes(bench: Bench) -> None:
    """asyncio keeps a timer that was cancelled until it would be due, and with it its context."""

    class Request:
        pass

    current: ContextVar[Request] = ContextVar("current")
    kept: list[weakref.ref[Request]] = []

    async def write() -> None:
        request = Request()
        current.set(request)
        kept.append(weakref.ref(request))
        await bench.writer.submit(bench.insert, 1)

    await asyncio.create_task(write())
    await asyncio.sleep(0)  # until now its end is being told to us
    assert kept[0]() is None


# --- after COMMIT nothing fails


def outcomes(results: Sequence[Any]) -> list[Any]:
    return [type(result) if isinstance(result, BaseException) else result for result in results]


@pytest.mark.parametrize("many", [1, 5])
async def test_what_fails_behind_a_commit_changes_no_result(
    bench: Bench, many: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would be told as failed though it is stored, or, tried again alone, be stored twice."""

    def cannot() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(bench.connection, "_committed", cannot)
    told: list[Any] = []
    waiting = [bench.writer.submit(bench.insert, number, on_result=told.append) for number in range(many)]
    assert await asyncio.gather(*waiting) == list(range(many))
    assert told == bench.rows() == list(range(many))
    assert len(bench.groups) == 1
    assert "could not be notified of a commit" in caplog.text


async def test_a_turn_that_cannot_be_given_back_changes_no_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = module_of_locks.fcntl.flock

    def cannot(file: int, operation: int) -> None:
        flock(file, operation)
        if operation == module_of_locks.fcntl.LOCK_UN:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(module_of_locks.fcntl, "flock", cannot)
    assert await bench.writer.submit(bench.insert, 1) == 1
    assert bench.rows() == [1]


class Commits:
    """A connection whose COMMIT raises an error: before it has been done, or after it."""

    def __init__(self, inner: sqlite3.Connection, code: int, *, done: bool) -> None:
        self._inner, self._code, self._done = inner, code, done
        self.times = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql != "COMMIT":
            return self._inner.execute(sql, *parameters)
        self.times += 1
        if self._done:
            self._inner.execute(sql)
        error = sqlite3.OperationalError("no one knows")
        error.sqlite_errorcode = self._code
        raise error


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_ERROR])
@pytest.mark.parametrize("done", [False, True])
async def test_a_commit_whose_outcome_is_unknown_is_not_tried_again(bench: Bench, code: int, done: bool) -> None:
    commits = Commits(bench.connection._conn, code, done=done)
    bench.connection._connection = commits
    together = threading.Event()
    bench.connection.post(lambda _: together.wait(10))
    waiting = [bench.writer.submit(bench.insert, number) for number in range(3)]
    together.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    bench.connection._connection = commits._inner
    assert all(isinstance(result, QueueError) for result in results)
    assert (commits.times, bench.groups, bench.undone) == (1, [[0, 1, 2]], 1)
    assert bench.rows() == ([0, 1, 2] if done else [])
    assert await bench.writer.submit(bench.insert, 7) == 7, "and it goes on"


async def test_a_rollback_that_failed_does_not_lock_the_queue_for_ever(bench: Bench) -> None:
    await bench.connection.call(lambda connection: connection.execute("BEGIN IMMEDIATE"))
    assert await bench.writer.submit(bench.insert, 1) == 1
    assert bench.rows() == [1]


async def test_an_interrupt_in_a_listener_comes_to_the_loop_when_all_have_been_told(bench: Bench) -> None:
    """With eager tasks a listener runs the first step of a handler, which may mean the process."""
    caught: list[BaseException] = []

    def interrupt(result: Any) -> None:
        raise SystemExit(3)

    deliver = bench.writer._deliver

    def delivering(*arguments: Any) -> None:
        try:
            deliver(*arguments)
        except SystemExit as error:
            caught.append(error)

    bench.writer._deliver = delivering  # type: ignore[method-assign]
    first = bench.writer.submit(bench.insert, 1, on_result=interrupt)
    assert await bench.writer.submit(bench.insert, 2) == 2
    assert await bench.writer.submit(bench.insert, 3) == 3
    assert await first == 1
    assert len(caught) == 1


async def test_a_check_stands_before_the_commit(bench: Bench) -> None:
    def refuse() -> None:
        raise DatabaseGone("gone", 1)

    bench.writer._check = refuse
    waiting = [bench.writer.submit(bench.insert, number) for number in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes(results) == [DatabaseGone] * 3
    assert (bench.rows(), bench.groups) == ([], [[0, 1, 2]])


async def test_whatever_is_raised_reaches_those_who_wait(bench: Bench) -> None:
    def absurd(transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        raise GeneratorExit

    with pytest.raises(StoreError):
        await bench.writer.submit(absurd, 1)
    assert await bench.writer.submit(bench.insert, 1) == 1


async def test_a_group_ends_when_it_has_taken_long_and_the_rest_comes_first_in_the_next(bench: Bench) -> None:
    now = 0.0
    groups: list[list[str]] = []

    def begin(connection: sqlite3.Connection) -> Transaction:
        groups.append([])
        return bench.begin(connection)

    def slow(transaction: Transaction, batch: Sequence[str]) -> list[str]:
        nonlocal now
        groups[-1] += batch
        now += 0.04
        return list(batch)

    def other(transaction: Transaction, batch: Sequence[str]) -> list[str]:
        return slow(transaction, batch)

    writer = Writer(bench.connection, begin, bench.topics.append, bench.undo, one_by_one=frozenset({slow}), clock=lambda: now)
    with WriteLock(bench.path.with_name("lock")):  # all of them wait for the same turn
        waiting = [writer.submit(slow, name) for name in "abc"]
        waiting += [writer.submit(other, name) for name in "de"]
        waiting.append(writer.submit(slow, "f"))
    assert await asyncio.gather(*waiting) == list("abcdef")
    # After 0.05 s the group is committed.
    assert groups == [["a", "b"], ["c", "d", "e"], ["f"]]


async def test_on_a_full_disk_room_is_made_once_and_what_still_fits_is_written(bench: Bench) -> None:
    relieved: list[int] = []
    room = 10

    def insert(transaction: Transaction, batch: Sequence[int]) -> list[int]:
        if sum(batch) > room:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return list(batch)

    writer = Writer(bench.connection, bench.begin, bench.topics.append, bench.undo, relieve=lambda _: relieved.append(1))
    with WriteLock(bench.path.with_name("lock")):
        waiting = [writer.submit(insert, size) for size in (1, 4, 11, 9)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [result if isinstance(result, int) else type(result) for result in results] == [1, 4, DiskFull, 9]
    assert len(relieved) == 2  # for the group, and for the one that is too large even alone


async def test_room_that_was_made_is_used(bench: Bench) -> None:
    room = 0

    def relieve(connection: sqlite3.Connection) -> None:
        nonlocal room
        room = 1

    def insert(transaction: Transaction, batch: Sequence[int]) -> list[int]:
        if not room:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return list(batch)

    writer = Writer(bench.connection, bench.begin, bench.topics.append, bench.undo, relieve=relieve)
    assert await writer.submit(insert, 1) == 1
