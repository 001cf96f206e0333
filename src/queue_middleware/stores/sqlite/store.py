"""The store on one SQLite file: opening and closing, connections, leases and maintenance."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial

from queue_middleware.background import run_in_thread
from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import RescuedJob
from queue_middleware.jobs.store import Topic
from queue_middleware.settings import Settings
from queue_middleware.stores.common import returns
from queue_middleware.stores.common.job_store import CommonJobStore
from queue_middleware.stores.common.operations import ONE_BY_ONE
from queue_middleware.stores.common.reader import Reader
from queue_middleware.stores.common.task_store import CommonTaskStore
from queue_middleware.stores.common.webhook_store import CommonWebhookStore
from queue_middleware.stores.common.writer import Operation, P, R, Writer
from queue_middleware.tasks.store import TaskStore

from . import clocks
from .clocks import Clocks
from .connection import Connection
from .file_watch import FileWatch
from .files import Files, check_place, notes, warnings
from .leases import Leases, hand_over
from .location import database_path
from .locks import make_owner
from .maintenance import Maintenance
from .notifier import Notifier
from .sql import SQLiteQueries
from .transaction import BacklogCounters, SQLiteTransaction
from .write_guard import WriteGuard

_CLOSE_TIMEOUT = 10.0
"""Seconds for the last writes at close."""


class SQLiteStore(CommonJobStore):
    """`jobs.store.JobStore` on one SQLite file. Tests hand in clocks of their own.

    `clock` (milliseconds since 1970) decides schedules, deadlines and ids, `lease_clock` (milliseconds since the boot) leases.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], int] | None = None, lease_clock: Callable[[], int] | None = None
    ) -> None:
        super().__init__(settings)
        self.path = database_path(settings.database)
        self._settings = settings
        self._clocks = Clocks(clock, lease_clock)
        self._lease = round(settings.lease * 1000)
        self._leases = Leases(self._clocks.boot, self._lease)
        self.webhooks = CommonWebhookStore(settings, self._write, self._read, self._read_many)
        self.tasks: TaskStore = CommonTaskStore(self._write, self._read, self._clocks.wall, self._read_many)
        self._backlog = BacklogCounters()
        self._keeps_logs = settings.max_logs > 0
        self._opened: AsyncExitStack | None = None
        self._file_watch = FileWatch(self.path, settings.min_free_disk)
        self._maintenance = Maintenance(
            self.path, settings, self._write, self._read, self._clocks, self._leases, self._file_watch
        )

    # --- opening and closing

    async def open(self) -> None:
        """Create or migrate the file, and start. Raises `StoreError` with the reason when it cannot be used."""
        await run_in_thread(check_place, self.path, self._settings)
        self.owner = make_owner(await run_in_thread(clocks.boot_id))
        async with AsyncExitStack() as stack:
            await run_in_thread(self._maintenance.reserve.give_up_if_scarce)
            self._files = await run_in_thread(Files, self.path, self.owner, self._settings.name)
            stack.push_async_callback(run_in_thread, self._files.close)
            self._connection = await Connection(self.path, self._files.write_lock, self._files.wakeup.notify).open()
            stack.push_async_callback(self._connection.close)
            self._reading = await Connection(self.path, None).open()
            stack.push_async_callback(self._reading.close)
            self._reader = Reader(self._reading, SQLiteQueries)
            stack.push_async_callback(self._reader.close)
            self._lister = await Connection(self.path, None).open()
            stack.push_async_callback(self._lister.close)
            self._loop = asyncio.get_running_loop()
            self._write_guard = WriteGuard(self._file_watch, self._leave)
            stack.push_async_callback(self._write_guard.close)
            await run_in_thread(self._leases.begin, self.path, self.owner, self._files.renewal_lock, self._write_guard.check)
            stack.push_async_callback(run_in_thread, self._leases.close)
            self._notifier = Notifier(self._files.wakeup)
            stack.push_async_callback(self._notifier.close)
            publish, undone, check = self._notifier.publish, self._backlog.forget, self._file_watch.check
            self._writer = Writer(self._connection, self._begin, publish, undone, check, ONE_BY_ONE, self._relieve)
            await self._reading.call(self._file_watch.begin)
            watching = self._notifier.poll(self._connection, lambda: self._writer.idle)
            self._watchers = [self._loop.create_task(watch) for watch in (watching, self._file_watch.run(self._reading))]
            self._opened = stack.pop_all()

    async def close(self) -> None:
        """Finish pending writes, hand back what this owner holds, and release everything. Repeatable."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        for watcher in self._watchers:
            watcher.cancel()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._hand_back()
                await self._writer.close()
                await opened.aclose()
        except TimeoutError:
            # Another process keeps its turn: we are as good as dead, and look it.
            self._files.wakeup.stop_listening()
            await run_in_thread(lambda: self._files.close(leave_liveness_lock=True))

    async def _hand_back(self) -> None:
        try:
            while await self._writer.submit(returns.release_all, None):
                pass
        except QueueError:
            # What we hold cannot be handed back: for others it is as if we had died. All the same we close in order.
            self._files.liveness.disown()

    def detach_after_fork(self) -> None:
        """In a forked child: close what belongs to the parent."""
        if self._opened is not None:
            self._files.disown()

    def storage_error(self) -> QueueError | None:
        """Why nothing can be stored at the moment, as far as the last look has found. It looks at no file."""
        return self._write_guard.complaint

    @property
    def is_first(self) -> bool:
        """Whether no other process had the file open at the start: this process reports what concerns all of them."""
        return self._files.is_first

    def warnings(self) -> list[str]:
        """See `files.warnings`; given by one of the processes on a file, that which has run for the longest time. Blocking."""
        return warnings(self.path) if self._opened is None or self._files.liveness.is_eldest() else []

    def notes(self) -> list[str]:
        """Sentences about this machine's SQLite that ask for nothing."""
        return notes()

    def _write(
        self, operation: Operation[P, R], payload: P, size: int = 0, on_result: Callable[[R | QueueError], None] | None = None
    ) -> Awaitable[R]:
        return self._writer.submit(operation, payload, size, on_result)

    def _read_many(self, work: Callable[[SQLiteQueries], R]) -> Awaitable[R]:
        """Reads of many rows have a connection of their own: a listing may take long, and a status must not wait for it."""
        return self._lister.query(work)

    def _now(self) -> int:
        return self._clocks.wall()

    def _check_accepting(self) -> None:
        self._file_watch.refuse_submissions()

    def _relieve(self, connection: sqlite3.Connection) -> None:
        self._maintenance.reserve.give_up()
        self._connection.checkpoint(connection)

    # --- notifications

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of this kind by any process."""
        return self._notifier.subscribe(topic, listener)

    def _begin(self, connection: sqlite3.Connection) -> SQLiteTransaction:
        now, boot_time = self._clocks.wall(), self._clocks.boot()
        transaction = SQLiteTransaction(connection, now, self.owner, self._lease, boot_time, self._backlog, self._keeps_logs)
        if self._write_guard.refresh(self._backlog, connection):
            transaction.topics.update(Topic)
        elif self._notifier.status_is_wanted:
            transaction.topics.add(Topic.STATUS)
        return transaction

    async def _leave(self) -> None:
        """Another release goes on with the work; ours is ended, as it could not be stored."""
        work = partial(hand_over, turn=self._files.write_lock, owner=self.owner, now=self._clocks.wall())
        try:
            await self._connection.call(work)
        except QueueError:
            self._files.liveness.disown()  # for others it is as if this process had died
        self._notifier.publish((Topic.CANCEL,))

    # --- leases and maintenance

    def renew(self, tokens: Collection[int]) -> int:
        """Extend leases."""
        try:
            self._files.liveness.keep()
        finally:  # without it leases go on; without leases the work is lost
            renewed = self._leases.renew(tokens)
        if renewed < len(tokens):
            with contextlib.suppress(RuntimeError):  # the loop was closed under us
                self._loop.call_soon_threadsafe(self._notifier.publish, (Topic.CANCEL,))
        return renewed

    async def rescue(self, *, running: Collection[int] = ()) -> list[RescuedJob]:
        """Take over the jobs of lost workers."""
        return await self._maintenance.rescue(self.owner, running)

    async def expire(self) -> list[RescuedJob]:
        """Fail jobs whose start deadline has passed."""
        return await self._maintenance.expire()

    async def prune(self, limit: int) -> int:
        """Delete expired data."""
        return await self._maintenance.prune(limit)
