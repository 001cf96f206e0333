"""One SQLite connection with its thread, on aiosqlite. A whole transaction is one call."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import sqlite3
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote

import aiosqlite

from queue_middleware.errors import StoreBusy
from queue_middleware.stores.common.transaction import CommitFailed

from .errors import as_queue_error, is_database_wide, is_full
from .locks import WriteLock
from .sql import SQLiteQueries

T = TypeVar("T")

_log = logging.getLogger("queue_middleware")

_BUSY_TIMEOUT = 5.0
"""Seconds to wait for programs that do not use the write lock, such as a backup tool or a shell."""
_BLOCKING_TIMEOUT = 10.0
"""Seconds for which a thread waits for a read."""
LARGEST_WAL = 64 * 2**20
"""Bytes to which the write-ahead log is truncated when it is restarted. It grows while a reader uses an old snapshot."""

_SETTINGS = (
    "synchronous = FULL",
    "foreign_keys = ON",
    "wal_autocheckpoint = 250",
    "trusted_schema = OFF",
    # A statement that can fail halfway saves the pages that it changes; without this each group would create a file for them.
    "temp_store = MEMORY",
    # Some builds of SQLite overwrite every freed page: each deleted byte would be written to the log again, and space on a
    # full disk could never be freed. FAST overwrites only in pages that are written anyway, which include request headers.
    "secure_delete = FAST",
)


class Connection(aiosqlite.Connection):
    """One connection with its thread. A whole transaction is one call, never several.

    * A transaction spread over several awaits would hold the write lock while a handler blocks the event loop.
    * A call is shielded, because a cancelled wait for BEGIN IMMEDIATE would leave the connection in a transaction.
    * The thread is a daemon: it must not keep the process alive when shutdown is skipped (a second SIGINT).
    """

    def __init__(self, path: Path, lock: WriteLock | None, committed: Callable[[], None] | None = None) -> None:
        """Without `lock` the connection only reads. `committed` is called in its thread after every transaction."""
        super().__init__(lambda: open_connection(path, read_only=lock is None), 64)
        self._thread.daemon = True
        self._lock = lock
        self._committed = committed
        self._changes = 0
        self.written_at = -math.inf
        """When a transaction that changed something was last committed, by `time.monotonic`."""

    async def open(self) -> Self:
        """Start the thread and open the file."""
        await self
        self._queries = SQLiteQueries(self._conn)
        return self

    def call(self, work: Callable[[sqlite3.Connection], T]) -> Coroutine[Any, Any, T]:
        """Run `work` in the connection's thread. It is finished even if the caller is cancelled. Raises only `QueueError`."""
        return self._run(work)

    def query(self, work: Callable[[SQLiteQueries], T]) -> Coroutine[Any, Any, T]:
        """Like `call`, for work that uses only named queries."""
        return self._run(work, named=True)

    async def _run(self, work: Callable[[Any], T], *, named: bool = False) -> T:
        execute: Callable[..., Awaitable[T]] = self._execute
        try:
            return await asyncio.shield(execute(work, self._queries if named else self._conn))
        except (sqlite3.Error, CommitFailed) as error:
            raise as_queue_error(error) from error
        except ValueError as error:  # aiosqlite's "Connection closed"
            raise StoreBusy("the queue's database is closed", 5) from error

    def query_now(self, work: Callable[[SQLiteQueries], T]) -> T:
        """Like `query`, and blocks until the result is there. From any thread. Raises only `QueueError`."""
        result: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run(_: sqlite3.Connection) -> None:
            try:
                result.set_result(work(self._queries))
            except BaseException as error:
                result.set_exception(error)

        if not self._running:
            raise StoreBusy("the queue's database is closed", 5)
        self.post(run)
        try:
            return result.result(_BLOCKING_TIMEOUT)
        except (sqlite3.Error, TimeoutError) as error:
            raise as_queue_error(error) from error

    failure_of = staticmethod(as_queue_error)
    is_database_wide = staticmethod(is_database_wide)
    is_full = staticmethod(is_full)

    def post(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` in the connection's thread, without waiting. It must not raise."""
        self._tx.put_nowait((None, lambda: work(self._conn)))

    def transact(self, connection: sqlite3.Connection, work: Callable[[], T]) -> T:
        """In the connection's thread: run `work` between BEGIN IMMEDIATE and COMMIT, holding the write lock."""
        assert self._lock is not None, "a reading connection has no transactions"  # noqa: S101
        result = in_transaction(connection, self._lock, work)
        if (changes := connection.total_changes) != self._changes:
            self._changes, self.written_at = changes, time.monotonic()
        if self._committed is not None:
            try:
                self._committed()
            except Exception:
                # The commit stands even if its notification fails.
                _log.exception(
                    "other processes could not be notified of a commit at once; they notice it within moments",
                    extra={"queue_event": "notification_failed"},
                )
        return result

    def checkpoint(self, connection: sqlite3.Connection) -> None:
        """In the connection's thread: copy the write-ahead log into the database, so that the log can start anew."""
        assert self._lock is not None, "a reading connection has no checkpoints"  # noqa: S101
        _checkpoint(connection, self._lock)

    async def close(self) -> None:
        """Close the connection. A writing connection holds the write lock first, because the last close is a checkpoint."""
        if self._running and self._connection is not None:
            await asyncio.shield(self._close())

    async def _close(self) -> None:
        if self._lock is None:
            await super().close()
            return
        # After this checkpoint under the lock, the one at close has nothing to do. If the checkpoint fails, for instance on a
        # full disk, the data stays in the log for the next process that opens the file.
        execute: Callable[..., Awaitable[None]] = self._execute
        await execute(_checkpoint, self._conn, self._lock)
        await super().close()


def in_transaction(connection: sqlite3.Connection, lock: WriteLock, work: Callable[[], T]) -> T:
    """Run `work` as one transaction, which is rolled back if it raises. Blocking. Nothing is raised after COMMIT."""
    with lock:
        if connection.in_transaction:  # an earlier ROLLBACK failed, for instance because of a disk error
            connection.execute("ROLLBACK")
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work()
            _commit(connection)
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # By SQLite's documentation (sqlite.org/lang_transaction.html, "Response to errors") nothing is committed then.
        # But a disk that returned an error may have written the frames, and they are valid after a power failure.
        raise CommitFailed(str(error)) from error


def open_connection(path: Path, *, read_only: bool = False, create: bool = True) -> sqlite3.Connection:
    """Open a connection and set everything that durability depends on. Blocking.

    While the queue runs `create` is False: if the file is gone, an empty one must not replace it.
    """
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        set_up(connection, read_only=read_only)
    except BaseException:
        connection.close()
        raise
    return connection


def set_up(connection: sqlite3.Connection, *, read_only: bool) -> None:
    """Set what every connection needs."""
    for pragma in _SETTINGS:
        connection.execute(f"PRAGMA {pragma}")
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_WAL}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")


def _checkpoint(connection: sqlite3.Connection, lock: WriteLock) -> None:
    with lock, contextlib.suppress(sqlite3.Error):
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
