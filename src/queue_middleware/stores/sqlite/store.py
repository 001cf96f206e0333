"""The storage port on SQLite: the verbs, each one call to the writer or to the reading connection."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack

from queue_middleware.aside import aside
from queue_middleware.errors import DiskFull, QueueError, StoreError
from queue_middleware.models import (
    Cancelled,
    Claim,
    Counts,
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

from . import jobs, logs, reading, retention, submissions
from .codec import PART, encode_lines, encode_request
from .connection import Connection, in_transaction, open_connection
from .files import Files, database_path, warnings
from .filesystem import lacks_room, mount_table, refuse_network_filesystem
from .listeners import Listeners
from .locks import dead_owners
from .outbox import SQLiteOutbox
from .queries import SQL
from .transaction import Tallies, Transaction
from .waitingroom import SQLiteWaitingRoom
from .writer import Operation, P, R, Writer

_OLDEST = (3, 37, 0)
"""SQLite with STRICT tables; RETURNING and UPDATE FROM are older."""
_LAST_WORDS = 10.0
"""Seconds for the last writes at close."""
_DISK_WATCH = 1.0
"""Seconds for which a look at the free disk is believed."""


def system_clock() -> int:
    """Milliseconds since 1970. All processes on one file share the machine, and so its clock."""
    return time.time_ns() // 1_000_000


class SQLiteStore:
    """`store.Store` on one SQLite file. `clock` decides leases, schedules and ids; tests hand in their own."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = system_clock) -> None:
        self.path = database_path(settings.database)
        self.owner = ""
        self._settings = settings
        self._clock = clock
        self.outbox = SQLiteOutbox(settings, self._write, self._read)
        self.waiting: WaitingRoom = SQLiteWaitingRoom(self._write, self._read, clock)
        self._limits = submissions.Limits(
            settings.max_queued, settings.max_queued_per_client, settings.max_tasks, settings.max_tasks_per_client
        )
        self._tallies = Tallies()
        self._pruned = 0
        self._opened: AsyncExitStack | None = None
        self._disk_checked = -_DISK_WATCH
        self._disk_complaint: str | None = None

    # --- opening and closing

    async def open(self) -> None:
        """See `store.Store`."""
        if sqlite3.sqlite_version_info < _OLDEST:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, {'.'.join(map(str, _OLDEST))} is needed")
        if not self._settings.allow_network_filesystem:
            refuse_network_filesystem(self.path, await aside(mount_table))
        self.owner = os.urandom(8).hex()
        async with AsyncExitStack() as stack:
            self._files = await aside(Files, self.path, self.owner)
            stack.callback(self._files.close)
            self._connection = await Connection(self.path, self._files.turn, self._files.bells.ring).open()
            stack.push_async_callback(self._connection.close)
            self._reader = await Connection(self.path, None).open()
            stack.push_async_callback(self._reader.close)
            self._listeners = Listeners(self._files.bells)
            self._writer = Writer(self._connection, self._begin, self._listeners.tell, self._tallies.forget)
            watching = self._listeners.watch(self._connection, lambda: self._writer.idle)
            self._watcher = asyncio.get_running_loop().create_task(watching, name="queue-store-watcher")
            self._opened = stack.pop_all()

    async def close(self) -> None:
        """See `store.Store`."""
        if self._opened is None:
            return
        opened, self._opened = self._opened, None
        self._watcher.cancel()
        try:
            async with asyncio.timeout(_LAST_WORDS):
                await self._hand_back()
                await self._writer.close()
                await opened.aclose()
        except TimeoutError:
            # Another process keeps its turn: we are as good as dead, and look it.
            self._files.close(leave_life_sign=True)

    async def _hand_back(self) -> None:
        try:
            await self._writer.submit(jobs.release_all, None)
        except QueueError:
            # What we hold cannot be handed back: for others it is as if we had died. All the same we close in order.
            self._files.life.disown()

    def disown(self) -> None:
        """See `store.Store`."""
        if self._opened is not None:
            self._files.disown()

    def warnings(self) -> list[str]:
        """See `files.warnings`."""
        return warnings(self.path)

    def _write(
        self, operation: Operation[P, R], payload: P, size: int = 0, heard: Callable[[R | QueueError], None] | None = None
    ) -> Awaitable[R]:
        return self._writer.submit(operation, payload, size, heard)

    async def _read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        return await self._reader.call(work)

    # --- news

    def subscribe(self, topic: Topic, listener: Callable[[], None]) -> Callable[[], None]:
        """See `store.Store`."""
        return self._listeners.subscribe(topic, listener)

    def _begin(self, connection: sqlite3.Connection) -> Transaction:
        transaction = Transaction(connection, self._clock(), self.owner, round(self._settings.lease * 1000), self._tallies)
        if self._tallies.refresh(connection):
            transaction.topics.update(Topic)
        elif self._listeners.status_is_wanted:
            transaction.topics.add(Topic.STATUS)
        return transaction

    # --- the submitter's verbs

    def submit(
        self, new: NewJob, *, start: bool = False, begin: Callable[[Claim | None], None] | None = None
    ) -> Awaitable[Receipt]:
        """See `store.Store`."""
        self._check_disk()
        payload = (new, encode_request(new.request), start, self._limits)
        heard = None if begin is None else lambda result: begin(None if isinstance(result, QueueError) else result.claim)
        return self._writer.submit(submissions.submit, payload, len(new.request.body), heard)

    def _check_disk(self) -> None:
        now = time.monotonic()
        if now - self._disk_checked >= _DISK_WATCH:
            self._disk_checked = now
            self._disk_complaint = lacks_room(self.path, self._settings.min_free_disk)
        if self._disk_complaint:
            raise DiskFull(self._disk_complaint, 30)

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
        return self._writer.submit(jobs.finish, _ended(claim, response), len(response.body), told)

    def fail(self, claim: Claim, failure: Failure, told: Told | None = None) -> Awaitable[bool]:
        """See `store.Store`."""
        return self._writer.submit(jobs.finish, _ended(claim, failure), 0, told)

    async def retry(self, claim: Claim, delay: float) -> bool:
        """See `store.Store`."""
        return await self._writer.submit(jobs.retry, (claim, round(delay * 1000)))

    async def release(self, claim: Claim) -> bool:
        """See `store.Store`."""
        return await self._writer.submit(jobs.release, claim)

    def log(self, claim: Claim, lines: Sequence[LogLine], progress: Progress | None = None) -> Awaitable[bool]:
        """See `store.Store`."""
        data = encode_lines(lines)
        return self._writer.submit(logs.log, (claim, len(lines), data, progress), len(data))

    async def held(self) -> Mapping[tuple[int, int], bool]:
        """See `store.Store`."""
        return await self._reader.call(lambda connection: reading.held(connection, self.owner))

    def renew(self, tokens: Collection[int]) -> None:
        """See `store.Store`. Opens a connection of its own each time: it is called a few times a minute."""
        connection = open_connection(self.path)
        try:
            lease_until = self._clock() + round(self._settings.lease * 1000)
            lease = {"owner": self.owner, "lease_until": lease_until, "tokens": json.dumps(list(tokens))}
            in_transaction(
                connection,
                self._files.renewal_turn,
                lambda: [connection.execute(SQL[name], lease) for name in ("renew_jobs", "renew_deliveries")],
            )
        finally:
            with self._files.renewal_turn:
                connection.close()

    # --- the janitor's verbs

    async def rescue(self, *, retry: bool) -> list[Rescue]:
        """See `store.Store`."""
        dead = await self._reader.call(lambda connection: dead_owners(self.path, reading.owners(connection)))
        if not dead and not await self._reader.call(lambda connection: reading.leases_ran_out(connection, self._clock())):
            return []
        return await self._writer.submit(jobs.rescue, (retry, dead))

    async def expire(self) -> list[Rescue]:
        """See `store.Store`."""
        if not await self._reader.call(lambda connection: reading.anything_overdue(connection, self._clock())):
            return []
        return await self._writer.submit(jobs.expire, None)

    async def prune(self, limit: int) -> int:
        """See `store.Store`."""
        kept = round(self._settings.retention * 1000)
        now = self._clock()
        found = await self._reader.call(lambda connection: retention.outlived(connection, now, kept, self._pruned, limit))
        # The next batch need not pass again by all those that are kept, for instance because they wait.
        self._pruned = found.jobs[-1] if len(found.jobs) == limit else 0
        return await self._writer.submit(retention.prune, found) if found.jobs or found.answers or found.hosts else 0

    async def counts(self) -> Counts:
        """See `store.Store`."""
        return await self._reader.call(reading.counts)

    # --- both loops' verb

    async def next_due(self, topic: Topic) -> float | None:
        """See `store.Store`."""
        due = await self._reader.call(lambda connection: reading.next_due(connection, topic))
        return None if due is None else max(0.0, (due - self._clock()) / 1000)


def _ended(claim: Claim, outcome: StoredResponse | Failure) -> jobs.Ended:
    return claim.key, claim.token, claim.webhook, outcome, len(claim.request.body) > PART
