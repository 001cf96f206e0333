"""Group commit: executes all pending operations in one transaction, so that one fsync serves many."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

import msgspec

from queue_middleware.errors import QueueError, StoreBusy
from queue_middleware.jobs.store import Topic

from .transaction import CommitFailed, Transaction

P = TypeVar("P")
R = TypeVar("R")
T = TypeVar("T")

Operation = Callable[[Transaction, Sequence[P]], Sequence[R | QueueError]]
"""From a batch of payloads to as many results; a `QueueError` among them goes to its caller alone and undoes nothing."""

_MOST_TOGETHER = 256
_MOST_BYTES = 16 * 2**20
_LONGEST = 0.05
"""Seconds after which a group is committed: what was not executed by then goes into the next one."""
_PATIENCE = 10.0
"""Seconds after which operations that are not yet in a transaction fail with `StoreBusy`."""


class _Waiting(msgspec.Struct, gc=False, eq=False):
    operation: Operation[Any, Any]
    payload: Any
    size: int
    future: asyncio.Future[Any]
    on_result: Callable[[Any], None] | None


_Results = list[tuple[_Waiting, Any]]


class WritingConnection(Protocol):
    """The one connection of a process that writes, and the thread that uses it. `connection` is the driver's."""

    def post(self, work: Callable[[Any], None]) -> None:
        """Run `work` in the connection's thread, without waiting. It must not raise."""

    def transact(self, connection: Any, work: Callable[[], T]) -> T:
        """In the connection's thread: run `work` between BEGIN and COMMIT. Raises `CommitFailed` where COMMIT failed."""

    def failure_of(self, error: BaseException) -> QueueError:
        """The error that callers know, with the driver's as its cause."""

    def is_database_wide(self, error: BaseException) -> bool:
        """Whether every operation would have failed like this one."""

    def is_full(self, error: BaseException) -> bool:
        """Whether there was no room left for the database."""


class Writer:
    """All writing of a process. `begin` makes a transaction's context; `announce` hears what was committed.

    The connection's thread takes whatever waits at the moment when its turn has come; what is submitted while it writes forms
    the next transaction. There is no delay. `undone` is called after every transaction that was rolled back; `check` raises,
    before COMMIT, what stands in the way of it.

    A group is bounded in number, bytes and time, because all others wait for its end. Operations of `one_by_one` may each take
    long, whatever their size, so the clock is looked at between them. `relieve` makes what room it can on a disk that is full.

    After COMMIT nothing fails any more: every caller gets the result of the commit, whatever its listeners do.
    """

    def __init__(
        self,
        connection: WritingConnection,
        begin: Callable[[Any], Transaction],
        announce: Callable[[set[Topic]], None],
        undone: Callable[[], None],
        check: Callable[[], None] = lambda: None,
        one_by_one: frozenset[Operation[Any, Any]] = frozenset(),
        relieve: Callable[[Any], None] = lambda connection: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._check = check
        self._begin = begin
        self._announce = announce
        self._undone = undone
        self._one_by_one = one_by_one
        self._relieve = relieve
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        # Not the context of a caller: a cancelled timer keeps its context, with the request in it, until it would be due.
        self._context = copy_context()
        self._writing = False
        self._patience: asyncio.TimerHandle | None = None
        self._taking = threading.Lock()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self,
        operation: Operation[P, R],
        payload: P,
        size: int = 0,
        on_result: Callable[[R | QueueError], None] | None = None,
    ) -> asyncio.Future[R]:
        """Put an operation into the next transaction. It is executed even if its caller has stopped waiting.

        `on_result` is called with its result or failure in any case, before the future is resolved.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            _resolve(_Waiting(operation, payload, size, future, on_result), StoreBusy("the queue's database is closed", 5))
            return future
        self._waiting.append(_Waiting(operation, payload, size, future, on_result))
        if not self._writing:
            self._writing = True
            self._idle.clear()
            self._start()
        return future

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return not self._writing

    async def close(self) -> None:
        """Write what was begun, then end. Repeatable."""
        self._closing = True
        await self._idle.wait()

    def _start(self) -> None:
        self._patience = self._loop.call_later(_PATIENCE, self._time_out, context=self._context)
        self._connection.post(self._write_and_report)

    def _time_out(self) -> None:
        """Fail operations that wait too long for the write lock, so that they neither hang nor fill memory."""
        self._patience = self._loop.call_later(_PATIENCE, self._time_out, context=self._context)
        for waiting in self._take(sys.maxsize, sys.maxsize):
            _resolve(waiting, StoreBusy("the queue's database does not answer", 5))

    def _deliver(self, results: _Results, topics: set[Topic]) -> None:
        if self._patience is not None:
            self._patience.cancel()
        interrupt: BaseException | None = None
        for waiting, result in results:
            try:
                _resolve(waiting, result)
            except Exception as error:
                # A callback has a defect; all others still have to be called, and the next group to be written.
                self._loop.call_exception_handler({"message": "a callback of a commit failed", "exception": error})
            except BaseException as error:
                interrupt = error  # it is for the event loop, and is raised when all callers have their results
        if self._waiting:
            self._start()
        else:
            self._writing = False
            self._idle.set()
        if topics:
            self._announce(topics)
        if interrupt is not None:
            raise interrupt

    def _take(self, most: int, room: int) -> list[_Waiting]:
        """The next group; called by both threads."""
        group: list[_Waiting] = []
        with self._taking:
            while self._waiting and len(group) < most and room > 0:
                group.append(self._waiting.popleft())
                room -= group[-1].size
        return group

    # --- in the connection's thread

    def _write_and_report(self, connection: Any) -> None:
        group: list[_Waiting] = []
        try:
            results, topics = self._write(connection, group)
        except BaseException as error:
            # No known case; but without a result these callers and all later ones would wait forever.
            results, topics = [(waiting, self._connection.failure_of(error)) for waiting in group], set()
        with contextlib.suppress(RuntimeError):  # the loop was closed under us; what is committed is committed
            self._loop.call_soon_threadsafe(self._deliver, results, topics)

    def _write(self, connection: Any, group: list[_Waiting], *, relieved: bool = False) -> tuple[_Results, set[Topic]]:
        """Write the group; an empty one is filled once the write lock is held, until when operations can time out."""
        try:
            return self._connection.transact(connection, lambda: self._execute(connection, group))
        except Exception as error:
            self._undone()
            group += [] if group else self._take(_MOST_TOGETHER, _MOST_BYTES)
            if self._connection.is_full(error) and not relieved:
                self._relieve(connection)
                if not isinstance(error, CommitFailed):
                    return self._write(connection, group, relieved=True)
            if len(group) == 1 or isinstance(error, CommitFailed) or self._connection.is_database_wide(error):
                failure = self._connection.failure_of(error)
                return [(waiting, failure) for waiting in group], set()
        # One of them cannot be executed, or not together with the others; executed alone, none affects another.
        results: _Results = []
        topics: set[Topic] = set()
        for waiting in group:
            alone, changed = self._write(connection, [waiting])
            results += alone
            topics |= changed
        return results, topics

    def _execute(self, connection: Any, group: list[_Waiting]) -> tuple[_Results, set[Topic]]:
        group += [] if group else self._take(_MOST_TOGETHER, _MOST_BYTES)
        transaction = self._begin(connection)
        results: _Results = []
        late = self._clock() + _LONGEST
        for operation, batch in self._batches(group):
            if results and self._clock() > late:
                break
            answers = operation(transaction, [waiting.payload for waiting in batch])
            results.extend(zip(batch, answers, strict=True))
        transaction.flush()
        self._check()
        if len(results) < len(group):
            self._put_back(group, {id(waiting) for waiting, _ in results})
        return results, transaction.topics

    def _batches(self, group: list[_Waiting]) -> Iterable[tuple[Operation[Any, Any], list[_Waiting]]]:
        batches: dict[tuple[Operation[Any, Any], int], list[_Waiting]] = {}
        for waiting in group:
            place = len(batches) if waiting.operation in self._one_by_one else -1
            batches.setdefault((waiting.operation, place), []).append(waiting)
        return ((operation, batch) for (operation, _), batch in batches.items())

    def _put_back(self, group: list[_Waiting], executed: set[int]) -> None:
        """In front of all that came since."""
        rest = [waiting for waiting in group if id(waiting) not in executed]
        group[:] = [waiting for waiting in group if id(waiting) in executed]
        with self._taking:
            self._waiting.extendleft(reversed(rest))


def _resolve(waiting: _Waiting, result: Any) -> None:
    try:
        if waiting.on_result is not None:
            waiting.on_result(result)
    finally:
        set_result(waiting.future, result)


def set_result(future: asyncio.Future[Any], result: Any) -> None:
    """Resolve a future whose caller may have gone, with a result or a `QueueError`."""
    if future.done():
        return
    if isinstance(result, QueueError):
        future.set_exception(result)
        future.exception()  # its caller may be gone; asyncio must not warn about it then
    else:
        future.set_result(result)
