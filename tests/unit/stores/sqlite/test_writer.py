"""Group commit: operations are committed together, and one by one if an operation fails."""

from __future__ import annotations

import asyncio
import gc
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
from queue_middleware.stores.common.route_ids import RouteIds
from queue_middleware.stores.common.writer import Writer
from queue_middleware.stores.sqlite import locks as module_of_locks
from queue_middleware.stores.sqlite.connection import Connection
from queue_middleware.stores.sqlite.locks import WriteLock
from queue_middleware.stores.sqlite.transaction import SQLiteQueueCounters
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
        return Transaction(connection, 0, "owner", 1, 1, SQLiteQueueCounters(), RouteIds())

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


async def test_pending_operations_are_committed_together(bench: Bench) -> None:
    first = await bench.blocked()
    rest = [bench.writer.submit(bench.insert, number) for number in range(5)]
    bench.go_on.set()
    assert await first == -1
    assert await asyncio.gather(*rest) == [0, 1, 2, 3, 4]
    assert bench.groups == [[-1], [0, 1, 2, 3, 4]]
    assert bench.topics == [{Topic.WORK}, {Topic.WORK}]


async def test_a_result_is_returned_after_its_commit(bench: Bench) -> None:
    await bench.writer.submit(bench.insert, 7)
    assert bench.rows() == [7]


async def test_a_failing_operation_does_not_affect_others(bench: Bench) -> None:
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


async def test_a_queue_error_is_raised_to_its_caller_only(bench: Bench) -> None:
    def refuse_odd(transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        return [UnknownRequest("odd") if number % 2 else number for number in batch]

    futures = [bench.writer.submit(refuse_odd, number) for number in range(4)]
    results = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(result) for result in results] == [int, UnknownRequest, int, UnknownRequest]


async def test_an_operation_is_executed_after_its_caller_was_cancelled(bench: Bench) -> None:
    first = await bench.blocked()
    gone = bench.writer.submit(bench.insert, 8)
    gone.cancel()
    bench.go_on.set()
    await first
    await bench.writer.submit(bench.insert, 9)
    assert bench.rows() == [-1, 8, 9]


async def test_another_program_that_locks_the_file_makes_the_store_busy(bench: Bench) -> None:
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


async def test_operations_behind_an_endless_transaction_time_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.01)
    first = await bench.blocked()
    with pytest.raises(StoreBusy, match="does not respond"):
        await bench.writer.submit(bench.insert, 1)
    bench.go_on.set()
    assert await first == -1
    assert bench.rows() == [-1]


async def test_operations_time_out_while_another_process_holds_the_write_lock(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.01)
    with WriteLock(bench.path.with_name("lock")), pytest.raises(StoreBusy, match="does not respond"):
        await bench.writer.submit(bench.insert, 1)
    monkeypatch.undo()  # a busy machine may take longer than the short timeout
    assert await bench.writer.submit(bench.insert, 2) == 2
    assert bench.rows() == [2]


async def test_close_writes_pending_operations_and_refuses_new_ones(bench: Bench) -> None:
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


async def test_a_failing_listener_does_not_affect_other_callers(bench: Bench) -> None:
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


async def test_an_operation_without_a_future_gets_its_result_or_its_error(bench: Bench) -> None:
    results: list[object] = []
    first = await bench.blocked()
    bench.writer.submit_unawaited(bench.insert, 1, 0, results.append)
    bench.go_on.set()
    await first
    await bench.writer.submit(bench.insert, 2)
    await bench.writer.close()
    bench.writer.submit_unawaited(bench.insert, 3, 0, results.append)
    assert results[0] == 1
    assert [type(result) for result in results] == [int, StoreBusy]
    assert bench.rows() == [-1, 1, 2]


async def test_an_error_does_not_stay_in_memory(bench: Bench) -> None:
    def fail(transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        raise sqlite3.OperationalError("broken")

    async def failed() -> weakref.ref[BaseException]:
        with pytest.raises(StoreError) as caught:
            await bench.writer.submit(fail, 1)
        return weakref.ref(caught.value)

    error = await failed()
    await asyncio.sleep(0)
    gc.collect()
    assert error() is None


async def test_a_timer_does_not_keep_the_context_of_a_caller(bench: Bench) -> None:
    """asyncio keeps a cancelled timer with its context until it would be due."""

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
    await asyncio.sleep(0)  # the result is delivered until here
    assert kept[0]() is None


# --- after COMMIT nothing fails


def outcomes(results: Sequence[Any]) -> list[Any]:
    return [type(result) if isinstance(result, BaseException) else result for result in results]


@pytest.mark.parametrize("many", [1, 5])
async def test_a_failure_after_the_commit_changes_no_result(
    bench: Bench, many: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a stored operation would be reported as failed, or be repeated alone and stored twice."""

    def cannot() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(bench.connection, "_committed", cannot)
    told: list[Any] = []
    waiting = [bench.writer.submit(bench.insert, number, on_result=told.append) for number in range(many)]
    assert await asyncio.gather(*waiting) == list(range(many))
    assert told == bench.rows() == list(range(many))
    assert len(bench.groups) == 1
    assert "could not be notified of a commit" in caplog.text


async def test_a_write_lock_that_cannot_be_released_changes_no_result(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flock = module_of_locks.fcntl.flock

    def cannot(file: int, operation: int) -> None:
        flock(file, operation)
        if operation == module_of_locks.fcntl.LOCK_UN:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(module_of_locks.fcntl, "flock", cannot)
    assert await bench.writer.submit(bench.insert, 1) == 1
    assert bench.rows() == [1]


class Commits:
    """A connection whose COMMIT raises an error, before or after the commit."""

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
async def test_a_commit_with_unknown_outcome_is_not_repeated(bench: Bench, code: int, done: bool) -> None:
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


async def test_a_failed_rollback_does_not_block_later_transactions(bench: Bench) -> None:
    await bench.connection.call(lambda connection: connection.execute("BEGIN IMMEDIATE"))
    assert await bench.writer.submit(bench.insert, 1) == 1
    assert bench.rows() == [1]


async def test_an_interrupt_in_a_listener_is_raised_after_all_results(bench: Bench) -> None:
    """With eager tasks a listener runs the first step of a handler, which may raise an exception meant for the process."""
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


async def test_the_check_runs_before_the_commit(bench: Bench) -> None:
    def refuse() -> None:
        raise DatabaseGone("gone", 1)

    bench.writer._check = refuse
    waiting = [bench.writer.submit(bench.insert, number) for number in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes(results) == [DatabaseGone] * 3
    assert (bench.rows(), bench.groups) == ([], [[0, 1, 2]])


async def test_any_exception_reaches_the_callers(bench: Bench) -> None:
    def absurd(transaction: Transaction, batch: Sequence[int]) -> list[int | QueueError]:
        raise GeneratorExit

    with pytest.raises(StoreError):
        await bench.writer.submit(absurd, 1)
    assert await bench.writer.submit(bench.insert, 1) == 1


async def test_a_slow_group_is_committed_and_the_rest_comes_first_in_the_next(bench: Bench) -> None:
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
    with WriteLock(bench.path.with_name("lock")):  # all operations wait for the same lock
        waiting = [writer.submit(slow, name) for name in "abc"]
        waiting += [writer.submit(other, name) for name in "de"]
        waiting.append(writer.submit(slow, "f"))
    assert await asyncio.gather(*waiting) == list("abcdef")
    # After 0.05 s the group is committed.
    assert groups == [["a", "b"], ["c", "d", "e"], ["f"]]


async def test_on_a_full_disk_space_is_freed_once_and_small_operations_succeed(bench: Bench) -> None:
    relieved: list[int] = []
    room = 10

    def insert(transaction: Transaction, batch: Sequence[int]) -> list[int]:
        if sum(batch) > room:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return list(batch)

    writer = Writer(bench.connection, bench.begin, bench.topics.append, bench.undo, free_space=lambda _: relieved.append(1))
    with WriteLock(bench.path.with_name("lock")):
        waiting = [writer.submit(insert, size) for size in (1, 4, 11, 9)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [result if isinstance(result, int) else type(result) for result in results] == [1, 4, DiskFull, 9]
    assert len(relieved) == 2  # for the group, and for the operation that is too large even alone


async def test_freed_space_is_used(bench: Bench) -> None:
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

    writer = Writer(bench.connection, bench.begin, bench.topics.append, bench.undo, free_space=relieve)
    assert await writer.submit(insert, 1) == 1
