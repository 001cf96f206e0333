"""The storage port on SQLite: the verbs, each one call to the writer or to the reading connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from queue_middleware.background import aside
from queue_middleware.counts import Counts
from queue_middleware.ends import Loss
from queue_middleware.errors import QueueError
from queue_middleware.models import (
    Cancelled,
    Claim,
    Failure,
    Glance,
    Job,
    LogLine,
    NewJob,
    Progress,
    Receipt,
    Rescue,
    Result,
    StoredResponse,
)
from queue_middleware.request_id import parse_request_id
from queue_middleware.settings import Settings
from queue_middleware.store import Told, Topic
from queue_middleware.waitingroom import WaitingRoom

from . import clocks, jobs, logs, reading, returns, submissions
from .clocks import Clocks
from .codec import encode_lines, encode_request
from .connection import Connection
from .files import Files, check_place, notes, warnings
from .filewatch import FileWatch
from .housekeeping import Housekeeping
from .leases import Leases, hand_over
from .listeners import Listeners
from .location import database_path
from .locks import make_owner
from .operations import ONE_BY_ONE, ended, size_of
from .outbox import SQLiteOutbox
from .standing import Standing
from .transaction import Tallies, Transaction
from .waitingroom import SQLiteWaitingRoom
from .writer import Operation, P, R, Writer

_LAST_WORDS = 10.0
"""Seconds for the last writes at close."""


class SQLiteStore:
    """`store.Store` on one SQLite file. Tests hand in clocks of their own.

    `clock` (milliseconds since 1970) decides schedules, deadlines and ids, `lease_clock` (milliseconds since the boot) leases.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], int] | None = None, lease_clock: Callable[[], int] | None = None
    ) -> None:
        self.path = database_path(settings.database)
        self.owner = ""
        self._settings = settings
        self._clocks = Clocks(clock, lease_clock)
        self._lease = round(settings.lease * 1000)
        self._leases = Leases(self._clocks.boot, self._lease)
        self.outbox = SQLiteOutbox(settings, self._write, self._read, self._read_many)
        self.waiting: WaitingRoom = SQLiteWaitingRoom(self._write, self._read, self._clocks.wall, self._read_many)
        self._limits = submissions.Limits.of(settings)
        self._tallies = Tallies()
        self._keeps_logs = settings.max_logs > 0
        self._opened: AsyncExitStack | None = None
        self._watched = FileWatch(self.path, settings.min_free_disk)
        self._housekeeping = Housekeeping(
            self.path, settings, self._write, self._read, self._clocks, self._leases, self._watched
        )

    # --- opening and closing

    async def open(self) -> None:
        """See `store.Store`."""
        await aside(check_place, self.path, self._settings)
        self.owner = make_owner(await aside(clocks.boot_id))
        async with AsyncExitStack() as stack:
            await aside(self._housekeeping.reserve.give_up_if_scarce)
            self._files = await aside(Files, self.path, self.owner, self._settings.name)
            stack.push_async_callback(aside, self._files.close)
            self._connection = await Connection(self.path, self._files.turn, self._files.bells.ring).open()
            stack.push_async_callback(self._connection.close)
            self._reader = await Connection(self.path, None).open()
            stack.push_async_callback(self._reader.close)
            self._lister = await Connection(self.path, None).open()
            stack.push_async_callback(self._lister.close)
            self._loop = asyncio.get_running_loop()
            self._standing = Standing(self._watched, self._leave)
            stack.push_async_callback(self._standing.close)
            await aside(self._leases.begin, self.path, self.owner, self._files.renewal_turn, self._standing.check)
            stack.push_async_callback(aside, self._leases.close)
            self._listeners = Listeners(self._files.bells)
            stack.push_async_callback(self._listeners.close)
            tell, undone, check = self._listeners.tell, self._tallies.forget, self._watched.check
            self._writer = Writer(self._connection, self._begin, tell, undone, check, ONE_BY_ONE, self._relieve)
            await self._reader.call(self._watched.begin)
            watching = self._listeners.watch(self._connection, lambda: self._writer.idle)
            self._watchers = [self._loop.create_task(watch) for watch in (watching, self._watched.run(self._reader))]
            self._opened = stack.pop_all()

    async def close(self) -> None:
        """See `store.Store`."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        for watcher in self._watchers:
            watcher.cancel()
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._hand_back()
                await self._writer.close()
                await opened.aclose()
        except TimeoutError:
            # Another process keeps its turn: we are as good as dead, and look it.
            self._files.bells.deafen()
            await aside(lambda: self._files.close(leave_life_sign=True))

    async def _hand_back(self) -> None:
        try:
            while await self._writer.submit(returns.release_all, None):
                pass
        except QueueError:
            # What we hold cannot be handed back: for others it is as if we had died. All the same we close in order.
            self._files.life.disown()

    def disown(self) -> None:
        """See `store.Store`."""
        if self._opened is not None:
            self._files.disown()

    def complaint(self) -> QueueError | None:
        """Why nothing can be stored at the moment, as far as the last look has found. It looks at no file."""
        return self._standing.complaint

    @property
    def is_first(self) -> bool:
        """Whether no other process had the file open when we opened it: what is said at the start it says for all."""
        return self._files.is_first

    def warnings(self) -> list[str]:
        """See `files.warnings`; given by one of the processes on a file, that which has run for the longest time. Blocking."""
        return warnings(self.path) if self._opened is None or self._files.life.is_eldest() else []

    def notes(self) -> list[str]:
        """Sentences about this machine's SQLite that ask for nothing."""
        return notes()

    def _write(
        self, operation: Operation[P, R], payload: P, size: int = 0, heard: Callable[[R | QueueError], None] | None = None
    ) -> Awaitable[R]:
        return self._writer.submit(operation, payload, size, heard)

    async def _read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        return await self._reader.call(work)

    async def _read_many(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """What goes through many rows has a connection of its own: a listing may take long, and a status must not wait."""
        return await self._lister.call(work)

    def _relieve(self, connection: sqlite3.Connection) -> None:
        self._housekeeping.reserve.give_up()
        self._connection.checkpoint(connection)

    # --- news

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """See `store.Store`."""
        return self._listeners.subscribe(topic, listener)

    def _begin(self, connection: sqlite3.Connection) -> Transaction:
        now, boot_time = self._clocks.wall(), self._clocks.boot()
        transaction = Transaction(connection, now, self.owner, self._lease, boot_time, self._tallies, self._keeps_logs)
        if self._standing.refresh(self._tallies, connection):
            transaction.topics.update(Topic)
        elif self._listeners.status_is_wanted:
            transaction.topics.add(Topic.STATUS)
        return transaction

    async def _leave(self) -> None:
        """Another release goes on with the work; ours is ended, as it could not be stored."""
        work = partial(hand_over, turn=self._files.turn, owner=self.owner, now=self._clocks.wall())
        try:
            await self._connection.call(work)
        except QueueError:
            self._files.life.disown()  # for others it is as if this process had died
        self._listeners.tell((Topic.CANCEL,))

    # --- the submitter's verbs

    def submit(
        self, new: NewJob, *, start: bool = False, begin: Callable[[Claim | None], None] | None = None
    ) -> Awaitable[Receipt]:
        """See `store.Store`."""
        self._watched.refuse_submissions()
        payload = (new, encode_request(new.request), start, self._limits)
        heard = None if begin is None else lambda result: begin(None if isinstance(result, QueueError) else result.claim)
        return self._writer.submit(submissions.submit, payload, len(new.request.body), heard)

    async def job(self, request_id: str) -> Job:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.job(connection, request_id))

    async def glance(self, keys: Sequence[int], *, positions: bool) -> list[Glance]:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.glance(connection, keys, positions))

    async def result(self, request_id: str) -> Result:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.result(connection, request_id))

    async def output(self, key: int, number: int) -> bytes:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.output(connection, key, number))

    async def logs(self, key: int, after: int = 0) -> list[LogLine]:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: logs.logs(connection, key, after))

    async def cancel(self, request_id: str) -> Cancelled:
        """See `store.Store`."""
        parse_request_id(request_id)
        return await self._writer.submit(jobs.cancel, request_id)

    # --- the worker's verbs

    async def claim(self, limit: int) -> list[Claim]:
        """See `store.Store`."""
        return await self._writer.submit(jobs.claim, limit)

    def append(self, claim: Claim, number: int, data: bytes) -> Awaitable[bool]:
        """See `store.Store`."""
        return self._writer.submit(jobs.append, (claim, number, data), len(data))

    def complete(self, claim: Claim, response: StoredResponse, told: Told | None = None) -> Awaitable[bool]:
        """See `store.Store`."""
        return self._writer.submit(jobs.finish, ended(claim, response), size_of(claim) + len(response.body), told)

    def fail(self, claim: Claim, failure: Failure, told: Told | None = None) -> Awaitable[bool]:
        """See `store.Store`."""
        return self._writer.submit(jobs.fail, ended(claim, failure), size_of(claim), told)

    async def retry(self, claim: Claim, delay: float, line: LogLine | None = None) -> bool:
        """See `store.Store`."""
        return await self._writer.submit(returns.retry, (claim, round(delay * 1000), line))

    async def release(self, claim: Claim) -> bool:
        """See `store.Store`."""
        return await self._writer.submit(returns.release, claim)

    def lose(self, claim: Claim, loss: Loss) -> Awaitable[Rescue | None]:
        """See `store.Store`."""
        return self._writer.submit(returns.lose, (claim, loss))

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        """See `store.Store`."""
        data = encode_lines(lines)
        return self._writer.submit(logs.log, (claim, len(lines), data, progress), len(data))

    async def held(self) -> Mapping[tuple[int, int], bool]:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.held(connection, self.owner))

    def renew(self, tokens: Collection[int]) -> int:
        """See `store.Store`."""
        try:
            self._files.life.keep()
        finally:  # without it leases go on; without leases the work is lost
            renewed = self._leases.renew(tokens)
        if renewed < len(tokens):
            with contextlib.suppress(RuntimeError):  # the loop was closed under us
                self._loop.call_soon_threadsafe(self._listeners.tell, (Topic.CANCEL,))
        return renewed

    # --- the janitor's verbs

    async def rescue(self, *, running: Collection[int] = ()) -> list[Rescue]:
        """See `store.Store`."""
        return await self._housekeeping.rescue(self.owner, running)

    async def expire(self) -> list[Rescue]:
        """See `store.Store`."""
        return await self._housekeeping.expire()

    async def prune(self, limit: int) -> int:
        """See `store.Store`."""
        return await self._housekeeping.prune(limit)

    async def counts(self) -> Counts:
        """See `store.Store`."""
        return await self._read_many(reading.counts)

    # --- both loops' verb

    async def next_due(self, topic: Topic) -> float | None:
        """See `store.Store`."""
        due = await self._reader.call(lambda connection: reading.next_due(connection, topic))
        return None if due is None else max(0.0, (due - self._clocks.wall()) / 1000)
