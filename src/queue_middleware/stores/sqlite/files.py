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


def open_to_others(path: Path) -> bool:
    """Whether somebody beside the owner may read or write the file. Those that we make are not; others may have made it."""
    return path.exists() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def wal_is_stuck(path: Path) -> bool:
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
