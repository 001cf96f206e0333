"""Two uses of flock(2): a write lock shared by all processes, and a liveness lock for each process."""

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
    """A lock that is held for every write transaction and checkpoint.

    Processes get it in the order in which they wait; with SQLite's own busy handler some would wait forever. It also prevents
    two connections from committing and checkpointing at the same time, which can lose commits in SQLite before 3.51.3. Each
    instance has its own descriptor, so two connections of one process exclude each other as well.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # This runs after COMMIT and must not fail. If the descriptor was closed elsewhere, the kernel has released the lock.
        try:  # noqa: SIM105 - a context manager costs more than the call
            fcntl.flock(self._file, fcntl.LOCK_UN)
        except (OSError, ValueError):
            pass

    def close(self) -> None:
        """Close the descriptor, which releases the lock. Idempotent."""
        self.disown()

    def disown(self) -> None:
        """Close the descriptor. A lock that the parent process shares stays locked."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LivenessLock:
    """A file that a process keeps locked while it runs. The kernel releases the lock however the process ends."""

    def __init__(self, database: Path, owner: str) -> None:
        self._database = database
        self._path = _liveness_path(database, owner)
        self._file = -1
        self._renewing = threading.Lock()
        self._create()

    def _create(self) -> None:
        # The file is locked before it gets its name, so no process finds it unlocked and considers its owner dead.
        hidden = self._path.with_name(f"{self._path.name}.new")
        made = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(made, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.utime(made)  # more precise than the kernel's timestamp, so that two files have an order
            hidden.rename(self._path)
        except BaseException:
            os.close(made)
            raise
        self._file, old = made, self._file
        if old >= 0:
            os.close(old)

    def restore(self) -> None:
        """Create the file again if it was removed, for instance by a cleanup program. Called in the thread that renews leases.

        Raises `OSError`. Does nothing after `close` or `disown`.
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
        """Whether no other running process has had the database open for longer. The oldest one reports for all."""
        own = _age(self._path)
        return all(
            _age(path) >= own for path in _liveness_paths(self._database) if path != self._path and not _is_unlocked(path)
        )

    def close(self) -> None:
        """Remove the file. Idempotent."""
        with self._renewing:
            if self._file >= 0:
                self._path.unlink(missing_ok=True)
                self._close_file()

    def disown(self) -> None:
        """Close the descriptor and leave the file."""
        # Without `_renewing`: in a forked child the thread that may hold it does not exist.
        self._close_file()

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def make_owner(boot: str) -> str:
    """A name for one start of a process; it contains the id of the boot."""
    return f"{boot}-{os.urandom(8).hex()}"


def dead_owners(database: Path, own: str, owners: Iterable[str]) -> list[str]:
    """The owners that are certainly dead: those of an earlier boot, and those whose liveness lock is released.

    `own` is never among them. An owner of this boot without a file is not either: its lease decides.
    """
    return [
        owner
        for owner in owners
        if owner != own and (_is_of_another_boot(owner, own) or _is_unlocked(_liveness_path(database, owner)))
    ]


def _is_of_another_boot(owner: str, own: str) -> bool:
    boot, own_boot = owner.rpartition("-")[0], own.rpartition("-")[0]
    return bool(boot and own_boot) and boot != own_boot


def living_owners(database: Path) -> list[str]:
    """The owners that are running."""
    prefix = len(f"{database.name}.alive-")
    return [path.name[prefix:] for path in _liveness_paths(database) if not _is_unlocked(path)]


def remove_dead_liveness_locks(database: Path, needed: Iterable[str]) -> None:
    """Remove the files of dead owners, except of those whose work was not rescued yet."""
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
    """A value that is smaller for an older file, and largest for a missing one."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime_ns, path.name
    return math.inf, path.name


def _is_unlocked(path: Path) -> bool:
    # Any error, for instance that no descriptors are left, shows nothing about the owner.
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(file)
        return True
    return False
