"""Two uses of flock(2): a write lock over all processes, and a liveness lock for each process."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType


class WriteLock:
    """Held around every write transaction and checkpoint. Waiting for it is fair; SQLite's busy handler lets some starve.

    It also keeps two connections from committing and checkpointing at once, which in SQLite before 3.51.3 can lose commits.
    Each instance has its own descriptor, so two connections of one process take turns as well.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # It comes after COMMIT and must not fail. Where the descriptor was closed under us the kernel has unlocked it.
        try:  # noqa: SIM105 - a context manager costs more than the call
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Give the descriptor back. Repeatable."""
        self.disown()

    def disown(self) -> None:
        """Close our descriptor; a lock that another process shares stays locked."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LivenessLock:
    """A file that its owner keeps locked while it lives: the kernel lets go of it when the process dies, however it dies."""

    def __init__(self, database: Path, owner: str) -> None:
        self._database = database
        self._path = _liveness_path(database, owner)
        self._file = -1
        self._renewing = threading.Lock()
        self._create()

    def _create(self) -> None:
        # Locked before it has its name: no process can meet it unlocked and take its owner for dead.
        hidden = self._path.with_name(f"{self._path.name}.new")
        made = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(made)  # finer than the kernel's own stamp, so that two have an order
            hidden.rename(self._path)
        except BaseException:
            os.close(made)
            raise
        self._file, old = made, self._file
        if old >= 0:
            os.close(old)

    def restore(self) -> None:
        """Make it again where it was removed, for instance by a program that tidies up. Called from the heartbeat's thread.

        Raises `OSError`. After `close` or `disown` it does nothing.
        """
        with self._renewing:
            if self._file >= 0 and not self._is_in_place():
                self._create()

    def _is_in_place(self) -> bool:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return os.path.samestat(found, os.fstat(self._file))

    def is_oldest(self) -> bool:
        """Whether no living process has been here for longer: one of several speaks for all."""
        ours = _age(self._path)
        return all(
            _age(path) >= ours for path in _liveness_paths(self._database) if path != self._path and not _is_unlocked(path)
        )

    def close(self) -> None:
        """Take the sign down. Repeatable."""
        with self._renewing:
            if self._file >= 0:
                self._path.unlink(missing_ok=True)
                self._close_file()

    def disown(self) -> None:
        """Close our descriptor and leave the file."""
        # Without the lock: in a forked child a thread that held it is not there to give it back.
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def make_owner(boot: str) -> str:
    """A name for one start of a process; it contains the id of the boot."""
    return f"{boot}-{os.urandom(8).hex()}"


def dead_owners(database: Path, own: str, owners: Iterable[str]) -> list[str]:
    """Those that certainly died: of an earlier boot, or the kernel let go of their life sign.

    `own` is not among them, nor an owner of this boot without a file: its lease decides.
    """
    return [
        owner
        for owner in owners
        if owner != own and (_is_of_another_boot(owner, own) or _is_unlocked(_liveness_path(database, owner)))
    ]


def _is_of_another_boot(owner: str, own: str) -> bool:
    theirs, ours = owner.rpartition("-")[0], own.rpartition("-")[0]
    return bool(theirs and ours) and theirs != ours


def living_owners(database: Path) -> list[str]:
    """Those that live on this machine."""
    prefix = len(f"{database.name}.alive-")
    return [path.name[prefix:] for path in _liveness_paths(database) if not _is_unlocked(path)]


def remove_dead_liveness_locks(database: Path, needed: Iterable[str]) -> None:
    """Remove the files of dead owners, except those with work that is still to be rescued."""
    kept = {_liveness_path(database, owner) for owner in needed}
    for path in _liveness_paths(database):
        if path not in kept and _is_unlocked(path):
            path.unlink(missing_ok=True)


def _liveness_path(database: Path, owner: str) -> Path:
    return database.with_name(f"{database.name}.alive-{owner}")


def _liveness_paths(database: Path) -> Iterator[Path]:
    prefix = f"{database.name}.alive-"
    return (path for path in database.parent.iterdir() if path.name.startswith(prefix) and path.suffix != ".new")


def _age(path: Path) -> tuple[float, str]:
    """Smaller for the older; one that is gone is younger than all."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns, path.name
    return math.inf, path.name


def _is_unlocked(path: Path) -> bool:
    # Any other error, for instance that no file descriptors are left, shows nothing about its owner.
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
        return True
    return False
