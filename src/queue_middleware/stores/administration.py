"""The port of the operator who takes care of a database: what it contains, whether it is intact, its backup and its space.

It needs no running queue, and works while other processes run one. Everything here is blocking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from queue_middleware.settings import Settings

Progress = Callable[[int, int], None]
"""Called with the bytes that are copied, and the bytes in total."""


@dataclass(frozen=True, slots=True)
class DatabaseInfo:
    """What a database is and how much it contains. Sizes are bytes, times are milliseconds since 1970."""

    path: str
    size: int
    """Of the file, without its write-ahead log."""
    log_size: int
    """Of the write-ahead log, which contains the last commits."""
    page_size: int
    pages: int
    free_pages: int
    """Pages without content, which are used before the file grows. Compacting returns them to the file system."""
    schema_version: int
    known_schema_version: int
    """The schema version of this release."""
    application: str | None
    """The option `name` of the application to which the database belongs; None until a queue has opened it."""
    created_at: int | None
    """When the table that records this was created; None for a schema without that table."""
    requests: dict[str, int]
    """How many are stored, by state. States without a request are left out."""
    oldest_request_at: int | None
    """When the oldest stored request was submitted; None if there is none."""
    oldest_unfinished_at: int | None
    """When the oldest request that has not ended was submitted; None if there is none."""
    journal_mode: str
    synchronous: str
    """What each commit of the queue waits for: `full` is the disk."""
    processes: int
    """How many processes have opened the database as a queue: services, and commands that act."""


@dataclass(frozen=True, slots=True)
class Backup:
    """A complete backup. `database` is the copy; the keys have the same name and their suffix."""

    database: Path
    size: int
    """Bytes of the copy of the database."""
    files: list[Path]
    """All files that belong to the backup."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """Bytes of the file before and after."""

    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Migration:
    """Schema versions before and after; equal if there was nothing to do."""

    before: int
    after: int


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARNING = "warning"
    """It works, but not as well or as safely as it should."""
    PROBLEM = "problem"
    """It does not work, or will fail."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an examination has looked at."""

    level: Level
    text: str
    action: str | None = None
    """What to do about it; None if there is nothing to do."""


class DatabaseAdministration(Protocol):
    """One database that exists. Each method raises `StoreError` if it cannot be read or is not a database of this package."""

    def info(self) -> DatabaseInfo:
        """What it is and contains, of one moment. Counts all requests: some milliseconds for each 100,000."""

    def check(self) -> list[str]:
        """Everything that is wrong with the file and its content, one sentence each; empty if nothing is. Reads all of it."""

    def examine(self, settings: Settings, now: int) -> list[Finding]:
        """Look at the files, the disk, the schema, the processes and the clock. Reads no content; takes milliseconds.

        `now` is the present time in milliseconds since 1970.
        """

    def fix_permissions(self) -> list[Path]:
        """Close the files of the database to other users; those that were open. Raises `MaintenanceRefused`."""

    def back_up(self, target: Path, progress: Progress | None = None) -> Backup:
        """Write a copy of one moment to `target`, with the keys that are beside the database. Processes may run and write.

        The copy is complete and readable only by its owner when it gets its name; nothing is left if the backup fails.
        Raises `MaintenanceRefused` if a file has this name, or if the disk has too little space.
        """

    def compact(self) -> Compaction:
        """Return the free pages to the file system. Raises `MaintenanceRefused` while a process has opened the database."""

    def migrate(self, *, while_running: bool = False) -> Migration:
        """Apply the migrations of this release.

        Processes of an older release store nothing from then on. Raises `MaintenanceRefused` while a process has opened the
        database, unless `while_running`.
        """
