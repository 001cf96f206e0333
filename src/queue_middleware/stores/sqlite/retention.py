"""Deleting what is old enough: found on the reading connection, without a turn to write, then deleted inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from queue_middleware.lifecycle import LARGE, SHORT, SHORT_IF_LARGE
from queue_middleware.request_id import SEQUENCE_BITS
from queue_middleware.value import Value
from queue_middleware.wallclock import AHEAD

from .queries import SQL
from .transaction import Transaction


class Outlived(Value, frozen=True):
    """Keys of finished jobs that are no longer kept, the oldest first, of jobs whose answers are not stored, and hosts."""

    jobs: list[int]
    answers: list[int]
    hosts: list[str]
    """Receivers that nothing went to for as long."""
    ahead: list[int]
    """Keys of finished jobs whose end lies in the future, by a clock that was wrong. From now on they are as old as today."""

    @property
    def is_any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.jobs or self.answers or self.hosts or self.ahead)


def outlived(connection: sqlite3.Connection, now: int, retention: int, behind: int, limit: int) -> Outlived:
    """At most so many of each kind; `retention` in milliseconds, jobs only with keys behind `behind`."""
    before = now - retention
    ahead = {"ahead": now + AHEAD << SEQUENCE_BITS, "latest": now + AHEAD, "before": before, "limit": limit}
    jobs = {"behind": behind, "first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit}
    answers = {"before": now - SHORT, "before_if_large": now - SHORT_IF_LARGE, "large": LARGE, "limit": limit}
    hosts = {"before": before, "latest": now + AHEAD, "limit": limit}
    found = _found(connection, "outlived", jobs)
    # The others are looked for when all of the usual ones are gone: then few rows are in the way.
    found += _found(connection, "outlived_ahead", ahead) if len(found) < limit else []
    return Outlived(
        found[:limit],
        _found(connection, "short_lived", answers),
        _found(connection, "unused_receivers", hosts),
        _found(connection, "ended_ahead", {**ahead, **jobs}) if len(found) < limit else [],
    )


def _found(connection: sqlite3.Connection, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in connection.execute(SQL[name], parameters).fetchall()]


def prune(transaction: Transaction, batch: Sequence[Outlived]) -> list[int]:
    """Delete them; how many jobs and answers."""
    for found in batch:
        if found.hosts:
            transaction.change("forget_receivers", (json.dumps(found.hosts),))
        if found.ahead:
            transaction.change("ended_now", (transaction.now, json.dumps(found.ahead)))
    return [_prune_jobs(transaction, found.jobs) + _prune_answers(transaction, found.answers) for found in batch]


def _prune_jobs(transaction: Transaction, keys: list[int]) -> int:
    return transaction.change("prune", (json.dumps(keys),)) if keys else 0


def _prune_answers(transaction: Transaction, keys: list[int]) -> int:
    if keys:
        for name in ("drop_answers", "drop_answer_parts", "drop_short_lived"):
            transaction.change(name, (json.dumps(keys),))
    return len(keys)
