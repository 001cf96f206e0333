"""What the operations of a store need from its driver: named queries, and a transaction that the writer opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from queue_middleware.jobs.store import Topic


class CommitFailed(Exception):
    """COMMIT itself failed, with the driver's error as the cause: whether anything is committed is not known.

    Nothing of the group may be repeated; its callers get an error that the outcome is unknown.
    """


class NotBatchable(Exception):
    """A batch that must be executed one by one."""


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
        """A block whose queries all see the same state."""


class Backlog(Protocol):
    """How many jobs wait, kept up to date by the operations, so that they need not be counted for each submission."""

    queued: Counter[int]
    """By priority."""
    delayed: int
    """Until their next attempt; a part of the queue."""
    suspects: int
    """Jobs that have lost their process; those among them that have ended since may still be counted."""
    scheduled: int
    """Until the time that their submitter has set; no part of the queue."""
    tasks: int
    """Tasks that have not ended, and requests that may wait for an external service, wherever they are."""
    last_key: int
    """The largest key; the next one is larger, whatever the clock shows."""
    task_clients: dict[str, int]
    """Tasks of the clients that were asked about."""

    @property
    def waiting(self) -> int:
        """Queued jobs, and those that are tried again later."""

    def forget(self) -> None:
        """Count again next time."""

    def begin_task(self, client: str) -> None:
        """Count a task that was stored."""

    def end_task(self) -> None:
        """Count a task that has ended."""

    def enter(self, priority: int, client: str) -> None:
        """Count a job that was queued."""

    def leave(self, priority: int, client: str) -> None:
        """Count a job that left the queue to run."""


class Transaction(Protocol):
    """One group of operations on its way to one COMMIT."""

    now: int
    """Milliseconds since 1970; the same for the whole group."""
    owner: str
    boot_time: int
    """Milliseconds on the clock on which leases are measured."""
    lease: int
    """Milliseconds."""
    keeps_logs: bool
    """Whether log lines of jobs are stored."""
    topics: set[Topic]
    """What listeners are notified of once the group is committed."""
    payloads: list[tuple[int, bytes, bytes, int]]
    """Requests and responses of several operations, to be written with one statement: `flush`."""

    @property
    def backlog(self) -> Backlog:
        """How many jobs wait."""

    @property
    def lease_until(self) -> int:
        """When a lease ends that begins now, or is renewed."""

    def refresh(self) -> bool:
        """Bring `backlog` up to date; True when another process has written since."""

    def waiting_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Waiting jobs of one client; `unwritten` counts those that were accepted in this group and have no row yet."""

    def tasks_of_client(self, client: str, unwritten: Callable[[], int]) -> int:
        """Tasks of one client that have not ended; `unwritten` as in `waiting_of_client`."""

    def flush(self) -> None:
        """Write `payloads`, so that they can be read in this transaction, or at its end."""

    def one(self, name: str, parameters: Any = ()) -> tuple[Any, ...] | None:
        """The first row of a named query."""

    def all(self, name: str, parameters: Any = ()) -> list[tuple[Any, ...]]:
        """All rows of a named query."""

    def change(self, name: str, parameters: Any = ()) -> int:
        """Run a named statement; how many rows it changed."""

    def rows(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a named statement once for all these rows."""

    def held(self, name: str, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
        """Run a named statement for rows that begin with the key and the token of a claim; those whose claim is still held.

        The others changed nothing. Raises `NotBatchable` where the store cannot tell which these are.
        """
