"""Group commit: executes all pending operations in one transaction, so that one fsync serves many."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from queue_middleware.errors import QueueError, StoreBusy
from queue_middleware.jobs.store import OnResult, Topic

from .pending import Operation, P, Pending, R, resolve, with_result
from .transaction import CommitFailed, Transaction

T = TypeVar("T")

_MAX_OPERATIONS = 256
_MAX_BYTES = 16 * 2**20
_MAX_SECONDS = 0.05
"""Seconds after which a group is committed; operations that were not executed by then go into the next group."""
_TIMEOUT = 10.0
"""Seconds after which operations that are not yet in a transaction fail with `StoreBusy`."""


class WritingConnection(Protocol):
    """The only connection of a process that writes, with its thread. `connection` is an object of the driver."""

    def post(self, work: Callable[[Any], None]) -> None:
        """Run `work` in the connection's thread, without waiting. It must not raise."""

    def transact(self, connection: Any, work: Callable[[], T]) -> T:
        """In the connection's thread: run `work` between BEGIN and COMMIT. Raises `CommitFailed` if COMMIT failed."""

    def failure_of(self, error: BaseException) -> QueueError:
        """The error for the callers, with the driver's error as its cause."""

    def is_database_wide(self, error: BaseException) -> bool:
        """Whether the error would occur for every operation."""

    def is_full(self, error: BaseException) -> bool:
        """Whether the disk is full."""


class Writer:
    """Executes all writes of a process.

    When the connection's thread holds the write lock, it takes all pending operations as one group. Operations that are
    submitted during a transaction form the next group. There is no artificial delay.

    A group is limited in number, bytes and time, because all later operations wait for its end. Each operation of `one_by_one`
    may take long whatever its size, so the clock is read between them.

    After COMMIT nothing fails any more: every caller gets the result of the commit, even if a listener raises.

    `begin` creates the object of a transaction. `publish` is called after each group with the topics of what was committed.
    `on_rollback` is called after every rollback. `check` is called before COMMIT and raises if it must not happen. `free_space`
    is called when the disk is full. `join` is called before each group begins, and may submit operations that join it;
    `on_commit` after each group, with its seconds and the number of its operations that were committed, unless none was.
    """

    def __init__(
        self,
        connection: WritingConnection,
        begin: Callable[[Any], Transaction],
        publish: Callable[[set[Topic]], None],
        on_rollback: Callable[[], None],
        check: Callable[[], None] = lambda: None,
        one_by_one: frozenset[Operation[Any, Any]] = frozenset(),
        free_space: Callable[[Any], None] = lambda connection: None,
        join: Callable[[], None] = lambda: None,
        on_commit: Callable[[float, int], None] = lambda seconds, operations: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = connection
        self._join = join
        self._on_commit = on_commit
        self._check = check
        self._begin = begin
        self._publish = publish
        self._on_rollback = on_rollback
        self._one_by_one = one_by_one
        self._free_space = free_space
        self._clock = clock
        self._pending: deque[Pending] = deque()
        self._loop = asyncio.get_running_loop()
        # Not the context of a caller: a cancelled timer keeps its context, and so the caller's request, until it would be due.
        self._context = copy_context()
        self._writing = False
        self._committed = 0
        """Operations of the present group in transactions that were committed. Used in the connection's thread."""
        self._timer: asyncio.TimerHandle | None = None
        self._lock = threading.Lock()
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(
        self,
        operation: Operation[P, R],
        payload: P,
        size: int = 0,
        on_result: OnResult[R] | None = None,
    ) -> asyncio.Future[R]:
        """Put an operation into the next transaction. It is executed even if its caller has stopped waiting.

        `on_result` is always called with the result or the error, before the future is resolved.
        """
        future: asyncio.Future[R] = self._loop.create_future()
        self._add(Pending(operation, payload, size, on_result, future))
        return future

    def submit_unawaited(self, operation: Operation[P, R], payload: P, size: int, on_result: OnResult[R]) -> None:
        """The same without a future, which every job would need for its end, although nothing awaits it."""
        self._add(Pending(operation, payload, size, on_result, None))

    def _add(self, pending: Pending) -> None:
        if self._closing:
            pending.result = StoreBusy("the queue's database is closed", 5)
            resolve(pending)
            return
        self._pending.append(pending)
        if not self._writing:
            self._writing = True
            self._idle.clear()
            self._start()

    @property
    def idle(self) -> bool:
        """Whether no operation is pending or being executed."""
        return not self._writing

    async def close(self) -> None:
        """Refuse new operations and wait for the pending ones. Idempotent."""
        self._closing = True
        await self._idle.wait()

    def _start(self) -> None:
        self._join()
        self._timer = self._loop.call_later(_TIMEOUT, self._time_out, context=self._context)
        self._connection.post(self._write_and_report)

    def _time_out(self) -> None:
        """Fail operations that wait too long for the write lock; otherwise they would hang and fill the memory."""
        self._timer = self._loop.call_later(_TIMEOUT, self._time_out, context=self._context)
        late = self._take(sys.maxsize, sys.maxsize)
        interrupt = self._resolve_all(with_result(late, StoreBusy("the queue's database does not respond", 5)))
        if interrupt is not None:
            raise interrupt

    def _deliver(self, executed: list[Pending], topics: set[Topic], seconds: float, committed: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if committed:
            self._on_commit(seconds, committed)
        interrupt = self._resolve_all(executed)
        if self._pending:
            self._start()
        else:
            self._writing = False
            self._idle.set()
        self._publish(topics)
        if interrupt is not None:
            raise interrupt

    def _resolve_all(self, executed: list[Pending]) -> BaseException | None:
        """Give every caller its result, even if a callback fails; returns what is for the event loop to raise afterwards."""
        interrupt: BaseException | None = None
        for pending in executed:
            try:
                resolve(pending)
            except Exception as error:
                # A callback has a defect; all others still have to be called, and the next group to be written.
                self._loop.call_exception_handler({"message": "a callback of a commit failed", "exception": error})
            except BaseException as error:
                interrupt = error
        return interrupt

    def _take(self, max_operations: int, max_bytes: int) -> list[Pending]:
        """Take the next group. Called in both threads."""
        group: list[Pending] = []
        take, add = self._pending.popleft, group.append
        with self._lock:
            for _ in range(min(len(self._pending), max_operations)):
                pending = take()
                add(pending)
                max_bytes -= pending.size
                if max_bytes <= 0:
                    break
        return group

    # --- in the connection's thread

    def _write_and_report(self, connection: Any) -> None:
        group: list[Pending] = []
        began, self._committed = self._clock(), 0
        try:
            executed, topics = self._write(connection, group)
        except BaseException as error:
            # No case is known, but without results these callers and all later ones would wait forever.
            executed, topics = with_result(group, self._connection.failure_of(error)), set()
        with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile; the commit stands
            self._loop.call_soon_threadsafe(self._deliver, executed, topics, self._clock() - began, self._committed)

    def _write(self, connection: Any, group: list[Pending], *, freed: bool = False) -> tuple[list[Pending], set[Topic]]:
        """Write a group; return what was executed, with its results.

        An empty group is filled when the write lock is held, so that operations can time out until then.
        """
        try:
            written = self._connection.transact(connection, lambda: self._execute(connection, group))
        except Exception as error:
            self._on_rollback()
            group += [] if group else self._take(_MAX_OPERATIONS, _MAX_BYTES)
            if self._connection.is_full(error) and not freed:
                self._free_space(connection)
                if not isinstance(error, CommitFailed):
                    return self._write(connection, group, freed=True)
            if len(group) == 1 or isinstance(error, CommitFailed) or self._connection.is_database_wide(error):
                return with_result(group, self._connection.failure_of(error)), set()
        else:
            self._committed += len(written[0])
            return written
        # One operation failed, or cannot be executed together with the others. Executed alone, it does not affect them.
        executed: list[Pending] = []
        topics: set[Topic] = set()
        for pending in group:
            alone, changed = self._write(connection, [pending])
            executed += alone
            topics |= changed
        return executed, topics

    def _execute(self, connection: Any, group: list[Pending]) -> tuple[list[Pending], set[Topic]]:
        group += [] if group else self._take(_MAX_OPERATIONS, _MAX_BYTES)
        transaction = self._begin(connection)
        executed: list[Pending] = []
        deadline = self._clock() + _MAX_SECONDS
        for operation, batch in self._batches(group):
            if executed and self._clock() > deadline:
                break
            results = operation(transaction, [pending.payload for pending in batch])
            for pending, result in zip(batch, results, strict=True):
                pending.result = result
            executed += batch
        transaction.flush()
        self._check()
        if len(executed) < len(group):
            self._put_back(group, {id(pending) for pending in executed})
        return executed, transaction.topics

    def _batches(self, group: list[Pending]) -> list[tuple[Operation[Any, Any], list[Pending]]]:
        batches: list[tuple[Operation[Any, Any], list[Pending]]] = []
        open_batches: dict[Operation[Any, Any], list[Pending]] = {}
        for pending in group:
            operation = pending.operation
            batch = open_batches.get(operation)
            if batch is not None:
                batch.append(pending)
                continue
            batch = [pending]
            batches.append((operation, batch))
            if operation not in self._one_by_one:
                open_batches[operation] = batch
        return batches

    def _put_back(self, group: list[Pending], executed: set[int]) -> None:
        """Put operations that were not executed back, before those that were submitted since."""
        rest = [pending for pending in group if id(pending) not in executed]
        group[:] = [pending for pending in group if id(pending) in executed]
        with self._lock:
            self._pending.extendleft(reversed(rest))
