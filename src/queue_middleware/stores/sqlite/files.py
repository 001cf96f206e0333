"""The database file and its companions: the turn locks, the bells and the sign of life. Blocking."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

from queue_middleware.errors import StoreError

from . import reading
from .bells import Bells
from .connection import LARGEST_WAL, open_connection
from .locks import LifeSign, TurnLock, sweep_life_signs
from .migrations import migrate

_RESET_MENDED = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""Releases from which on the write-ahead log cannot be reset under a writer."""
_PAGE = 8192
"""Bytes. Jobs with bodies of a kilobyte cost a fifth less than with pages of 4096."""


def database_path(database: str) -> Path:
    """The file that the option `database` names. Raises `StoreError` for another kind of database."""
    scheme, separator, rest = database.partition("://")
    if not separator:
        return Path(database).absolute()
    if scheme != "sqlite":
        raise StoreError(f"database {scheme}://… is not supported; write a path or sqlite:///path")
    return Path("/" + rest.lstrip("/") if rest.startswith("//") else rest.removeprefix("/")).absolute()


def warnings(path: Path) -> list[str]:
    """What the operator should know about this database, sentence by sentence. Blocking: it looks at files."""
    found = []
    version = sqlite3.sqlite_version_info
    if version < _RESET_MENDED[0] and not any(version[:2] == mended[:2] and version >= mended for mended in _RESET_MENDED):
        found.append(
            f"SQLite {sqlite3.sqlite_version} can lose commits when two connections checkpoint at once (mended in 3.51.3); "
            "our processes take turns, so write to the file with no other program while the queue runs"
        )
    if _open_to_others(path):
        found.append(
            f"the database {path} can be read or written by others, and what clients submit is in it; "
            f"run: chmod 600 {' '.join(f'{path}{end}' for end in ('', '-wal', '-shm'))}"
        )
    if _wal_is_stuck(path):
        found.append(
            f"the write-ahead log {path}-wal is larger than {LARGEST_WAL // 2**20} MiB and grows, because somebody "
            "keeps reading an old state of the database: end the backup or the shell that does"
        )
    return found


def _open_to_others(path: Path) -> bool:
    """Whether somebody beside the owner may read or write the file. Those that we make are not; others may have made it."""
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _wal_is_stuck(path: Path) -> bool:
    """Whether the write-ahead log is longer than it is cut to whenever all of it is in the database."""
    wal = path.with_name(f"{path.name}-wal")
    return wal.exists() and wal.stat().st_size > LARGEST_WAL


class Files:
    """What a store holds open beside its connections."""

    def __init__(self, path: Path, owner: str) -> None:
        """Create or migrate the file. Raises `StoreError` with nothing left open."""
        self._held: list[TurnLock | LifeSign | Bells] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self.turn = self._lock(path)
            self.renewal_turn = self._lock(path)
            with self.turn:
                _create(path)
            self.bells = Bells(path, owner)
            self._held.append(self.bells)
            self.life = LifeSign(path, owner)
            self._held.append(self.life)
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreError(f"the database {path} cannot be opened: {error}") from error
        except BaseException:
            self.close()
            raise

    def _lock(self, path: Path) -> TurnLock:
        lock = TurnLock(path.with_name(f"{path.name}.lock"))
        self._held.append(lock)
        return lock

    def close(self, *, leave_life_sign: bool = False) -> None:
        """Let go of everything. A life sign that is left, without its lock, tells others to take over. Repeatable."""
        if leave_life_sign:
            self.life.disown()
        for held in reversed(self._held):
            held.close()

    def disown(self) -> None:
        """In a forked child: let go without unlocking. The locks are the parent's, but we would keep them when it dies."""
        for held in self._held:
            held.disown()


def _create(path: Path) -> None:
    if not path.exists():
        # What clients sent is in it: for the owner of the service only.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    connection = open_connection(path)
    try:
        connection.execute(f"PRAGMA page_size = {_PAGE}")  # of a new file; an old one keeps its own
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"{path} does not take a write-ahead log, its journal is {mode!r}")
        migrate(connection)
        sweep_life_signs(path, reading.owners(connection))
    finally:
        connection.close()
