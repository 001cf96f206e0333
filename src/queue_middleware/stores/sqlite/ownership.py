"""Checks that a file is a database of this package and of this application before it is changed."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

from queue_middleware.errors import StoreError


def check_application(connection: sqlite3.Connection, path: Path, name: str | None) -> None:
    """Raise `StoreError` for a database of another program, or of an application with another name."""
    tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()}
    if tables and not {"job", "payload"} <= tables:
        raise StoreError(
            f"{path} is the database of another program; give the queue a file of its own, database='queue.sqlite3'"
        )
    if name is not None and "application" in tables:
        _compare(_stored_name(connection), path, name)


def adopt(connection: sqlite3.Connection, path: Path, name: str) -> None:
    """Store the name in a database that has none. Raises `StoreError` if another application has stored its name first."""
    if _stored_name(connection) is None:
        connection.execute("INSERT INTO application (id, name) VALUES (1, ?) ON CONFLICT DO NOTHING", (name,))
    _compare(_stored_name(connection), path, name)


def _stored_name(connection: sqlite3.Connection) -> str | None:
    row = connection.execute("SELECT name FROM application").fetchone()
    return None if row is None else str(row[0])


def _compare(stored: str | None, path: Path, name: str) -> None:
    if stored is None or stored == name:
        return
    file = re.sub(r"[^A-Za-z0-9_-]+", "-", name) + ".sqlite3"
    raise StoreError(
        f"the database {path} belongs to the application {stored!r}, and this is the application {name!r}; each would execute "
        f"the requests of the other. Give this one a database of its own: database={file!r} or QUEUE_DATABASE={file}. If it is "
        f"the same application under another name, keep the old name: name={stored!r} or QUEUE_NAME={stored}"
    )
