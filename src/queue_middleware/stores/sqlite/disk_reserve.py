"""Keeps a reserve file next to the database, which is deleted when a commit finds the disk full.

Even deleting rows needs space at first, for the write-ahead log. With the space of the reserve file, results can be stored, old
data can be deleted and a process can start although another program has filled the disk. Blocking.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

SIZE = 16 * 2**20
"""Bytes of the file: as much as the largest group of operations needs in the log."""
_SCARCE = 2**20
"""With fewer free bytes on the disk a database cannot be opened."""


class DiskReserve:
    """The reserve file of one database, shared by all of its processes."""

    def __init__(self, database: Path, *, wanted: bool) -> None:
        self._path = database.with_name(f"{database.name}.reserve")
        self._wanted = wanted

    def create(self) -> None:
        """Create the file if it is missing and the disk has enough free space. Idempotent."""
        if not self._wanted or self._path.exists() or shutil.disk_usage(self._path.parent).free < 4 * SIZE:
            return
        with contextlib.suppress(OSError):  # without the file everything works until the disk is full
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, SIZE)
            finally:
                os.close(file)

    def delete(self) -> None:
        """Delete the file to free its space. Idempotent."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def delete_if_scarce(self) -> None:
        """Delete the file if the database could not be opened otherwise."""
        with contextlib.suppress(OSError):
            if shutil.disk_usage(self._path.parent).free < _SCARCE:
                self.delete()
