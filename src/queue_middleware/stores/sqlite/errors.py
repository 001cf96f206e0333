"""Maps SQLite's errors to the errors of the queue."""

from __future__ import annotations

import sqlite3

from queue_middleware.errors import DiskFull, QueueError, StoreBusy, StoreError, Unavailable

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_DATABASE_WIDE = _BUSY | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
"""Primary result codes that no single operation causes. A full disk is not one: a small operation may still succeed."""


def is_database_wide(error: BaseException) -> bool:
    """Whether the error would occur for every operation."""
    return isinstance(error, Unavailable) or primary_code(error) in _DATABASE_WIDE


def is_full(error: BaseException) -> bool:
    """Whether the disk is full."""
    return primary_code(error) == sqlite3.SQLITE_FULL


def as_queue_error(error: BaseException) -> QueueError:
    """The error for the callers, with SQLite's error as its cause."""
    if isinstance(error, QueueError):
        return error
    code = primary_code(error)
    known: QueueError = StoreError("the queue's database failed; the log of the service has the error")
    if code in _BUSY:
        known = StoreBusy("the queue's database is locked by another program", 5)
    elif code == sqlite3.SQLITE_FULL:
        known = DiskFull("the disk of the queue's database is full", 30)
    known.__cause__ = error
    return known


def primary_code(error: BaseException) -> int:
    """The primary result code of an error of SQLite, or of its cause; 0 for another error."""
    return (getattr(error, "sqlite_errorcode", 0) or getattr(error.__cause__, "sqlite_errorcode", 0)) & 0xFF
