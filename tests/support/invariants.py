"""What is true of a database of SQLite whatever has been done to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from queue_middleware.stores.sqlite import checks


def broken_invariants(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """What is wrong, with the rows that show it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return checks.broken_invariants(connection)
