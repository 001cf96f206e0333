"""Examines the files of a database and their surroundings for the operator. Blocking; changes nothing but permissions."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from queue_middleware.errors import MaintenanceRefused, StoreError
from queue_middleware.jobs.ids import SEQUENCE_BITS
from queue_middleware.secret_file import PRIVATE_MODE
from queue_middleware.settings import Settings
from queue_middleware.stores.administration import Finding, Level

from .disk import low_space_reason, mount_of, mount_table, refuse_network_filesystem
from .files import check_requirements, log_warning, names_warning, notes
from .locks import living_owners
from .sql import SQL
from .sql.schema import newest_version, version_of

_SUFFIXES = ("", "-wal", "-shm", ".lock", ".key", ".secret", ".reserve")
"""Of the files beside the database that contain something or that a process must be able to open."""
_CLOCK_TOLERANCE = 1_000
"""Milliseconds by which the newest request may be ahead of the clock."""
_LOCK_PATIENCE = 5.0
"""Seconds after which a process that holds the write lock counts as blocked. A transaction takes milliseconds."""
_PROCESSES_SINCE = 101
"""The first schema version with the table `process`."""


def examine_files(path: Path, settings: Settings) -> Iterator[Finding]:
    """File system, disk, permissions, locks. Works without a connection."""
    yield from _place(path, settings)
    yield from _disk(path, settings)
    yield from _permissions(path)
    for sentence in (log_warning(path), names_warning(path)):
        if sentence is not None:
            yield Finding(Level.PROBLEM, sentence)
    for note in notes():
        yield Finding(Level.OK, note)
    if _is_blocked(path):
        yield Finding(
            Level.PROBLEM,
            f"a process has held the write lock {path}.lock for more than {_LOCK_PATIENCE:g} s, so nothing can be stored",
            f"find it with: fuser {path}.lock",
        )


def _place(path: Path, settings: Settings) -> Iterator[Finding]:
    try:
        check_requirements(path, settings)
        if settings.allow_network_filesystem:
            refuse_network_filesystem(path, mount_table())
    except StoreError as error:
        level = Level.WARNING if settings.allow_network_filesystem else Level.PROBLEM
        yield Finding(level, error.detail)
        return
    kind = mount_of(path, mount_table())[1] or "a local file system"
    mode = stat.S_IMODE(path.stat().st_mode)
    yield Finding(Level.OK, f"{path} is on {kind}, mode {mode:04o}; SQLite {sqlite3.sqlite_version}")


def _disk(path: Path, settings: Settings) -> Iterator[Finding]:
    reason = low_space_reason(path, settings.min_free_disk)
    if reason is None:
        yield Finding(Level.OK, f"{shutil.disk_usage(path.parent).free / 2**30:.1f} GiB of disk are free")
    else:
        yield Finding(Level.PROBLEM, f"{reason}: submissions are refused", "free space, or set min_free_disk to less")


def _present(path: Path) -> list[Path]:
    return [file for suffix in _SUFFIXES if (file := path.with_name(f"{path.name}{suffix}")).exists()]


def _open_to_others(path: Path) -> list[Path]:
    return [file for file in _present(path) if stat.S_IMODE(file.stat().st_mode) & 0o077]


def _permissions(path: Path) -> Iterator[Finding]:
    opened = _open_to_others(path)
    if opened:
        names = ", ".join(file.name for file in opened)
        action = f"run queue-middleware doctor --fix-permissions, or: chmod 600 {' '.join(map(str, opened))}"
        yield Finding(Level.PROBLEM, f"other users can read or write {names}", action)
    owner = path.stat().st_uid
    foreign = [file for file in _present(path) if file.stat().st_uid != owner]
    if foreign:
        names = ", ".join(file.name for file in foreign)
        text = f"{names} and {path.name} have different owners, so the service may be unable to open them"
        yield Finding(Level.PROBLEM, text, f"run: chown {_user(owner)} {' '.join(map(str, foreign))}")
    folder = path.parent.stat()
    if folder.st_mode & 0o022 and not folder.st_mode & stat.S_ISVTX:
        text = f"other users can write to the folder {path.parent}, and so replace the database"
        yield Finding(Level.WARNING, text, f"run: chmod 700 {path.parent}")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _is_blocked(path: Path) -> bool:
    """Whether the write lock cannot be had in time. It is waited for, because a busy service holds it nearly always."""
    try:
        file = os.open(path.with_name(f"{path.name}.lock"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # no process has opened the database yet; a file without permission is found elsewhere

    def wait() -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
        os.close(file)

    waiting = threading.Thread(target=wait, daemon=True)  # a daemon, because it may wait for longer than this process runs
    waiting.start()
    waiting.join(_LOCK_PATIENCE)
    return waiting.is_alive()


def fix_permissions(path: Path) -> list[Path]:
    """Close the files to other users; those that were open. Raises `MaintenanceRefused`."""
    opened = _open_to_others(path)
    for file in opened:
        try:
            file.chmod(PRIVATE_MODE)
        except OSError as error:
            raise MaintenanceRefused(f"the permissions of {file} cannot be changed: {error.strerror}") from error
    return opened


def examine_content(connection: sqlite3.Connection, path: Path, now: int) -> Iterator[Finding]:
    """Schema, processes, clock."""
    version, known = version_of(connection), newest_version()
    if version > known:
        text = f"the schema has version {version} and this release knows version {known}: it cannot use the database"
        yield Finding(Level.PROBLEM, text, "upgrade the package")
        return
    if version < known:
        text = f"the schema has version {version}, this release has version {known}"
        yield Finding(Level.WARNING, text, "restart all processes with this release; the first one migrates the database")
    yield from _processes(connection, path, version)
    yield from _clock(connection, now)


def _processes(connection: sqlite3.Connection, path: Path, version: int) -> Iterator[Finding]:
    living = living_owners(path)
    rows = connection.execute("SELECT owner, version FROM process").fetchall() if version >= _PROCESSES_SINCE else []
    versions = sorted({str(found) for owner, found in rows if owner in living})
    if len(versions) > 1:
        text = f"processes of the releases {' and '.join(versions)} run at the same time"
        yield Finding(Level.WARNING, text, "restart those of the older release")
    waiting = connection.execute(SQL["oldest_requests"]).fetchone()[1]
    if living:
        processes = "1 process has" if len(living) == 1 else f"{len(living)} processes have"
        yield Finding(Level.OK, f"{processes} the database open")
    elif waiting is not None:
        yield Finding(Level.WARNING, "requests have not ended, and no process runs", "start the service")
    else:
        yield Finding(Level.OK, "no process has the database open, and all requests have ended")


def _clock(connection: sqlite3.Connection, now: int) -> Iterator[Finding]:
    (newest,) = connection.execute(SQL["newest_request"]).fetchone()
    ahead = 0 if newest is None else (newest >> SEQUENCE_BITS) - now
    if ahead > _CLOCK_TOLERANCE:
        text = f"the clock is {ahead / 1000:.0f} s behind the newest request"
        yield Finding(Level.PROBLEM, text, "set the clock: schedules, ids and signatures depend on it")
