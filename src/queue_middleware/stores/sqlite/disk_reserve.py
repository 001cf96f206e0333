"""Keeps a reserve file beside the database, which is deleted when a commit finds the disk full.

Everything that frees space in a database needs some first, in its write-ahead log. With this much results can still be stored
and old ones deleted, and a process can start, although another program has filled the disk. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 16 * 2**20
"""Bytes: as much as the largest group of operations takes in the log."""
_SCARCE = 2**20
"""Bytes of free disk with which a database cannot even be opened."""


class DiskReserve:
    """Of one database. Processes that share the database share it."""

    def __init__(self, database: Path, *, wanted: bool) -> None:
        self._path = database.with_name(f"{database.name}.reserve")
        self._wanted = wanted

    def create(self) -> None:
        """Make it, where it is missing and there is plenty of room. Repeatable."""
        if not self._wanted or self._path.exists() or shutil.disk_usage(self._path.parent).free < 4 * SIZE:
            return
        with contextlib.suppress(OSError):  # without it everything works, until the disk is full
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, SIZE)
            finally:
                os.close(file)

    def delete(self) -> None:
        """Let the file system have it. Repeatable."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def delete_if_scarce(self) -> None:
        """The same where nothing could be opened without it."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < _SCARCE:
                self.delete()
