"""Checks a database: its pages, its references, and what holds in every committed state of a queue. Blocking; only reads."""

from __future__ import annotations

import sqlite3
from typing import Any

from .sql import SQL
from .sql.schema import newest_version, version_of

Rows = list[tuple[Any, ...]]

INVARIANTS = {
    "an ended request has no webhook about its end": "check_webhook_is_missing",
    "a webhook about the end of a request that has not ended": "check_webhook_is_early",
    "a request that has not ended has lost its content": "check_content_is_lost",
    "an ended request has kept what only an attempt needs": "check_content_is_left",
    "a poll has no host": "check_poll_has_no_host",
    "a due webhook has no receiver that is looked at in time": "check_webhook_is_overlooked",
    "backlog is not what counting gives": "check_backlog",
    "backlog_client is not what counting gives": "check_backlog_client",
    "unfinished_tasks is not what counting gives": "check_unfinished_tasks",
}
"""What is wrong, and the block of `check.sql` that finds the rows. For databases with the schema of this release."""


def unreferenced_rows(connection: sqlite3.Connection) -> Rows:
    """Rows that refer to a missing row: table, row id, the table that is referred to, number of the foreign key."""
    return connection.execute("PRAGMA foreign_key_check").fetchall()


def broken_invariants(connection: sqlite3.Connection) -> dict[str, Rows]:
    """What is wrong with the content, each with the rows that show it; empty if nothing is."""
    found = {"a row belongs to nothing": unreferenced_rows(connection)}
    found |= {sentence: connection.execute(SQL[name]).fetchall() for sentence, name in INVARIANTS.items()}
    return {sentence: rows for sentence, rows in found.items() if rows}


def problems(connection: sqlite3.Connection) -> list[str]:
    """Everything that is wrong, one sentence each; empty if nothing is. At most 100 sentences about damaged pages."""
    damaged = _damage(connection)
    if damaged:
        return damaged  # what the content shows then is a consequence
    if version_of(connection) != newest_version():
        found, known = version_of(connection), newest_version()
        action = "run queue-middleware database migrate" if found < known else "check it with the release that migrated it"
        return [f"the schema has version {found}, and this release can check version {known} only: {action}"]
    return [f"{sentence} ({_count(rows)})" for sentence, rows in broken_invariants(connection).items()]


def _damage(connection: sqlite3.Connection) -> list[str]:
    lines = [str(line) for (line,) in connection.execute("PRAGMA integrity_check").fetchall()]
    return [] if lines == ["ok"] else [f"the file is damaged: {line}" for line in lines]


def _count(rows: Rows) -> str:
    return f"{len(rows)} row{'s' if len(rows) > 1 else ''}"
