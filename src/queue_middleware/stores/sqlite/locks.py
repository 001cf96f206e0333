"""Two uses of flock(2): taking turns at the file, and showing that a process is alive."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType


class TurnLock:
    """Held around every write transaction and checkpoint. Waiting for it is fair; SQLite's busy handler lets some starve.

    It also keeps two connections from committing and checkpointing at once, which in SQLite before 3.51.3 can lose commits.
    Each instance has its own descriptor, so two connections of one process take turns as well.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the descriptor back. Repeatable."""
        self.disown()

    def disown(self) -> None:
        """Close our descriptor; a lock that another process shares stays locked."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LifeSign:
    """A file that its owner keeps locked while it lives: the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, database: Path, owner: str) -> None:
        self._database = database
        self._path = _life_path(database, owner)
        # Locked before it has its name: nobody can meet it unlocked and take its owner for dead.
        hidden = self._path.with_name(f"{self._path.name}.new")
        self._file = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.utime(self._file)  # finer than the kernel's own stamp, so that two have an order
        hidden.rename(self._path)

    def is_eldest(self) -> bool:
        """Whether no living process has been here for longer: one of several speaks for all."""
        ours = _age(self._path)
        return all(_age(path) >= ours for path in _life_paths(self._database) if path != self._path and not _is_free(path))

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


def living_owners(database: Path) -> list[str]:
    """Those that live on this machine."""
    prefix = len(f"{database.name}.alive-")
    return [path.name[prefix:] for path in _life_paths(database) if not _is_free(path)]


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


def _age(path: Path) -> tuple[float, str]:
    """Smaller for the older; one that is gone is younger than all."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns, path.name
    return math.inf, path.name


def _is_free(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, BlockingIOError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
        return True
    return False
