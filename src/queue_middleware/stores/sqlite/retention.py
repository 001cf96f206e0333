"""Deleting what is old enough: found on the reading connection, without a turn to write, then deleted inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any

from queue_middleware.lifecycle import LARGE, SHORT, SHORT_IF_LARGE
from queue_middleware.request_id import SEQUENCE_BITS
from queue_middleware.value import Value

from .queries import SQL
from .transaction import Transaction


class Outlived(Value, frozen=True):
    """Keys of finished jobs that are no longer kept, the oldest first, of jobs whose answers are not stored, and receivers."""

    jobs: list[int]
    answers: list[int]
    hosts: list[str]
    """Hosts that nothing went to for as long."""
    flows: list[str]
    """The same of flows."""


def outlived(connection: sqlite3.Connection, now: int, retention: int, behind: int, limit: int) -> Outlived:
    """At most so many of each kind; `retention` in milliseconds, jobs only with keys behind `behind`."""
    before = now - retention
    jobs = {"behind": behind, "first_kept": (before + 1) << SEQUENCE_BITS, "before": before, "limit": limit}
    answers = {"before": now - SHORT, "before_if_large": now - SHORT_IF_LARGE, "large": LARGE, "limit": limit}
    hosts = {"before": before, "limit": limit}
    return Outlived(
        _found(connection, "outlived", jobs),
        _found(connection, "short_lived", answers),
        _found(connection, "unused_receivers", hosts),
        _found(connection, "unused_flows", hosts),
    )


def _found(connection: sqlite3.Connection, name: str, parameters: dict[str, int]) -> list[Any]:
    return [row[0] for row in connection.execute(SQL[name], parameters).fetchall()]


def prune(transaction: Transaction, batch: Sequence[Outlived]) -> list[int]:
    """Delete them; how many jobs and answers."""
    for found in batch:
        if found.hosts:
            transaction.change("forget_receivers", (json.dumps(found.hosts),))
        if found.flows:
            transaction.change("forget_flows", (json.dumps(found.flows),))
    return [_prune_jobs(transaction, found.jobs) + _prune_answers(transaction, found.answers) for found in batch]


def _prune_jobs(transaction: Transaction, keys: list[int]) -> int:
    return transaction.change("prune", (json.dumps(keys),)) if keys else 0


def _prune_answers(transaction: Transaction, keys: list[int]) -> int:
    if keys:
        for name in ("drop_answers", "drop_answer_parts", "drop_short_lived"):
            transaction.change(name, (json.dumps(keys),))
    return len(keys)
