"""The transaction of SQLite, and the counts of waiting jobs that it keeps up to date."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from queue_middleware.jobs.models import JobState
from queue_middleware.jobs.store import Topic
from queue_middleware.stores.common.transaction import NotBatchable, Routes

from .sql import SQL, bind, execute_rows
from .sql.schema import check_schema


@dataclass(slots=True)
class BacklogCounters:
    """How many jobs wait, updated by our own writes and read again after those of others. Used in the writer's thread."""

    version: int = -1
    queued: Counter[int] = field(default_factory=Counter)
    """By priority."""
    delayed: int = 0
    """Until their next attempt; a part of the queue."""
    suspects: int = 0
    """Jobs that have lost their process; those among them that have ended since may still be counted."""
    scheduled: int = 0
    """Until the time that their submitter has set; no part of it."""
    tasks: int = 0
    """Tasks that have not ended, and requests that may wait for an external service, wherever they are."""
    last_key: int = 0
    """The largest key in use; the next one is larger, whatever the clock shows."""
    clients: dict[str, int] = field(default_factory=dict)
    """Waiting jobs, for the clients that were asked about."""
    task_clients: dict[str, int] = field(default_factory=dict)
    """The same of tasks."""

    def refresh(self, connection: sqlite3.Connection) -> bool:
        """Bring up to date; True when another connection has written since. Call inside a write transaction.

        Raises `Outdated` when what was written is another schema.
        """
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self.version:
            return False
        check_schema(connection)
        self.version = version
        waiting = connection.execute(SQL["count_backlog"]).fetchall()
        self.queued = Counter({priority: jobs for state, priority, jobs in waiting if state == JobState.QUEUED})
        others = Counter(dict.fromkeys((JobState.DELAYED, "scheduled", "task", "suspect"), 0))
        for state, _, jobs in waiting:
            others[state] += jobs
        self.delayed, self.scheduled, self.tasks = others[JobState.DELAYED], others["scheduled"], others["task"]
        self.suspects = others["suspect"]
        self.last_key = connection.execute(SQL["last_key"]).fetchone()[0] or 0
        self.clients.clear()
        self.task_clients.clear()
        return True

    def invalidate(self) -> None:
        """Read again next time."""
        self.version = -1

    @property
    def waiting(self) -> int:
        """Queued jobs, and those that are tried again later."""
        return self.queued.total() + self.delayed

    def jobs_of_client(self, connection: sqlite3.Connection, client: str, unwritten: Callable[[], int]) -> int:
        """Queued and delayed jobs of one client; `unwritten` is how many of this group have no row yet."""
        count = self.clients.get(client)
        if count is None:
            row = connection.execute(SQL["count_backlog_of_client"], (client,)).fetchone()
            self.clients[client] = count = (row[0] if row else 0) + unwritten()
        return count

    def tasks_of_client(self, connection: sqlite3.Connection, client: str, unwritten: Callable[[], int]) -> int:
        """Tasks of one client that have not ended; see `of_client`."""
        count = self.task_clients.get(client)
        if count is None:
            row = connection.execute(SQL["count_tasks_of_client"], (client,)).fetchone()
            self.task_clients[client] = count = (row[0] if row else 0) + unwritten()
        return count

    def begin_task(self, client: str) -> None:
        """A task was stored."""
        self.tasks += 1
        if client in self.task_clients:
            self.task_clients[client] += 1

    def end_task(self) -> None:
        """A task has ended."""
        self.tasks -= 1
        self.task_clients.clear()

    def enter(self, priority: int, client: str) -> None:
        """A job was queued."""
        self.queued[priority] += 1
        if client in self.clients:
            self.clients[client] += 1

    def leave(self, priority: int, client: str) -> None:
        """A job left the queue to run."""
        self.queued[priority] -= 1
        if client in self.clients:
            self.clients[client] -= 1


@dataclass(slots=True)
class SQLiteTransaction:
    """One group of operations on its way to one COMMIT."""

    connection: sqlite3.Connection
    now: int
    """Milliseconds; the same for the whole group."""
    owner: str
    lease: int
    """Milliseconds."""
    boot_time: int
    """Milliseconds on the boot clock, on which leases are measured."""
    backlog: BacklogCounters
    routes: Routes
    keeps_logs: bool = True
    """Whether jobs have log lines here."""
    topics: set[Topic] = field(default_factory=set)
    """Topics whose listeners are notified after the commit."""
    payloads: list[tuple[int, bytes, bytes, int]] = field(default_factory=list)
    """Requests and answers of several operations, to be written with one statement: `flush`."""

    @property
    def lease_until(self) -> int:
        """When a lease ends that begins now, or is renewed."""
        return self.boot_time + self.lease

    def refresh(self) -> bool:
        """Bring `backlog` up to date; True when another connection has written since."""
        return self.backlog.refresh(self.connection)

    def waiting_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Waiting jobs of one client."""
        return self.backlog.jobs_of_client(self.connection, client, unwritten)

    def tasks_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Tasks of one client that have not ended."""
        return self.backlog.tasks_of_client(self.connection, client, unwritten)

    def flush(self) -> None:
        """Write the payloads, so that they can be read in this transaction, or at its end."""
        if self.payloads:
            execute_rows(self.connection, "put_payloads", self.payloads)
            self.payloads.clear()

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a named query."""
        self.flush()
        row: tuple[Any, ...] | None = self.connection.execute(SQL[name], bind(name, parameters)).fetchone()
        return row

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a named query; no cursor stays open behind it."""
        self.flush()
        return self.connection.execute(SQL[name], bind(name, parameters)).fetchall()

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a `{rows}` block for all these rows."""
        execute_rows(self.connection, name, rows)

    def held(self, name: str, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Run a `{rows}` block. Only the number of changed rows is known, so a batch with some claims lost is not batchable."""
        changed = execute_rows(self.connection, name, rows)
        if changed == len(rows):
            return rows
        if changed:
            raise NotBatchable
        return ()

    def change(self, name: str, parameters: Any = ()) -> int:
        """Run a named statement; how many rows it changed."""
        self.flush()
        return self.connection.execute(SQL[name], bind(name, parameters)).rowcount
