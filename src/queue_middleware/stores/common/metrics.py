"""The port of metrics, the same for every database, and its operation."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, cast

from queue_middleware.errors import QueueError
from queue_middleware.jobs.ids import parse_request_id
from queue_middleware.jobs.routes import OTHER
from queue_middleware.observability.metrics.numbers import Numbers, Row, tallies, with_route
from queue_middleware.observability.metrics.store import NumberSource, StoredNumbers

from . import processes
from .access import Read, Write
from .gauges import read_gauges
from .pending import R
from .transaction import Queries, Transaction

_INTERVAL = 1.0
"""Seconds between two transactions that store numbers, at least."""
_MINUTE = 60_000
_KEPT_MINUTES = 48 * 60
_MINUTES_PER_DELETE = 60
"""Minutes that one transaction deletes: after a long stop there may be many."""


class ReadNow(Protocol):
    """Runs a query on a reading connection. Blocks the calling thread, which may be any."""

    def __call__(self, work: Callable[[Queries], R]) -> R:
        """The result of `work`."""


class CommonMetricsStore:
    """`observability.metrics.store.MetricsStore` on the operations and reads of a store.

    `read_now` is like `read_many`, and blocks until the result is there. `clock` gives milliseconds since 1970, `living` the
    owners that are running, and `measure` the gauges of the store itself; both may block. `owner` is the one of this process.
    `monotonic` gives seconds.
    """

    def __init__(
        self,
        write: Write,
        read_many: Read,
        read_now: ReadNow,
        clock: Callable[[], int],
        living: Callable[[], Collection[str]],
        measure: Callable[[], list[Row]],
        owner: Callable[[], str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._read_many = read_many
        self._read_now = read_now
        self._clock = clock
        self._living = living
        self._measure = measure
        self._owner = owner
        self._monotonic = monotonic
        self._source: NumberSource | None = None
        self._next = 0.0

    def attach(self, source: NumberSource) -> None:
        """Store what this source counts."""
        self._source = source

    def join(self) -> None:
        """Let numbers join the transaction that is about to begin, if they are due."""
        source = self._source
        if source is not None and source.has_counted and self._monotonic() >= self._next:
            self._add(source)

    def committed(self, seconds: float, operations: int) -> None:
        """Count a transaction of this store."""
        if self._source is not None:
            self._source.committed(seconds, operations)

    def _add(self, source: NumberSource) -> Awaitable[None]:
        self._next = self._monotonic() + _INTERVAL
        numbers = source.take()
        return self._write(add, numbers, 0, partial(_put_back_on_error, source, numbers))

    async def flush(self) -> None:
        """Store numbers, if they are due."""
        source = self._source
        if source is not None and source.has_counted and self._monotonic() >= self._next:
            await self._add(source)

    async def close(self) -> None:
        """Store numbers."""
        source = self._source
        with suppress(QueueError):
            while source is not None and source.has_counted:
                await self._add(source)

    async def read(self) -> StoredNumbers:
        """Read all numbers."""
        return await self._read_many(self._read)

    def read_now(self) -> StoredNumbers:
        """Read all numbers. Blocking."""
        return self._read_now(self._read)

    def _read(self, queries: Queries) -> StoredNumbers:
        now = self._clock()
        with queries.snapshot():
            created_at = queries.one("created_at")
            rows = cast("list[Row]", queries.all("numbers"))
            rows += read_gauges(queries, now, self._living())
        return StoredNumbers(rows + self._measure(), 0 if created_at is None else created_at[0])

    def gauges_now(self) -> list[Row] | None:
        """Read the gauges, if this process is the oldest that runs. Blocking."""
        return self._read_now(self._read_gauges)

    def _read_gauges(self, queries: Queries) -> list[Row] | None:
        living = self._living()
        with queries.snapshot():
            if processes.oldest(queries, living) != self._owner():
                return None
            rows = read_gauges(queries, self._clock(), living)
        return rows + self._measure()

    async def tallies(self, names: Collection[str], since: int) -> list[Row]:
        """Read the sums of some tallies."""
        parameters = {"names": list(names), "since": since // _MINUTE}
        return cast("list[Row]", await self._read_many(lambda queries: queries.all("tallies", parameters)))


def _put_back_on_error(source: NumberSource, numbers: Numbers, result: object) -> None:
    # If COMMIT itself has failed, they may be stored nevertheless. Numbers that are too high once are better than lost ones.
    if isinstance(result, QueueError):
        source.put_back(numbers)


def add(transaction: Transaction, batch: Sequence[Numbers]) -> list[None]:
    """Add what a process has counted to the numbers of all processes, and to those of this minute."""
    minute = transaction.now // _MINUTE
    for numbers in batch:
        rows = [*numbers.rows, *_routed(transaction, numbers)]
        transaction.rows("add_numbers", rows)
        transaction.rows("add_tallies", tallies(rows, numbers.tallied), (minute,))
        transaction.change("delete_old_tallies", {"before": minute - _KEPT_MINUTES, "most": _MINUTES_PER_DELETE})
    return [None] * len(batch)


def _routed(transaction: Transaction, numbers: Numbers) -> list[Row]:
    rows: list[Row] = []
    for unrouted in numbers.unrouted:
        first, tail = parse_request_id(unrouted.request_id)
        found = transaction.one("route_of_request", {"first": first, "tail": tail})
        rows += [with_route(row, OTHER if found is None else found[0]) for row in unrouted.rows]
    return rows
