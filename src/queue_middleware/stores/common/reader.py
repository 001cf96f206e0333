"""Group reading: executes all reads that wait in one visit to the connection's thread, and equal ones with one statement."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import msgspec

from queue_middleware.errors import QueueError, StoreBusy

from .transaction import Queries
from .writer import set_result

P = TypeVar("P")
R = TypeVar("R")

ReadOperation = Callable[[Queries, Sequence[P]], Sequence[R | QueueError]]
"""From a batch of payloads to as many results; a `QueueError` among them goes to its caller alone."""

_MOST_TOGETHER = 64
"""Each may be a response of 256 KiB."""
_LONGEST = 0.005
"""Seconds after which results are delivered: what was not executed by then goes into the next group."""


class _Waiting(msgspec.Struct, gc=False, eq=False):
    operation: ReadOperation[Any, Any]
    payload: Any
    future: asyncio.Future[Any]


_Results = list[tuple[_Waiting, Any]]


class ReadingConnection(Protocol):
    """A connection that only reads, and the thread that uses it. `connection` is the driver's."""

    def post(self, work: Callable[[Any], None]) -> None:
        """Run `work` in the connection's thread, without waiting. It must not raise."""

    def failure_of(self, error: BaseException) -> QueueError:
        """The error that callers know, with the driver's as its cause."""


class Reader:
    """The short reads of a process. There is no delay: what is submitted while the thread reads forms the next group.

    Each change between the event loop and the thread costs more than a short query, so a group changes once for all of them
    (decision 0037).
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
        self._waiting: deque[_Waiting] = deque()
        """The event loop appends; only the thread takes."""
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def read(self, work: Callable[[Queries], R]) -> asyncio.Future[R]:
        """Run `work` with the next group."""
        return self.submit(lambda queries, _: [work(queries)], None)

    def submit(self, operation: ReadOperation[P, R], payload: P) -> asyncio.Future[R]:
        """Put a read into the next group, together with others of the same operation."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreBusy("the queue's database is closed", 5))
            return future
        self._waiting.append(_Waiting(operation, payload, future))
        if not self._reading:
            self._reading = True
            self._idle.clear()
            self._connection.post(self._read_and_report)
        return future

    async def close(self) -> None:
        """Execute what was begun, then end. Repeatable."""
        self._closing = True
        await self._idle.wait()

    def _deliver(self, results: _Results) -> None:
        # First, so that the thread reads while the callers go on.
        if self._waiting:
            self._connection.post(self._read_and_report)
        else:
            self._reading = False
            self._idle.set()
        for waiting, result in results:
            set_result(waiting.future, result)

    # --- in the connection's thread

    def _read_and_report(self, connection: Any) -> None:
        results: _Results = []
        group = self._take()
        try:
            self._execute(self._begin(connection), group, results)
        except BaseException as error:
            # No known case; but without a result these callers and all later ones would wait forever.
            failure = self._connection.failure_of(error)
            results = [(waiting, failure) for waiting in group]
        with contextlib.suppress(RuntimeError):  # the loop was closed under us
            self._loop.call_soon_threadsafe(self._deliver, results)

    def _take(self) -> list[_Waiting]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]

    def _execute(self, queries: Queries, group: list[_Waiting], results: _Results) -> None:
        late = self._clock() + _LONGEST
        executed = 0
        batches = _batches(group)
        for batch in batches:
            if executed and self._clock() > late:
                break
            results += self._execute_batch(queries, batch)
            executed += 1
        rest = [waiting for batch in batches[executed:] for waiting in batch]
        self._waiting.extendleft(reversed(rest))

    def _execute_batch(self, queries: Queries, batch: list[_Waiting]) -> _Results:
        try:
            found = batch[0].operation(queries, [waiting.payload for waiting in batch])
            return list(zip(batch, found, strict=True))
        except Exception as error:
            if len(batch) == 1:
                return [(batch[0], self._connection.failure_of(error))]
        # One of them cannot be executed; executed alone, none affects another.
        return [result for waiting in batch for result in self._execute_batch(queries, [waiting])]


def _batches(group: Iterable[_Waiting]) -> list[list[_Waiting]]:
    batches: dict[ReadOperation[Any, Any], list[_Waiting]] = {}
    for waiting in group:
        batches.setdefault(waiting.operation, []).append(waiting)
    return list(batches.values())
