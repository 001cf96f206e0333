"""Two uses of flock(2): taking turns at the file, which are counted, and showing that a process is alive."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType


class TurnLock:
    """Held around every write transaction and checkpoint. Waiting for it is fair; SQLite's busy handler lets some starve.

    It also keeps two connections from committing and checkpointing at once, which in SQLite before 3.51.3 can lose commits.
    Each instance has its own descriptor, so two connections of one process take turns as well. The file holds how many turns
    there have been: a number in memory that all processes share, which costs nearly nothing to look at.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._count = _shared_count(path)
        self.taken = 0
        """Turns of this instance."""

    @property
    def turns(self) -> int:
        """Turns of all that there are, in all processes. A write in between is over when it is counted."""
        return int(_COUNT.unpack_from(self._count)[0])

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.taken += 1
        _COUNT.pack_into(self._count, 0, self.turns + 1)
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the descriptor back. Repeatable."""
        self.disown()

    def disown(self) -> None:
        """Close our descriptor; a lock that another process shares stays locked."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        count, self._count = self._count, bytearray(_COUNT.size)
        if not isinstance(count, bytearray):
            count.close()


_COUNT = struct.Struct("Q")


def _shared_count(path: Path) -> mmap.mmap | bytearray:
    """The count in the file; where the file system has no shared memory one that nobody else sees."""
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)  # of its own, because a mapping keeps it, and with it a lock
    try:
        if os.fstat(file).st_size < _COUNT.size:
            os.pwrite(file, bytes(_COUNT.size), 0)  # written, not just made longer: room on the disk is then certain
        return mmap.mmap(file, _COUNT.size)
    except OSError:
        return bytearray(_COUNT.size)
    finally:
        os.close(file)


class LifeSign:
    """A file that its owner keeps locked while it lives: the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, database: Path, owner: str) -> None:
        self._path = _life_path(database, owner)
        # Locked before it has its name: nobody can meet it unlocked and take its owner for dead.
        hidden = self._path.with_name(f"{self._path.name}.new")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        hidden.rename(self._path)

    def close(self) -> None:
        """Take the sign down. Repeatable."""
        if self._file >= 0:
            self._path.unlink(missing_ok=True)
            self.disown()

    def disown(self) -> None:
        """Close our descriptor and leave the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def dead_owners(database: Path, owners: Iterable[str]) -> list[str]:
    """Those owners that certainly died on this machine. One without a file is not among them: its lease decides."""
    return [owner for owner in owners if _is_free(_life_path(database, owner))]


def sweep_life_signs(database: Path, needed: Iterable[str]) -> None:
    """Remove the files of the dead, but for the owners that somebody still has to rescue from."""
    kept = {_life_path(database, owner) for owner in needed}
    for path in _life_paths(database):
        if path not in kept and _is_free(path):
            path.unlink(missing_ok=True)


def _life_path(database: Path, owner: str) -> Path:
    return database.with_name(f"{database.name}.alive-{owner}")


def _life_paths(database: Path) -> Iterator[Path]:
    prefix = f"{database.name}.alive-"
    return (path for path in database.parent.iterdir() if path.name.startswith(prefix) and path.suffix != ".new")


def _is_free(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
        return True
    return False
