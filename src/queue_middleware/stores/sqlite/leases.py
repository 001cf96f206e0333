"""Renews the leases of a process from a dedicated thread, over a connection of its own."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from queue_middleware.jobs.leases import DatabaseUptime
from queue_middleware.stores.common.leases import RENEWALS
from queue_middleware.stores.common.transaction import CommitFailed

from .connection import in_transaction, open_connection
from .errors import primary_code
from .locks import WriteLock
from .sql import SQL, bind

_NEVER = -1
"""Before any lease: none has ended by then."""
_CONNECTION_BROKEN = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOTADB)
"""Primary result codes that can stay with a connection when the file is well again."""


class Leases:
    """The leases of one process, and its pulse. `begin` and `renew` are blocking, and called from one thread at a time."""

    def __init__(self, clock: Callable[[], int], lease: int) -> None:
        """`clock` is the boot clock; `lease` in milliseconds."""
        self._clock = clock
        self._lease = lease
        self._renewing = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def begin(self, path: Path, owner: str, write_lock: WriteLock, check: Callable[[sqlite3.Connection], None]) -> None:
        """Open the connection. `check` raises within a transaction when nothing may be written."""
        self._path, self._owner, self._write_lock, self._check = path, owner, write_lock, check
        self._uptime = DatabaseUptime.begin(self._clock(), self._lease)
        self._connection = open_connection(path, create=False)

    def ended_by(self, now: int) -> int:
        """Leases that ended at this moment or before it are over; none is when the pulse is not calm."""
        return now if self._uptime.is_stable(now, self._lease) else _NEVER

    def renew(self, tokens: Collection[int]) -> int:
        """Extend these leases; how many there were. Without any it writes all the same: see `leases.DatabaseUptime`."""
        with self._renewing:
            if self._connection is None:
                return 0
            try:
                renewed = self._write(self._connection, tokens)
            except (sqlite3.Error, CommitFailed) as error:
                if primary_code(error) not in _CONNECTION_BROKEN:
                    raise
                self._reopen()
                renewed = self._write(self._connection, tokens)
            self._uptime = self._uptime.after_commit(self._clock(), self._lease)
        return renewed

    def _write(self, connection: sqlite3.Connection, tokens: Collection[int]) -> int:
        def work() -> int:
            self._check(connection)
            now = self._clock()
            own = {"owner": self._owner, "lease_until": now + self._lease, "tokens": list(tokens)}
            renewed = sum(connection.execute(SQL[name], bind(name, own)).rowcount for name in RENEWALS) if tokens else 0
            if not renewed:
                connection.execute(SQL["update_heartbeat"], (now,))
            return renewed

        return in_transaction(connection, self._write_lock, work)

    def _reopen(self) -> None:
        """The connection is of no use any more. Where no other can be had it stays, for the next time."""
        fresh = open_connection(self._path, create=False)
        old, self._connection = self._connection, fresh
        if old is not None:
            with contextlib.suppress(sqlite3.Error):
                old.close()

    def close(self) -> None:
        """Close the connection in our turn: the last connection's close is a checkpoint. Repeatable."""
        with self._renewing, self._write_lock if self._connection is not None else contextlib.nullcontext():
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


def release_all(connection: sqlite3.Connection, write_lock: WriteLock, owner: str, now: int) -> None:
    """Give back all that a process holds whose release is older than the schema: it can store nothing any more.

    The attempts are not charged. Later migrations keep these statements valid, or the process counts as dead.
    """
    own = {"owner": owner, "due": now, "tokens": None}

    def work() -> None:
        for name in ("release_jobs", "release_deliveries", "release_polls"):
            connection.execute(SQL[name], bind(name, own))

    in_transaction(connection, write_lock, work)
