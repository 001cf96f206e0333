"""The interface between operations and the driver of a database: named queries, and a write transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from queue_middleware.jobs.kept_requests import KeepPolicy
from queue_middleware.jobs.pauses import Pause
from queue_middleware.jobs.store import Topic


class CommitFailed(Exception):
    """COMMIT failed, with the driver's error as the cause, so it is not known whether anything is committed.

    The group must not be repeated; its callers get this error.
    """


class NotBatchable(Exception):
    """Raised for a batch whose items must be executed one by one."""


class Queries(Protocol):
    """The named queries of a store, on a connection that reads. They run in the thread of that connection.

    Parameters are values of Python, here and in `Transaction`: lists and booleans too. The driver converts what it must.
    """

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a query, None where there is none."""

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """All rows that a query finds for all these rows."""

    def snapshot(self) -> AbstractContextManager[None]:
        """A context in which all queries see the same state."""


class QueueCounters(Protocol):
    """What a submission needs to know of the queue. The operations update it, so that jobs are not counted each time."""

    queued: Counter[int]
    """Queued jobs by priority."""
    delayed: int
    """Jobs that are delayed until their next attempt. They count as a part of the queue."""
    suspects: int
    """Jobs that are suspects. Some that have ended since may still be counted."""
    scheduled: int
    """Jobs that are delayed until the start time set by their submitter. They are not a part of the queue."""
    tasks: int
    """Tasks that have not ended, in any state, including plain jobs whose handlers requested a callback URL."""
    last_key: int
    """The largest key. The next key is larger, even if the clock was set back."""
    pauses: Sequence[Pause]
    """The stored pauses, by route. Some may have ended by themselves (`jobs.pauses.paused_routes`)."""
    task_clients: dict[str, int]
    """Unfinished tasks by client, for clients whose tasks were counted."""

    @property
    def waiting(self) -> int:
        """The size of the queue: queued jobs, and jobs that are delayed until their next attempt."""

    def invalidate(self) -> None:
        """Count again at the next `Transaction.refresh`."""

    def begin_task(self, client: str) -> None:
        """Count a new task."""

    def end_task(self) -> None:
        """Subtract a task that has ended."""

    def enter(self, priority: int, client: str) -> None:
        """Count a job that enters the queue."""

    def leave(self, priority: int, client: str) -> None:
        """Subtract a job that leaves the queue to run."""


class Routes(Protocol):
    """The ids of routes, which jobs hold in place of their templates."""

    def id_of(self, transaction: Transaction, method: str, template: str) -> int:
        """The id of a route, which is stored if it is new."""

    def template(self, transaction: Transaction, route: int) -> str:
        """The template of a stored route."""


class Transaction(Protocol):
    """One write transaction, in which the operations of a group are executed."""

    now: int
    """Milliseconds since 1970; the same for the whole group."""
    owner: str
    boot_time: int
    """Milliseconds on the clock that measures leases."""
    lease: int
    """Milliseconds."""
    keeps_logs: bool
    """Whether log lines of jobs are stored."""
    keep: KeepPolicy | None
    """Which requests are kept after their end; None if none are."""
    topics: set[Topic]
    """Topics whose listeners are notified after the commit."""
    payloads: list[tuple[int, bytes, bytes, int]]
    """Requests and responses of several operations, which `flush` writes with one statement."""

    @property
    def counters(self) -> QueueCounters:
        """The counters of the queue."""

    @property
    def routes(self) -> Routes:
        """The ids of routes."""

    @property
    def lease_until(self) -> int:
        """The end of a lease that starts or is renewed now."""

    def refresh(self) -> bool:
        """Bring `counters` up to date. True if another process has written since."""

    def waiting_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """The size of one client's queue. `unwritten` counts the jobs of this group that have no row yet."""

    def tasks_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Unfinished tasks of one client. `unwritten` counts the tasks of this group that have no row yet."""

    def flush(self) -> None:
        """Write `payloads`: at the end of the transaction, and before they are read in it."""

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a named query."""

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a named query."""

    def change(self, name: str, parameters: Any = ()) -> int:
        """Run a named statement. Returns how many rows it changed."""

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()) -> None:
        """Run a named statement once for all these rows. `common`: parameters with one value for all rows."""

    def held(self, name: str, rows: Sequence[tuple[Any, ...]], common: tuple[Any, ...] = ()) -> Sequence[tuple[Any, ...]]:
        """Run a named statement for rows that begin with the key and the token of a claim; `common` as for `rows`.

        Returns the rows whose claim is still held; the others changed nothing. Raises `NotBatchable` if the database does not
        return which rows these are.
        """
