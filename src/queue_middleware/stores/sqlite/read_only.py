"""Reads a database without changing it or creating a file, whether or not a service runs on it. For the command."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from queue_middleware.background import run_in_thread
from queue_middleware.errors import QueueError, StoreError
from queue_middleware.jobs.store import OnResult
from queue_middleware.settings import Settings
from queue_middleware.stores.common.access import Read
from queue_middleware.stores.common.job_store import CommonJobStore
from queue_middleware.stores.common.metrics import CommonMetricsStore
from queue_middleware.stores.common.operator_store import CommonOperatorStore
from queue_middleware.stores.common.pending import Operation, P, R
from queue_middleware.stores.common.task_store import CommonTaskStore
from queue_middleware.stores.common.transaction import Queries
from queue_middleware.stores.common.webhook_store import CommonWebhookStore

from . import clocks
from .connection import set_up
from .errors import as_queue_error
from .location import database_path
from .locks import living_owners
from .measure import measure
from .ownership import check_application
from .sql import SQLiteQueries
from .sql.schema import check_readable

_TIMEOUT = 5.0
"""Seconds to wait for the recovery of a write-ahead log by another process."""


class ReadOnlySQLiteStore(CommonJobStore):
    """The reads of the ports on one SQLite file. Methods that change something raise `StoreError`.

    Each read opens the file for itself, so a command that follows a queue notices when the service starts or stops.
    """

    def __init__(self, settings: Settings, clock: Callable[[], int] | None = None) -> None:
        super().__init__(settings)
        self._clock = clock or clocks.system_clock
        self.path = database_path(settings.database)
        self._name = settings.name
        self._reader = _Reads(self._read_many)  # type: ignore[assignment]
        self._writer = _NoWriter()  # type: ignore[assignment]
        self.webhooks = CommonWebhookStore(settings, _refuse, self._read_many, self._read_many)
        self.operations = CommonOperatorStore(
            settings,
            _refuse,
            self._read_many,
            self._read_many,
            self._clock,
            lambda: living_owners(self.path),
            lambda: "",
        )
        self.metrics = CommonMetricsStore(
            _refuse,
            self._read_many,
            self._read_now,
            self._clock,
            lambda: living_owners(self.path),
            lambda: measure(self.path, settings),
            lambda: "",
        )
        self.tasks = CommonTaskStore(_refuse, self._read_many, self._clock, self._read_many)

    async def open(self) -> None:
        """Check that the file can be read. Raises `StoreError` with the reason if it cannot."""
        await run_in_thread(self._check)

    def _check(self) -> None:
        with open_for_reading(self.path) as connection:
            check_application(connection, self.path, self._name)

    def _read_many(self, work: Callable[[Queries], R]) -> Awaitable[R]:
        return run_in_thread(self._read_now, work)

    def _read_now(self, work: Callable[[Queries], R]) -> R:
        with open_for_reading(self.path) as connection:
            return work(SQLiteQueries(connection))

    def _now(self) -> int:
        return self._clock()

    def _check_accepting(self) -> None:
        raise _refusal()


@contextlib.contextmanager
def open_for_reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads the present state. Blocking. Raises `StoreError` with the reason if the file cannot be read."""
    try:
        with connect_without_files(path) as connection:
            check_application(connection, path, None)
            check_readable(connection, path)
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise _reason(path, error) from error


@contextlib.contextmanager
def connect_without_files(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads, and creates no file. Blocking. Raises `sqlite3.Error`, `OSError`.

    SQLite creates the two files of a write-ahead log if they are missing, even for a connection that only reads. But if they
    are missing, no process has the database open, and all data is in the database file itself. It is read as an immutable file
    under the queue's write lock, so that a service that starts meanwhile waits for the end of this read.
    """
    with _lock_if_unused(path) as is_unused, contextlib.closing(_connect(path, is_unused)) as connection:
        yield connection


@contextlib.contextmanager
def _lock_if_unused(path: Path) -> Iterator[bool]:
    """Whether no process uses the file. If so, none starts to write to it until this ends."""
    if _log_exists(path):
        yield False
        return
    try:
        file = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        yield True  # no queue has opened it yet, for instance because it was copied from a backup
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield not _log_exists(path)  # a service may have started before the lock was free
    finally:
        os.close(file)


def _log_exists(path: Path) -> bool:
    return path.with_name(f"{path.name}-wal").exists()


def _connect(path: Path, is_unused: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode=ro{'&immutable=1' if is_unused else ''}",
        uri=True,
        timeout=_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        set_up(connection, read_only=True)
    except BaseException:
        connection.close()
        raise
    return connection


def _reason(path: Path, error: Exception) -> QueueError:
    if not path.exists():
        return StoreError(f"there is no queue at {path}; name its database with --database or QUEUE_DATABASE")
    if not os.access(path, os.R_OK):
        return StoreError(f"the database {path} cannot be read; run the command as the user that runs the service")
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path} is not the database of a queue")
    if not os.access(path.parent, os.W_OK) and _log_exists(path):
        return StoreError(
            f"the database {path} has a write-ahead log that cannot be read in a folder without write permission ({error}); "
            f"copy {path.name} and {path.name}-wal to a folder that can be written, and read the copy"
        )
    if isinstance(error, sqlite3.Error):
        failure = as_queue_error(error)
        return StoreError(f"the database {path} cannot be read: {error}") if type(failure) is StoreError else failure
    return StoreError(f"the database {path} cannot be read: {error}")


class _Reads:
    """What `common.reader.Reader` does for a service; here each read is executed alone."""

    def __init__(self, read: Read) -> None:
        self.read = read

    async def submit(self, operation: Callable[[Queries, Sequence[Any]], Sequence[Any]], payload: Any) -> Any:
        """Execute one operation. Raises the `QueueError` that is its result."""
        (result,) = await self.read(lambda queries: operation(queries, [payload]))
        if isinstance(result, QueueError):
            raise result
        return result


class _NoWriter:
    """Refuses every operation that changes something."""

    def submit(self, *_: Any) -> Any:
        """Refuse an operation."""
        raise _refusal()

    submit_unawaited = submit


def _refuse(operation: Operation[P, R], payload: P, size: int = 0, on_result: OnResult[R] | None = None) -> Awaitable[R]:
    raise _refusal()


def _refusal() -> StoreError:
    return StoreError("the database is open for reading only")
