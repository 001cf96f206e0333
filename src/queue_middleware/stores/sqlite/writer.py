"""Group commit: everything that waits is executed in one transaction, so that one fsync serves many."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from queue_middleware.errors import QueueError, StoreBusy
from queue_middleware.store import Topic

from .connection import Connection
from .failures import as_queue_error, is_everybodys
from .transaction import Transaction

P = TypeVar("P")
R = TypeVar("R")

Operation = Callable[[Transaction, Sequence[P]], Sequence[R | QueueError]]
"""From a batch of payloads to as many results; a `QueueError` among them goes to its caller alone and undoes nothing."""

_MOST_TOGETHER = 256
_MOST_BYTES = 16 * 2**20
_PATIENCE = 10.0
"""Seconds after which those who are not yet in a transaction are told that the database is busy."""


class _Waiting(msgspec.Struct, gc=False, eq=False):
    operation: Operation[Any, Any]
    payload: Any
    size: int
    future: asyncio.Future[Any]


_Results = list[tuple[_Waiting, Any]]


class Writer:
    """All writing of a process. `begin` makes a transaction's context; `announce` hears what was committed.

    What is submitted while a transaction runs forms the next one; what is submitted while none runs forms one at the end of the
    event loop's turn. No clock is waited for.
    """

    def __init__(
        self,
        connection: Connection,
        begin: Callable[[sqlite3.Connection], Transaction],
        announce: Callable[[set[Topic]], None],
    ) -> None:
        self._connection = connection
        self._begin = begin
        self._announce = announce
        self._waiting: deque[_Waiting] = deque()
        self._loop = asyncio.get_running_loop()
        self._writing = False
        self._began = 0.0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, operation: Operation[P, R], payload: P, size: int = 0) -> asyncio.Future[R]:
        """Put an operation into the next transaction. It is executed even when nobody waits for it any more."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreBusy("the queue's database is closed", 5))
            return future
        self._waiting.append(_Waiting(operation, payload, size, future))
        if not self._writing:
            self._writing = True
            self._idle.clear()
            self._start()
        return future

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return not self._writing

    def check_patience(self) -> None:
        """Turn away those who wait behind a transaction that does not end, so that they neither hang nor fill memory."""
        if self._writing and self._loop.time() - self._began >= _PATIENCE:
            for waiting in self._take(len(self._waiting), sys.maxsize):
                _resolve(waiting.future, StoreBusy("the queue's database does not answer", 5))

    async def close(self) -> None:
        """Write what was begun, then end. Repeatable."""
        self._closing = True
        await self._idle.wait()

    def _start(self) -> None:
        self._began = self._loop.time()
        self._connection.post(self._write_and_tell)

    def _deliver(self, results: _Results, topics: set[Topic]) -> None:
        for waiting, result in results:
            _resolve(waiting.future, result)
        if self._waiting:
            self._start()
        else:
            self._writing = False
            self._idle.set()
        if topics:
            self._announce(topics)

    def _take(self, most: int, room: int) -> list[_Waiting]:
        group: list[_Waiting] = []
        while self._waiting and len(group) < most and room > 0:
            group.append(self._waiting.popleft())
            room -= group[-1].size
        return group

    # --- in the connection's thread

    def _write_and_tell(self, connection: sqlite3.Connection) -> None:
        group = self._take(_MOST_TOGETHER, _MOST_BYTES)
        results, topics = self._write(connection, group) if group else ([], set())
        with contextlib.suppress(RuntimeError):  # the loop was closed under us; what is committed is committed
            self._loop.call_soon_threadsafe(self._deliver, results, topics)

    def _write(self, connection: sqlite3.Connection, group: list[_Waiting]) -> tuple[_Results, set[Topic]]:
        try:
            return self._connection.transact(connection, lambda: self._execute(connection, group))
        except Exception as error:
            if len(group) == 1 or is_everybodys(error):
                failure = as_queue_error(error)
                return [(waiting, failure) for waiting in group], set()
        # One of them cannot be executed, or not together; alone, it sinks nobody else.
        results: _Results = []
        topics: set[Topic] = set()
        for waiting in group:
            alone, told = self._write(connection, [waiting])
            results += alone
            topics |= told
        return results, topics

    def _execute(self, connection: sqlite3.Connection, group: list[_Waiting]) -> tuple[_Results, set[Topic]]:
        transaction = self._begin(connection)
        try:
            batches: dict[Operation[Any, Any], list[_Waiting]] = {}
            for waiting in group:
                batches.setdefault(waiting.operation, []).append(waiting)
            results: _Results = []
            for operation, batch in batches.items():
                answers = operation(transaction, [waiting.payload for waiting in batch])
                results.extend(zip(batch, answers, strict=True))
        except BaseException:
            transaction.tallies.forget()
            raise
        return results, transaction.topics


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, QueueError):
        future.set_exception(result)
        future.exception()  # its caller may be gone; then nobody is to be warned about it
    else:
        future.set_result(result)
