"""Applies migrations: numbered SQL files, each applied once. `PRAGMA user_version` is the number of the last one."""

from __future__ import annotations

import sqlite3
from functools import cache
from importlib.resources import files
from pathlib import Path

from queue_middleware.errors import Outdated, StoreError

_RETRY_AFTER = 10
_FIRST = 100
"""The number of the first released schema. Databases with an earlier schema cannot be used."""


def migrations() -> list[tuple[int, str]]:
    """The number and text of each migration, in order."""
    folder = files(__package__) / "migrations"
    found = sorted((item.name, item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".sql"))
    return [(int(name[:4]), text) for name, text in found]


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations, each in its own transaction.

    Raises `StoreError` if the schema is of a later release, or of a version before the first release.
    """
    version = version_of(connection)
    known = migrations()
    if version > known[-1][0]:
        raise StoreError(f"the database has schema version {version}, this release knows {known[-1][0]}; upgrade the package")
    if 0 < version < _FIRST:
        raise StoreError(
            f"the database's schema version {version} is of a version before the first release, which cannot be upgraded; "
            "move the file away, a new one is created"
        )
    for number, text in known:
        if number > version:
            connection.executescript(f"BEGIN IMMEDIATE;\n{text}\nPRAGMA user_version = {number};\nCOMMIT;")


def check_schema(connection: sqlite3.Connection) -> None:
    """Raise `Outdated` if another release has migrated the schema since this process has opened the file."""
    version = version_of(connection)
    if version != newest_version():
        raise Outdated(
            f"the database has schema version {version} by now, this process knows {newest_version()}: "
            "restart this process with the release that the others run",
            _RETRY_AFTER,
        )


def check_readable(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` unless the schema is that of this release."""
    version, known = version_of(connection), newest_version()
    if version > known:
        raise StoreError(f"the database has schema version {version}, this release knows {known}; upgrade the package")
    if version < known:
        raise StoreError(
            f"the database {path} has schema version {version}, this release reads {known}: use the release that the "
            "service runs, or upgrade the database: stop the service and run 'queue-middleware database migrate'"
        )


@cache
def newest_version() -> int:
    """The number of the last migration of this release."""
    return migrations()[-1][0]


def version_of(connection: sqlite3.Connection) -> int:
    """The number of the last migration that was applied; 0 for a new file."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
