"""Copies a database as it is at one moment to a new file, while other processes write. Blocking.

The copy is made by SQLite's online backup (sqlite.org/backup.html) inside one read transaction: without the transaction, the
backup would start again after each commit of another process. A reader does not block writers, but the write-ahead log
cannot start anew until the backup has ended.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from queue_middleware import secret_file
from queue_middleware.errors import MaintenanceRefused
from queue_middleware.stores.administration import Backup, Progress

_STEP = 8 * 2**20
"""Bytes that are copied at once. `progress` is called between two steps, and an interrupt is noticed there."""
KEY_SUFFIXES = (".key", ".secret")
"""Files beside the database. Without them, a restored queue signs with a new key and its callback URLs are no longer valid."""


def back_up(source: sqlite3.Connection, database: Path, target: Path, progress: Progress | None) -> Backup:
    """Write the backup as `DatabaseAdministration.back_up` describes it. `source` is a reading connection to `database`."""
    keys = {_beside(database, suffix): _beside(target, suffix) for suffix in KEY_SUFFIXES}
    _check_names([target, *keys.values()])
    written: list[Path] = []
    try:
        with _draft_of(target) as draft:
            with _snapshot(source) as size:
                _check_space(target, size)
                _copy_pages(source, draft, progress)
            _check_copy(draft)
            # The database gets its name last: where there is a database, the backup is complete.
            for key, copy in keys.items():
                if key.exists():
                    _copy_key(key, copy)
                    written.append(copy)
            _sync(draft)
            draft.rename(target)
            _sync(target.parent)
    except BaseException as error:
        for copy in written:
            copy.unlink(missing_ok=True)
        if isinstance(error, (OSError, sqlite3.Error)):
            raise MaintenanceRefused(f"the backup {target} was not made: {_reason(error)}") from error
        raise
    return Backup(target, target.stat().st_size, [target, *written])


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _check_names(files: list[Path]) -> None:
    for file in files:
        if os.path.lexists(file):
            raise MaintenanceRefused(f"there is a file {file} already, and a backup replaces none; write another name")


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    """An empty file beside the target that only its owner can read; it is deleted at the end unless it was renamed."""
    draft = _beside(target, f".{secrets.token_hex(4)}.partial")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, secret_file.PRIVATE_MODE))
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def _snapshot(source: sqlite3.Connection) -> Iterator[int]:
    """A read transaction, in which the database stays as it is now; the bytes of its pages."""
    source.execute("BEGIN")
    try:
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()  # BEGIN alone reads nothing
        (pages,) = source.execute("PRAGMA page_count").fetchone()
        (page_size,) = source.execute("PRAGMA page_size").fetchone()
        yield pages * page_size
    finally:
        source.execute("ROLLBACK")


def _check_space(target: Path, size: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < size:
        raise MaintenanceRefused(
            f"the backup needs {size // 2**20 + 1} MiB, and {free // 2**20} MiB are free on the disk of {target}; "
            "write it to another disk"
        )


def _copy_pages(source: sqlite3.Connection, draft: Path, progress: Progress | None) -> None:
    (page_size,) = source.execute("PRAGMA page_size").fetchone()

    def report(_status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress((total - remaining) * page_size, total * page_size)

    with closing(_open_alone(draft, "rw")) as copy:
        copy.execute("PRAGMA journal_mode = OFF")  # the file is deleted if the copy is not finished
        source.backup(copy, pages=max(1, _STEP // page_size), progress=report)


def _check_copy(draft: Path) -> None:
    with closing(_open_alone(draft, "ro")) as copy:
        found = [line for (line,) in copy.execute("PRAGMA quick_check(1)").fetchall()]
    if found != ["ok"]:
        raise MaintenanceRefused(
            f"the backup was not made, because the copy is damaged ({found[0]}); the database may be damaged too: "
            "run queue-middleware database check"
        )


def _open_alone(draft: Path, mode: str) -> sqlite3.Connection:
    """A connection without locks and without files beside the database: no other process knows the draft."""
    alone = "nolock=1" if mode == "rw" else "immutable=1"
    return sqlite3.connect(f"file:{quote(str(draft))}?mode={mode}&{alone}", uri=True, isolation_level=None)


def _copy_key(key: Path, copy: Path) -> None:
    text = key.read_bytes()
    with _draft_of(copy) as draft:
        draft.write_bytes(text)
        _sync(draft)
        draft.rename(copy)


def _sync(path: Path) -> None:
    """Make the content of a file, or the names of a folder, survive a power failure."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _reason(error: OSError | sqlite3.Error) -> str:
    return secret_file.reason_of(error) if isinstance(error, OSError) else str(error)
