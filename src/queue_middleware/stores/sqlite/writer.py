"""Group commit: everything that waits is executed in one transaction, so that one fsync serves many."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from queue_middleware.errors import DiskFull, QueueError, StoreBusy, StoreError
from queue_middleware.store import Topic

from .connection import Connection
from .transaction import Transaction

P = TypeVar("P")
R = TypeVar("R")

Operation = Callable[[Transaction, Sequence[P]], Sequence[R | QueueError]]
"""From a batch of payloads to as many results; a `QueueError` among them goes to its caller alone and undoes nothing."""

_MOST_TOGETHER = 256
_MOST_BYTES = 16 * 2**20
_PATIENCE = 10.0
"""Seconds after which those who are not yet in a transaction are told that the database is busy."""

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_EVERYBODYS = _BUSY | {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""Primary result codes that no single operation is to blame for."""


@dataclass(slots=True, eq=False)
class _Waiting:
    operation: Operation[Any, Any]
    payload: Any
    size: int
    future: asyncio.Future[Any]


class Writer:
    """The one task that writes. `begin` makes the transaction's context; `announce` hears what was committed."""

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
        self._wake = asyncio.Event()
        self._closing = False
        self._busy_since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run(), name="queue-writer")

    def submit(self, operation: Operation[P, R], payload: P, size: int = 0) -> asyncio.Future[R]:
        """Put an operation into the next group. It is executed even when nobody waits for it any more."""
        future: asyncio.Future[R] = self._loop.create_future()
        if self._closing:
            future.set_exception(StoreBusy("the queue's database is closed", 5))
            return future
        self._waiting.append(_Waiting(operation, payload, size, future))
        self._wake.set()
        return future

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being written."""
        return self._busy_since is None and not self._waiting

    def check_patience(self) -> None:
        """Turn away those who wait behind a transaction that does not end, so that they neither hang nor fill memory."""
        if self._busy_since is None or self._loop.time() - self._busy_since < _PATIENCE:
            return
        while self._waiting:
            _resolve(self._waiting.popleft().future, StoreBusy("the queue's database does not answer", 5))

    async def close(self) -> None:
        """Write what was begun, then end. Repeatable."""
        self._closing = True
        self._wake.set()
        await asyncio.shield(self._task)

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._take()
            self._busy_since = self._loop.time()
            await self._write(group)
            self._busy_since = None

    def _take(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        size = 0
        while self._waiting and len(group) < _MOST_TOGETHER and size < _MOST_BYTES:
            group.append(self._waiting.popleft())
            size += group[-1].size
        return group

    async def _write(self, group: list[_Waiting]) -> None:
        try:
            topics = await self._connection.transaction(lambda connection: self._execute(connection, group))
        except Exception as error:
            if len(group) == 1 or _is_everybodys(error):
                for waiting in group:
                    _resolve(waiting.future, _as_queue_error(error))
                return
            # One of them cannot be executed; alone, it sinks nobody else.
            for waiting in group:
                await self._write([waiting])
            return
        for waiting, result in topics.results:
            _resolve(waiting.future, result)
        if topics.topics:
            self._announce(topics.topics)

    def _execute(self, connection: sqlite3.Connection, group: list[_Waiting]) -> _Done:
        transaction = self._begin(connection)
        try:
            batches: dict[Operation[Any, Any], list[_Waiting]] = {}
            for waiting in group:
                batches.setdefault(waiting.operation, []).append(waiting)
            done: list[tuple[_Waiting, Any]] = []
            for operation, batch in batches.items():
                results = operation(transaction, [waiting.payload for waiting in batch])
                done.extend(zip(batch, results, strict=True))
        except BaseException:
            transaction.tallies.forget()
            raise
        return _Done(done, transaction.topics)


@dataclass(frozen=True, slots=True)
class _Done:
    results: list[tuple[_Waiting, Any]]
    topics: set[Topic]


def _resolve(future: asyncio.Future[Any], result: Any) -> None:
    if future.done():
        return
    if isinstance(result, QueueError):
        future.set_exception(result)
        future.exception()  # its caller may be gone; then nobody is to be warned about it
    else:
        future.set_result(result)


def _primary_code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_everybodys(error: BaseException) -> bool:
    return _primary_code(error) in _EVERYBODYS


def _as_queue_error(error: BaseException) -> QueueError:
    if isinstance(error, QueueError):
        return error
    code = _primary_code(error)
    if code in _BUSY:
        return StoreBusy("the queue's database is locked by another program", 5)
    if code == sqlite3.SQLITE_FULL:
        return DiskFull("the disk of the queue's database is full", 30)
    failure = StoreError("the queue's database failed; the log of the service says how")
    failure.__cause__ = error
    return failure
