"""Renews the leases of a process in a dedicated thread, on a connection of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from queue_middleware.jobs.leases import DatabaseUptime
from queue_middleware.stores.common.lost_claims import RENEWALS
from queue_middleware.stores.common.transaction import CommitFailed

from .connection import in_transaction, open_connection
from .errors import primary_code
from .locks import WriteLock
from .sql import SQL, bind

_NEVER = -1
"""A time before the end of every lease."""
_CONNECTION_BROKEN = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)
"""Primary result codes that a connection can keep returning after the file is intact again."""


class LeaseConnection:
    """The leases of one process. `begin` and `renew` are blocking and are called from one thread at a time."""

    def __init__(self, clock: Callable[[], int], lease: int) -> None:
        """`clock` is the boot clock, `lease` the length of a lease; both in milliseconds."""
        self._clock = clock
        self._lease = lease
        self._renewing = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def open(self, path: Path, owner: str, write_lock: WriteLock, check: Callable[[sqlite3.Connection], None]) -> None:
        """Open the connection. `check` is called in each transaction and raises if nothing may be written."""
        self._path, self._owner, self._write_lock, self._check = path, owner, write_lock, check
        self._uptime = DatabaseUptime.begin(self._clock(), self._lease)
        self._connection = open_connection(path, create=False)

    def ended_by(self, now: int) -> int:
        """Leases until the returned time have ended; none has while the database was not reachable for long enough."""
        return now if self._uptime.is_stable(now, self._lease) else _NEVER

    def renew(self, tokens: Collection[int], process: Mapping[str, str | int] | None = None) -> int:
        """Extend these leases. Returns how many are still held. `process` is a row for the block `put_process`.

        Without any lease it writes as well, because a successful write shows that the database is reachable
        (`jobs.leases.DatabaseUptime`).
        """
        with self._renewing:
            if self._connection is None:
                return 0
            try:
                renewed = self._write(self._connection, tokens, process)
            except (sqlite3.Error, CommitFailed) as error:
                if primary_code(error) not in _CONNECTION_BROKEN:
                    raise
                self._reopen()
                renewed = self._write(self._connection, tokens, process)
            self._uptime = self._uptime.after_commit(self._clock(), self._lease)
        return renewed

    def _write(self, connection: sqlite3.Connection, tokens: Collection[int], process: Mapping[str, str | int] | None) -> int:
        def work() -> int:
            self._check(connection)
            now = self._clock()
            own = {"owner": self._owner, "lease_until": now + self._lease, "tokens": list(tokens)}
            renewed = sum(connection.execute(SQL[name], bind(name, own)).rowcount for name in RENEWALS) if tokens else 0
            if not renewed:
                connection.execute(SQL["update_heartbeat"], (now,))
            if process is not None:
                connection.execute(SQL["put_process"], process)
            return renewed

        return in_transaction(connection, self._write_lock, work)

    def _reopen(self) -> None:
        """Replace a broken connection. It is kept if no new one can be opened."""
        fresh = open_connection(self._path, create=False)
        old, self._connection = self._connection, fresh
        if old is not None:
            with contextlib.suppress(sqlite3.Error):
                old.close()

    def close(self) -> None:
        """Close the connection under the write lock, because the last close is a checkpoint. Idempotent."""
        with self._renewing, self._write_lock if self._connection is not None else contextlib.nullcontext():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def release_all(connection: sqlite3.Connection, write_lock: WriteLock, owner: str, now: int) -> None:
    """Release all that this process holds, without charging the attempts, after a later release has migrated the schema.

    Later migrations must keep these statements valid. If they do not, the process counts as dead.
    """
    own = {"owner": owner, "due": now, "tokens": None}

    def work() -> None:
        for name in ("release_jobs", "release_deliveries", "release_polls"):
            connection.execute(SQL[name], bind(name, own))

    in_transaction(connection, write_lock, work)
