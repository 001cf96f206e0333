"""A write transaction of SQLite, and the counters of waiting jobs that it keeps up to date."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from queue_middleware.jobs.kept_requests import KeepPolicy
from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.common.transaction import NotBatchable, Routes

from .sql import SQL, bind, execute_rows
from .sql.schema import check_schema

INVALID = -1
"""The version of counters that must be read again."""


@dataclass(slots=True)
class SQLiteQueueCounters:
    """How many jobs wait to start, updated by our own writes and read again after those of other processes.

    Used in the writer's thread. `common.transaction.QueueCounters` describes the fields.
    """

    version: int = INVALID
    queued: Counter[int] = field(default_factory=Counter)
    delayed: int = 0
    suspects: int = 0
    scheduled: int = 0
    tasks: int = 0
    last_key: int = 0
    pauses: Sequence[Pause] = ()
    clients: dict[str, int] = field(default_factory=dict)
    """Queued and delayed jobs by client, for clients whose jobs were counted."""
    task_clients: dict[str, int] = field(default_factory=dict)

    def refresh(self, connection: sqlite3.Connection) -> bool:
        """Count again if another connection has written, and return whether it has. Call inside a write transaction.

        Raises `Outdated` if another release has migrated the schema.
        """
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self.version:
            return False
        check_schema(connection)
        self.version = version
        waiting = connection.execute(SQL["count_backlog"]).fetchall()
        self.queued = Counter({priority: jobs for state, priority, jobs in waiting if state == JobState.QUEUED})
        others = Counter(dict.fromkeys((JobState.DELAYED, "scheduled", "task", "suspect", "pause"), 0))
        for state, _, jobs in waiting:
            others[state] += jobs
        self.delayed, self.scheduled, self.tasks = others[JobState.DELAYED], others["scheduled"], others["task"]
        self.suspects = others["suspect"]
        self.pauses = [Pause(*row) for row in connection.execute(SQL["pauses"]).fetchall()] if others["pause"] else ()
        self.last_key = connection.execute(SQL["last_key"]).fetchone()[0] or 0
        self.clients.clear()
        self.task_clients.clear()
        return True

    def invalidate(self) -> None:
        """Count again at the next `refresh`."""
        self.version = INVALID

    @property
    def waiting(self) -> int:
        """The size of the queue: queued jobs, and jobs that are delayed until their next attempt."""
        return self.queued.total() + self.delayed

    def jobs_of_client(self, connection: sqlite3.Connection, client: str, unwritten: Callable[[], int]) -> int:
        """The size of one client's queue. `unwritten` counts the jobs of this group that have no row yet."""
        count = self.clients.get(client)
        if count is None:
            row = connection.execute(SQL["count_backlog_of_client"], (client,)).fetchone()
            self.clients[client] = count = (row[0] if row else 0) + unwritten()
        return count

    def tasks_of_client(self, connection: sqlite3.Connection, client: str, unwritten: Callable[[], int]) -> int:
        """Unfinished tasks of one client. `unwritten` counts the tasks of this group that have no row yet."""
        count = self.task_clients.get(client)
        if count is None:
            row = connection.execute(SQL["count_tasks_of_client"], (client,)).fetchone()
            self.task_clients[client] = count = (row[0] if row else 0) + unwritten()
        return count

    def begin_task(self, client: str) -> None:
        """Count a new task."""
        self.tasks += 1
        if client in self.task_clients:
            self.task_clients[client] += 1

    def end_task(self) -> None:
        """Subtract a task that has ended."""
        self.tasks -= 1
        self.task_clients.clear()

    def enter(self, priority: int, client: str) -> None:
        """Count a job that enters the queue."""
        self.queued[priority] += 1
        if client in self.clients:
            self.clients[client] += 1

    def leave(self, priority: int, client: str) -> None:
        """Subtract a job that leaves the queue to run."""
        self.queued[priority] -= 1
        if client in self.clients:
            self.clients[client] -= 1


_SHORT = 2**14
"""Bytes that are copied in less time than the search for an adapter takes."""


@dataclass(slots=True)
class SQLiteTransaction:
    """`common.transaction.Transaction` on one connection, in its thread."""

    connection: sqlite3.Connection
    now: int
    """Milliseconds; the same for the whole group."""
    owner: str
    lease: int
    """Milliseconds."""
    boot_time: int
    """Milliseconds on the boot clock, which measures leases."""
    counters: SQLiteQueueCounters
    routes: Routes
    keeps_logs: bool = True
    """Whether log lines of jobs are stored."""
    keep: KeepPolicy | None = None
    """Which requests are kept after their end; None if none are."""
    topics: set[Topic] = field(default_factory=set)
    """Topics whose listeners are notified after the commit."""
    payloads: list[tuple[int, bytes, bytes, int]] = field(default_factory=list)
    """Requests and responses of several operations, which `flush` writes with one statement."""

    @property
    def lease_until(self) -> int:
        """The end of a lease that starts or is renewed now."""
        return self.boot_time + self.lease

    def refresh(self) -> bool:
        """Bring `counters` up to date. True if another connection has written since."""
        # It is up to date when the transaction begins, and no other connection can write before its end.
        return self.counters.version == INVALID and self.counters.refresh(self.connection)

    def waiting_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """The size of one client's queue."""
        return self.counters.jobs_of_client(self.connection, client, unwritten)

    def tasks_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Unfinished tasks of one client."""
        return self.counters.tasks_of_client(self.connection, client, unwritten)

    def flush(self) -> None:
        """Write `payloads`: at the end of the transaction, and before they are read in it."""
        if self.payloads:
            # Python's sqlite3 searches for an adapter of bytes, but not of a bytearray.
            rows = [
                (key, bytearray(head), body if len(body) > _SHORT else bytearray(body), chunks)
                for key, head, body, chunks in self.payloads
            ]
            execute_rows(self.connection, "put_payloads", rows)
            self.payloads.clear()

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a named query."""
        self.flush()
        row: tuple[Any, ...] | None = self.connection.execute(SQL[name], bind(name, parameters)).fetchone()
        return row

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a named query. No cursor stays open."""
        self.flush()
        return self.connection.execute(SQL[name], bind(name, parameters)).fetchall()

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()) -> None:
        """Run a `{rows}` block for all these rows."""
        execute_rows(self.connection, name, rows, common)

    def held(self, name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        """Run a `{rows}` block. SQLite returns only the number of changed rows, so a batch with some lost claims is refused."""
        changed = execute_rows(self.connection, name, rows, common)
        if changed == len(rows):
            return rows
        if changed:
            raise NotBatchable
        return ()

    def change(self, name: str, parameters: Any = ()) -> int:
        """Run a named statement. Returns how many rows it changed."""
        self.flush()
        return self.connection.execute(SQL[name], bind(name, parameters)).rowcount
