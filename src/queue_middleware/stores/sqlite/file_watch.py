"""Checks that the open files are still the ones under their names, and that there is free disk.

SQLite goes on with a file that was removed, renamed or replaced: what it commits there is gone when the process ends.
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
"""Two write-ahead logs, two indexes of one, or two files to lock: their processes know nothing of one another."""
_CHECK_INTERVAL = 1.0
"""Seconds between two looks."""
_RETRY_AFTER = 10
_RETRY_WHEN_FULL = 30


class FileWatch:
    """`look` and `check` are blocking; `complaint` and `refuse_submissions` only say what the last look has found."""

    def __init__(self, path: Path, min_free_disk: int | None) -> None:
        self._path = path
        self._min_free_disk = min_free_disk
        self._identities: dict[Path, os.stat_result] = {}
        self._low_space: str | None = None
        self.spare = 0
        """Bytes of free pages in the file, as far as known: room that needs no disk."""
        self.error: DatabaseGone | None = None

    def begin(self, connection: sqlite3.Connection) -> None:
        """What is under the names now is right. All of it is there once a connection has read something."""
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        self._identities = {path: path.stat() for path in (self._path, *self._companions()) if path.exists()}
        self.check_all()

    def _companions(self) -> list[Path]:
        return [self._path.with_name(f"{self._path.name}{end}") for end in _COMPANIONS]

    def check_all(self) -> None:
        """Look at all of them, and at how full the disk is."""
        trouble = next((error for path in self._identities if (error := self._problem(path))), None)
        self.error = None if trouble is None else DatabaseGone(trouble, _RETRY_AFTER)
        self._low_space = low_space_reason(self._path, self._min_free_disk, self.spare)

    async def run(self, reader: Connection) -> None:
        """Look again and again, in the thread of this connection: it can block."""
        while True:
            await asyncio.sleep(_CHECK_INTERVAL)
            with contextlib.suppress(QueueError, OSError):
                await reader.call(lambda _: self.check_all())

    def check(self) -> None:
        """Raise `DatabaseGone` when nothing may be committed: one call of `stat` before each COMMIT, 3 µs."""
        if self.error is not None:
            # Only a check of all of them shows whether the file is back.
            raise DatabaseGone(self.error.detail, _RETRY_AFTER)
        trouble = self._problem(self._path) if self._identities else None
        if trouble is not None:
            raise DatabaseGone(trouble, _RETRY_AFTER)

    def check_accepting(self) -> None:
        """Raise what keeps more work from being accepted. It looks at no file."""
        if self.error is not None:
            raise DatabaseGone(self.error.detail, _RETRY_AFTER)
        if self._low_space:
            raise DiskFull(self._low_space, _RETRY_WHEN_FULL)

    def _problem(self, path: Path) -> str | None:
        try:
            found = os.stat(path)  # noqa: PTH116 - half the time of Path.stat
        except FileNotFoundError:
            return (
                f"the file {path} was removed or renamed while the queue runs, and nothing is accepted until it is back: "
                "put the same file back under its name, or restart the service"
            )
        except OSError:
            return None  # for instance a folder that may not be read: the file itself is as it was
        if os.path.samestat(found, self._identities[path]):
            return None
        return (
            f"another file lies at {path} than the one that the queue has open, and nothing is accepted: "
            "restart the service, or put the first file back under its name"
        )
