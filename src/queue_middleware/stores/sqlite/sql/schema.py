"""Migrations: numbered SQL files, each applied once; `PRAGMA user_version` is the number of the last one."""

from __future__ import annotations

import sqlite3
from functools import cache
from importlib.resources import files

from queue_middleware.errors import Outdated, StoreError

_RETRY_AFTER = 10
_FIRST = 100
"""Of the schema that the first release began with; databases of the versions before it cannot be used."""


def migrations() -> list[tuple[int, str]]:
    """Number and text of each, in order."""
    folder = files(__package__) / "migrations"
    found = sorted((item.name, item.read_text(encoding="utf-8")) for item in folder.iterdir() if item.name.endswith(".sql"))
    return [(int(name[:4]), text) for name, text in found]


def migrate(connection: sqlite3.Connection) -> None:
    """Apply the migrations that are missing, each in a transaction of its own.

    Raises `StoreError` for a file of a later version, and for one of a version before the first release.
    """
    version = _version(connection)
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
    """Raise `Outdated` where another release has migrated the file that this process has open."""
    version = _version(connection)
    if version != _newest():
        raise Outdated(
            f"the database has schema version {version} by now, this process knows {_newest()}: "
            "restart this process with the release that the others run",
            _RETRY_AFTER,
        )


@cache
def _newest() -> int:
    return migrations()[-1][0]


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
