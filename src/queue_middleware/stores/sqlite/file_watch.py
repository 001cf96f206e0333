"""Checks that the open files still have their names, and that the disk has free space.

SQLite keeps using a file that was removed, renamed or replaced; what it commits there is lost when the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from pathlib import Path

from queue_middleware.errors import DatabaseGone, DiskFull, QueueError

from .connection import Connection
from .disk import low_space_reason

_COMPANIONS = ("-wal", "-shm", ".lock")
"""Files next to the database that must not be replaced either: processes with different ones would not exclude each other."""
_CHECK_INTERVAL = 1.0
"""Seconds between two checks."""
_RETRY_AFTER = 10
_RETRY_WHEN_FULL = 30


class FileWatch:
    """Watches the files of one database.

    `check_all` and `check` are blocking. `error` and `check_accepting` return the result of the last check without I/O.
    """

    def __init__(self, path: Path, min_free_disk: int | None) -> None:
        self._path = path
        self._min_free_disk = min_free_disk
        self._identities: dict[Path, os.stat_result] = {}
        self._low_space: str | None = None
        self.spare = 0
        """Bytes of free pages in the file, as last read."""
        self.error: DatabaseGone | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """Record the files that have the names now. They all exist after a connection has read something."""
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._identities = {path: path.stat() for path in (self._path, *self._companions()) if path.exists()}
        self.check_all()

    def _companions(self) -> list[Path]:
        return [self._path.with_name(f"{self._path.name}{end}") for end in _COMPANIONS]

    def check_all(self) -> None:
        """Check all files and the free space of the disk."""
        problem = next((problem for path in self._identities if (problem := self._problem(path))), None)
        self.error = None if problem is None else DatabaseGone(problem, _RETRY_AFTER)
        self._low_space = low_space_reason(self._path, self._min_free_disk, self.spare)

    async def run(self, reader: Connection) -> None:
        """Check all files every second, in the thread of `reader`, because checks can block."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            with contextlib.suppress(QueueError, OSError):
                await reader.call(lambda _: self.check_all())

    def check(self) -> None:
        """Raise `DatabaseGone` if nothing may be committed. Before each COMMIT; one call of `stat`, 3 µs."""
        if self.error is not None:
            # Only `check_all` can find that the files are back.
            raise DatabaseGone(self.error.detail, _RETRY_AFTER)
        problem = self._problem(self._path) if self._identities else None
        if problem is not None:
            raise DatabaseGone(problem, _RETRY_AFTER)

    def check_accepting(self) -> None:
        """Raise an error if no more jobs can be accepted. Does no I/O."""
        if self.error is not None:
            raise DatabaseGone(self.error.detail, _RETRY_AFTER)
        if self._low_space:
            raise DiskFull(self._low_space, _RETRY_WHEN_FULL)

    @property
    def space_is_low(self) -> bool:
        """Whether the free space of the disk is below the floor. Does no I/O."""
        return self._low_space is not None

    def _problem(self, path: Path) -> str | None:
        try:
            found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
        except FileNotFoundError:
            return (
                f"the file {path} was removed or renamed while the queue runs, and nothing is accepted until it is back: "
                "put the same file back under its name, or restart the service"
            )
        except OSError:
            return None  # for instance a folder without read permission; the file itself is unchanged
        if os.path.samestat(found, self._identities[path]):
            return None
        return (
            f"the file {path} was replaced while the queue runs, and nothing is accepted: "
            "restart the service, or put the original file back under its name"
        )
