"""`stores.administration.DatabaseAdministration` on one SQLite file. Blocking."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

from queue_middleware.errors import MaintenanceRefused, StoreError
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.settings import Settings
from queue_middleware.stores.administration import Backup, Compaction, DatabaseInfo, Finding, Level, Migration, Progress

from . import checks, examination
from .backup import back_up
from .connection import open_connection
from .location import database_path
from .locks import WriteLock, living_owners
from .ownership import check_application
from .read_only import connect_without_files
from .sql import SQL
from .sql.schema import migrate, newest_version, version_of

_SYNCHRONOUS = ("off", "normal", "full", "extra")
"""The words for the numbers of `PRAGMA synchronous`."""
_BIRTH_SINCE = 101
"""The first schema version with the table `birth`."""


class SQLiteAdministration:
    """The administration of the file that the option `database` names."""

    def __init__(self, database: str) -> None:
        """Raises `StoreError` if there is no such file."""
        self.path = database_path(database)
        if not self.path.is_file():
            raise StoreError(f"there is no queue at {self.path}; name its database with --database or QUEUE_DATABASE")

    def info(self) -> DatabaseInfo:
        """What the file is and contains."""
        with self._reading() as connection, _snapshot(connection):
            return self._info(connection)

    def _info(self, connection: sqlite3.Connection) -> DatabaseInfo:
        def value(statement: str) -> int:
            row = connection.execute(statement).fetchone()
            return int(row[0])

        version = version_of(connection)
        requests = dict(connection.execute(SQL["count_requests"]).fetchall())
        oldest, unfinished = connection.execute(SQL["oldest_requests"]).fetchone()
        name = connection.execute("SELECT name FROM application").fetchone()
        return DatabaseInfo(
            path=str(self.path),
            size=self.path.stat().st_size,
            log_size=_size(self._beside("-wal")),
            page_size=value("PRAGMA page_size"),
            pages=value("PRAGMA page_count"),
            free_pages=value("PRAGMA freelist_count"),
            schema_version=version,
            known_schema_version=newest_version(),
            application=None if name is None else str(name[0]),
            created_at=value("SELECT created_at FROM birth") if version >= _BIRTH_SINCE else None,
            requests={str(state): int(count) for state, count in requests.items()},
            oldest_request_at=_submitted_at(oldest),
            oldest_unfinished_at=_submitted_at(unfinished),
            journal_mode=str(connection.execute("PRAGMA journal_mode").fetchone()[0]),
            synchronous=_SYNCHRONOUS[value("PRAGMA synchronous")],
            processes=len(living_owners(self.path)),
        )

    def check(self) -> list[str]:
        """Everything that is wrong, from the pages up to the content."""
        with self._reading() as connection, _snapshot(connection):
            try:
                return checks.problems(connection)
            except sqlite3.DatabaseError as error:
                return [f"the file is damaged: {error}"]

    def examine(self, settings: Settings, now: int) -> list[Finding]:
        """Look at the files and their surroundings, then at what the file says about itself."""
        found = list(examination.examine_files(self.path, settings))
        try:
            with self._reading() as connection, _snapshot(connection):
                check_application(connection, self.path, settings.name)
                return [*found, *examination.examine_content(connection, self.path, now)]
        except StoreError as error:
            return [*found, Finding(Level.PROBLEM, error.detail)]

    def fix_permissions(self) -> list[Path]:
        """Close the files to other users."""
        return examination.fix_permissions(self.path)

    def back_up(self, target: Path, progress: Progress | None = None) -> Backup:
        """Write a copy of one moment to `target`, with the keys beside the file."""
        with self._reading() as connection:
            return back_up(connection, self.path, target, progress)

    def compact(self) -> Compaction:
        """Write the file anew without its free pages. Nothing is read or written by others meanwhile."""
        with self._alone() as connection:
            before = self.path.stat().st_size
            _check_space(connection, self.path)
            connection.execute("PRAGMA temp_store = FILE")  # the new file may be larger than the memory
            _execute(connection, "VACUUM")
            _execute(connection, "PRAGMA wal_checkpoint(TRUNCATE)")
            return Compaction(before, self.path.stat().st_size)

    def migrate(self, *, while_running: bool = False) -> Migration:
        """Apply the migrations of this release."""
        with self._alone(even_if_used=while_running) as connection:
            before = version_of(connection)
            migrate(connection)
            return Migration(before, version_of(connection))

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}{suffix}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._reading_connection() as connection:
                check_application(connection, self.path, None)
                if not version_of(connection):
                    raise StoreError(f"{self.path} is not a database of a queue; name its database with --database")
                yield connection
        except sqlite3.Error as error:
            raise StoreError(f"the database {self.path} cannot be read: {error}") from error

    def _reading_connection(self) -> AbstractContextManager[sqlite3.Connection]:
        if os.access(self.path.parent, os.W_OK):
            return closing(open_connection(self.path, read_only=True, create=False))
        # SQLite cannot create the files that it wants beside the database. Otherwise this is not done: a service that starts
        # meanwhile waits for the end, and to check a large database takes minutes.
        return connect_without_files(self.path)

    @contextmanager
    def _alone(self, *, even_if_used: bool = False) -> Iterator[sqlite3.Connection]:
        """A writing connection under the write lock, for which a process that starts meanwhile waits.

        Raises `MaintenanceRefused` if a process has the file open, unless `even_if_used`.
        """
        try:
            lock = WriteLock(self._beside(".lock"))
            with closing(lock), lock:
                self._give_to_owner(self._beside(".lock"))
                if not even_if_used:
                    self._check_unused()
                with closing(open_connection(self.path, create=False)) as connection:
                    check_application(connection, self.path, None)
                    yield connection
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the database {self.path} cannot be opened: {error}") from error

    def _give_to_owner(self, file: Path) -> None:
        """Let the user of the service open a file that root may have created."""
        if os.geteuid() == 0:
            owner = self.path.stat()
            os.chown(file, owner.st_uid, owner.st_gid)

    def _check_unused(self) -> None:
        running = len(living_owners(self.path))
        if running:
            processes = "1 process has" if running == 1 else f"{running} processes have"
            raise MaintenanceRefused(f"{processes} {self.path} open: stop the service first")


@contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """A context in which all statements see the same state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _submitted_at(key: int | None) -> int | None:
    return None if key is None else key >> SEQUENCE_BITS


def _check_space(connection: sqlite3.Connection, path: Path) -> None:
    """VACUUM writes the content twice: to a temporary file, which may be on this disk, and to the write-ahead log."""
    pages, free_pages, page_size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    needed, free = 2 * (pages - free_pages) * page_size, shutil.disk_usage(path.parent).free
    if free < needed:
        raise MaintenanceRefused(
            f"compacting needs {needed // 2**20 + 1} MiB, and {free // 2**20} MiB are free on the disk of {path}"
        )


def _execute(connection: sqlite3.Connection, statement: str) -> None:
    """Run a statement that needs much space on the disk."""
    try:
        connection.execute(statement).fetchall()
    except sqlite3.OperationalError as error:
        raise MaintenanceRefused(f"the database was not compacted: {error}") from error
