"""Log lines: the operation that stores them, inside a transaction that the writer opened, and how they are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from queue_middleware.models import Claim, LogLine, Progress

from .codec import decode_lines
from .queries import SQL
from .transaction import Transaction

Said = tuple[Claim, int, bytes, Progress | None]
"""Claim, how many lines, the lines, and how far it is."""


def log(transaction: Transaction, batch: Sequence[Said]) -> list[bool]:
    """Store lines and progress."""
    return [_log(transaction, *said) for said in batch]


def _log(transaction: Transaction, claim: Claim, count: int, lines: bytes, progress: Progress | None) -> bool:
    held = False
    if progress is not None:
        held = transaction.change("report", (progress.fraction, progress.stage, claim.key, claim.token)) > 0
    if count:
        row = {"key": claim.key, "token": claim.token, "count": count, "lines": lines}
        held = transaction.change("log", row) > 0
    return held


def logs(connection: sqlite3.Connection, key: int, after: int) -> list[LogLine]:
    """The lines of a job behind number `after`, from the reading connection."""
    found: list[LogLine] = []
    for last, data in connection.execute(SQL["logs"], (key, after)).fetchall():
        lines = decode_lines(data, last)
        found += lines if lines[0].number > after else [line for line in lines if line.number > after]
    return found
