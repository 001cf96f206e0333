"""The store on one SQLite file: opening and closing, connections, notifications, leases and maintenance."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from functools import partial

from queue_middleware.background import run_in_thread
from queue_middleware.errors import QueueError
from queue_middleware.jobs.models import RescuedJob
from queue_middleware.jobs.processes import Usage
from queue_middleware.jobs.rescues import GivenUpDelivery
from queue_middleware.jobs.store import OnResult, Topic
from queue_middleware.settings import Settings
from queue_middleware.stores.common import processes, requeueing
from queue_middleware.stores.common.job_store import CommonJobStore
from queue_middleware.stores.common.keeping import keep_policy
from queue_middleware.stores.common.metrics import CommonMetricsStore
from queue_middleware.stores.common.operation_costs import ONE_BY_ONE
from queue_middleware.stores.common.operator_store import CommonOperatorStore
from queue_middleware.stores.common.pending import Operation, P, R
from queue_middleware.stores.common.reader import Reader
from queue_middleware.stores.common.route_ids import RouteIds
from queue_middleware.stores.common.task_store import CommonTaskStore
from queue_middleware.stores.common.webhook_store import CommonWebhookStore
from queue_middleware.stores.common.writer import Writer
from queue_middleware.tasks.store import TaskStore

from . import clocks
from .clocks import Clocks
from .connection import Connection
from .file_watch import FileWatch
from .files import Files, check_requirements, notes, warnings
from .lease_connection import LeaseConnection, release_all
from .location import database_path
from .locks import living_owners, make_owner
from .maintenance import FileMaintenance
from .measure import measure
from .notifier import Notifier
from .shared_numbers import TopicChanges
from .sql import SQLiteQueries
from .transaction import SQLiteQueueCounters, SQLiteTransaction
from .write_guard import WriteGuard

RECENT = 10.0
"""Seconds for which a commit shows that the database can be written."""
_CLOSE_TIMEOUT = 10.0
"""Seconds for the last writes at close."""


class SQLiteStore(CommonJobStore):
    """`jobs.store.JobStore` on one SQLite file; `webhooks`, `tasks` and `operations` are the other ports.

    `clock` (milliseconds since 1970) decides schedules, deadlines and ids, `lease_clock` (milliseconds since boot) leases.
    Tests pass their own.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], int] | None = None, lease_clock: Callable[[], int] | None = None
    ) -> None:
        super().__init__(settings)
        self.path = database_path(settings.database)
        self._settings = settings
        self._clocks = Clocks(clock, lease_clock)
        self._lease = round(settings.lease * 1000)
        self._lease_connection = LeaseConnection(self._clocks.boot, self._lease)
        self.webhooks = CommonWebhookStore(settings, self._write, self._read, self._read_many)
        self.tasks: TaskStore = CommonTaskStore(self._write, self._read, self._clocks.wall, self._read_many)
        self.operations = CommonOperatorStore(
            settings,
            self._write,
            self._read,
            self._read_many,
            self._clocks.wall,
            partial(living_owners, self.path),
            lambda: self.owner,
        )
        self.metrics = CommonMetricsStore(
            self._write,
            self._read_many,
            self._read_now,
            self._clocks.wall,
            partial(living_owners, self.path),
            partial(measure, self.path, settings),
            lambda: self.owner,
        )
        self._counters = SQLiteQueueCounters()
        self._routes = RouteIds()
        self._keeps_logs = settings.max_logs > 0
        self._keep = keep_policy(settings)
        self._opened: AsyncExitStack | None = None
        self._file_watch = FileWatch(self.path, settings.min_free_disk)
        self._maintenance = FileMaintenance(
            self.path, settings, self._write, self._read, self._clocks, self._lease_connection, self._file_watch
        )

    # --- opening and closing

    async def open(self) -> None:
        """Create or migrate the file, and start. Raises `StoreError` with the reason if it cannot be used."""
        await run_in_thread(check_requirements, self.path, self._settings)
        self.owner = make_owner(await run_in_thread(clocks.boot_id))
        async with AsyncExitStack() as stack:
            await run_in_thread(self._maintenance.reserve.delete_if_scarce)
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
            self._write_guard = WriteGuard(self._file_watch, self._on_outdated)
            stack.push_async_callback(self._write_guard.close)
            await run_in_thread(
                self._lease_connection.open, self.path, self.owner, self._files.renewal_lock, self._write_guard.check
            )
            stack.push_async_callback(run_in_thread, self._lease_connection.close)
            self._notifier = Notifier(self._files.wakeup, TopicChanges(self._files.numbers))
            stack.push_async_callback(self._notifier.close)
            self._writer = self._make_writer()
            await self._reading.call(self._file_watch.begin)
            watching = self._notifier.poll(self._connection, self._version_of_transactions)
            self._watchers = [self._loop.create_task(watch) for watch in (watching, self._file_watch.run(self._reading))]
            self._opened = stack.pop_all()

    def _make_writer(self) -> Writer:
        return Writer(
            self._connection,
            self._begin,
            self._notifier.publish_commit,
            self._on_rollback,
            self._file_watch.check,
            ONE_BY_ONE,
            self._free_space,
            self.metrics.join,
            self.metrics.committed,
        )

    async def close(self) -> None:
        """Finish pending writes, release the claims of this process, and close all files. Idempotent."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        for watcher in self._watchers:
            watcher.cancel()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                await self._release_all()
                await self._writer.close()
                await opened.aclose()
        except TimeoutError:
            # Another process holds the write lock. This process counts as dead from now on, so that others take over its work.
            self._files.wakeup.stop_listening()
            await run_in_thread(lambda: self._files.close(leave_liveness_lock=True))

    async def _release_all(self) -> None:
        try:
            while await self._writer.submit(requeueing.release_all, None):
                pass
            await self.operations.unregister()
        except QueueError:
            # The claims cannot be released. This process counts as dead, so that others take over its work; closing goes on.
            self._files.liveness.disown()

    def detach_after_fork(self) -> None:
        """In a forked child: close the files of the parent."""
        if self._opened is not None:
            self._files.disown()

    def storage_error(self) -> QueueError | None:
        """Why nothing can be stored, as of the last check; None while storing works. Does no I/O."""
        return self._write_guard.error

    @property
    def disk_is_low(self) -> bool:
        """Whether the free disk space is below the floor, as of the last check. Does no I/O."""
        return self._file_watch.space_is_low

    async def check_writable(self) -> None:
        """Commit something, unless this has been done in the last seconds."""
        if time.monotonic() - self._connection.written_at > RECENT:
            await self._writer.submit(processes.beat, None)

    @property
    def is_first(self) -> bool:
        """Whether no other process had the file open when this one opened it."""
        return self._files.is_first

    def warnings(self) -> list[str]:
        """Present problems, as sentences for the operator. Only the process that has run for longest returns them. Blocking."""
        return warnings(self.path) if self._opened is None or self._files.liveness.is_oldest() else []

    def notes(self) -> list[str]:
        """Sentences about this machine's SQLite that need no action."""
        return notes()

    def _write(
        self, operation: Operation[P, R], payload: P, size: int = 0, on_result: OnResult[R] | None = None
    ) -> Awaitable[R]:
        return self._writer.submit(operation, payload, size, on_result)

    def _read_many(self, work: Callable[[SQLiteQueries], R]) -> Awaitable[R]:
        """Reads of many rows have their own connection: they may take long, and a read of a status must not wait for them."""
        return self._lister.query(work)

    def _read_now(self, work: Callable[[SQLiteQueries], R]) -> R:
        return self._lister.query_now(work)

    def _now(self) -> int:
        return self._clocks.wall()

    def _check_accepting(self) -> None:
        self._file_watch.check_accepting()

    def _free_space(self, connection: sqlite3.Connection) -> None:
        self._maintenance.reserve.delete()
        self._connection.checkpoint(connection)

    # --- notifications

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` after every change of this kind by any process."""
        return self._notifier.subscribe(topic, listener)

    def _begin(self, connection: sqlite3.Connection) -> SQLiteTransaction:
        now, boot_time = self._clocks.wall(), self._clocks.boot()
        transaction = SQLiteTransaction(
            connection, now, self.owner, self._lease, boot_time, self._counters, self._routes, self._keeps_logs, self._keep
        )
        if self._write_guard.refresh_and_check(self._counters, connection) and self._counters.queued:
            # Only this topic is urgent. `Notifier.poll` publishes the others. If they were published here, the listeners of a
            # busy process would read after every commit of another process.
            transaction.topics.add(Topic.WORK)
        return transaction

    def _version_of_transactions(self) -> int | None:
        """The version of the database that running transactions have seen; None if none is running."""
        return None if self._writer.idle else self._counters.version

    def _on_rollback(self) -> None:
        """What was read or stored in a transaction that was rolled back must be read again."""
        self._counters.invalidate()
        self._routes.forget()

    async def _on_outdated(self) -> None:
        """Release all claims and cancel their attempts: another release has migrated the schema and continues the work."""
        work = partial(release_all, write_lock=self._files.write_lock, owner=self.owner, now=self._clocks.wall())
        try:
            await self._connection.call(work)
        except QueueError:
            self._files.liveness.disown()  # this process counts as dead from now on
        self._notifier.publish((Topic.CANCEL,))
        self._notifier.announce((Topic.WORK, Topic.DELIVERY, Topic.POLL))

    # --- leases and maintenance

    def renew(self, tokens: Collection[int], usage: Usage | None = None) -> int:
        """Extend leases, and report what this process is busy with."""
        process = self.operations.process
        report = None if usage is None or process is None else processes.report(process, usage, self._clocks.wall())
        try:
            self._files.liveness.restore()
        finally:  # leases must be renewed even if this fails
            renewed = self._lease_connection.renew(tokens, report)
        if renewed < len(tokens):
            with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
                self._loop.call_soon_threadsafe(self._notifier.publish, (Topic.CANCEL,))
        return renewed

    async def rescue(self, *, running: Collection[int] = ()) -> list[RescuedJob | GivenUpDelivery]:
        """Take over the work of lost processes."""
        return await self._maintenance.rescue(self.owner, running)

    async def expire(self) -> list[RescuedJob]:
        """Fail jobs whose start deadline has passed."""
        return await self._maintenance.expire()

    async def prune(self, limit: int) -> int:
        """Delete expired data."""
        return await self._maintenance.prune(limit)
