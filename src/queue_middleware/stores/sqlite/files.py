"""Opens the database file and the files next to it: write locks, wakeup pipes and the liveness lock. Blocking."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from queue_middleware.errors import StoreError
from queue_middleware.settings import Settings
from queue_middleware.stores.common import job_queries

from .connection import LARGEST_WAL, open_connection
from .disk import mount_table, refuse_network_filesystem
from .locks import LivenessLock, WriteLock, living_owners, remove_dead_liveness_locks
from .ownership import adopt, check_application
from .shared_numbers import SharedNumbers
from .sql import SQLiteQueries
from .sql.schema import migrate
from .wakeup import WakeupPipes

_MIN_VERSION = (3, 37, 0)
"""The first SQLite with STRICT tables; RETURNING and UPDATE FROM are older."""
_WAL_RESET_FIXED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""The first releases in which the write-ahead log cannot be reset while another process writes."""
_PAGE_SIZE = 8192
"""Bytes. Writing jobs with bodies of a kilobyte takes a fifth less time than with pages of 4096 bytes."""


def check_requirements(path: Path, settings: Settings) -> None:
    """Raise `StoreError` if SQLite is too old, or if the database is on a network file system."""
    if sqlite3.sqlite_version_info < _MIN_VERSION:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old, {'.'.join(map(str, _MIN_VERSION))} is needed")
    if not settings.allow_network_filesystem:
        refuse_network_filesystem(path, mount_table())


def notes() -> list[str]:
    """Sentences about this machine's SQLite that need no action."""
    version = sqlite3.sqlite_version_info
    if version >= _WAL_RESET_FIXED[0] or any(version[:2] == fixed[:2] and version >= fixed for fixed in _WAL_RESET_FIXED):
        return []
    note = (
        f"SQLite {sqlite3.sqlite_version} has a defect that is fixed in 3.51.3: two programs that write to one file may lose "
        "commits. The processes of the queue exclude each other, so you need not do anything, but no other program may write "
        "to the file while the queue runs"
    )
    return [note]


def warnings(path: Path) -> list[str]:
    """Problems of this database that the operator should know about, as sentences. Blocking."""
    found = [_access_warning(path), log_warning(path), names_warning(path)]
    return [sentence for sentence in found if sentence is not None]


def _access_warning(path: Path) -> str | None:
    """A sentence if other users may read or write the file. The queue creates it without these permissions."""
    if not (path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077):
        return None
    return (
        f"the database {path}, which contains what clients submit, can be read or written by other users; "
        f"run: chmod 600 {' '.join(f'{path}{end}' for end in ('', '-wal', '-shm'))}"
    )


def log_warning(path: Path) -> str | None:
    """A sentence if the write-ahead log is longer than the length to which each restart truncates it. Blocking."""
    log = path.with_name(f"{path.name}-wal")
    if not (log.exists() and log.stat().st_size > LARGEST_WAL):
        return None
    return (
        f"the write-ahead log {log} is larger than {LARGEST_WAL // 2**20} MiB and grows, because a program is "
        "reading an old snapshot of the database: end the backup or the shell that does so"
    )


def names_warning(path: Path) -> str | None:
    """A sentence if the file has several names. Blocking."""
    return _several_names(path) if path.exists() and path.stat().st_nlink > 1 else None


def _several_names(path: Path) -> str:
    return (
        f"the database {path} has another name, a hard link; if both names are used it is corrupted: find the other name with "
        f"'find … -samefile {path}' and remove it, or replace it by a copy"
    )


class Files:
    """The files that a store keeps open apart from its connections."""

    def __init__(self, path: Path, owner: str, application: str | None = None) -> None:
        """Create or migrate the database. Raises `StoreError`, also for the database of another application.

        With `application=None` the database of any application is opened.
        """
        self._held: list[WriteLock | LivenessLock | SharedNumbers | WakeupPipes] = []
        try:
            _check_path(path)
            self.write_lock = self._lock(path)
            self.renewal_lock = self._lock(path)
            with self.write_lock:
                _create(path, application)
                # Still under the lock, so that only one of several processes that start together is the first.
                self.is_first = not any(living_owners(path))
                self.liveness = LivenessLock(path, owner)
                self._held.append(self.liveness)
            self.numbers = SharedNumbers(path)
            self._held.append(self.numbers)
            self.wakeup = WakeupPipes(path, owner, self.numbers)
            self._held.append(self.wakeup)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreError(f"the database {path} cannot be opened: {error}{_remedy(error)}") from error
        except BaseException:
            self.close()
            raise

    def _lock(self, path: Path) -> WriteLock:
        lock = WriteLock(path.with_name(f"{path.name}.lock"))
        self._held.append(lock)
        return lock

    def close(self, *, leave_liveness_lock: bool = False) -> None:
        """Close all files. A liveness file that is left without its lock lets other processes take over. Idempotent."""
        if leave_liveness_lock:
            self.liveness.disown()
        for held in reversed(self._held):
            held.close()

    def disown(self) -> None:
        """In a forked child: close the descriptors without unlocking. Open ones would keep the locks of a dead parent."""
        for held in self._held:
            held.disown()


def _remedy(error: OSError | sqlite3.Error) -> str:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
        return "; set the option database to another path, or restore the file from a backup"
    return ""


def _check_path(path: Path) -> None:
    """Refuse a path in a missing folder, which may be a typing error, and a file with several names."""
    if not path.parent.exists():
        raise StoreError(
            f"the database {path} cannot be opened, its folder is missing; correct the option database, or run: "
            f"mkdir -p {path.parent}"
        )
    if path.exists() and path.stat().st_nlink > 1:
        raise StoreError(_several_names(path))


def _create(path: Path, application: str | None) -> None:
    if not path.exists():
        # It contains what clients sent, so only the owner may read it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = open_connection(path)
    try:
        check_application(connection, path, application)
        connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")  # for a new file; an old file keeps its page size
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{path} cannot have a write-ahead log; its journal mode is {mode!r}")
        migrate(connection)
        if application is not None:
            adopt(connection, path, application)
        remove_dead_liveness_locks(path, job_queries.owners(SQLiteQueries(connection)))
    finally:
        connection.close()
