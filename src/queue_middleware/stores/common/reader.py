"""Group reads: executes all pending reads in one call to the connection's thread, and reads of one kind with one statement."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from queue_middleware.errors import QueueError, StoreBusy

from .pending import set_result
from .transaction import Queries

P = TypeVar("P")
R = TypeVar("R")

ReadOperation = Callable[[Queries, Sequence[P]], Sequence[R | QueueError]]
"""A function from a batch of payloads to one result per payload. A `QueueError` is raised to its caller."""

_MAX_OPERATIONS = 64
"""Reads in one group; each result may have 256 KiB."""
_MAX_SECONDS = 0.005
"""Seconds after which results are returned; reads that were not executed by then go into the next group."""


class _Pending(msgspec.Struct, eq=False):
    operation: ReadOperation[Any, Any]
    payload: Any
    future: asyncio.Future[Any]


_Results = list[tuple[_Pending, Any]]


class ReadingConnection(Protocol):
    """A connection that only reads, with its thread. `connection` is an object of the driver."""

    def post(self, work: Callable[[Any], None]) -> None:
        """Run `work` in the connection's thread, without waiting. It must not raise."""

    def failure_of(self, error: BaseException) -> QueueError:
        """The error for the callers, with the driver's error as its cause."""


class Reader:
    """Executes the short reads of a process. Reads that are submitted while a group is executed form the next group.

    A change between the event loop and the thread costs more than a short query, so a group needs only one change (decision
    0037). There is no artificial delay.
    """

    def __init__(
        self,
        connection: ReadingConnection,
        begin: Callable[[Any], Queries],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._begin = begin
        self._clock = clock
        self._pending: deque[_Pending] = deque()
        """Only the event loop appends to it, and only the thread removes from it."""
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def read(self, work: Callable[[Queries], R]) -> asyncio.Future[R]:
        """Run `work` in the next group."""
        return self.submit(lambda queries, _: [work(queries)], None)

    def submit(self, operation: ReadOperation[P, R], payload: P) -> asyncio.Future[R]:
        """Put a read into the next group, where all reads of one operation are one batch."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreBusy("the queue's database is closed", 5))
            return future
        self._pending.append(_Pending(operation, payload, future))
        if not self._reading:
            self._reading = True
            self._idle.clear()
            self._connection.post(self._read_and_report)
        return future

    async def close(self) -> None:
        """Refuse new reads and wait for the pending ones. Idempotent."""
        self._closing = True
        await self._idle.wait()

    def _resolve_all(self, results: _Results) -> None:
        # The next group is started first, so that the thread reads while the callers continue.
        if self._pending:
            self._connection.post(self._read_and_report)
        else:
            self._reading = False
            self._idle.set()
        for pending, result in results:
            set_result(pending.future, result)

    # --- in the connection's thread

    def _read_and_report(self, connection: Any) -> None:
        results: _Results = []
        group = self._take()
        try:
            self._execute(self._begin(connection), group, results)
        except BaseException as error:
            # No case is known, but without results these callers and all later ones would wait forever.
            failure = self._connection.failure_of(error)
            results = [(pending, failure) for pending in group]
        with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
            self._loop.call_soon_threadsafe(self._resolve_all, results)

    def _take(self) -> list[_Pending]:
        return [self._pending.popleft() for _ in range(min(len(self._pending), _MAX_OPERATIONS))]

    def _execute(self, queries: Queries, group: list[_Pending], results: _Results) -> None:
        deadline = self._clock() + _MAX_SECONDS
        executed = 0
        batches = _batches(group)
        for batch in batches:
            if executed and self._clock() > deadline:
                break
            results += self._execute_batch(queries, batch)
            executed += 1
        rest = [pending for batch in batches[executed:] for pending in batch]
        self._pending.extendleft(reversed(rest))

    def _execute_batch(self, queries: Queries, batch: list[_Pending]) -> _Results:
        try:
            found = batch[0].operation(queries, [pending.payload for pending in batch])
            return list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], self._connection.failure_of(error))]
        # One read failed. Executed alone, it does not affect the others.
        return [result for pending in batch for result in self._execute_batch(queries, [pending])]


def _batches(group: Iterable[_Pending]) -> list[list[_Pending]]:
    batches: dict[ReadOperation[Any, Any], list[_Pending]] = {}
    for pending in group:
        batches.setdefault(pending.operation, []).append(pending)
    return list(batches.values())
